"""Two networks side by side that are one encoder: CMC's.

Each sees some of the colours of an image. Their features are concatenated:
seen from outside it is one encoder of twice the width.
"""

import tensorflow as tf
import tf_keras as keras

import data_util

# CIE 1931 2 degrees, D65, as in IEC 61966-2-1.
_TO_XYZ = (
  (0.412453, 0.357580, 0.180423),
  (0.212671, 0.715160, 0.072169),
  (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
# The middle and half the width of what L, a and b take over sRGB.
_LAB_MIDDLE = (50.0, 6.025, -6.690)
_LAB_REACH = (50.0, 92.208, 101.168)


def _mix(images, matrix):
  return tf.tensordot(images, tf.constant(matrix), [[-1], [1]])


def rgb_to_lab(images):
  """[..., 3] sRGB in [0, 1] -> CIE L, a, b under D65."""
  above = tf.pow((tf.maximum(images, 0.04045) + 0.055) / 1.055, 2.4)
  linear = tf.where(images > 0.04045, above, images / 12.92)
  xyz = _mix(linear, _TO_XYZ) / tf.constant(_WHITE)
  root = tf.pow(tf.maximum(xyz, 0.008856), 1.0 / 3.0)
  f = tf.where(xyz > 0.008856, root, 7.787 * xyz + 16.0 / 116.0)
  x, y, z = tf.unstack(f, axis=-1)
  return tf.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], -1)


def rgb_to_ycbcr(images):
  """[..., 3] in [0, 1] -> Y in [0, 1], Cb and Cr in [-.5, .5] (BT.601)."""
  red, _, blue = tf.unstack(images, axis=-1)
  y = tf.reduce_sum(images * tf.constant((0.299, 0.587, 0.114)), -1)
  return tf.stack([y, (blue - y) / 1.772, (red - y) / 1.402], -1)


def _lab(images):
  middle, reach = tf.constant(_LAB_MIDDLE), tf.constant(_LAB_REACH)
  return (rgb_to_lab(images) - middle) / reach


def _ycbcr(images):
  return 2.0 * rgb_to_ycbcr(images) - tf.constant((1.0, 0.0, 0.0))


# Name -> what it takes of images [..., 3] in [0, 1]; all of it in [-1, 1].
PARTS = {
  'rgb': lambda images: 2.0 * images - 1.0,
  'lab_l': lambda images: _lab(images)[..., :1],
  'lab_ab': lambda images: _lab(images)[..., 1:],
  'ycbcr_y': lambda images: _ycbcr(images)[..., :1],
  'ycbcr_cbcr': lambda images: _ycbcr(images)[..., 1:],
}


class Pair(tf.Module):
  """A layer of both networks, as one layer with variables."""

  def __init__(self, layers):
    super().__init__()
    self.layers = list(layers)


class Towers(keras.layers.Layer):
  """Two ResNets, each on its part of an image.

  parts: a name of PARTS for each. mean_std: whether images come normalised.
  """

  def __init__(self, parts, towers, mean_std):
    # The colours are taken apart in float32 at any precision.
    super().__init__(dtype=tf.float32)
    self.parts = parts
    self.towers = towers
    self.mean_std = mean_std
    self.representation_dim = sum(t.representation_dim for t in towers)

  @property
  def stages(self):
    """The stem and four groups, of both."""
    both = zip(*(tower.stages for tower in self.towers), strict=True)
    return [Pair(layers) for layers in both]

  def _seen(self, images):
    """[(tower, what it sees)] of images for each."""
    if self.mean_std:
      images = [data_util.denormalize(x) for x in images]
    return [
      (tower, PARTS[part](data_util.clip(x)))
      for tower, part, x in zip(self.towers, self.parts, images, strict=True)
    ]

  def call(self, x, training=False, frozen=0, second=None):
    """[B, H, W, 3] -> [B, representation_dim] in float32.

    second: images for the second network alone; otherwise both see x.
    """
    inputs = self._seen([x, x if second is None else second])
    representations = [tower(part, training, frozen) for tower, part in inputs]
    return tf.concat(representations, -1)

  def endpoints(self, x, training=False):
    """What both meet on their way, their channels one behind the other."""
    both = [
      tower.endpoints(part, training) for tower, part in self._seen([x, x])
    ]
    return {name: tf.concat([f[name] for f in both], -1) for name in both[0]}


class TowerHeads(keras.layers.Layer):
  """A projector for each network, on its half of the representation."""

  def __init__(self, heads):
    super().__init__(dtype=tf.float32)
    self.heads = heads

  @property
  def layers_out(self):
    both = zip(*(head.layers_out for head in self.heads), strict=True)
    return [Pair(layers) for layers in both]

  def call(self, h, training=False):
    """[B, 2 D] -> [h, every layer's output], as an MLP."""
    halves = tf.split(h, 2, -1)
    outputs = [
      head(half, training=training)[1:]
      for head, half in zip(self.heads, halves, strict=True)
    ]
    return [h, *(tf.concat(both, -1) for both in zip(*outputs, strict=True))]
