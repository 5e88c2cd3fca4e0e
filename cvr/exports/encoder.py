"""A trained encoder as a Python object: images -> representations."""

import os

import tensorflow as tf
import tf_keras as keras

import data_util
from cvr.checkpoints.files import CheckpointError
from cvr.configs.settings import ConfigError
from cvr.exports.images import checked, of_rank, unit_range
from cvr.training import loading


class EncoderLayer(keras.layers.Layer):
  """The encoder as a layer of a model of one's own."""

  def __init__(self, network, mean_std, channels):
    # At any precision: half of it would round images to fewer than 256 levels.
    super().__init__(dtype=tf.float32)
    self.network = network
    self.mean_std = mean_std
    self.channels = channels

  def represent(self, images, training):
    """Images in [0, 1] -> [n, representation_dim], float32."""
    images = data_util.normalize(images) if self.mean_std else images
    # As in Keras' own layers, frozen statistics do not move.
    return self.network(images, training=training and self.trainable)

  def call(self, images, training=False):
    images = of_rank(images, self.channels, 4)
    return self.represent(unit_range(images), training)


class Encoder:
  """What load_encoder gives.

  layer: the same as a Keras layer. representation_dim: the width of features.
  class_names: those of the run, () where it had none or none are stored.
  """

  def __init__(self, backbone):
    self.layer = EncoderLayer(
      backbone.network, backbone.mean_std, backbone.channels
    )
    self.representation_dim = backbone.network.representation_dim
    self.class_names = backbone.class_names
    self._size, self._crop = backbone.image_size, backbone.crop

  @property
  def trainable_variables(self):
    return self.layer.trainable_variables

  def __call__(self, images, training=False):
    """uint8, or floats in [0, 1], [n, H, W, C] -> [n, representation_dim].

    training: batch norm takes the batch's statistics, and moves its averages.
    """
    images = of_rank(images, self.layer.channels, 4)
    return self.layer.represent(unit_range(images), training)

  def preprocess(self, images):
    """What the evaluation shows of images: the centre, resized, in [0, 1].

    [H, W, C] or [n, H, W, C] of any size, uint8 or floats in [0, 1].
    """
    images = checked(of_rank(images, self.layer.channels, 3, 4))
    return data_util.eval_image(images, self._size, self._crop)


def load_encoder(path):
  """The encoder of a trained model -> Encoder.

  path: a run's model_dir, a checkpoint's prefix, or a released checkpoint: its
  folder, its prefix or its checkpoint.tar.gz.
  """
  try:
    return Encoder(loading.load_backbone(os.fspath(path)))
  except (CheckpointError, ConfigError) as error:
    # Said for whoever types flags.
    message = str(error).removeprefix('--checkpoint=')
    raise type(error)(message) from None
