"""Steps that are skipped, because their loss or gradient is not finite."""

import tensorflow as tf

from cvr.numerics import replicas
from cvr.training.loop import Diverged

_SHOWN = 8  # Examples in a message.


def changed_by_forward_pass(method):
  """The moving statistics, which move before a loss is known."""
  layers = [m for m in method.submodules if hasattr(m, 'moving_mean')]
  return [v for m in layers for v in (m.moving_mean, m.moving_variance)]


def changed_by_update(state):
  """All other variables of a state that a skipped step has to leave alone.

  Not the count of steps, nor a loss scale, which has to shrink.
  """
  method, probe, optimizer = state
  inner = getattr(optimizer, 'inner_optimizer', optimizer)
  others = {v.ref() for v in changed_by_forward_pass(method)}
  others.add(inner.iterations.ref())
  variables = [*method.variables, *(probe.variables if probe else ())]
  return [v for v in (*variables, *inner.variables()) if v.ref() not in others]


def is_good(loss, norm, scaled):
  """Whether loss and gradient norm are finite on every replica -> [] bool.

  scaled: the optimizer of a loss scale looks at the gradient itself, and needs
  to see one that overflows.
  """
  bad = tf.cast(~tf.math.is_finite(loss), tf.float32)
  good = replicas.cross_replica_sum(bad) == 0
  return good if scaled else good & tf.math.is_finite(norm)


class Skips:
  """What is remembered of skipped steps. Part of no checkpoint.

  rows: a replica's examples of a step.
  """

  def __init__(self, rows, limit, say=print):
    self.limit, self.say = limit, say
    self._in_a_row = replicas.mirrored(tf.zeros([], tf.int64), 'bad_steps')
    self._step = replicas.mirrored(tf.zeros([], tf.int64), 'bad_step')
    # Every replica has examples of its own.
    self._index = tf.Variable(
      tf.zeros([rows], tf.int64),
      trainable=False,
      synchronization=tf.VariableSynchronization.ON_READ,
      aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )

  def note(self, good, step, index):
    """Inside of a step: whether it was good, and its examples [rows]."""
    self._in_a_row.assign(
      tf.where(good, tf.constant(0, tf.int64), self._in_a_row + 1)
    )
    self._step.assign(tf.where(good, self._step, step))
    if index is not None:  # Benchmarks have none.
      index = tf.cast(index, tf.int64)
      self._index.assign(tf.where(good, self._index, index))

  def look(self, strategy, count):
    """Tells of `count` skipped steps since the last look.

    Raises Diverged where too many followed each other.
    """
    in_a_row, step = int(self._in_a_row), int(self._step)
    parts = strategy.experimental_local_results(self._index)
    index = sorted(int(i) for part in parts for i in part.numpy())
    shown = ', '.join(map(str, index[:_SHOWN])) + ', ...' * (
      len(index) > _SHOWN
    )
    steps = f'step {step} was' if count == 1 else f'{count} steps were'
    last = '' if count == 1 else f'last {step}, '
    self.say(
      f'Warning: {steps} skipped: the loss or its gradient was not finite '
      f'({last}examples {shown}).'
    )
    if in_a_row >= self.limit:
      # The next attempt counts anew.
      self._in_a_row.assign(0)
      raise Diverged(
        f'{in_a_row} steps in a row were not finite, up to step {step}'
      )
