"""Entropy and reconstruction of representations, as pure functions.

Everything is built from the two terms of (ER, eq. 1), in nats:

  I(Z1;Z2) >= H(Z2) - E[-log q(Z2|Z1)], entropy less reconstruction.

As in objectives.py, rows are this replica's, keys are the rows of all replicas,
gathered by the caller, and `offset` says where the local rows begin among them.
The mean over the replicas of what is returned is the value of the whole batch,
and its gradient is the whole batch's.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from cvr.numerics import distributions, sums


class Kernel(NamedTuple):
  """The density exp(log_peak - (|z - mean| / scale)^alpha) around a mean."""

  log_peak: float
  scale: float
  alpha: float = 2.0


class Er(NamedTuple):
  """One bound, -loss = entropy - reconstruction; all [] and in nats."""

  loss: tf.Tensor
  entropy: tf.Tensor
  reconstruction: tf.Tensor


def vmf_kernel(dim, kappa) -> Kernel:
  """vMF(mean, kappa) on S^{dim-1}, for unit rows; kappa = 1 / temperature.

  kappa mean.z = kappa - kappa |z - mean|^2 / 2: a Gaussian's shape with the
  sphere's own normaliser (see distributions.vmf_log_prob).
  """
  # logC and kappa nearly cancel: added in float64, rounded once.
  log_peak = distributions.vmf_log_normalizer(dim, kappa) + kappa
  return Kernel(log_peak, math.sqrt(2 / kappa))


def gaussian_kernel(dim, scale, alpha=2.0) -> Kernel:
  """The generalised Gaussian in R^dim; alpha 2: variance scale^2 / 2."""
  log_mass = (
    distributions.log_sphere_area(dim)
    + dim * math.log(scale)
    + math.lgamma(dim / alpha)
    - math.log(alpha)
  )
  return Kernel(-log_mass, scale, alpha)


def _log_density(kernel, squares):
  """Log density less its peak, at these squared distances from the mean."""
  x = squares / kernel.scale**2
  if kernel.alpha == 2:
    return -x
  # The power has no gradient at 0, and is NaN below, where rounding may lead.
  apart = x > 0
  power = tf.pow(tf.where(apart, x, tf.ones_like(x)), kernel.alpha / 2)
  return -tf.where(apart, power, tf.zeros_like(x))


def _rows(kernel, z, means):
  """[b, d], [b, d] -> [b]: each row's log density around its own mean."""
  squares = tf.reduce_sum(tf.math.squared_difference(z, means), -1)
  return _log_density(kernel, squares)


def _pairs(kernel, z, keys):
  """[b, d], [B, d] -> [b, B]: log densities less their peak."""
  # Centring keeps distances and shrinks lengths: collapsed rows lose no digits.
  centre = tf.stop_gradient(tf.reduce_mean(keys, 0))
  z, keys = z - centre, keys - centre
  lengths = tf.reduce_sum(tf.square(z), -1)[:, None] + tf.reduce_sum(
    tf.square(keys), -1
  )
  products = tf.matmul(z, keys, transpose_b=True)
  return _log_density(kernel, lengths - 2 * products)


def _log_estimate(kernel, z, keys, offset, leave_one_out):
  """[b]: log of the kernel density estimate at each row, less the peak."""
  size = keys.shape[0]
  log_p = _pairs(kernel, z, keys)
  itself = tf.one_hot(
    offset + tf.range(z.shape[0]), size, True, False, dtype=tf.bool
  )
  # A row's distance from itself is exactly 0, not the rounding of a matmul.
  own = tf.constant(-math.inf if leave_one_out else 0.0, log_p.dtype)
  log_p = tf.where(itself, own, log_p)
  return tf.reduce_logsumexp(log_p, -1) - math.log(size - leave_one_out)


def joe(log_p):
  """Joe's estimator of E[log p]: log p at the local rows [b] -> []."""
  return tf.reduce_mean(log_p)


def plug_in(gather):
  """-> the plug-in estimator of E[log p]: weights are p over all rows.

  gather makes all replicas' rows [B] of the local ones [b]; every replica then
  has the value of the whole batch.
  """

  def estimator(log_p):
    log_p = gather(log_p)
    return tf.reduce_sum(tf.nn.softmax(log_p) * log_p)

  return estimator


