"""Accuracy of a classifier on fewer dimensions, and fewer bits of each."""

import numpy as np

from cvr.training import progress

# Half the range of the uniform quantiser with the least squared error on a
# normal variable, in standard deviations (Max, 1960), by its bits.
_HALF_RANGES = {1: 1.59577, 2: 1.99137, 4: 2.68160, 8: 3.93759}
_FLOAT = 32


def ranges(train, bits):
  """Features [n, d] -> low, high [d]: those of a normal variable like them.

  One bit then says above or below the mean.
  """
  train = np.asarray(train, np.float64)
  mean, half = train.mean(0), _HALF_RANGES[bits] * train.std(0)
  return mean - half, mean + half


def quantised(features, bits, low, high):
  """[n, d] as the centres of 2^bits equal cells of [low, high], float32.

  Values outside of the range are in the first or last cell. low, high: [d].
  """
  cells = 2**bits
  width = (high - low) / cells
  cell = np.zeros(np.shape(features))
  np.divide(features - low, width, where=width > 0, out=cell)
  cell = np.clip(np.floor(cell), 0, cells - 1)
  # A constant feature needs no cells.
  centre = np.where(width > 0, low + (cell + 0.5) * width, low)
  return centre.astype(np.float32)


def pca(train):
  """[n, d] -> mean [d], components [d, d]: rows, most variance first."""
  train = np.asarray(train, np.float64)
  mean = train.mean(0)
  centred = train - mean
  _, vectors = np.linalg.eigh(centred.T @ centred / len(train))
  components = vectors.T[::-1]
  # Either sign is right; the largest entry is made positive.
  largest = np.argmax(np.abs(components), 1)[:, None]
  sign = np.sign(np.take_along_axis(components, largest, 1))
  return mean, components * sign


def project(features, mean, components, dims):
  """[n, d] -> [n, dims]: on the first components, float32."""
  centred = np.asarray(features, np.float64) - mean
  return (centred @ components[:dims].T).astype(np.float32)


def plans(d):
  """-> [(dims, bits)]: d, d/4, d/16, ... down to 8 dimensions, by each bits."""
  dims = [d]
  while dims[-1] // 4 >= 8:
    dims.append(dims[-1] // 4)
  return [
    (k, bits) for k in dims for bits in (_FLOAT, *sorted(_HALF_RANGES)[::-1])
  ]


def _compressed(train, test, basis, dims, bits):
  """Features of both splits, as `dims` numbers of `bits` bits each."""
  if dims < train.shape[1]:
    train, test = (project(x, *basis, dims) for x in (train, test))
  if bits == _FLOAT:
    return train, test
  low, high = ranges(train, bits)
  return quantised(train, bits, low, high), quantised(test, bits, low, high)


def curve(train, test, fit, grid=None, uncompressed=None):
  """Accuracy of a classifier on compressed features -> a dict for each plan.

  train, test: (features [n, d] float32, labels [n]). fit(features, labels) -> a
  function of features [m, d'] -> labels [m]. grid: [(dims, bits)], as plans.
  With all d dimensions the features are used as they are, with fewer their
  first principal components; components and the ranges of cells come from
  train alone. uncompressed: the classifier of the features as they are, where
  one is fitted already.
  """
  (features, labels), (test_features, test_labels) = train, test
  d = features.shape[1]
  grid = plans(d) if grid is None else grid
  basis = pca(features) if any(dims < d for dims, _ in grid) else None
  rows = []
  for dims, bits in progress.over(grid, 'Fewer bits', len(grid), 'fits'):
    kept, of_test = _compressed(features, test_features, basis, dims, bits)
    whole = (dims, bits) == (d, _FLOAT) and uncompressed
    classify = uncompressed if whole else fit(kept, labels)
    right = classify(of_test) == test_labels
    rows.append(
      {
        'dims': int(dims),
        'bits': int(bits),
        'bits_per_image': int(dims * bits),
        'accuracy': float(np.mean(right)),
        'scores': right.astype(np.float32),
      }
    )
  return rows
