"""Latents: the estimators of their gradients against exact expectations."""

import math

import numpy as np
import pytest
import tensorflow as tf

from cvr.methods import latents
from cvr.numerics import randomness

OPTIONS = {'init': 'byol', 'bn_decay': 0.9, 'sync_bn': False}
LOGITS = np.array([-1.0, 0.3, 1.7])
# Temperature -> what straight through has of each bit's gradient, and of a fair
# one's.
FACTORS = {
  1.0: (0.768, 0.676, 0.963, 0.667),
  0.5: (0.924, 0.865, 1.030, 0.858),
  0.1: (0.997, 0.992, 1.003, 0.992),
}


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def table():
  """f of three bits: its values at (0,0,0), (0,0,1), ... (1,1,1)."""
  return np.random.default_rng(0).normal(size=[2, 2, 2])


def multilinear(values, z):
  """The one function that is f at bits and linear in each: z [..., 3]."""
  total = 0.0
  for i, j, k in np.ndindex(2, 2, 2):
    share = 1.0
    for bit, one in enumerate((i, j, k)):
      share = share * (z[..., bit] if one else 1 - z[..., bit])
    total = total + values[i, j, k] * share
  return total


def enumerated(values, logits):
  """d/dlogits of E f(z), z independent bits: the sum over all eight."""
  p = sigmoid(logits)
  gradient = np.zeros(3)
  for bits in np.ndindex(2, 2, 2):
    chance = np.prod([q if b else 1 - q for q, b in zip(p, bits, strict=True)])
    # d log P / dlogit = bit - p.
    gradient += values[bits] * chance * (np.array(bits) - p)
  return gradient


def concrete(logits, temperature):
  """Mean of the binary Concrete and its slope in the logit, by midpoints."""
  u = (np.arange(2_000_000) + 0.5) / 2_000_000
  noise = np.log(u) - np.log1p(-u)
  soft = [sigmoid((logit + noise) / temperature) for logit in logits]
  means = np.array([y.mean() for y in soft])
  slopes = np.array([np.mean(y * (1 - y)) / temperature for y in soft])
  return means, slopes


def expected(values, logits, temperature, relaxed):
  """What the estimator is on average, bits being independent.

  d f / dz_i does not depend on z_i, and the other bits enter by their means:
  those of soft bits, or of hard ones.
  """
  means, slopes = concrete(logits, temperature)
  at = means if relaxed else sigmoid(logits)
  partial = [
    multilinear(values, np.where(np.arange(3) == i, 1.0, at))
    - multilinear(values, np.where(np.arange(3) == i, 0.0, at))
    for i in range(3)
  ]
  return partial * slopes


def bernoulli(dim=3, **settings):
  return latents.BernoulliLatent(dim, 8, **settings, **OPTIONS)


def estimated(values, latent, temperature, rows):
  """The estimator's gradient at each of many samples: [rows, 3]."""
  logits = tf.constant(np.tile(LOGITS, [rows, 1]), tf.float32)
  noise = randomness.uniform([rows, 3], [1, 2])
  with tf.GradientTape() as tape:
    tape.watch(logits)
    z = latent.sample({'logits': logits}, noise, temperature)
    f = multilinear(values.astype(np.float32), z)
  return z.numpy(), tape.gradient(f, logits).numpy().astype(np.float64)


@pytest.mark.parametrize('temperature', [1.0, 0.5])
@pytest.mark.parametrize('relaxed', [True, False])
def test_estimators_are_what_they_should_be_on_average(temperature, relaxed):
  values, rows = table(), 400_000
  z, found = estimated(values, bernoulli(relaxed=relaxed), temperature, rows)
  error = found.std(0) / math.sqrt(rows)
  exact = expected(values, LOGITS, temperature, relaxed)
  assert np.all(np.abs(found.mean(0) - exact) < 4 * error)
  assert np.all(error < 0.02 * np.abs(exact).max())
  # What the head sees.
  assert ({*np.unique(z)} == {0.0, 1.0}) == (not relaxed)
  if not relaxed:
    assert z.mean(0) == pytest.approx(sigmoid(LOGITS), abs=4e-3)


