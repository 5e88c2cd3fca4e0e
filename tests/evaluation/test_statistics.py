"""Intervals against binomials and coverage, p-values against enumeration."""

import itertools
import math

import numpy as np
import pytest

from cvr.evaluation import statistics

stats = pytest.importorskip('scipy.stats')


def random(seed=0):
  return np.random.default_rng(seed)


def right(k, n):
  """k of n right, as scores."""
  return (np.arange(n) < k).astype(np.float32)


def five_sigma(p, n):
  return 5 * math.sqrt(p * (1 - p) / n)


# Intervals -------------------------------------------------------------------


@pytest.mark.parametrize(('k', 'n'), [(30, 40), (700, 1000), (35_000, 50_000)])
def test_the_interval_of_an_accuracy_is_the_binomials(k, n):
  found = statistics.interval(right(k, n), seed=3)
  assert found['value'] == pytest.approx(k / n, abs=1e-12)
  assert found['images'] == n
  binomial = stats.binom(n, k / n)
  off = five_sigma(0.025, statistics.RESAMPLES)
  for end, tail in (('low', 0.025), ('high', 0.975)):
    count = found[end] * n
    # The step of the distribution that holds the tail, but for chance.
    assert binomial.cdf(math.ceil(count)) > tail - off
    assert binomial.cdf(math.floor(count) - 1) < tail + off


def test_coverage_of_an_accuracy():
  """The exact chance that the interval of n images holds the truth."""
  n, truth = 200, 0.7
  covered = 0
  for k in range(1, n):
    found = statistics.interval(right(k, n))
    held = found['low'] <= truth <= found['high']
    covered += held * stats.binom(n, truth).pmf(k)
  assert 0.935 < covered < 0.96


def by_class(sizes, shares, seed):
  labels = np.repeat(np.arange(len(sizes)), sizes)
  scores = random(seed).random(len(labels)) < np.repeat(shares, sizes)
  return scores.astype(np.float32), labels


def test_coverage_of_a_mean_per_class():
  sizes, shares = [40, 200, 100], [0.6, 0.2, 0.85]
  covered = 0
  for seed in range(400):
    scores, labels = by_class(sizes, shares, seed)
    found = statistics.interval(scores, labels, seed)
    covered += found['low'] <= np.mean(shares) <= found['high']
  assert abs(covered / 400 - 0.945) < five_sigma(0.95, 400)


def test_the_width_of_a_mean_per_class():
  sizes, shares = [100, 3000, 900], [0.5, 0.9, 0.3]
  scores, labels = by_class(sizes, shares, 0)
  found = statistics.interval(scores, labels)
  p = np.array([scores[labels == c].mean(dtype=float) for c in range(3)])
  assert found['value'] == pytest.approx(p.mean(), abs=1e-12)
  sd = math.sqrt(np.sum(p * (1 - p) / sizes)) / 3
  assert found['high'] - found['low'] == pytest.approx(3.92 * sd, rel=0.04)
  plain = statistics.interval(scores)
  assert plain['value'] == pytest.approx(scores.mean())
  assert plain['high'] - plain['low'] < 0.7 * 3.92 * sd


@pytest.mark.parametrize('distinct', [76, 4000])
def test_scores_of_many_values(distinct):
  """Few distinct values and many are drawn in two ways."""
  scores = random().integers(0, distinct, 4000) / distinct
  found = statistics.interval(scores)
  half = 1.96 * scores.std() / math.sqrt(4000)
  assert found['low'] == pytest.approx(scores.mean() - half, abs=0.06 * half)
  assert found['high'] == pytest.approx(scores.mean() + half, abs=0.06 * half)


def test_images_that_are_there_twice_promise_too_much():
  once = right(300, 500)
  one = statistics.interval(once)
  two = statistics.interval(np.concatenate([once, once]))
  assert two['value'] == one['value']
  ratio = (one['high'] - one['low']) / (two['high'] - two['low'])
  assert ratio == pytest.approx(math.sqrt(2), rel=0.04)


