"""What the benchmarks compare is the same work."""

import json

import numpy as np
import pytest
import tensorflow as tf

import data_util
import model
import resnet
from benchmarks import bare, breakdown, flops, pipeline, step, timing
from cvr import methods
from cvr.configs import derived
from cvr.configs.config import Config


@pytest.mark.parametrize(
  'depth, size, stem', [(18, 32, 'cifar'), (50, 64, 'imagenet')]
)
def test_the_bare_networks_are_ours(depth, size, stem):
  images = tf.TensorSpec([2, size, size, 3])
  ours = resnet.ResNet(depth, stem=stem)
  plain = bare.encoder(depth, size, stem)
  costs = [
    flops.forward(lambda x, net=net: net(x, training=True), images)
    for net in (ours, plain)
  ]
  assert costs[0] == costs[1]
  counts = [
    sum(int(np.prod(v.shape)) for v in net.trainable_variables)
    for net in (ours, plain)
  ]
  assert counts[0] == counts[1]


def test_the_bare_heads_are_ours():
  features = tf.TensorSpec([2, 24])
  ours, plain = model.MLP(2, 16, 8), bare.mlp(24, 16, 8)
  costs = [
    flops.forward(lambda x: ours(x, training=True)[-1], features),
    flops.forward(lambda x: plain(x, training=True), features),
  ]
  assert costs[0] == costs[1] > 0


def test_the_plain_pipeline_does_what_ours_does():
  recipe = derived.augmentation(Config(image_size=40))
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, [12, 40, 40, 3], dtype=np.uint8)
  draws = rng.random([12, len(data_util.DRAWS)], np.float32)
  for i in range(2):
    ours = data_util.augment_batch(
      images,
      draws,
      strengths=(0.4, 0.4, 0.2, 0.1),
      blur_prob=recipe.blur[i],
      solarize_prob=recipe.solarize[i],
      mean_std=True,
    )
    plain = [
      pipeline._plain_view(image, data_util.named(u), [0, 0, 40, 40], recipe, i)
      for image, u in zip(images, tf.constant(draws), strict=True)
    ]
    np.testing.assert_allclose(ours, plain, atol=1e-4)


def test_the_fastest_of_turns_counts_and_is_written(tmp_path, capsys):
  calls = []
  found = timing.best({'a': lambda: calls.append('a'),
                       'b': lambda: calls.append('b')}, rounds=2)  # fmt: skip
  assert ''.join(calls) == 'aabb' + 'aabb' * 2
  assert set(found) == {'a', 'b'} and min(found.values()) > 0
  timing.report('x', [{'name': 'a', 'ms': '1.0'}], tmp_path)
  assert 'name   ms' in capsys.readouterr().out
  facts = json.loads((tmp_path / 'x.json').read_text())
  assert facts['rows'] == [{'name': 'a', 'ms': '1.0'}] and facts['machine']


def test_the_recipes_that_are_timed_are_the_published_ones():
  assert set(step.PRESETS) <= set(methods.METHODS)
  cfg = step.make_config('byol_ceb', 18, 32, 64, 'bf16')
  assert (cfg.pretrain_loss, cfg.precision) == ('byol_ceb', 'bf16')
  assert cfg.optimizer == 'lars' and cfg.use_blur


def test_a_convolution_and_its_two_gradients_cost_the_same():
  image = tf.TensorSpec([4, 8, 8, 3])
  kernel = tf.TensorSpec([3, 3, 3, 5])
  matrix = tf.TensorSpec([3, 6])

  @tf.function(autograph=False)
  def gradients(x, kernel, matrix):
    with tf.GradientTape() as tape:
      tape.watch([x, kernel, matrix])
      y = tf.nn.relu(tf.nn.conv2d(x, kernel, 2, 'SAME'))
      z = tf.matmul(tf.reshape(x, [-1, 3]), matrix)
      total = tf.reduce_sum(y * y) + tf.reduce_sum(z * z)
    return tape.gradient(total, [x, kernel, matrix])

  graph = gradients.get_concrete_function(image, kernel, matrix).graph
  work = breakdown.written(graph)
  convolution, product = 2 * 27 * 4 * 4 * 4 * 5, 2 * 3 * 4 * 64 * 6
  for kind in list(breakdown.KINDS)[:3]:
    assert work[kind][0] == convolution
  assert work['other products'][0] == 3 * product
  # Forward: one tensor in, one out; backward: two in, one out.
  assert work['ReLU'] == (0, 5 * 4 * 4 * 4 * 4 * 5)


def test_the_profile_knows_its_operations():
  x = tf.random.uniform([1024, 1024])  # Cheap ones are not recorded.
  call = tf.function(lambda: tf.linalg.matmul(x, x), autograph=False)
  found = breakdown.profile(lambda: call().numpy())
  assert found['other products'] > 0
  assert breakdown.kind_of('_MklNativeConv2D') == 'convolutions'
  assert breakdown.kind_of('_FusedBatchNormEx') == 'batch norm'
  assert not set(found) - set(breakdown.KINDS) - {breakdown.REST}
