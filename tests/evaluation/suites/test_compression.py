"""Lipschitz bounds, quantisation and PCA against closed forms and loops."""

import math

import numpy as np
import pytest

from cvr.evaluation.suites import compression
from cvr.numerics import distributions


def random(seed=0):
  return np.random.default_rng(seed)


def unit(z):
  return z / np.linalg.norm(z, axis=1, keepdims=True)


# Lipschitz bounds ------------------------------------------------------------


def test_distances_are_those_of_a_loop():
  x, y = random().normal(size=(2, 5, 3, 4, 3)).astype(np.float32)
  found = compression.distances(x, y)
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
  direct = compression.lipschitz_direct(mu_x, mu_y, distance, False)
  for rate, precision in (
    (distributions.vmf_kl(256, kappa_e, kappa_b, cosine), 1e-11),
    (least + slope * (1 - cosine), 1e-6),
  ):
    ratios = compression.lipschitz_vmf(rate, 256, kappa_e, kappa_b, distance)
    np.testing.assert_allclose(ratios, direct, rtol=precision)
  unnormalised = compression.lipschitz_direct(
    7 * mu_x, mu_y / 3, distance, normalise=True
  )
  np.testing.assert_allclose(unnormalised, direct, rtol=1e-13)


def test_a_rate_below_the_least_is_no_distance():
  least = distributions.vmf_kl(8, 50.0, 5.0, 1.0)
  rates = [least, least - 1e-6]
  ratios = compression.lipschitz_vmf(rates, 8, 50.0, 5.0, [1, 1])
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
  ratios = compression.lipschitz_gaussian(rate, 6, sigma_e, sigma_b, distance)
  direct = compression.lipschitz_direct(mu_x, mu_y, distance, normalise=False)
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
  ratios = compression.lipschitz_gaussian(rate, 6, sigma_e, sigma_b, ones)
  direct = compression.lipschitz_direct(mu_x, mu_y, ones, normalise=False)
  assert ratios[0] == pytest.approx(0.7, rel=1e-12)
  assert np.all(ratios[1:] < direct[1:])


def test_a_linear_map_has_its_operator_norm():
  matrix = random().normal(size=(12, 7))
  norm = np.linalg.svd(matrix).S[0]
  direction = np.linalg.svd(matrix).Vh[0]
  x, y = random(1).normal(size=(2, 500, 12))
  x, y = x[:, :7], y[:, :7]
  x[0] = y[0] + 0.01 * direction
  ratios = compression.lipschitz_direct(
    x @ matrix.T, y @ matrix.T, compression.distances(x, y), normalise=False
  )
  found = compression.summary(ratios)
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
  ratios = compression.lipschitz_vmf(rate, 8, 50.0, 5.0, gap)
  np.testing.assert_allclose(ratios, 2 * np.sin(1.5 * gap) / gap, rtol=1e-7)
  assert compression.summary(ratios)['max'] == pytest.approx(3, rel=1e-5)


def test_equal_images_are_left_out_and_counted():
  z1, z2 = random().normal(size=(2, 4, 3))
  distance = [1.0, 0.0, 2.0, 0.0]
  ratios = compression.lipschitz_direct(z1, z2, distance, normalise=False)
  assert np.isnan(ratios).tolist() == [False, True, False, True]
  found = compression.summary(ratios)
  assert (found['pairs'], found['left_out']) == (2, 2)
  assert found['mean'] == pytest.approx((ratios[0] + ratios[2]) / 2)


def test_what_is_not_finite_is_refused():
  ones = np.ones(2)
  for bad in (np.nan, np.inf):
    with pytest.raises(ValueError, match='finite'):
      compression.lipschitz_gaussian([bad, 1], 2, 1, 1, ones)
    with pytest.raises(ValueError, match='finite'):
      compression.lipschitz_gaussian(ones, 2, 1, 1, [1, bad])


def test_a_summary_by_hand():
  found = compression.summary(np.array([0.0, 1, 2, 3, np.nan, 4]), bins=4)
  assert found == {
    'pairs': 5, 'left_out': 1, 'mean': 2.0, 'max': 4.0, 'median': 2.0,
    'histogram': {'edges': [0, 1, 2, 3, 4], 'counts': [1, 1, 1, 2]},
  }  # fmt: skip
  still = compression.summary(np.zeros(3), bins=2)
  assert still['max'] == 0 and still['histogram']['counts'] == [3, 0]
  none = compression.summary(np.full(3, np.nan))
  assert none == {
    'pairs': 0, 'left_out': 3, 'mean': None, 'max': None, 'median': None,
    'histogram': None,
  }  # fmt: skip