def test_all_right_and_all_wrong():
  exact = stats.binomtest(50, 50).proportion_ci(method='exact')
  found = statistics.interval(right(50, 50))
  assert found['low'] == pytest.approx(exact.low) and found['high'] == 1
  exact = stats.binomtest(0, 50).proportion_ci(method='exact')
  found = statistics.interval(right(0, 50))
  assert found['high'] == pytest.approx(exact.high) and found['low'] == 0
  for scores, labels in ((np.full(9, 2.5), None), (np.ones(9), np.arange(9))):
    found = statistics.interval(scores, labels)
    assert found['value'] == scores[0] and found['low'] is None


def test_seeds_and_the_order_of_images():
  scores, labels = by_class([50, 70], [0.3, 0.8], 0)
  order = random(5).permutation(120)
  for with_labels in (None, labels):
    shuffled = None if with_labels is None else labels[order]
    found = statistics.interval(scores, with_labels, 1)
    assert statistics.interval(scores[order], shuffled, 1) == found
    # Of scores that are all different, rows are drawn.
    fine = random(6).random(120)
    found = statistics.interval(fine, with_labels, 1)
    assert statistics.interval(fine[order], shuffled, 1) == found
  seeds = {statistics.interval(random().random(99), seed=i)['low'] for i in
           range(3)}  # fmt: skip
  assert len(seeds) == 3


@pytest.mark.parametrize('scores', [[], [[1.0]], [1, np.nan], [np.inf]])
def test_what_are_no_scores(scores):
  with pytest.raises(ValueError, match='score'):
    statistics.interval(scores)


def test_a_normal_interval_by_hand():
  found = statistics.normal_interval(np.array([1, 3], np.float32))
  # s = sqrt(2), so s / sqrt(n) = 1.
  assert found['value'] == 2 and found['images'] == 2
  assert found['low'] == pytest.approx(2 - 1.96, abs=1e-12)
  assert found['high'] == pytest.approx(2 + 1.96, abs=1e-12)
  one = statistics.normal_interval([4])
  assert one == {'value': 4.0, 'low': None, 'high': None, 'images': 1}


def test_nineteen_of_twenty_normal_intervals_hold_the_mean():
  rates = random().exponential(3, (2000, 400))
  found = [statistics.normal_interval(rate) for rate in rates]
  inside = np.mean([row['low'] < 3 < row['high'] for row in found])
  # Five deviations of 2000 draws, and what an exponential's tail costs.
  assert abs(inside - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 2000) + 0.005


# Pairs -----------------------------------------------------------------------


def test_mcnemar_is_the_binomial_test():
  pairs = [*itertools.product(range(9), range(9)), (400, 460), (9000, 9300)]
  for only_a, only_b in pairs:
    n = only_a + only_b
    wanted = stats.binomtest(only_a, n).pvalue if n else 1
    found = statistics.mcnemar(only_a, only_b)
    assert found == pytest.approx(wanted, rel=1e-7), (only_a, only_b)


def enumerated(parts):
  signs = np.array(list(itertools.product((-1, 1), repeat=len(parts))))
  far = np.abs(signs @ parts) >= abs(np.sum(parts)) - 1e-9
  return far.mean()


@pytest.mark.parametrize(
  'parts',
  [
    [0.3, -0.1, 0.5, 0.2, 0.7, -0.2, 0.1, 0.4],
    [1, 1, 1, 1, -1, 1, 1, 1, 0, 0],
    [0.1, 0.2, 0.3, -0.6],
    [0.25, 0.25, 0.25, -0.5, 0.125, 0.125, 0.125, 0.125, 0.125],
  ],
)
def test_sign_flips_are_those_of_all_signs(parts):
  wanted = enumerated(np.array(parts))
  off = five_sigma(wanted, statistics.RESAMPLES) + 1 / statistics.RESAMPLES
  for some in (parts, np.negative(parts), parts[::-1]):
    assert abs(statistics.sign_flips(some, seed=2) - wanted) <= off


def by_convolution(sizes):
  """P(|sum of signed integers| >= their sum minus k) for all k, exactly."""
  chances = np.ones(1)
  for size in sizes:
    step = np.zeros(2 * size + 1)
    step[[0, -1]] = 0.5
    chances = np.convolve(chances, step)
  return chances


