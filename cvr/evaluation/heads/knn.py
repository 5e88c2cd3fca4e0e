"""Weighted k nearest neighbours by cosine (Wu et al. 2018, section 3.4)."""

import numpy as np
import tensorflow as tf

KS = (10, 20, 100, 200)
TEMPERATURES = (0.07, 0.1)
# Similarities at a time: 256 queries of a million images take 1 GB.
_QUERIES = 256


def _unit(features):
  """[n, D] -> [n, D] float32 of length 1; zeros stay zeros."""
  features = np.asarray(features, np.float32)
  lengths = np.linalg.norm(features, axis=1, keepdims=True)
  if not np.isfinite(lengths).all():
    raise ValueError('a feature is not finite, and is near to nothing')
  return features / np.maximum(lengths, np.finfo(np.float32).tiny)


@tf.function(autograph=False, reduce_retracing=True)
def _nearest(queries, train, k):
  """[q, D], [n, D] -> [q, k] cosines, [q, k] indices; the first of equals."""
  return tf.math.top_k(tf.matmul(queries, train, transpose_b=True), k)


def _votes(cosines, labels, num_classes, temperature):
  """[q, k], [q, k] -> [q]: the class of the largest sum of exp(cosine / T)."""
  weights = np.exp((cosines.astype(np.float64) - 1) / temperature)
  cells = labels + num_classes * np.arange(len(labels))[:, None]
  sums = np.bincount(
    cells.ravel(), weights.ravel(), minlength=len(labels) * num_classes
  )
  return np.argmax(sums.reshape(-1, num_classes), 1)


def predictions(
  train, labels, queries, num_classes, ks=KS, temperatures=TEMPERATURES
):
  """Classes of queries out of one search -> {(k, temperature): [m] ints}.

  train [n, D], labels [n], queries [m, D]. A k above n becomes n, in the key
  too. Of equally near images and equal votes the first wins.
  """
  labels = np.asarray(labels, np.int64)
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f'labels from {labels.min()} to {labels.max()}, of {num_classes} classes'
    )
  ks = sorted({min(k, len(labels)) for k in ks})
  settings = [(k, temperature) for k in ks for temperature in temperatures]
  found = {setting: np.zeros(len(queries), np.int64) for setting in settings}
  train = tf.constant(_unit(train))
  for start in range(0, len(queries), _QUERIES):
    rows = slice(start, start + _QUERIES)
    near = _nearest(tf.constant(_unit(queries[rows])), train, ks[-1])
    cosines, indices = (part.numpy() for part in near)
    voters = labels[indices]
    for k, temperature in settings:
      found[k, temperature][rows] = _votes(
        cosines[:, :k], voters[:, :k], num_classes, temperature
      )
  return found
