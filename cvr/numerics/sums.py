"""Sums with one order, so that a run repeats to the last bit.

TensorFlow adds three tensors or more by AddN, which begins with the first one
whose buffer nobody else holds at that moment. Which one that is depends on what
ran before, and a floating-point sum depends on its order. The sum of two has
one order. So nothing on the path of a gradient is used three times: the
gradients of all uses of a tensor are added up.
"""

import itertools

import tensorflow as tf


def joint(x):
  """x. However often the result is used, that is one use of x."""
  return tf.identity(x)


def branches(x, count):
  """x, `count` times; together one use of x. Gradients are added in pairs."""

  def endless(x):
    x = joint(x)
    while True:
      yield joint(x)
      x = joint(x)

  return itertools.islice(endless(x), count)


def total(tensors):
  """The sum of a list of tensors of one shape."""
  return tf.reduce_sum(tf.stack(tensors), 0)
