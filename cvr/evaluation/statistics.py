"""Intervals over the images of a test set, and tests of paired differences.

Scores are one number per image, of which a card's value is the mean: often 1
for right and 0 for wrong. With `labels` the mean is that of the classes' means,
and images are resampled within their classes: each class is in every resample
as often as in the test set. With `clusters`, such as the photographs that
images are parts of, whole clusters are resampled and change their signs: images
of one cluster are alike.
"""

import functools

import numpy as np

RESAMPLES = 10_000
_TAILS = (0.025, 0.975)
# Drawing the count of a value takes as long as drawing so many rows.
_ROWS_A_VALUE = 16
_AT_ONCE = 2**20
# Signs of up to so many parts are all tried.
_EXACT_PARTS = 16
# With fewer random sums as far from 0 as this, a tail is not measured by them.
_FEW = 100


def _checked(scores):
  scores = np.asarray(scores, np.float64)
  if scores.ndim != 1 or not len(scores):
    raise ValueError(f'scores are [n], one per image, not {scores.shape}')
  if not np.isfinite(scores).all():
    raise ValueError('a score is no finite number')
  return scores


def _groups(scores, labels):
  """[n] -> [scores of a class], sorted: the order of images has no effect."""
  if labels is None:
    return [np.sort(scores)]
  order = np.lexsort([scores, labels])
  firsts = np.unique(np.asarray(labels)[order], return_index=True)[1]
  return np.split(scores[order], firsts[1:])


def mean(scores, labels=None):
  """[n] -> the mean over images; with labels [n] that of the classes' means."""
  groups = _groups(_checked(scores), labels)
  return float(np.mean([group.mean() for group in groups]))


