"""Quantisation and PCA against closed forms and loops."""

import math

import numpy as np
import pytest

from cvr.evaluation.measures import bits


def random(seed=0):
  return np.random.default_rng(seed)


@pytest.mark.parametrize('count', [1, 2, 4, 8])
def test_the_ranges_are_those_that_err_least(count):
  """On a normal variable, among wider and narrower ones; by a fine sum."""
  x = np.linspace(-8, 8, 400_001)[:, None]
  density = np.exp(-(x[:, 0] ** 2) / 2)

  def error(half):
    ends = np.array([half])
    back = bits.quantised(x, count, -ends, ends)
    return np.average((back[:, 0] - x[:, 0]) ** 2, weights=density)

  train = random().normal(5, 2, (1000, 3))
  low, high = bits.ranges(train, count)
  np.testing.assert_allclose((low + high) / 2, train.mean(0), rtol=1e-12)
  halves = (high - low) / 2 / train.std(0)
  np.testing.assert_allclose(halves, halves[0], rtol=1e-12)
  half = float(halves[0])
  for other in (0.98, 0.995, 1.005, 1.02):
    assert error(half) < error(half * other)


@pytest.mark.parametrize('count', [1, 2, 4, 8])
def test_quantisation_is_that_of_a_loop(count):
  features = random().normal(size=(200, 3)).astype(np.float32) * [1, 5, 0.1]
  low, high = np.array([-1, -9, -0.5]), np.array([1.5, 9, 0.01])
  found = bits.quantised(features, count, low, high)
  assert found.dtype == np.float32 and found.shape == features.shape
  for j in range(3):
    step = (high[j] - low[j]) / 2**count
    levels = [low[j] + (k + 0.5) * step for k in range(2**count)]
    for value, back in zip(features[:, j], found[:, j], strict=True):
      nearest = min(levels, key=lambda level: abs(level - value))
      assert back == pytest.approx(nearest, rel=1e-6)
    assert len({*found[:, j].tolist()}) <= 2**count
  again = bits.quantised(found, count, low, high)
  np.testing.assert_array_equal(again, found)


def test_a_feature_that_never_varies_stays():
  train = np.full((9, 2), 3.5)
  low, high = bits.ranges(train, 4)
  found = bits.quantised(np.array([[3.5, 8]]), 4, low, high)
  assert found.tolist() == [[3.5, 3.5]]


def test_components_are_those_of_an_svd():
  """Of a known covariance too: turned axes of variances 9, 4, 1, 0.25."""
  turn = np.linalg.qr(random().normal(size=(4, 4))).Q
  train = random(1).normal(size=(5000, 4)) * [1, 3, 0.5, 2] @ turn.T + 7
  mean, components = bits.pca(train)
  _, deviations, axes = np.linalg.svd(train - train.mean(0), False)
  np.testing.assert_allclose(mean, train.mean(0))
  np.testing.assert_allclose(np.abs(np.sum(components * axes, 1)), 1)
  known = turn.T[[1, 3, 0, 2]]
  assert np.all(np.abs(np.sum(components * known, 1)) > 0.99)
  found = bits.project(train, mean, components, 4)
  np.testing.assert_allclose(
    found.std(0), deviations / math.sqrt(5000), rtol=1e-5
  )
  np.testing.assert_allclose(found @ components + mean, train, atol=1e-4)
  two = bits.project(train, mean, components, 2)
  np.testing.assert_array_equal(two, found[:, :2])


def test_the_sign_of_components_is_settled():
  train = random().normal(size=(30, 5))
  mean, components = bits.pca(train)
  mirrored, same = bits.pca(2 * train.mean(0) - train)
  np.testing.assert_allclose(mirrored, mean)
  np.testing.assert_allclose(same, components, atol=1e-12)
  largest = np.take_along_axis(
    components, np.abs(components).argmax(1)[:, None], 1
  )
  assert np.all(largest > 0)
  # Fewer images than dimensions: still a basis.
  _, few = bits.pca(train[:3])
  np.testing.assert_allclose(few @ few.T, np.eye(5), atol=1e-12)


def test_plans():
  assert sorted({dims for dims, _ in bits.plans(2048)}) == [
    8, 32, 128, 512, 2048
  ]  # fmt: skip
  assert bits.plans(5) == [(5, 32), (5, 8), (5, 4), (5, 2), (5, 1)]
  assert {dims for dims, _ in bits.plans(31)} == {31}
  assert {dims for dims, _ in bits.plans(32)} == {32, 8}


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
  full, one, lost = bits.curve(train, test, stump, [(8, 32), (8, 1), (2, 8)])
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
  for row in bits.curve(train, test, stump):
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

    found = bits.curve(train, test, fit, grid)
    assert [row['accuracy'] for row in found] == [1, 1, 1, 1]
    return rows

  first = seen(test)
  shifted = seen((test[0] + 400, test[1]))
  for (fitted, _), (again, _) in zip(first, shifted, strict=True):
    np.testing.assert_array_equal(fitted, again)
  np.testing.assert_array_equal(first[0][0], train[0])
  np.testing.assert_array_equal(first[0][1], test[0])
  low, high = bits.ranges(train[0], 2)
  wanted = bits.quantised(test[0], 2, low, high)
  np.testing.assert_array_equal(first[1][1], wanted)
  wanted = bits.project(test[0], *bits.pca(train[0]), 3)
  np.testing.assert_array_equal(first[2][1], wanted)
  # Beyond train's range all of test is in its last cell.
  for column in shifted[1][1].T:
    assert np.unique(column).size == 1