@pytest.mark.parametrize('n', [17, 40, 200, 900])
@pytest.mark.parametrize('share', [0.05, 0.2, 0.5, 0.95])
def test_tails_of_many_signs_are_exact(n, share):
  """Of integers, whose sum has a distribution that convolution gives."""
  sizes = random(n).integers(1, 7, n)
  total = int(sizes.sum())
  chances = by_convolution(sizes)
  # As many negative parts as leave about this share of the largest sum.
  kept = np.cumsum(sizes) <= (1 - share) / 2 * total
  parts = np.where(kept, -sizes, sizes)
  reached = abs(int(parts.sum()))
  sums = np.arange(-total, total + 1)
  wanted = chances[np.abs(sums) >= reached].sum()
  # Convolution itself rounds below this.
  if wanted > 1e-250:
    # 10,000 draws: 100 of them at the border between the two ways, at least.
    for some in (parts, -parts, 0.1 * parts):
      value = statistics.sign_flips(some, seed=1)
      assert value == pytest.approx(wanted, rel=0.4 if wanted > 5e-3 else 0.12)


def test_few_parts_are_tried_with_all_signs():
  for n in (1, 5, 12, 16):
    parts = random(n).normal(size=n) + 0.4
    assert statistics.sign_flips(parts) == pytest.approx(enumerated(parts))
  parts = np.append(random(3).normal(size=9), np.zeros(500))
  wanted = enumerated(parts[:9])
  assert statistics.sign_flips(parts) == pytest.approx(wanted)


def test_a_p_value_is_never_0():
  found = statistics.sign_flips(np.ones(50))
  assert found == pytest.approx(2.0**-49, rel=0.1)
  assert statistics.sign_flips(np.zeros(50)) == 1


def test_holm_can_reject_among_thousands():
  """A difference in 200 images of one direction, in one row of 5,000."""
  a, labels = np.zeros(400), np.arange(400) % 4
  b = np.where(np.arange(400) % 2, 1.0, 0.0)
  p_value = statistics.paired(a, b, labels)['p_value']
  assert statistics.holm([p_value, *[1.0] * 4999])[0] < 1e-6


# Clusters --------------------------------------------------------------------


def photographs(effect, seed, count=16, each=50):
  """Right and wrong of `each` patches of photographs that differ: [n] twice."""
  shares = np.clip(0.7 + effect * random(seed).normal(size=count), 0, 1)
  clusters = np.repeat(np.arange(count), each)
  scores = random(seed + 1000).random(len(clusters)) < shares[clusters]
  return scores.astype(float), clusters


def test_coverage_over_photographs():
  """Over images the interval of a mean over photographs is far too short."""
  covered = {'images': 0, 'photographs': 0}
  for seed in range(400):
    scores, clusters = photographs(0.12, seed)
    for kind, of in (('images', None), ('photographs', clusters)):
      found = statistics.interval(scores, seed=seed, clusters=of)
      covered[kind] += found['low'] <= 0.7 <= found['high']
  # The percentile bootstrap of 16 clusters covers somewhat less than 95%.
  assert covered['photographs'] / 400 > 0.95 - 0.035 - five_sigma(0.95, 400)
  assert covered['images'] / 400 < 0.75


def test_clusters_of_a_mean_per_class():
  scores, clusters = photographs(0.2, 3)
  plain = statistics.interval(scores, clusters=clusters)
  per_class = statistics.interval(scores, clusters, clusters=clusters)
  # As many images in every class: the two means are one.
  assert per_class == pytest.approx(plain)
  means = scores.reshape(16, 50).mean(1)
  sd = means.std() / 4
  assert plain['high'] - plain['low'] == pytest.approx(3.92 * sd, rel=0.1)


def test_images_that_are_there_twice_promise_nothing_more_as_clusters():
  once = right(300, 500)
  one = statistics.interval(once)
  twice = np.concatenate([once, once])
  two = statistics.interval(twice, clusters=np.tile(np.arange(500), 2))
  assert two['high'] - two['low'] == pytest.approx(
    one['high'] - one['low'], rel=0.04
  )


def test_all_right_in_few_photographs():
  exact = stats.binomtest(16, 16).proportion_ci(method='exact')
  clusters = np.repeat(np.arange(16), 50)
  found = statistics.interval(np.ones(800), clusters=clusters)
  assert found['low'] == pytest.approx(exact.low) and found['high'] == 1


