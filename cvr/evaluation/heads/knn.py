"""Weighted k nearest neighbours by cosine (Wu et al. 2018, section 3.4)."""

import numpy as np
import tensorflow as tf

from cvr.evaluation.features import unit
from cvr.training import progress

KS = (10, 20, 100, 200)
TEMPERATURES = (0.07, 0.1)
# Queries at a time: similarities of 256 to a million images take 1 GB.
_QUERIES = 256


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
  """Classes of queries from one search -> {(k, temperature): [m] ints}.

  train [n, D], labels [n], queries [m, D]. A k above n becomes n, in the key
  too. The first one wins among equally near images and among equal votes.
  """
  labels = np.asarray(labels, np.int64)
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f'labels from {labels.min()} to {labels.max()}, of {num_classes} classes'
    )
  ks = sorted({min(k, len(labels)) for k in ks})
  settings = [(k, temperature) for k in ks for temperature in temperatures]
  classes = {setting: np.zeros(len(queries), np.int64) for setting in settings}
  train = tf.constant(unit(np.asarray(train, np.float32)))
  starts = range(0, len(queries), _QUERIES)
  for start in progress.over(starts, 'Neighbours', len(starts), 'batches'):
    rows = slice(start, start + _QUERIES)
    some = tf.constant(unit(np.asarray(queries[rows], np.float32)))
    near = _nearest(some, train, ks[-1])
    cosines, indices = (part.numpy() for part in near)
    voters = labels[indices]
    for k, temperature in settings:
      classes[k, temperature][rows] = _votes(
        cosines[:, :k], voters[:, :k], num_classes, temperature
      )
  return classes
