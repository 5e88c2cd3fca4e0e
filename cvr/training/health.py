"""What a representation keeps, and what is wrong with it: numbers and advice.

Numbers are functions of the embeddings of held-out pairs of views, the same for
every method; advice is a function of the numbers.
"""

import math

import numpy as np
import tensorflow as tf

from cvr.numerics import distributions, information

# The concentration of the kernel, and of the backward encoder where a method
# has none: one for all methods, so that one plot compares them.
KAPPA = 10.0
# The concentration of the forward encoder where a method has none.
NOISE_KAPPA = 1024.0
# Spread below this share of the features' length is float32's rounding.
_RESOLUTION = 1e-6
_NONFINITE = 'health/nonfinite_rows'


def information_of(z1, z2, rate=None, probabilities=None):
  """Unit rows z1, z2 [n, d] of two views -> entropies and bounds, in nats.

  rate: [n] log e(z|x) - log b(z|y) of a method that has both. Others get that
  of von Mises-Fisher encoders around z1 and z2. probabilities: [..., K], the
  mean over all rows of those of their assignments, of a method that has them.
  """
  dim = z1.shape[-1]
  with tf.device('CPU:0'):
    z1, z2 = tf.constant(z1, tf.float64), tf.constant(z2, tf.float64)
    kernel = information.vmf_kernel(dim, KAPPA)
    nats = information.bounds(kernel, z1, z2, z1, z2)
    if rate is None:
      cosine = tf.reduce_sum(z1 * z2, -1)
      rate = distributions.vmf_kl(dim, NOISE_KAPPA, KAPPA, cosine)
    nats['residual'] = np.mean(rate)
    if probabilities is not None:
      heads = information.discrete_entropy(tf.constant(probabilities))
      nats['assignment_entropy'] = tf.reduce_mean(heads)
  return {f'information/{name}': float(x) for name, x in nats.items()}


def feature_std(z):
  """Mean deviation of a dimension of unit rows [n, d], times sqrt(d).

  1 where they are spread over the sphere, 0 where they are one point.
  """
  return float(np.mean(np.std(z, 0)) * math.sqrt(z.shape[-1]))


def spectrum(h):
  """Rows h [n, D] -> eigenvalues of their covariance as shares of their sum.

  From the largest on; none if the rows are one point.
  """
  centred = h - h.mean(0)
  # The nonzero eigenvalues of both are the same.
  wide = h.shape[0] < h.shape[1]
  gram = centred @ centred.T if wide else centred.T @ centred
  values = np.maximum(np.linalg.eigvalsh(gram), 0)
  if values.sum() <= _RESOLUTION**2 * np.sum(h**2):
    return np.zeros(0)
  return values[::-1] / values.sum()


def rank_of(shares):
  """exp of the entropy of a spectrum's shares: how many directions it fills."""
  shares = shares[shares > 0]
  return float(np.exp(-np.sum(shares * np.log(shares)))) if len(shares) else 0.0


def effective_rank(h):
  """How many directions rows h [n, D] spread over; 0 if they are one point.

  exp of the entropy of their covariance's normalised eigenvalues (Roy and
  Vetterli, 2007).
  """
  # In ascending order, in which the sum was always taken.
  return rank_of(spectrum(h)[::-1])


def similarities(z1, z2):
  """Unit rows z1, z2 [n, d] of two views -> the cosines of the two views of an
  image [n], and those of views of different images [n (n - 1)].
  """
  cosines = z1 @ z2.T
  same = np.eye(len(z1), dtype=bool)
  return cosines[same], cosines[~same]


def alignment(z1, z2):
  """Mean |z1 - z2|^2 of pairs of unit rows [n, d] (Wang and Isola, 2020)."""
  return float(np.mean(np.sum((z1 - z2) ** 2, -1)))


def uniformity(z):
  """log of the mean of exp(-2 |z_i - z_j|^2) over i != j (Wang and Isola)."""
  squares = np.maximum(2 - 2 * z @ z.T, 0)
  kernels = np.exp(-2 * squares[~np.eye(len(z), dtype=bool)])
  return float(np.log(np.mean(kernels)))


def health_of(h, z1, z2):
  """Representations h [m, D], unit rows z1, z2 [n, d] -> a flat dict."""
  return {
    'health/feature_std': feature_std(np.concatenate([z1, z2])),
    'health/effective_rank': effective_rank(h),
    'health/alignment': alignment(z1, z2),
    'health/uniformity': (uniformity(z1) + uniformity(z2)) / 2,
  }


def measure(h, z, rate=None, probabilities=None):
  """All numbers of n pairs of views, in float64 -> a flat dict.

  h [n, 2, D] representations, z [n, 2, d] projections; rate and probabilities
  as in information_of. Where rows are no numbers, only how many of them.
  """
  bad = ~(np.isfinite(h).all(-1) & np.isfinite(z).all(-1))
  if bad.any():
    return {_NONFINITE: float(bad.mean())}
  # What is 0 has no direction, and stays 0.
  lengths = np.linalg.norm(z, axis=-1, keepdims=True)
  z1, z2 = np.moveaxis(z / np.maximum(lengths, 1e-12), 1, 0)
  rows = h.reshape(-1, h.shape[-1])
  return information_of(z1, z2, rate, probabilities) | health_of(rows, z1, z2)


