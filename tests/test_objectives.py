"""Losses: fixture numbers, dumb-loop oracles, closed forms, gradients."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

import distributions
import objectives
import oracles

KAPPA_E, KAPPA_B = 1024.0, 10.0


def float32(*arrays):
  return [tf.constant(a, tf.float32) for a in arrays]


def vmf_scores(kappa):
  return functools.partial(distributions.vmf_scores, kappa=kappa)


def nt_xent(h1, h2, temperature, double=True):
  scores = vmf_scores(1.0 / temperature)
  first = objectives.contrast(scores, h1, h2, h1 if double else None)
  second = objectives.contrast(scores, h2, h1, h2 if double else None)
  return [tf.reduce_mean(c.cross_entropy) for c in (first, second)]


def vmf_terms(kappa_e=KAPPA_E, kappa_b=KAPPA_B):
  return {
    'log_e': functools.partial(distributions.vmf_log_prob, kappa=kappa_e),
    'log_b': functools.partial(distributions.vmf_log_prob, kappa=kappa_b),
    'scores': vmf_scores(kappa_b),
  }


def c_simclr(h1, h2, z1, z2, beta, terms=None, double=True):
  terms = terms or vmf_terms()
  first = objectives.ceb_contrastive(
    z1, h1, h2, h2, h1 if double else None, beta=beta, **terms
  )
  second = objectives.ceb_contrastive(
    z2, h2, h1, h1, h2 if double else None, beta=beta, **terms
  )
  return tf.reduce_mean(first.loss + second.loss), first, second


# Computed with 60 digits from oracles.fixture.
NT_XENT = {
  (16, 0.1): (2.043334072186, 2.033377576793),
  (256, 0.1): (1.923174995689, 1.921007393994),
}
NT_XENT_SUM = {
  (16, 0.1): 4.076711648978,
  (256, 0.1): 3.844182389683,
  (16, 0.5): 3.907478689142,
  (256, 0.5): 3.881460135735,
}
C_SIMCLR = {
  (16, 1.0): 84.916194899288,
  (256, 1.0): 626.188625960551,
  (16, 0.0): 0.184891350868,
  (256, 0.0): -0.047637908428,
}
RATE = {16: 42.365651774210, 256: 313.118131934489}
RELEVANT = {
  16: (-0.097423923130, -0.087467427737),
  256: (0.022735153367, 0.024902755061),
}
DISTANCE = {16: 2.016515386060, 256: 1.991075151004}


@pytest.mark.parametrize(
  'dim, total', [(16, 0.026386018236), (256, 5.644990640187)]
)
def test_the_fixture_is_the_one_of_the_numbers(dim, total):
  assert oracles.fixture(dim)[2].sum() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize('dim, temperature', list(NT_XENT_SUM))
def test_nt_xent_of_the_fixture(dim, temperature):
  h1, h2, _ = oracles.fixture(dim)
  expected = NT_XENT_SUM[dim, temperature]
  found = nt_xent(*float32(h1, h2), temperature)
  assert float(found[0] + found[1]) == pytest.approx(expected, rel=1e-5)
  if (dim, temperature) in NT_XENT:
    np.testing.assert_allclose(found, NT_XENT[dim, temperature], rtol=1e-5)
  assert sum(oracles.nt_xent(h1, h2, temperature)) == pytest.approx(
    expected, abs=1e-9
  )


@pytest.mark.parametrize('dim, beta', list(C_SIMCLR))
def test_c_simclr_of_the_fixture(dim, beta):
  """In float32 to 1e-5 of the NT-Xent value, though L itself is 626."""
  h1, h2 = float32(*oracles.fixture(dim)[:2])
  loss, first, second = c_simclr(h1, h2, h1, h2, beta)
  tolerance = 1e-5 * NT_XENT_SUM[dim, 0.1]
  assert float(loss) == pytest.approx(C_SIMCLR[dim, beta], abs=tolerance)
  rates = [tf.reduce_mean(d.rate) for d in (first, second)]
  np.testing.assert_allclose(rates, RATE[dim], atol=tolerance)
  relevant = [tf.reduce_mean(d.relevant) for d in (first, second)]
  np.testing.assert_allclose(relevant, RELEVANT[dim], atol=tolerance)


def test_byol_distance_of_the_fixture():
  for dim, expected in DISTANCE.items():
    h1, h2 = float32(*oracles.fixture(dim)[:2])
    # Lengths do not matter: the distance normalises.
    rows = objectives.normalized_distance(3.0 * h1, 0.5 * h2)
    assert float(tf.reduce_mean(rows)) == pytest.approx(expected, rel=1e-6)


def test_collinear_embeddings_give_log_of_the_candidates():
  same = tf.math.l2_normalize(tf.ones([5, 8]), -1)
  for found in nt_xent(same, same, 0.1):
    assert float(found) == pytest.approx(math.log(9), rel=1e-6)
  for found in nt_xent(same, same, 0.1, double=False):
    assert float(found) == pytest.approx(math.log(5), rel=1e-6)


@pytest.mark.parametrize('double', [True, False])
@pytest.mark.parametrize('beta', [0.0, 0.3])
@pytest.mark.parametrize('family', ['vmf', 'gaussian'])
def test_ceb_matches_the_transcription(family, beta, double):
  rng = np.random.default_rng(3)
  h1, h2, z1, z2 = (oracles.unit_rows(rng, 6, 5) for _ in range(4))
  if family == 'vmf':
    terms = vmf_terms(50.0, 7.0)
    log_e = functools.partial(oracles.log_vmf, kappa=50.0)
    log_b = functools.partial(oracles.log_vmf, kappa=7.0)
  else:
    terms = {
      'log_e': functools.partial(distributions.gaussian_log_prob, sigma=0.3),
      'log_b': functools.partial(distributions.gaussian_log_prob, sigma=0.8),
      'scores': functools.partial(distributions.gaussian_scores, sigma=0.8),
    }
    log_e = functools.partial(oracles.log_gaussian, sigma=0.3)
    log_b = functools.partial(oracles.log_gaussian, sigma=0.8)
  expected, parts = oracles.c_simclr(h1, h2, z1, z2, log_e, log_b, beta, double)
  loss, first, second = c_simclr(*float32(h1, h2, z1, z2), beta, terms, double)
  assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-5)
  found = {
    'rate1': first.rate,
    'rate2': second.rate,
    'relevant1': first.relevant,
    'relevant2': second.relevant,
  }
  for name, value in found.items():
    assert float(tf.reduce_mean(value)) == pytest.approx(
      parts[name], rel=1e-5, abs=1e-5
    )


def test_beta_zero_and_the_mean_is_nt_xent():
  """C-SimCLR's limit: InfoNCE at temperature 1 / kappa_b, less a constant."""
  rng = np.random.default_rng(1)
  h1, h2 = float32(oracles.unit_rows(rng, 8, 16), oracles.unit_rows(rng, 8, 16))
  loss, _, _ = c_simclr(h1, h2, h1, h2, 0.0)
  expected = sum(map(float, nt_xent(h1, h2, 1 / KAPPA_B)))
  assert float(loss) == pytest.approx(expected - 2 * math.log(15), abs=1e-5)


