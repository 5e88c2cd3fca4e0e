"""Locates, identifies and loads the checkpoint that --checkpoint names.

It is ours (with a config.json inside or beside it) or has the released layout,
and is given as a prefix, a folder, or a tarball of one.
"""

import atexit
import functools
import hashlib
import lzma
import os
import pathlib
import shutil
import tarfile
import tempfile
import zlib
from typing import NamedTuple

import tensorflow as tf

from cvr.checkpoints import (
  bundle,
  files,
  released,
  released_layout,
  released_settings,
  saving,
  stored,
)
from cvr.checkpoints.files import CheckpointError
from cvr.configs import config, places

_TARBALLS = ('.tar', '.tar.gz', '.tgz')
# How much smaller an archive of weights is, at most, and of nothing but them.
_RATIO, _ALWAYS = 20, 10**8
_READ_ENDS = 100  # How often the end of an archive is read, at most.
_NOT_UNPACKED = (
  *(tarfile.TarError, EOFError, OSError, ValueError, OverflowError),
  *(tf.errors.OpError, zlib.error, lzma.LZMAError),
)
_BIAS = 'probe/dense/bias/.ATTRIBUTES/VARIABLE_VALUE'


class Checkpoint(NamedTuple):
  """A checkpoint, and what it says of its model."""

  path: str  # its prefix
  released: bool
  settings: dict  # of Config
  methods: tuple  # the values of --pretrain_loss that it may belong to
  num_classes: int  # of its probe; 0 without one
  step: int
  record: dict  # config.json, or {}
  finetuned: bool = False
  save_counter: int = 1

  def describe(self):
    """One line for users."""
    if self.released:
      return f'released layout: {released_settings.infer(self.path).describe()}'
    return f'ours: {" or ".join(self.methods) or "?"}, step {self.step}'


def _unsafe(member):
  """Why a member of an archive is not unpacked, or ''."""
  path = pathlib.PurePosixPath(member.name)
  if path.is_absolute() or '..' in path.parts:
    return 'lies outside'
  return '' if member.isfile() or member.isdir() else 'is not a plain file'


