"""--dataset=NAME[/CONFIG][:VERSION]: data sets of TensorFlow Datasets.

They are prepared (downloaded, written as TFRecord files) if the disk lacks
them; an error says what the user can do about it.
"""

import contextlib
import difflib
import fcntl
import io
import os
import re
import socket
import sys
import urllib.parse
import urllib.request

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

from cvr.data import photo_patches
from cvr.data.dataset_info import (
  DOWNLOAD_LIMIT,
  DataError,
  DatasetInfo,
  Shard,
)
from cvr.data.splits import choose

# Newer TFDS never asks Google's bucket for its metadata, older ones do, and
# hang for a while where there is no network. This is the newer default.
gcs_utils._is_gcs_disabled = True

TFDS_NAME = re.compile(
  r'[a-z0-9_]+(/(?!\.+(:|$))[A-Za-z0-9_.\-]+)?(:\d+\.\d+\.\d+)?'
)


def _closest(word, words):
  return ', '.join(difflib.get_close_matches(word, words, n=3, cutoff=0.0))


def _first_line(error):
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__


def _make_builder(name, data_dir):
  """The builder of the class that TFDS registers under this name.

  Not the one that a prepared folder's features.json describes: that file can
  make TFDS import any module.
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
  """{URL of a file to download: its size and checksum, as TFDS knows them}."""
  try:
    return builder.url_infos or {}
  except ImportError:  # Some versions of TFDS lack a dependency of this.
    return {}


def _download_bytes(builder):
  """The most that preparing would download; None if it is unknown."""
  if builder.name == photo_patches.PhotoPatches.name:
    return 0
  if builder.info.download_size:
    return int(builder.info.download_size)
  # Since 4.9.5 TFDS ships the sizes of files, not of whole data sets.
  return sum(url.size for url in _urls(builder).values()) or None


def _unknown_hosts(builder):
  """The hosts of its files, if this machine can resolve none of them.

  Checked first, because TFDS retries for minutes. Behind a proxy the proxy
  resolves names, so that nothing can be concluded.
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
  """Lets in one process of this machine at a time."""
  if '://' in folder:
    yield
    return
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, '.prepare.lock'), 'w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _command(name, folder):
  # Not `tfds build`: some versions of it need Apache Beam.
  return (
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{name}', data_dir='{folder}').download_and_prepare()\""
  )


def _check_download(builder, name, download):
  """Raises DataError if the data set has to be prepared in another way."""
  folder = builder._data_dir_root
  where = f'--dataset={name} is not prepared in {folder} (--data_dir)'
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    manual = os.path.join(folder, 'downloads', 'manual')
    raise DataError(
      f'{where}. Download its files by hand (for ImageNet see '
      f'docs/imagenet.md), put them into {manual}, and run\n  '
      f'{_command(name, folder)}'
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
      f'{where}, and this machine cannot find {", ".join(unknown)} for the '
      'download. Run this on a machine with a network and copy the result:\n  '
      f'{_command(name, folder)}'
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
      # Another process may have prepared it in the meantime.
      builder = _make_builder(name, data_dir)
      if not builder.info.splits:
        # TFDS prints pages of progress bars: too much for a few seconds.
        quick = builder.name == photo_patches.PhotoPatches.name
        out = io.StringIO() if quick else sys.stderr
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
          builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
          )
  except DataError:
    raise
  except Exception as error:  # Downloads and builders fail in many ways.
    raise DataError(
      f'--dataset={name}: preparing it in {folder} (--data_dir) failed: '
      f'{_first_line(error)}\nPrepare it on another machine: '
      f'{_command(name, folder)}'
    ) from error
  return builder


def _choose_split(name, splits, split):
  base = re.match(r'\w*', split)[0]
  if base == 'validation':
    # In every slice.
    split = split.replace(base, choose(name, base, [*splits]))
  try:
    return split, splits[split]
  except Exception:  # KeyError, ValueError or AssertionError, by version.
    raise DataError(
      f'--dataset={name}: no split {split!r} (--train_split, --eval_split). '
      f'It has {", ".join(splits)}; slices look like train[:10%].'
    ) from None


def _image_and_label(name, info, split):
  """-> the key of the image, the key of the label or None, class names."""
  features = info.features
  images = [
    key
    for key, feature in features.items()
    if type(feature) is tfds.features.Image
  ]
  key = 'image' if 'image' in images else images[0] if images else None
  known = (tf.uint8, tf.uint16)
  if key is None or tf.as_dtype(features[key].dtype) not in known:
    raise DataError(
      f'--dataset={name}: not a data set of 8-bit or 16-bit images '
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


def _shards_of(chosen):
  shards, first = [], 0
  for part in chosen.file_instructions:
    shards.append(Shard(os.fspath(part.filename), part.skip, part.take, first))
    first += part.take
  return tuple(shards)


def _check_files(name, folder, shards):
  present = set(tf.io.gfile.listdir(os.fspath(folder)))
  missing = [s.path for s in shards if os.path.basename(s.path) not in present]
  if missing:
    raise DataError(
      f'--dataset={name}: {missing[0]} is missing ({len(missing)} of '
      f'{len(shards)} files). Delete its folder and prepare the data set again.'
    )


def describe(name, data_dir, split, download):
  """Finds a split, prepares the data set if need be -> DatasetInfo."""
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
  shards = _shards_of(chosen)
  if not shards:
    raise DataError(
      f'--dataset={name}: split {split!r} (--train_split, --eval_split) is '
      'empty.'
    )
  _check_files(name, builder.data_dir, shards)
  key, label, class_names = _image_and_label(name, info, split)
  photos = builder.name == photo_patches.PhotoPatches.name
  parse = _make_parse(info.features, key, label)
  return DatasetInfo(
    name,
    split,
    sum(shard.take for shard in shards),
    class_names,
    shards=shards,
    parse=parse,
    cluster='photograph' if photos else '',
  )
