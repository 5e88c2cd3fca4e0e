"""The optimum of a multinomial logistic regression, by Newton's method.

Objective: sum of cross-entropies + l2 / 2 ||kernel||^2; biases are free. The
penalty makes it l2-strongly convex in the kernel: s^2 / 2 above its least, the
kernel is within s / sqrt(l2) of the optimum's. Fits end where that is a
millionth of the kernel's own norm. (s^2 is gradient by the Hessian's inverse by
gradient, as far as curvature.py knows that inverse.)

Features are centred, which changes biases alone, and rotated onto their
principal axes, which changes neither losses nor penalty: fewer numbers where
there are fewer images than dimensions. Newton steps are solved for by conjugate
gradients, preconditioned by curvature.py. Gradients are float64; products with
the Hessian, which only give a direction, float32.
"""

import contextlib

import numpy as np

from cvr.evaluation.heads import curvature

TOLERANCE = 1e-6  # The kernel's error over its norm.
# Of it: the inverse of the Hessian is known by its preconditioner alone.
_SAFE = 0.3
MAX_ITERATIONS = 100  # Newton steps.
_MAX_PRODUCTS = 500  # With the Hessian, in one Newton step.
# The gradient is a sum of terms, each with a rounding error of about this.
_ROUNDING = 1e-15
_FORCING = (1e-4, 0.3)  # The bounds of what conjugate gradients leave over.
_NARROW = 200  # Classes: see threads.


def threads(classes):
  """A context in which products with [n, classes] are fast.

  For a narrow matrix OpenBLAS on two threads is up to six times slower than on
  one. Without the library, which comes with scikit-learn, it is only slower.
  """
  try:
    from threadpoolctl import threadpool_limits
  except ImportError:
    return contextlib.nullcontext()
  return threadpool_limits(1 if classes <= _NARROW else None, 'blas')


def _softmax(logits):
  p = np.exp(logits - logits.max(1, keepdims=True))
  return p / p.sum(1, keepdims=True)


def _product(rows, p, penalty):
  """p [n, C] float32 -> a function: weights [d + 1, C] times the Hessian."""
  top = p.argmax(1)[:, None]

  def product(weights):
    moves = rows @ weights
    # Relative to the likeliest class: p (1 - p) of a p that float32 rounds to 1
    # would be lost.
    moves -= np.take_along_axis(moves, top, 1)
    moves *= p
    moves -= p * moves.sum(1, keepdims=True)
    return rows.T @ moves + penalty * weights

  return product


def _conjugate_gradients(product, gradient, nearly_inverse, forcing):
  """-> the step [d + 1, C] that solves H step = -gradient, float32."""
  step, rest = np.zeros_like(gradient), -gradient
  scaled = nearly_inverse(rest)
  along, size = scaled.copy(), np.sum(rest * scaled)
  wanted = forcing**2 * size
  for _ in range(_MAX_PRODUCTS):
    curved = product(along)
    curvature = np.sum(along * curved)
    if not curvature > 0:
      break
    step += size / curvature * along
    rest -= size / curvature * curved
    scaled = nearly_inverse(rest)
    before, size = size, np.sum(rest * scaled)
    if size <= wanted:
      break
    along = scaled + size / before * along
  return step


