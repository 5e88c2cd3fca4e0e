"""The distributions of latents: von Mises-Fisher, Gaussian, Bernoulli.

Concentrations and dimensions are constants of a run. What depends only on them
is computed in float64 while the graph is built, never in the graph, where
float32 Bessel functions would underflow at usual dimensions.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from cvr.numerics import sums

_LOG_2PI = math.log(2 * math.pi)

# Debye's expansion is in powers of 1 / order: from this order on, this many
# terms reach float64's precision for every argument.
_DEBYE_ORDER = 64
_DEBYE_TERMS = 6


@functools.cache
def _debye_polynomials():
  """The u_k(p) of DLMF 10.41.9, k = 0, 1, ..."""
  p = np.polynomial.Polynomial([0, 1])
  terms = [np.polynomial.Polynomial([1])]
  while len(terms) < _DEBYE_TERMS:
    u = terms[-1]
    terms.append(
      p**2 * (1 - p**2) * u.deriv() / 2 + ((1 - 5 * p**2) * u).integ() / 8
    )
  return terms


def _debye_log_bessel_i(order, x):
  """log I_order(x), uniformly in x, for large orders (DLMF 10.41.3)."""
  radius = math.hypot(order, x)
  series = sum(
    u(order / radius) / order**k for k, u in enumerate(_debye_polynomials())
  )
  return (
    radius
    + order * math.log(x / (order + radius))
    - (_LOG_2PI + math.log(radius)) / 2
    + math.log(series)
  )


def _bessel_ratios(order, x, count=1):
  """I_{v+1}(x) / I_v(x) for v = order, ..., order + count - 1.

  Backward recurrence from Amos' bound. A step down multiplies the error of
  that start by the ratio squared, at most 0.2 where v > x and else about
  exp(-(2 v + 1) / x): exp(-n^2 / x) in n steps, which sets their number.
  """
  steps = count + 20 + math.ceil(math.sqrt(40 * x))
  top = order + steps
  ratio = x / (top + 0.5 + math.hypot(top + 1.5, x))
  ratios = []
  for above in range(steps, 0, -1):
    ratio = 1 / (2 * (order + above) / x + ratio)
    ratios.append(ratio)
  return ratios[-count:][::-1]


def log_bessel_i(order, x):
  """log I_order(x) of the modified Bessel function, order >= 0, x > 0."""
  raised = max(0, math.ceil(_DEBYE_ORDER - order))
  log_i = _debye_log_bessel_i(order + raised, x)
  if raised:
    log_i -= sum(math.log(r) for r in _bessel_ratios(order, x, raised))
  return log_i


def log_sphere_area(dim):
  """log |S^{dim-1}|, the entropy of the uniform distribution on the sphere."""
  return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


@functools.cache
def vmf_log_normalizer(dim, kappa):
  """log C_dim(kappa) of the density C exp(kappa mu.z) on S^{dim-1}."""
  order = dim / 2 - 1
  return (
    order * math.log(kappa) - dim / 2 * _LOG_2PI - log_bessel_i(order, kappa)
  )


@functools.cache
def vmf_mean_length(dim, kappa):
  """A_dim(kappa) = E[mu.z], the mean resultant length."""
  return _bessel_ratios(dim / 2 - 1, kappa)[0]


def vmf_entropy(dim, kappa):
  """Differential entropy of a von Mises-Fisher on S^{dim-1}, in nats."""
  return -vmf_log_normalizer(dim, kappa) - kappa * vmf_mean_length(dim, kappa)


def vmf_kl(dim, kappa_e, kappa_b, cosine):
  """KL(vMF(mu_e, kappa_e) || vMF(mu_b, kappa_b)), cosine = mu_e.mu_b.

  The cosine may be a number, an array or a tensor of any shape.
  """
  orthogonal = -vmf_entropy(dim, kappa_e) - vmf_log_normalizer(dim, kappa_b)
  return orthogonal - kappa_b * vmf_mean_length(dim, kappa_e) * cosine


def _at_least_float32(x):
  x = tf.convert_to_tensor(x)
  return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def _like(x, reference):
  """x, a number or a tensor, in the dtype of reference."""
  # A bare tf.cast would take a Python number to float32 first.
  hinted = tf.convert_to_tensor(x, dtype_hint=reference.dtype)
  return tf.cast(hinted, reference.dtype)


def vmf_log_prob(z, mu, kappa):
  """log vMF(z; mu, kappa) of unit rows z, mu [B, d] -> [B].

  In float32 kappa mu.z carries kappa times the rounding of the norms of z and
  mu. In their distance, which the identity mu.z = 1 - |z - mu|^2 / 2 needs,
  that rounding enters only in proportion to the distance itself, and samples
  lie close to mu where kappa is large. The gradients of the two forms differ
  only along z and mu, where a normalised row cannot move.
  """
  z = _at_least_float32(z)
  mu = _like(mu, z)
  # logC and kappa nearly cancel: added in float64, rounded once.
  peak = vmf_log_normalizer(z.shape[-1], kappa) + kappa
  return peak - kappa / 2 * tf.reduce_sum(tf.math.squared_difference(z, mu), -1)


def vmf_scores(z, means, kappa):
  """kappa z.mean for rows z [b, d] and many means [B, d] -> [b, B].

  log vMF(z; mean, kappa) without its normaliser, which cancels in a softmax
  over the means and would cost it digits. Also SimCLR's similarity, where
  kappa = 1 / temperature.
  """
  return kappa * tf.matmul(z, means, transpose_b=True)


# 1 - w is tabulated at these standard normal quantiles; one sample in 10^10
# falls outside of them and is clipped.
_TABLE_LIMIT = 6.5
_TABLE_CELLS = 4096
_DENSITY_CELLS = 16384


def _vmf_gap_log_density(dim, kappa, s):
  """Unnormalised log density of s = log(x / (2 - x)), where x = 1 - w.

  The density of w, exp(kappa w) (1 - w^2)^((dim - 3) / 2), in a coordinate in
  which both of its ends are exponential tails.
  """
  log_product = -np.abs(s) - 2 * np.log1p(np.exp(-np.abs(s)))
  return (dim - 1) / 2 * log_product - 2 * kappa / (1 + np.exp(-s))


def _density_edge(log_density, mode, step):
  """The point where the log density has fallen by 45 or slightly more."""
  while log_density(mode + step) > log_density(mode) - 45:
    step *= 1.25
  return mode + step


@functools.cache
def _vmf_gap_table(dim, kappa):
  """1 - w, w = mu.z, at uniform normal quantiles -> float64 [cells + 1].

  A table of w itself would round to one in float32. The density is integrated
  from both of its ends, so that each tail keeps its relative precision.
  """
  log_density = functools.partial(_vmf_gap_log_density, dim, kappa)
  rate = (dim - 1) / 2
  radius = math.hypot(rate, kappa)
  # x / (2 - x) at the mode, where w = kappa / (rate + radius).
  mode = math.log((rate + rate**2 / (radius + kappa)) / (rate + radius + kappa))
  step = 1 / math.sqrt(rate)  # 0.7 to 1 standard deviations
  s = np.linspace(
    _density_edge(log_density, mode, -step),
    _density_edge(log_density, mode, step),
    _DENSITY_CELLS + 1,
  )
  density = np.exp(log_density(s) - log_density(mode))
  mass = (density[1:] + density[:-1]) / 2
  log_total = np.log(np.sum(mass))
  log_below = np.log(np.cumsum(mass)) - log_total
  log_above = np.log(np.cumsum(mass[::-1])) - log_total

  half = np.linspace(0, _TABLE_LIMIT, _TABLE_CELLS // 2 + 1)
  log_tail = np.log([math.erfc(t / math.sqrt(2)) / 2 for t in half])
  # Large w, and so a small gap, is the upper end of the table.
  upper = np.interp(log_tail, log_below, s[1:])
  lower = np.interp(log_tail, log_above, s[-2::-1])
  return 2 / (1 + np.exp(-np.concatenate([lower[:0:-1], upper])))


def _interpolate(table, t):
  """Reads a table over [-_TABLE_LIMIT, _TABLE_LIMIT] at t, linearly."""
  table = tf.constant(table, t.dtype)
  cells = table.shape[0] - 1
  position = (t / (2 * _TABLE_LIMIT) + 0.5) * cells
  position = tf.clip_by_value(position, 0.0, float(cells))
  cell = tf.minimum(tf.cast(position, tf.int32), cells - 1)
  left, right = tf.gather(table, cell), tf.gather(table, cell + 1)
  return left + (position - tf.cast(cell, t.dtype)) * (right - left)


def vmf_sample(mu, kappa, noise):
  """Samples vMF(mu, kappa) -> unit rows [B, d], differentiable in mu.

  mu [B, d] has unit rows; noise [B, d + 1] is standard normal. Its column 0
  gives w = mu.z through the inverse distribution function of w, the others a
  uniform direction in the tangent space at mu. Unlike a Householder
  reflection of the pole onto mu, this is well-conditioned for every mu.
  """
  mu, along, across = sums.branches(_at_least_float32(mu), 3)
  noise = _like(noise, mu)
  gap = _interpolate(_vmf_gap_table(mu.shape[-1], kappa), noise[:, :1])
  normal = noise[:, 1:]
  normal -= tf.reduce_sum(normal * along, -1, keepdims=True) * across
  tangent = tf.math.l2_normalize(normal, -1)
  # gap (2 - gap) is 1 - w^2 without its cancellation.
  return (1 - gap) * mu + tf.sqrt(gap * (2 - gap)) * tangent


def gaussian_log_prob(z, mu, sigma):
  """log N(z; mu, diag(sigma^2)) -> [B]; sigma a number, [d] or [B, d]."""
  z = _at_least_float32(z)
  mu, sigma = _like(mu, z), _like(sigma, z)
  terms = tf.square((z - mu) / sigma) / 2 + tf.math.log(sigma) + _LOG_2PI / 2
  return -tf.reduce_sum(terms, -1)


def gaussian_scores(z, means, sigma):
  """log N(z; mean, sigma^2) up to a constant: [b, d], [B, d] -> [b, B]."""
  z, means = z / sigma, means / sigma
  squares = tf.reduce_sum(tf.square(z), -1)[:, None] + tf.reduce_sum(
    tf.square(means), -1
  )
  return tf.matmul(z, means, transpose_b=True) - squares / 2


def gaussian_sample(mu, sigma, noise):
  """mu + sigma * noise, noise [B, d] standard normal -> [B, d]."""
  mu = _at_least_float32(mu)
  return mu + _like(sigma, mu) * _like(noise, mu)


def gaussian_kl(mu_e, sigma_e, mu_b, sigma_b):
  """KL(N(mu_e, diag(sigma_e^2)) || N(mu_b, diag(sigma_b^2))) -> [B]."""
  mu_e = _at_least_float32(mu_e)
  mu_b = _like(mu_b, mu_e)
  sigma_e, sigma_b = _like(sigma_e, mu_e), _like(sigma_b, mu_e)
  ratio = sigma_e / sigma_b
  distance = tf.square((mu_e - mu_b) / sigma_b)
  terms = (tf.square(ratio) - 1 + distance) / 2 - tf.math.log(ratio)
  return tf.reduce_sum(terms, -1)


def logistic(noise):
  """Uniform noise in [0, 1) -> standard logistic noise log u - log(1 - u).

  A logit and this are above 0 with the probability sigmoid(logit); divided by
  a temperature, their sigmoid is the binary Concrete's sample.
  """
  u = tf.maximum(_at_least_float32(noise), 2.0**-25)
  return tf.math.log(u) - tf.math.log1p(-u)


def bernoulli_entropy(logits):
  """Entropy of independent bits [B, d] -> [B], in nats."""
  logits = _at_least_float32(logits)
  # In terms of the likelier value, so that no large numbers cancel.
  size = tf.abs(logits)
  return tf.reduce_sum(tf.math.softplus(-size) + size * tf.sigmoid(-size), -1)
