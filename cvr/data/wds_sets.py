"""--dataset=wds:PATTERN: WebDataset's tar files, each sample in its place.

The headers of all files are read once, into an index: for each sample where its
image is in which file, and its label. An image is then read like a file in a
folder.
"""

import concurrent.futures
import contextlib
import functools
import glob
import hashlib
import itertools
import json
import logging
import os
import re

import tensorflow as tf

from cvr.configs.settings import show
from cvr.data import class_labels, splits, tars
from cvr.data.dataset_info import DataError, DatasetInfo, check_file, readable

MOST_FILES = 100_000
_THREADS = 16  # They wait for storage, not for each other.
# An index of so many samples is worth a file, which is read at the next start.
_KEPT = 10_000
_VERSION = 1  # Of that file.
_SAID = 10**9  # Bytes of which it is said that their headers are read.

log = logging.getLogger(__name__)


# Patterns.


def expanded(pattern):
  """'a-{00..02}.tar' and 'a-{x,y}.tar' -> all that they stand for."""
  match = re.search(r'\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}', pattern)
  if not match:
    return [pattern]
  first, last, words = match.groups()
  if words is None:
    if int(last) - int(first) >= MOST_FILES:
      raise ValueError(f'{match[0]} are more than {MOST_FILES:,} files')
    numbers = range(int(first), int(last) + 1)
    words = [str(n).zfill(len(first)) for n in numbers]
  else:
    words = words.split(',')
  rest = expanded(pattern[match.end() :])
  if len(words) * len(rest) > MOST_FILES:
    raise ValueError(f'{match[0]}: more than {MOST_FILES:,} files')
  begin = pattern[: match.start()]
  return [begin + word + end for word in words for end in rest]


def _files(name, pattern):
  """The files of a pattern; those that it names one by one may not exist."""
  try:
    patterns = expanded(pattern)
  except ValueError as error:
    raise DataError(f'--dataset={name}: {error}.') from error
  find = tf.io.gfile.glob if '://' in pattern else glob.glob
  files = []
  for one in patterns:
    files += sorted(find(one)) if {*'*?['} & {*one} else [one]
  return files


def _stamp(path):
  """-> (path, size, time of change), (path, None, None) if it is not there."""
  try:
    if '://' not in path:
      status = os.stat(path)
      return path, status.st_size, status.st_mtime_ns
    status = tf.io.gfile.stat(path)  # Of a local file, in whole seconds.
    return path, status.length, status.mtime_nsec
  except (FileNotFoundError, NotADirectoryError, tf.errors.NotFoundError):
    return path, None, None


def _stamps(name, pattern):
  files = _files(name, pattern)
  with readable(name), concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    stamps = tuple(pool.map(_stamp, files))
  for path in files:
    check_file(name, path)
  missing = [path for path, size, _ in stamps if size is None]
  if missing:
    raise DataError(
      f'--dataset={name}: {missing[0]} is missing ({len(missing)} of '
      f'{len(files)} files).'
    )
  if not files:
    raise DataError(f'--dataset={name}: no file matches {pattern}.')
  return stamps


# The index.


def _index_file(stamps, wanted):
  """Where the index of these files is kept."""
  text = json.dumps([_VERSION, wanted, stamps])
  digest = hashlib.sha256(text.encode()).hexdigest()[:32]
  folder = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return os.path.join(folder, 'compressive-ssl', f'wds-{digest}.json')


def _stored(path):
  """The index in a file; None without a good one."""
  with contextlib.suppress(OSError, ValueError, TypeError):
    with open(path) as file:
      return [[tars.Sample(*row) for row in rows] for rows in json.load(file)]
  return None


def _store(path, index):
  with contextlib.suppress(OSError):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f'{path}.{os.getpid()}', 'w') as file:
      json.dump(index, file)
    os.replace(file.name, path)


@functools.lru_cache(maxsize=4)
def _index(name, stamps, wanted):
  """-> for each file its Samples."""
  path = _index_file(stamps, wanted)
  index = _stored(path)
  if index is not None:
    return index

  def of_file(stamp):
    try:
      return tars.samples(*stamp[:2], wanted)
    except (tars.Damaged, OSError) as error:
      raise DataError(f'--dataset={name}: {stamp[0]}: {error}.') from error

  size = sum(stamp[1] for stamp in stamps)
  if size >= _SAID:
    count = f'{len(stamps):,} files, {size / 1e9:,.0f} GB'
    log.warning('%s: reading the headers of %s', name, count)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    index = list(pool.map(of_file, stamps))
  if sum(map(len, index)) >= _KEPT:
    _store(path, index)
  return index


# A split.


def _are_captions(samples):
  """Whether texts that nobody called labels are long or mostly different."""
  texts = {sample.label for sample in samples if sample.source == 'txt'}
  are_long = any('\n' in t or len(t) > tars.LONGEST for t in texts)
  return are_long or len(texts) > len(samples) / 2


def _check_sources(name, samples):
  sources = sorted({sample.source for sample in samples} - {''})
  if len(sources) > 1:
    raise DataError(
      f'--dataset={name}: some labels are in .{sources[0]}, some in '
      f'.{sources[1]}. Choose one, such as #{sources[0]}.'
    )


def _numbered(name, place, samples, train, where):
  """-> the names of the classes, the class of each sample."""
  _check_sources(name, [*samples, *train])
  labels, of_train = ([s.label for s in part] for part in (samples, train))
  if not place.label and _are_captions(train):
    log.warning(
      '%s: its texts are captions, not labels; #txt makes them labels', name
    )
    labels = [None] * len(labels)
  return class_labels.numbered(name, labels, of_train, where)


def read(path):
  """'FILE/IMAGE', a NUL, length of FILE, first byte, size -> the bytes."""
  path, place = path.split('\0')
  length, first, size = map(int, place.split())
  with tars.open_file(path[:length]) as file:
    file.seek(first)
    data = file.read(size)
  if len(data) < size:
    raise ValueError(
      f'{path[:length]} is cut off in {show(path[length + 1 :])}'
    )
  return data


def describe(name, place, split, **_):
  """Finds the samples of a split -> DatasetInfo."""
  split, pattern, train = splits.choose_file(
    name,
    place,
    split,
    lambda path: any(map(tf.io.gfile.exists, _files(name, path))),
  )
  files = _stamps(name, pattern)
  index = _index(name, files, place.label)
  samples = [*itertools.chain(*index)]
  of_train = samples
  if train != pattern:
    train_index = _index(name, _stamps(name, train), place.label)
    of_train = [*itertools.chain(*train_index)]
  paths = tuple(
    f'{path}/{sample.name}\0{len(path)} {sample.first} {sample.size}'
    for (path, _, _), of_file in zip(files, index, strict=True)
    for sample in of_file
  )
  if not paths:
    raise DataError(f'--dataset={name}: {pattern} holds no sample.')
  classes, labels = _numbered(
    name, place, samples, of_train, lambda i: paths[i].partition('\0')[0]
  )
  return DatasetInfo(
    name,
    split,
    len(paths),
    classes,
    paths,
    labels,
    read=read,
    files=tuple(path for path, _, _ in files),
    folder=os.path.dirname(files[0][0]),
  )
