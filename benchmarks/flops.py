"""Floating point operations of convolutions and dense layers, from graphs.

A multiply-add counts as two; what is done per element (batch norm, ReLU, the
optimizer) is not counted, as in the tables of the literature.
"""

import tensorflow as tf

from cvr.methods import skeletons


def _of(op):
  """The operations of one node of a graph, 0 of what is not counted."""
  if op.type not in ('Conv2D', 'MatMul'):
    return 0
  out, kernel = op.outputs[0].shape, op.inputs[1].shape
  if op.type == 'Conv2D':
    per_output = kernel[0] * kernel[1] * kernel[2]
  else:
    per_output = kernel[1 if op.get_attr('transpose_b') else 0]
  return 2 * per_output * out.num_elements()


def forward(function, *specs):
  """The operations of one call of function with arguments like specs."""
  traced = tf.function(function, autograph=False)
  graph = traced.get_concrete_function(*specs).graph
  return sum(_of(op) for op in graph.get_operations())


def train_step(method, image_size):
  """The operations that a pair of views costs in a train step.

  The gradients of a layer, by its input and by its kernel, cost one forward
  each. A target network has none.
  """
  view = tf.TensorSpec([1, image_size, image_size, 3])
  step = tf.TensorSpec([], tf.int64)
  everything = forward(
    lambda a, b, step: method.encode([a, b], step), view, view, step
  )
  if not isinstance(method, skeletons.Teacher):
    return 3 * everything
  target = forward(lambda a: method.target(a, training=True), view)
  return 3 * everything - 2 * (2 * target)
