"""--format=saved_model: trainable, and called as the published ones are."""

import os

import tensorflow as tf

_DTYPES = (tf.float32, tf.uint8)
# Rounding of whoever made the images; a pixel of a byte is 4e-3.
_ROUNDING = 1e-3


def _any_images(dtype):
  return tf.TensorSpec([None, None, None, 3], dtype, 'images')


def _unit_range(images):
  """Bytes -> float32 in [0, 1]; floats that are not fail where they are used.

  The check reads the images once, which is nothing beside a convolution. XLA
  leaves it out.
  """
  if images.dtype == tf.uint8:
    return tf.cast(images, tf.float32) / 255.0
  # Not of the largest value: a NaN has to fail, too.
  inside = (images > -_ROUNDING) & (images < 1 + _ROUNDING)
  message = 'images must be RGB in [0, 1] as float32, or bytes as uint8'
  check = tf.debugging.Assert(tf.reduce_all(inside), [message])
  with tf.control_dependencies([check] if check is not None else []):
    return tf.identity(images)


def write(folder, model):
  """-> (path, the network read back from it)."""
  path = os.path.join(folder, 'saved_model')
  method, probe = model.state.method, model.state.probe
  layers = [method.encoder, method.projector, *([probe] if probe else [])]
  layers += [method.latent] if hasattr(method, 'latent') else []
  module = tf.train.Checkpoint()
  # Bare variables: our layers would bring Keras' way of saving along.
  module.variables = [v for layer in layers for v in layer.variables]
  module.trainable_variables = [
    v for layer in layers for v in layer.trainable_variables
  ]
  module.regularization_losses = []
  network = model.network_of(model.state)

  @tf.function
  def call(images, trainable=False):
    return network(_unit_range(images), trainable)

  module.__call__ = call
  for dtype in _DTYPES:
    for arguments in ({}, {'trainable': False}, {'trainable': True}):
      call.get_concrete_function(_any_images(dtype), **arguments)

  def server(dtype):
    @tf.function(input_signature=[_any_images(dtype)])
    def serve(images):
      return call(images, trainable=False)

    return serve

  signatures = {
    'serving_default': server(tf.float32),
    'serving_uint8': server(tf.uint8),
  }
  tf.saved_model.save(module, path, signatures)
  return path, tf.saved_model.load(path)
