"""Released checkpoints: names, what is inferred, in, out, what is refused."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import model
import released_names
import resnet
from cvr import methods
from cvr.checkpoints import released
from cvr.configs.config import Config
from lars_optimizer import LARS
from released_files import SMALL, _bn, features, finetuned, read, values, write
from released_names import SLOT
from small_data import plan_of

DIGESTS = {
  ('simclr', 0.0): '3b32ff2f86c9db9d',
  ('simclr', 0.0625): '0d9934f0ad225fb6',
  ('byol', 0.0): '5ad2558eeefae40a',
  ('cbyol', 0.0): '69b42dc8c820f4e0',
}
LOSS = {'simclr': 'contrastive', 'byol': 'byol', 'cbyol': 'byol_ceb'}


def build(path, image_size=32):
  """Our method and probe for what is inferred of a file."""
  found = released.infer(path)
  cfg = Config(
    **found.settings, pretrain_loss=found.methods[0], image_size=image_size
  )
  method = methods.make_method(plan_of(cfg, 10, 0))
  probe = None
  if found.num_classes:
    probe = model.Classifier(found.num_classes)
    probe(method.probed(method.embed(tf.zeros([1, image_size, image_size, 3]))))
  return method, probe, released.parts_of(method, probe)


def lars(trained):
  rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
  optimizer = LARS(rate, weight_decay=0.0, decayed=[])
  optimizer._create_all_weights(trained)
  return optimizer


# An encoder of functions alone, which reads the released names --------------


# Names ----------------------------------------------------------------------


@pytest.mark.parametrize('family, sk', DIGESTS)
def test_the_rules_of_the_tests_make_the_real_lists(family, sk):
  shapes = released_names.tensors(family, sk=sk)
  assert released_names.digest(shapes) == DIGESTS[family, sk]


@pytest.mark.parametrize('family, sk', DIGESTS)
def test_real_sizes_load_and_compute_what_the_names_say(tmp_path, family, sk):
  """ResNet-50 with heads of 4096, as released; features to 1e-4.

  The probes read the projection, but for BYOL's here: the representation.
  """
  width = 2048 if family == 'byol' else 256
  tensors = values(released_names.tensors(family, sk=sk, probe=(width, 1000)))
  path = write(tmp_path / 'ckpt-1', tensors)
  assert released.recognised(path)
  method, probe, parts = build(path)
  report = released.load(path, parts)
  assert report.matched == sum(
    SLOT not in name and name not in ('global_step', 'save_counter')
    for name in tensors
  )
  rng = np.random.default_rng(1)
  images = tf.constant(rng.standard_normal((2, 32, 32, 3)), tf.float32)
  h = features(tensors, images)
  np.testing.assert_allclose(
    method.embed(images)['representation'], h, rtol=1e-4, atol=1e-4
  )
  if family != 'simclr':
    twin = features(tensors, images, 'model/_target_resnet')
    ours = method.target_encoder(images)
    np.testing.assert_allclose(ours, twin, rtol=1e-4, atol=1e-4)
  found = method.embed(images)
  read = found['representation' if width == 2048 else 'projection']
  root = 'model/supervised_head/linear_layer/dense'
  np.testing.assert_allclose(
    probe(method.probed(found)),
    read @ tensors[f'{root}/kernel'] + tensors[f'{root}/bias'],
    rtol=1e-4,
    atol=1e-4,
  )


def _head(t, root, x, last=1):
  layers = f'{root}/linear_layers'
  x = x @ t[f'{layers}/0/dense/kernel']
  x = tf.nn.relu(_bn(t, f'{layers}/0/bn_relu', x))
  return x @ t[f'{layers}/{last}/dense/kernel']


def test_every_head_of_cbyol_computes_what_its_names_say(tmp_path):
  t = values(released_names.tensors('cbyol', **SMALL))
  path = write(tmp_path / 'ckpt-1', t)
  method, probe, parts = build(path)
  released.load(path, parts)
  rng = np.random.default_rng(1)
  views = [tf.constant(rng.standard_normal((2, 32, 32, 3)), tf.float32)] * 2
  out = method.encode(views, tf.constant(0, tf.int64), training=False)
  projection = _head(t, 'model/_projection_head', features(t, views[0]))
  mu = tf.math.l2_normalize(_head(t, 'model/_projector', projection, 2), -1)
  target = features(t, views[0], 'model/_target_resnet')
  target = tf.math.l2_normalize(_head(t, 'model/_target_head', target), -1)
  backward = _head(t, 'model/_target_projector', target)
  expected = {
    'mu': mu,
    'prediction': mu @ t['model/_projector/linear_layers/3/dense/kernel'],
    'target': target,
    'backward': tf.math.l2_normalize(backward, -1),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(
      out[name][0], value, rtol=1e-3, atol=1e-4, err_msg=name
    )
  dense = 'model/supervised_head/linear_layer/dense'
  np.testing.assert_allclose(
    probe(out['probed']),
    projection @ t[f'{dense}/kernel'] + t[f'{dense}/bias'],
    rtol=1e-3,
    atol=1e-4,
  )


# What is inferred -------------------------------------------------------------


@pytest.mark.parametrize('depth', resnet.BLOCKS)
@pytest.mark.parametrize('width', [1, 2, 4])
def test_depth_and_width_follow_from_names_and_shapes(
  tmp_path, monkeypatch, depth, width
):
  shapes = released_names.tensors('byol', depth=depth, width=width)
  monkeypatch.setattr(released, '_shapes', lambda path: shapes)
  monkeypatch.setattr(released, 'step', lambda path: 7)
  found = released.infer('anywhere')
  settings = found.settings
  assert settings['resnet_depth'] == depth
  assert settings['width_multiplier'] == width
  assert (settings['sk_ratio'], settings['stem']) == (0.0, 'imagenet')
  assert found.methods == ('byol',) and found.num_classes == 1000
  assert settings['proj_head_hidden_dim'] == 4096
  assert settings['ft_proj_selector'] == -1
  assert f'BYOL, ResNet-{depth} {width}x' in found.describe()


@pytest.mark.parametrize(
  'probe, reads', [((2048, 10), 0), ((4096, 1000), 1), ((256, 7), -1)]
)
def test_the_probe_tells_its_layer_and_its_classes(monkeypatch, probe, reads):
  shapes = released_names.tensors('simclr', probe=probe)
  monkeypatch.setattr(released, '_shapes', lambda path: shapes)
  monkeypatch.setattr(released, 'step', lambda path: 7)
  found = released.infer('anywhere')
  assert found.settings['ft_proj_selector'] == reads
  assert found.num_classes == probe[1]
  assert found.methods == ('contrastive', 'contrastive_ceb')


@pytest.mark.parametrize(
  'change, says',
  [
    (dict(probe=(300, 10)), 'probe reads 300'),
    (dict(width=3), None),
  ],
)
def test_what_fits_no_model_is_said(monkeypatch, change, says):
  shapes = released_names.tensors('simclr', **change)
  if says is None:
    shapes = {n: s for n, s in shapes.items() if '/layers/5/' not in n}
    says = 'no ResNet'
  monkeypatch.setattr(released, '_shapes', lambda path: shapes)
  with pytest.raises(released.Mismatch, match=says):
    released.infer('anywhere')


@pytest.mark.parametrize('sk', [0.0, 0.0625])
@pytest.mark.parametrize(
  'name',
  [
    '_resnet/initial_conv_relu_max_pool/0/conv2d/kernel',
    '_resnet/block_groups/0/layers/0/conv_relu_dropblock_layers/0/conv2d/kernel',
    '_projection_head/linear_layers/0/dense/kernel',
  ],
)
def test_what_the_model_is_read_off_is_named_when_missing(
  monkeypatch, name, sk
):
  shapes = released_names.tensors('simclr', sk=sk)
  del shapes[f'model/{name}']
  monkeypatch.setattr(released, '_shapes', lambda path: shapes)
  with pytest.raises(released.Mismatch, match=f'{name} is missing'):
    released.infer('anywhere')


@pytest.mark.parametrize('ratio', [0.0625, 0.25])
def test_selective_kernels_follow_from_their_squeeze(monkeypatch, ratio):
  shapes = released_names.tensors('simclr', width=2, sk=ratio)
  monkeypatch.setattr(released, '_shapes', lambda path: shapes)
  monkeypatch.setattr(released, 'step', lambda path: 7)
  settings = released.infer('anywhere').settings
  assert (settings['sk_ratio'], settings['stem']) == (ratio, 'imagenet')


# In and out -------------------------------------------------------------------


@pytest.mark.parametrize(
  'family, scaled', [('simclr', True), ('byol', False), ('cbyol', False)]
)
def test_released_to_ours_to_released_keeps_every_bit(tmp_path, family, scaled):
  tensors = values(released_names.tensors(family, **SMALL))
  path = write(tmp_path / 'ckpt-1', tensors)
  method, probe, parts = build(path)
  trained = [v for layer in method.trained() for v in layer.trainable_variables]
  optimizer = lars(trained + probe.trainable_variables)
  if scaled:
    optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
  report = released.load(path, parts, optimizer)
  assert report.left_over == ['save_counter']
  assert int(optimizer.iterations) == tensors['global_step']
  out = str(tmp_path / 'out' / 'ckpt-9')
  released.write(out, parts, optimizer, int(tensors['save_counter']))
  again = read(out)
  assert again.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


class Bag(tf.Module):
  """An object with any attributes, as the published classes have theirs."""


def test_what_we_write_is_restored_by_object_too(tmp_path):
  tensors = values(released_names.tensors('simclr', **SMALL))
  path = write(tmp_path / 'ckpt-1', tensors)
  method, probe, parts = build(path)
  optimizer = lars(probe.trainable_variables)
  released.load(path, parts)
  out = str(tmp_path / 'out')
  released.write(out, parts, optimizer)
  # Classes of someone else: only the attributes' names are the same.
  head, dense, linear = Bag(), Bag(), Bag()
  dense.kernel, dense.bias = tf.Variable(tf.zeros([16, 10])), None
  linear.dense, head.linear_layer = dense, linear
  block, layer, conv = Bag(), Bag(), Bag()
  conv.kernel = tf.Variable(tf.zeros([3, 3, 64, 64]))
  layer.conv2d = conv
  block.conv2d_bn_layers = [layer, Bag()]
  group, backbone, root = Bag(), Bag(), Bag()
  group.layers, backbone.block_groups = [block], [group]
  root._resnet, root.supervised_head = backbone, head
  step = tf.Variable(0, dtype=tf.int64)
  published = tf.train.Checkpoint(model=root, global_step=step)
  published.restore(out).assert_existing_objects_matched()
  name = 'block_groups/0/layers/0/conv2d_bn_layers/0/conv2d/kernel'
  np.testing.assert_array_equal(conv.kernel, tensors[f'model/_resnet/{name}'])
  name = 'model/supervised_head/linear_layer/dense/kernel'
  np.testing.assert_array_equal(dense.kernel, tensors[name])


@pytest.mark.parametrize(
  'family, trained',
  [
    ('simclr', 'model/supervised_head'),
    ('byol', ('model/_resnet/block_groups/3', 'model/supervised_head')),
    ('cbyol', 'model/supervised_head'),
  ],
)
def test_a_finetuned_checkpoint_keeps_its_names_and_every_bit(
  tmp_path, family, trained
):
  tensors = values(released_names.tensors(family, **SMALL))
  tensors = finetuned(tensors, trained)
  path = write(tmp_path / 'ckpt-1', tensors)
  method, probe, parts = build(path)
  assert (
    released.infer(path)
    .describe()
    .endswith(f', finetuned, step {tensors["finetune_global_step"]}')
  )
  # As for pretraining: most of its momentum is not in the file.
  body = [v for layer in method.trained() for v in layer.trainable_variables]
  optimizer = lars(body + probe.trainable_variables)
  report = released.load(path, parts, optimizer)
  assert report.left_over == ['save_counter']
  assert int(optimizer.iterations) == tensors['finetune_global_step']
  # Nobody goes on pretraining with momentum that is not there.
  with pytest.raises(released.Mismatch, match='finetune_optimizer/Momentum'):
    released.load(path, parts, optimizer, resuming=True)
  out = str(tmp_path / 'out')
  released.write(
    out, parts, optimizer, int(tensors['save_counter']), True, like=path
  )
  again = read(out)
  assert again.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


# What is refused --------------------------------------------------------------

KERNEL = (
  'model/_resnet/block_groups/2/layers/1/conv2d_bn_layers/2/conv2d/kernel'
)
HEAD = 'model/_projection_head/linear_layers/1/dense/kernel'


@pytest.mark.parametrize(
  'change, says',
  [
    (lambda t: t.pop(KERNEL), f'1 tensors missing, first {KERNEL}'),
    (lambda t: t.pop(HEAD), f'1 tensors missing, first {HEAD}'),
    (
      lambda t: t.update({HEAD: t[HEAD].T.copy()}),
      f'1 tensors of another shape, first {HEAD} [16, 32] for [32, 16]',
    ),
    (
      lambda t: t.update({KERNEL: t[KERNEL][..., :8].copy()}),
      f'{KERNEL} [3, 3, 256, 8] for [3, 3, 256, 256]',
    ),
  ],
)
def test_what_does_not_fit_is_named_and_nothing_is_assigned(
  tmp_path, change, says
):
  tensors = values(released_names.tensors('simclr', **SMALL))
  method, probe, parts = build(write(tmp_path / 'good', tensors))
  before = [v.numpy() for v in released.variables(parts).values()]
  change(tensors)
  path = write(tmp_path / 'bad', tensors)
  with pytest.raises(released.Mismatch) as error:
    released.load(path, parts)
  assert says in str(error.value)
  after = [v.numpy() for v in released.variables(parts).values()]
  for a, b in zip(before, after, strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_missing_part_is_an_error(tmp_path):
  tensors = values(released_names.tensors('simclr', **SMALL))
  _, _, parts = build(write(tmp_path / 'whole', tensors))
  tensors = {n: v for n, v in tensors.items() if 'supervised' not in n}
  path = write(tmp_path / 'without', tensors)
  with pytest.raises(released.Mismatch, match=r'2 tensors miss.*bias \[10\]'):
    released.load(path, parts)


def test_squeeze_and_excitation_has_no_place_there(tmp_path, tiny_encoder):
  method = methods.make_method(
    Config(resnet_depth=18, image_size=16, proj_out_dim=8), 0, 1
  )
  method.encoder = resnet.ResNet(18, 1 / 8, stem='small', se_ratio=0.25)
  method.encoder(tf.zeros([1, 16, 16, 3]))
  with pytest.raises(released.Mismatch, match='squeeze-and-excitation'):
    released.write(str(tmp_path / 'x'), released.parts_of(method), lars([]))
