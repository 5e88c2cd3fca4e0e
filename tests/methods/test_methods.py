"""Every row of METHODS: gradients, teachers, identities, replicas, XLA."""

import math

import numpy as np
import pytest
import tensorflow as tf

import model
import recorded_names
from cvr import methods
from cvr.configs import derived
from cvr.methods import skeletons
from cvr.training.monitor import tag
from tiny_methods import (
  BATCH,
  Glance,
  Traced,
  assert_same,
  loss_and_gradients,
  make,
  make_batch,
  output_of,
  tiny,
  trained_variables,
  wide_sums,
)
from tiny_run import make_encoder as thin_resnet

pytestmark = pytest.mark.usefixtures('tiny_encoder')

CASES = [
  (loss, distribution)
  for loss in methods.METHODS
  for distribution in ('vmf', 'gaussian')
  if distribution == 'vmf' or loss.endswith('_ceb')
]
# One network, and two of which one is a teacher. The others have nothing of
# their own in the backbone.
THROUGH_RESNET = (('contrastive_ceb', 'vmf'), ('byol', 'vmf'))


@pytest.fixture(scope='module', params=CASES, ids='-'.join)
def traced(request):
  """Case by case: a step that is traced once, for all tests of the case."""
  resnet = request.param in THROUGH_RESNET
  cfg = tiny(*request.param, weight_decay=1e-3, gaussian_scale='learned')
  return Traced(cfg, encoder=thin_resnet if resnet else Glance)


def test_every_trained_variable_gets_a_gradient_and_no_other(traced):
  traced.reset()
  method = traced.state.method
  variables = trained_variables(method)
  assert len({v.ref() for v in variables}) == len(variables)
  # The last BN of a block starts at gamma 0, which hides what is before it.
  for v in variables:
    v.assign_add(0.01 * tf.random.normal(v.shape))
  trained = {v.ref() for v in variables}
  rest = [v for v in method.trainable_variables if v.ref() not in trained]
  assert bool(rest) == derived.has_teacher(traced.cfg)
  batch = make_batch(np.random.default_rng(0))
  output, gradients = loss_and_gradients(method, batch, variables + rest)
  assert math.isfinite(float(output.loss))
  count = len(variables)
  for variable, gradient in zip(variables, gradients[:count], strict=True):
    assert gradient is not None, variable.name
    assert float(tf.reduce_max(tf.abs(gradient))) > 0, variable.name
  assert all(g is None for g in gradients[count:])


def test_the_loss_falls_on_a_repeated_batch(traced):
  traced.reset()
  batch = make_batch(np.random.default_rng(1))
  # Nor by its probe's, or by the decay of weights.
  others = ('supervised_loss', 'weight_decay')
  losses = []
  for _ in range(12):
    metrics = traced.step(batch)
    losses.append(metrics['total_loss'] - sum(metrics[name] for name in others))
  assert losses[-1] < losses[1] - 0.05 * abs(losses[1])


def test_two_replicas_equal_one_big_batch(traced, two_replicas):
  """Loss, metrics, gradients (through the weights), BN and EMA alike."""
  batch = make_batch(np.random.default_rng(2))
  two = Traced(traced.cfg, two_replicas, traced.encoder)
  assert_same(traced.after(batch), two.after(batch), 2e-4)
  # Where one replica alone is not finite all skip.
  two.after(batch)
  before = bits(two.state.method.variables)
  spoiled = [view.numpy() for view in batch['views']]
  spoiled[0][-1] = math.nan
  assert two.step(batch | {'views': tuple(spoiled)})['skipped_steps'] == 1
  assert bits(two.state.method.variables) == before
  # Nor is anything added in an order that a race decides (see sums.py). Learned
  # deviations alone are read in more places than two, and what AddN adds there
  # is used nowhere else: it has one order.
  learned = 0
  if traced.cfg.ceb_distribution == 'gaussian':
    learned = {'contrastive_ceb': 2, 'byol_ceb': 1}[traced.cfg.pretrain_loss]
  assert len(wide_sums(traced.graph(batch))) == learned
  assert len(wide_sums(two.graph(batch))) == 2 * learned


def bits(variables):
  return [v.numpy().tobytes() for v in variables]


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(traced):
  """Not a teacher, a queue, a moving average or a momentum."""
  rng = np.random.default_rng(8)
  traced.after(make_batch(rng))
  optimizer = traced.state.optimizer
  others = [
    v for v in traced.variables() if v.ref() != optimizer.iterations.ref()
  ]
  before = bits(others)
  batch = make_batch(rng)
  views = batch['views']
  spoiled = (tf.concat([views[0][:-1], views[0][-1:] * math.nan], 0), views[1])
  metrics = traced.step(batch | {'views': spoiled})
  assert bits(others) == before
  assert int(optimizer.iterations) == 2
  assert metrics.pop('skipped_steps') == 1
  assert all(math.isfinite(value) for value in metrics.values())
  metrics = traced.step(batch)
  assert metrics['skipped_steps'] == 0 and bits(others) != before


