"""One split of a data set -> batches of views, and what belongs to them.

A batch is {'views': a tuple of [b, ...], 'label': int32 [b], -1 without labels,
'index': int64 [b], the example's place in the split, 'bad': int32 [b], 1 where
another example replaces one that cannot be decoded}. With several replicas the
parts of a batch follow each other. Training batches straddle epochs; in each
epoch of a host every example of it comes once.

The input is a pure function of (seed, step): no iterator is ever saved, a
resumed run asks for the batches from its step on.

A loader is a function (record, window, replace) -> (image, the shorter side of
the whole image, label, bad). If an image cannot be decoded, it fails, or, with
replace, returns another example.
"""

import functools
import os

import numpy as np
import tensorflow as tf

from cvr.configs.settings import show
from cvr.data import decoding, reading, sources, subsets, tiff
from cvr.data.dataset_info import DataError
from cvr.data.reading import HostBatch
from cvr.numerics.randomness import split_seed

_FEW_CORES = 8
_LOOKED_AT = 256  # Images whose depth stands for that of all.
_SHALLOW = ('.jpg', '.jpeg')  # They have 8 bits.

# Nothing in the input needs AutoGraph; without it tracing is much quicker.
_as_it_is = tf.autograph.experimental.do_not_convert


def calls_at_once():
  """num_parallel_calls of a map on this machine.

  tf.data tunes it, but begins slowly, and few cores leave nothing to tune.
  """
  cores = os.cpu_count()
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  return 2 * cores if cores <= _FEW_CORES else tf.data.AUTOTUNE


# Parts of a split.


@_as_it_is
def labels_of(info):
  """The labels of a split by index, without decoding: int64 [n]."""
  if info.paths:
    return np.array(info.labels)
  with tf.device('CPU:0'):
    labels = reading.in_order(info).map(lambda _, label: label).batch(1024)
  return np.concatenate(list(labels.as_numpy_iterator()))


@_as_it_is
def depth_of(info):
  """Bits of a channel that a split needs -> (bits, a line about them or '')."""
  if info.paths and all(p.lower().endswith(_SHALLOW) for p in info.paths):
    return 8, ''
  few = sources.a_few(info, _LOOKED_AT)
  if any(tiff.is_tiff(p) and tiff.holds_floats(p) for p in few.paths):
    return 16, 'TIFF files of floats: --bit_depth=16, 1.0 is white'
  with tf.device('CPU:0'):
    examples = reading.in_order(few)
    images = (data for data, _ in examples.as_numpy_iterator())
    bits, largest, count = decoding.depth_of(images, info.channels)
  if bits == 8:
    return 8, ''
  return bits, (
    f'{count} of {few.num_examples} images have 16 bits a '
    f'channel, and values up to {largest:,}: --bit_depth={bits}, '
    f'{2**bits - 1:,} is white'
  )


def share_of(info, share, seed):
  """The same split with a share of every class, at least one example."""
  return sources.kept(info, subsets.stratified(labels_of(info), share, seed))


# Loaders.


def _loader(read, spare, info, read_or_fail=None):
  """read: (*record) -> (image's bytes, label); its errors stop the run.

  read_or_fail: the same where an error only leads to another try, with read.
  """
  read_or_fail = read_or_fail or read

  def load(record, window, replace):
    data, label = (read if replace else read_or_fail)(*record)
    if replace:
      return decoding.decode_or_replace(
        data, label, spare, window, **info.pixels
      )
    image, side = decoding.decode_sized(data, window, **info.pixels)
    return image, side, label, tf.constant(0)

  return load


def _path_loader(info, spare):
  return _loader(
    reading.path_reader(info),
    spare,
    info,
    reading.path_reader(info, strict=True),
  )


