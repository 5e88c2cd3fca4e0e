"""A data set's name -> what it holds and where: folders of images, and TFDS.

`describe` finds one split, checks it for what could fail hours later, and says
what users can do about it; nothing is decoded here.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import hashlib
import io
import json
import logging
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

from cvr.data import photo_patches

# Newer TFDS never asks Google's bucket for its metadata, older ones do, and
# hang for a while where there is no network. This is the newer default.
gcs_utils._is_gcs_disabled = True

DOWNLOAD_LIMIT = 10**9  # Bytes that are downloaded without asking.
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
  folder: str = dataclasses.field(default='', repr=False)  # of the paths
  # Of a source with shards the examples that count, sorted; (): all of them.
  keep: tuple[int, ...] = dataclasses.field(default=(), repr=False)
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


def a_few(info, count):
  """The same split with `count` of its examples, or what there is.

  From all over a folder, which is in the order of its classes; the last ones of
  TFDS' files, which were shuffled when they were prepared.
  """
  count = min(count, info.num_examples)
  if info.keep:
    return dataclasses.replace(
      info, num_examples=count, keep=info.keep[-count:]
    )
  if info.paths:
    picked = [i * info.num_examples // count for i in range(count)]
    paths = tuple(info.paths[i] for i in picked)
    labels = tuple(info.labels[i] for i in picked)
    return dataclasses.replace(
      info, num_examples=count, paths=paths, labels=labels
    )
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


def example_id(info, index):
  """What an example is called: its file below the split, or its TFDS id."""
  if info.paths:
    return os.path.relpath(info.paths[index], info.folder)
  index = info.keep[index] if info.keep else index
  shard = next(s for s in reversed(info.shards) if s.first <= index)
  number = index - shard.first + shard.skip
  return f'{os.path.basename(shard.path)}__{number}'


def overlap(info, other):
  """How many examples two splits share."""
  if info.paths:
    return len({*info.paths} & {*other.paths})
  if info.keep or other.keep:
    raise ValueError('of parts of a split nobody has asked this')
  shared = 0
  for a in info.shards:
    for b in other.shards:
      first, last = max(a.skip, b.skip), min(a.skip + a.take, b.skip + b.take)
      shared += max(0, last - first) if a.path == b.path else 0
  return shared


def fingerprint(info):
  """What JSON can hold, another one where the examples are others."""
  files = info.paths or [os.fspath(shard.path) for shard in info.shards]
  sizes = [
    (os.path.getsize(path), os.stat(path).st_mtime_ns)
    for path in files
    if '://' not in path
  ]
  parts = [[s.skip, s.take] for s in info.shards]
  text = json.dumps([list(files), sizes, parts, info.labels, info.keep])
  return {
    'dataset': info.name,
    'split': info.split,
    'images': info.num_examples,
    'files': hashlib.sha256(text.encode()).hexdigest()[:16],
  }


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
    name,
    split,
    len(paths),
    tuple(classes),
    tuple(paths),
    labels,
    folder=folder,
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


def _urls(builder):
  """{address of a file to download: what TFDS knows of it}."""
  try:
    return builder.url_infos or {}
  except ImportError:  # Some versions miss a dependency just here.
    return {}


def _download_bytes(builder):
  """What preparing would download, at most; None when nobody knows."""
  if builder.name == photo_patches.PhotoPatches.name:
    return 0
  if builder.info.download_size:
    return int(builder.info.download_size)
  # Since 4.9.5 TFDS ships no sizes of data sets, but those of their files.
  return sum(url.size for url in _urls(builder).values()) or None


def _unknown_hosts(builder):
  """Where its files come from, if this machine can find none of the hosts.

  Asked first, because TFDS goes on trying for minutes. A proxy may know more.
  """
  hosts = {urllib.parse.urlsplit(url).hostname for url in _urls(builder)}
  if urllib.request.getproxies():
    return []
  for host in hosts:
    with contextlib.suppress(OSError):
      socket.getaddrinfo(host, None)
      return []
  return sorted(hosts)


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
  unknown = _unknown_hosts(builder)
  if unknown:
    raise DataError(
      f'{where}, and this machine cannot find {", ".join(unknown)} to download '
      'it from. Copy it there from a machine with a network, where this made '
      f'it\n  {_command(name, folder)}'
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


@contextlib.contextmanager
def explained(info):
  """Says which file is damaged, where TensorFlow says how."""
  try:
    yield
  except tf.errors.OpError as error:
    if 'IteratorGetNext' not in str(error):
      raise
    reason = str(error).partition('\n')[0]
    # Operations put their own names before what is wrong.
    names = r'{{.*?}} |Error in user-defined .*? Iterator::\S+ '
    reason = re.sub(names, '', reason)[:300]
    where = damaged_shard(info)
    where = f'{where} is damaged: ' if where else ''
    raise DataError(
      f'--dataset={info.name}: {where}{reason}. Prepare the data set again; '
      'the same command then goes on from the last checkpoint.'
    ) from error


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
