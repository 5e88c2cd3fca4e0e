"""Lipschitz bounds against closed forms and loops."""

import math

import numpy as np
import pytest

from cvr.evaluation import features
from cvr.evaluation.measures import lipschitz
from cvr.numerics import distributions


def random(seed=0):
  return np.random.default_rng(seed)


def unit(z):
  return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_distances_are_those_of_a_loop():
  x, y = random().normal(size=(2, 5, 3, 4, 3)).astype(np.float32)
  found = lipschitz.distances(x, y)
  for i in range(5):
    pairs = zip(x[i].ravel().tolist(), y[i].ravel().tolist(), strict=True)
    wanted = math.sqrt(sum((a - b) ** 2 for a, b in pairs))
    assert found[i] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
  ('kappa_e', 'kappa_b', 'least', 'slope'),
  # With 60 digits: KL at cosine 1, kappa_b A(kappa_e), of 256 dimensions.
  [
    (1024.0, 10.0, 184.684083, 8.83157127),
    (16384.0, 10.0, 522.360656, 9.92248061),
  ],
)
def test_a_vmf_rate_knows_the_distance(kappa_e, kappa_b, least, slope):
  mu_x = unit(random().normal(size=(20, 256)))
  mu_y = unit(random(1).normal(size=(20, 256)))
  distance = random(2).uniform(1, 2, 20)
  cosine = np.sum(mu_x * mu_y, 1)
  direct = lipschitz.of_embeddings(mu_x, mu_y, distance)
  for rate, precision in (
    (distributions.vmf_kl(256, kappa_e, kappa_b, cosine), 1e-11),
    (least + slope * (1 - cosine), 1e-6),
  ):
    ratios = lipschitz.of_vmf(rate, 256, kappa_e, kappa_b, distance)
    np.testing.assert_allclose(ratios, direct, rtol=precision)
  unnormalised = lipschitz.of_embeddings(
    features.unit(7 * mu_x), features.unit(mu_y / 3), distance
  )
  np.testing.assert_allclose(unnormalised, direct, rtol=1e-13)


def test_a_rate_below_the_least_is_no_distance():
  least = distributions.vmf_kl(8, 50.0, 5.0, 1.0)
  rates = [least, least - 1e-6]
  ratios = lipschitz.of_vmf(rates, 8, 50.0, 5.0, [1, 1])
  assert ratios.tolist() == [0, 0]


def loop_gaussian_kl(x, y, sigma_e, sigma_b):
  """Of one pair: a sum over dimensions, one after the other."""
  terms = zip(x, y, sigma_e, sigma_b, strict=True)
  return sum(
    math.log(b / e) + (e**2 + (p - q) ** 2) / (2 * b**2) - 1 / 2
    for p, q, e, b in terms
  )


@pytest.mark.parametrize(('sigma_e', 'sigma_b'), [(1, 1), (0.3, 2), (4, 0.5)])
def test_a_gaussian_rate_knows_the_distance(sigma_e, sigma_b):
  mu_x, mu_y = random().normal(size=(2, 10, 6))
  rate = [
    loop_gaussian_kl(x, y, [sigma_e] * 6, [sigma_b] * 6)
    for x, y in zip(mu_x, mu_y, strict=True)
  ]
  distance = random(1).uniform(1, 2, 10)
  ratios = lipschitz.of_gaussian(rate, 6, sigma_e, sigma_b, distance)
  direct = lipschitz.of_embeddings(mu_x, mu_y, distance)
  np.testing.assert_allclose(ratios, direct, rtol=1e-12)
  if sigma_e == sigma_b == 1:
    np.testing.assert_allclose(ratios, np.sqrt(2 * np.array(rate)) / distance)


