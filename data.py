"""A data set's name -> batches {'views', 'label', 'index', 'bad'}.

The input is a pure function of (seed, step): no iterator is ever saved, a
resumed run asks for the batches from its step on. `describe` finds and checks
a data set, `train_batches` and `eval_batches` read it.

Two kinds of source. Random access (folders, and whatever is cached): the
example at any place of an epoch's permutation can be computed, without a
buffer. Records (TFDS): the order of the files and a shuffle buffer are seeded
by the epoch, and what comes before the start is skipped undecoded.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

import photo_patches
from randomness import fold_in, split_seed, uniform

# Newer TFDS never asks Google's bucket for its metadata, older ones do, and
# hang for a while where there is no network. This is the newer default.
gcs_utils._is_gcs_disabled = True

DOWNLOAD_LIMIT = 10**9  # Bytes that are downloaded without asking.
MAX_PIXELS = 64_000_000  # Larger images are taken for decompression bombs.
SPARE_TRIES = 1000
TFDS_NAME = re.compile(
  r'[a-z0-9_]+(/(?!\.+(:|$))[A-Za-z0-9_.\-]+)?(:\d+\.\d+\.\d+)?'
)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')

log = logging.getLogger(__name__)


class DataError(ValueError):
  """What is wrong with the data, and what to do: a line or two for users."""


class Shard(NamedTuple):
  """Records [skip, skip + take) of a file; the first has index `first`."""

  path: str
  skip: int
  take: int
  first: int


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """One split of a data set: what users see of it, and how it is read."""

  name: str
  split: str
  num_examples: int
  class_names: tuple[str, ...]  # () when there are no labels.
  paths: tuple[str, ...] = dataclasses.field(default=(), repr=False)
  labels: tuple[int, ...] = dataclasses.field(default=(), repr=False)
  shards: tuple[Shard, ...] = dataclasses.field(default=(), repr=False)
  # Record -> (image's bytes, label), for sources with shards.
  parse: Callable | None = dataclasses.field(default=None, repr=False)


def describe(name, data_dir=None, split='train', download=False):
  """Finds one split of a data set and checks it -> DatasetInfo.

  Args:
    name: 'folder:PATH', or a TFDS name such as 'imagenet2012' or
      'imagenet2012_subset/1pct'.
    data_dir: where TFDS keeps prepared data sets; its default when empty.
    split: a split or, for TFDS, a slice such as 'train[:10%]'. 'validation'
      is whichever of validation, val and test there is.
    download: allows downloads of more than 1 GB.
  """
  if name.startswith('folder:'):
    return _describe_folder(name, os.path.expanduser(name[7:]), split)
  return _describe_tfds(name, data_dir or None, split, download)


def check_batch(info, global_batch):
  """Raises unless the split fills at least one global batch."""
  if info.num_examples < global_batch:
    raise DataError(
      f'--dataset={info.name}: the {info.split} split has '
      f'{info.num_examples} examples, the global batch is {global_batch} '
      '(--train_batch_size). Use a smaller batch or more data.'
    )


# Folders.


def _images_below(folder):
  found = []
  for where, folders, files in os.walk(folder, followlinks=True):
    folders[:] = [f for f in folders if not f.startswith('.')]
    found += [
      os.path.join(where, f)
      for f in files
      if f.lower().endswith(IMAGE_SUFFIXES) and not f.startswith('.')
    ]
  return sorted(found)


def _subfolders(folder):
  with os.scandir(folder) as entries:
    return sorted(
      e.name for e in entries if e.is_dir() and not e.name.startswith('.')
    )


def _split_folder(name, root, split):
  """The folder that holds a split; the root itself when it is unlabelled."""
  if '://' in root or not os.path.isdir(root):
    raise DataError(
      f'--dataset={name}: there is no folder {root} on this machine. Give one '
      'that holds train/<class>/*.jpg, or images alone.'
    )
  if not re.fullmatch(r'\w+', split):
    raise DataError(
      f'--dataset={name}: split {split!r} (--train_split, --eval_split): a '
      'folder has whole splits only, such as train or validation.'
    )
  names = _subfolders(root)
  wanted = ('validation', 'val', 'test') if split == 'validation' else (split,)
  for wish in wanted:
    if wish in names:
      return os.path.join(root, wish)
  splits = {'train', 'validation', 'val', 'test'} & set(names)
  if split == 'train' and not splits:
    return root
  raise DataError(
    f'--dataset={name}: split {split!r} (--train_split, --eval_split) needs a '
    f'folder {os.path.join(root, wanted[0])}; there is: '
    f'{", ".join(names) or "no folder"}.'
  )


def _describe_folder(name, root, split):
  folder = _split_folder(name, root, split)
  with os.scandir(folder) as entries:
    loose = sorted(
      e.name for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES)
    )
  classes = [] if folder == root else _subfolders(folder)
  if loose and classes:
    raise DataError(
      f'--dataset={name}: {folder} holds both class folders '
      f'({classes[0]}, ...) and images ({loose[0]}, ...). Move the images '
      'into class folders, or the folders away.'
    )
  if not classes:
    paths, labels = _images_below(folder), None
    log.warning('%s: %d images without labels', folder, len(paths))
  else:
    classes, paths, labels = _labelled_images(name, root, folder, classes)
  if not paths:
    raise DataError(
      f'--dataset={name}: no image (*.jpg, *.jpeg, *.png) below {folder}.'
    )
  labels = tuple(labels or [-1] * len(paths))
  return DatasetInfo(
    name, split, len(paths), tuple(classes), tuple(paths), labels
  )


def _labelled_images(name, root, folder, found):
  """-> class names as the train split has them, paths, labels."""
  train = os.path.join(root, 'train')
  classes = (_subfolders(train) if os.path.isdir(train) else []) or found
  unknown = [c for c in found if c not in classes]
  if unknown:
    raise DataError(
      f'--dataset={name}: {os.path.join(folder, unknown[0])} is a class that '
      f'{train} does not have. Rename it or add it there.'
    )
  paths, labels = [], []
  for label, class_name in enumerate(classes):
    images = _images_below(os.path.join(folder, class_name))
    if not images and folder == train:
      raise DataError(
        f'--dataset={name}: class folder {os.path.join(folder, class_name)} '
        'holds no image (*.jpg, *.jpeg, *.png). Fill or remove it.'
      )
    paths += images
    labels += [label] * len(images)
  return classes, paths, labels


# TensorFlow Datasets.


def _closest(word, words):
  return ', '.join(difflib.get_close_matches(word, words, n=3, cutoff=0.0))


def _first_line(error):
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__


def _make_builder(name, data_dir):
  """The registered class's builder: features.json, which can name any module
  to import, is not followed.
  """
  if not TFDS_NAME.fullmatch(name):
    raise DataError(
      f'--dataset={name}: neither folder:PATH nor a TFDS name such as '
      'cifar10, imagenet2012_subset/1pct or imagenet2012:5.1.0.'
    )
  full, _, version = name.partition(':')
  base, _, config = full.partition('/')
  try:
    cls = tfds.builder_cls(base)
  except tfds.core.DatasetNotFoundError:
    known = tfds.list_builders(with_community_datasets=False)
    raise DataError(
      f'--dataset={name}: unknown to TFDS. Closest: {_closest(base, known)}. '
      'Your own images: --dataset=folder:PATH.'
    ) from None
  configs = list(cls.builder_configs)
  if config and config not in configs:
    raise DataError(
      f'--dataset={name}: {base} has no configuration {config!r}. '
      f'Closest: {_closest(config, configs) or "it has none"}.'
    )
  try:
    return cls(
      data_dir=data_dir, config=config or None, version=version or None
    )
  except (AssertionError, ValueError, OSError, tf.errors.OpError) as error:
    raise DataError(
      f'--dataset={name}, --data_dir={data_dir}: {_first_line(error)}'
    ) from error


def _download_bytes(builder):
  """What preparing would download, at most; None when nobody knows."""
  if builder.name == photo_patches.PhotoPatches.name:
    return 0
  if builder.info.download_size:
    return int(builder.info.download_size)
  # Since 4.9.5 TFDS ships no sizes of data sets, but those of their files.
  try:
    return sum(u.size for u in (builder.url_infos or {}).values()) or None
  except ImportError:  # Some versions miss a dependency just here.
    return None


@contextlib.contextmanager
def _locked(folder):
  """One process of this machine at a time; a second waits."""
  if '://' in folder:
    yield
    return
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, '.prepare.lock'), 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _command(name, folder):
  # Not `tfds build`, which in some versions needs Apache Beam to start.
  return (
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}', data_dir='{folder}').download_and_prepare()\""
  )


def _check_download(builder, name, download):
  folder = builder._data_dir_root
  where = f'--dataset={name} is not prepared in {folder} (--data_dir)'
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    manual = os.path.join(folder, 'downloads', 'manual')
    raise DataError(
      f'{where}. Put its files, which are downloaded by hand (for ImageNet '
      f'see docs/imagenet.md), into {manual}, then run\n'
      f'  {_command(name, folder)}'
    )
  size = _download_bytes(builder)
  if not download and (size is None or size > DOWNLOAD_LIMIT):
    amount = (
      'of unknown size' if size is None else f'of up to {size / 1e9:.1f} GB'
    )
    raise DataError(
      f'{where}, and would be a download {amount}. Add --download, or run\n'
      f'  {_command(name, folder)}'
    )


def _prepare(name, data_dir, download):
  """-> a builder whose data set is on disk."""
  builder = _make_builder(name, data_dir)
  if builder.info.splits:
    return builder
  _check_download(builder, name, download)
  folder = builder._data_dir_root
  try:
    with _locked(folder):
      builder = _make_builder(name, data_dir)  # Another may have prepared it.
      if not builder.info.splits:
        # What takes seconds is not worth TFDS' pages of progress bars.
        quick = builder.name == photo_patches.PhotoPatches.name
        hush = io.StringIO() if quick else sys.stderr
        with contextlib.redirect_stdout(hush), contextlib.redirect_stderr(hush):
          builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
          )
  except DataError:
    raise
  except Exception as error:  # Downloads and builders fail in many ways.
    raise DataError(
      f'--dataset={name}: preparing it in {folder} (--data_dir) failed: '
      f'{_first_line(error)}\nPrepare it where that works: '
      f'{_command(name, folder)}'
    ) from error
  return builder


def _choose_split(name, splits, split):
  base = re.match(r'\w*', split)[0]
  if base == 'validation' and base not in splits and 'test' in splits:
    log.warning('%s has no validation split: using its test split', name)
    split = split.replace('validation', 'test', 1)
  try:
    return split, splits[split]
  except Exception:  # KeyError, ValueError, AssertionError by version.
    raise DataError(
      f'--dataset={name}: no split {split!r} (--train_split, --eval_split). '
      f'It has {", ".join(splits)}; slices look like train[:10%].'
    ) from None


def _image_and_label(name, info, split):
  """-> key of the image, key of the label or None, class names."""
  features = info.features
  images = [
    key
    for key, feature in features.items()
    if type(feature) is tfds.features.Image
  ]
  key = 'image' if 'image' in images else images[0] if images else None
  if key is None or tf.as_dtype(features[key].dtype) != tf.uint8:
    raise DataError(
      f'--dataset={name}: not a data set of 8-bit images '
      f'(its features: {", ".join(features)}).'
    )
  supervised = (info.supervised_keys or (None, None))[1]
  for label in (supervised, 'label'):
    known = isinstance(label, str) and label in features
    feature = features[label] if known else None
    if isinstance(feature, tfds.features.ClassLabel):
      if split.startswith(('unlabelled', 'unlabeled')):
        break
      return key, label, tuple(feature.names)
  return key, None, ()


def _make_parse(features, key, label):
  def parse(record):
    example = features.deserialize_example(
      record, decoders={key: tfds.decode.SkipDecoding()}
    )
    return example[key], tf.constant(-1, tf.int64) if not label else tf.cast(
      example[label], tf.int64
    )

  return parse


def _describe_tfds(name, data_dir, split, download):
  builder = _prepare(name, data_dir, download)
  info = builder.info
  split, chosen = _choose_split(name, info.splits, split)
  file_format = getattr(info.file_format, 'value', 'tfrecord')
  if file_format != 'tfrecord':
    raise DataError(
      f'--dataset={name}: prepared as {file_format} in {builder.data_dir}; '
      'only tfrecord is read. Move that folder away and run\n'
      f'  {_command(name, builder._data_dir_root)}'
    )
  shards, first = [], 0
  for part in chosen.file_instructions:
    shards.append(Shard(os.fspath(part.filename), part.skip, part.take, first))
    first += part.take
  if not shards:
    raise DataError(
      f'--dataset={name}: split {split!r} (--train_split, --eval_split) is '
      'empty.'
    )
  _check_files(name, builder.data_dir, shards)
  key, label, class_names = _image_and_label(name, info, split)
  parse = _make_parse(info.features, key, label)
  return DatasetInfo(
    name, split, first, class_names, shards=tuple(shards), parse=parse
  )


def _check_files(name, folder, shards):
  there = set(tf.io.gfile.listdir(os.fspath(folder)))
  gone = [s.path for s in shards if os.path.basename(s.path) not in there]
  if gone:
    raise DataError(
      f'--dataset={name}: {gone[0]} is missing ({len(gone)} of {len(shards)} '
      'files). Delete its folder and prepare the data set again.'
    )


def damaged_shard(info):
  """The first shard that cannot be read to its end, or None.

  TensorFlow's DataLossError names no file: after one, this reads them all.
  """
  for shard in info.shards:
    try:
      tf.data.TFRecordDataset(shard.path).reduce(0, lambda n, _: n + 1)
    except tf.errors.OpError:
      return shard.path
  return None


# Reading: streams of (epoch, index, image's bytes, label).


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


def _shuffled_records(info, seed, start_step, batch, num_hosts, host, buffer):
  """Endless (epoch, index, record), files and buffer shuffled by the epoch."""
  shards, _, size = _host_part(info, num_hosts, host)
  start_epoch, seen = divmod(start_step * batch, size)

  def read_epoch(epoch):
    # Dataset.shuffle mixes the global seed in: fix that of this function.
    tf.compat.v1.set_random_seed(1)
    file_seed, buffer_seed = split_seed(fold_in(seed, epoch), 2)
    order = tf.argsort(uniform([len(shards)], file_seed))
    records = _host_records(info, num_hosts, host, order).shuffle(
      buffer,
      seed=tf.random.stateless_uniform(
        [], buffer_seed, 0, 2**31 - 1, tf.int64, alg='philox'
      ),
      reshuffle_each_iteration=False,
    )
    first = tf.cast(epoch == start_epoch, tf.int64)
    records = records.skip(first * seen)
    return tf.data.Dataset.zip(
      (tf.data.Dataset.from_tensors(epoch).repeat(), records)
    )

  epochs = tf.data.Dataset.range(start_epoch, tf.int64.max)
  return epochs.flat_map(read_epoch).map(lambda epoch, pair: (epoch, *pair))


def _fetcher(info, cache):
  """index -> (image's bytes, label); from memory when cached."""
  if info.paths:
    paths, labels = tf.constant(info.paths), tf.constant(info.labels, tf.int64)

    def fetch(index):
      return tf.io.read_file(paths[index]), labels[index]

    if not cache:
      return fetch
    examples = tf.data.Dataset.range(info.num_examples).map(fetch)
  else:
    examples = _host_records(info, 1, 0).map(_checked(info))
    examples = examples.map(lambda _, data, label: (data, label))
  parts = list(examples.batch(1024))
  data = tf.concat([part[0] for part in parts], 0)
  labels = tf.concat([part[1] for part in parts], 0)
  return lambda index: (data[index], labels[index])


def _places(start, stop, global_batch, num_hosts, host):
  """The host's places in the one order of all hosts, of steps [start, stop)."""
  batch = global_batch // num_hosts
  return tf.data.Dataset.range(start * batch, stop * batch).map(
    lambda i: i // batch * global_batch + host * batch + i % batch
  )


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


def _header_pixels(data):
  """Pixels that the header of a JPEG, PNG, BMP or GIF announces."""
  head = tf.strings.substr(tf.strings.substr(data, 0, 26) + b'\0' * 26, 0, 26)
  head = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int64)

  def number(at, digits):
    return tf.reduce_sum(
      head[at : at + len(digits)] * tf.constant(digits, tf.int64)
    )

  big, little = [2**24, 2**16, 2**8, 1], [1, 2**8, 2**16, 2**24]

  def others():
    png = tf.stack([number(16, big), number(20, big)])
    bmp = tf.stack([number(18, little), number(22, little)])
    gif = tf.stack([number(6, little[:2]), number(8, little[:2])])
    rest = tf.where(head[0] == ord('B'), bmp, gif)
    return tf.where(head[0] == 0x89, png, rest)

  sides = tf.cond(
    head[0] == 0xFF,
    lambda: tf.cast(tf.image.extract_jpeg_shape(data)[:2], tf.int64),
    others,
  )
  return tf.reduce_prod(tf.minimum(sides, 2**31 - 1))


