"""Batches: order, resume, hosts, parts of a split, damaged images."""

import os
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import data_util
import small_shards
from cvr.data import batches, decoding, sources
from cvr.data.batches import HostBatch
from cvr.data.sources import DatasetInfo, describe
from cvr.numerics import randomness
from small_data import encoded, make_folder, write
from small_shards import ROWS, SMALL, indices, make, make_shards, take


def assert_same(dataset, others):
  assert len(dataset) == len(others)
  for a, b in zip(dataset, others, strict=True):
    tf.nest.map_structure(np.testing.assert_array_equal, a, b)


KINDS = ('folder', 'records', 'cached records')


class Kind(NamedTuple):
  info: DatasetInfo
  settings: dict
  dataset: tf.data.Dataset
  whole: list  # The batches of its first steps: 8 epochs.


@pytest.fixture(scope='module')
def kinds(tmp_path_factory):
  info = {
    'folder': describe(
      f'folder:{make_folder(tmp_path_factory.mktemp("folder"))}'
    ),
    'records': make_shards(tmp_path_factory.mktemp('records')),
  }
  kinds = {}
  for kind in KINDS:
    *cached, base = kind.split()
    settings = dict(cache=bool(cached))
    steps = info[base].num_examples  # Then the epochs end with a batch.
    dataset = make(info[base], **settings)
    whole = list(dataset.take(steps).as_numpy_iterator())
    kinds[kind] = Kind(info[base], settings, dataset, whole)
  return kinds


# Reading.


