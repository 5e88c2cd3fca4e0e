"""Cluster assignments over all replicas: Sinkhorn's and spherical k-means'.

No gradients are meant to pass: assignments are targets.
"""

from typing import NamedTuple

import tensorflow as tf

from cvr.numerics import randomness, replicas

# The logarithm of a weight that is 0 in float32.
_NOTHING = -1e9


class Clusters(NamedTuple):
  """What k-means finds."""

  centroids: tf.Tensor  # [K, d], unit rows
  assignments: tf.Tensor  # [N] int32, each row's nearest centroid


class Usage(NamedTuple):
  """How evenly the clusters are used."""

  used: tf.Tensor  # [] clusters with at least one row
  entropy: tf.Tensor  # [] H(W) in nats


def sinkhorn(scores, epsilon, iterations, counted=None):
  """SwAV's codes: each row a distribution, prototypes in equal use (eq. 5).

  scores [b, K] of this replica's rows with the prototypes -> [b, K]; counted
  [b] bool: the rows that count in sums of columns, all by default. Columns and
  rows of exp(scores / epsilon) are normalised in turn, rows last; columns over
  the rows of all replicas, where a row on several of them counts each time. In
  logarithms: no exponential overflows, and no column is ever empty.
  """
  log_q = tf.cast(scores, tf.float32) / epsilon
  if counted is None:
    counted = tf.fill([scores.shape[0]], True)
  for _ in range(iterations):
    rows = tf.where(counted[:, None], log_q, _NOTHING)
    local = tf.reduce_logsumexp(rows, 0, keepdims=True)  # [1, K]
    log_q -= tf.reduce_logsumexp(replicas.all_gather(local), 0)
    log_q = tf.nn.log_softmax(log_q)
  return tf.exp(log_q)


def random_rows(rows, count, seed):
  """[N, d] -> [count, d], distinct random rows; seed [2] integers."""
  order = randomness.uniform([rows.shape[0]], seed)
  return tf.gather(rows, tf.math.top_k(order, count).indices)


def nearest(rows, centroids, chunk=4096):
  """[N, d], [K, d] -> [N] int32: which inner product is the largest.

  `chunk` rows at a time: all at once, ImageNet's [N, K] would take 15 GB.
  """

  def part(first, size):
    some = tf.slice(rows, [first, 0], [size, rows.shape[1]])
    products = tf.matmul(some, centroids, transpose_b=True)
    return tf.argmax(products, 1, tf.int32)

  # XLA does not compile a loop of 0 iterations: at least one full chunk.
  chunk = min(chunk, rows.shape[0])
  full, rest = divmod(rows.shape[0], chunk)
  indices = tf.map_fn(
    lambda i: part(i * chunk, chunk),
    tf.range(full),
    parallel_iterations=1,
    fn_output_signature=tf.TensorSpec([chunk], tf.int32),
  )
  return tf.concat([tf.reshape(indices, [-1]), part(full * chunk, rest)], 0)


def spherical_kmeans(rows, start, iterations, chunk=4096) -> Clusters:
  """Lloyd's algorithm for inner products (DeepCluster-v2).

  rows [N, d], unit, all of them on every replica; start [K, d], unit, such as
  random_rows. A centroid that no row is nearest to stays where it is.
  """
  centroids = start
  for _ in range(iterations):
    sums = tf.math.unsorted_segment_sum(
      rows, nearest(rows, centroids, chunk), centroids.shape[0]
    )
    # Replicas compute equal sums up to rounding, as GPUs add in any order. One
    # sum over all of them keeps their centroids identical.
    sums = replicas.cross_replica_sum(sums)
    length = tf.norm(sums, axis=1, keepdims=True)
    unit = tf.math.divide_no_nan(sums, length)
    centroids = tf.where(length > 0, unit, centroids)
  return Clusters(centroids, nearest(rows, centroids, chunk))


def usage(assignments, num_clusters) -> Usage:
  """The use of clusters by the assignments [n] of all replicas."""
  ones = tf.ones(assignments.shape)
  counts = tf.math.unsorted_segment_sum(ones, assignments, num_clusters)
  counts = replicas.cross_replica_sum(counts)
  p = counts / tf.reduce_sum(counts)
  return Usage(
    used=tf.reduce_sum(tf.cast(counts > 0, tf.float32)),
    entropy=-tf.reduce_sum(tf.math.xlogy(p, p)),
  )
