"""Folders of TIFF files, written by Pillow and by tifffile."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from cvr.data import batches, tiff
from cvr.data.batches import HostBatch
from cvr.data.sources import DataError, describe
from small_data import encoded, write

tifffile = pytest.importorskip('tifffile')
DEEP = np.linspace(0, 4095, 6 * 8).round().astype(np.uint16).reshape(6, 8)
PAGES = np.stack([DEEP, 0 * DEEP])


def rows_of(info):
  """{index: image in 0..1, float64 [H, W, C]} and the bad ones."""
  shape = [6, 8, info.channels]
  keep = lambda image, index: tf.ensure_shape(image, shape)  # noqa: E731
  rows, bad = {}, []
  dataset = batches.eval_batches(info, keep, HostBatch(4, 4))
  for batch in dataset.as_numpy_iterator():
    (images,) = batch['views']
    top = np.iinfo(images.dtype).max
    for i, image, b in zip(batch['index'], images, batch['bad'], strict=True):
      if i >= 0 and not b:
        rows[int(i)] = image / top
      bad += [int(i)] * int(b)
  return rows, bad


def colours(dtype, top, channels=3):
  rng = np.random.default_rng(0)
  return (rng.random([6, 8, channels]) * top).astype(dtype)


# Name -> (what is written, with which settings; what it shows in 0..1).
KINDS = {
  'gray of 12 bits': (DEEP, {}, DEEP / 4095),
  'the first of two pages': (PAGES, {'photometric': 'minisblack'}, DEEP / 4095),
  'colours of 16 bits': (
    colours(np.uint16, 65535), {'photometric': 'rgb'},
    colours(np.uint16, 65535) / 65535,
  ),
  'planes of 16 bits': (
    np.moveaxis(colours(np.uint16, 65535), -1, 0),
    {'photometric': 'rgb', 'planarconfig': 'separate'},
    colours(np.uint16, 65535) / 65535,
  ),
  'colours of 8 bits': (
    colours(np.uint8, 255), {'photometric': 'rgb'}, colours(np.uint8, 255) / 255
  ),
  'dark floats': (DEEP.astype(np.float32) / 65535, {}, DEEP / 65535),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_written_is_read(tmp_path, kind):
  image, settings, expected = KINDS[kind]
  for i in range(3):
    tifffile.imwrite(f'{tmp_path}/{i}.tif', image, **settings)
  write(f'{tmp_path}/3.TIFF', b'II*\0 no image')
  info = describe(f'folder:{tmp_path}')
  bits, line = batches.depth_of(info)
  wanted = {'12': 12, '16': 16, 'pages': 12, '8': 8, 'floats': 16}
  assert [wanted[word] for word in kind.split() if word in wanted] == [bits]
  assert bool(line) == (bits > 8)
  white = {8: '', 12: '4,095 is white', 16: '1.0 is white'}
  if kind == 'colours of 16 bits' or kind == 'planes of 16 bits':
    white[16] = '65,535 is white'
  assert line.endswith(white[bits])
  info = describe(f'folder:{tmp_path}', bits=bits)
  rows, bad = rows_of(info)
  assert bad == [3] and sorted(rows) == [0, 1, 2]
  if expected.ndim == 2:
    expected = np.repeat(expected[..., None], 3, -1)
  for row in rows.values():
    np.testing.assert_allclose(row, expected, atol=1 / 65535)


FIVE = colours(np.uint16, 65535, 5)
PLANES = np.ascontiguousarray(np.moveaxis(FIVE, -1, 0))
# Name -> (what is written, with which settings; what it shows in 0..1).
MANY = {
  'pixels': (FIVE, {'planarconfig': 'contig'}, FIVE / 65535),
  'planes': (PLANES, {'planarconfig': 'separate'}, FIVE / 65535),
  'pages': (PLANES, {}, FIVE / 65535),
  'colours and two more': (
    colours(np.uint8, 255, 5), {'photometric': 'rgb'},
    colours(np.uint8, 255, 5) / 255,
  ),
  'colours and alpha': (
    colours(np.uint8, 255, 4), {'photometric': 'rgb'},
    colours(np.uint8, 255, 4) / 255,
  ),
  'floats': (
    colours(np.float32, 1, 16), {'planarconfig': 'contig'},
    colours(np.float32, 1, 16),
  ),
}  # fmt: skip


@pytest.mark.parametrize('kind', MANY)
def test_as_many_channels_as_the_file_has(tmp_path, kind):
  image, settings, expected = MANY[kind]
  settings = {'photometric': 'minisblack'} | settings
  for i in range(3):
    tifffile.imwrite(f'{tmp_path}/{i}.tif', image, **settings)
  # Other channels, later than the first file, are damaged images.
  tifffile.imwrite(f'{tmp_path}/3.tif', colours(np.uint8, 255))
  channels = expected.shape[-1]
  info = describe(f'folder:{tmp_path}', channels=channels)
  bits, line = batches.depth_of(info)
  deep = image.dtype != np.uint8
  assert (bits, bool(line)) == ((16, True) if deep else (8, False))
  info = describe(f'folder:{tmp_path}', bits=bits, channels=channels)
  rows, bad = rows_of(info)
  assert bad == [3] and sorted(rows) == [0, 1, 2]
  for row in rows.values():
    np.testing.assert_allclose(row, expected, atol=1 / 65535)


def test_colours_as_one_channel(tmp_path):
  image = colours(np.uint8, 255)
  for i in range(4):
    tifffile.imwrite(f'{tmp_path}/{i}.tif', image, photometric='rgb')
  rows, bad = rows_of(describe(f'folder:{tmp_path}', channels=1))
  assert not bad
  expected = image @ [0.299, 0.587, 0.114] / 255
  for row in rows.values():
    np.testing.assert_allclose(row[..., 0], expected, atol=1 / 255)


def test_files_of_pillow(tmp_path):
  from PIL import Image

  for i in range(4):
    Image.fromarray(DEEP).save(f'{tmp_path}/{i}.tif')
  rows, _ = rows_of(describe(f'folder:{tmp_path}', bits=12))
  for row in rows.values():
    np.testing.assert_allclose(row[..., 1], DEEP / 4095, atol=1 / 65535)


def test_training_has_them_too(tmp_path):
  for i in range(4):
    tifffile.imwrite(f'{tmp_path}/{i}.tif', np.full([6, 8], 100 + i, np.uint16))
  info = describe(f'folder:{tmp_path}', bits=12)

  def augment(image, seed):
    del seed
    return {'views': (tf.ensure_shape(image, [6, 8, 3]),)}

  batch = next(
    iter(batches.train_batches(info, augment, HostBatch(4, 4), seed=0))
  )
  values = batch['views'][0].numpy()[:, 0, 0, 0] / 65535
  expected = (100 + batch['index'].numpy()) / 4095
  np.testing.assert_allclose(values, expected, atol=1 / 65535)


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, monkeypatch):
  def refusal(image, channels=3, **settings):
    tifffile.imwrite(f'{tmp_path}/0.tif', image, **settings)
    with pytest.raises(DataError) as error:
      describe(f'folder:{tmp_path}', channels=channels)
    return str(error.value)

  five = np.zeros([6, 8, 5], np.uint8)
  for channels in (1, 3, 4):
    wrong = refusal(five, channels, planarconfig='contig')
    assert f'it has 5 channels, but --channels={channels};' in wrong
    assert wrong.endswith('--channels=5.') and f'{tmp_path}/0.tif' in wrong
  assert 'it has 1 channel, but --channels=2' in refusal(DEEP, 2)
  four = np.zeros([6, 8, 4], np.uint8)
  assert 'its colours are SEPARATED' in refusal(four, photometric='separated')
  white = refusal(DEEP, photometric='miniswhite')
  assert 'its colours are MINISWHITE' in white
  assert 'outside of 0 to 1' in refusal(DEEP.astype(np.float32))
  assert 'its values are int32' in refusal(DEEP.astype(np.int32))
  monkeypatch.setattr(tiff, 'MAX_PIXELS', 47)
  assert 'it is too large' in refusal(DEEP)
  monkeypatch.setitem(sys.modules, 'tifffile', None)
  with pytest.raises(DataError, match="pip install -e '.\\[tiff\\]'"):
    describe(f'folder:{tmp_path}')


def test_beside_other_images_they_are_passed_over_as_before(tmp_path):
  write(f'{tmp_path}/a.png', encoded(1))
  tifffile.imwrite(f'{tmp_path}/b.tif', DEEP)
  info = describe(f'folder:{tmp_path}')
  assert [os.path.basename(path) for path in info.paths] == ['a.png']


def test_a_table_may_name_them_beside_other_images(tmp_path):
  write(f'{tmp_path}/a.png', encoded(7))
  tifffile.imwrite(f'{tmp_path}/b.tif', np.full([6, 8], 9, np.uint8))
  write(f'{tmp_path}/t.csv', b'path\na.png\nb.tif\n')
  rows, bad = rows_of(describe(f'csv:{tmp_path}/t.csv'))
  assert not bad and [int(row[1, 1, 0] * 255 + 0.5) for row in (
    rows[0], rows[1])] == [7, 9]  # fmt: skip
