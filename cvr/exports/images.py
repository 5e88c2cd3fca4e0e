"""What an export takes for images: bytes, or floats in [0, 1]."""

import tensorflow as tf

# Rounding of whoever made the images; a pixel of a byte is 4e-3.
_ROUNDING = 1e-3
_RANGE = 'images must be in [0, 1] as floats, or bytes as uint8'


def checked(images):
  """Bytes as they are, floats as float32: refused where they leave [0, 1].

  By a ValueError; in a graph by an assertion with the same words, which XLA
  leaves out. The check reads the images once, which is nothing beside a
  convolution.
  """
  if images.dtype == tf.uint8:
    return images
  images = tf.cast(images, tf.float32)
  # Not of the largest value: a NaN has to fail, too.
  inside = tf.reduce_all((images > -_ROUNDING) & (images < 1 + _ROUNDING))
  if tf.executing_eagerly():
    if not inside:
      raise ValueError(_RANGE)
    return images
  check = tf.debugging.Assert(inside, [_RANGE])
  with tf.control_dependencies([check] if check is not None else []):
    return tf.identity(images)


def unit_range(images):
  """Checked images as float32 in [0, 1]."""
  images = checked(images)
  if images.dtype == tf.uint8:
    return tf.cast(images, tf.float32) / 255.0
  return images


def of_rank(images, channels, *ranks):
  """Whatever TensorFlow makes a tensor of -> uint8 or floats [..., H, W, C].

  channels: C. ranks: how many dimensions it may have.
  """
  images = tf.convert_to_tensor(images)
  kind = images.dtype == tf.uint8 or images.dtype.is_floating
  shape = images.shape
  if not kind or shape.rank not in ranks or shape[-1] not in (None, channels):
    known = shape.as_list() if shape.rank is not None else 'of unknown shape'
    size = f'height, width, {channels}'
    names = {3: f'[{size}]', 4: f'[n, {size}]'}
    wanted = ' or '.join(names[rank] for rank in ranks)
    raise ValueError(
      f'images must be {wanted}, uint8 or floats, not {images.dtype.name} '
      f'{known}'
    )
  return tf.ensure_shape(images, shape[:-1].concatenate(channels))