def test_the_whole_step_compiles_and_is_the_same(traced):
  batch = make_batch(np.random.default_rng(3))
  compiled = traced.after(batch, compiled=True)
  assert_same(traced.after(batch), compiled, 2e-4)


def test_a_step_of_lars_on_two_replicas_and_compiled(two_replicas):
  """And of a Gaussian whose scale is fixed."""
  cfg = tiny('byol_ceb', 'gaussian', optimizer='lars', weight_decay=1e-3)
  batch = make_batch(np.random.default_rng(2))
  one = Traced(cfg, encoder=Glance)
  plain = one.after(batch)
  two = Traced(cfg, two_replicas, Glance)
  assert_same(plain, two.after(batch), 2e-4)
  assert_same(plain, one.after(batch, compiled=True), 2e-4)


def test_a_checkpoint_gives_the_next_step_the_same_bits(traced, tmp_path):
  batch = make_batch(np.random.default_rng(5))
  traced.after(batch)
  checkpoint = tf.train.Checkpoint(**traced.state.items())
  path = checkpoint.write(str(tmp_path / 'ckpt'))
  traced.step(batch)
  expected = [v.numpy() for v in traced.variables()]
  # All that a step depends on is lost, and is in the file.
  for v in (*traced.variables(), *traced.used(batch)):
    v.assign(tf.zeros_like(v))
  checkpoint.read(path).assert_existing_objects_matched().assert_consumed()
  traced.step(batch)
  for v, value in zip(traced.variables(), expected, strict=True):
    np.testing.assert_array_equal(v.numpy(), value, err_msg=v.name)


def test_metrics_have_the_recorded_names(traced):
  """And what is known of an embedding that says nothing is one of them."""
  traced.reset()
  names = traced.step(make_batch(np.random.default_rng(5))).keys()
  found = recorded_names.step_metrics(traced.cfg.pretrain_loss)
  assert {*map(tag, names)} == found
  assert traced.state.method.chance().keys() <= names


def test_the_teacher_moves_by_ema_alone_after_the_optimizer(traced):
  method, total = traced.state.method, 100
  assert isinstance(method, skeletons.Teacher) == derived.has_teacher(
    traced.cfg
  )
  if not derived.has_teacher(traced.cfg):
    return
  traced.reset()

  def weights(layers):
    return [v.numpy() for layer in layers for v in layer.trainable_variables]

  originals, twins = method.twins()
  before = weights(twins)
  statistics = [v.numpy() for v in twins[0].non_trainable_variables]
  online_before = weights(originals)
  # Copies, or of a random initialisation of their own, as published.
  same = [
    np.array_equal(a, b) for a, b in zip(before, online_before, strict=True)
  ]
  copies = ('moco', 'dino', 'er_dino')
  assert all(same) == (traced.cfg.pretrain_loss in copies)
  traced.state.optimizer.iterations.assign(40)
  traced.step(make_batch(np.random.default_rng(4)))
  decay = 1 - (1 - 0.9) * (math.cos(math.pi * 40 / total) + 1) / 2
  online = weights(originals)
  assert any(
    not np.allclose(a, b) for a, b in zip(online, online_before, strict=True)
  )
  for old, new, source in zip(before, weights(twins), online, strict=True):
    np.testing.assert_allclose(
      new, decay * old + (1 - decay) * source, rtol=1e-5, atol=1e-7
    )
  moved = [v.numpy() for v in twins[0].non_trainable_variables]
  assert not np.allclose(statistics[0], moved[0])


def test_c_simclr_without_compression_and_noise_is_simclr():
  batch = make_batch(np.random.default_rng(5))
  settings = {'kappa_b': 5.0, 'temperature': 0.2, 'ceb_sampling': False}
  compressed = output_of(
    make(tiny('contrastive_ceb', **settings | {'ceb_beta': 0.0})), batch
  )
  plain = output_of(make(tiny('contrastive', **settings)), batch)
  constant = 2 * math.log(2 * BATCH - 1)
  assert float(compressed.loss) == pytest.approx(
    float(plain.loss) - constant, abs=1e-5
  )