def _decode(data):
  """JPEG, PNG, GIF (its first frame) or BMP -> uint8 [H, W, 3]."""
  small = tf.debugging.Assert(
    _header_pixels(data) <= MAX_PIXELS, ['The image is too large']
  )
  with tf.control_dependencies([small]):
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
  image.set_shape([None, None, 3])
  return image


def _find_spare(info, examples):
  """The first (bytes, label) that can be decoded: it replaces those that
  cannot.
  """
  decode = tf.function(_decode)
  for data, label in examples.take(SPARE_TRIES):
    with contextlib.suppress(tf.errors.OpError):
      decode(data)
      return data, label
  tried = min(SPARE_TRIES, info.num_examples)
  raise DataError(
    f'--dataset={info.name}: none of the first {tried} images of '
    f'{info.split} can be decoded. JPEG, PNG, GIF and BMP can.'
  )


def _decode_or_replace(data, label, spare):
  """-> (image, label, bad): the spare's, and bad 1, if decoding fails."""
  tries = tf.data.Dataset.from_tensor_slices(
    (tf.stack([data, spare[0]]), tf.stack([label, spare[1]]), [0, 1])
  )
  tries = tries.map(lambda data, *rest: (_decode(data), *rest))
  # The one way to catch an error in a graph. Files are not read in here.
  return tries.ignore_errors().take(1).get_single_element()


