"""An image file's bytes -> pixels, and what replaces a damaged image."""

import contextlib

import numpy as np
import tensorflow as tf

from cvr.data.dataset_info import DataError

MAX_PIXELS = 64_000_000  # A larger image is refused as a decompression bomb.
SPARE_TRIES = 1000
DEPTHS = (10, 12, 14, 16)  # Bits of a channel that a 16-bit file may hold.
CONVERTED = (1, 3)  # Gray and RGB: images of other channels are made such.
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601.

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
  """The part of an image [H, W, C] that window(shape) chooses."""
  top, left, height, width = tf.unstack(window(tf.shape(image)))
  return tf.slice(image, [top, left, 0], [height, width, image.shape[-1]])


def _is_deep(data):
  """Whether a string tensor is a PNG of 16 bits a channel, by its header."""
  starts = tf.strings.substr(data, 0, 4) == b'\x89PNG'
  return starts & (tf.strings.substr(data, 24, 1) == b'\x10')


def _is_deep_bytes(data):
  """The same of Python's bytes."""
  return data.startswith(b'\x89PNG') and data[24:25] == b'\x10'


def _asked(channels):
  """What TensorFlow's decoders are asked for; 0: what the file has."""
  # Not for 1: the luminance of a PNG would depend on the gamma in its header,
  # and GIF, BMP and JPEGs in CMYK would fail.
  return 3 if channels == 3 else 0


def _fitted(image, channels):
  """What a decoder gave -> [H, W, channels]; an error where it has others."""

  def luminance():
    values = tf.cast(image[..., :3], tf.float32)
    gray = tf.tensordot(values, tf.constant(_LUMINANCE), 1)
    return tf.cast(gray + 0.5, image.dtype)[..., None]

  image.set_shape([None, None, None])
  if channels == 1:
    # Without the alpha that either may have.
    is_gray = tf.shape(image)[-1] < 3
    image = tf.cond(is_gray, lambda: image[..., :1], luminance)
  return tf.ensure_shape(image, [None, None, channels])


def _deep_png(data, channels):
  image = tf.io.decode_png(data, channels=_asked(channels), dtype=tf.uint16)
  return _fitted(image, channels)


# Arrays -----------------------------------------------------------------------

# What PNG cannot hold: this mark; height, width, channels and bits of a value
# as int32; the values. The lowest byte is the first.
_ARRAY = b'\0array\r\n'
_PNG_CHANNELS = 4


def encode(image):
  """uint8 or uint16 [H, W, channels] -> bytes that decode reads."""
  if image.shape[-1] <= _PNG_CHANNELS:
    return tf.io.encode_png(image, compression=0).numpy()
  header = np.array([*image.shape, 8 * image.itemsize], '<i4')
  values = image.astype(image.dtype.newbyteorder('<'))
  return _ARRAY + header.tobytes() + values.tobytes()


def _header_of_array(data):
  """int32 [4]; garbage, which fits no values, if the bytes are no array."""
  header = tf.io.decode_raw(tf.strings.substr(data, len(_ARRAY), 16), tf.int32)
  return tf.ensure_shape(header, [4])


def _values(data, dtype):
  """An array's bytes -> [H, W, C]; an error if these are not as many."""
  first = len(_ARRAY) + 16
  values = tf.io.decode_raw(tf.strings.substr(data, first, -1), dtype)
  return tf.reshape(values, _header_of_array(data)[:3])