def test_pairs_over_photographs():
  a, clusters = photographs(0.1, 5)
  b, _ = photographs(0.1, 6)
  found = statistics.paired(a, b, clusters=clusters)
  assert found['test'] == 'sign flips of clusters'
  sums = (b - a).reshape(16, 50).sum(1)
  assert found['p_value'] == pytest.approx(enumerated(sums))
  other = statistics.paired(b, a, clusters=clusters)
  assert (other['low'], other['high']) == (-found['high'], -found['low'])
  assert other['p_value'] == found['p_value']
  order = random(8).permutation(800)
  shuffled = statistics.paired(a[order], b[order], clusters=clusters[order])
  assert shuffled == pytest.approx(found)
  assert found['images'] == 800


def test_a_pair_by_hand():
  a = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 0])
  b = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1, 1])
  found = statistics.paired(a, b)
  assert found['difference'] == pytest.approx(0.5)
  assert (found['only_a'], found['only_b'], found['images']) == (1, 6, 10)
  assert found['test'] == 'exact McNemar'
  # Twice the chance of at most 1 of 7: 2 (1 + 7) / 2^7.
  assert found['p_value'] == pytest.approx(16 / 128)
  assert found['low'] < 0.5 < found['high'] <= 1


def test_pairs_are_narrower_than_two_sets():
  """The images that both get right or wrong add nothing."""
  hard = random().random(2000)
  a, b = (hard < 0.7).astype(float), (hard < 0.72).astype(float)
  found = statistics.paired(a, b)
  share = found['difference']
  assert found['only_a'] == 0
  wanted = stats.binom(2000, share).ppf([0.025, 0.975]) / 2000
  assert [found['low'], found['high']] == pytest.approx(wanted, abs=0.001)


def test_a_mean_per_class_of_pairs():
  """Two images of a small class weigh more than five of a large one."""
  labels = np.repeat([3, 7], [4, 12])
  a, b = np.zeros(16), np.zeros(16)
  a[5:10] = 1
  b[:2] = 1
  found = statistics.paired(a, b, labels)
  assert found['difference'] == pytest.approx((2 / 4 - 5 / 12) / 2)
  assert found['test'] == 'sign flips'
  parts = np.repeat([1 / 4, -1 / 12], [2, 5]) / 2
  wanted = enumerated(parts)
  off = five_sigma(wanted, statistics.RESAMPLES) + 1e-4
  assert abs(found['p_value'] - wanted) <= off
  assert statistics.paired(a, b)['difference'] == pytest.approx(-3 / 16)


def pair(kind, n=300):
  hard, labels = random(1).random(n), random(2).integers(0, 4, n)
  a, b = (random(seed).normal(0, 0.2, n) + hard for seed in (3, 4))
  if kind == 'scores':
    return a, b + 0.02, None
  accuracies = (a < 0.6).astype(float), (b < 0.65).astype(float)
  return *accuracies, labels if kind == 'per class' else None


@pytest.mark.parametrize('kind', ['accuracy', 'scores', 'per class'])
def test_b_against_a_mirrors_a_against_b(kind):
  a, b, labels = pair(kind)
  found = statistics.paired(a, b, labels)
  other = statistics.paired(b, a, labels)
  assert found['difference'] > 0
  assert found['low'] < found['difference'] < found['high']
  assert other['difference'] == -found['difference']
  assert (other['low'], other['high']) == (-found['high'], -found['low'])
  assert other['p_value'] == found['p_value']
  assert (other['only_a'], other['only_b']) == (
    found['only_b'], found['only_a']
  )  # fmt: skip
  same = statistics.paired(a, a, labels)
  assert same['p_value'] == 1
  assert same['difference'] == 0
  # That nothing differs among so few is no certainty.
  assert same['low'] is same['high'] is None


@pytest.mark.parametrize('kind', ['accuracy', 'per class'])
def test_p_values_where_nothing_differs(kind, monkeypatch):
  """At most 5% in at most 5% of cases, but for chance."""
  monkeypatch.setattr(statistics, 'RESAMPLES', 1999)
  small = 0
  for seed in range(300):
    a, b, labels = pair(kind, 60)
    swap = random(seed).random(60) < 0.5
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    small += statistics.paired(a, b, labels, seed)['p_value'] <= 0.05
  assert small / 300 < 0.05 + five_sigma(0.05, 300)


