"""What compression leaves: Lipschitz bounds, rates, bits against accuracy.

Everything in float64 and in nats, from arrays with a row for each image or for
each pair of images.
"""

import numpy as np

from cvr.numerics import distributions

# Lipschitz bounds ------------------------------------------------------------
#
# An encoder that takes x to r_x and y to r_y has at least the Lipschitz
# constant ||r_x - r_y|| / ||x - y||, for any pair. Distances are between images
# as the encoder sees them: normalised where it was trained on such.


def distances(x, y):
  """[n, ...], [n, ...] -> [n]: Euclidean, of each pair's rows."""
  difference = np.asarray(x, np.float64) - np.asarray(y, np.float64)
  return np.linalg.norm(difference.reshape(len(difference), -1), axis=1)


def _ratios(latent, pixels):
  """[n], [n] -> [n]: their ratios; NaN where the two images are the same."""
  latent, pixels = np.broadcast_arrays(latent, np.asarray(pixels, np.float64))
  if not (np.isfinite(latent).all() and np.isfinite(pixels).all()):
    raise ValueError('a distance or a rate is not a finite number')
  apart = pixels > 0
  return np.divide(
    latent, pixels, where=apart, out=np.full(len(pixels), np.nan)
  )


def lipschitz_vmf(rate, dim, kappa_e, kappa_b, distance):
  """KL(e(.|x) || b(.|y)) and ||x - y||, both [n] -> [n] ratios.

  Of methods whose means of e and b are one unit map r (C-SimCLR): KL = KL_0 +
  kappa_b A(kappa_e) (1 - cos) and ||r_x - r_y||^2 = 2 (1 - cos). The rate is
  the closed form, not log e - log b of a sample, and in float64: KL_0 is
  hundreds of nats, of which float32 leaves no digits of pairs whose latents are
  nearer than 0.004.
  """
  least = distributions.vmf_kl(dim, kappa_e, kappa_b, 1.0)
  slope = kappa_b * distributions.vmf_mean_length(dim, kappa_e)
  excess = np.maximum(np.asarray(rate, np.float64) - least, 0)
  return _ratios(np.sqrt(2 * excess / slope), distance)


def lipschitz_gaussian(rate, dim, sigma_e, sigma_b, distance):
  """The same of Gaussians; sigma_e and sigma_b numbers or [dim].

  KL = KL_0 + sum_j (mu_x - mu_y)_j^2 / (2 sigma_b_j^2). Where sigma_b differs
  by dimension, its smallest still gives a lower bound.
  """
  sigma_e = np.broadcast_to(np.asarray(sigma_e, np.float64), dim)
  sigma_b = np.broadcast_to(np.asarray(sigma_b, np.float64), dim)
  ratio = sigma_e / sigma_b
  least = np.sum((ratio**2 - 1) / 2 - np.log(ratio))
  excess = np.maximum(np.asarray(rate, np.float64) - least, 0)
  return _ratios(sigma_b.min() * np.sqrt(2 * excess), distance)


def lipschitz_direct(z1, z2, distance, normalise):
  """Embeddings [n, d] of a pair's two images -> [n] ratios.

  Of methods without a rate, and of C-BYOL, whose e and b are different maps: of
  the representation and of mu_e. normalise: of unit rows.
  """
  z1, z2 = np.asarray(z1, np.float64), np.asarray(z2, np.float64)
  if normalise:
    z1, z2 = _unit(z1), _unit(z2)
  return _ratios(distances(z1, z2), distance)


def _unit(z):
  return z / np.linalg.norm(z, axis=1, keepdims=True)


def summary(ratios, bins=40):
  """[n] with NaN where there is no ratio -> a flat dict, and a histogram."""
  there = ratios[~np.isnan(ratios)]
  found = {'pairs': len(there), 'left_out': len(ratios) - len(there)}
  if not len(there):
    return found | dict.fromkeys(('mean', 'max', 'median', 'histogram'))
  largest = float(there.max())
  counts, edges = np.histogram(there, bins, (0, largest or 1))
  return found | {
    'mean': float(there.mean()),
    'max': largest,
    'median': float(np.median(there)),
    'histogram': {'edges': edges.tolist(), 'counts': counts.tolist()},
  }


def rate_summary(rate):
  """[n] -> mean rate in nats with its 95% interval, mean -+ 1.96 s / sqrt(n).

  low and high are None of a single image.
  """
  rate = np.asarray(rate, np.float64)
  n, mean = len(rate), float(np.mean(rate))
  found = {'mean': mean, 'low': None, 'high': None, 'images': n}
  if n > 1:
    half = 1.96 * float(np.std(rate, ddof=1)) / np.sqrt(n)
    found |= {'low': float(mean - half), 'high': float(mean + half)}
  return found


# Bits against accuracy -------------------------------------------------------

# Half the range of the uniform quantiser that errs least on a normal variable,
# in its standard deviations (Max, 1960), by its bits.
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

  What lies outside is in the first or last cell. low, high: [d].
  """
  cells = 2**bits
  width = (high - low) / cells
  cell = np.zeros(np.shape(features))
  np.divide(features - low, width, where=width > 0, out=cell)
  cell = np.clip(np.floor(cell), 0, cells - 1)
  # A feature that never varies needs no cells.
  centre = np.where(width > 0, low + (cell + 0.5) * width, low)
  return centre.astype(np.float32)


def pca(train):
  """[n, d] -> mean [d], components [d, d]: rows, most variance first."""
  train = np.asarray(train, np.float64)
  mean = train.mean(0)
  centred = train - mean
  _, vectors = np.linalg.eigh(centred.T @ centred / len(train))
  components = vectors.T[::-1]
  # Either sign is right; the largest entry's is made positive.
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


def bits_curve(train, test, fit, grid=None):
  """How a classifier does on fewer bits of train's and test's features.

  train, test: (features [n, d] float32, labels [n]). fit(features, labels) -> a
  function of features [m, d'] -> labels [m]. grid: [(dims, bits)], as plans.
  All d dimensions are the features themselves, fewer their first principal
  components; both, and the ranges of cells, are of train alone.
  """
  (features, labels), (test_features, test_labels) = train, test
  d = features.shape[1]
  grid = plans(d) if grid is None else grid
  basis = pca(features) if any(dims < d for dims, _ in grid) else None
  rows = []
  for dims, bits in grid:
    kept, of_test = _compressed(features, test_features, basis, dims, bits)
    right = fit(kept, labels)(of_test) == test_labels
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