def _decode_array(data, bits):
  """An array -> what decode gives of it."""

  def deep():
    image = _values(data, tf.uint16)
    if bits > 8:
      return _stretched(image, bits)
    # As of PNGs: the higher byte.
    return tf.cast(tf.cast(image, tf.int32) // 256, tf.uint8)

  def shallow():
    image = _values(data, tf.uint8)
    return _widened(image) if bits > 8 else image

  return tf.cond(_header_of_array(data)[3] == 16, deep, shallow)


# Depth ------------------------------------------------------------------------


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


def _full_depth(data, channels):
  """uint16 values as they are in a file of 16 bits; None of other files."""
  of_array = channels > _PNG_CHANNELS
  deep = _header_of_array(data)[3] == 16 if of_array else _is_deep_bytes(data)
  if not deep or _sides(data, channels).numpy().prod() > MAX_PIXELS:
    return None
  return _values(data, tf.uint16) if of_array else _deep_png(data, channels)


def depth_of(images, channels=3):
  """Bytes of images, an iterable -> (bits, largest value, number of 16-bit
  ones): the smallest of DEPTHS that these fit into; 8 if there are none.
  """
  largest, count = 0, 0
  for data in images:
    # What is damaged says nothing.
    with contextlib.suppress(tf.errors.OpError):
      values = _full_depth(data, channels)
      if values is not None:
        largest = max(largest, int(tf.reduce_max(values)))
        count += 1
  fitting = next(bits for bits in DEPTHS if largest < 2**bits)
  return (fitting if count else 8), largest, count


# Decoding ---------------------------------------------------------------------


def decode(data, window=None, bits=8, channels=3):
  """JPEG, PNG, GIF (its first frame), BMP, or what encode makes -> uint8
  [H, W, channels].

  window: shape -> (top, left, height, width) of the part to return. bits: above
  8, -> uint16, and white is 2^bits - 1 in PNGs of 16 bits. channels: 3, gray is
  repeated; 1, of colours the luminance; otherwise those of the file, and others
  are an error.
  """
  return decode_sized(data, window, bits, channels)[0]


def _sides(data, channels):
  if channels > _PNG_CHANNELS:
    return tf.cast(_header_of_array(data)[:2], tf.int64)
  return header_sides(data)


def decode_sized(data, window, bits, channels):
  """-> (what decode gives, the shorter side of the whole image)."""
  sides = _sides(data, channels)
  # tf.debugging.Assert has a branch, which takes as long as a small image.
  small = tf.raw_ops.Assert(
    condition=tf.reduce_prod(sides) <= MAX_PIXELS,
    data=['The image is too large'],
  )

  def decode_bytes():
    image = tf.io.decode_image(
      data, channels=_asked(channels), expand_animations=False
    )
    return _fitted(image, channels)

  def decode_all():
    if channels > _PNG_CHANNELS:
      return tf.ensure_shape(_decode_array(data, bits), [None, None, channels])
    if bits == 8:
      return decode_bytes()
    return tf.cond(
      _is_deep(data),
      lambda: _stretched(_deep_png(data, channels), bits),
      lambda: _widened(decode_bytes()),
    )

  def decode_window():
    box = window(tf.io.extract_jpeg_shape(data))
    image = tf.io.decode_and_crop_jpeg(data, box, channels=_asked(channels))
    image = _fitted(image, channels)
    return image if bits == 8 else _widened(image)

  with tf.control_dependencies([small]):
    if window and channels <= _PNG_CHANNELS:
      is_jpeg = tf.strings.substr(data, 0, 2) == b'\xff\xd8'
      image = tf.cond(is_jpeg, decode_window, lambda: cut(decode_all(), window))
    else:
      image = decode_all()
      image = cut(image, window) if window else image
  image.set_shape([None, None, channels])
  return image, tf.cast(tf.reduce_min(sides), tf.int32)


def header_of(data):
  """An encoded image's bytes -> (height, width, bits of a channel) by its
  header; an error where that is damaged. Of what encode makes of many channels,
  its own.
  """
  if data.startswith(_ARRAY):
    high, wide, _, bits = _header_of_array(data).numpy().tolist()
    return high, wide, bits
  if not data.startswith((b'\xff\xd8', b'\x89PNG', b'BM', b'GIF8')):
    raise ValueError('no image that is read here')
  sides = header_sides(data).numpy().tolist()
  # A JPEG has its height first, PNG, BMP and GIF their width.
  high, wide = sides if data.startswith(b'\xff\xd8') else sides[::-1]
  return high, wide, 16 if _is_deep_bytes(data) else 8


def channels_of(data):
  """How many channels an encoded image has; None where it is damaged."""
  with contextlib.suppress(tf.errors.OpError):
    if tf.strings.substr(data, 0, len(_ARRAY)) == _ARRAY:
      return int(_header_of_array(data)[2])
    if header_sides(data).numpy().prod() <= MAX_PIXELS:
      image = tf.io.decode_image(data, channels=0, expand_animations=False)
      return image.shape[-1]
  return None


def misfit(has, channels):
  """'' or why an image that has so many channels is not decoded to others."""
  if has == channels or (channels in CONVERTED and has <= _PNG_CHANNELS):
    return ''
  some = f'{has} channel{"s" if has > 1 else ""}'
  return (
    f'it has {some}, but --channels={channels}; to train on such images use '
    f'--channels={has}'
  )


def cannot(channels):
  """What is wrong with an image that is replaced or left out."""
  to = '' if channels in CONVERTED else f' to {channels} channels'
  return f'cannot be decoded{to}'


def find_spare(info, examples):
  """The first (bytes, label) of a split that can be decoded.

  It replaces the examples that cannot.
  """
  for data, label in examples.take(SPARE_TRIES):
    with contextlib.suppress(tf.errors.OpError):
      decode(data, **info.pixels)
      return data, label
  tried = min(SPARE_TRIES, info.num_examples)
  raise DataError(
    f'--dataset={info.name}: none of the first {tried} images of {info.split} '
    f'{cannot(info.channels).replace("cannot", "can")}. Supported: JPEG, PNG, '
    'GIF, BMP, and TIFF of 8 and 16 bits or floats from 0 to 1.'
  )


def decode_or_replace(data, label, spare, window=None, bits=8, channels=3):
  """-> (image, its shorter side, label, bad): of the spare if bad is 1."""
  tries = tf.data.Dataset.from_tensor_slices(
    (tf.stack([data, spare[0]]), tf.stack([label, spare[1]]), [0, 1])
  )
  tries = tries.map(
    lambda data, *rest: (*decode_sized(data, window, bits, channels), *rest)
  )
  # A graph can catch an error in no other way. Files are not read in here.
  return tries.ignore_errors().take(1).get_single_element()