@pytest.mark.parametrize('kind', KINDS)
def test_views_and_labels_belong_to_the_index(kinds, kind):
  info, whole = kinds[kind].info, kinds[kind].whole
  labels = info.labels or [i % 3 for i in range(info.num_examples)]
  for batch in whole:
    for view in batch['views']:
      np.testing.assert_array_equal(view[:, 0, 0, 0] // 1, batch['index'])
    expected = [labels[i] for i in batch['index']]
    np.testing.assert_array_equal(batch['label'], expected)
    assert batch['bad'].sum() == 0


@pytest.mark.parametrize('kind', KINDS)
def test_every_example_once_an_epoch_in_a_new_order(kinds, kind):
  info, whole = kinds[kind].info, kinds[kind].whole
  epochs = indices(whole).reshape(8, info.num_examples)
  for epoch in epochs:
    assert sorted(epoch) == list(range(info.num_examples))
  assert len({tuple(epoch) for epoch in epochs}) == 8


@pytest.mark.parametrize('kind', ['folder', 'records'])
def test_resume_is_bit_exact(kinds, kind):
  info, settings, _, whole = kinds[kind]
  tf.random.set_seed(9)  # The global seed must not matter.
  try:
    resumed = take(info, 8, start_step=7, **settings)
  finally:
    tf.random.set_seed(0)
  assert_same(whole[7:15], resumed)


@pytest.mark.parametrize('kind', ['folder', 'records'])
def test_seed_decides(kinds, kind):
  info, whole = kinds[kind].info, kinds[kind].whole
  other = take(info, 3, seed=6)
  assert (indices(other) != indices(whole[:3])).any()


def test_augmentation_belongs_to_seed_epoch_and_index(kinds):
  info, whole = kinds['folder'].info, kinds['folder'].whole

  def noise(dataset):
    views = np.concatenate([batch['views'][0] for batch in dataset])
    keys = [(k // 22, int(i)) for k, i in enumerate(indices(dataset))]
    return dict(zip(keys, views[:, 0, 0, 0].tolist(), strict=True))

  small = noise(whole[:11])
  large = noise(take(info, 4, HostBatch(22, 22)))
  assert small == large and len(set(small.values())) == 88


def test_thread_count_does_not_matter(kinds):
  _, _, dataset, whole = kinds['records']
  spec = dataset.element_spec
  assert [view.shape for view in spec['views']] == [[8, 2, 2, 3]] * 2
  assert spec['label'].dtype == tf.int32 and spec['index'].dtype == tf.int64
  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  options.threading.max_intra_op_parallelism = 1
  alone = dataset.with_options(options).take(6)
  assert_same(whole[:6], list(alone.as_numpy_iterator()))


def test_hosts_and_replicas_of_a_folder_cut_one_batch(kinds):
  info, whole = kinds['folder'].info, kinds['folder'].whole
  hosts = [take(info, 10, HostBatch(8, 2, 2, host)) for host in range(2)]
  for step in range(5):
    parts = [hosts[h][2 * step + r] for h in range(2) for r in range(2)]
    merged = tf.nest.map_structure(lambda *x: np.concatenate(x), *parts)
    assert_same([whole[step]], [merged])


@pytest.mark.parametrize('num_hosts', [1, 3])
@pytest.mark.parametrize('kind', ['folder', 'records'])
def test_all_of_a_split_is_read_in_so_many_steps_by_every_host(
  kinds, kind, num_hosts
):
  info = kinds[kind].info
  steps = batches.steps_of_all(info, 6, num_hosts)
  seen = set()
  for host in range(num_hosts):
    rows = HostBatch(6, 6 // num_hosts, num_hosts, host)
    # What train_batches makes its batches of, undecoded.
    source, _ = batches._train_source(info, rows, [1, 2], 0, False, 6, False)
    source = source.take(steps * rows.size).as_numpy_iterator()
    seen |= {int(index) for _, index, *_ in source}
  assert seen == set(range(info.num_examples))


def preprocess(image, index):
  del index
  return tf.cast(image[1:2, 1:2], tf.float32)


@pytest.mark.parametrize('kind,num_hosts', [('folder', 2), ('records', 2)])
def test_evaluation_sees_every_example_once(kinds, kind, num_hosts):
  info = kinds[kind].info
  lengths, real = set(), []
  for host in range(num_hosts):
    rows = HostBatch(8, 8 // num_hosts, num_hosts, host)
    dataset = batches.eval_batches(info, preprocess, rows)
    dataset = list(dataset.as_numpy_iterator())
    lengths.add(len(dataset))
    own = indices(dataset)
    mask = np.concatenate([b['mask'] for b in dataset])
    value = np.concatenate([b['views'][0] for b in dataset])[:, 0, 0, 0]
    np.testing.assert_array_equal(mask, own >= 0)
    np.testing.assert_array_equal(value[own >= 0], own[own >= 0])
    assert (np.diff(own[own >= 0]) > 0).all()
    real += own[own >= 0].tolist()
  assert len(lengths) == 1
  assert sorted(real) == list(range(info.num_examples))


# Parts of a split.


def test_training_and_evaluation_see_the_part_alone(kinds):
  """Of records: a part of a folder is a folder with fewer paths."""
  info = sources.kept(kinds['records'].info, [3, 9, 20, 21])
  seen = take(info, 4, HostBatch(3, 3))
  assert sorted(indices(seen)) == sorted([0, 1, 2, 3] * 3)
  values = {
    int(i): int(v)
    for batch in seen
    for i, v in zip(
      batch['index'], batch['views'][0][:, 0, 0, 0] // 1, strict=True
    )
  }
  assert values == {0: 3, 1: 9, 2: 20, 3: 21}
  values = {}
  for host in range(2):
    dataset = batches.eval_batches(info, preprocess, HostBatch(2, 1, 2, host))
    for batch in dataset.as_numpy_iterator():
      value = batch['views'][0][:, 0, 0, 0]
      for i, v, m in zip(batch['index'], value, batch['mask'], strict=True):
        if m:
          assert i not in values
          values[int(i)] = int(v)
  assert values == {0: 3, 1: 9, 2: 20, 3: 21}


def test_a_share_is_of_every_class_and_of_the_seed(kinds):
  info = kinds['folder'].info  # 5, 9 and 8 images
  few = batches.share_of(info, 0.25, 0)
  assert [few.labels.count(c) for c in range(3)] == [1, 2, 2]
  assert batches.share_of(info, 0.01, 0).num_examples == 3
  assert batches.share_of(info, 0.25, 0) == few
  assert any(batches.share_of(info, 0.25, s) != few for s in (1, 2))


# What cannot be decoded.

JPEG = encoded(9, tf.io.encode_jpeg, side=40)
DAMAGED = {
  'truncated': JPEG[: len(JPEG) - 40],
  'html': b'<html><body>404 Not Found</body></html>',
  'empty': b'',
  'one byte': b'\xff',
  'gone': None,  # After it was listed.
  'a folder': None,
}


def test_undecodable_images_are_replaced_and_counted(folder, kinds):
  before = kinds['folder'].whole
  info = describe(f'folder:{folder}')
  damaged = dict(zip((4, 7, 12, 21, 5, 16), DAMAGED, strict=True))
  for index, how in damaged.items():
    os.remove(info.paths[index])
    if DAMAGED[how] is not None:
      write(info.paths[index], DAMAGED[how])
    elif how == 'a folder':
      os.makedirs(info.paths[index])
  after = take(info, 11)
  np.testing.assert_array_equal(indices(after), indices(before[:11]))
  for old, new in zip(before[:11], after, strict=True):
    bad = np.isin(new['index'], list(damaged))
    np.testing.assert_array_equal(new['bad'], bad)
    np.testing.assert_array_equal(new['views'][0][~bad], old['views'][0][~bad])
    assert (new['views'][0][bad] // 1 == 0).all()  # Example 0 replaces it,
    assert (new['label'][bad] == 0).all()  # with its own label.
  assert sum(batch['bad'].sum() for batch in after) == 4 * len(damaged)
  dataset = batches.eval_batches(info, preprocess, HostBatch(24, 24))
  (batch,) = dataset.as_numpy_iterator()
  bad = np.isin(batch['index'], list(damaged))
  np.testing.assert_array_equal(batch['bad'], bad)
  np.testing.assert_array_equal(batch['mask'], ~bad & (batch['index'] >= 0))


@pytest.mark.parametrize('cache', [False, True])
def test_images_of_other_channels_are_replaced_too(tmp_path, cache):
  """Four channels are wanted, and one file of six has three."""
  for i in range(6):
    image = np.full([6, 8, 3 if i == 4 else 4], i, np.uint8)
    write(f'{tmp_path}/{i}.png', tf.io.encode_png(image).numpy())
  info = describe(f'folder:{tmp_path}', channels=4)

  def augment(image, seed):
    del seed
    return {'views': (tf.ensure_shape(image, [6, 8, 4]),)}

  batch = next(
    iter(
      batches.train_batches(info, augment, HostBatch(6, 6), seed=0, cache=cache)
    )
  )
  index, bad = batch['index'].numpy(), batch['bad'].numpy()
  np.testing.assert_array_equal(bad, index == 4)
  expected = np.where(bad, 0, index)  # The spare is the first.
  np.testing.assert_array_equal(batch['views'][0][:, 5, 7, 3], expected)


def test_a_window_is_that_part_of_the_image(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(8):
    image = rng.integers(0, 256, [40, 56, 3], dtype=np.uint8)
    # With less colour than brightness the edges of a crop differ a little.
    if i % 2:
      write(f'{tmp_path}/{i}.png', tf.io.encode_png(image).numpy())
    else:
      encoded = tf.io.encode_jpeg(image, chroma_downsampling=False)
      write(f'{tmp_path}/{i}.jpg', encoded.numpy())
  info = describe(f'folder:{tmp_path}')

  def window(shape, seed):
    u = randomness.uniform([2], seed)
    corner = tf.cast(u * tf.cast(shape[:2] - 16, tf.float32), tf.int32)
    return tf.concat([corner, [16, 16]], 0)

  def view(image, seed):
    return {'views': (tf.ensure_shape(image, [16, 16, 3]),)}

  def cut(image, seed):
    return view(decoding.cut(image, lambda s: window(s, seed)), seed)

  whole = batches.train_batches(info, cut, ROWS, **SMALL)
  whole = list(whole.take(2))
  for cache in (False, True):
    part = batches.train_batches(
      info, view, ROWS, cache=cache, window=window, **SMALL
    )
    for a, b in zip(whole, part.take(2), strict=True):
      np.testing.assert_array_equal(a['views'][0], b['views'][0])
  # The folder has no classes.
  assert all((batch['label'] == -1).numpy().all() for batch in whole)


def crop(image, seed):
  draws = randomness.uniform([1, len(data_util.DRAWS)], seed)
  (box,) = data_util.crop_boxes(tf.shape(image), draws, 0.08, 'uniform')
  image = tf.cast(image, tf.float32)
  return {'views': (data_util.crop(image, box, 24),)}


def test_photo_patches_batches(data_dir):
  info = describe('photo_patches', data_dir, 'train[:8%]')  # 82.
  dataset = batches.train_batches(info, crop, HostBatch(41, 41), seed=0)
  dataset = list(dataset.take(2).as_numpy_iterator())
  assert dataset[0]['views'][0].shape == (41, 24, 24, 3)
  assert sorted(indices(dataset)) == list(range(82))


def test_the_depth_of_records_is_read_off_their_images(tmp_path, monkeypatch):
  image = tf.fill([4, 4, 3], tf.constant(4095, tf.uint16))
  deep = tf.io.encode_png(image).numpy()
  monkeypatch.setattr(small_shards, 'encoded', lambda value: deep)
  bits, line = batches.depth_of(small_shards.make_shards(tmp_path))
  assert bits == 12 and '23 of 23 images have 16 bits' in line
