"""One split of a data set -> batches {'views', 'label', 'index', 'bad'}.

The input is a pure function of (seed, step): no iterator is ever saved, a
resumed run asks for the batches from its step on.

Two kinds of source. Random access (folders, and whatever is cached): the
example at any place of an epoch's permutation can be computed, without a
buffer. Records (TFDS): the order of the files and a shuffle buffer are seeded
by the epoch, and what comes before the start is skipped undecoded.
"""

import contextlib
import dataclasses
import functools
import logging

import numpy as np
import tensorflow as tf

from cvr.data import subsets
from cvr.data.sources import DataError, check_batch
from cvr.numerics.randomness import fold_in, split_seed, uniform

MAX_PIXELS = 64_000_000  # Larger images are taken for decompression bombs.
SPARE_TRIES = 1000

log = logging.getLogger(__name__)

# Streams of (epoch, index, image's bytes, label).


def _checked(info):
  """(index, record) -> (index, bytes, label), or an error that stops."""
  firsts = tf.constant([s.first for s in info.shards], tf.int64)
  paths = tf.constant([s.path for s in info.shards])
  classes = len(info.class_names)

  def check(index, record):
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

  return check


def _shard_reader(shards):
  """k -> the records of shard k, with their indices.

  A file cut inside a record's header ends silently: empty records fill up
  what is missing, and _checked refuses them.
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


def _host_part(info, num_hosts, host):
  """-> the host's shards, whether it keeps each num_hosts-th record of them,
  and the number of its examples, the same in every epoch.
  """
  if len(info.shards) >= num_hosts:
    shards = info.shards[host::num_hosts]
    return shards, False, sum(s.take for s in shards)
  return info.shards, True, len(range(host, info.num_examples, num_hosts))


def _host_records(info, num_hosts, host, order=None):
  """The host's (index, record)s once, files in the given order [F]."""
  shards, strided, _ = _host_part(info, num_hosts, host)
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
    records = records.filter(lambda index, _: index % num_hosts == host)
  return records


def _shuffled(records, buffer, seed):
  # Dataset.shuffle mixes the global seed in: fix that of this function.
  tf.compat.v1.set_random_seed(1)
  seed = tf.random.stateless_uniform(
    [], seed, 0, 2**31 - 1, tf.int64, alg='philox'
  )
  return records.shuffle(buffer, seed, reshuffle_each_iteration=False)


def _of_epoch(epoch, records):
  epochs = tf.data.Dataset.from_tensors(epoch).repeat()
  records = tf.data.Dataset.zip((epochs, records))
  return records.map(lambda epoch, pair: (epoch, *pair))


def _shuffled_records(info, seed, start_step, batch, num_hosts, host, buffer):
  """Endless (epoch, index, record), files and buffer shuffled by the epoch."""
  shards, _, size = _host_part(info, num_hosts, host)
  start_epoch, seen = divmod(start_step * batch, size)

  def read_epoch(epoch):
    file_seed, buffer_seed = split_seed(fold_in(seed, epoch), 2)
    order = tf.argsort(uniform([len(shards)], file_seed))
    records = _host_records(info, num_hosts, host, order)
    records = _shuffled(records, buffer, buffer_seed)
    first = tf.cast(epoch == start_epoch, tf.int64)
    return _of_epoch(epoch, records.skip(first * seen))

  epochs = tf.data.Dataset.range(start_epoch, tf.int64.max)
  return epochs.flat_map(read_epoch)


