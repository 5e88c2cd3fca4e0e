"""An image file's bytes -> pixels, and what replaces a damaged image."""

import contextlib

import numpy as np
import tensorflow as tf

from cvr.data.dataset_info import DataError

MAX_PIXELS = 64_000_000  # A larger image is refused as a decompression bomb.
SPARE_TRIES = 1000

# Which bytes of a header hold the two sides, the lowest byte first, by the
# first byte of the file: PNG, BMP, and else GIF.
_SIDES = {0x89: ((19, 18, 17, 16), (23, 22, 21, 20)),
          0x42: ((18, 19, 20, 21), (22, 23, 24, 25)),
          0x47: ((6, 7), (8, 9))}  # fmt: skip


def _side_weights():
  """int64 [formats, 2, 26]: bytes . weights are the sides."""
  weights = np.zeros([len(_SIDES), 2, 26], np.int64)
  for k, sides in enumerate(_SIDES.values()):
    for side, places in enumerate(sides):
      weights[k, side, list(places)] = 256 ** np.arange(len(places))
  return weights


def header_sides(data):
  """Both sides by the header of a JPEG, PNG, BMP or GIF, in its order: [2]."""
  # With few operations, because every image passes here.
  head = tf.cast(tf.io.decode_raw(data, tf.uint8, fixed_length=26), tf.int64)

  def jpeg():
    return tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64)

  def others():
    first = tf.constant(list(_SIDES)[:2], tf.int64)
    kind = 2 - tf.reduce_sum(
      tf.cast(head[0] == first, tf.int64) * tf.constant([2, 1], tf.int64)
    )
    sides = tf.reduce_sum(tf.constant(_side_weights())[kind] * head, -1)
    # A BMP whose first row is the top one has a negative height.
    return tf.minimum(sides, 2**32 - sides)

  return tf.cond(head[0] == 0xFF, jpeg, others)


def cut(image, window):
  """The part of an image [H, W, 3] that window(shape) chooses."""
  top, left, height, width = tf.unstack(window(tf.shape(image)))
  return tf.slice(image, [top, left, 0], [height, width, 3])


def decode(data, window=None):
  """JPEG, PNG, GIF (its first frame) or BMP -> uint8 [H, W, 3].

  window: shape -> (top, left, height, width) of the part to return.
  """
  return decode_sized(data, window)[0]


def decode_sized(data, window=None):
  """-> (what decode gives, the shorter side of the whole image)."""
  sides = header_sides(data)
  # tf.debugging.Assert has a branch, which takes as long as a small image.
  small = tf.raw_ops.Assert(
    condition=tf.reduce_prod(sides) <= MAX_PIXELS,
    data=['The image is too large'],
  )

  def decode_all():
    return tf.io.decode_image(data, channels=3, expand_animations=False)

  def decode_window():
    box = window(tf.io.extract_jpeg_shape(data))
    return tf.io.decode_and_crop_jpeg(data, box, channels=3)

  with tf.control_dependencies([small]):
    if window:
      is_jpeg = tf.strings.substr(data, 0, 2) == b'\xff\xd8'
      image = tf.cond(is_jpeg, decode_window, lambda: cut(decode_all(), window))
    else:
      image = decode_all()
  image.set_shape([None, None, 3])
  return image, tf.cast(tf.reduce_min(sides), tf.int32)


_try_to_decode = tf.function(decode)


def find_spare(info, examples):
  """The first (bytes, label) of a split that can be decoded.

  It replaces the examples that cannot.
  """
  for data, label in examples.take(SPARE_TRIES):
    with contextlib.suppress(tf.errors.OpError):
      _try_to_decode(data)
      return data, label
  tried = min(SPARE_TRIES, info.num_examples)
  raise DataError(
    f'--dataset={info.name}: none of the first {tried} images of '
    f'{info.split} can be decoded. JPEG, PNG, GIF and BMP can.'
  )


def decode_or_replace(data, label, spare, window=None):
  """-> (image, its shorter side, label, bad): of the spare if bad is 1."""
  tries = tf.data.Dataset.from_tensor_slices(
    (tf.stack([data, spare[0]]), tf.stack([label, spare[1]]), [0, 1])
  )
  tries = tries.map(lambda data, *rest: (*decode_sized(data, window), *rest))
  # A graph can catch an error in no other way. Files are not read in here.
  return tries.ignore_errors().take(1).get_single_element()