def _memory_loader(info, spare):
  """Decodes the whole split now -> the loader of its indices."""
  examples = reading.in_order(info).map(
    lambda data, label: decoding.decode_or_replace(
      data, label, spare, **info.pixels
    ),
    num_parallel_calls=calls_at_once(),
    deterministic=True,
  )
  images, _, labels, bad = zip(*examples.as_numpy_iterator(), strict=True)
  for index in np.flatnonzero(bad):
    reading.why_not(info, index)  # An error if a store does not answer.
  shapes = tf.constant([image.shape for image in images], tf.int64)
  ends = np.cumsum([image.size for image in images])
  # In one piece, because the images differ in shape.
  pixels = tf.constant(np.concatenate([image.ravel() for image in images]))
  labels, bad, ends = tf.constant(labels), tf.constant(bad), tf.constant(ends)

  def load(record, window, replace):
    del replace  # Has been done.
    (index,) = record
    shape = shapes[index]
    first = ends[index] - tf.reduce_prod(shape)
    image = tf.reshape(pixels[first : ends[index]], shape)
    image = tf.ensure_shape(image, [None, None, info.channels])
    image = decoding.cut(image, window) if window else image
    side = tf.cast(tf.reduce_min(shape[:2]), tf.int32)
    return image, side, labels[index], bad[index]

  return load


def _spare(info):
  """What replaces images; an error where none can be read or decoded."""
  try:
    return decoding.find_spare(info, reading.in_order(info))
  except DataError as error:
    why = reading.why_not(info, 0)  # An error if a store does not answer.
    if not why:
      raise
    first = show(info.paths[0])
    raise DataError(f'{error} The first is {first}: {why}.') from error


def _train_loader(info, in_memory):
  spare = _spare(info)
  if in_memory:
    return _memory_loader(info, spare)
  if info.paths:
    return _path_loader(info, spare)
  parse = reading.checked_parse(info)
  return _loader(lambda *record: parse(*record)[1:], spare, info)


# Batches.


def _options():
  options = tf.data.Options()
  options.deterministic = True
  # reading.py has cut the data for the hosts already.
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return options