def test_the_relaxed_estimator_nears_the_exact_gradient():
  values = table()
  exact = enumerated(values, LOGITS)
  numeric = [
    multilinear(values, sigmoid(LOGITS + 1e-5 * np.eye(3)[i]))
    - multilinear(values, sigmoid(LOGITS - 1e-5 * np.eye(3)[i]))
    for i in range(3)
  ]
  np.testing.assert_allclose(exact, np.array(numeric) / 2e-5, rtol=1e-6)
  scale = np.abs(exact).max()
  bias = [
    np.abs(expected(values, LOGITS, t, True) - exact).max() / scale
    for t in (1.0, 0.5, 0.25, 0.1)
  ]
  # Four times smaller for half the temperature.
  assert bias[1] / bias[2] == pytest.approx(4, rel=0.2)
  assert bias[0] > bias[1] and bias[3] < 0.01
  # And what is drawn is it, within the error of the mean.
  rows = 400_000
  _, found = estimated(values, bernoulli(relaxed=True), 0.1, rows)
  error = found.std(0) / math.sqrt(rows)
  assert np.all(np.abs(found.mean(0) - exact) < 4 * error + bias[3] * scale)


def test_the_bias_of_straight_through():
  """A factor per bit where f is linear in it: 2/3 of a fair one's at 1.

  docs/stochcon.md tells these numbers.
  """
  logits = np.append(LOGITS, 1e-3)
  p = sigmoid(logits)
  exact = enumerated(table(), LOGITS)
  for temperature, factors in FACTORS.items():
    slopes = concrete(logits, temperature)[1]
    assert slopes / (p * (1 - p)) == pytest.approx(factors, abs=6e-4)
    found = expected(table(), LOGITS, temperature, relaxed=False)
    np.testing.assert_allclose(found / exact, factors[:3], atol=6e-4)

  def slope(logit):
    """At 1 the mean is a / (a - 1) - a log a / (a - 1)^2, a = e^logit."""
    mean = [
      a / (a - 1) - a * math.log(a) / (a - 1) ** 2
      for a in (math.exp(logit + 1e-4), math.exp(logit - 1e-4))
    ]
    return (mean[0] - mean[1]) / 2e-4

  closed = [slope(logit) for logit in logits] / (p * (1 - p))
  assert closed == pytest.approx(FACTORS[1.0], abs=6e-4)
  assert slope(1e-3) / 0.25 == pytest.approx(2 / 3, abs=1e-5)


def test_a_bit_is_one_as_often_as_its_probability():
  noise = (np.arange(1000)[:, None] + 0.5) / 1000
  logits = np.linspace(-4, 4, 9)[None] * np.ones([1000, 1])
  latent = bernoulli(9)
  phi = {'logits': tf.constant(logits, tf.float32)}
  z = latent.sample(phi, noise.astype(np.float32), 0.7)
  np.testing.assert_allclose(
    np.mean(z, 0), sigmoid(logits[0]), atol=1 / 1000 + 1e-6
  )


def test_the_ends_of_the_noise_are_numbers():
  noise = tf.constant([[0.0, 1 - 2.0**-24]])
  for relaxed in (False, True):
    logits = tf.Variable([[3.0, -3.0]])
    with tf.GradientTape() as tape:
      z = bernoulli(2, relaxed=relaxed).sample({'logits': logits}, noise, 0.1)
    assert z.numpy() == pytest.approx(np.array([[0.0, 1.0]]), abs=1e-6)
    assert np.isfinite(tape.gradient(z, logits)).all()


