"""What a page shows of features: pure functions of arrays."""

import numpy as np

_WORST = 20  # Classes of a confusion matrix.


def pca(rows, count=2):
  """[n, D] -> coordinates [n, count], their shares of the variance [count].

  The largest coordinate of each is positive, so that a map has one way up.
  """
  centred = np.asarray(rows, np.float64) - np.mean(rows, 0, dtype=np.float64)
  left, values, _ = np.linalg.svd(centred, full_matrices=False)
  found = left[:, :count] * values[:count]
  found = np.pad(found, [[0, 0], [0, count - found.shape[1]]])
  largest = found[np.abs(found).argmax(0), np.arange(count)]
  shares = values**2 / max(np.sum(values**2), np.finfo(np.float64).tiny)
  shares = np.pad(shares, [0, count])[:count]
  return found * np.where(largest < 0, -1, 1), shares


def cosine_neighbours(rows, queries, k):
  """The k nearest of unit rows to some of them -> (cosines, rows), both [q, k].

  A row is not its own neighbour. In order of nearness, then of rows.
  """
  cosines = rows[queries] @ rows.T
  cosines[np.arange(len(queries)), queries] = -np.inf
  order = np.argsort(-cosines, axis=1, kind='stable')[:, :k]
  return np.take_along_axis(cosines, order, 1), order


def same_class_share(rows, labels):
  """Unit rows, labels -> whether the nearest of each row has its label: [n]."""
  _, near = cosine_neighbours(rows, np.arange(len(rows)), 1)
  return labels[near[:, 0]] == labels


def chosen_queries(labels, count):
  """Rows at equal distances in the order of their labels: int [count]."""
  order = np.argsort(labels, kind='stable')
  count = min(count, len(order))
  return order[(2 * np.arange(count) + 1) * len(order) // (2 * count)]


def confusion(labels, predicted, classes):
  """-> counts [classes, classes]: rows are labels, columns predictions."""
  cells = np.bincount(labels * classes + predicted, minlength=classes**2)
  return cells.reshape(classes, classes)


def most_confused(matrix, most=_WORST):
  """The classes to show of a confusion matrix, in their order."""
  if len(matrix) <= most:
    return np.arange(len(matrix))
  wrong = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
  return np.sort(np.argsort(-wrong, kind='stable')[:most])


def hardest(logits, labels, count):
  """Wrong predictions that are made with most confidence.

  -> (rows, predictions, their probabilities), at most `count`.
  """
  shifted = np.asarray(logits, np.float64)
  shifted = shifted - shifted.max(1, keepdims=True)
  shares = np.exp(shifted)
  shares /= shares.sum(1, keepdims=True)
  predicted = shares.argmax(1)
  sure = shares[np.arange(len(shares)), predicted]
  wrong = np.flatnonzero(predicted != labels)
  rows = wrong[np.argsort(-sure[wrong], kind='stable')][:count]
  return rows, predicted[rows], sure[rows]


def histogram(groups, bins=40, low=-1.0, high=1.0):
  """{name: values} -> ([(name, counts)], edges); values beyond are cut off."""
  edges = np.linspace(low, high, bins + 1)
  counted = [
    (name, np.histogram(np.clip(values, low, high), edges)[0].tolist())
    for name, values in groups.items()
  ]
  return counted, edges.tolist()


def as_rgb(images):
  """[..., C] -> [..., 3]: the first three channels, or the first in gray."""
  if images.shape[-1] == 3:
    return images
  few = images.shape[-1] < 3
  return np.repeat(images[..., :1], 3, -1) if few else images[..., :3]


def cells(images, columns, side):
  """uint8 [n, s, s, C] -> one picture of tiles [h, w, 3].

  A tile of a multiple of 8 pixels shares no block of a JPEG with another one;
  images repeat their border up to it.
  """
  images = as_rgb(np.asarray(images))
  lacks = max(0, side - images.shape[1])
  images = np.pad(images, [[0, 0], [0, lacks], [0, lacks], [0, 0]], 'edge')
  images = images[:, :side, :side]
  rows = -(-len(images) // columns)
  empty = np.full([rows * columns - len(images), side, side, 3], 255, np.uint8)
  images = np.concatenate([images, empty])
  grid = images.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
  return grid.reshape(rows * side, columns * side, 3)


def shrunk(images, most):
  """uint8 [n, s, s, C] -> the same with sides of at most `most`, by means."""
  factor = -(-images.shape[1] // most)
  if factor == 1:
    return images
  side = images.shape[1] // factor
  cut = images[:, : side * factor, : side * factor].astype(np.float32)
  shape = [len(images), side, factor, side, factor, images.shape[-1]]
  return (cut.reshape(shape).mean((2, 4)) + 0.5).astype(np.uint8)