def _shared_records(info, seed, start_step, batch, num_hosts, host, buffer):
  """The same for workers that share an epoch's files: each takes whole ones.

  In no promised order, and after a resume from about where it was.
  """
  shards, strided, size = _host_part(info, num_hosts, host)
  read = _shard_reader(shards)
  # Files that a worker mixes: few, or it takes those of the next epochs too.
  together = max(1, min(16, len(shards) // 16))

  def read_file(epoch, k):
    file_seed = fold_in(fold_in(seed, epoch), k)
    records = _shuffled(read(k), max(1, buffer // together), file_seed)
    return _of_epoch(epoch, records)

  start = start_step * batch * len(shards) // size
  files = tf.data.Dataset.range(start, tf.int64.max)
  records = _shuffled_places(files, seed, len(shards)).interleave(
    read_file, cycle_length=together, num_parallel_calls=tf.data.AUTOTUNE
  )
  if strided:
    records = records.filter(lambda _, index, __: index % num_hosts == host)
  return records


def _file_reader(info):
  """index -> (image's bytes, label), for sources of single files."""
  paths, labels = tf.constant(info.paths), tf.constant(info.labels, tf.int64)
  return lambda index: (tf.io.read_file(paths[index]), labels[index])


def _places(start, stop, global_batch, num_hosts, host):
  """The host's places in the one order of all hosts, of steps [start, stop)."""
  batch = global_batch // num_hosts

  def of_step(step):
    first = step * global_batch + host * batch
    return tf.data.Dataset.range(first, first + batch)

  # By steps, because workers ask for each element of a source.
  return tf.data.Dataset.range(start, stop).flat_map(of_step)


def _shuffled_places(places, seed, num_examples):
  """Places of an endless run -> (epoch, index), a permutation an epoch."""

  def shuffle(place):
    epoch, offset = place // num_examples, place % num_examples
    index = tf.random.experimental.index_shuffle(
      offset, fold_in(seed, epoch), num_examples - 1
    )
    return epoch, index

  return places.map(shuffle)


# Decoding.


# The bytes of a header that are its two sides, lowest first, by the first byte
# of the file: PNG, BMP, and else GIF.
_SIDES = {0x89: ((19, 18, 17, 16), (23, 22, 21, 20)),
          0x42: ((18, 19, 20, 21), (22, 23, 24, 25)),
          0x47: ((6, 7), (8, 9))}  # fmt: skip


def _weights():
  """int64 [formats, 2, 26]: bytes . weights are the sides."""
  weights = np.zeros([len(_SIDES), 2, 26], np.int64)
  for k, sides in enumerate(_SIDES.values()):
    for side, places in enumerate(sides):
      weights[k, side, list(places)] = 256 ** np.arange(len(places))
  return weights


def _header_pixels(data):
  """Pixels that the header of a JPEG, PNG, BMP or GIF announces."""
  # Few operations, because this is done to every image.
  head = tf.cast(tf.io.decode_raw(data, tf.uint8, fixed_length=26), tf.int64)

  def jpeg():
    return tf.cast(tf.io.extract_jpeg_shape(data)[:2], tf.int64)

  def others():
    first = tf.constant(list(_SIDES)[:2], tf.int64)
    kind = 2 - tf.reduce_sum(
      tf.cast(head[0] == first, tf.int64) * tf.constant([2, 1], tf.int64)
    )
    sides = tf.reduce_sum(tf.constant(_weights())[kind] * head, -1)
    # A negative height is a BMP's whose first row is on top.
    return tf.minimum(sides, 2**32 - sides)

  return tf.reduce_prod(tf.cond(head[0] == 0xFF, jpeg, others))


def decode(data, window=None):
  """JPEG, PNG, GIF (its first frame) or BMP -> uint8 [H, W, 3].

  window: shape -> (top, left, height, width) of the part that is wanted.
  """
  # tf.debugging.Assert has a branch, which takes as long as a small image.
  small = tf.raw_ops.Assert(
    condition=_header_pixels(data) <= MAX_PIXELS,
    data=['The image is too large'],
  )

  def whole():
    return tf.io.decode_image(data, channels=3, expand_animations=False)

  def part():
    box = window(tf.io.extract_jpeg_shape(data))
    return tf.io.decode_and_crop_jpeg(data, box, channels=3)

  with tf.control_dependencies([small]):
    if window:
      is_jpeg = tf.strings.substr(data, 0, 2) == b'\xff\xd8'
      image = tf.cond(is_jpeg, part, lambda: _part(whole(), window))
    else:
      image = whole()
  image.set_shape([None, None, 3])
  return image


def _part(image, window):
  top, left, height, width = tf.unstack(window(tf.shape(image)))
  return tf.slice(image, [top, left, 0], [height, width, 3])


_attempt = tf.function(decode)


def _find_spare(info, examples):
  """The first (bytes, label) that can be decoded: it replaces those that
  cannot.
  """
  for data, label in examples.take(SPARE_TRIES):
    with contextlib.suppress(tf.errors.OpError):
      _attempt(data)
      return data, label
  tried = min(SPARE_TRIES, info.num_examples)
  raise DataError(
    f'--dataset={info.name}: none of the first {tried} images of '
    f'{info.split} can be decoded. JPEG, PNG, GIF and BMP can.'
  )


def _decode_or_replace(data, label, spare, window=None):
  """-> (image, label, bad): the spare's, and bad 1, if decoding fails."""
  tries = tf.data.Dataset.from_tensor_slices(
    (tf.stack([data, spare[0]]), tf.stack([label, spare[1]]), [0, 1])
  )
  tries = tries.map(lambda data, *rest: (decode(data, window), *rest))
  # The one way to catch an error in a graph. Files are not read in here.
  return tries.ignore_errors().take(1).get_single_element()


def _loads(read, spare):
  """-> (quick, careful) functions (window, *record) -> (image, label, bad).

  read: (*record) -> (image's bytes, label). Its errors are the data set's.
  """

  def quick(window, *record):
    data, label = read(*record)
    return decode(data, window), label, tf.constant(0)

  def careful(window, *record):
    return _decode_or_replace(*read(*record), spare, window)

  return quick, careful


def _in_order(info):
  """All (bytes, label) of a split, by index."""
  if info.paths:
    return tf.data.Dataset.range(info.num_examples).map(_file_reader(info))
  records = _host_records(info, 1, 0)
  if info.keep:
    kept = np.zeros(info.keep[-1] + 1, bool)
    kept[list(info.keep)] = True
    kept = tf.constant(kept)
    records = records.take(len(kept)).filter(lambda index, _: kept[index])
  return records.map(_checked(info)).map(lambda _, data, label: (data, label))


def labels_of(info):
  """The labels of a split by index, nothing decoded: int64 [n]."""
  if info.paths:
    return np.array(info.labels)
  with tf.device('CPU:0'):
    labels = _in_order(info).map(lambda _, label: label).batch(1024)
  return np.concatenate(list(labels.as_numpy_iterator()))


def kept(info, places):
  """The same split with the examples at some places alone, in order.

  Records that are left out would have to be read to be skipped, so that of
  those only what is kept is read, into memory.
  """
  places = sorted(int(i) for i in places)
  fewer = {'num_examples': len(places)}
  if not info.paths:
    keep = tuple(info.keep[i] for i in places) if info.keep else tuple(places)
    return dataclasses.replace(info, keep=keep, **fewer)
  paths = tuple(info.paths[i] for i in places)
  labels = tuple(info.labels[i] for i in places)
  return dataclasses.replace(info, paths=paths, labels=labels, **fewer)


def share_of(info, share, seed):
  """The same split with a share of every class, at least one example."""
  return kept(info, subsets.stratified(labels_of(info), share, seed))


def _decoded(info, spare):
  """-> (window, index) -> (image, label, bad), the split in memory, decoded."""
  examples = _in_order(info).map(
    lambda data, label: _decode_or_replace(data, label, spare),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  images, labels, bad = zip(*examples.as_numpy_iterator(), strict=True)
  shapes = tf.constant([image.shape for image in images], tf.int64)
  ends = np.cumsum([image.size for image in images])
  # In one piece, because images may have any shape.
  pixels = tf.constant(np.concatenate([image.ravel() for image in images]))
  labels, bad, ends = tf.constant(labels), tf.constant(bad), tf.constant(ends)

  def fetch(window, index):
    shape = shapes[index]
    first = ends[index] - tf.reduce_prod(shape)
    image = tf.reshape(pixels[first : ends[index]], shape)
    image = tf.ensure_shape(image, [None, None, 3])
    image = _part(image, window) if window else image
    return image, labels[index], bad[index]

  return fetch


def _finish(records, loads, example, per_replica_batch, finish=None):
  """Records -> batches of example(load, *record).

  loads: (quick, careful): the second is for parts of a batch in which the
  first one fails. The graph catches errors in a dataset of its own alone, and
  to set that up takes as long as to decode a small image: hence by parts.
  """
  options = tf.data.Options()
  options.deterministic = True
  # The hosts' parts are cut here.
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  size = max(n for n in range(1, 17) if per_replica_batch % n == 0)
  parts = per_replica_batch // size

  def examples(*part):
    records = tf.data.Dataset.from_tensor_slices(part)
    quick, careful = (
      records.map(functools.partial(example, load)) for load in loads
    )
    quick = quick.ignore_errors().batch(size, drop_remainder=True)
    careful = careful.batch(size, drop_remainder=True)
    made = quick.concatenate(careful).take(1).get_single_element()
    return finish(made) if finish else made

  def joined(x):
    shape = tf.concat([[per_replica_batch], tf.shape(x)[2:]], 0)
    return tf.ensure_shape(
      tf.reshape(x, shape), [per_replica_batch, *x.shape[2:]]
    )

  dataset = records.batch(size, drop_remainder=True).map(
    examples, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
  )
  dataset = dataset.batch(parts, drop_remainder=True)
  dataset = dataset.map(lambda batch: tf.nest.map_structure(joined, batch))
  return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _train_examples(
  info, seed, start_step, global_batch, num_hosts, host, buffer, cache, shared
):
  """-> an endless dataset of (epoch, index, *record), and (quick, careful)
  functions (window, index, *record) -> (image, label, bad).
  """
  spare = _find_spare(info, _in_order(info))
  if info.paths or cache or info.keep:
    last = 2**62 // global_batch
    places = _places(start_step, last, global_batch, num_hosts, host)
    places = _shuffled_places(places, seed, info.num_examples)
    if cache or info.keep:
      return places, (_decoded(info, spare),) * 2
    return places, _loads(_file_reader(info), spare)
  batch = global_batch // num_hosts
  records = _shared_records if shared else _shuffled_records
  examples = records(info, seed, start_step, batch, num_hosts, host, buffer)
  check = _checked(info)
  return examples, _loads(lambda *record: check(*record)[1:], spare)


def train_batches(
  info,
  augment,
  *,
  global_batch,
  per_replica_batch,
  seed,
  start_step=0,
  num_hosts=1,
  host=0,
  shuffle_buffer=10_000,
  cache=False,
  window=None,
  finish=None,
  share=None,
):
  """Endless batches of augmented views, from start_step on.

  Consecutive elements are the parts of consecutive replicas: each takes
  global_batch // num_hosts // per_replica_batch elements a step. Batches
  straddle epochs; in an epoch of a host every example of it comes once.

  Args:
    augment: (uint8 [H, W, 3], seed [2]) -> {'views': a tuple, ...}, of static
      shapes. The seed belongs to (seed, epoch, index).
    shuffle_buffer: undecoded records; folders and cached sets need none.
    cache: keeps the whole split in memory, decoded. (A set of records then
      comes in another order, that of random access.)
    window: (shape, seed) -> (top, left, height, width), the part of an image
      that augment gets: no more of a JPEG is decoded.
    finish: what is done to whole batches, here on the host.
    share: what has several workers make the elements of a dataset. Then the
      order is not promised, nor are exactly the batches after start_step.

  Returns: a dataset of what augment gives, as [b, ...], and {'label': int32
    [b] (-1 without labels), 'index': int64 [b], 'bad': int32 [b], 1 where
    another example replaces one that cannot be decoded}.
  """
  check_batch(info, global_batch)
  # Captured constants have to be where the input pipeline runs.
  with tf.device('CPU:0'):
    order_seed, view_seed = split_seed([seed % 2**31, seed // 2**31], 2)
    view_seed = tf.cast(view_seed, tf.int64)
    records, loads = _train_examples(
      info,
      order_seed,
      start_step,
      global_batch,
      num_hosts,
      host,
      shuffle_buffer,
      cache,
      bool(share),
    )

  def example(load, epoch, *record):
    index = record[0]
    seed = view_seed + tf.stack([epoch, index])
    part = functools.partial(window, seed=seed) if window else None
    image, label, bad = load(part, *record)
    views = augment(image, seed)
    label = tf.cast(label, tf.int32)
    return views | {'label': label, 'index': index, 'bad': bad}

  batches = _finish(records, loads, example, per_replica_batch, finish)
  if share:
    batches = batches.apply(share)
  # Said, because between several workers a data set that might end loses the
  # static shape of its batches.
  endless = tf.data.experimental.assert_cardinality(
    tf.data.experimental.INFINITE_CARDINALITY
  )
  return batches.apply(endless)


def steps_of_all(info, global_batch, num_hosts):
  """Batches until every host has read all of its own, the largest part too."""
  if info.paths or info.keep:
    return -(-info.num_examples // global_batch)
  sizes = [_host_part(info, num_hosts, h)[2] for h in range(num_hosts)]
  return -(-max(sizes) * num_hosts // global_batch)


def _eval_examples(info, global_batch, num_hosts, host):
  """-> (index, image's bytes, label) in order, padded to whole batches with
  index -1, and the spare example.
  """
  fetch = _file_reader(info) if info.paths else None
  spare = _find_spare(info, _in_order(info))
  size, none = info.num_examples, tf.constant(-1, tf.int64)
  if fetch:
    steps = steps_of_all(info, global_batch, num_hosts)
    places = _places(0, steps, global_batch, num_hosts, host)
    indices = places.map(lambda place: tf.where(place < size, place, none))
    return indices.map(lambda i: (i, *fetch(tf.maximum(i, 0)))), spare
  if info.keep:
    # Their places among those that are kept, as in training.
    numbered = tf.data.Dataset.zip(
      (tf.data.Dataset.range(size), _in_order(info))
    ).shard(num_hosts, host)
    records = numbered.map(lambda i, example: (i, *example))
  else:
    records = _host_records(info, num_hosts, host).map(_checked(info))
  padding = tf.data.Dataset.from_tensors((none, *spare)).repeat()
  total = steps_of_all(info, global_batch, num_hosts) * global_batch
  return records.concatenate(padding).take(total // num_hosts), spare


def eval_batches(
  info, preprocess, *, global_batch, per_replica_batch, num_hosts=1, host=0
):
  """Every example once, in order, in as many batches on each host.

  Args:
    preprocess: (uint8 [H, W, 3], its index) -> image of static shape.

  Returns: a dataset of {'views': (float32 [b, ...],), 'label': int32 [b],
    'index': int64 [b], -1 for padding, 'mask': float32 [b], 0 for padding
    and for what cannot be decoded, 'bad': int32 [b], 1 for the latter}.
  """
  with tf.device('CPU:0'):
    examples, spare = _eval_examples(info, global_batch, num_hosts, host)

  def example(load, index, *record):
    image, label, bad = load(None, *record)
    real = (index >= 0) & (bad == 0)
    return {
      'views': (preprocess(image, index),),
      'label': tf.cast(label, tf.int32),
      'index': index,
      'mask': tf.cast(real, tf.float32),
      'bad': tf.where(index >= 0, bad, 0),
    }

  loads = _loads(lambda *record: record, spare)
  return _finish(examples, loads, example, per_replica_batch)