def test_a_rate_has_an_interval():
  found = compression.rate_summary(np.array([1, 3], np.float32))
  # s = sqrt(2), so s / sqrt(n) = 1.
  assert found['mean'] == 2 and found['images'] == 2
  assert found['low'] == pytest.approx(2 - 1.96, abs=1e-12)
  assert found['high'] == pytest.approx(2 + 1.96, abs=1e-12)
  one = compression.rate_summary([4])
  assert one == {'mean': 4.0, 'low': None, 'high': None, 'images': 1}


def test_nineteen_of_twenty_intervals_hold_the_mean():
  rates = random().exponential(3, (2000, 400))
  found = [compression.rate_summary(rate) for rate in rates]
  inside = np.mean([row['low'] < 3 < row['high'] for row in found])
  # Five deviations of 2000 draws, and what an exponential's tail costs.
  assert abs(inside - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 2000) + 0.005


# Bits ------------------------------------------------------------------------


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_the_ranges_are_those_that_err_least(bits):
  """On a normal variable, among wider and narrower ones; by a fine sum."""
  x = np.linspace(-8, 8, 400_001)[:, None]
  density = np.exp(-(x[:, 0] ** 2) / 2)

  def error(half):
    ends = np.array([half])
    back = compression.quantised(x, bits, -ends, ends)
    return np.average((back[:, 0] - x[:, 0]) ** 2, weights=density)

  train = random().normal(5, 2, (1000, 3))
  low, high = compression.ranges(train, bits)
  np.testing.assert_allclose((low + high) / 2, train.mean(0), rtol=1e-12)
  halves = (high - low) / 2 / train.std(0)
  np.testing.assert_allclose(halves, halves[0], rtol=1e-12)
  half = float(halves[0])
  for other in (0.98, 0.995, 1.005, 1.02):
    assert error(half) < error(half * other)


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_quantisation_is_that_of_a_loop(bits):
  features = random().normal(size=(200, 3)).astype(np.float32) * [1, 5, 0.1]
  low, high = np.array([-1, -9, -0.5]), np.array([1.5, 9, 0.01])
  found = compression.quantised(features, bits, low, high)
  assert found.dtype == np.float32 and found.shape == features.shape
  for j in range(3):
    step = (high[j] - low[j]) / 2**bits
    levels = [low[j] + (k + 0.5) * step for k in range(2**bits)]
    for value, back in zip(features[:, j], found[:, j], strict=True):
      nearest = min(levels, key=lambda level: abs(level - value))
      assert back == pytest.approx(nearest, rel=1e-6)
    assert len({*found[:, j].tolist()}) <= 2**bits
  again = compression.quantised(found, bits, low, high)
  np.testing.assert_array_equal(again, found)


def test_a_feature_that_never_varies_stays():
  train = np.full((9, 2), 3.5)
  low, high = compression.ranges(train, 4)
  found = compression.quantised(np.array([[3.5, 8]]), 4, low, high)
  assert found.tolist() == [[3.5, 3.5]]


def test_components_are_those_of_an_svd():
  """Of a known covariance too: turned axes of variances 9, 4, 1, 0.25."""
  turn = np.linalg.qr(random().normal(size=(4, 4))).Q
  train = random(1).normal(size=(5000, 4)) * [1, 3, 0.5, 2] @ turn.T + 7
  mean, components = compression.pca(train)
  _, deviations, axes = np.linalg.svd(train - train.mean(0), False)
  np.testing.assert_allclose(mean, train.mean(0))
  np.testing.assert_allclose(np.abs(np.sum(components * axes, 1)), 1)
  known = turn.T[[1, 3, 0, 2]]
  assert np.all(np.abs(np.sum(components * known, 1)) > 0.99)
  found = compression.project(train, mean, components, 4)
  np.testing.assert_allclose(
    found.std(0), deviations / math.sqrt(5000), rtol=1e-5
  )
  np.testing.assert_allclose(found @ components + mean, train, atol=1e-4)
  two = compression.project(train, mean, components, 2)
  np.testing.assert_array_equal(two, found[:, :2])


