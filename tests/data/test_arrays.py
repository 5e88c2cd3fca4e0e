"""Arrays of images: what is in which file, and what is refused of it."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from cvr.data import arrays, batches, decoding, sources
from cvr.data.sources import DataError, describe

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, [4, 6, 5, 3], np.uint8)
GRAY = RNG.integers(0, 256, [3, 6, 5], np.uint8)
DEEP = RNG.integers(0, 4096, [3, 6, 5, 1]).astype('>u2')
LABELS = np.array([[2], [0], [2], [1]])


def decoded(info, dtype=tf.uint8):
  return np.stack(
    [tf.io.decode_png(info.read(path), dtype=dtype) for path in info.paths]
  )


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_images_and_labels_of_each_split(tmp_path, save):
  path = f'{tmp_path}/set.npz'
  save(
    path, train_images=COLOUR, train_labels=LABELS, test_images=GRAY,
    test_labels=LABELS[1:, 0], train_fine=np.array(list('abca')),
  )  # fmt: skip
  info = describe(f'npz:{path}')
  np.testing.assert_array_equal(decoded(info), COLOUR)
  assert (info.class_names, info.labels) == (('0', '1', '2'), (2, 0, 2, 1))
  assert sources.example_id(info, 3) == 'set.npz/train_images/3'
  test = describe(f'npz:{path}', split='validation')
  np.testing.assert_array_equal(decoded(test), GRAY[..., None])
  assert (test.split, test.class_names) == ('test', info.class_names)
  assert test.labels == (0, 2, 1)
  fine = describe(f'npz:{path}#fine')
  assert (fine.class_names, fine.labels) == (('a', 'b', 'c'), (0, 1, 2, 0))
  assert describe(f'npz:{path}#none').class_names == ()
  with pytest.raises(DataError, match='no array train_x. It has: train_im'):
    describe(f'npz:{path}#x')
  with pytest.raises(DataError, match="no split 'val'.*It has: train, test"):
    describe(f'npz:{path}', split='val')


def test_a_file_for_each_split(tmp_path):
  np.savez(f'{tmp_path}/train.npz', images=COLOUR, labels=LABELS + 5)
  np.savez(f'{tmp_path}/val.npz', images=GRAY, labels=LABELS[1:] + 5)
  for split, labels in (('train', (7, 5, 7, 6)), ('validation', (5, 7, 6))):
    info = describe(f'npz:{tmp_path}/{{split}}.npz', split=split)
    assert len(info.class_names) == 8 and info.labels == labels
  np.save(f'{tmp_path}/train.npy', COLOUR)
  np.save(f'{tmp_path}/test.npy', GRAY)
  info = describe(f'npy:{tmp_path}/{{split}}.npy', split='validation')
  np.testing.assert_array_equal(decoded(info), GRAY[..., None])
  assert info.split == 'test' and info.class_names == ()
  assert sources.example_id(info, 2) == 'test.npy/2'
  with pytest.raises(DataError, match='no split to evaluate on'):
    describe(f'npy:{tmp_path}/test.npy', split='validation')


def test_sixteen_bits_in_any_order_of_bytes_and_axes(tmp_path):
  for name, images in {'c': DEEP, 'f': np.asfortranarray(DEEP)}.items():
    np.save(f'{tmp_path}/{name}.npy', images)
    info = describe(f'npy:{tmp_path}/{name}.npy')
    np.testing.assert_array_equal(decoded(info, tf.uint16), DEEP)
    assert isinstance(arrays._array(f'{tmp_path}/{name}.npy', ''), np.memmap)
  assert batches.depth_of(info)[0] == 12


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_more_channels_than_an_image_file_has(tmp_path, dtype):
  images = RNG.integers(0, 250, [3, 6, 5, 7]).astype(dtype)
  np.savez(f'{tmp_path}/a.npz', images=images)
  info = describe(f'npz:{tmp_path}/a.npz', bits=16, channels=7)
  read = [decoding.decode(info.read(p), **info.pixels) for p in info.paths]
  wide = images.astype(int) * (257 if dtype == np.uint8 else 1)
  np.testing.assert_array_equal(np.stack(read), wide)
  with pytest.raises(DataError, match='a.npz/images/0: it has 7 channels'):
    describe(f'npz:{tmp_path}/a.npz', channels=5)


def test_a_file_that_changes_is_read_again(tmp_path):
  for images in (GRAY, COLOUR):
    np.save(f'{tmp_path}/a.npy', images)
    info = describe(f'npy:{tmp_path}/a.npy')
    assert decoded(info).shape[0] == len(images)


@pytest.mark.parametrize(
  'content, says',
  [
    ({'images': COLOUR / 255}, 'is float64; images are uint8 or uint16'),
    ({'images': COLOUR.astype(np.int64)}, 'is int64'),
    ({'images': np.zeros([4, 3, 6, 5], np.uint8)}, 'it has 5 channels'),
    ({'images': COLOUR[0, 0]}, 'shape [5, 3]; images are [n, height'),
    ({'images': np.uint8(3)}, 'shape []; images are'),
    ({'images': COLOUR[:0]}, 'shape [0, 6, 5, 3]: there is no image'),
    ({'x': COLOUR, 'y': LABELS}, 'neither an array images nor one such as'),
    ({'images': COLOUR, 'labels': LABELS[1:]}, 'has 3 labels for 4 images'),
    ({'images': COLOUR, 'labels': np.eye(4)}, 'one integer or text for each'),
    ({'images': COLOUR, 'labels': LABELS / 2}, 'labels of .* is float64'),
    ({'images': COLOUR, 'labels': LABELS - 5}, "labels[0] of .* '-3' is not "),
    ({'images': COLOUR, 'labels': LABELS - 1}, 'labels[1] of .* has no label'),
    ({'images': COLOUR, 'labels': LABELS * 10**6}, 'need 2,000,001 cl'),
    (
      {'train_images': COLOUR, 'train_labels': LABELS * 0, 'test_images': GRAY,
       'test_labels': LABELS[1:]}, "test_labels[1] of .* '2' is not a class",
    ),
  ],
)  # fmt: skip
def test_what_is_no_image_or_label(tmp_path, content, says):
  np.savez(f'{tmp_path}/a.npz', **content)
  split = 'test' if 'test_images' in content else 'train'
  with pytest.raises(DataError) as error:
    describe(f'npz:{tmp_path}/a.npz', split=split)
  for part in says.split(' .* '):
    assert part in str(error.value)
  assert str(error.value).startswith(f'--dataset=npz:{tmp_path}/a.npz: ')


class Payload:
  def __reduce__(self):
    return (os.mkdir, (Payload.mark,))


def test_pickles_are_never_read(tmp_path):
  Payload.mark = f'{tmp_path}/mark'
  content = np.array([Payload()], object)
  np.save(f'{tmp_path}/a.npy', content, allow_pickle=True)
  np.savez(f'{tmp_path}/a.npz', images=COLOUR, labels=content)
  np.savez_compressed(f'{tmp_path}/b.npz', images=content)
  for name in ('npy:a.npy', 'npz:a.npz', 'npz:b.npz'):
    with pytest.raises(DataError, match='Python objects .pickles., which'):
      describe(name.replace(':', f':{tmp_path}/'))
  assert not os.path.exists(Payload.mark)


def npy(shape, dtype='|u1', content=b'', magic=b'\x93NUMPY\1\0'):
  header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}"
  return magic + struct.pack('<H', len(header)) + header.encode() + content


@pytest.mark.parametrize(
  'content, says',
  [
    (
      npy('(1000000, 1000000, 10)'),
      'states 10,000,000,000,000 bytes, but',
    ),
    (npy('(2, 4, 4)', content=bytes(31)), 'states 32 bytes, but it has 31'),
    (npy('(-2, -4, 4)', content=bytes(32)), 'its header is damaged'),
    (npy('(1000000000,)', '<U0'), 'is damaged'),
    (npy('(2, 4, 4)', magic=b'\x93NUMPY\2\0'), 'neither numbers nor texts'),
    (npy('(' * 3000), 'is damaged'),
    (npy('(2, 4, 4)')[:30], 'is damaged'),
    (b'', 'is damaged'),
    (b'GIF89a', 'is damaged'),
  ],
)
def test_hostile_headers(tmp_path, content, says):
  (tmp_path / 'a.npy').write_bytes(content)
  with zipfile.ZipFile(f'{tmp_path}/a.npz', 'w') as archive:
    archive.writestr('images.npy', content)
  with zipfile.ZipFile(f'{tmp_path}/b.npz', 'w', zipfile.ZIP_DEFLATED) as a:
    a.writestr('images.npy', content)
  for name in ('npy:a.npy', 'npz:a.npz', 'npz:b.npz'):
    with pytest.raises(DataError) as error:
      describe(name.replace(':', f':{tmp_path}/'))
    assert says in str(error.value) and name[4:] in str(error.value)


def patched(path, size):
  """The sizes of the one member of a ZIP file, replaced in both headers."""
  data = bytearray(open(path, 'rb').read())
  central = data.index(b'PK\1\2')
  for first in (22, central + 24):
    data[first : first + 4] = struct.pack('<I', size)
  open(path, 'wb').write(data)


def test_archives_that_announce_more_than_there_is(tmp_path, monkeypatch):
  path = f'{tmp_path}/a.npz'
  for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', kind) as archive:
      archive.writestr('images.npy', npy('(100, 1000, 1000)'))
    patched(path, 10**8 + 100)
    with pytest.raises(DataError, match='states 100,000,000 bytes, but '):
      describe(f'npz:{path}')
  # A true bomb: no more than the machine has.
  np.savez_compressed(path, images=np.zeros([100, 50, 50], np.uint8))
  monkeypatch.setattr(arrays, '_memory', lambda: 10**5)
  with pytest.raises(DataError, match='takes 250,000 bytes of memory: store'):
    describe(f'npz:{path}')


def test_files_that_are_cut_or_are_something_else(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, images=COLOUR)
  content = path.read_bytes()
  path.write_bytes(content[:-40])
  with pytest.raises(DataError, match='a.npz is not an NPZ file'):
    describe(f'npz:{path}')
  damaged = bytearray(content)
  damaged[len(content) // 2] ^= 255
  path.write_bytes(damaged)
  with pytest.raises(DataError, match='images of .*a.npz is damaged'):
    describe(f'npz:{path}')
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_BZIP2) as archive:
    archive.writestr('images.npy', npy('(2, 4, 4)', content=bytes(32)))
  path.write_bytes(buffer.getvalue())
  with pytest.raises(DataError, match='but not as in np.savez'):
    describe(f'npz:{path}')