def test_c_byol_without_compression_is_byol_on_the_same_tensors():
  rng = np.random.default_rng(6)
  p1, p2, y1, y2 = (
    tf.math.l2_normalize(tf.constant(rng.normal(size=(4, 8)), tf.float32), -1)
    for _ in range(4)
  )
  embeddings = {
    'prediction': [p1, p2],
    'target': [y1, y2],
    'mu': [p1, p2],
    'z': [p1, p2],
    'backward': [y1, y2],
    'probed': p1,
  }
  at = tf.constant(0, tf.int64)
  settings = {'byol_loss_weight': 3.0, 'ceb_beta': 0.0}
  losses = [
    float(make(tiny(loss, **settings)).objective(embeddings, at).loss)
    for loss in ('byol', 'byol_ceb')
  ]
  assert losses[0] == pytest.approx(losses[1], rel=1e-6)
  expected = 3.0 * np.mean(
    np.sum((p1 - y2) ** 2, 1) + np.sum((p2 - y1) ** 2, 1)
  )
  assert losses[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('loss', ['byol', 'byol_ceb'])
def test_the_tags_of_byol_carry_the_published_numbers(loss):
  """byol_loss: of view 1, without weight; contrast_loss: the weighted sum."""
  rng = np.random.default_rng(6)
  p1, p2, y1, y2 = rng.normal(size=(4, BATCH, 8))

  def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)

  def cosine(p, y):
    return np.mean(np.sum(unit(p) * unit(y), 1))

  def tensors(*arrays):
    return [tf.constant(unit(x), tf.float32) for x in arrays]

  embeddings = {
    'prediction': tensors(p1, p2), 'target': tensors(y1, y2),
    'mu': tensors(p1, p2), 'z': tensors(p1, p2),
    'backward': tensors(y1, y2), 'probed': tensors(p1)[0],
  }  # fmt: skip
  method = make(tiny(loss, byol_loss_weight=3.0))
  metrics = method.objective(embeddings, tf.constant(0, tf.int64)).metrics
  first, second = 2 - 2 * cosine(p1, y2), 2 - 2 * cosine(p2, y1)
  assert float(metrics['byol_loss']) == pytest.approx(first, rel=1e-5)
  total = 3 * (first + second)
  assert float(metrics['contrast_loss']) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize('loss', ['byol', 'byol_ceb', 'er_byol'])
def test_the_twin_of_byol_sees_view_2_first(loss):
  """Of a moving mean that starts at 0 the last view has the larger part."""
  decay = 0.75
  method = make(tiny(loss, batch_norm_decay=decay))
  views = make_batch(np.random.default_rng(7))['views']
  views = (views[0], 0.3 * views[1] ** 2)
  # The projector's first layer, of which the input is the representation.
  norm = method.target_projector.layers_out[0].norm
  norm.moving_mean.assign(tf.zeros_like(norm.moving_mean))
  kernel = method.target_projector.layers_out[0].dense.kernel
  means = [
    np.mean(method.target_encoder(view, training=True) @ kernel, 0)
    for view in views
  ]
  method.encode(views, tf.constant(0, tf.int64), training=True)
  expected = (1 - decay) * (decay * means[1] + means[0])
  np.testing.assert_allclose(norm.moving_mean, expected, atol=1e-5)
  other = (1 - decay) * (decay * means[0] + means[1])
  assert np.abs(norm.moving_mean - other).max() > 1e-3


@pytest.mark.parametrize('view, order', [('same', (0, 1)), ('other', (1, 0))])
def test_backward_encoder_reads_the_published_or_the_canonical_view(
  view, order
):
  """same: b(z1|.) from view 1's target, as published; other: canonical CEB."""
  method = make(tiny('byol_ceb', backward_view=view, kappa_b=7.0))
  batch = make_batch(np.random.default_rng(7))
  at = tf.constant(3, tf.int64)
  embeddings = method.encode(batch['views'], at)
  metrics = method.objective(embeddings, at).metrics
  for k, name in enumerate(('i_xzx_y', 'i_yzy_x')):
    z, mu = embeddings['z'][k], embeddings['mu'][k]
    b = embeddings['backward'][order[k]]
    rate = tf.reduce_mean(method.ceb.log_e(z, mu) - method.ceb.log_b(z, b))
    assert float(metrics[name]) == pytest.approx(float(rate), abs=1e-5)
  # backward[k] is m(target(view k)).
  y = method.target(batch['views'][0], True)
  expected = model.l2_normalize(method.backward_encoder(y, training=True)[-1])
  np.testing.assert_allclose(embeddings['backward'][0], expected, atol=2e-5)