def _gradients(function, *arrays):
  tensors = float32(*arrays)
  with tf.GradientTape() as tape:
    tape.watch(tensors)
    loss = function(*tensors)
  return [g.numpy() for g in tape.gradient(loss, tensors)]


def test_gradients_match_finite_differences_of_the_transcription():
  """No stop-gradient anywhere: h1, h2, z1 and z2 all get theirs."""
  rng = np.random.default_rng(2)
  arrays = [oracles.unit_rows(rng, 3, 4) for _ in range(4)]

  def log_prob(kappa, normalizer):
    # A polynomial extension off the sphere, the one the code uses.
    return lambda z, mu: normalizer - kappa * np.sum((z - mu) ** 2) / 2

  def oracle(*a):
    log_e, log_b = log_prob(20.0, 1.0), log_prob(4.0, 2.0)
    loss = 0.0
    for z, mu, other in ((a[2], a[0], a[1]), (a[3], a[1], a[0])):
      rate = np.mean(
        [log_e(z[i], mu[i]) - log_b(z[i], other[i]) for i in range(3)]
      )
      entropies = oracles.cross_entropies(
        lambda x, y: 4.0 * x @ y, z, other, mu
      )
      loss += 0.7 * rate + entropies.mean()
    return loss

  found = _gradients(
    lambda *a: c_simclr(*a, 0.7, vmf_terms(20.0, 4.0))[0], *arrays
  )
  for k, gradient in enumerate(found):

    def at(x, k=k):
      return oracle(*[x if j == k else a for j, a in enumerate(arrays)])

    expected = oracles.finite_difference(at, arrays[k])
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(gradient, expected, atol=2e-5, rtol=2e-5)


def test_byol_gradient_is_tangential_and_right():
  rng = np.random.default_rng(4)
  p, y = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))

  def loss(p, y):
    return tf.reduce_mean(objectives.normalized_distance(p, y))

  found = _gradients(loss, p, y)[0]
  zero = np.ones_like(p)
  expected = oracles.finite_difference(
    lambda x: oracles.byol(x, zero, zero, y, 1.0), p
  )
  np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_allclose((found * p).sum(1), 0, atol=1e-6)


def test_accuracy_and_entropy_of_the_contrast():
  scores = vmf_scores(1.0)
  z = tf.eye(4) * 50.0
  found = objectives.contrast(scores, z, tf.eye(4))
  assert float(found.accuracy) == 1.0
  assert float(found.entropy) == pytest.approx(0.0, abs=1e-5)
  flat = objectives.contrast(scores, tf.zeros([4, 4]), tf.eye(4), tf.eye(4))
  assert float(flat.entropy) == pytest.approx(math.log(7), rel=1e-6)
  wrong = objectives.contrast(scores, tf.roll(z, 1, 0), tf.eye(4))
  assert float(wrong.accuracy) == 0.0


def test_local_rows_of_global_keys():
  """Rows 4..7 of eight keys: what the second of two replicas computes."""
  rng = np.random.default_rng(5)
  h1, h2 = float32(oracles.unit_rows(rng, 8, 6), oracles.unit_rows(rng, 8, 6))
  scores = vmf_scores(10.0)
  whole = objectives.contrast(scores, h1, h2, h1).cross_entropy
  part = objectives.contrast(scores, h1[4:], h2, h1, offset=4).cross_entropy
  np.testing.assert_allclose(part, whole[4:], rtol=1e-6)


def test_classification_against_the_definition():
  logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
  labels = tf.constant([0, 2])
  loss, accuracy = objectives.classification(float32(logits)[0], labels)
  expected = -np.mean(
    [
      oracles.log_softmax_at(logits[0], 0),
      oracles.log_softmax_at(logits[1], 2),
    ]
  )
  assert float(loss) == pytest.approx(expected, rel=1e-6)
  assert float(accuracy) == 0.5
  binary, _ = objectives.classification(float32(logits)[0], labels, True)
  signs = np.array([[1, -1, -1], [-1, -1, 1]])
  expected = np.mean(np.log1p(np.exp(-signs * logits)).sum(1))
  assert float(binary) == pytest.approx(expected, rel=1e-6)


def test_l2_loss_is_half_the_squares():
  found = objectives.l2_loss([tf.constant([1.0, 2.0]), tf.constant([[3.0]])])
  assert float(found) == 7.0