def _resampled(group, random):
  """Sorted scores [n] -> [RESAMPLES], means of n of them with replacement."""
  n = len(group)
  values, counts = np.unique(group, return_counts=True)
  if n >= _ROWS_A_VALUE * len(values):
    return random.multinomial(n, counts / n, RESAMPLES) @ values / n
  # In chunks: [RESAMPLES, n] would not fit.
  means, chunk = np.empty(RESAMPLES), max(1, _AT_ONCE // n)
  for start in range(0, RESAMPLES, chunk):
    part = means[start : start + chunk]
    part[:] = group[random.integers(0, n, [len(part), n])].mean(1)
  return means


def _cluster_sums(scores, labels, clusters):
  """-> [G] sums of weighted scores, [G] weights: their ratio is the mean."""
  weights = _weights(len(scores), labels)
  which = np.unique(clusters, return_inverse=True)[1]
  order = np.lexsort([scores, which])
  sums = functools.partial(np.bincount, which[order])
  return sums((weights * scores)[order]), sums(weights[order])


def _resampled_clusters(scores, labels, clusters, random):
  """-> [RESAMPLES] means of as many clusters, drawn with replacement."""
  sums, weights = _cluster_sums(scores, labels, clusters)
  n = len(sums)
  counts = random.multinomial(n, np.full(n, 1 / n), RESAMPLES)
  return counts @ sums / (counts @ weights)


def _percentiles(scores, labels, seed, clusters=None):
  """[n] -> low, high: the 95% percentile bootstrap of the mean.

  (None, None) where all resamples have one mean, as with equal scores: no
  spread in a sample does not mean certainty.
  """
  random = np.random.default_rng(seed)
  if clusters is None:
    groups = _groups(scores, labels)
    means = sum(_resampled(group, random) for group in groups) / len(groups)
  else:
    means = _resampled_clusters(scores, labels, clusters, random)
  low, high = np.quantile(means, _TAILS)
  # Sums of the same numbers in another order differ in their last digits.
  return (float(low), float(high)) if high - low > 1e-12 else (None, None)


def interval(scores, labels=None, seed=0, clusters=None):
  """[n] -> {'value', 'low', 'high', 'images'}: a mean and its 95% interval.

  The bootstrap's percentiles, over images or, with clusters [n], over these.
  Where all scores are equal, resamples do not differ: then it is Clopper and
  Pearson's exact interval if all are right or all wrong (of as many trials as
  there are images, or clusters), and None for other scores and for means of
  classes.
  """
  scores = _checked(scores)
  value, n = mean(scores, labels), len(scores)
  low = high = None
  if np.ptp(scores) > 0:
    low, high = _percentiles(scores, labels, seed, clusters)
  elif labels is None and scores[0] in (0, 1):
    trials = n if clusters is None else len(np.unique(clusters))
    edge = _TAILS[0] ** (1 / trials)
    low, high = (edge, 1.0) if scores[0] else (0.0, 1 - edge)
  return {'value': value, 'low': low, 'high': high, 'images': n}


def normal_interval(values):
  """[n] -> {'value', 'low', 'high', 'images'}: mean -+ 1.96 s / sqrt(n).

  low and high are None for a single image.
  """
  values = np.asarray(values, np.float64)
  n, average = len(values), float(np.mean(values))
  low = high = None
  if n > 1:
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(n)
    low, high = float(average - half), float(average + half)
  return {'value': average, 'low': low, 'high': high, 'images': n}


# Two checkpoints on the same images ------------------------------------------


def mcnemar(only_a, only_b):
  """How many images one alone gets right -> exact two-sided p-value.

  2 P(X <= min) with X ~ Binomial(n, 1/2): under the null hypothesis each of
  these images is as likely A's as B's.
  """
  n, few = only_a + only_b, min(only_a, only_b)
  logs = np.append(0, np.cumsum(np.log(np.arange(1, n + 1))))
  k = np.arange(few + 1)
  terms = np.exp(logs[n] - logs[k] - logs[n - k] - n * np.log(2))
  return float(min(1, 2 * terms.sum()))


def _all_signs(sizes, reached):
  """[n] -> the share of the 2^n choices of signs whose sum is that far."""
  sums = np.zeros(1)
  for size in sizes:
    sums = np.concatenate([sums - size, sums + size])
  return float(np.mean(np.abs(sums) >= reached))


def _tilt(sizes, counts, reached):
  """t with sum of sizes * tanh(t * size) = reached, below their sum."""
  low, high = 0.0, 1 / sizes.min()
  while np.sum(counts * sizes * np.tanh(high * sizes)) < reached:
    low, high = high, 2 * high
  for _ in range(60):
    middle = (low + high) / 2
    below = np.sum(counts * sizes * np.tanh(middle * sizes)) < reached
    low, high = (middle, high) if below else (low, middle)
  return high


def _far_tail(sizes, counts, reached, random):
  """P(|sum of signed parts| >= reached), however small it is.

  Importance sampling: positive signs are drawn so much more often that the
  mean sum is `reached` (an exponential tilt), and each draw is weighted by how
  much less likely it is with fair signs. Without bias at any number of draws.
  """
  tilt = _tilt(sizes, counts, reached)
  x = tilt * sizes
  sums = np.zeros(RESAMPLES)
  for size, count, p in zip(
    sizes, counts, 1 / (1 + np.exp(-2 * x)), strict=True
  ):
    sums += size * (2 * random.binomial(count, p, RESAMPLES) - count)
  # log cosh, without overflow.
  log_mean = np.sum(counts * (x + np.log1p(np.exp(-2 * x)) - np.log(2)))
  far = sums >= reached
  return float(2 * np.mean(np.exp(log_mean - tilt * sums) * far))


def sign_flips(parts, seed=0):
  """[n] that add up to a difference -> two-sided p-value.

  Under the null hypothesis both signs of a part are equally likely: the share
  of choices of signs whose sum is at least as far from 0 as that of parts. Of
  few parts all choices; of many (1 + k) / (1 + N) with k of N random ones, and
  where k is small by importance sampling, so that there is no smallest value.
  """
  parts = _checked(parts)
  parts = parts[parts != 0]
  # Rounding: the same sum in another order of terms counts as equal.
  reached = np.abs(parts.sum()) - 1e-9 * np.abs(parts).sum()
  sizes, counts = np.unique(np.abs(parts), return_counts=True)
  if len(parts) <= _EXACT_PARTS:
    return _all_signs(np.repeat(sizes, counts), reached)
  random, sums = np.random.default_rng(seed), np.zeros(RESAMPLES)
  # Counts of kept signs by size, rather than [RESAMPLES, n] signs.
  for size, count in zip(sizes, counts, strict=True):
    kept = random.binomial(count, 0.5, RESAMPLES)
    sums += size * (2 * kept - count)
  far = int(np.sum(np.abs(sums) >= reached))
  if far >= _FEW:
    return (1 + far) / (1 + RESAMPLES)
  return _far_tail(sizes, counts, reached, random)


def paired(a, b, labels=None, seed=0, clusters=None):
  """Scores [n] of A and B, image by image -> a dict: how far B is above A.

  low, high: the bootstrap of the images' differences. p_value: McNemar's exact
  test where scores are 0 or 1, and sign flips for others and for means of
  classes. With clusters [n] both are over these: a cluster's differences change
  their sign together. only_a, only_b: how many images A's score, or B's, is
  higher on.
  """
  a, b = _checked(a), _checked(b)
  if a.shape != b.shape:
    raise ValueError(f'{len(a)} scores of A beside {len(b)} of B')
  apart = b - a
  # Resampled with the sign of the difference, so that swapping A and B mirrors
  # the interval.
  side = -1 if mean(apart, labels) < 0 else 1
  difference = side * mean(side * apart, labels)
  low, high = _percentiles(side * apart, labels, seed, clusters)[::side]
  only_a, only_b = int(np.sum(apart < 0)), int(np.sum(apart > 0))
  exact = labels is clusters is None and np.isin([a, b], (0, 1)).all()
  if exact:
    p_value, test = mcnemar(only_a, only_b), 'exact McNemar'
  elif clusters is None:
    parts, test = apart * _weights(len(a), labels), 'sign flips'
    p_value = sign_flips(parts, seed)
  else:
    parts, _ = _cluster_sums(apart, labels, clusters)
    p_value, test = sign_flips(parts, seed), 'sign flips of clusters'
  return {
    'difference': difference,
    'low': None if low is None else side * low,
    'high': None if high is None else side * high,
    'p_value': p_value,
    'test': test,
    'images': len(a),
    'only_a': only_a,
    'only_b': only_b,
  }


def _weights(n, labels):
  """The weight of an image's score in the mean."""
  if labels is None:
    return np.full(n, 1 / n)
  _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
  return 1 / sizes[which] / len(sizes)


def holm(p_values):
  """[m] -> [m], as large as Holm's step-down makes them for all m at once."""
  p_values = np.asarray(p_values, np.float64)
  order = np.argsort(p_values, kind='stable')
  times = len(order) - np.arange(len(order))
  stepped = np.maximum.accumulate(np.minimum(1, p_values[order] * times))
  adjusted = np.empty_like(stepped)
  adjusted[order] = stepped
  return adjusted.tolist()


# Several seeds ---------------------------------------------------------------


def _within(angle, freedom):
  """P(|T| <= t) of Student's t, t = sqrt(freedom) tan(angle).

  A finite sum for integer degrees of freedom (Abramowitz and Stegun 26.7.3, 4).
  """
  sine, cosine = np.sin(angle), np.cos(angle)
  odd = freedom % 2
  term = cosine if odd else 1.0
  total = term if freedom > 1 else 0.0
  for k in range(2 + odd, freedom, 2):
    term *= (k - 1) / k * cosine**2
    total += term
  return 2 / np.pi * (angle + sine * total) if odd else sine * total


def _t_quantile(freedom):
  """t with P(|T| <= t) = 95%."""
  low, high = 0.0, np.pi / 2
  for _ in range(60):
    middle = (low + high) / 2
    if _within(middle, freedom) < _TAILS[1] - _TAILS[0]:
      low = middle
    else:
      high = middle
  return np.sqrt(freedom) * np.tan(low)


def over_seeds(values):
  """A value per seed -> {'mean', 'sd', 'low', 'high', 'seeds'}.

  low, high: Student's 95% interval of the mean over seeds; None for one seed.
  """
  values = _checked(values)
  n, average = len(values), float(values.mean())
  sd = low = high = None
  if n > 1:
    sd = float(values.std(ddof=1))
    half = _t_quantile(n - 1) * sd / np.sqrt(n)
    low, high = float(average - half), float(average + half)
  return {'mean': average, 'sd': sd, 'low': low, 'high': high, 'seeds': n}


def paired_over_seeds(a, b):
  """Values of A and B, seed by seed -> over_seeds(b - a) and its 'p_value'.

  Student's paired t-test, two-sided; None for one seed.
  """
  a, b = _checked(a), _checked(b)
  if a.shape != b.shape:
    raise ValueError(f'{len(a)} seeds of A beside {len(b)} of B')
  summary = over_seeds(b - a)
  p_value = None
  if len(a) > 1:
    # tan(angle) = t / sqrt(freedom), also where sd is 0.
    far = abs(summary['mean']) * np.sqrt(len(a) / (len(a) - 1))
    angle = np.arctan2(far, summary['sd'])
    p_value = float(max(0, 1 - _within(angle, len(a) - 1)))
  return summary | {'p_value': p_value}
