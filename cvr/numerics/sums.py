"""Sums with one order, so that a run repeats to the last bit.

TensorFlow adds three tensors or more by AddN, which begins with the first one
whose buffer nobody else holds at that moment. Which one that is depends on what
ran before, and a floating-point sum depends on its order. Two tensors have one
sum. So nothing on the path of a gradient is used three times: the gradients of
all uses of a tensor are added up.
"""

import itertools

import tensorflow as tf


def joint(x):
  """x, of which all uses together count as one use of the argument."""
  return tf.identity(x)


def branches(x, count):
  """x, `count` times: one use of x. Their gradients are added two by two."""

  def endless(x):
    x = joint(x)
    while True:
      yield joint(x)
      x = joint(x)

  return itertools.islice(endless(x), count)


def total(tensors):
  """The sum of a list of tensors of one shape."""
  return tf.reduce_sum(tf.stack(tensors), 0)