def entropy(kernel, z, keys, *, offset=0, leave_one_out=False, estimator=joe):
  """H(Z) [] of rows z [b, d] by a kernel density on keys [B, d] (ER, 4.1).

  Row i is key offset + i; its own kernel counts unless it is left out.
  """
  log_p = _log_estimate(kernel, z, keys, offset, leave_one_out)
  return -estimator(log_p) - kernel.log_peak


def reconstruction(kernel, prediction, target):
  """[b, d], [b, d] -> [b]: -log q(target | prediction)."""
  return -_rows(kernel, prediction, target) - kernel.log_peak


def er(
  kernel,
  z,
  keys,
  prediction,
  target,
  *,
  offset=0,
  leave_one_out=False,
  estimator=joe,
  reconstruction_kernel=None,
) -> Er:
  """One branch of ER: the reconstruction of `target` less the entropy of z.

  z, prediction, target [b, d], keys [B, d]. Without a teacher, z and prediction
  are one view's rows and target the other's; with one, target is its output,
  without gradient, and z are the student's rows.
  """
  other = reconstruction_kernel or kernel
  log_p = estimator(_log_estimate(kernel, z, keys, offset, leave_one_out))
  log_q = tf.reduce_mean(_rows(other, prediction, target))
  # Peaks are hundreds of nats and, where the kernels are one, cancel.
  return Er(
    loss=log_p - log_q + (kernel.log_peak - other.log_peak),
    entropy=-log_p - kernel.log_peak,
    reconstruction=-log_q - other.log_peak,
  )


def average(first, second) -> Er:
  """The mean of the two branches."""
  return Er(*[(a + b) / 2 for a, b in zip(first, second, strict=True)])


def er_symmetric(kernel, z1, z2, keys1, keys2, **how) -> Er:
  """ER of two symmetric views (ER on SimCLR; EntRec, eq. 4).

  With the vMF kernel and Joe's estimator, of each branch: mean_i [LSE_j kappa
  z_i.z_j - log k] - kappa z1.z2. `how` as in er.
  """
  (a1, b1, c1), (a2, b2, c2) = (sums.branches(z, 3) for z in (z1, z2))
  return average(
    er(kernel, a1, keys1, b1, c2, **how), er(kernel, a2, keys2, b2, c1, **how)
  )


def discrete_entropy(p):
  """[..., c] probabilities -> [...]; of a batch's mean: H(W), exactly."""
  return -tf.reduce_sum(tf.math.xlogy(p, p), -1)


def discrete_reconstruction(log_p, target):
  """[b, c] log-softmax, [b, c] probabilities -> [b]: the cross entropy."""
  return -tf.reduce_sum(target * log_p, -1)


def er_discrete(cross_entropy, means) -> Er:
  """A mean cross entropy [] less the entropy of its branches, averaged.

  means: a list of [c], each branch's probabilities averaged over the rows of
  all replicas.
  """
  h = sums.total([discrete_entropy(p) for p in means]) / len(means)
  return Er(cross_entropy - h, h, cross_entropy)


def er_discrete_symmetric(log_p1, log_p2, mean1, mean2) -> Er:
  """EntRec's discrete form (eq. 7): log_p [b, c] of two views, means [c]."""
  log_p1, log_p2 = sums.joint(log_p1), sums.joint(log_p2)
  rows = discrete_reconstruction(log_p1, tf.exp(log_p2))
  rows += discrete_reconstruction(log_p2, tf.exp(log_p1))
  return er_discrete(tf.reduce_mean(rows) / 2, [mean1, mean2])


def _infonce(kernel, z, partner, keys):
  """log B - cross entropy: which of the other view's keys is the partner."""
  others = tf.reduce_logsumexp(_pairs(kernel, z, keys), -1)
  log_p = _rows(kernel, z, partner) - others
  return math.log(keys.shape[0]) + tf.reduce_mean(log_p)


def bounds(kernel, z1, z2, keys1, keys2, offset=0):
  """-> bounds on I(Z1;Z2) and their terms, a dict of scalars, in nats.

  Means of both directions. The entropy leaves each row out, or the rows' own
  kernels would dominate it.
  """
  bound = er_symmetric(
    kernel, z1, z2, keys1, keys2, offset=offset, leave_one_out=True
  )
  contrast = _infonce(kernel, z1, z2, keys2) + _infonce(kernel, z2, z1, keys1)
  return {
    'entropy': bound.entropy,
    'reconstruction': bound.reconstruction,
    'er_bound': -bound.loss,
    'infonce_bound': contrast / 2,
  }
