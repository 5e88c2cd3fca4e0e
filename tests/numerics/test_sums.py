"""Sums in one order: the values, the gradients, and the graph of a gradient."""

import numpy as np
import tensorflow as tf

from cvr.numerics import sums
from tiny_methods import wide_sums


def _gradient_of_seven_uses(fork):
  """The gradient of x by seven uses, and how it is added up."""

  @tf.function(autograph=False)
  def gradient(x):
    with tf.GradientTape() as tape:
      tape.watch(x)
      uses = fork(x, 7)
      result = sum(tf.reduce_sum(k * tf.sin(u)) for k, u in enumerate(uses, 1))
    return tape.gradient(result, x)

  x = tf.constant(np.linspace(-1, 1, 5), tf.float64)
  found = gradient(x).numpy()
  np.testing.assert_allclose(found, 28 * np.cos(x), rtol=1e-14)
  return wide_sums(gradient.get_concrete_function(x).graph)


def test_a_gradient_through_branches_is_added_two_by_two():
  # What is to be avoided is what TensorFlow does by itself.
  assert _gradient_of_seven_uses(lambda x, n: [x] * n) == [7]
  assert _gradient_of_seven_uses(sums.branches) == []


def test_branches_are_one_use_of_their_argument():

  @tf.function(autograph=False)
  def gradient(x):
    with tf.GradientTape() as tape:
      tape.watch(x)
      a, b = sums.branches(x, 2)
      result = tf.reduce_sum(a * b + tf.exp(sums.joint(x)))
    return tape.gradient(result, x)

  x = tf.constant([0.5, -2.0], tf.float64)
  np.testing.assert_allclose(gradient(x), 2 * x + tf.exp(x), rtol=1e-14)
  assert wide_sums(gradient.get_concrete_function(x).graph) == []


def test_total():
  rows = [tf.constant([1.0, 2.0]), tf.constant([3.0, 5.0]), tf.zeros([2])]
  np.testing.assert_array_equal(sums.total(rows), [4.0, 7.0])
  assert float(sums.total([tf.constant(2.0)])) == 2.0
