"""Chunks of a batch against the whole of it, and a step that uses them."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import resnet
from cvr.training import big_batches
from cvr.training.step import make_state, make_train_step
from small_data import plan_of
from tiny_methods import (
  BATCH,
  assert_same,
  make,
  make_batch,
  step_weights,
  tiny,
  trained_variables,
)

pytestmark = pytest.mark.usefixtures('tiny_encoder')


def close(found, expected, tolerance=1e-5):
  """As one vector, and each tensor by its largest number."""

  def norm(tensors):
    return np.sqrt(sum(np.square(np.asarray(t)).sum() for t in tensors))

  found, expected = list(found), list(expected)
  differences = [a - b for a, b in zip(found, expected, strict=True)]
  assert norm(differences) <= tolerance * norm(expected)
  for difference, tensor in zip(differences, expected, strict=True):
    largest = np.abs(tensor).max()
    assert np.abs(difference).max() <= 20 * tolerance * largest + 1e-7


def statistics(method):
  norms = [m for m in method.submodules if isinstance(m, resnet.BatchNorm)]
  return [v.numpy() for n in norms for v in (n.moving_mean, n.moving_variance)]


def setup(loss, **changes):
  """-> (method, variables, batch, encode, loss) as a step has them."""
  method = make(tiny(loss, **changes))
  variables = trained_variables(method)
  for v in variables:
    v.assign_add(0.01 * tf.random.normal(v.shape))
  batch = make_batch(np.random.default_rng(6))
  step = tf.constant(3, tf.int64)

  def encode(i, part):
    at = step * 10 + tf.cast(i, tf.int64)
    return method.encode(part['views'], at)

  def total(embeddings, batch):
    found = method.objective(embeddings, step)
    weights = tf.reduce_sum(batch['label']) * 0
    return found.loss + tf.cast(weights, tf.float32), found.metrics, found.carry

  return method, variables, batch, encode, total


one_go = tf.function(big_batches.at_once, autograph=False)


def rows(batch, first, last):
  return tf.nest.map_structure(lambda x: x[first:last], batch)


@pytest.mark.parametrize(
  'loss, compiled',
  [
    ('contrastive', False),
    ('contrastive_ceb', True),
    ('er_byol', False),
    ('cmc', False),
    ('swav', False),
    ('stochcon_bernoulli', False),
  ],
)
def test_cached_gradients_are_those_of_one_tape_over_all_chunks(
  loss, compiled, request
):
  if loss not in ('contrastive', 'contrastive_ceb'):  # Not of the backbone.
    request.getfixturevalue('glance')
  method, variables, batch, encode, total = setup(loss)
  chunks, size = 2, BATCH // 2
  before = [v.numpy() for v in method.variables]

  # XLA rounds as it likes: both are compiled, or neither.
  @tf.function(autograph=False, jit_compile=compiled)
  def one_tape():
    with tf.GradientTape() as tape:
      parts = [
        encode(i, rows(batch, i * size, i * size + size)) for i in range(chunks)
      ]
      joined = tf.nest.map_structure(lambda *x: tf.concat(x, 0), *parts)
      loss, metrics, _ = total(joined, batch)
    return metrics, tape.gradient(loss, variables)

  expected_metrics, expected_gradients = one_tape()
  moved = statistics(method)
  for variable, value in zip(method.variables, before, strict=True):
    variable.assign(value)

  @tf.function(autograph=False, jit_compile=compiled)
  def cached():
    return big_batches.cached(encode, total, batch, variables, chunks)

  metrics, _, gradients = cached()
  close(metrics.values(), expected_metrics.values())
  close(gradients, expected_gradients)
  # Each chunk moved the averages once, as in one pass over them.
  close(statistics(method), moved)
  # And the chunks matter: without them batch norm sees more.
  other = one_go(encode, total, batch, variables).gradients
  assert any(
    np.abs(a - b).max() > 1e-2 * np.abs(b).max()
    for a, b in zip(gradients, other, strict=True)
  )


def test_one_chunk_is_the_whole_batch(glance):
  method, variables, batch, encode, total = setup('contrastive_ceb')
  cached = tf.function(big_batches.cached, autograph=False)
  metrics, _, gradients = cached(encode, total, batch, variables, 1)
  known, _, expected = one_go(encode, total, batch, variables)
  close(gradients, expected)
  close(metrics.values(), known.values())


@pytest.mark.parametrize(
  'loss, name',
  [
    ('byol', 'contrast_loss'),
    ('byol_ceb', 'contrast_loss'),
    ('dino', 'dino_loss'),
    ('simsiam', 'simsiam_loss'),
  ],
)
def test_accumulated_gradients_are_the_mean_over_parts(loss, name, glance):
  _, variables, batch, encode, total = setup(loss)
  found = []
  for i in range(2):
    part = rows(batch, i * BATCH // 2, (i + 1) * BATCH // 2)
    numbered = functools.partial(lambda i, _, part: encode(i, part), i)
    metrics, _, gradients = one_go(numbered, total, part, variables)
    found.append([metrics[name], *gradients])
  loss_value, *expected = [(a + b) / 2 for a, b in zip(*found, strict=True)]

  @tf.function(autograph=False)
  def accumulated():
    return big_batches.accumulated(encode, total, batch, variables, 2)

  metrics, _, gradients = accumulated()
  close(gradients, expected)
  close([metrics[name]], [loss_value])
  # Their noise differs: a chunk is told which one it is.
  if loss == 'byol_ceb':
    assert not np.allclose(found[0][0], found[1][0])


@pytest.mark.parametrize('compiled', [False, True])
def test_what_is_carried_has_the_rows_of_all_chunks(compiled):
  """In their order and type, however the batch is cut."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(6, 2)).astype(np.float32)
  batch = {'x': tf.constant(x), 'index': tf.range(6, dtype=tf.int64)}
  weight = tf.Variable([1.0, 2.0])

  def encode(i, part):
    del i
    return {'z': part['x'] * weight}

  def loss(embeddings, part):
    z = embeddings['z']
    carry = {
      'rows': (z, part['index']),
      'mean': tf.reduce_mean(z, 0, keepdims=True),
    }
    return tf.reduce_mean(z**2), {'mean_z': tf.reduce_mean(z)}, carry

  @tf.function(autograph=False, jit_compile=compiled)
  def run():
    return {
      'whole': big_batches.at_once(encode, loss, batch, [weight]),
      'cached': big_batches.cached(encode, loss, batch, [weight], 3),
      'chunks': big_batches.accumulated(encode, loss, batch, [weight], 3),
    }

  z = x * [1, 2]
  for name, found in run().items():
    rows, index = found.carry['rows']
    np.testing.assert_allclose(rows, z, rtol=1e-6)
    np.testing.assert_array_equal(index, np.arange(6))
    assert index.dtype == tf.int64
    # No row, so one of each chunk: their mean is the mean.
    means = z.reshape(3 if name == 'chunks' else 1, -1, 2).mean(1)
    np.testing.assert_allclose(found.carry['mean'], means, rtol=1e-5)
    assert float(found.metrics['mean_z']) == pytest.approx(z.mean(), rel=1e-5)
    expected = (x * z).mean(0)  # d mean(z^2) / dw = 2 mean over rows / 2
    np.testing.assert_allclose(found.gradients[0], expected, rtol=1e-5)