def distributions_of(h, z):
  """What measure() makes numbers of, as values to draw histograms of.

  h [n, 2, D], z [n, 2, d] as there; {} where rows are no numbers.
  """
  if not (np.isfinite(h).all() and np.isfinite(z).all()):
    return {}
  z = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
  same, other = similarities(z[:, 0], z[:, 1])
  shares = spectrum(h.reshape(-1, h.shape[-1]))
  return {
    'similarity/two_views_of_an_image': same,
    # As many as a histogram needs.
    'similarity/views_of_two_images': other[:: max(1, len(other) // 20_000)],
    'spectrum/log10_of_shares': np.log10(np.maximum(shares, 1e-12)),
  }


# Words.

# Two images then have a cosine of 1 - 0.05^2 on average. Untrained networks of
# 18 to 152 layers have 0.27 and more on photographs, 0.10 on gray digits
# without augmentation; BYOL without a predictor had 0.03 after 100 steps, 0.01
# after 300.
_ONE_POINT = 0.05
# Untrained networks have 2.2 and more on photographs, and 1.9 on those digits;
# learning ones 6 to 20, ones that a far too high rate broke 1.5 to 3.
_ONE_DIRECTION = 2.0
# Entropies of the assignments of all images: soft ones, and a step's own.
_ASSIGNMENTS = ('information/assignment_entropy', 'prototype_entropy')
# Of the nats that nothing learned costs.
_AT_CHANCE = 0.01
# A run passes through such numbers, too: only two summaries in a row count.
_IN_A_ROW = 2
# What --stop_on_collapse ends a run for.
COLLAPSES = ('collapse', 'prototypes')

# What need not be learned yet before a run has settled.
_LATER = ('flat', 'stuck', 'teacher')

# Flag -> what to do with it. Only those are named that have an effect on the
# run, and a value that the run does not have.
_SLOWER = {
  'learning_rate': 'lower, or --learning_rate_scaling=sqrt',
  'warmup_epochs': 'longer',
  'precision=fp32': '',
}
_KNOBS = {
  'nonfinite': {**_SLOWER, 'clip_norm': 'above 0, or lower'},
  'flat': _SLOWER,
  'collapse': {
    'ceb_beta': 'lower: compression outweighs the rest',
    'ema_alpha': 'higher: the teacher changes too fast',
    'teacher_temperature': 'lower',
    'train_batch_size': 'larger',
    **_SLOWER,
  },
  'prototypes': {
    'freeze_prototypes_steps': 'more',
    'sinkhorn_epsilon': 'lower',
    'centring=true': '',
    'teacher_temperature': 'higher',
    **_SLOWER,
  },
  'teacher': {
    'teacher_temperature': 'lower',
    'centre_momentum': 'higher',
    'freeze_prototypes_steps': 'more',
    **_SLOWER,
  },
  'stuck': {
    'ceb_beta': 'lower: compression outweighs the rest',
    'teacher_temperature': 'lower',
    'temperature': 'lower',
    'freeze_prototypes_steps': 'more',
    **_SLOWER,
  },
}


def _troubles(numbers, chance):
  """-> {kind of trouble: a sentence}."""
  troubles = {}
  if _NONFINITE in numbers:
    share = numbers[_NONFINITE]
    troubles['nonfinite'] = f'{share:.0%} of the features are NaN or infinite'
  spread = numbers.get('health/feature_std', 1.0)
  if spread < _ONE_POINT:
    troubles['collapse'] = (
      'collapse: the projections of all images are nearly one point '
      f'(health/feature_std {spread:.3f}; spread over the sphere it is 1)'
    )
  rank = numbers.get('health/effective_rank', math.inf)
  if spread >= _ONE_POINT and rank < _ONE_DIRECTION:
    troubles['flat'] = (
      'the representations lie nearly along one line '
      f'(health/effective_rank {rank:.1f})'
    )
  for name in _ASSIGNMENTS:
    entropy = numbers.get(name, math.inf)
    if entropy < math.log(2):
      troubles['prototypes'] = (
        'collapse: nearly all images are assigned to one prototype '
        f'({name} {entropy:.3f} nats)'
      )
  for name, value in chance.items():
    if abs(numbers.get(name, math.inf) - value) > _AT_CHANCE * value:
      continue
    kind = 'teacher' if name == 'teacher_entropy' else 'stuck'
    troubles[kind] = {
      'teacher': 'the teacher does not tell prototypes apart',
      'stuck': 'nothing is learned: the method does not tell images apart',
    }[kind] + f' ({name} {numbers[name]:.3f}; by chance {value:.3f})'
  return troubles


def advice(numbers, settings, chance):
  """A summary's numbers -> {kind of trouble: one line with what to turn}.

  settings: {flag: value} of those that have an effect; chance: {name of a
  number: its value where all images look alike}.
  """

  def knobs(kind):
    for flag, how in _KNOBS[kind].items():
      name, _, value = flag.partition('=')
      if name in settings and f'{settings[name]}'.lower() != value:
        yield f'--{flag} {how}'.rstrip()

  return {
    kind: f'{what}. Change one at a time: {"; ".join(knobs(kind))}'
    for kind, what in _troubles(numbers, chance).items()
  }


class Reporter:
  """Reports each trouble once, and again only after it has gone away."""

  def __init__(self, settings, chance, settled):
    self.settings, self.chance, self.settled = settings, chance, settled
    self.in_a_row = {}

  def lines(self, step, numbers):
    """The numbers of a summary -> the lines to print now."""
    troubles = advice(numbers, self.settings, self.chance)
    if step <= self.settled:
      troubles = {k: line for k, line in troubles.items() if k not in _LATER}
    self.in_a_row = {kind: self.in_a_row.get(kind, 0) + 1 for kind in troubles}
    return [
      f'Health at step {step}: {line}'
      for kind, line in troubles.items()
      if self.in_a_row[kind] == _IN_A_ROW
    ]

  def collapsed(self):
    """Whether the last summary, too, showed a collapse."""
    return any(self.in_a_row.get(k, 0) >= _IN_A_ROW for k in COLLAPSES)
