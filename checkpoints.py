"""Checkpoints: save, list, restore, fall back.

The list of checkpoints is the list of index files in the directory. The
`checkpoint` state file is written for other tools and never read: a broken one
makes TensorFlow start from step 0 without a word, and paths in it are followed.
"""

import json
import os
import re

import tensorflow as tf

_INDEX = re.compile(r'ckpt-(\d+)\.index')
# What TensorFlow raises for a cut, flipped or missing file; some are not
# TensorFlow's own exceptions.
_DAMAGE = (tf.errors.OpError, IndexError, ValueError, OSError)


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; the message says what to do."""


def steps(directory):
  """The steps of the checkpoints in a directory, in order."""
  if not tf.io.gfile.isdir(directory):
    return []
  names = map(_INDEX.fullmatch, tf.io.gfile.listdir(directory))
  return sorted(int(found[1]) for found in names if found)


def prefix(directory, step):
  """The path that TensorFlow wants: without .index."""
  return os.path.join(directory, f'ckpt-{step}')


def verify(path):
  """Reads every tensor, so that damage shows before anything is assigned."""
  reader = tf.train.load_checkpoint(path)
  for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)


def _files(directory, step):
  names = tf.io.gfile.listdir(directory)
  return [name for name in names if name.startswith(f'ckpt-{step}.')]


def set_aside(directory, step, mark):
  """Renames a checkpoint to <mark>-ckpt-N: kept, but never read again."""
  for name in _files(directory, step):
    source = os.path.join(directory, name)
    target = os.path.join(directory, f'{mark}-{name}')
    tf.io.gfile.rename(source, target, overwrite=True)


class Checkpoints:
  """The checkpoints of one run: `items` are the trackables they hold."""

  def __init__(self, directory, keep=5, chief=True, **items):
    self.directory = directory
    self.keep = max(keep, 1)
    self.chief = chief
    self.items = items
    self._checkpoint = tf.train.Checkpoint(**items)

  def save(self, step):
    """Writes ckpt-<step>, then deletes the oldest of those written here."""
    if step in steps(self.directory):
      return prefix(self.directory, step)
    if not self.chief:
      # Every worker takes part in reading variables; the chief's file counts.
      scratch = os.path.join(self.directory, f'.worker-{os.getpid()}')
      self._checkpoint.write(os.path.join(scratch, 'ckpt'))
      tf.io.gfile.rmtree(scratch)
      return prefix(self.directory, step)
    tf.io.gfile.makedirs(self.directory)
    path = self._checkpoint.write(prefix(self.directory, step))
    written = [s for s in self._listing() if s != step] + [step]
    for old in written[: -self.keep]:
      for name in _files(self.directory, old):
        tf.io.gfile.remove(os.path.join(self.directory, name))
    self._list(written[-self.keep :])
    tf.compat.v1.train.update_checkpoint_state(self.directory, path)
    return path

  def _listing(self):
    """The steps that runs in this directory wrote, oldest first.

    Only these are ever deleted: someone else's checkpoint stays.
    """
    try:
      with tf.io.gfile.GFile(self._listing_path()) as file:
        return [int(step) for step in json.load(file)]
    except (tf.errors.NotFoundError, ValueError, TypeError):
      return []

  def _list(self, written):
    temporary = self._listing_path() + '.new'
    with tf.io.gfile.GFile(temporary, 'w') as file:
      json.dump(written, file)
    tf.io.gfile.rename(temporary, self._listing_path(), overwrite=True)

  def _listing_path(self):
    return os.path.join(self.directory, 'checkpoints.json')

  def retire(self, found, say=print):
    """Renames the checkpoints of an earlier run, for a fresh start."""
    if found and self.chief:
      for step in found:
        set_aside(self.directory, step, 'old')
      say(f'{len(found)} earlier checkpoints are kept as old-ckpt-*')

  def restore(self, step):
    """Restores one step whole: every variable, no more and no fewer."""
    path = prefix(self.directory, step)
    try:
      self._checkpoint.read(path).assert_consumed()
    except (AssertionError, ValueError) as error:
      raise CheckpointError(
        f'{path} was written by another architecture or optimizer '
        f'({str(error).splitlines()[0][:200]}). Give the flags it was written '
        'with (config.json beside it), or another --model_dir.'
      ) from error

  def restore_latest(self, say=print):
    """-> the step restored, or None when there is no checkpoint at all."""
    found = steps(self.directory)
    for step in reversed(found):
      try:
        verify(prefix(self.directory, step))
      except _DAMAGE as error:
        reason = str(error).splitlines()[0][:160]
        say(
          f'ERROR: {prefix(self.directory, step)} is damaged ({reason}); it is '
          'set aside as corrupt-*, the one before it is used.'
        )
        if self.chief:
          set_aside(self.directory, step, 'corrupt')
        continue
      self.restore(step)
      return step
    if found:
      raise CheckpointError(
        f'all {len(found)} checkpoints in {self.directory} are damaged and set '
        'aside; pass --fresh_start to begin at step 0.'
      )
    return None


def latest_or_prefix(path):
  """A checkpoint's prefix, from itself or from the directory it lies in."""
  if tf.io.gfile.isdir(path):
    found = steps(path)
    if not found:
      raise CheckpointError(
        f'--checkpoint={path}: no ckpt-*.index in this directory. Name a '
        'model_dir of a training run, or a prefix such as .../ckpt-1000.'
      )
    return prefix(path, found[-1])
  if not tf.io.gfile.exists(path + '.index'):
    raise CheckpointError(
      f'--checkpoint={path}: there is no {path}.index. Name a model_dir of a '
      'training run, or a prefix such as .../ckpt-1000.'
    )
  return path


def load_parts(path, **items):
  """Restores some parts of a checkpoint, each of them whole."""
  try:
    status = tf.train.Checkpoint(**items).read(path)
    status.assert_existing_objects_matched().expect_partial()
  except (AssertionError, *_DAMAGE) as error:
    raise CheckpointError(
      f'{path} does not hold this architecture '
      f'({str(error).splitlines()[0][:200]}). Give the --resnet_depth, '
      '--width_multiplier, ... it was trained with.'
    ) from error
