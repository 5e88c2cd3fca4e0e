"""Splits of both kinds: their parts, names, fingerprints and damage."""

import dataclasses
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from cvr.configs import places
from cvr.data import batches, decoding, reading, sources
from cvr.data.batches import HostBatch
from cvr.data.sources import DataError, Shard, check_batch, describe
from small_data import encoded, make_folder, write
from small_shards import make_shards


@pytest.fixture(scope='module')
def infos(tmp_path_factory):
  folder = make_folder(tmp_path_factory.mktemp('folder'))
  return {
    'folder': describe(f'folder:{folder}'),
    'records': make_shards(tmp_path_factory.mktemp('records')),
  }


def test_an_image_is_called_by_its_place_below_the_split(tmp_path):
  """Also if there is only one class and one image."""
  write(f'{tmp_path}/train/cat/7.png', encoded(7))
  info = sources.describe(f'folder:{tmp_path}')
  assert sources.example_id(info, 0) == 'cat/7.png'


def test_a_description_does_not_change(infos):
  with pytest.raises(dataclasses.FrozenInstanceError):
    infos['folder'].num_examples = 3
  # Shown in errors: without what is as long as the split, or code.
  assert 'parse' not in repr(infos['records'])


@pytest.mark.parametrize('count', [3, 5, 6, 20])
def test_the_last_records_of_a_split(infos, count):
  few = sources.a_few(infos['records'], count)
  assert few.num_examples == count
  records = reading.shuffled_records(few, HostBatch(count, count), [1, 2], 0, 6)
  records = records.take(count).as_numpy_iterator()
  # The value of the pixels is the index.
  value_of = {
    int(index): int(decoding.decode(few.parse(record)[0])[1, 1, 0])
    for _, index, record in records
  }
  assert value_of == {i: i for i in range(23 - count, 23)}


def test_a_few_images_are_from_all_over_a_folder(infos):
  info = infos['folder']
  few = sources.a_few(info, 4)
  assert few.num_examples == 4
  assert few.paths == tuple(info.paths[i] for i in (0, 5, 11, 16))
  assert few.labels == tuple(info.labels[i] for i in (0, 5, 11, 16))
  for whole in infos.values():
    assert sources.a_few(whole, 100) == whole


@pytest.mark.parametrize('kind', ['folder', 'records'])
def test_labels_and_parts_of_a_split(infos, kind):
  info = infos[kind]
  labels = batches.labels_of(info)
  expected = info.labels or np.arange(info.num_examples) % 3
  np.testing.assert_array_equal(labels, expected)
  part = sources.kept(info, [20, 3, 9])
  assert part.num_examples == 3
  np.testing.assert_array_equal(batches.labels_of(part), labels[[3, 9, 20]])
  ids = [sources.example_id(part, i) for i in range(3)]
  assert ids == [sources.example_id(info, i) for i in (3, 9, 20)]
  # A part of a part.
  again = sources.kept(part, [0, 2])
  assert [sources.example_id(again, i) for i in range(2)] == ids[::2]
  np.testing.assert_array_equal(batches.labels_of(again), labels[[3, 20]])
  prints = [sources.fingerprint(i)['files'] for i in (info, part)]
  assert prints[0] != prints[1] == sources.fingerprint(part)['files']


@pytest.mark.parametrize('kind', ['folder', 'records'])
def test_overlap_of_two_splits(infos, kind):
  info = infos[kind]
  assert sources.overlap(info, info) == info.num_examples
  few = sources.a_few(info, 5)
  assert sources.overlap(info, few) == 5
  if kind == 'records':
    # Two slices of one file that touch, and two that do not.
    (a, b) = (
      dataclasses.replace(info, shards=(Shard('f', skip, 6, 0),))
      for skip in (0, 4)
    )
    assert sources.overlap(a, b) == sources.overlap(b, a) == 2
    b = dataclasses.replace(info, shards=(Shard('f', 6, 6, 0),))
    assert sources.overlap(a, b) == 0


def test_files_under_other_names_are_shared(tmp_path):
  """A hard link, a link, and a copy, which is a file of its own."""
  folder = make_folder(tmp_path)
  train = describe(f'folder:{folder}')
  other = tmp_path / 'other' / 'train' / 'x'
  other.mkdir(parents=True)
  os.link(train.paths[0], other / 'a.png')
  os.symlink(train.paths[1], other / 'b.png')
  shutil.copy(train.paths[2], other / 'c.png')
  assert sources.overlap(train, describe(f'folder:{tmp_path}/other')) == 2


def test_the_example_of_a_new_source_works(tmp_path, monkeypatch):
  """That of docs/data.md."""
  page = (pathlib.Path(__file__).parents[2] / 'docs/data.md').read_text()
  (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
  module = {}
  exec(code, module)
  monkeypatch.setitem(places.KINDS, 'cifar', 'FILE')
  monkeypatch.setitem(sources._KINDS, 'cifar', module['describe'])
  rows = np.random.default_rng(0).integers(0, 10, [4, 3073], np.uint8)
  (tmp_path / 'train.bin').write_bytes(rows.tobytes())
  info = describe(f'cifar:{tmp_path}/{{split}}.bin')
  assert info.labels == tuple(rows[:, 0])
  assert sources.example_id(info, 3) == 'train.bin/3'
  image = tf.io.decode_png(info.read(info.paths[3]))
  planes = rows[3, 1:].reshape(3, 32, 32)
  np.testing.assert_array_equal(tf.transpose(image, [2, 0, 1]), planes)
  with pytest.raises(DataError, match='no split to evaluate on'):
    describe(f'cifar:{tmp_path}/train.bin', split='validation')


def test_too_few_examples(infos):
  records = infos['records']
  with pytest.raises(DataError, match='23 examples, the global batch is 24'):
    check_batch(records, 24)
  check_batch(records, 23)


def test_other_channels_are_refused_at_once(tmp_path, data_dir):
  write(f'{tmp_path}/a/train/x/0.png', encoded(1))
  name = f'folder:{tmp_path}/a'
  for channels in (2, 4, 5):
    with pytest.raises(DataError) as error:
      describe(name, channels=channels)
    assert str(error.value).startswith(
      f'--dataset={name}: x/0.png: it has 3 channels, but --channels={channels}'
    )
  # Of records as of files; these two are made of any.
  with pytest.raises(DataError, match='it has 3 channels, but --channels=4'):
    describe('photo_patches', data_dir, channels=4)
  for channels in (1, 3):
    info = describe(name, channels=channels)
    assert info.channels == channels
    describe('photo_patches', data_dir, channels=channels)
  # What is stored under the name of another decoding is not taken for it.
  plain, gray = (
    sources.fingerprint(describe(name, channels=c)) for c in (3, 1)
  )
  assert gray == plain | {'channels': 1}
  # A damaged file tells nothing.
  write(f'{tmp_path}/b/0.png', b'no image')
  info = describe(f'folder:{tmp_path}/b', channels=4)
  with pytest.raises(DataError, match='can be decoded to 4 channels'):
    decoding.find_spare(info, reading.in_order(info))
