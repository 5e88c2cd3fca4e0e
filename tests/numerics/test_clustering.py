"""Sinkhorn and spherical k-means: transcriptions, limits, replicas, XLA."""

import math
import re

import numpy as np
import pytest
import tensorflow as tf

import oracles
from cvr.numerics import clustering
from on_replicas import on_replicas


def cosines(rng, rows, columns, dim=6):
  """[rows, columns] inner products of unit vectors."""
  products = oracles.unit_rows(rng, rows, dim) @ (
    oracles.unit_rows(rng, columns, dim).T
  )
  return products.astype(np.float32)


# At the last epsilon exp(score / epsilon) is beyond float32, both ways.
@pytest.mark.parametrize('epsilon', [1.0, 0.05, 0.002])
@pytest.mark.parametrize('jit', [False, True])
def test_sinkhorn_matches_the_transcription(epsilon, jit):
  scores = cosines(np.random.default_rng(0), 12, 5)
  call = tf.function(
    lambda s: clustering.sinkhorn(s, epsilon, 3), jit_compile=jit
  )
  actual = call(scores)
  expected = oracles.sinkhorn(scores.astype(np.float64), epsilon, 3)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
  eager = clustering.sinkhorn(scores, epsilon, 3)
  np.testing.assert_allclose(actual, eager, rtol=1e-5, atol=1e-5)


def test_sinkhorn_uses_all_prototypes_alike():
  scores = cosines(np.random.default_rng(1), 30, 4)
  # Without it nearly all rows would go to the first.
  scores[:, 0] += 2.0
  assert (scores.argmax(1) == 0).all()
  actual = clustering.sinkhorn(scores, 0.2, 100).numpy()
  np.testing.assert_allclose(actual.sum(1), 1.0, atol=1e-6)
  np.testing.assert_allclose(actual.sum(0), 30 / 4, rtol=1e-4)
  early = clustering.sinkhorn(scores, 0.2, 1).numpy()
  np.testing.assert_allclose(early.sum(1), 1.0, atol=1e-6)


def test_sinkhorn_limits():
  rng = np.random.default_rng(2)
  flat = clustering.sinkhorn(cosines(rng, 8, 4), 1e6, 3)
  np.testing.assert_allclose(flat, 1 / 4, atol=1e-5)
  # Two rows near to each prototype: balanced, so that nothing has to move.
  labels = rng.permutation(np.repeat(np.arange(4), 2))
  hard = np.eye(4, dtype=np.float32)[labels]
  near = hard + 0.1 * cosines(rng, 8, 4)
  np.testing.assert_allclose(
    clustering.sinkhorn(near, 0.01, 3), hard, atol=1e-5
  )


def test_sinkhorn_knows_the_rows_of_all_replicas(two_replicas):
  scores = cosines(np.random.default_rng(3), 12, 5)
  scores[:6, 0] += 1.0  # The replicas' columns differ.
  actual = on_replicas(
    two_replicas,
    lambda s: clustering.sinkhorn(s, 0.05, 3),
    [scores[:6], scores[6:]],
  )
  whole = clustering.sinkhorn(scores, 0.05, 3)
  np.testing.assert_allclose(tf.concat(actual, 0), whole, atol=1e-6)
  alone = clustering.sinkhorn(scores[:6], 0.05, 3)
  assert np.abs(alone - whole[:6]).max() > 0.1


def rows_and_start(rows=103, dim=8, count=7):
  rng = np.random.default_rng(4)
  arrays = oracles.unit_rows(rng, rows, dim), oracles.unit_rows(rng, count, dim)
  return [x.astype(np.float32) for x in arrays]


# 103 rows: with a rest, one chunk and a rest of none, less than a chunk.
@pytest.mark.parametrize('chunk', [16, 103, 4096])
@pytest.mark.parametrize('jit', [False, True])
def test_kmeans_matches_the_transcription(chunk, jit):
  rows, start = rows_and_start()
  call = tf.function(
    lambda *x: clustering.spherical_kmeans(*x, 5, chunk),
    jit_compile=jit,
    autograph=False,
  )
  actual = call(tf.constant(rows), tf.constant(start))
  centroids, assignments, _ = oracles.spherical_kmeans(
    rows.astype(np.float64), start.astype(np.float64), 5
  )
  np.testing.assert_allclose(actual.centroids, centroids, atol=1e-5)
  np.testing.assert_array_equal(actual.assignments, assignments)
  assert actual.assignments.dtype == tf.int32
  eager = clustering.spherical_kmeans(rows, start, 5, chunk)
  np.testing.assert_allclose(actual.centroids, eager.centroids, atol=1e-6)
  np.testing.assert_array_equal(actual.assignments, eager.assignments)


def test_kmeans_brings_rows_nearer():
  rows, start = rows_and_start()
  mean_cosines = []
  for iterations in range(6):
    actual = clustering.spherical_kmeans(rows, start, iterations)
    nearest = tf.gather(actual.centroids, actual.assignments)
    mean_cosines.append(float(tf.reduce_mean(tf.reduce_sum(nearest * rows, 1))))
  assert (np.diff(mean_cosines) > 0).all()
  np.testing.assert_allclose(
    mean_cosines, oracles.spherical_kmeans(rows, start, 5)[2], rtol=1e-5
  )