def _room(path, folder):
  """How many bytes may be unpacked: what weights are, and the disk can hold."""
  free = shutil.disk_usage(folder).free
  return min(free * 9 // 10, _ALWAYS + _RATIO * tf.io.gfile.stat(path).length)


def _unannounced(target, size):
  """Why a data file is larger than its index, if that is there, or ''."""
  prefix, is_data, _ = target.rpartition('.data-')
  if not is_data or not os.path.exists(f'{prefix}.index'):
    return ''
  most = bundle.size_of_data(prefix)
  why = f'has {size:,} bytes, but its index announces {most:,}'
  return why if size > most else ''


class _Ending:
  """A file whose end cannot be read for ever.

  tarfile skips what a member says it has, in pieces, also behind the end: with
  the sizes that a header can hold, for centuries.
  """

  def __init__(self, file):
    self.file, self.ends = file, 0

  def read(self, size):
    data = self.file.read(size)
    self.ends += not data
    if self.ends > _READ_ENDS:
      raise EOFError('it ends before its last member')
    return data


@functools.lru_cache(maxsize=1)
def _unpack(path):
  """Unpacks a tarball's checkpoint, flat, into a folder removed at exit.

  Only files of a checkpoint are written, and under their bare names.
  """
  folder = tempfile.mkdtemp(prefix='checkpoint-')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  if why := places.endless(path):
    raise CheckpointError(f'--checkpoint={path} is {why}, and no archive.')
  total = 0
  try:
    room = _room(path, folder)
    with (
      tf.io.gfile.GFile(path, 'rb') as file,
      tarfile.open(fileobj=_Ending(file), mode='r|*') as archive,
    ):
      for member in archive:
        name = pathlib.PurePosixPath(member.name).name
        reason = _unsafe(member)
        total += member.size
        if member.size < 0 or total > room:
          reason = f'makes it more than the {room:,} bytes that may be unpacked'
        target = os.path.join(folder, name)
        wanted = member.isfile() and ('.index' in name or '.data-' in name)
        if wanted and os.path.exists(target):
          reason = 'occurs twice'
        reason = reason or (_unannounced(target, member.size) if wanted else '')
        if reason:
          raise CheckpointError(
            f'--checkpoint={path}: {files.plain(repr(member.name))} in the '
            f'archive {reason}. Nothing of it is used.'
          )
        if wanted:
          with open(target, 'wb') as out:
            shutil.copyfileobj(archive.extractfile(member), out)
  except CheckpointError:
    raise
  except _NOT_UNPACKED as error:
    raise CheckpointError(
      f'--checkpoint={path} cannot be unpacked ({files.first_line(error)}). Is '
      'the download complete?'
    ) from error
  return folder


def locate(path):
  """The prefix of the checkpoint that a prefix, folder or tarball names."""
  if path.endswith(_TARBALLS) and not tf.io.gfile.isdir(path):
    if not tf.io.gfile.exists(path):
      raise CheckpointError(f'--checkpoint={path}: there is no such file.')
    return files.latest_or_prefix(_unpack(path))
  return files.latest_or_prefix(path)


def there_is_one(folder):
  """Whether a folder holds a checkpoint."""
  return bool(files.steps(folder))


def identify(path):
  """Reads what a checkpoint says of its model -> Checkpoint."""
  prefix = locate(path)
  try:
    if released_settings.recognised(prefix):
      model = released_settings.infer(prefix)
      return Checkpoint(
        prefix,
        True,
        model.settings,
        model.methods,
        model.num_classes,
        model.step,
        {},
        model.finetuned,
        released_settings.counter(prefix, 'save_counter', default=1),
      )
    shapes = bundle.reader(prefix).get_variable_to_shape_map()
    record = _record(prefix)
  except released_layout.Mismatch as error:
    raise CheckpointError(
      f'{prefix} has the released layout, but {files.plain(error, 500)}.'
    ) from error
  except files.DAMAGE as error:
    raise files.damaged(prefix, error) from error
  settings = config.stored_settings(prefix, lambda _: record) if record else {}
  step = prefix.rpartition('-')[2]
  return Checkpoint(
    prefix,
    False,
    settings,
    (settings['pretrain_loss'],) if settings else (),
    shapes.get(_BIAS, [0])[0],
    int(step) if step.isdigit() else 0,
    record,
    settings.get('train_mode') == 'finetune',
  )


def _record(prefix):
  """The config.json in a checkpoint of ours, or beside it."""
  record = saving.read_record(prefix)
  folder = os.path.dirname(prefix) or '.'
  if record or 'config.json' not in files.listed(folder):
    return record
  return stored.read_json(os.path.join(folder, 'config.json'))


def fingerprint(path):
  """16 hexadecimal digits that identify the tensors of a checkpoint."""
  with tf.io.gfile.GFile(f'{path}.index', 'rb') as file:
    # It holds a checksum of every tensor.
    return hashlib.sha256(file.read()).hexdigest()[:16]


def load(path, names, method, probe=None, optimizer=None):
  """Loads parts of a state from a checkpoint -> a line for users.

  names: parts of the method (encoder, projector, ...) and 'probe'; an empty
  list means all of them. With an optimizer also its momentum and the step.
  """
  try:
    foreign = released_settings.recognised(path)
  except files.DAMAGE as error:
    raise files.damaged(path, error) from error
  if foreign and 'latent' in names:
    raise CheckpointError(
      f'--checkpoint={path} has the released layout, which has no latents: '
      'drop --probe_latent.'
    )
  if foreign:
    return _load_released(path, names, method, probe, optimizer)
  wanted = [n for n in names if n != 'probe']
  part = tf.train.Checkpoint(**{n: getattr(method, n) for n in wanted})
  items = {'method': part if names else method}
  if probe and (not names or 'probe' in names):
    items['probe'] = probe
  if optimizer:
    items['optimizer'] = optimizer
  loaded, left = saving.load_parts(path, **items)
  line = f'Loaded {", ".join(names or items)} from {path}: {loaded} tensors'
  if left:
    rest = ', '.join(f'{n} of the {part}' for part, n in left.items())
    line += f' (not read: {rest})'
  return line


def _load_released(path, names, method, probe, optimizer):
  parts = released_layout.parts_of(method, probe)
  parts = {n: layer for n, layer in parts.items() if not names or n in names}
  try:
    report = released.load(path, parts, optimizer)
    what = released_settings.infer(path).describe()
  except released_layout.Mismatch as error:
    raise CheckpointError(
      f'{path} does not fit this model: {error}. Leave out flags about the '
      'architecture: the checkpoint has them.'
    ) from error
  except files.DAMAGE as error:
    raise files.damaged(path, error) from error
  return f'Loaded {", ".join(parts)} from {path} ({what})\n{report.describe()}'
