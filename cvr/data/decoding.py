"""An image file's bytes -> pixels, and what replaces a damaged image."""

import contextlib

import numpy as np
import tensorflow as tf

from cvr.data.dataset_info import DataError

MAX_PIXELS = 64_000_000  # A larger image is refused as a decompression bomb.
SPARE_TRIES = 1000
DEPTHS = (10, 12, 14, 16)  # Bits of a channel that a 16-bit file may hold.

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


def _is_deep(data):
  """Whether the bytes are a PNG of 16 bits a channel, by its header."""
  starts = tf.strings.substr(data, 0, 4) == b'\x89PNG'
  return starts & (tf.strings.substr(data, 24, 1) == b'\x10')


def _deep_png(data):
  return tf.io.decode_png(data, channels=3, dtype=tf.uint16)


def _widened(image):
  """uint8 -> uint16: 255 becomes 65535."""
  return tf.cast(image, tf.uint16) * 257


def _stretched(image, bits):
  """uint16 with values of `bits` bits -> the same over all 16, rounded."""
  if bits == 16:
    return image  # And int32 would overflow.
  white = 2**bits - 1
  values = tf.minimum(tf.cast(image, tf.int32), white)
  return tf.cast((values * 65535 + white // 2) // white, tf.uint16)


def depth_of(images):
  """Encoded images, an iterable -> (bits, largest value, number of 16-bit
  PNGs): the smallest of DEPTHS that these fit into; 8 if there are none.
  """
  largest, count = 0, 0
  for data in images:
    # What is damaged says nothing.
    with contextlib.suppress(tf.errors.OpError):
      if header_sides(data).numpy().prod() <= MAX_PIXELS and _is_deep(data):
        largest = max(largest, int(tf.reduce_max(_deep_png(data))))
        count += 1
  fitting = next(bits for bits in DEPTHS if largest < 2**bits)
  return (fitting if count else 8), largest, count


def decode(data, window=None, bits=8):
  """JPEG, PNG, GIF (its first frame) or BMP -> uint8 [H, W, 3].

  window: shape -> (top, left, height, width) of the part to return. bits: above
  8, -> uint16, and white is 2^bits - 1 in PNGs of 16 bits.
  """
  return decode_sized(data, window, bits)[0]


def decode_sized(data, window=None, bits=8):
  """-> (what decode gives, the shorter side of the whole image)."""
  sides = header_sides(data)
  # tf.debugging.Assert has a branch, which takes as long as a small image.
  small = tf.raw_ops.Assert(
    condition=tf.reduce_prod(sides) <= MAX_PIXELS,
    data=['The image is too large'],
  )

  def decode_bytes():
    return tf.io.decode_image(data, channels=3, expand_animations=False)

  def decode_all():
    if bits == 8:
      return decode_bytes()
    return tf.cond(
      _is_deep(data),
      lambda: _stretched(_deep_png(data), bits),
      lambda: _widened(decode_bytes()),
    )

  def decode_window():
    box = window(tf.io.extract_jpeg_shape(data))
    image = tf.io.decode_and_crop_jpeg(data, box, channels=3)
    return image if bits == 8 else _widened(image)

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
      _try_to_decode(data, bits=info.bits)
      return data, label
  tried = min(SPARE_TRIES, info.num_examples)
  raise DataError(
    f'--dataset={info.name}: none of the first {tried} images of '
    f'{info.split} can be decoded. JPEG, PNG, GIF and BMP can, '
    'and TIFF of 8 and 16 bits or floats from 0 to 1.'
  )


def decode_or_replace(data, label, spare, window=None, bits=8):
  """-> (image, its shorter side, label, bad): of the spare if bad is 1."""
  tries = tf.data.Dataset.from_tensor_slices(
    (tf.stack([data, spare[0]]), tf.stack([label, spare[1]]), [0, 1])
  )
  tries = tries.map(
    lambda data, *rest: (*decode_sized(data, window, bits), *rest)
  )
  # A graph can catch an error in no other way. Files are not read in here.
  return tries.ignore_errors().take(1).get_single_element()
