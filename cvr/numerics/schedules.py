"""Schedules: closures step -> value, built from ints and floats.

They take a Python int or an integer tensor and return a float32 tensor, so that
one closure serves the compiled step, the progress line and the tests.
"""

import math

import tensorflow as tf


def _progress(step, steps):
  """The share of `steps` that is done, clipped to [0, 1]."""
  step = tf.cast(step, tf.float32)
  return tf.clip_by_value(step / max(steps, 1), 0.0, 1.0)


def linear(start, end, steps):
  """Linear from start to end in `steps`, then constant."""

  def value(step):
    line = start + (end - start) * _progress(step, steps)
    return tf.where(tf.cast(step, tf.float32) < steps, line, end)

  return value


def cosine(start, end, steps):
  """A half cosine from start to end in `steps`, then constant."""

  def value(step):
    turn = math.pi * _progress(step, steps)
    return end + (start - end) * 0.5 * (1.0 + tf.cos(turn))

  return value


def exponential(start, end, steps):
  """By a constant factor per step from start to end, both above 0."""

  def value(step):
    return start * tf.pow(end / start, _progress(step, steps))

  return value


def warmup_cosine(
  peak, warmup_steps, total_steps, constant=False, start=0.0, end=0.0
):
  """Linear from start to peak, then a half cosine to end (or constant)."""
  before = linear(start, peak, warmup_steps)
  after = cosine(peak, peak if constant else end, total_steps - warmup_steps)

  def learning_rate(step):
    step = tf.cast(step, tf.float32)
    late = step - warmup_steps
    return tf.where(late < 0, before(step), after(late))

  return learning_rate


def ema_ramp(base, total_steps, constant=False):
  """The EMA coefficient: from base up to 1 by a cosine (BYOL, eq. 4).

  constant: it stays at base (MoCo, eq. 2).
  """
  return cosine(base, base if constant else 1.0, total_steps)


def beta_schedule(kind, beta, warmup_steps, total_steps):
  """The weight of compression: constant, linear over warm-up, or cosine up."""

  def constant(step):
    # A tensor of the graph: a Python number would change the last bits.
    del step
    return tf.constant(beta, tf.float32)

  return {
    'constant': constant,
    'linear_warmup': linear(0.0, beta, warmup_steps),
    'cosine': cosine(0.0, beta, total_steps),
  }[kind]