def _in_order(info, fetch):
  """All (bytes, label) of a split, by index."""
  if fetch:
    return tf.data.Dataset.range(info.num_examples).map(fetch)
  records = _host_records(info, 1, 0).map(_checked(info))
  return records.map(lambda _, data, label: (data, label))


def _finish(dataset, example, per_replica_batch):
  options = tf.data.Options()
  options.deterministic = True
  # The hosts' parts are cut here.
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  dataset = dataset.map(
    example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
  )
  dataset = dataset.batch(per_replica_batch, drop_remainder=True)
  return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _train_examples(
  info, seed, start_step, global_batch, num_hosts, host, shuffle_buffer, cache
):
  """-> an endless dataset of (epoch, index, *record), the function
  (index, *record) -> (image's bytes, label), and the spare example.
  """
  fetch = _fetcher(info, cache) if info.paths or cache else None
  spare = _find_spare(info, _in_order(info, fetch))
  if fetch:
    last = 2**62 // global_batch
    places = _places(start_step, last, global_batch, num_hosts, host)
    return _shuffled_places(places, seed, info.num_examples), fetch, spare
  batch = global_batch // num_hosts
  examples = _shuffled_records(
    info, seed, start_step, batch, num_hosts, host, shuffle_buffer
  )
  check = _checked(info)
  return examples, lambda *record: check(*record)[1:], spare


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
):
  """Endless batches of augmented views, from start_step on.

  Consecutive elements are the parts of consecutive replicas: each takes
  global_batch // num_hosts // per_replica_batch elements a step. Batches
  straddle epochs; in an epoch of a host every example of it comes once.

  Args:
    augment: (uint8 [H, W, 3], seed [2]) -> a view or a tuple of views, of
      static shapes. The seed belongs to (seed, epoch, index).
    shuffle_buffer: undecoded records; folders and cached sets need none.
    cache: keeps the whole split in memory, undecoded. (A set of records then
      comes in another order, that of random access.)

  Returns: a dataset of {'views': tuple of float32 [b, ...], 'label': int32
    [b] (-1 without labels), 'index': int64 [b], 'bad': int32 [b], 1 where
    another example replaces one that cannot be decoded}.
  """
  check_batch(info, global_batch)
  # Captured constants have to be where the input pipeline runs.
  with tf.device('CPU:0'):
    order_seed, view_seed = split_seed([seed % 2**31, seed // 2**31], 2)
    examples, load, spare = _train_examples(
      info,
      order_seed,
      start_step,
      global_batch,
      num_hosts,
      host,
      shuffle_buffer,
      cache,
    )

  def example(epoch, *record):
    index = record[0]
    image, label, bad = _decode_or_replace(*load(*record), spare)
    views = augment(image, fold_in(fold_in(view_seed, epoch), index))
    return {
      'views': views if isinstance(views, tuple) else (views,),
      'label': tf.cast(label, tf.int32),
      'index': index,
      'bad': bad,
    }

  batches = _finish(examples, example, per_replica_batch)
  # Said, because between several workers a data set that might end loses the
  # static shape of its batches.
  endless = tf.data.experimental.assert_cardinality(
    tf.data.experimental.INFINITE_CARDINALITY
  )
  return batches.apply(endless)


def _eval_examples(info, global_batch, num_hosts, host):
  """-> (index, image's bytes, label) in order, padded to whole batches with
  index -1, and the spare example.
  """
  fetch = _fetcher(info, cache=False) if info.paths else None
  spare = _find_spare(info, _in_order(info, fetch))
  size, none = info.num_examples, tf.constant(-1, tf.int64)
  if fetch:
    steps = -(-size // global_batch)
    places = _places(0, steps, global_batch, num_hosts, host)
    indices = places.map(lambda place: tf.where(place < size, place, none))
    return indices.map(lambda i: (i, *fetch(tf.maximum(i, 0)))), spare
  records = _host_records(info, num_hosts, host).map(_checked(info))
  padding = tf.data.Dataset.from_tensors((none, *spare)).repeat()
  batch = global_batch // num_hosts
  sizes = [_host_part(info, num_hosts, h)[2] for h in range(num_hosts)]
  total = -(-max(sizes) // batch) * batch
  return records.concatenate(padding).take(total), spare


def eval_batches(
  info, preprocess, *, global_batch, per_replica_batch, num_hosts=1, host=0
):
  """Every example once, in order, in as many batches on each host.

  Args:
    preprocess: uint8 [H, W, 3] -> image of static shape.

  Returns: a dataset of {'views': (float32 [b, ...],), 'label': int32 [b],
    'index': int64 [b], -1 for padding, 'mask': float32 [b], 0 for padding
    and for what cannot be decoded, 'bad': int32 [b], 1 for the latter}.
  """
  with tf.device('CPU:0'):
    examples, spare = _eval_examples(info, global_batch, num_hosts, host)

  def example(index, data, label):
    image, label, bad = _decode_or_replace(data, label, spare)
    real = (index >= 0) & (bad == 0)
    return {
      'views': (preprocess(image),),
      'label': tf.cast(label, tf.int32),
      'index': index,
      'mask': tf.cast(real, tf.float32),
      'bad': tf.where(index >= 0, bad, 0),
    }

  return _finish(examples, example, per_replica_batch)
