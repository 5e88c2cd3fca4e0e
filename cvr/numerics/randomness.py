"""Stateless random numbers that are equal with and without XLA.

Of philox only the integer bits agree between TensorFlow's own kernels and
XLA's, not the floats and normals made from them; those are computed here.
"""

import math

import tensorflow as tf


def uniform(shape, seed, low=0.0, high=1.0):
  """U[low, high) of 24 bits; shape static, seed [2] integers."""
  bits = tf.random.stateless_uniform(
    shape, seed, None, None, tf.int32, alg='philox'
  )
  bits = tf.bitwise.bitwise_and(bits, 2**24 - 1)
  return tf.cast(bits, tf.float32) * (2.0**-24 * (high - low)) + low


def normal(shape, seed):
  """Standard normals by Box and Muller, truncated at 5.9."""
  count = math.prod(shape)
  u, v = tf.unstack(uniform([2, -(-count // 2)], seed))
  # Half a step up: log 0 is infinite.
  radius = tf.sqrt(-2.0 * tf.math.log(u + 2.0**-25))
  angle = 2.0 * math.pi * v
  pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], 0)
  return tf.reshape(pairs[:count], shape)


def split_seed(seed, num):
  """A seed [2] -> num independent seeds."""
  return tf.unstack(
    tf.random.experimental.stateless_split(seed, num, alg='philox'), num
  )


def fold_in(seed, number):
  """A seed [2] and a number -> a seed derived from both."""
  return tf.random.experimental.stateless_fold_in(seed, number, alg='philox')
