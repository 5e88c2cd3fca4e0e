"""Representations for TensorBoard's projector: points with their images."""

import math
import os

import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector

from cvr.checkpoints.files import plain, write_atomically

_FOLDER = 'projector'
_WIDEST = 8192  # Pixels of a sprite, which browsers take.


def _sprite(tiles):
  """uint8 [n, s, s, 3] -> a square of them, row by row, as PNG bytes."""
  side = math.ceil(math.sqrt(len(tiles)))
  size = tiles.shape[1]
  canvas = np.zeros([side * side, size, size, 3], np.uint8)
  canvas[: len(tiles)] = tiles
  rows = canvas.reshape(side, side, size, size, 3).swapaxes(1, 2)
  return tf.io.encode_png(rows.reshape(side * size, side * size, 3)).numpy()


def write(folder, representation, tiles, names, classes):
  """representation [n, D]; tiles uint8 [n, s, s, C]; names, classes: n texts.

  Writes below the folder of a run, and projector_config.pbtxt into it.
  """
  side = math.ceil(math.sqrt(len(tiles)))
  step = math.ceil(side * tiles.shape[1] / _WIDEST)
  tiles = tiles[:, ::step, ::step]
  if tiles.shape[-1] != 3:
    tiles = np.repeat(tiles[..., :1], 3, -1)
  below = os.path.join(folder, _FOLDER)
  tf.io.gfile.makedirs(below)
  rows = [
    f'{plain(c)}\t{plain(n)}' for c, n in zip(classes, names, strict=True)
  ]
  write_atomically(
    os.path.join(below, 'metadata.tsv'),
    '\n'.join(['class\timage', *rows]) + '\n',
  )
  with tf.io.gfile.GFile(os.path.join(below, 'sprite.png'), 'wb') as file:
    file.write(_sprite(tiles))
  with tf.io.gfile.GFile(os.path.join(below, 'vectors.bytes'), 'wb') as file:
    file.write(np.asarray(representation, '<f4').tobytes())
  config = projector.ProjectorConfig()
  embedding = config.embeddings.add()
  embedding.tensor_name = 'representation'
  embedding.tensor_path = f'{_FOLDER}/vectors.bytes'
  embedding.tensor_shape.extend(representation.shape)
  embedding.metadata_path = f'{_FOLDER}/metadata.tsv'
  embedding.sprite.image_path = f'{_FOLDER}/sprite.png'
  embedding.sprite.single_image_dim.extend(tiles.shape[1:3])
  projector.visualize_embeddings(folder, config)
