"""--format=saved_model: trainable, and called as the published ones are."""

import os

import tensorflow as tf

_ANY_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, 'images')


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
  call = tf.function(model.network_of(model.state))
  module.__call__ = call
  for arguments in ({}, {'trainable': False}, {'trainable': True}):
    call.get_concrete_function(_ANY_IMAGES, **arguments)

  @tf.function(input_signature=[_ANY_IMAGES])
  def serve(images):
    return call(images, trainable=False)

  tf.saved_model.save(module, path, {'serving_default': serve})
  return path, tf.saved_model.load(path)