def test_two_replicas_in_chunks_are_one_in_chunks(two_replicas, glance):
  """A chunk of two replicas is a chunk of both their rows."""
  cfg = tiny('contrastive', weight_decay=1e-3, grad_cache_chunk=2)
  batch = make_batch(np.random.default_rng(2))
  two = step_weights(cfg, batch, strategy=two_replicas)
  cfg = dataclasses.replace(cfg, grad_cache_chunk=4)
  together = [0, 1, 4, 5, 2, 3, 6, 7]
  batch = tf.nest.map_structure(lambda x: tf.gather(x, together), batch)
  assert_same(step_weights(cfg, batch), two, 2e-4)


def test_only_the_last_pass_moves_statistics():
  norm = resnet.BatchNorm()
  x = tf.random.normal([8, 3])
  with resnet.still_statistics():
    still = norm(x, training=True)
  np.testing.assert_array_equal(norm.moving_mean, np.zeros(3))
  np.testing.assert_array_equal(norm(x, training=True), still)
  assert np.abs(norm.moving_mean).min() > 0


def test_fp16_scales_its_loss_and_skips_what_overflows():
  keras.mixed_precision.set_global_policy('mixed_float16')
  try:
    cfg = tiny('contrastive', precision='fp16', optimizer='lars')
    state = make_state(plan_of(cfg, 100))
  finally:
    keras.mixed_precision.set_global_policy('float32')
  optimizer = state.optimizer
  step = make_train_step(state, lambda step: 0.1)
  step = tf.function(step, autograph=False)
  batch = make_batch(np.random.default_rng(1))
  before = [v.numpy() for v in trained_variables(state.method)]
  # So large a scale that float16 overflows: nothing moves, the scale halves.
  optimizer._loss_scale._current_loss_scale.assign(2.0**40)
  step(batch)
  assert float(optimizer.loss_scale) == 2.0**39
  for v, old in zip(trained_variables(state.method), before, strict=True):
    np.testing.assert_array_equal(v, old)
  optimizer._loss_scale._current_loss_scale.assign(2.0**7)
  metrics = step(batch)
  moved = [
    not np.array_equal(v, old)
    for v, old in zip(trained_variables(state.method), before, strict=True)
  ]
  assert any(moved) and np.isfinite(float(metrics['grad_norm']))
  # Reported as it is, not as scaled.
  assert float(metrics['grad_norm']) < 1e3