@pytest.mark.parametrize('relaxed', [True, False])
def test_top_k_keeps_just_so_many_bits(relaxed):
  rng = np.random.default_rng(0)
  logits = tf.constant(rng.normal(3.0, 1.0, size=[5, 12]), tf.float32)
  latent = bernoulli(12, top_k=4, relaxed=relaxed)
  latent.projector = lambda h, training: h
  phi = latent.parameters(logits)
  largest = np.argsort(-logits, axis=1)[:, :4]
  for row, best in zip(latent.code(phi).numpy(), largest, strict=True):
    assert {*np.flatnonzero(row)} == {*best}
  described = latent.describe(phi)
  np.testing.assert_array_equal(
    described['latent_bits'], described['latent_mean'] > 0.5
  )
  # Half way between the last one in and the first one out.
  ends = np.sort(described['latent_mean'], axis=1)[:, -5:-3].sum(1)
  np.testing.assert_allclose(ends, 1, atol=1e-6)
  noise = rng.random((5, 12)).astype(np.float32)
  z = latent.sample(phi, noise, 0.5).numpy()
  noisy = logits + np.log(noise) - np.log1p(-noise)
  # What is common to all logits tells nothing, and costs nothing.
  shifted = latent.parameters(logits + 10)
  np.testing.assert_allclose(
    latent.report(phi, z)['latent_kl'],
    latent.report(shifted, z)['latent_kl'],
    rtol=1e-4,
  )
  largest = np.sort(np.argsort(-noisy, axis=1)[:, :4])
  np.testing.assert_array_equal(np.where(z > 0.5)[1].reshape(5, 4), largest)
  # Not so without: every logit is above 0.
  assert bernoulli(12).code({'logits': logits}).numpy().sum() > 50


def test_the_rate_of_bits():
  logits = np.array([[0.0, 2.0, -50.0], [1.0, -1.0, 50.0]])
  p = np.clip(sigmoid(logits), 1e-300, 1 - 1e-16)
  entropy = -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p), 1)
  phi = {'logits': tf.constant(logits, tf.float32)}
  report = bernoulli().report(phi, tf.constant([[1.0, 0, 0], [1, 1, 0]]))
  assert report['latent_entropy'].numpy() == pytest.approx(entropy, rel=1e-5)
  assert report['latent_kl'].numpy() == pytest.approx(
    3 * math.log(2) - entropy, rel=1e-5
  )
  assert report['latent_ones'].numpy() == pytest.approx([1 / 3, 2 / 3])
  described = bernoulli().describe(phi)
  np.testing.assert_allclose(
    described['latent_std'] ** 2, p * (1 - p), atol=1e-6
  )


def gaussian(dim=3, **settings):
  return latents.GaussianLatent(dim, 8, **settings, **OPTIONS)


