"""What stands for the inverse of a logistic regression's Hessian.

Conjugate gradients need many products with the Hessian where its eigenvalues,
seen through their preconditioner, differ much. Features of networks have a few
long axes, along which most of that happens. So the Hessian is inverted for all
classes together along the longest axes, for each class by itself along the
next, and along the shortest its diagonal is. The weaker the penalty, the fewer
images the Hessian depends on: axes are those of the images as it weighs them.

It is good enough in float32: a direction follows from it, never a gradient.
"""

import numpy as np

_SIDE = 1536  # Of the largest matrix that is inverted, and of as many entries.
_CHUNK = 4096  # Images at a time.
# Of a diagonal. The first is what float32 may have made of an entry.
_JITTERS = (1e-6, 1e-4, 1e-2, 1.0)
_CHANGE = 0.2  # Of images' weights, at which a Curvature is of no use.
_SMALLEST = 1e-20  # Of p: products of smaller ones are denormal, and slow.


def single(p):
  """Softmax [n, C] -> the same in float32, without what makes no difference."""
  return np.where(p < _SMALLEST, 0, p).astype(np.float32)


def _turned(matrices):
  return np.swapaxes(matrices, -1, -2)


def root(matrices):
  """[..., n, n] positive definite -> lower L: L.T @ L is the inverse.

  By halves: products are several times faster than LAPACK's Cholesky.
  """
  half = matrices.shape[-1] // 2
  if half < 32:
    return np.linalg.inv(np.linalg.cholesky(matrices))
  first, last = slice(half), slice(half, None)
  top = root(matrices[..., first, first])
  left = matrices[..., last, first] @ _turned(top)
  bottom = root(matrices[..., last, last] - left @ _turned(left))
  whole = np.zeros_like(matrices)
  whole[..., first, first], whole[..., last, last] = top, bottom
  whole[..., last, first] = -bottom @ (left @ top)
  return whole


def _inverse_roots(blocks, penalty):
  """Blocks [..., n, n] of the losses' Hessian, penalty [n] -> float32 roots."""
  blocks, at = blocks.astype(np.float64), np.arange(blocks.shape[-1])
  diagonal = blocks[..., at, at]
  for jitter in _JITTERS:
    blocks[..., at, at] = (1 + jitter) * diagonal + penalty
    try:
      return root(blocks).astype(np.float32)
    except np.linalg.LinAlgError:
      if jitter == _JITTERS[-1]:
        raise


def of_all_classes(rows, p):
  """rows [n, r], p [n, C] float32 -> the losses' Hessian [C, r, C, r].

  Classes c and d share -rows.T @ diag(p_c p_d) @ rows, and a class has with
  itself what the others take off: 1 - p of a p near 1 is never asked for.
  """
  (n, r), classes = rows.shape, p.shape[1]
  shared = np.zeros(2 * [classes * r])
  for start in range(0, n, _CHUNK):
    part = slice(start, start + _CHUNK)
    spread = p[part, :, None] * rows[part, None]
    spread = spread.reshape(len(spread), -1)
    shared += spread.T @ spread
  shared = shared.reshape(classes, r, classes, r)
  each = np.arange(classes)
  shared[each, :, each] = 0
  own = shared.sum(2)
  shared *= -1
  shared[each, :, each] = own.reshape(classes, r, r)
  return shared


def of_each_class(rows, spread):
  """rows [n, r], spread = p (1 - p) [n, C] float32 -> [C, r, r]."""
  blocks = np.empty([spread.shape[1], *2 * [rows.shape[1]]], np.float32)
  for block, weights in zip(blocks, np.sqrt(spread).T, strict=True):
    part = rows * weights[:, None]
    block[:] = part.T @ part
  return blocks


class Curvature:
  """The Hessian of rows [n, d + 1] at p [n, C], penalty [d + 1, 1].

  The last of rows is the bias' constant. `rows`: float32, on its own axes
  [d + 1, d + 1], along which nearly_inverse takes weights.
  """

  def __init__(self, rows, p, penalty):
    self.spread = 1 - np.sum(p * p, 1)  # Of the images, as it weighs them.
    self.rows, self.axes = rows, None
    classes, exact = p.shape[1], _SIDE // p.shape[1]
    spread = single(p * (1 - p))
    curved = np.square(rows).T @ spread
    count = np.sum(curved.mean(1) > penalty[:, 0])
    if count > exact:
      self._turn(penalty)
      curved = np.square(self.rows).T @ spread
    self.diagonal = curved + penalty.astype(np.float32)
    self.diagonal = np.maximum(self.diagonal, np.finfo(np.float32).tiny)
    at = len(penalty) - min(count, exact)
    self.all = slice(at, None)
    width = min(count, exact + int(_SIDE / classes**0.5))
    self.each = slice(len(penalty) - width, at)
    self._invert(single(p), spread, penalty[:, 0])

  def _turn(self, penalty):
    """Onto the principal axes of the images as they are weighed."""
    weights = np.sqrt(self.spread).astype(np.float32)
    weighed = self.rows[:, :-1] * weights[:, None]
    gram = (weighed.T @ weighed).astype(np.float64)
    self.axes = np.eye(len(penalty))
    self.axes[:-1, :-1] = np.linalg.eigh(gram)[1]
    self.rows = self.rows @ self.axes.astype(np.float32)

  def _invert(self, p, spread, penalty):
    classes = p.shape[1]
    block = of_all_classes(self.rows[:, self.all], p)
    # Moves that all classes have in common are in no gradient.
    each = np.arange(block.shape[1])
    common = self.diagonal[self.all].mean(1) / classes
    block[:, each, :, each] += common[:, None, None]
    block = block.reshape(2 * [classes * len(each)])
    own = np.tile(penalty[self.all], classes)
    self.of_all = _inverse_roots(block, own)
    blocks = of_each_class(self.rows[:, self.each], spread)
    self.of_each = _inverse_roots(blocks, penalty[self.each])

  def nearly_inverse(self, gradient):
    """[d + 1, C] along the axes -> the same, float32."""
    step = gradient / self.diagonal
    leading = self.of_all @ gradient[self.all].T.ravel()
    leading = self.of_all.T @ leading
    step[self.all] = leading.reshape(gradient.shape[1], -1).T
    following = self.of_each @ gradient[self.each].T[:, :, None]
    step[self.each] = (_turned(self.of_each) @ following)[:, :, 0].T
    return step

  def size(self, gradient):
    """How far the objective is above its least, as a square root of twice."""
    length = np.linalg.norm(gradient)
    unit = self.along(gradient / length).astype(np.float32)
    return length * np.sum(unit * self.nearly_inverse(unit)) ** 0.5

  def along(self, weights):
    """Weights [d + 1, C] -> along the axes."""
    return weights if self.axes is None else self.axes.T @ weights

  def back(self, weights):
    return weights if self.axes is None else self.axes @ weights

  def is_of(self, p):
    """Whether p [n, C] weighs images much as those that it was made of."""
    change = np.sum(np.abs(1 - np.sum(p * p, 1) - self.spread))
    return change < _CHANGE * np.sum(self.spread)
