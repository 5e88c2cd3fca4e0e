"""Linear heads on frozen features: the papers' SGD, logistic regression.

Fitting and choosing a head takes training data alone. Features are [n, D],
labels [n] ints from 0; facts are a dict that json can write.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cvr.data import subsets
from cvr.evaluation import statistics
from cvr.evaluation.heads import optimum
from cvr.training import progress

_CHUNK = 8192  # Rows at a time: logits of 1000 classes take 33 MB.
_MOMENTUM = 0.9
HELD_OUT = 10_009  # At most so many training images choose a setting.
_FEWEST_STEPS = 8  # In an epoch, whatever the protocol's batch.
# From strong to weak: each fit starts from the head of the one before.
L2_GRID = tuple(np.logspace(5, -6, 45).tolist())
_EXTRAPOLATED = 4  # Fits, to where the next one begins.
# Names the way a logistic regression is fitted: heads in stores are of one.
SOLVER = 'Newton, float64'


class Head(NamedTuple):
  """kernel [D, C], bias [C]; -inf for a class without training data."""

  kernel: np.ndarray
  bias: np.ndarray


class Protocol(NamedTuple):
  """Nesterov SGD, momentum 0.9, cosine decay, neither warm-up nor penalty."""

  learning_rates: tuple  # Of `batch` images; several are chosen from.
  batch: int
  epochs: int


PROTOCOLS = {
  # SimCLR, B.5 and B.6: 0.1 * batch / 256.
  'sgd_simclr': Protocol((1.6,), batch=4096, epochs=90),
  # BYOL, C.1.
  'sgd_byol': Protocol((0.4, 0.3, 0.2, 0.1, 0.05), batch=1024, epochs=80),
}


# Predictions -----------------------------------------------------------------


def _chunks(head, features):
  """Yields (rows, logits [rows, C]) of all features, in order."""
  for start in range(0, len(features), _CHUNK):
    rows = slice(start, start + _CHUNK)
    yield rows, features[rows] @ head.kernel + head.bias


def predict(head, features, mask=None):
  """[n, D] -> [n] ints: the likeliest class, the first of equals.

  mask: [C] bool, the classes to choose among; else all.
  """
  mask = np.ones(len(head.bias), bool) if mask is None else np.asarray(mask)
  allowed = np.flatnonzero(mask)
  # Others are cut, not set to -inf: allowed classes may all have -inf.
  among = Head(head.kernel[:, allowed], head.bias[allowed])
  classes = np.zeros(len(features), np.int64)
  for rows, logits in _chunks(among, features):
    classes[rows] = allowed[np.argmax(logits, 1)]
  return classes


def scores(predicted, labels):
  """[n], [n] -> float32 [n]: 1 where they agree."""
  return (np.asarray(predicted) == np.asarray(labels)).astype(np.float32)


# Metrics that choose a head: (scores [n], labels [n]) -> a number.
METRICS = {
  'top_1': lambda scores, labels: statistics.mean(scores),
  'mean_per_class': statistics.mean,
}


def _measured(metric, head, features, labels):
  return METRICS[metric](scores(predict(head, features), labels), labels)


def _checked(labels, num_classes):
  labels = np.asarray(labels, np.int64)
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f'labels from {labels.min()} to {labels.max()}, of {num_classes} classes'
    )
  return labels


# SGD -------------------------------------------------------------------------


def _make_step(dim, num_classes, heads):
  """-> (step, kernel [D, heads * C], bias [heads * C]): all heads at once.

  step: (features [b, D], labels [b], rates [heads]), one step of Nesterov's
  momentum. The rate multiplies the velocity and is not part of it.
  """
  kernel = tf.Variable(tf.zeros([dim, heads * num_classes]))
  bias = tf.Variable(tf.zeros([heads * num_classes]))
  weights = [kernel, bias]
  velocities = [tf.Variable(tf.zeros_like(w)) for w in weights]

  @tf.function(autograph=False)
  def step(features, labels, rates):
    batch = labels.shape[0]
    logits = tf.reshape(features @ kernel + bias, [batch, heads, num_classes])
    targets = tf.one_hot(labels, num_classes)[:, None]
    slopes = (tf.nn.softmax(logits) - targets) / batch
    slopes = tf.reshape(slopes, [batch, heads * num_classes])
    gradients = (
      tf.matmul(features, slopes, transpose_a=True),
      tf.reduce_sum(slopes, 0),
    )
    rates = tf.repeat(rates, num_classes)
    for w, v, gradient in zip(weights, velocities, gradients, strict=True):
      velocity = v.assign(_MOMENTUM * v + gradient)
      w.assign_sub(rates * (gradient + _MOMENTUM * velocity))

  return step, kernel, bias


def _fit(passes, labels, num_classes, batch, epochs, seed, rows, rates):
  """A Head for each of the rates [heads], from the given rows alone.

  An epoch is a permutation of the rows in full batches; the remainder is
  dropped, other images in each epoch. Epoch e uses passes[e], cyclically.
  """
  dim = passes[0].shape[1]
  step, kernel, bias = _make_step(dim, num_classes, len(rates))
  in_epoch = len(rows) // batch
  for epoch in progress.over(range(epochs), 'SGD', epochs, 'epochs'):
    features = passes[epoch % len(passes)]
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    for i in range(in_epoch):
      which = order[i * batch : (i + 1) * batch]
      done = (epoch * in_epoch + i) / (epochs * in_epoch)
      decay = (1 + math.cos(math.pi * done)) / 2
      step(
        tf.constant(features[which], tf.float32),
        tf.constant(labels[which]),
        tf.constant(decay * np.array(rates), tf.float32),
      )
  kernels = np.split(kernel.numpy(), len(rates), axis=1)
  biases = np.split(bias.numpy(), len(rates))
  return [Head(*both) for both in zip(kernels, biases, strict=True)]


def sgd_probe(protocol, passes, labels, num_classes, seed):
  """A protocol's head for training data -> (Head, facts).

  passes: [[n, D]], features of the same images in the same order, one for
  each draw of crops; labels [n]. Of several learning rates the best on held-out
  images (their first pass) is taken, the first of equals, and fitted again on
  all images. A batch that leaves fewer than 8 steps an epoch is reduced, and
  the learning rates with it.
  """
  labels = _checked(labels, num_classes)
  rates, n, accuracies, best = protocol.learning_rates, len(labels), [], 0
  most = min(HELD_OUT, n // 10, n - len(np.unique(labels)))
  rest, held = subsets.held_out(labels, most if len(rates) > 1 else 0, seed)
  batch = max(min(protocol.batch, len(rest) // _FEWEST_STEPS), 1)
  used = [rate * batch / protocol.batch for rate in rates]
  fit = functools.partial(
    _fit, passes, labels, num_classes, batch, protocol.epochs, seed
  )
  if len(held):
    rows = passes[0][held], labels[held]
    accuracies = [_measured('top_1', h, *rows) for h in fit(rest, used)]
    best = int(np.argmax(accuracies))
  (head,) = fit(np.arange(n), used[best : best + 1])
  if not np.isfinite(head.kernel).all():
    raise ValueError('the head is not finite: are all of the features?')
  return head, {
    'chosen': {'learning_rate': rates[best]},
    'grid': {'learning_rate': list(rates)},
    'grid_is_for_batch': protocol.batch,
    'learning_rate_used': used[best],
    'validation_metric': 'top_1',
    'validation_accuracy': accuracies,
    'held_out': len(held),
    'images': n,
    'batch': batch,
    'epochs': protocol.epochs,
    'steps': protocol.epochs * (n // batch),
    'passes': len(passes),
    'seed': seed,
  }


# Logistic regression ---------------------------------------------------------


def _single_class(classes, shape):
  """The Head where only one class occurs, and no iteration of a fit."""
  kernel, bias = np.zeros(shape), np.full(shape[1], -np.inf)
  bias[classes] = 0
  return Head(kernel, bias), {'iterations': 0, 'converged': True}


def _path(features, labels, num_classes):
  """Yields (l2, Head, fit) for L2_GRID, each from the fits before it."""
  classes = np.unique(labels)
  if len(classes) == 1:
    one = _single_class(classes, [features.shape[1], num_classes])
    yield from ((l2, *one) for l2 in L2_GRID)
    return
  problem = optimum.Problem(features, labels)
  earlier, last = [], problem.zero()
  with optimum.threads(len(classes)):
    for l2 in L2_GRID:
      starts = [last]
      if len(earlier) > 1:
        # The optimum is a smooth function of log l2.
        starts += [optimum.extrapolated(earlier, math.log(l2))]
      start = problem.better_start(l2, starts)
      last, fit = problem.solve(l2, start)
      earlier = [*earlier, (math.log(l2), last)][-_EXTRAPOLATED:]
      yield l2, Head(*problem.head_of(last, num_classes)), fit


def _solve(features, labels, l2, start):
  """The Head that minimises the sum of losses + l2 / 2 ||kernel||^2.

  start: a Head. -> (Head, {'iterations', 'converged'}).
  """
  classes = np.unique(labels)
  if len(classes) == 1:
    return _single_class(classes, start.kernel.shape)
  problem = optimum.Problem(features, labels)
  starts = [problem.weights_of(*start), problem.zero()]
  with optimum.threads(len(classes)):
    weights, fit = problem.solve(l2, problem.better_start(l2, starts))
  return Head(*problem.head_of(weights, len(start.bias))), fit


def logistic_path(train, validation, metric, num_classes, refit=True):
  """Multinomial logistic regression, l2 chosen on validation -> (Head, facts).

  train, validation: (features, labels); metric: one of METRICS. 45 values of
  l2, each fit starting from those before; the strongest of equally good
  ones. Then, with refit, a fit on both sets. Objective: sum of losses + l2 / 2
  ||kernel||^2, of features without scaling (SimCLR, B.8.1; BYOL, D.2). Heads
  are float64.
  """
  features = np.concatenate([train[0], validation[0]])
  labels = np.concatenate([train[1], validation[1]])
  labels = _checked(labels, num_classes)
  n = len(train[1])
  values, fits, best = [], [], None
  path = _path(features[:n], labels[:n], num_classes)
  # Weak penalties take much longer than strong ones.
  path = progress.over(path, 'Values of l2', len(L2_GRID), 'fits', even=False)
  for l2, head, fit in path:
    values.append(_measured(metric, head, features[n:], labels[n:]))
    fits.append(fit)
    if best is None or values[-1] > best[0]:
      best = values[-1], l2, head
  _, l2, head = best
  last = None
  if refit:
    head, last = _solve(features, labels, l2, head)
  return head, {
    'chosen': {'l2': l2},
    'grid': {'l2': list(L2_GRID)},
    'validation_metric': metric,
    'validation_accuracy': values,
    'held_out': len(labels) - n,
    'images': len(labels) if refit else n,
    'iterations': [fit['iterations'] for fit in fits],
    'not_converged': sum(not fit['converged'] for fit in fits),
    'refit': last,
    'solver': SOLVER,
    'tolerance': optimum.TOLERANCE,
    'max_iterations': optimum.MAX_ITERATIONS,
  }


def logistic(features, labels, l2, num_classes):
  """Multinomial logistic regression at one l2 -> Head."""
  labels = _checked(labels, num_classes)
  shape = (features.shape[1], num_classes)
  start = Head(*(np.zeros(s) for s in (shape, shape[1:])))
  return _solve(features, labels, l2, start)[0]