def test_the_gaussian_gradient_is_exact_where_its_expectation_is():
  """Hermite's nodes as noise: E z^4 = m^4 + 6 m^2 s^2 + 3 s^4, exactly."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(5)
  weights = weights / weights.sum()
  mean = tf.Variable([[0.7]] * 5)
  std = tf.Variable([[1.3]] * 5)
  with tf.GradientTape() as tape:
    z = gaussian(1).sample({'mean': mean, 'std': std}, nodes[:, None], 1.0)
    value = tf.reduce_sum(weights[:, None].astype(np.float32) * z**4)
  m, s = 0.7, 1.3
  assert float(value) == pytest.approx(m**4 + 6 * m**2 * s**2 + 3 * s**4, 1e-5)
  by_mean, by_std = (
    float(tf.reduce_sum(g)) for g in tape.gradient(value, [mean, std])
  )
  assert by_mean == pytest.approx(4 * m**3 + 12 * m * s**2, rel=1e-5)
  assert by_std == pytest.approx(12 * m**2 * s + 12 * s**3, rel=1e-5)


@pytest.mark.parametrize(
  'variance, gets', [('opposing', 'other'), ('own', 'own'), ('fixed', None)]
)
@pytest.mark.parametrize('per_dim', [False, True])
def test_whose_variance_is_drawn_from(variance, gets, per_dim):
  latent = gaussian(variance=variance, per_dim=per_dim, std=0.25)
  rng = np.random.default_rng(1)
  h = {
    name: tf.constant(rng.random((6, 8)), tf.float32)
    for name in ('own', 'other')
  }
  phi = {name: latent.parameters(x, True) for name, x in h.items()}
  found = latent.of_pair(phi['own'], phi['other'])
  np.testing.assert_array_equal(found['mean'], phi['own']['mean'])
  columns = 3 if per_dim and variance != 'fixed' else 1
  assert found['std'].shape == (6, columns)
  if gets:
    raw = np.asarray(latent.projector(h[gets], training=True))[:, 3:]
    np.testing.assert_allclose(found['std'] ** 2, np.exp(raw), rtol=1e-5)
    np.testing.assert_array_equal(found['std'], phi[gets]['std'])
    assert np.std(found['std']) > 0.01
  else:
    assert np.all(found['std'] == 0.25)
  # Batch norm is behind the map: means of a batch are centred, not positive.
  np.testing.assert_allclose(np.mean(found['mean'], 0), 0, atol=1e-5)


def test_the_rate_of_gaussians():
  rng = np.random.default_rng(2)
  mean, std = rng.normal(size=[4, 3]), rng.uniform(0.2, 2, size=[4, 1])
  phi = {
    'mean': tf.constant(mean, tf.float32),
    'std': tf.constant(std, tf.float32),
  }
  exact = np.sum((std**2 + mean**2 - 1) / 2 - np.log(std), 1)
  report = gaussian().report(phi, None)
  assert report['latent_kl'].numpy() == pytest.approx(exact, rel=1e-5)
  assert report['latent_std'].numpy() == pytest.approx(std[:, 0])


@pytest.mark.parametrize('kind', [bernoulli, gaussian])
def test_a_bottleneck_leads_back_up_and_without_one_nothing_does(kind):
  h = tf.constant(np.random.default_rng(3).random((5, 8)), tf.float32)
  narrow, none = kind(3), kind(0)
  z = narrow.code(narrow.parameters(h, True))
  assert z.shape == (5, 3)
  up = narrow.up(z, training=True)
  assert up.shape == (5, 8) and np.min(up) == 0.0
  z = none.code(none.parameters(h, True))
  assert z.shape == (5, 8)
  assert none.up(z) is z


def test_logits_of_a_representation_have_both_signs():
  h = tf.constant(np.random.default_rng(4).random((64, 8)), tf.float32)
  latent = bernoulli(16)
  ones = np.mean(latent.code(latent.parameters(h, True)), 0)
  assert np.all((ones > 0.2) & (ones < 0.8))


@pytest.mark.parametrize('relaxed', [True, False])
def test_the_threshold_of_top_k_has_no_gradient(relaxed):
  """Straight through it: a bit's slope is of its own logit alone."""
  rng, temperature = np.random.default_rng(2), 0.7
  h = tf.constant(rng.normal(size=[1, 6]), tf.float32)
  noise = rng.random((1, 6)).astype(np.float32)
  latent = bernoulli(6, top_k=2, relaxed=relaxed)
  latent.projector = lambda h, training: h
  with tf.GradientTape() as tape:
    tape.watch(h)
    z = latent.sample(latent.parameters(h), noise, temperature)
  slopes = tape.jacobian(z, h).numpy()[0, :, 0]
  noisy = h.numpy()[0] + np.log(noise[0]) - np.log1p(-noise[0])
  noisy -= np.sort(noisy)[-3:-1].mean()
  soft = sigmoid(noisy / temperature)
  np.testing.assert_allclose(
    slopes, np.diag(soft * (1 - soft) / temperature), atol=1e-6
  )
