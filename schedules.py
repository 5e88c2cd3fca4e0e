"""Schedules: closures step -> value, built from ints and floats.

They take a Python int or an integer tensor and answer with a float32 tensor,
so that one closure serves the compiled step, the progress line and the tests.
"""

import math

import tensorflow as tf


def _progress(step, steps):
  """The share of `steps` that is done, clipped to [0, 1]."""
  step = tf.cast(step, tf.float32)
  return tf.clip_by_value(step / max(steps, 1), 0.0, 1.0)


def cosine(start, end, steps):
  """In a half cosine from start to end, which it has from `steps` on."""

  def value(step):
    turn = math.pi * _progress(step, steps)
    return end + (start - end) * 0.5 * (1.0 + tf.cos(turn))

  return value


def warmup_cosine(
  peak, warmup_steps, total_steps, constant=False, start=0.0, end=0.0
):
  """Linear from start to peak, then a half cosine to end (or constant)."""
  decay = cosine(peak, peak if constant else end, total_steps - warmup_steps)

  def learning_rate(step):
    warmup = start + (peak - start) * _progress(step, warmup_steps)
    after = tf.cast(step, tf.float32) - warmup_steps
    return tf.where(after < 0, warmup, decay(after))

  return learning_rate


def ema_ramp(base, total_steps):
  """The EMA coefficient: from base up to 1 by a cosine (BYOL, eq. 4)."""

  def coefficient(step):
    turn = math.pi * _progress(step, total_steps)
    return 1.0 - (1.0 - base) * 0.5 * (1.0 + tf.cos(turn))

  return coefficient


def beta_schedule(kind, beta, warmup_steps, total_steps):
  """The weight of compression: constant, linear over warm-up, or cosine up."""

  def constant(step):
    del step
    return tf.constant(beta, tf.float32)

  def linear_warmup(step):
    return beta * _progress(step, warmup_steps)

  def cosine(step):
    turn = math.pi * _progress(step, total_steps)
    return beta * 0.5 * (1.0 - tf.cos(turn))

  return {
    'constant': constant,
    'linear_warmup': linear_warmup,
    'cosine': cosine,
  }[kind]
