"""Lower bounds on the Lipschitz constant of an encoder, from pairs of images.

An encoder that maps x to r_x and y to r_y has at least the Lipschitz constant
||r_x - r_y|| / ||x - y||, for any pair. Distances are between images as the
encoder sees them: normalised where it was trained on normalised images.
Everything is float64 and in nats, one row for each pair of images.
"""

import numpy as np

from cvr.numerics import distributions


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


def of_vmf(rate, dim, kappa_e, kappa_b, distance):
  """KL(e(.|x) || b(.|y)) and ||x - y||, both [n] -> [n] ratios.

  For methods whose means of e and b are one unit map r (C-SimCLR): KL = KL_0 +
  kappa_b A(kappa_e) (1 - cos) and ||r_x - r_y||^2 = 2 (1 - cos). The rate has
  to be the closed form, not log e - log b of a sample, and float64: KL_0 is
  hundreds of nats, so that float32 leaves no digits for pairs whose latents are
  closer than 0.004.
  """
  least = distributions.vmf_kl(dim, kappa_e, kappa_b, 1.0)
  slope = kappa_b * distributions.vmf_mean_length(dim, kappa_e)
  excess = np.maximum(np.asarray(rate, np.float64) - least, 0)
  return _ratios(np.sqrt(2 * excess / slope), distance)


def of_gaussian(rate, dim, sigma_e, sigma_b, distance):
  """The same for Gaussians; sigma_e and sigma_b are numbers or [dim].

  KL = KL_0 + sum_j (mu_x - mu_y)_j^2 / (2 sigma_b_j^2). Where sigma_b differs
  by dimension, its smallest value still gives a lower bound.
  """
  sigma_e = np.broadcast_to(np.asarray(sigma_e, np.float64), dim)
  sigma_b = np.broadcast_to(np.asarray(sigma_b, np.float64), dim)
  ratio = sigma_e / sigma_b
  least = np.sum((ratio**2 - 1) / 2 - np.log(ratio))
  excess = np.maximum(np.asarray(rate, np.float64) - least, 0)
  return _ratios(sigma_b.min() * np.sqrt(2 * excess), distance)


def of_embeddings(z1, z2, distance):
  """Embeddings [n, d] of a pair's two images -> [n] ratios.

  For methods without a rate, and for C-BYOL, whose e and b are different maps:
  of the representation and of mu_e.
  """
  return _ratios(distances(z1, z2), distance)


def summary(ratios, bins=40):
  """[n] with NaN where there is no ratio -> a flat dict, and a histogram."""
  valid = ratios[~np.isnan(ratios)]
  counts = {'pairs': len(valid), 'left_out': len(ratios) - len(valid)}
  if not len(valid):
    return counts | dict.fromkeys(('mean', 'max', 'median', 'histogram'))
  largest = float(valid.max())
  in_bins, edges = np.histogram(valid, bins, (0, largest or 1))
  return counts | {
    'mean': float(valid.mean()),
    'max': largest,
    'median': float(np.median(valid)),
    'histogram': {'edges': edges.tolist(), 'counts': in_bins.tolist()},
  }
