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


def test_all_bytes_of_a_side_count():
  sides = (0x01020304, 0x05060708)
  for kind in ('png', 'bmp'):
    found = decoding.header_sides(tf.constant(header(kind, *sides))).numpy()
    assert sorted(found) == sorted(sides)


def test_of_a_jpeg_only_the_window_is_decoded(monkeypatch):
  boxes = []
  whole = tf.io.decode_and_crop_jpeg

  def crop(data, box, **options):
    boxes.append(box)
    return whole(data, box, **options)

  monkeypatch.setattr(tf.io, 'decode_and_crop_jpeg', crop)
  part = decoding.decode(JPEG, window=lambda shape: (1, 2, 3, 4))
  assert boxes == [(1, 2, 3, 4)]
  np.testing.assert_array_equal(part, decoding.decode(JPEG)[1:4, 2:6])
  decoding.decode(encoded(9), window=lambda shape: (1, 2, 3, 4))
  assert len(boxes) == 1


def test_header_of_real_images():
  from PIL import Image

  image = Image.fromarray(np.zeros([13, 21, 3], np.uint8))
  for kind in ('PNG', 'JPEG', 'BMP', 'GIF'):
    file = io.BytesIO()
    image.save(file, kind)
    data_of = tf.constant(file.getvalue())
    sides = tf.function(decoding.header_sides)(data_of).numpy()
    assert sorted(sides) == [13, 21]
    whole, side = tf.function(decoding.decode_sized)(data_of, None, 8, 3)
    assert whole.shape == [13, 21, 3] and int(side) == 13


@pytest.mark.parametrize('dtype, bits', [(np.uint8, 8), (np.uint16, 16)])
def test_a_header_tells_sides_and_depth(dtype, bits):
  data = tf.io.encode_png(np.zeros([13, 21, 3], dtype)).numpy()
  assert decoding.header_of(data) == (13, 21, bits)


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


# Channels ---------------------------------------------------------------------


def saved(image, kind, **settings):
  file = io.BytesIO()
  image.save(file, kind, **settings)
  return file.getvalue()


def noise(channels, dtype=np.uint8, height=6, width=8):
  top = np.iinfo(dtype).max
  values = np.random.default_rng(channels).integers(
    0, top, [height, width, channels], endpoint=True
  )
  return values.astype(dtype)


def one_channel(data, **settings):
  """What decoding to one channel gives, traced; a window is that part."""
  decode = tf.function(decoding.decode)
  out = decode(data, channels=1, **settings)
  assert out.shape[-1] == 1
  part = decode(data, lambda shape: (1, 2, 3, 4), channels=1, **settings)
  np.testing.assert_array_equal(part, out[1:4, 2:6])
  return out.numpy()[..., 0].astype(int)


@pytest.mark.parametrize('kind', ['png', 'png with gamma', 'bmp', 'gif'])
def test_one_channel_is_the_luminance_of_colours(kind):
  from PIL import Image, PngImagePlugin

  image, settings = Image.fromarray(noise(3)), {}
  if kind == 'gif':
    image = image.quantize(8)
  if kind == 'png with gamma':
    # By which libpng would compute a luminance in linear light.
    settings['pnginfo'] = PngImagePlugin.PngInfo()
    settings['pnginfo'].add(b'gAMA', (45455).to_bytes(4, 'big'))
  expected = np.array(image.convert('RGB').convert('L')).astype(int)
  out = one_channel(saved(image, kind.split()[0].upper(), **settings))
  assert np.abs(out - expected).max() <= 1


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_one_channel_of_jpegs(mode):
  from PIL import Image

  ramp = np.linspace([10, 200, 30], [220, 40, 90], 48).reshape(6, 8, 3)
  image = Image.fromarray(ramp.round().astype(np.uint8))
  out = one_channel(saved(image.convert(mode), 'JPEG', quality=95))
  assert np.abs(out - np.array(image.convert('L'))).max() <= 8


def test_one_channel_is_gray_as_it_is_without_alpha():
  from PIL import Image

  gray = noise(1)[..., 0]
  np.testing.assert_array_equal(one_channel(by_pillow(gray)), gray)
  with_alpha = Image.fromarray(noise(2), 'LA')
  out = one_channel(saved(with_alpha, 'PNG'))
  np.testing.assert_array_equal(out, noise(2)[..., 0])
  four = noise(4)
  expected = Image.fromarray(four[..., :3].copy()).convert('L')
  out = one_channel(by_pillow(four))
  assert np.abs(out - np.array(expected).astype(int)).max() <= 1
  deep = noise(3, np.uint16)
  out = one_channel(tf.io.encode_png(deep).numpy(), bits=16)
  np.testing.assert_allclose(out, deep @ [0.299, 0.587, 0.114], atol=0.6)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [2, 4, 5, 16])
def test_as_many_channels_as_the_file_has(channels, dtype):
  image = noise(channels, dtype)
  data = decoding.encode(image)
  decode = tf.function(decoding.decode)
  shallow = (image if dtype == np.uint8 else image // 256).astype(np.uint8)
  deep = image if dtype == np.uint16 else image.astype(np.uint16) * 257
  for bits, expected in ((8, shallow), (16, deep)):
    settings = {'bits': bits, 'channels': channels}
    out = decode(data, **settings)
    assert out.dtype == expected.dtype
    np.testing.assert_array_equal(out, expected)
    part = decode(data, lambda shape: (1, 2, 3, 4), **settings)
    np.testing.assert_array_equal(part, expected[1:4, 2:6])
  _, side = decoding.decode_sized(data, None, 8, channels)
  assert int(side) == 6 and decoding.channels_of(data) == channels
  count = int(dtype == np.uint16)
  assert decoding.depth_of([data, data[:-1]], channels) == (
    (16, image.max(), count) if count else (8, 0, 0)
  )
  dark = decoding.encode((image // 32).astype(dtype))
  bits = decoding.depth_of([dark], channels)[0]
  assert bits == (12 if count else 8)
  if count:
    out = decode(dark, bits=12, channels=channels) / 65535
    np.testing.assert_allclose(out, image // 32 / 4095, atol=1 / 65535)


@pytest.mark.parametrize('channels', [2, 4, 5])
def test_other_channels_are_an_error(channels):
  decode = tf.function(decoding.decode)
  window = lambda shape: (1, 2, 3, 4)  # noqa: E731
  others = [by_pillow(noise(3)), by_pillow(noise(1)[..., 0]), JPEG, b'', b'x']
  others += [decoding.encode(noise(6)), decoding.encode(noise(5))[:-1]]
  for data in others:
    for part in (None, window):
      for bits in (8, 16):
        with pytest.raises(tf.errors.InvalidArgumentError):
          decode(tf.constant(data), part, bits, channels)
  assert [decoding.channels_of(tf.constant(data)) for data in others[:6]] == [
    3, 1, 3, None, None, 6
  ]  # fmt: skip
  assert decoding.misfit(channels, channels) == ''
  assert f'it has 3 channels, but --channels={channels}' in decoding.misfit(
    3, channels
  )


def test_gray_and_colours_are_made_of_up_to_four():
  for channels in (1, 3):
    assert not any(decoding.misfit(has, channels) for has in (1, 2, 3, 4))
    assert '--channels=5' in decoding.misfit(5, channels)


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


def test_the_depth_of_what_is_refused_says_nothing(monkeypatch):
  monkeypatch.setattr(decoding, 'MAX_PIXELS', 8 * 64 - 1)
  assert decoding.depth_of([by_pillow(gradient(12))]) == (8, 0, 0)
