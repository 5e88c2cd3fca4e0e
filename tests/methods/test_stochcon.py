"""StochCon: SimCLR's loss with a latent in one branch."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import oracles
from cvr.configs.config import Config
from cvr.training.step import make_state, make_train_step
from small_data import plan_of
from tiny_methods import (
  Traced,
  assert_same,
  loss_and_gradients,
  make,
  make_batch,
  output_of,
  tiny,
  trained_variables,
)

pytestmark = pytest.mark.usefixtures('tiny_encoder')

KINDS = ('stochcon_bernoulli', 'stochcon_gaussian')
AT = tf.constant(3, tf.int64)


class Identity(keras.layers.Layer):
  """In place of pi: the latent's mean is the representation."""

  def call(self, x, training=False):
    return x


def test_without_noise_and_projectors_it_is_simclr(glance):
  """At SimCLR's scale: the sum of both directions."""
  batch = make_batch(np.random.default_rng(0))
  simclr = make(tiny('contrastive'))
  method = make(tiny(KINDS[1], latent_dim=0, latent_variance='fixed'))
  method.latent.projector = Identity()
  method.latent.draw = lambda shape, seed: tf.zeros(shape)
  for mine, theirs in (
    (method.encoder, simclr.encoder),
    (method.projector, simclr.projector),
  ):
    mine.set_weights(theirs.get_weights())
  mine, theirs = output_of(method, batch), output_of(simclr, batch)
  assert float(mine.loss) == pytest.approx(float(theirs.loss), abs=1e-6)
  np.testing.assert_allclose(mine.features, theirs.features, atol=1e-6)
  variables = [m.encoder.trainable_variables for m in (method, simclr)]
  gradients = [
    loss_and_gradients(m, batch, v)[1]
    for m, v in zip((method, simclr), variables, strict=True)
  ]
  for a, b in zip(*gradients, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_the_loss_is_nt_xent_of_the_two_branches(kind):
  method = make(tiny(kind, temperature=0.3))
  found = method.encode(make_batch(np.random.default_rng(1))['views'], AT)
  v1, v2 = (np.float64(v) for v in found['projection'])
  np.testing.assert_allclose(np.linalg.norm(v1, axis=1), 1, atol=1e-5)
  output = method.objective(found, AT)
  assert float(output.loss) == pytest.approx(
    np.sum(oracles.nt_xent(v1, v2, 0.3)), rel=1e-5
  )


@pytest.mark.parametrize('kind', KINDS)
def test_one_branch_is_stochastic_and_the_other_is_not(kind):
  # Without batch norm in the head, which would mix the branches.
  method = make(tiny(kind, proj_head_hidden='relu', latent_dim=0))
  views = make_batch(np.random.default_rng(2))['views']

  def branches(step, training=True):
    at = tf.constant(step, tf.int64)
    return method.encode(views, at, training)['projection']

  (plain, drawn), (same, other) = branches(3), branches(4)
  np.testing.assert_array_equal(plain, same)
  assert np.abs(drawn - other).max() > 1e-3
  np.testing.assert_array_equal(drawn, branches(3)[1])
  # No noise but in training, and view 2 goes through the latent all the same.
  first, second = branches(3, False), branches(4, False)
  np.testing.assert_array_equal(first, second)
  h = method.encoder(tf.concat(views, 0))
  code = method.read_latent(h)['code'][len(views[0]) :]
  expected = method.location(method.projector(code)[-1])
  np.testing.assert_allclose(first[1], expected, atol=1e-5)
  expected = method.location(method.projector(h[: len(views[0])])[-1])
  np.testing.assert_allclose(first[0], expected, atol=1e-5)


def test_the_opposing_view_gives_the_variance_of_the_second_branch():
  views = make_batch(np.random.default_rng(3))['views']
  for variance, view in (('opposing', 0), ('own', 1)):
    method = make(tiny(KINDS[1], latent_variance=variance))
    seen = []
    method.latent.sample = lambda phi, *_, seen=seen: (
      seen.append(phi) or (phi['mean'])
    )
    method.encode(views, AT)
    h = method.encoder(tf.concat(views, 0), training=True)
    own = method.latent.parameters(h, True)
    rows = slice(view * 8, view * 8 + 8)
    np.testing.assert_allclose(seen[0]['std'], own['std'][rows], rtol=1e-4)
    np.testing.assert_allclose(seen[0]['mean'], own['mean'][8:], atol=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_the_weight_of_the_divergence(kind):
  batch = make_batch(np.random.default_rng(4))
  plain = output_of(make(tiny(kind)), batch)
  held = output_of(make(tiny(kind, latent_kl_weight=0.25)), batch)
  rate = float(plain.metrics['latent_kl'])
  assert rate > 0
  assert float(held.metrics['contrast_loss']) == pytest.approx(
    float(plain.loss), rel=1e-6
  )
  assert float(held.loss - plain.loss) == pytest.approx(rate / 4, rel=1e-4)


def test_the_temperature_falls_by_a_factor_per_step():
  cfg = tiny(KINDS[0], latent_temperature=2.0, latent_temperature_end=0.5)
  method, batch = make(cfg, total=10), make_batch(np.random.default_rng(5))
  for step, expected in ((0, 2.0), (5, 1.0), (10, 0.5), (99, 0.5)):
    metrics = output_of(method, batch, step).metrics
    assert float(metrics['latent_temperature']) == pytest.approx(expected)


@pytest.mark.parametrize('kind', ['pretrain', 'finetune'])
def test_chunks_of_a_step_draw_at_its_temperature(kind):
  """The number of the draw is not that of the step."""
  chunks = {
    'pretrain': {'grad_cache_chunk': 2},
    'finetune': {'grad_accum_steps': 4, 'probe_latent': True},
  }
  cfg = tiny(
    KINDS[0],
    latent_temperature=2.0,
    latent_temperature_end=0.5,
    train_mode=kind,
    **chunks[kind],
  )
  state = make_state(plan_of(cfg, 10))
  batch = make_batch(np.random.default_rng(8))
  if kind == 'finetune':
    batch['views'] = batch['views'][:1]
  seen, sample = [], state.method.latent.sample

  def spy(phi, noise, temperature):
    seen.append(temperature)
    return sample(phi, noise, temperature)

  state.method.latent.sample = spy
  state.optimizer.iterations.assign(5)
  make_train_step(state, lambda step: 0.1)(batch)
  assert len(seen) >= 4
  assert [float(t) for t in seen] == pytest.approx([1.0] * len(seen))


VARIANTS = [
  {'pretrain_loss': KINDS[0], 'latent_top_k': 2},
  {'pretrain_loss': KINDS[0], 'latent_estimator': 'relaxed', 'latent_dim': 0},
  {'pretrain_loss': KINDS[1], 'latent_scale': 'per_dim'},
  {'pretrain_loss': KINDS[1], 'latent_variance': 'fixed', 'latent_dim': 0},
]


@pytest.mark.parametrize('settings', VARIANTS)
def test_variants_on_two_replicas_and_compiled(settings, two_replicas, glance):
  cfg = tiny(settings['pretrain_loss'], **settings)
  batch = make_batch(np.random.default_rng(9))
  one = Traced(cfg)
  plain = one.after(batch)
  assert_same(plain, Traced(cfg, two_replicas).after(batch), 2e-4)
  assert_same(plain, one.after(batch, compiled=True), 2e-4)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('policy', ['mixed_bfloat16', 'mixed_float16'])
def test_in_half_precision(kind, policy):
  batch = make_batch(np.random.default_rng(10))
  # Soft bits: rounding turns no whole one.
  cfg = tiny(kind, latent_dim=0, latent_estimator='relaxed')
  plain = output_of(make(cfg), batch)
  keras.mixed_precision.set_global_policy(policy)
  try:
    method = make(cfg)
    output = output_of(method, batch)
    variables = trained_variables(method)
    _, gradients = loss_and_gradients(method, batch, variables)
  finally:
    keras.mixed_precision.set_global_policy('float32')
  assert output.loss.dtype == tf.float32
  assert float(output.loss) == pytest.approx(float(plain.loss), rel=0.05)
  assert all(np.isfinite(g).all() for g in gradients)
  phi = method.embed(batch['views'][0])['phi']
  assert all(x.dtype == tf.float32 for x in tf.nest.flatten(phi))


def test_it_is_one_of_the_flags_on_the_latent():
  cfg = tiny(KINDS[0], latent_top_k=2, latent_estimator='relaxed', latent_dim=5)
  latent = make(cfg).latent
  assert (latent.top_k, latent.relaxed, latent.dim) == (2, True, 5)
  cfg = tiny(KINDS[1], latent_scale='per_dim', latent_dim=5)
  latent = make(cfg).latent
  assert latent.projector.dense.units == 10 and latent.opposing


@pytest.mark.parametrize('kind', KINDS)
def test_the_probe_reads_the_latent_on_request(kind):
  views = make_batch(np.random.default_rng(6))['views']
  method = make(tiny(kind, probe_latent=True))
  features = output_of(
    method, {'views': views, 'index': tf.range(8, dtype=tf.int64)}
  ).features
  assert features.shape == (16, 6)
  binary = {*np.unique(features)} <= {0.0, 1.0}
  assert binary == (kind == KINDS[0])
  embedded = method.embed(views[0])
  np.testing.assert_array_equal(method.probed(embedded), embedded['code'])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('block, tensors', [(-1, None), (3, None), (4, 0)])
def test_finetuning_on_the_latent(kind, block, tensors):
  cfg = tiny(
    kind,
    train_mode='finetune',
    probe_latent=True,
    fine_tune_after_block=block,
    checkpoint='somewhere',
  )
  method, batch = make(cfg), make_batch(np.random.default_rng(7))
  variables = trained_variables(method)
  if tensors == 0:
    assert not variables
    code = method.latent.code(method.embed(batch['views'][0])['phi'])
    features = method.encode(batch['views'][:1], AT)['probed']
    np.testing.assert_array_equal(features, code)
    return
  with tf.GradientTape() as tape:
    probed = method.encode(batch['views'][:1], AT)['probed']
    loss = tf.reduce_sum(probed * tf.random.normal(probed.shape))
  for variable, gradient in zip(
    variables, tape.gradient(loss, variables), strict=True
  ):
    assert gradient is not None, variable.name
  again = method.encode(batch['views'][:1], tf.constant(4, tf.int64))['probed']
  # Drawn in training, another one at every step.
  assert np.abs(probed - again).max() > 1e-3


def test_a_method_that_has_none_says_so():
  with pytest.raises(ValueError, match='--probe_latent=true: needs --pretrain'):
    Config(probe_latent=True)
  with pytest.raises(ValueError, match='below the 512 bits'):
    Config(pretrain_loss=KINDS[0], resnet_depth=18, latent_top_k=512)
  Config(pretrain_loss=KINDS[0], resnet_depth=50, latent_top_k=512)