def test_gradient_paths_of_c_byol(glance):
  """The rate alone trains b; the distance alone reaches the decoder."""
  batch = make_batch(np.random.default_rng(8))
  cfg = tiny('byol_ceb', ceb_beta=0.0)
  method = make(cfg)
  backward = method.backward_encoder.trainable_variables
  _, gradients = loss_and_gradients(method, batch, backward)
  assert all(float(tf.reduce_max(tf.abs(g))) == 0 for g in gradients)
  method = make(tiny('byol_ceb', ceb_beta=1.0, byol_loss_weight=1e-30))
  decoder = method.predictor.decoder.trainable_variables
  _, gradients = loss_and_gradients(method, batch, decoder)
  assert all(float(tf.reduce_max(tf.abs(g))) < 1e-20 for g in gradients)
  backward = method.backward_encoder.trainable_variables
  _, gradients = loss_and_gradients(method, batch, backward)
  assert all(float(tf.reduce_max(tf.abs(g))) > 1e-6 for g in gradients)


def test_signs_of_the_ceb_terms():
  """More compression pulls z to the partner; the rate enters with +beta."""
  batch = make_batch(np.random.default_rng(9))
  for loss in ('contrastive_ceb', 'byol_ceb'):
    outputs = [
      output_of(make(tiny(loss, ceb_beta=beta)), batch) for beta in (0.0, 2.0)
    ]
    metrics = outputs[0].metrics
    rates = float(metrics['i_xzx_y'] + metrics['i_yzy_x'])
    assert float(outputs[1].loss - outputs[0].loss) == pytest.approx(
      2.0 * rates, rel=1e-4
    )
    if loss == 'contrastive_ceb':
      relevant = float(metrics['i_y_zx'] + metrics['i_x_zy'])
      assert float(outputs[0].loss) == pytest.approx(-relevant, rel=1e-5)
      expected = 2 * math.log(2 * BATCH - 1) - float(metrics['contrast_loss'])
      assert relevant == pytest.approx(expected, abs=1e-5)
    entropies = float(metrics['h_b_zx_y'] - metrics['h_e_zx_x'])
    assert entropies == pytest.approx(float(metrics['i_xzx_y']), rel=1e-5)


def test_noise_depends_on_seed_step_and_view_alone():
  method = make(tiny('contrastive_ceb'))
  other = make(tiny('contrastive_ceb', seed=1))

  def noise(method, step, salt):
    return method.noise(tf.constant(step, tf.int64), salt, 4, 3).numpy()

  first = noise(method, 5, 1)
  np.testing.assert_array_equal(first, noise(method, 5, 1))
  for changed in (
    noise(method, 6, 1),
    noise(method, 5, 2),
    noise(other, 5, 1),
  ):
    assert not np.allclose(first, changed)


def test_sampling_is_for_training_only():
  method = make(tiny('byol_ceb'))
  batch = make_batch(np.random.default_rng(10))
  at = tf.constant(1, tf.int64)
  noisy = method.encode(batch['views'], at)
  mean = method.encode(batch['views'], at, training=False)
  assert not np.allclose(noisy['z'][0], noisy['mu'][0])
  np.testing.assert_array_equal(mean['z'][0], mean['mu'][0])


@pytest.mark.parametrize('selector, width', [(0, 64), (1, 16), (2, 8), (-1, 8)])
def test_the_probe_reads_the_chosen_layer_without_gradient(selector, width):
  for loss, rows in (('contrastive', 2 * BATCH), ('byol', BATCH)):
    method = make(tiny(loss, ft_proj_selector=selector))
    batch = make_batch(np.random.default_rng(11))
    variables = trained_variables(method)
    with tf.GradientTape() as tape:
      features = output_of(method, batch).features
    assert features.shape == (rows, width)
    assert all(g is None for g in tape.gradient(features, variables))


def test_the_views_of_c_simclr_have_noise_of_their_own(glance):
  """Two views that are one image: what differs is noise."""
  method = make(tiny('contrastive_ceb', ceb_beta=0.0, kappa_e=8.0))
  rows = tf.math.l2_normalize(tf.random.normal([64, 8]), -1)
  embeddings = {'projection': (rows, rows), 'probed': (rows, rows)}
  metrics = method.objective(embeddings, tf.constant(2, tf.int64)).metrics
  first, second = float(metrics['i_xzx_y']), float(metrics['i_yzy_x'])
  # The divergence of e from b, of 64 samples each, which are not the same.
  assert abs(first - second) > 1e-3
  noises = [method.sample(rows, tf.constant(2, tf.int64), s) for s in (1, 2)]
  assert np.linalg.norm(noises[0] - noises[1], axis=1).min() > 1e-3


def test_the_views_of_c_byol_have_noise_of_their_own(glance):
  method = make(tiny('byol_ceb', kappa_e=8.0))
  view = make_batch(np.random.default_rng(0))['views'][0]
  made = method.encode((view, view), tf.constant(2, tf.int64))
  np.testing.assert_allclose(made['mu'][0], made['mu'][1], atol=1e-5)
  distance = np.linalg.norm(made['z'][0] - made['z'][1], axis=1)
  assert distance.min() > 1e-3
