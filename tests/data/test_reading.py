"""Reading records: the parts of hosts, and damage that stops a run."""

import dataclasses
import os
import re

import numpy as np
import pytest
import tensorflow as tf

from cvr.data import reading
from cvr.data.sources import (
  DataError,
  DatasetInfo,
  damaged_shard,
  explained,
)
from small_data import CLASSES, write
from small_shards import make_shards, take


@pytest.fixture
def records(tmp_path):
  return make_shards(tmp_path)


def host_indices(info, start_step, count, num_hosts, host):
  rows = reading.HostBatch(2 * num_hosts, 2, num_hosts, host)
  records = reading.shuffled_records(info, rows, [1, 2], start_step, buffer=5)
  records = records.map(lambda _, index, __: index).take(count)
  return list(records.as_numpy_iterator())


@pytest.mark.parametrize('num_hosts', [2, 5])  # 5: more than files.
def test_hosts_partition_records(records, num_hosts):
  seen = []
  for host in range(num_hosts):
    _, _, size = reading.host_part(
      records, reading.HostBatch(num_hosts, 1, num_hosts, host)
    )
    own = host_indices(records, 0, 3 * size, num_hosts, host)
    assert sorted(own[:size]) == sorted(own[size : 2 * size])
    if host == num_hosts - 1:
      resumed = host_indices(records, size // 2 + 1, size, num_hosts, host)
      skipped = 2 * (size // 2 + 1)
      assert own[skipped : skipped + size] == resumed[: 3 * size - skipped]
    seen += own[:size]
  assert sorted(seen) == list(range(records.num_examples))


def test_every_epoch_of_indices_is_a_permutation_of_its_own():
  info = DatasetInfo('folder', 'train', 7, CLASSES)
  rows = reading.HostBatch(2, 2)
  order = reading.shuffled_indices(info, rows, [1, 2], 0).take(21)
  epochs = np.array(list(order.as_numpy_iterator())).reshape(3, 7, 2)
  np.testing.assert_array_equal(epochs[..., 0].T, 7 * [[0, 1, 2]])
  np.testing.assert_array_equal(np.sort(epochs[..., 1]), 3 * [range(7)])
  assert len({tuple(order) for order in epochs[..., 1]}) == 3


def test_a_worker_reads_few_files_at_a_time(records):
  """Of four files one: it takes no records of the next epochs with them."""
  rows = reading.HostBatch(2, 2)
  order = reading.shared_records(records, rows, [1, 2], 0, 6).take(23)
  indices = np.array([int(index) for _, index, _ in order])
  firsts = [shard.first for shard in records.shards]
  shards = np.searchsorted(firsts, indices, side='right')
  assert np.count_nonzero(np.diff(shards)) == len(firsts) - 1


# Damage below the images stops the run.


def rewrite(info, shard, change):
  path = info.shards[shard].path
  with open(path, 'rb') as file:
    content = bytearray(file.read())
  content = change(content)
  write(path, bytes(content))
  return path


def read(info):
  return list(reading.in_order(info))


def flip(content):
  content[len(content) // 2] ^= 255
  return content


def test_record_cut_in_its_header_is_not_a_silent_end(records):
  length = os.path.getsize(records.shards[2].path) // 5
  path = rewrite(records, 2, lambda c: c[: 4 * length + 6])
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    take(records, 6)
  assert path in str(error.value)
  assert damaged_shard(records) in (path, None)


@pytest.mark.parametrize('change', [flip, lambda c: c[:-20]])
def test_damaged_shard_stops_and_is_named(records, change):
  path = rewrite(records, 1, change)
  with pytest.raises(tf.errors.DataLossError):
    read(records)
  assert damaged_shard(records) == path
  # As people see it.
  with (
    pytest.raises(DataError, match=f'{re.escape(path)} is damaged'),
    explained(records),
  ):
    read(records)


def test_missing_shard_stops(records):
  os.remove(records.shards[3].path)
  with pytest.raises(tf.errors.NotFoundError, match='part3.tfrecord'):
    read(records)


def test_label_out_of_range_stops(records):
  info = dataclasses.replace(records, class_names=CLASSES[:2])
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    read(info)
  assert '2 classes' in str(error.value) and 'tfrecord' in str(error.value)