@pytest.mark.parametrize('chunks', [1, 2, 4])
def test_what_a_loss_pulls_at_directly_counts_once(chunks):
  """A penalty, a probe and a deviation beside the rows, by calculus.

  loss = mean_ij (x_i . w)(x_j . w) s^2 + mean_i stop(x_i . w) p + 3 |w|^2 / 2
  """
  rng = np.random.default_rng(chunks)
  x = rng.normal(size=(8, 3))
  w, s, p = rng.normal(size=3), 1.7, -0.6
  variables = [tf.Variable(v, dtype=tf.float64) for v in (w, s, p)]

  def encode(i, part):
    del i
    return {'rows': tf.linalg.matvec(part['x'], variables[0])}

  def loss(embeddings, batch):
    del batch
    w, s, p = variables
    rows = embeddings['rows']
    total = tf.reduce_mean(rows[:, None] * rows) * s**2
    total += tf.reduce_mean(tf.stop_gradient(rows)) * p
    return total + 1.5 * tf.reduce_sum(w**2), {}, {}

  made = big_batches.cached(
    encode, loss, {'x': tf.constant(x)}, variables, chunks
  )
  mean = x.mean(0)
  expected = [2 * (mean @ w) * mean * s**2 + 3 * w, 2 * (mean @ w) ** 2 * s,
              mean @ w]  # fmt: skip
  for found, value in zip(made.gradients, expected, strict=True):
    np.testing.assert_allclose(found, value, rtol=1e-9)


def test_a_cached_step_trains_probe_penalty_and_learned_deviations(glance):
  """Each is moved by the loss alone, not through an embedding."""
  cfg = tiny(
    'contrastive_ceb', 'gaussian', gaussian_scale='learned', sigma_b=2.0,
    grad_cache_chunk=4, weight_decay=0.5,
  )  # fmt: skip
  state = make_state(plan_of(cfg, 10, examples=BATCH))
  watched = [
    *state.method.ceb.trainable_variables,
    *state.probe.trainable_variables,
  ]
  assert len(watched) == 4
  before = [v.numpy() for v in watched]
  step = make_train_step(state, lambda step: 0.1)
  tf.function(step, autograph=False)(make_batch(np.random.default_rng(1)))
  for v, value in zip(watched, before, strict=True):
    assert np.abs(v.numpy() - value).max() > 1e-5, v.name
