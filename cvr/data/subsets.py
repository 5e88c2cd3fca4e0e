"""Stratified subsets of a data set: pure functions of labels and a seed."""

import numpy as np


def _apportioned(sizes, total, low, high):
  """-> int [classes] that sum to `total`, as proportional to sizes as possible.

  Least squares: close to total * sizes / sum(sizes), within low and high. A tie
  goes to the first class.
  """
  if not low.sum() <= total <= high.sum():
    raise ValueError(
      f'{total} images cannot be taken from {len(sizes)} classes of '
      f'{sizes.sum()}: between {low.sum()} and {high.sum()} can'
    )
  quota = total * sizes / sizes.sum()
  counts = np.clip(np.floor(quota).astype(int), low, high)
  while counts.sum() < total:
    counts[np.argmax(np.where(counts < high, quota - counts, -np.inf))] += 1
  while counts.sum() > total:
    counts[np.argmin(np.where(counts > low, quota - counts, np.inf))] -= 1
  return counts


def _first(labels, classes, counts, seed):
  """-> sorted indices of counts[i] random images of each class.

  Each class has its own random order and gives its first images, so that a
  smaller subset is part of a larger one.
  """
  taken = [
    np.random.default_rng([seed, c]).permutation(np.flatnonzero(labels == c))[
      :k
    ]
    for c, k in zip(classes, counts, strict=True)
  ]
  return np.sort(np.concatenate(taken))


def stratified(labels, share_or_count, seed):
  """Labels, int [n] >= 0 -> sorted indices of a subset with every class in it.

  share_or_count: a float is the share of each class, rounded; an int is the
    number of all images. With one seed, a smaller share is part of a larger.
  """
  classes, sizes = np.unique(labels, return_counts=True)
  if isinstance(share_or_count, float):
    if not 0 < share_or_count <= 1:
      raise ValueError(f'a share of {share_or_count} is not in (0, 1]')
    counts = np.maximum(np.rint(share_or_count * sizes).astype(int), 1)
  else:
    low = np.ones_like(sizes)
    counts = _apportioned(sizes, share_or_count, low, sizes)
  return _first(labels, classes, counts, seed)


def held_out(labels, count, seed):
  """Labels, int [n] >= 0 -> (rest, held): sorted indices that share none.

  held: `count` images in the proportions of labels. rest has an image of every
  class.
  """
  classes, sizes = np.unique(labels, return_counts=True)
  counts = _apportioned(sizes, count, np.zeros_like(sizes), sizes - 1)
  held = _first(labels, classes, counts, seed)
  return np.setdiff1d(np.arange(len(labels)), held), held
