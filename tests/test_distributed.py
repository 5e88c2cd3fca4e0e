"""What replicas say to each other, over two logical CPUs."""

import numpy as np
import tensorflow as tf

import distributed


def per_replica(strategy, values):
  """A distributed value holding values[r] on replica r."""
  return strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(values[context.replica_id_in_sync_group])
  )


def test_gather_and_rows_are_inverse(two_replicas):
  rows = np.arange(12, dtype=np.float32).reshape(2, 2, 3)

  @tf.function
  def run(x):
    def step(part):
      whole = distributed.all_gather(part)
      return whole, distributed.local_rows(whole)

    return two_replicas.run(step, args=(x,))

  whole, back = run(per_replica(two_replicas, rows))
  for r, (w, b) in enumerate(zip(whole.values, back.values, strict=True)):
    np.testing.assert_array_equal(w, rows.reshape(4, 3))
    np.testing.assert_array_equal(b, rows[r])


def test_gradients_cross_the_replicas(two_replicas):
  """Each replica's part of sum_r w_r . gather(x): d/dx_r needs every w."""
  x = np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32)
  w = np.array([[[1.0, 5.0], [2.0, 6.0]], [[3.0, 7.0], [4.0, 8.0]]], np.float32)

  @tf.function
  def run(x, w):
    def step(x, w):
      with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(w * distributed.all_gather(x))
      return tape.gradient(loss, x)

    return two_replicas.run(step, args=(x, w))

  gradients = run(per_replica(two_replicas, x), per_replica(two_replicas, w))
  for r, gradient in enumerate(gradients.values):
    np.testing.assert_array_equal(gradient, w.sum(0)[r : r + 1])


def test_one_replica_has_nothing_to_say():
  x = tf.constant([[1.0, 2.0]])
  assert distributed.num_replicas() == 1
  assert distributed.replica_id() == 0
  for function in (
    distributed.all_gather,
    distributed.local_rows,
    distributed.cross_replica_sum,
  ):
    np.testing.assert_array_equal(function(x), x)
