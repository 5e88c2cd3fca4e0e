"""--format=saved_model: trainable, and called as the published ones are."""

import os

import tensorflow as tf

from cvr.exports.images import unit_range

_DTYPES = (tf.float32, tf.uint8)


def _any_images(dtype, channels):
  return tf.TensorSpec([None, None, None, channels], dtype, 'images')


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
    return network(unit_range(images), trainable)

  module.__call__ = call
  for dtype in _DTYPES:
    for arguments in ({}, {'trainable': False}, {'trainable': True}):
      images = _any_images(dtype, model.channels)
      call.get_concrete_function(images, **arguments)

  def server(dtype):
    @tf.function(input_signature=[_any_images(dtype, model.channels)])
    def serve(images):
      return call(images, trainable=False)

    return serve

  signatures = {
    'serving_default': server(tf.float32),
    'serving_uint8': server(tf.uint8),
  }
  tf.saved_model.save(module, path, signatures)
  return path, tf.saved_model.load(path)
