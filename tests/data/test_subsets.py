"""Subsets: counts against every possible choice, and what a split keeps."""

import itertools

import numpy as np
import pytest

from cvr.data import subsets

# Sizes 1, 4, 10 and 25; there are no images of class 2.
LABELS = np.random.default_rng(0).permutation(
  np.repeat([0, 1, 3, 4], [1, 4, 10, 25])
)


def counted(labels):
  return np.bincount(labels, minlength=5).tolist()


@pytest.mark.parametrize(
  ('share', 'wanted'),
  [
    (0.01, [1, 1, 0, 1, 1]),
    # A half is rounded to the even number.
    (0.1, [1, 1, 0, 1, 2]),
    (0.3, [1, 1, 0, 3, 8]),
    (1.0, [1, 4, 0, 10, 25]),
  ],
)
def test_a_share_of_every_class(share, wanted):
  taken = subsets.stratified(LABELS, share, 0)
  assert counted(LABELS[taken]) == wanted
  assert np.all(np.diff(taken) > 0)


def closest(sizes, total, low, high):
  """The least squared distance to proportions, over all counts there are."""
  quota = [total * size / sum(sizes) for size in sizes]
  ranges = [range(a, b + 1) for a, b in zip(low, high, strict=True)]
  return min(
    sum((k - q) ** 2 for k, q in zip(counts, quota, strict=True))
    for counts in itertools.product(*ranges)
    if sum(counts) == total
  )


@pytest.mark.parametrize('sizes', [(1, 4, 5), (3, 3, 3), (1, 1, 9, 2), (7, 2)])
def test_counts_are_the_closest_to_proportional(sizes):
  labels = np.repeat(np.arange(len(sizes)), sizes)
  n, classes = sum(sizes), len(sizes)

  def distance(which):
    counts = np.bincount(labels[which], minlength=classes)
    quota = len(which) * np.array(sizes) / n
    return np.sum((counts - quota) ** 2)

  for total in range(classes, n + 1):
    taken = subsets.stratified(labels, total, 0)
    assert len(taken) == total
    wanted = closest(sizes, total, [1] * classes, sizes)
    assert distance(taken) == pytest.approx(wanted, abs=1e-9)
  for total in range(n - classes + 1):
    held = subsets.held_out(labels, total, 0)[1]
    assert len(held) == total
    high = [size - 1 for size in sizes]
    wanted = closest(sizes, total, [0] * classes, high)
    assert distance(held) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize('count', [0, 1, 10, 36])
def test_a_split_loses_no_image_and_no_class(count):
  rest, held = subsets.held_out(LABELS, count, 0)
  assert len(held) == count
  assert sorted([*rest, *held]) == list(range(40))
  assert {*LABELS[rest]} == {0, 1, 3, 4}
  assert np.all(np.diff(rest) > 0) and np.all(np.diff(held) > 0)


def test_the_seed_alone_chooses():
  def chosen(seed):
    return (
      subsets.stratified(LABELS, 0.5, seed).tolist(),
      subsets.held_out(LABELS, 12, seed)[1].tolist(),
    )

  np.random.seed(1)
  first = chosen(0)
  np.random.seed(2)
  assert chosen(0) == first
  assert chosen(1)[0] != first[0] and chosen(1)[1] != first[1]


def test_a_class_does_not_depend_on_the_others():
  """Nor is the order of a file the order of what is taken from it."""
  alone = np.where(LABELS == 4, 4, 0)
  taken = [subsets.stratified(of, 0.2, 0) for of in (LABELS, alone)]
  of_class = [[i for i in which if LABELS[i] == 4] for which in taken]
  assert of_class[0] == of_class[1] and len(of_class[0]) == 5
  assert of_class[0] != np.flatnonzero(LABELS == 4)[:5].tolist()


def test_shares_of_one_seed_are_nested():
  small, large = (subsets.stratified(LABELS, s, 0) for s in (0.1, 0.4))
  assert {*small} < {*large}
  other = subsets.stratified(LABELS, 0.4, 1)
  assert not {*small} < {*other}


@pytest.mark.parametrize(
  'call',
  [
    lambda: subsets.stratified(LABELS, 0.0, 0),
    lambda: subsets.stratified(LABELS, 1.5, 0),
    lambda: subsets.stratified(LABELS, 3, 0),
    lambda: subsets.stratified(LABELS, 41, 0),
    lambda: subsets.held_out(LABELS, 37, 0),
    lambda: subsets.held_out(LABELS, -1, 0),
    # What cannot be decoded has the label -1, and is in no subset.
    lambda: subsets.stratified(np.append(LABELS, -1), 0.1, 0),
  ],
)
def test_what_cannot_be_taken(call):
  with pytest.raises(ValueError):
    call()