class Problem:
  """Features [n, D] and labels [n] of at least two classes, to be fitted to.

  Weights [d + 1, C] are those of the rotated features, the bias last; C counts
  the classes that occur.
  """

  def __init__(self, features, labels):
    self.classes, self.labels = np.unique(labels, return_inverse=True)
    rows = np.asarray(features, np.float64)
    self.mean = rows.mean(0)
    rows = rows - self.mean
    basis = None
    if len(rows) < rows.shape[1]:
      # Exact: the optimal kernel is a combination of the images' features.
      basis, corner = np.linalg.qr(rows.T)
      rows = corner.T
    spectrum, axes = np.linalg.eigh(rows.T @ rows)
    self.basis = axes if basis is None else basis @ axes
    self.spectrum = np.maximum(spectrum, 0)
    n = len(rows)
    # Of the bias' constant feature, so that its gradient is of the same size.
    self.scale = np.sqrt(self.spectrum.sum() / n) or 1.0
    self.rows = np.concatenate([rows @ axes, np.full([n, 1], self.scale)], 1)
    self.single = self.rows.astype(np.float32)
    self.lengths = np.linalg.norm(self.rows, axis=1)

  def weights_of(self, kernel, bias):
    """kernel [D, C], bias [C] of all classes -> weights."""
    kernel, bias = kernel[:, self.classes], bias[self.classes]
    bias = np.where(np.isfinite(bias), bias, 0) + self.mean @ kernel
    # What all classes have in common changes nothing.
    kernel, bias = (x - x.mean(-1, keepdims=True) for x in (kernel, bias))
    return np.vstack([self.basis.T @ kernel, bias[None] / self.scale])

  def head_of(self, weights, num_classes):
    """-> kernel [D, C], bias [C] of all classes; -inf where none occurs."""
    kernel = np.zeros([len(self.mean), num_classes])
    bias = np.full(num_classes, -np.inf)
    kernel[:, self.classes] = self.basis @ weights[:-1]
    shift = self.mean @ kernel[:, self.classes]
    bias[self.classes] = weights[-1] * self.scale - shift
    return kernel, bias

  def zero(self):
    """Kernel 0, and the biases that are best with it."""
    weights = np.zeros([self.rows.shape[1], len(self.classes)])
    logs = np.log(np.bincount(self.labels) / len(self.labels))
    weights[-1] = (logs - logs.mean()) / self.scale
    return weights

  def _errors(self, logits):
    """-> softmax, softmax - one-hot: [n, C]."""
    p = _softmax(logits)
    errors = p.copy()
    errors[np.arange(len(p)), self.labels] -= 1
    return p, errors

  def _penalty(self, l2):
    penalty = np.full([self.rows.shape[1], 1], float(l2))
    penalty[-1] = 0
    return penalty

  def gradient(self, weights, l2, errors):
    return self.rows.T @ errors + self._penalty(l2) * weights

  def _step(self, gradient, p, l2, curved, forcing):
    """A Newton step, float64. curved: a Curvature."""
    size = np.linalg.norm(gradient)
    unit, penalty = (
      part.astype(np.float32)
      for part in (curved.along(gradient / size), self._penalty(l2))
    )
    product = _product(curved.rows, curvature.single(p), penalty)
    step = _conjugate_gradients(product, unit, curved.nearly_inverse, forcing)
    return size * curved.back(step.astype(np.float64))

  def _share(self, weights, step, l2, logits, moves, slope):
    """How much of a step to take: all, or less where it would climb again.

    The objective is convex along it: the zero of its slope is bracketed.
    """
    penalty = self._penalty(l2)

    def slope_at(share):
      errors = self._errors(logits + share * moves)[1]
      penalised = penalty * (weights + share * step)
      return np.sum(errors * moves) + np.sum(penalised * step)

    share = 1.0
    for _ in range(30):
      there = slope_at(share)
      if there <= 0.5 * abs(slope):
        break
      share *= np.clip(-slope / (there - slope), 0.1, 0.9)
    return share

  def _rounding(self, errors):
    """What may be rounding alone of a gradient's norm."""
    return _ROUNDING * np.sum(self.lengths * np.linalg.norm(errors, axis=1))

  def solve(self, l2, start):
    """weights to start from -> the optimum's, {'iterations', 'converged'}."""
    weights, before, curved = start, None, None
    logits = self.rows @ weights
    for iteration in range(MAX_ITERATIONS + 1):
      p, errors = self._errors(logits)
      gradient = self.gradient(weights, l2, errors)
      done = np.linalg.norm(gradient) <= self._rounding(errors)
      if not done:
        if curved is None or not curved.is_of(p):
          curved, before = self._curvature(p, l2), None
        size = curved.size(gradient)
        enough = l2**0.5 * np.linalg.norm(weights[:-1]) * _SAFE * TOLERANCE
        done = size <= enough
      if done or iteration == MAX_ITERATIONS:
        break
      # Eisenstat and Walker: the closer, the more exact.
      forcing = 0.1 if before is None else 0.5 * (size / before) ** 1.5
      forcing = np.clip(max(forcing, 0.3 * enough / size), *_FORCING)
      step, before = self._step(gradient, p, l2, curved, forcing), size
      moves = self.rows @ step
      slope = np.sum(gradient * step)
      share = self._share(weights, step, l2, logits, moves, slope)
      weights, logits = weights + share * step, logits + share * moves
    return weights, {'iterations': iteration, 'converged': bool(done)}

  def _curvature(self, p, l2):
    return curvature.Curvature(self.single, p, self._penalty(l2))

  def objective(self, weights, l2):
    logits = self.rows @ weights
    top = logits.max(1)
    losses = top + np.log(np.sum(np.exp(logits - top[:, None]), 1))
    losses -= logits[np.arange(len(losses)), self.labels]
    return np.sum(losses) + l2 / 2 * np.sum(weights[:-1] ** 2)

  def better_start(self, l2, starts):
    """Of several weights those with the least objective."""
    return min(starts, key=lambda weights: self.objective(weights, l2))


def extrapolated(earlier, at):
  """[(x, weights)] -> the polynomial through them at another x."""
  xs = np.array([x for x, _ in earlier])
  total = 0.0
  for i, (x, weights) in enumerate(earlier):
    others = np.delete(xs, i)
    total = total + np.prod((at - others) / (x - others)) * weights
  return total