def test_learned_deviations_give_a_lower_bound():
  sigma_e, sigma_b = random().uniform(0.2, 3, (2, 6))
  mu_x, mu_y = random(1).normal(size=(2, 50, 6))
  # Two that differ in nothing but the dimension of the smallest deviation.
  mu_y[0] = mu_x[0]
  mu_y[0, sigma_b.argmin()] += 0.7
  rate = [
    loop_gaussian_kl(x, y, sigma_e, sigma_b)
    for x, y in zip(mu_x, mu_y, strict=True)
  ]
  ones = np.ones(50)
  ratios = lipschitz.of_gaussian(rate, 6, sigma_e, sigma_b, ones)
  direct = lipschitz.of_embeddings(mu_x, mu_y, ones)
  assert ratios[0] == pytest.approx(0.7, rel=1e-12)
  assert np.all(ratios[1:] < direct[1:])


def test_a_linear_map_has_its_operator_norm():
  matrix = random().normal(size=(12, 7))
  norm = np.linalg.svd(matrix).S[0]
  direction = np.linalg.svd(matrix).Vh[0]
  x, y = random(1).normal(size=(2, 500, 12))
  x, y = x[:, :7], y[:, :7]
  x[0] = y[0] + 0.01 * direction
  ratios = lipschitz.of_embeddings(
    x @ matrix.T, y @ matrix.T, lipschitz.distances(x, y)
  )
  found = lipschitz.summary(ratios)
  assert found['max'] == pytest.approx(norm, rel=1e-12)
  assert np.argmax(ratios) == 0
  assert np.all(ratios[1:] < norm)


def test_a_turn_has_its_speed():
  """x -> (cos 3x, sin 3x) on a circle: chords, nearly 3 for close pairs."""
  x = random().uniform(0, 6, 50)
  gap = np.geomspace(1e-3, 1, 50)

  def mu(x):
    return np.stack([np.cos(3 * x), np.sin(3 * x), *np.zeros((6, 50))], 1)

  rate = distributions.vmf_kl(8, 50.0, 5.0, np.sum(mu(x) * mu(x + gap), 1))
  ratios = lipschitz.of_vmf(rate, 8, 50.0, 5.0, gap)
  np.testing.assert_allclose(ratios, 2 * np.sin(1.5 * gap) / gap, rtol=1e-7)
  assert lipschitz.summary(ratios)['max'] == pytest.approx(3, rel=1e-5)


def test_equal_images_are_left_out_and_counted():
  z1, z2 = random().normal(size=(2, 4, 3))
  distance = [1.0, 0.0, 2.0, 0.0]
  ratios = lipschitz.of_embeddings(z1, z2, distance)
  assert np.isnan(ratios).tolist() == [False, True, False, True]
  found = lipschitz.summary(ratios)
  assert (found['pairs'], found['left_out']) == (2, 2)
  assert found['mean'] == pytest.approx((ratios[0] + ratios[2]) / 2)


def test_what_is_not_finite_is_refused():
  ones = np.ones(2)
  for bad in (np.nan, np.inf):
    with pytest.raises(ValueError, match='finite'):
      lipschitz.of_gaussian([bad, 1], 2, 1, 1, ones)
    with pytest.raises(ValueError, match='finite'):
      lipschitz.of_gaussian(ones, 2, 1, 1, [1, bad])


def test_a_summary_by_hand():
  found = lipschitz.summary(np.array([0.0, 1, 2, 3, np.nan, 4]), bins=4)
  assert found == {
    'pairs': 5, 'left_out': 1, 'mean': 2.0, 'max': 4.0, 'median': 2.0,
    'histogram': {'edges': [0, 1, 2, 3, 4], 'counts': [1, 1, 1, 2]},
  }  # fmt: skip
  still = lipschitz.summary(np.zeros(3), bins=2)
  assert still['max'] == 0 and still['histogram']['counts'] == [3, 0]
  none = lipschitz.summary(np.full(3, np.nan))
  assert none == {
    'pairs': 0, 'left_out': 3, 'mean': None, 'max': None, 'median': None,
    'histogram': None,
  }  # fmt: skip
