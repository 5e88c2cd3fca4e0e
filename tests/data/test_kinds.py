"""What all kinds of data sets at random access have in common.

Each of them holds the same images: the value of the pixels is the index.
"""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import small_kinds
from cvr.data import batches, sources
from cvr.data.batches import HostBatch
from cvr.data.sources import DatasetInfo, describe
from small_data import CLASSES
from small_shards import indices, make, take

LABELS = np.array(small_kinds.TRAIN)


class Kind(NamedTuple):
  name: str
  info: DatasetInfo
  whole: list  # The batches of the first 11 steps: 4 epochs.


@pytest.fixture(scope='module', params=small_kinds.MAKE)
def kind(request, tmp_path_factory):
  name = small_kinds.make(request.param, tmp_path_factory.mktemp('kind'))
  info = describe(name)
  dataset = make(info)
  return Kind(name, info, list(dataset.take(11).as_numpy_iterator()))


def test_both_splits_are_described(kind):
  for split, labels in (
    ('train', small_kinds.TRAIN),
    ('validation', small_kinds.VALIDATION),
  ):
    info = describe(kind.name, split=split)
    assert info.class_names == CLASSES
    assert info.num_examples == len(labels)
    assert batches.labels_of(info).tolist() == labels
  assert info.split == 'val'
  assert sources.overlap(kind.info, info) == 0
  assert sources.overlap(info, info) == 7


def test_batches_are_what_was_written(kind):
  for batch in kind.whole:
    for view in batch['views']:
      np.testing.assert_array_equal(view[:, 0, 0, 0] // 1, batch['index'])
    np.testing.assert_array_equal(batch['label'], LABELS[batch['index']])
    assert batch['bad'].sum() == 0
  for epoch in indices(kind.whole).reshape(4, 22):
    assert sorted(epoch) == list(range(22))


def test_a_resumed_run_has_the_same_batches(kind):
  resumed = take(kind.info, 2, start_step=7)
  for whole, batch in zip(kind.whole[7:9], resumed, strict=True):
    tf.nest.map_structure(np.testing.assert_array_equal, whole, batch)


@pytest.mark.parametrize('hosts', [2, 3])
def test_hosts_cut_the_same_global_batches(kind, hosts):
  """Undecoded: 11 steps of 6 are three epochs."""
  read = []
  for host in range(hosts):
    rows = HostBatch(6, 6 // hosts, hosts, host)
    source, _ = batches._train_source(kind.info, rows, [1, 2], 0, False, 1, 0)
    source = source.take(11 * rows.size).as_numpy_iterator()
    read.append(np.array([int(index) for _, index in source]))
  parts = [own.reshape(11, -1) for own in read]
  whole = np.concatenate(parts, 1).reshape(3, 22)
  assert all(sorted(epoch) == list(range(22)) for epoch in whole)


def test_evaluation_sees_every_example_once(kind):
  info = describe(kind.name, split='validation')

  def preprocess(image, index):
    del index
    return tf.cast(image[1:2, 1:2], tf.float32)

  rows = []
  for host in range(2):
    dataset = batches.eval_batches(info, preprocess, HostBatch(4, 2, 2, host))
    for batch in dataset.as_numpy_iterator():
      values = batch['views'][0][:, 0, 0, 0]
      rows += [
        (int(i), int(v), int(k))
        for i, v, k, m in zip(
          batch['index'], values, batch['label'], batch['mask'], strict=True
        )
        if m
      ]
  expected = [(i, i, k) for i, k in enumerate(small_kinds.VALIDATION)]
  assert sorted(rows) == expected


def test_parts_have_the_names_of_the_whole(kind):
  info = kind.info
  ids = [sources.example_id(info, i) for i in range(22)]
  assert len({*ids}) == 22 and '\0' not in ''.join(ids)
  part = sources.kept(info, [20, 3, 9])
  assert [sources.example_id(part, i) for i in range(3)] == [
    ids[i] for i in (3, 9, 20)
  ]
  (batch,) = take(part, 1, HostBatch(3, 3))
  values = batch['views'][0][:, 0, 0, 0] // 1
  np.testing.assert_array_equal(values, np.take([3, 9, 20], batch['index']))
  assert sources.a_few(info, 4).labels == tuple(LABELS[[0, 5, 11, 16]])
  share = batches.share_of(info, 0.25, 0)
  assert [share.labels.count(c) for c in range(3)] == [1, 2, 2]
  prints = [sources.fingerprint(i)['files'] for i in (info, part, share)]
  assert len({*prints}) == 3
  assert prints[0] == sources.fingerprint(describe(kind.name))['files']