def test_the_sign_of_components_is_settled():
  train = random().normal(size=(30, 5))
  mean, components = compression.pca(train)
  mirrored, same = compression.pca(2 * train.mean(0) - train)
  np.testing.assert_allclose(mirrored, mean)
  np.testing.assert_allclose(same, components, atol=1e-12)
  largest = np.take_along_axis(
    components, np.abs(components).argmax(1)[:, None], 1
  )
  assert np.all(largest > 0)
  # Fewer images than dimensions: still a basis.
  _, few = compression.pca(train[:3])
  np.testing.assert_allclose(few @ few.T, np.eye(5), atol=1e-12)


def test_plans():
  assert sorted({dims for dims, _ in compression.plans(2048)}) == [
    8, 32, 128, 512, 2048
  ]  # fmt: skip
  assert compression.plans(5) == [(5, 32), (5, 8), (5, 4), (5, 2), (5, 1)]
  assert {dims for dims, _ in compression.plans(31)} == {31}
  assert {dims for dims, _ in compression.plans(32)} == {32, 8}


def stump(features, labels):
  """The feature that tells two classes apart best -> a function of features."""
  means = np.stack([features[labels == c].mean(0) for c in (0, 1)])
  best = np.argmax(np.abs(means[1] - means[0]) / features.std(0))
  middle, up = means[:, best].mean(), means[1, best] > means[0, best]
  return lambda features: ((features[:, best] > middle) == up).astype(int)


def split(n, seed):
  """The label is the first feature's sign; 7 others vary more."""
  features = random(seed).normal(size=(n, 8)) * 10
  features[:, 0] = np.where(features[:, 0] > 0, 3, -3)
  return features.astype(np.float32), (features[:, 0] > 0).astype(int)


def test_one_bit_is_enough_for_a_sign_and_pca_loses_it():
  train, test = split(4000, 0), split(1000, 1)
  full, one, lost = compression.bits_curve(
    train, test, stump, [(8, 32), (8, 1), (2, 8)]
  )
  assert full['accuracy'] == one['accuracy'] == 1
  # Its variance is the smallest: two components know nothing of it.
  assert abs(lost['accuracy'] - 0.5) < 0.1
  assert [row['bits_per_image'] for row in (full, one, lost)] == [256, 8, 16]
  for row in (full, one, lost):
    assert row['scores'].dtype == np.float32 and row['scores'].shape == (1000,)
    assert row['accuracy'] == pytest.approx(row['scores'].mean())
  assert (lost['dims'], lost['bits']) == (2, 8)


def test_permuted_labels_are_at_chance():
  train, test = split(4000, 0), split(1000, 1)
  train = train[0], random().permutation(train[1])
  for row in compression.bits_curve(train, test, stump):
    assert abs(row['accuracy'] - 0.5) < 0.1


def test_what_the_classifier_sees():
  """Train alone sets components and ranges; all dims and bits: the features."""
  train, test = split(300, 0), split(100, 1)
  grid = [(8, 32), (8, 2), (3, 32), (3, 1)]

  def seen(test):
    rows = []

    def fit(features, labels):
      np.testing.assert_array_equal(labels, train[1])
      return lambda of_test: rows.append((features, of_test)) or test[1]

    found = compression.bits_curve(train, test, fit, grid)
    assert [row['accuracy'] for row in found] == [1, 1, 1, 1]
    return rows

  first = seen(test)
  shifted = seen((test[0] + 400, test[1]))
  for (fitted, _), (again, _) in zip(first, shifted, strict=True):
    np.testing.assert_array_equal(fitted, again)
  np.testing.assert_array_equal(first[0][0], train[0])
  np.testing.assert_array_equal(first[0][1], test[0])
  low, high = compression.ranges(train[0], 2)
  wanted = compression.quantised(test[0], 2, low, high)
  np.testing.assert_array_equal(first[1][1], wanted)
  wanted = compression.project(test[0], *compression.pca(train[0]), 3)
  np.testing.assert_array_equal(first[2][1], wanted)
  # Beyond train's range all of test is in its last cell.
  for column in shifted[1][1].T:
    assert np.unique(column).size == 1
