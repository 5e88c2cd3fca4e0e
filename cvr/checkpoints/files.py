"""The files of checkpoints: list, verify, rename; damaged or unreachable ones.

The list of checkpoints is the list of index files in the directory. The
`checkpoint` state file is written for other tools and never read: a broken one
makes TensorFlow start from step 0 without a word, and paths in it are followed.
"""

import contextlib
import os
import re

import tensorflow as tf

from cvr.checkpoints import bundle
from cvr.startup import out_of_reach, reason

_INDEX = re.compile(r'ckpt-(\d+)\.index')
# What TensorFlow raises for a cut, flipped or missing file; some are not
# TensorFlow's own exceptions.
DAMAGE = (tf.errors.OpError, IndexError, ValueError, OSError)


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; the message says what to do."""


class NotSaved(Exception):
  """A checkpoint that cannot be written, for now; the message says why."""


def listed(directory):
  """The names in a directory; none where it does not exist.

  With listdir and isdir alone a store that does not answer looks empty, and a
  run would start at step 0 and overwrite its checkpoints.
  """
  for _ in range(2):
    try:
      if not tf.io.gfile.stat(directory).is_directory:
        return []
    except tf.errors.NotFoundError:
      return []
    with contextlib.suppress(tf.errors.NotFoundError):
      return tf.io.gfile.listdir(directory)
  raise tf.errors.UnavailableError(None, None, f'{directory} gives no list')


def write_atomically(path, content):
  """Writes text or bytes so that readers see the old file or the new one."""
  binary = isinstance(content, bytes)
  with tf.io.gfile.GFile(f'{path}.new', 'wb' if binary else 'w') as file:
    file.write(content)
  tf.io.gfile.rename(f'{path}.new', path, overwrite=True)


def steps(directory):
  """The steps of the checkpoints in a directory, in order."""
  matches = map(_INDEX.fullmatch, listed(directory))
  return sorted(int(match[1]) for match in matches if match)


def prefix(directory, step):
  """The path that TensorFlow wants: without .index."""
  return os.path.join(directory, f'ckpt-{step}')


def verify(path):
  """Reads every tensor, so that damage shows before anything is assigned."""
  reader = bundle.reader(path)
  for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)


def plain(text, most=200):
  """Text of a foreign file for a terminal: no control characters, bounded."""
  text = str(text)
  text = text if len(text) <= most else f'{text[: most - 3]}...'
  return ''.join(c if c.isprintable() else '?' for c in text)


def first_line(error):
  """The error in one line, without the operation that raised it."""
  return plain(reason(error))


def blame(path, error):
  """Raises an error if a checkpoint cannot be reached or opened.

  TensorFlow's reader reports the same `error` for that and for a damaged file.
  """
  if out_of_reach(error):
    raise error
  folder, base = os.path.split(path)
  for name in listed(folder or '.'):
    if name.startswith(f'{base}.'):
      with contextlib.suppress(tf.errors.NotFoundError, bundle.Forged):
        opened = os.path.join(folder, name)
        bundle.check_file(opened)
        with tf.io.gfile.GFile(opened, 'rb') as file:
          file.read(1)


def damaged(path, error):
  """The error for a damaged checkpoint; raises if it is only unreachable."""
  blame(path, error)
  return CheckpointError(f'{path} cannot be read ({first_line(error)}).')


def files(directory, step):
  """The files of a checkpoint, its index first: the rest is nothing without."""
  names = [n for n in listed(directory) if n.startswith(f'ckpt-{step}.')]
  return sorted(names, reverse=True)


def cut_short(directory, after):
  """The later steps that have data files but no index."""
  matches = (re.match(r'ckpt-(\d+)\.data-', n) for n in listed(directory))
  with_data = {int(match[1]) for match in matches if match}
  return sorted(s for s in with_data - {*steps(directory)} if s > after)


def set_aside(directory, step, mark):
  """Renames a checkpoint to <mark>-ckpt-N: kept, but never read again."""
  names, label = listed(directory), mark
  while any(name.startswith(f'{label}-ckpt-{step}.') for name in names):
    number = int(label.rpartition('-')[2]) + 1 if label != mark else 2
    label = f'{mark}-{number}'
  for name in files(directory, step):
    source = os.path.join(directory, name)
    tf.io.gfile.rename(source, os.path.join(directory, f'{label}-{name}'))


def to_disk(paths):
  """Flushes local files to disk: TensorFlow leaves that to the system."""
  folders = {os.path.dirname(path) for path in paths}
  for path in (*paths, *folders):
    if '://' in path:
      continue
    handle = os.open(path, os.O_RDONLY)
    try:
      os.fsync(handle)
    except OSError:
      if path not in folders:  # Some file systems can do it for files only.
        raise
    finally:
      os.close(handle)


def latest_or_prefix(path):
  """A checkpoint's prefix, from itself or from the directory it lies in."""
  if tf.io.gfile.isdir(path):
    available = steps(path)
    if not available:
      raise CheckpointError(
        f'--checkpoint={path}: no ckpt-*.index in this directory. Name a '
        'model_dir of a training run, or a prefix such as .../ckpt-1000.'
      )
    return prefix(path, available[-1])
  if not tf.io.gfile.exists(path + '.index'):
    raise CheckpointError(
      f'--checkpoint={path}: there is no such folder, and no {path}.index. '
      'Name a model_dir of a training run, or a prefix such as .../ckpt-1000.'
    )
  return path
