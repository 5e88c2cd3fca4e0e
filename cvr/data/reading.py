"""Which examples a host reads, and in which order; nothing is decoded here.

Two kinds of source. Random access (whatever has paths, and any split in
memory): the example at each position of an epoch's permutation can be computed,
without a buffer. Records (TFDS): the epoch seeds the order of the files and a
shuffle buffer, and the records before the start are skipped.
"""

import functools
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cvr.configs import places
from cvr.data import tiff
from cvr.numerics.randomness import fold_in, split_seed, uniform
from cvr.startup import out_of_reach


class HostBatch(NamedTuple):
  """The part of a global batch that one host reads, in parts for its replicas.

  Host h has rows [h * size, (h + 1) * size) of the global batch.
  """

  global_batch: int
  per_replica_batch: int
  num_hosts: int = 1
  host: int = 0

  @classmethod
  def of(cls, context, global_batch):
    """Of a tf.distribute.InputContext."""
    return cls(
      global_batch,
      global_batch // context.num_replicas_in_sync,
      context.num_input_pipelines,
      context.input_pipeline_id,
    )

  @property
  def size(self):
    return self.global_batch // self.num_hosts


_ALONE = HostBatch(1, 1)

# Records.


def checked_parse(info):
  """-> function (index, record) -> (index, bytes, label), or an error.

  The error stops the run: the shard ended early, or the label is unknown.
  """
  firsts = tf.constant([s.first for s in info.shards], tf.int64)
  paths = tf.constant([s.path for s in info.shards])
  classes = len(info.class_names)

  def parse(index, record):
    path = paths[tf.searchsorted(firsts, index[None], side='right')[0] - 1]
    full = tf.debugging.Assert(
      tf.strings.length(record) > 0,
      ['The shard ends before its last record:', path],
    )
    with tf.control_dependencies([full]):
      data, label = info.parse(tf.identity(record))
    if not classes:
      return index, data, tf.constant(-1, tf.int64)
    known = tf.debugging.Assert(
      (label >= 0) & (label < classes),
      ['Label', label, f'outside of {classes} classes in', path],
    )
    with tf.control_dependencies([known]):
      return index, data, tf.identity(label)

  return parse


def _shard_reader(shards):
  """-> function k -> the (index, record)s of shard k.

  TensorFlow takes a file that is cut inside a record's header for a shorter
  one. Empty records stand for the missing ones, and checked_parse refuses them.
  """
  paths = tf.constant([s.path for s in shards])
  skip, take, first = (
    tf.constant([getattr(s, field) for s in shards], tf.int64)
    for field in ('skip', 'take', 'first')
  )

  def read(k):
    records = tf.data.TFRecordDataset(paths[k], buffer_size=1 << 20)
    records = records.skip(skip[k]).take(take[k])
    missing = tf.data.Dataset.from_tensors(b'').repeat()
    indices = tf.data.Dataset.range(first[k], first[k] + take[k])
    return tf.data.Dataset.zip((indices, records.concatenate(missing)))

  return read


def host_part(info, rows):
  """-> (shards, strided, size): what a host reads in every epoch.

  If strided, the host keeps every num_hosts-th record of the shards. size is
  the number of its examples.
  """
  num_hosts, host = rows.num_hosts, rows.host
  if len(info.shards) >= num_hosts:
    shards = info.shards[host::num_hosts]
    return shards, False, sum(s.take for s in shards)
  return info.shards, True, len(range(host, info.num_examples, num_hosts))


def host_records(info, rows, order=None):
  """One epoch of a host's (index, record)s, its shards in the order [F]."""
  shards, strided, _ = host_part(info, rows)
  if order is None:
    files = tf.data.Dataset.range(len(shards))
    records = files.flat_map(_shard_reader(shards))
  else:
    files = tf.data.Dataset.from_tensor_slices(order)
    records = files.interleave(
      _shard_reader(shards),
      cycle_length=min(16, len(shards)),
      num_parallel_calls=tf.data.AUTOTUNE,
      deterministic=True,
    )
  if strided:
    records = records.filter(lambda i, _: i % rows.num_hosts == rows.host)
  return records


def _shuffled(records, buffer, seed):
  # Dataset.shuffle mixes in the global seed: this fixes the one of the graph.
  tf.compat.v1.set_random_seed(1)
  seed = tf.random.stateless_uniform(
    [], seed, 0, 2**31 - 1, tf.int64, alg='philox'
  )
  return records.shuffle(buffer, seed, reshuffle_each_iteration=False)


def _with_epoch(epoch, records):
  epochs = tf.data.Dataset.from_tensors(epoch).repeat()
  records = tf.data.Dataset.zip((epochs, records))
  return records.map(lambda epoch, pair: (epoch, *pair))


def shuffled_records(info, rows, seed, start_step, buffer):
  """Endless (epoch, index, record); the epoch seeds both shuffles."""
  shards, _, size = host_part(info, rows)
  start_epoch, skipped = divmod(start_step * rows.size, size)

  def read_epoch(epoch):
    file_seed, buffer_seed = split_seed(fold_in(seed, epoch), 2)
    order = tf.argsort(uniform([len(shards)], file_seed))
    records = host_records(info, rows, order)
    records = _shuffled(records, buffer, buffer_seed)
    first = tf.cast(epoch == start_epoch, tf.int64)
    return _with_epoch(epoch, records.skip(first * skipped))

  epochs = tf.data.Dataset.range(start_epoch, tf.int64.max)
  return epochs.flat_map(read_epoch)