def test_kmeans_separates_what_is_apart():
  rng = np.random.default_rng(5)
  labels = rng.permutation(np.repeat(np.arange(4), 25))
  rows = np.eye(9)[labels] + 0.1 * rng.normal(size=(100, 9))
  rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype('float32')
  start = rows[[np.flatnonzero(labels == k)[0] for k in range(4)]]
  actual = clustering.spherical_kmeans(rows, start, 10, chunk=16)
  np.testing.assert_array_equal(actual.assignments, labels)
  means = np.stack([rows[labels == k].mean(0) for k in range(4)])
  means /= np.linalg.norm(means, axis=1, keepdims=True)
  np.testing.assert_allclose(actual.centroids, means, atol=1e-6)


def test_an_empty_cluster_stays_where_it_is():
  rows, _ = rows_and_start(rows=20, dim=3)
  rows[:, 2] = np.abs(rows[:, 2]) + 1.0  # All on one side.
  start = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
  actual = clustering.spherical_kmeans(rows, start, 4)
  np.testing.assert_array_equal(actual.centroids[1], start[1])
  assert set(actual.assignments.numpy()) == {0, 2}
  np.testing.assert_allclose(tf.norm(actual.centroids, axis=1), 1, atol=1e-6)


def test_kmeans_on_two_replicas(two_replicas):
  """What one finds, and the same bits on both though their sums differ."""
  rows, start = rows_and_start()
  actual = on_replicas(
    two_replicas,
    lambda x: clustering.spherical_kmeans(x, tf.constant(start), 5, chunk=16),
    [rows, rows * np.float32(1 + 1e-6)],
  )
  alone = clustering.spherical_kmeans(rows, start, 5)
  np.testing.assert_allclose(actual.centroids[0], alone.centroids, atol=1e-5)
  np.testing.assert_array_equal(*actual.centroids)
  for assignments in actual.assignments:
    np.testing.assert_array_equal(assignments, alone.assignments)


def test_kmeans_never_holds_all_products():
  """No array of the compiled program is as large as [N, K]."""
  rows, start = rows_and_start(rows=1000, dim=8, count=50)
  call = tf.function(
    lambda *x: clustering.spherical_kmeans(*x, 2, chunk=64),
    jit_compile=True,
    autograph=False,
  )
  text = call.experimental_get_compiler_ir(rows, start)(stage='hlo')
  shapes = re.findall(r'(?:f32|s32|pred)\[([\d,]+)\]', text)
  sizes = {math.prod(map(int, s.split(','))) for s in shapes}
  assert 64 * 50 in sizes
  assert max(sizes) == 1000 * 8


def test_random_rows_are_rows_each_once():
  rows = tf.range(300.0)[:, None] * [1.0, 2.0]
  actual = clustering.random_rows(rows, 40, [1, 2]).numpy()
  assert len({*actual[:, 0]}) == 40
  np.testing.assert_array_equal(actual[:, 1], 2 * actual[:, 0])
  again = tf.function(clustering.random_rows, jit_compile=True)(
    rows, 40, tf.constant([1, 2])
  )
  np.testing.assert_array_equal(actual, again)
  other = clustering.random_rows(rows, 40, [1, 3]).numpy()
  assert (actual != other).any()
  # All of them, in an order of chance.
  every = clustering.random_rows(rows, 300, [1, 2]).numpy()[:, 0]
  assert sorted(every) == [*range(300)] and [*every] != sorted(every)
  assert abs(np.corrcoef(every, np.arange(300))[0, 1]) < 0.2


@pytest.mark.parametrize('jit', [False, True])
def test_how_much_clusters_are_used(jit, two_replicas):
  def usage(assignments):
    return clustering.usage(assignments, 5)

  call = tf.function(usage, jit_compile=jit)
  equal = tf.constant([0, 1, 2, 3, 4] * 3)
  np.testing.assert_allclose(call(equal), [5, math.log(5)], rtol=1e-6)
  np.testing.assert_array_equal(call(tf.constant([3, 3, 3])), [1, 0])
  some = np.array([0, 0, 0, 1, 4, 4], np.int32)
  p = np.array([3, 1, 2]) / 6
  expected = [3, -(p * np.log(p)).sum()]
  np.testing.assert_allclose(call(tf.constant(some)), expected, rtol=1e-6)
  actual = on_replicas(two_replicas, usage, [some[:3], some[3:]])
  np.testing.assert_allclose(np.transpose(actual), [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize('jit', [False, True])
def test_sinkhorn_balances_with_the_rows_that_count(jit):
  scores = cosines(np.random.default_rng(6), 12, 5)
  counted = np.arange(12) % 3 > 0
  call = tf.function(clustering.sinkhorn, jit_compile=jit)
  actual = call(scores, 0.05, 3, counted).numpy()
  alone = clustering.sinkhorn(scores[counted], 0.05, 3)
  np.testing.assert_allclose(actual[counted], alone, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(actual.sum(1), 1.0, atol=1e-6)
  assert np.abs(call(scores, 0.05, 3) - actual).max() > 0.1