def _batched(records, make_example, batch, finish=None, elsewhere=False):
  """Records -> batches of make_example(*record, replace=...).

  elsewhere: other machines make them.

  A batch is made in chunks. If one image of a chunk cannot be decoded, the
  whole chunk is made again with replace=True. A graph catches errors only in a
  dataset of its own, and to set that up takes as long as to decode a small
  image: too much for every image, little for a chunk.
  """
  chunk = max(n for n in range(1, 17) if batch % n == 0)

  def make_chunk(*records):
    records = tf.data.Dataset.from_tensor_slices(records)
    fast, safe = (
      records.map(functools.partial(make_example, replace=replace))
      for replace in (False, True)
    )
    fast = fast.ignore_errors().batch(chunk, drop_remainder=True)
    safe = safe.batch(chunk, drop_remainder=True)
    examples = fast.concatenate(safe).take(1).get_single_element()
    return finish(examples) if finish else examples

  def join(x):
    """[chunks, chunk, ...] -> [batch, ...]."""
    shape = tf.concat([[batch], tf.shape(x)[2:]], 0)
    return tf.ensure_shape(tf.reshape(x, shape), [batch, *x.shape[2:]])

  chunks = records.batch(chunk, drop_remainder=True).map(
    make_chunk,
    num_parallel_calls=tf.data.AUTOTUNE if elsewhere else calls_at_once(),
    deterministic=True,
  )
  batches = chunks.batch(batch // chunk, drop_remainder=True)
  batches = batches.map(lambda chunks: tf.nest.map_structure(join, chunks))
  return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


def _endless(dataset):
  # Declared, because between several workers a dataset that might end loses
  # the static shape of its batches.
  return dataset.apply(
    tf.data.experimental.assert_cardinality(
      tf.data.experimental.INFINITE_CARDINALITY
    )
  )


def _train_source(info, rows, seed, start_step, in_memory, buffer, shared):
  """-> an endless dataset of (epoch, *record), the loader of the records."""
  load = _train_loader(info, in_memory)
  if info.paths or in_memory:
    return reading.shuffled_indices(info, rows, seed, start_step), load
  read = reading.shared_records if shared else reading.shuffled_records
  return read(info, rows, seed, start_step, buffer), load


def _view_maker(load, augment, window, view_seed, with_side):
  """-> function (epoch, *record, replace) -> an example of train_batches."""

  def make_example(epoch, *record, replace):
    index = record[0]
    seed = view_seed + tf.stack([epoch, index])
    part = functools.partial(window, seed=seed) if window else None
    image, side, label, bad = load(record, part, replace)
    views = augment(image, seed)
    label = tf.cast(label, tf.int32)
    example = views | {'label': label, 'index': index, 'bad': bad}
    return example | ({'side': side} if with_side else {})

  return make_example


@_as_it_is
def train_batches(
  info,
  augment,
  rows: HostBatch,
  *,
  seed,
  start_step=0,
  shuffle_buffer=10_000,
  cache=False,
  window=None,
  finish=None,
  share=None,
  note=None,
):
  """Endless batches of views from start_step on, replica by replica.

  Args:
    augment: (uint8 or uint16 [H, W, C], seed [2]) -> {'views': a tuple, ...},
      of static shapes. The seed depends on (seed, epoch, index).
    shuffle_buffer: undecoded records; folders and cached sets need none.
    cache: keeps the split in memory, decoded. Records are then in the order of
      random access.
    window: (shape, seed) -> (top, left, height, width), the part of an image
      that augment gets: no more of a JPEG is decoded.
    finish: applied to the examples of augment, [n, ...], here on the host.
    share: a transformation that lets several workers make the elements of a
      dataset. The order and the examples after start_step are then not fixed.
    note: applied to every batch on this host, whoever made it. The batch then
      has 'side': int32 [b], the shorter sides of the images, which note takes
      out.
  """
  sources.check_batch(info, rows.global_batch)
  # Captured constants have to be where the input pipeline runs.
  with tf.device('CPU:0'):
    order_seed, view_seed = split_seed([seed % 2**31, seed // 2**31], 2)
    view_seed = tf.cast(view_seed, tf.int64)
    in_memory = bool(cache or info.keep)
    records, load = _train_source(
      info, rows, order_seed, start_step, in_memory, shuffle_buffer, bool(share)
    )
  make_example = _view_maker(load, augment, window, view_seed, bool(note))
  batches = _batched(
    records, make_example, rows.per_replica_batch, finish, bool(share)
  )
  batches = batches.apply(share) if share else batches
  batches = batches.map(reading.within_reach(info))
  return _endless(batches.map(note) if note else batches)


def steps_of_all(info, global_batch, num_hosts):
  """Steps until every host has read all of its part, the largest one too."""
  if info.paths or info.keep:
    return -(-info.num_examples // global_batch)
  largest = max(
    reading.host_part(info, HostBatch(global_batch, 1, num_hosts, host))[2]
    for host in range(num_hosts)
  )
  return -(-largest * num_hosts // global_batch)


def _eval_examples(info, rows, spare):
  """-> (index, *record) in order, padded to whole batches.

  The padding has index -1. A record is a place among the paths, or an image's
  bytes and its label.
  """
  size, none = info.num_examples, tf.constant(-1, tf.int64)
  steps = steps_of_all(info, rows.global_batch, rows.num_hosts)
  if info.paths:
    positions = reading.host_positions(rows, 0, steps)
    indices = positions.map(lambda i: tf.where(i < size, i, none))
    return indices.map(lambda i: (i, tf.maximum(i, 0)))
  if info.keep:
    # Numbered among the kept ones, as in training.
    numbers = tf.data.Dataset.range(size)
    numbered = tf.data.Dataset.zip((numbers, reading.in_order(info)))
    examples = numbered.shard(rows.num_hosts, rows.host)
    examples = examples.map(lambda i, example: (i, *example))
  else:
    examples = reading.host_records(info, rows)
    examples = examples.map(reading.checked_parse(info))
  padding = tf.data.Dataset.from_tensors((none, *spare)).repeat()
  return examples.concatenate(padding).take(steps * rows.size)


@_as_it_is
def eval_batches(info, preprocess, rows: HostBatch):
  """Every example once, in order, in the same number of batches on each host.

  Args:
    preprocess: (uint8 or uint16 [H, W, C], its index) -> image of static shape.

  Returns: a dataset of batches of one view, with index -1 for padding and
    'mask': float32 [b], 0 for padding and for what cannot be decoded.
  """
  with tf.device('CPU:0'):
    spare = _spare(info)
    examples = _eval_examples(info, rows, spare)
  if info.paths:
    load = _path_loader(info, spare)
  else:
    load = _loader(lambda data, label: (data, label), spare, info)

  def make_example(index, *record, replace):
    image, _, label, bad = load(record, None, replace)
    real = (index >= 0) & (bad == 0)
    return {
      'views': (preprocess(image, index),),
      'label': tf.cast(label, tf.int32),
      'index': index,
      'mask': tf.cast(real, tf.float32),
      'bad': tf.where(index >= 0, bad, 0),
    }

  batches = _batched(examples, make_example, rows.per_replica_batch)
  return batches.map(reading.within_reach(info))
