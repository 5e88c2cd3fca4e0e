"""A data set's name -> what one split of it holds and where; parts of a split.

What could fail hours later is checked at once; of images only the first is
looked at, if at all.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re

import tensorflow as tf

from cvr.configs import places
from cvr.configs.settings import show
from cvr.data import (
  arrays,
  decoding,
  folders,
  hf_sets,
  reading,
  tables,
  tfds_sets,
  tiff,
  wds_sets,
)
from cvr.data.dataset_info import DataError, DatasetInfo, OutOfReach, Shard
from cvr.startup import out_of_reach, reason

log = logging.getLogger(__name__)

# Kind of a place -> (name, place, split, data_dir=, download=) -> DatasetInfo.
_KINDS = {
  'folder': folders.describe,
  'csv': tables.describe,
  'list': tables.describe,
  'npz': arrays.describe,
  'npy': arrays.describe,
  'wds': wds_sets.describe,
  'hf': hf_sets.describe,
}


def describe(
  name, data_dir=None, split='train', download=False, bits=8, channels=3
) -> DatasetInfo:
  """Finds one split of a data set and checks it.

  Args:
    name: a TFDS name such as 'imagenet2012' or 'imagenet2012_subset/1pct', or
      'KIND:PLACE' (configs/places.py).
    data_dir: where TFDS keeps prepared data sets; its default when empty. A
      table may name files below it.
    split: a split or, for TFDS, a slice such as 'train[:10%]'. 'validation'
      is the first of validation, val and test that exists.
    download: allows downloads of more than 1 GB.
    bits, channels: of a channel and of an image, to decode to.
  """
  info = _described(name, data_dir, split, download)
  info = dataclasses.replace(info, bits=bits, channels=channels)
  first_tiff = next(filter(tiff.is_tiff, info.paths), '')
  if first_tiff and not info.read:
    tiff.check(f'--dataset={name}', first_tiff, channels)
  elif info.read or channels not in decoding.CONVERTED:
    _check_channels(info)
  return info


def _check_channels(info):
  """DataError where the first image has other channels."""
  few = kept(info, [0]) if info.paths else info
  with tf.device('CPU:0'), explained(info):
    data, _ = next(iter(reading.in_order(few)))
  has = decoding.channels_of(data)
  why = decoding.misfit(has, info.channels) if has else ''
  if why:
    raise DataError(f'--dataset={info.name}: {example_id(info, 0)}: {why}.')


def _described(name, data_dir, split, download):
  place = places.parse(name)
  if not place:
    return tfds_sets.describe(name, data_dir or None, split, download)
  describe_kind = _KINDS[place.kind]
  info = describe_kind(name, place, split, data_dir=data_dir, download=download)
  if not info.class_names:
    log.warning('%s: %d images without labels', name, info.num_examples)
  return info


def check_batch(info, global_batch):
  """Raises unless the split fills at least one global batch."""
  if info.num_examples < global_batch:
    raise DataError(
      f'--dataset={info.name}: the {info.split} split has '
      f'{info.num_examples} examples, the global batch is {global_batch} '
      '(--train_batch_size). Use a smaller batch or more data.'
    )


def kept(info, indices):
  """The same split with the examples at these indices only, in order.

  Of records all are read nevertheless, but only these are kept in memory.
  """
  indices = sorted(int(i) for i in indices)
  fewer = {'num_examples': len(indices)}
  if not info.paths:
    keep = tuple(info.keep[i] for i in indices) if info.keep else tuple(indices)
    return dataclasses.replace(info, keep=keep, **fewer)
  paths = tuple(info.paths[i] for i in indices)
  labels = tuple(info.labels[i] for i in indices)
  return dataclasses.replace(info, paths=paths, labels=labels, **fewer)


def _last_records(info, count):
  shards, left = [], count
  for shard in reversed(info.shards):
    take = min(shard.take, left)
    before = shard.take - take
    shards.append(
      Shard(shard.path, shard.skip + before, take, shard.first + before)
    )
    left -= take
  shards = tuple(shard for shard in reversed(shards) if shard.take)
  return dataclasses.replace(info, num_examples=count, shards=shards)


def a_few(info, count):
  """The same split with `count` of its examples, or all if it has fewer.

  At equal distances in paths, which may be sorted by class; the last ones of
  TFDS' files, which were shuffled when they were prepared.
  """
  size = info.num_examples
  count = min(count, size)
  if info.paths:
    return kept(info, [i * size // count for i in range(count)])
  if info.keep:
    return kept(info, range(size - count, size))
  return _last_records(info, count)


def example_id(info, index):
  """An example's name: its path below the split's folder, or its TFDS id."""
  if info.paths:
    path = info.paths[index].partition('\0')[0]
    name = os.path.relpath(path, info.folder)
    # As text, also where the system's name is none.
    return os.fsencode(name).decode(errors='backslashreplace')
  index = info.keep[index] if info.keep else index
  shard = next(s for s in reversed(info.shards) if s.first <= index)
  number = index - shard.first + shard.skip
  return f'{os.path.basename(shard.path)}__{number}'


def _files(paths):
  """What tells files apart; those that are gone are counted when read."""
  return {
    path if '://' in path or places.no_file(path) else places.identity(path)
    for path in paths
  }


def overlap(info, other):
  """How many examples two splits share, also under other names."""
  if info.paths:
    return len(_files(info.paths) & _files(other.paths))
  if info.keep or other.keep:
    raise ValueError('overlap is not defined for parts of a split')
  shared = 0
  for a in info.shards:
    for b in other.shards:
      first, last = max(a.skip, b.skip), min(a.skip + a.take, b.skip + b.take)
      shared += max(0, last - first) if a.path == b.path else 0
  return shared


def fingerprint(info):
  """A dict for JSON that differs if the examples differ."""
  paths = info.paths or [os.fspath(shard.path) for shard in info.shards]
  sizes = [
    (os.path.getsize(path), os.stat(path).st_mtime_ns)
    for path in info.files or paths
    if '://' not in path
  ]
  parts = [[s.skip, s.take] for s in info.shards]
  text = json.dumps([list(paths), sizes, parts, info.labels, info.keep])
  return {
    'dataset': info.name,
    'split': info.split,
    'images': info.num_examples,
    'files': hashlib.sha256(text.encode()).hexdigest()[:16],
    # Not where it was the only way, so that what is stored keeps its name.
    **({'bits': info.bits} if info.bits > 8 else {}),
    **({'channels': info.channels} if info.channels != 3 else {}),
  }


@contextlib.contextmanager
def explained(info):
  """Turns TensorFlow's error while reading into a DataError with the file."""
  try:
    yield
  except tf.errors.OpError as error:
    if 'IteratorGetNext' not in str(error) or out_of_reach(error):
      raise
    # TensorFlow puts the names of operations before the reason.
    names = r'Error in user-defined .*? Iterator::\S+ |assertion failed: '
    why = show(re.sub(names, '', reason(error))[:300])
    _, unreachable, of_store = why.partition(reading.OUT_OF_REACH)
    if unreachable:
      raise OutOfReach(
        f'--dataset={info.name}: {of_store.rstrip("]")}. The same command '
        'resumes the run.'
      ) from error
    path = damaged_shard(info)
    file = f'{path} is damaged: ' if path else ''
    todo = 'Prepare the data set again' if info.shards else 'Replace the file'
    raise DataError(
      f'--dataset={info.name}: {file}{why}. {todo}; then the same command '
      'resumes from the last checkpoint.'
    ) from error


def damaged_shard(info):
  """The first shard that cannot be read to its end, or None.

  TensorFlow's DataLossError names no file, so that this reads them all.
  """
  for shard in info.shards:
    try:
      tf.data.TFRecordDataset(shard.path).reduce(0, lambda n, _: n + 1)
    except tf.errors.OpError:
      return shard.path
  return None