def shared_records(info, rows, seed, start_step, buffer):
  """The same for several workers, each of which takes whole files of an epoch.

  The order is not fixed, and a resumed run starts near its place, not at it.
  """
  shards, strided, size = host_part(info, rows)
  read = _shard_reader(shards)
  # A worker mixes few files: with many it would take the next epochs' too.
  together = max(1, min(16, len(shards) // 16))

  def read_file(epoch, k):
    file_seed = fold_in(fold_in(seed, epoch), k)
    records = _shuffled(read(k), max(1, buffer // together), file_seed)
    return _with_epoch(epoch, records)

  start = start_step * rows.size * len(shards) // size
  files = tf.data.Dataset.range(start, tf.int64.max)
  records = _permuted(files, seed, len(shards)).interleave(
    read_file, cycle_length=together, num_parallel_calls=tf.data.AUTOTUNE
  )
  if strided:
    records = records.filter(lambda _, i, __: i % rows.num_hosts == rows.host)
  return records


# Random access.


def in_python(info):
  """-> function path -> bytes to decode; None: TensorFlow reads all paths."""
  if info.read or not any(map(tiff.is_tiff, info.paths)):
    return info.read
  return functools.partial(tiff.read, channels=info.channels)


# What begins the reason why a source of ours cannot be read for now.
OUT_OF_REACH = 'out of reach: '


def _in_python(by_python, path):
  """by_python(path), or an error that stops the run."""

  def data_or_why_not(path):
    try:
      return by_python(os.fsdecode(path)), b''
    except (OSError, ValueError, tf.errors.OpError) as error:
      mark = OUT_OF_REACH if out_of_reach(error) else ''
      return b'', os.fsencode(mark + str(error))

  data, why_not = tf.numpy_function(
    data_or_why_not, [path], (tf.string, tf.string), stateful=False
  )
  # An exception would be an error with the traceback of TensorFlow's inside.
  is_read = tf.raw_ops.Assert(condition=why_not == b'', data=[why_not])
  with tf.control_dependencies([is_read]):
    return tf.ensure_shape(data, [])


def _or_nothing(path):
  """The content of a file, or b'', which cannot be decoded."""
  # A graph can catch an error in no other way.
  content = tf.data.Dataset.from_tensors(path).map(tf.io.read_file)
  nothing = tf.data.Dataset.from_tensors(b'')
  content = content.ignore_errors().concatenate(nothing)
  return content.take(1).get_single_element()


def path_reader(info, strict=False):
  """-> function index -> (image's bytes, label), for a split with paths.

  A file that cannot be read is b'', or, if strict, an error: that is quicker,
  and only to be used where it is caught.
  """
  # Names of files may be other than UTF-8.
  paths = tf.constant([os.fsencode(path) for path in info.paths])
  labels, by_python = tf.constant(info.labels, tf.int64), in_python(info)
  from_disk = tf.io.read_file if strict else _or_nothing

  def read(path):
    return _in_python(by_python, path) if by_python else from_disk(path)

  return lambda index: (read(paths[index]), labels[index])


def why_not(info, index):
  """'' or why the file of an image cannot be read; '' where it is no file.

  Raises the error of a store that does not answer.
  """
  if not info.paths or info.read:
    return ''
  why = places.no_file(info.paths[index])
  if why:
    return why
  try:
    with open(info.paths[index], 'rb') as file:
      file.read()
  except OSError as error:
    if out_of_reach(error):
      raise
    return error.strerror
  return ''


def within_reach(info):
  """-> function batch -> batch, an error if a store does not answer.

  An image that was replaced may be in good order on a disk out of reach. Here,
  on the host that trains, whoever made the batch.
  """

  def reason(indices):
    try:
      for index in indices:
        why_not(info, index)
    except OSError as error:
      return os.fsencode(f'{OUT_OF_REACH}{error}')
    return b''

  def look(indices):
    why = tf.numpy_function(reason, [indices], tf.string, stateful=False)
    return tf.raw_ops.Assert(condition=why == b'', data=[why])

  def check(batch):
    bad = tf.boolean_mask(batch['index'], batch['bad'] > 0)
    looked = tf.cond(tf.size(bad) > 0, lambda: look(bad), tf.no_op)
    with tf.control_dependencies([looked]):
      return tf.nest.map_structure(tf.identity, batch)

  return check


def host_positions(rows, start, stop):
  """A host's positions in the order of all hosts, of steps [start, stop)."""

  def of_step(step):
    first = step * rows.global_batch + rows.host * rows.size
    return tf.data.Dataset.range(first, first + rows.size)

  # By steps, because the data service's workers ask for each source element.
  return tf.data.Dataset.range(start, stop).flat_map(of_step)


def _permuted(positions, seed, num_examples):
  """Positions of an endless run -> (epoch, index), a permutation per epoch."""

  def permute(position):
    epoch, offset = position // num_examples, position % num_examples
    index = tf.random.experimental.index_shuffle(
      offset, fold_in(seed, epoch), num_examples - 1
    )
    return epoch, index

  return positions.map(permute)


def shuffled_indices(info, rows, seed, start_step):
  """Endless (epoch, index), every epoch a permutation of the split."""
  last = 2**62 // rows.global_batch
  return _permuted(
    host_positions(rows, start_step, last), seed, info.num_examples
  )


# A split in order.


def in_order(info):
  """All (bytes, label) of a split, by index."""
  if info.paths:
    return tf.data.Dataset.range(info.num_examples).map(path_reader(info))
  records = host_records(info, _ALONE)
  if info.keep:
    is_kept = np.zeros(info.keep[-1] + 1, bool)
    is_kept[list(info.keep)] = True
    is_kept = tf.constant(is_kept)
    records = records.take(len(is_kept)).filter(lambda i, _: is_kept[i])
  examples = records.map(checked_parse(info))
  return examples.map(lambda _, data, label: (data, label))