def test_sign_flips_where_nothing_differs(monkeypatch):
  """Of scores that hardly tie it is 5% of cases."""
  monkeypatch.setattr(statistics, 'RESAMPLES', 1999)
  draws = random().normal(size=[1000, 15]) ** 3
  small = [statistics.sign_flips(parts, i) <= 0.05
           for i, parts in enumerate(draws)]  # fmt: skip
  assert abs(np.mean(small) - 0.05) < five_sigma(0.05, 1000)


def test_scores_of_other_lengths():
  with pytest.raises(ValueError, match='3 scores of A beside 2 of B'):
    statistics.paired([1, 0, 1], [1, 0])
  with pytest.raises(ValueError, match='3 seeds of A beside 2 of B'):
    statistics.paired_over_seeds([1, 0, 1], [1, 0])


def test_holm():
  found = statistics.holm([0.01, 0.04, 0.03, 0.005])
  assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert statistics.holm([0.6, 0.7]) == [1, 1]
  assert statistics.holm([0.3]) == pytest.approx([0.3])
  assert statistics.holm([]) == []


# Seeds -----------------------------------------------------------------------


@pytest.mark.parametrize('n', [2, 3, 4, 5, 6, 7, 30, 31])
def test_students_interval_and_test(n):
  a, b = random(n).random((2, n))
  found = statistics.over_seeds(a)
  wanted = stats.t.interval(0.95, n - 1, a.mean(), stats.sem(a))
  assert (found['low'], found['high']) == pytest.approx(wanted, rel=1e-9)
  assert found['sd'] == pytest.approx(np.std(a, ddof=1))
  assert (found['mean'], found['seeds']) == (pytest.approx(a.mean()), n)
  found = statistics.paired_over_seeds(a, b)
  assert found['p_value'] == pytest.approx(stats.ttest_rel(b, a).pvalue)
  assert found['mean'] == pytest.approx(b.mean() - a.mean())


def test_one_seed_says_nothing_of_others():
  assert statistics.over_seeds([0.7]) == {
    'mean': 0.7, 'sd': None, 'low': None, 'high': None, 'seeds': 1
  }  # fmt: skip
  assert statistics.paired_over_seeds([0.7], [0.75])['p_value'] is None


def test_seeds_that_agree():
  found = statistics.paired_over_seeds([1, 2, 3], [1, 2, 3])
  assert found['p_value'] == 1 and found['low'] == found['high'] == 0
  found = statistics.paired_over_seeds([1, 2, 3], [2, 3, 4])
  assert found['p_value'] == 0 and found['low'] == found['high'] == 1


def test_a_resample_is_as_large_as_the_set():
  """All resamples of four different scores, listed: their quantiles."""
  scores = np.array([0.0, 1.0, 3.0, 10.0])
  means = np.sort([np.mean(r) for r in itertools.product(scores, repeat=4)])
  found = statistics.interval(scores)
  # Ranks within five standard errors of 10,000 resamples.
  for end, share in ((found['low'], 0.025), (found['high'], 0.975)):
    error = 5 * math.sqrt(share * (1 - share) / 10_000)
    low, high = np.quantile(
      means, np.clip([share - error, share + error], 0, 1)
    )
    assert low - 1e-12 <= end <= high + 1e-12
    # Of three scores no mean is a quarter of a sum.
    assert np.isclose(means, end).any()


@pytest.mark.parametrize('n, distinct', [(40, 2), (40, 40)])
def test_the_variance_of_resampled_means_is_that_of_n(n, distinct):
  """Population variance over n, of both ways of drawing."""
  scores = np.sort(random(5).random(n).round(0 if distinct == 2 else 9))
  assert len(np.unique(scores)) == distinct
  means = statistics._resampled(scores, random(6))
  expected = scores.var() / n
  # The variance of 10,000 numbers is known to 1.4%; n - 1 would be 2.6% more.
  many = np.concatenate(
    [means, *(statistics._resampled(scores, random(s)) for s in range(19))]
  )
  assert many.var() == pytest.approx(expected, rel=0.0125)
