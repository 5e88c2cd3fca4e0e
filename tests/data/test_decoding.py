"""Bytes of images: their headers, formats, and what replaces the damaged."""

import io

import numpy as np
import pytest
import tensorflow as tf

from cvr.data import decoding, reading
from cvr.data.sources import DataError, describe
from small_data import encoded, write

JPEG = encoded(9, tf.io.encode_jpeg, side=40)


def header(kind, height, width):
  """Bytes that announce an image of the given size and end there."""
  if kind == 'png':
    sides = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
    return b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + sides + b'\x08\x02\0\0\0'
  if kind == 'gif':
    return (
      b'GIF89a' + width.to_bytes(2, 'little') + height.to_bytes(2, 'little')
    )
  if kind == 'bmp':
    sides = width.to_bytes(4, 'little') + height.to_bytes(4, 'little')
    return b'BM' + b'\0' * 16 + sides
  frame = JPEG.index(b'\xff\xc0') + 5
  sides = height.to_bytes(2, 'big') + width.to_bytes(2, 'big')
  return JPEG[:frame] + sides + JPEG[frame + 4 :]


@pytest.mark.parametrize('kind', ['png', 'gif', 'bmp', 'jpeg'])
def test_bombs_are_refused_by_their_header(kind):
  size = (20_000, 30_001)
  sides = tf.function(decoding.header_sides)
  sides = sides(tf.constant(header(kind, *size))).numpy()
  assert sorted(sides) == sorted(size)
  with pytest.raises(tf.errors.InvalidArgumentError, match='too large'):
    tf.function(decoding.decode)(tf.constant(header(kind, *size)))


def test_header_of_real_images():
  from PIL import Image

  image = Image.fromarray(np.zeros([13, 21, 3], np.uint8))
  for kind in ('PNG', 'JPEG', 'BMP', 'GIF'):
    file = io.BytesIO()
    image.save(file, kind)
    data_of = tf.constant(file.getvalue())
    sides = tf.function(decoding.header_sides)(data_of).numpy()
    assert sorted(sides) == [13, 21]
    whole, side = tf.function(decoding.decode_sized)(data_of)
    assert whole.shape == [13, 21, 3] and int(side) == 13


def test_one_channel_becomes_three():
  gray = np.arange(48, dtype=np.uint8).reshape(6, 8, 1)
  out = decoding.decode(tf.io.encode_png(gray))
  np.testing.assert_array_equal(out, np.repeat(gray, 3, -1))


def test_first_example_may_be_the_bad_one(folder):
  info = describe(f'folder:{folder}')
  write(info.paths[0], b'<html><body>404 Not Found</body></html>')
  spare, label = decoding.find_spare(info, reading.in_order(info))
  assert spare == encoded(1) and label == 0
  for path in info.paths:
    write(path, b'not an image')
  with pytest.raises(DataError, match='none of the first 22 images'):
    decoding.find_spare(info, reading.in_order(info))


# Sixteen bits -----------------------------------------------------------------


def gradient(bits):
  """[8, 64] of values up to 2^bits - 1, which differ in their lowest bits."""
  top = 2**bits - 1
  return np.linspace(0, top, 512).round().astype(np.uint16).reshape(8, 64)


def by_pillow(image):
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG')
  return file.getvalue()


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_16_bits_are_kept_and_the_white_of_fewer_is_white(bits):
  image = gradient(bits)
  data = by_pillow(image)
  expected = image / (2**bits - 1)
  decode = tf.function(decoding.decode)
  out = decode(data, bits=bits)
  assert out.dtype == tf.uint16 and out.shape == [8, 64, 3]
  for channel in np.moveaxis(out.numpy(), -1, 0):
    np.testing.assert_allclose(channel / 65535, expected, atol=1 / 65535)
  part = decode(data, window=lambda shape: (1, 2, 3, 4), bits=bits)
  np.testing.assert_array_equal(part, out[1:4, 2:6])
  # What is brighter than white is white.
  bright = by_pillow(np.full([4, 4], 65535, np.uint16))
  assert (decode(bright, bits=bits).numpy() == 65535).all()
  # Of 8 bits a channel nothing is stretched.
  gray = np.arange(256, dtype=np.uint8).reshape(8, 32)
  wide = decode(by_pillow(gray), bits=bits).numpy()
  np.testing.assert_array_equal(wide[..., 0], 257 * gray.astype(int))
  flat = tf.io.encode_jpeg(np.full([8, 8, 3], 100, np.uint8))
  whole = decode(flat, bits=bits).numpy()
  part = decode(flat, window=lambda shape: (0, 0, 8, 8), bits=bits).numpy()
  assert abs(whole / 65535 - 100 / 255).max() < 0.005
  np.testing.assert_array_equal(whole, part)
  # As it was.
  assert decode(data).dtype == tf.uint8


def test_the_depth_of_files_is_seen_in_them():
  def depth(*images):
    return decoding.depth_of(map(by_pillow, images))

  gray = np.full([4, 4], 255, np.uint8)
  assert depth(gray, gray) == (8, 0, 0)
  assert decoding.depth_of([JPEG, b'', b'no image']) == (8, 0, 0)
  assert depth(gray, gradient(12)) == (12, 4095, 1)
  assert depth(gradient(10), gradient(14)) == (14, 16383, 2)
  assert depth(gradient(10) + 1) == (12, 1024, 1)
  assert depth(gradient(16)) == (16, 65535, 1)
