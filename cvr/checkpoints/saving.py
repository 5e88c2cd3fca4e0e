"""Checkpoints: save, restore, fall back."""

import contextlib
import json
import os
import re
import tempfile

import tensorflow as tf

from cvr.checkpoints import files, released
from cvr.checkpoints.files import DAMAGE, CheckpointError

_VALUE = '.ATTRIBUTES/VARIABLE_VALUE'
_SLOT = '/.OPTIMIZER_SLOT/'
_SHOWN = 10  # Names in a message.
_MAX_FAILURES = 3  # Saves in a row that may fail before the run ends.


_RECORD = 'record/.ATTRIBUTES/py_state'


class Record(tf.train.experimental.PythonState):
  """config.json inside of a checkpoint: a copy of it alone tells its model."""

  def __init__(self, values):
    super().__init__()
    self._text = json.dumps(values)

  def serialize(self):
    return self._text

  def deserialize(self, string_value):
    """Nothing: a run that goes on has settings of its own."""


def read_record(path):
  """The Record in a checkpoint; {} in one without."""
  reader = tf.train.load_checkpoint(path)
  if not reader.has_tensor(_RECORD):
    return {}
  return json.loads(reader.get_tensor(_RECORD))


def _shapes(root):
  """Name in a checkpoint -> shape, of every variable but optimizer slots."""
  shapes, nodes, seen = {}, [('', root)], {id(root)}
  # Grows while it is walked: breadth first, as TensorFlow gives its names.
  for path, node in nodes:
    if isinstance(node, tf.Variable):
      shapes[path + _VALUE] = node.shape.as_list()
    for name, child in tf.train.TrackableView.children(node).items():
      if id(child) not in seen:
        seen.add(id(child))
        name = name.replace('.', '..').replace('/', '.S')
        nodes.append((f'{path}{name}/', child))
  return shapes


def difference(path, root, parts=('',)):
  """Why a checkpoint does not fit root, in words; '' when it does.

  parts: the prefixes of names that root has to hold whole. Asked before
  anything is assigned: TensorFlow overwrites some variables before it meets one
  that does not fit, and fills a shallow network from a deeper one in silence.
  """
  here = _shapes(root)
  saved = tf.train.load_checkpoint(path).get_variable_to_shape_map()
  there = {
    name: shape
    for name, shape in saved.items()
    if name.endswith(_VALUE) and _SLOT not in name and name.startswith(parts)
  }
  found = {
    'missing': {f'{n} {here[n]}' for n in here.keys() - there.keys()},
    'unexpected': {f'{n} {there[n]}' for n in there.keys() - here.keys()},
    'of another shape': {
      f'{name} {there[name]} for {here[name]}'
      for name in here.keys() & there.keys()
      if here[name] != there[name]
    },
  }
  found = {
    k: sorted(n.replace('/' + _VALUE, '') for n in v) for k, v in found.items()
  }
  return '; '.join(
    f'{len(names)} {what}: {", ".join(names[:_SHOWN])}'
    + (', ...' if len(names) > _SHOWN else '')
    for what, names in found.items()
    if names
  )


class Checkpoints:
  """The checkpoints of one run: `items` are the trackables they hold."""

  def __init__(self, directory, keep=5, chief=True, alone=True, **items):
    self.directory = directory
    self.keep = max(keep, 1)
    self.chief = chief
    # With others, who wait for us in the middle of a save, none may fail.
    self._may_fail = _MAX_FAILURES if alone else 1
    self._items = items
    self._checkpoint = tf.train.Checkpoint(**items)
    self._newest = None
    self._failures = 0

  def save(self, step, needed=True, say=print):
    """Writes ckpt-<step>, then deletes the oldest of those written here.

    Deletes nothing before the new one is on the disk and was read back, but
    what a run that was killed would have deleted then. A save that is not
    needed yet may fail, on a full disk, a few times in a row.
    """
    # Not asked of the directory: workers might see it at different moments.
    path = files.prefix(self.directory, step)
    if step == self._newest:
      return path
    self._newest = step
    if not self.chief:
      # Every worker takes part in reading variables; the chief's file counts.
      with tempfile.TemporaryDirectory() as scratch:
        self._checkpoint.write(os.path.join(scratch, 'ckpt'))
      return path
    tf.io.gfile.makedirs(self.directory)
    try:
      self._save(step)
      self._failures = 0
    except DAMAGE as error:
      self._newest = None
      self._failures += 1
      what = (
        f'the checkpoint of step {step} could not be written '
        f'({files.first_line(error)})'
      )
      with contextlib.suppress(*DAMAGE):  # The store may be out of reach.
        self._remove(step)
        self._clear_temporary()
      if needed or self._failures >= self._may_fail:
        raise files.NotSaved(
          f'{what}. Make room in {self.directory}'
        ) from error
      say(f'ERROR: {what}. Going on; make room in {self.directory}.')
    return path

  def _save(self, step):
    path = files.prefix(self.directory, step)
    self._clear_temporary()
    # A run that was killed may not have come to that.
    written = self._prune([s for s in self._listing() if s != step]) + [step]
    # Listed first: if we are killed on the way, the next run knows it as ours.
    self._write('checkpoints.json', json.dumps(written))
    # TensorFlow writes an index in place: readers would see a half of it.
    temporary = f'{path}_temp'
    self._checkpoint.write(files.prefix(temporary, step))
    names = files.files(temporary, step)[::-1]
    files.to_disk([os.path.join(temporary, name) for name in names])
    for name in names:
      source = os.path.join(temporary, name)
      tf.io.gfile.rename(source, self._path(name), overwrite=True)
    self._clear_temporary()
    files.to_disk([self._path(name) for name in names])
    files.verify(path)
    self._write('checkpoint', f'model_checkpoint_path: "ckpt-{step}"\n')
    self._write('checkpoints.json', json.dumps(self._prune(written)))

  def _prune(self, written):
    """Deletes all of these steps but the newest -> those that are left.

    What is damaged or was cut short does not count.
    """
    there = files.steps(self.directory)
    kept = [s for s in written if s in there][-self.keep :]
    for old in written:
      if old not in kept:
        self._remove(old)
    return kept

  def _remove(self, step):
    for name in files.files(self.directory, step):
      tf.io.gfile.remove(self._path(name))

  def _clear_temporary(self):
    """Removes what runs that were killed while they wrote left behind."""
    for name in files.listed(self.directory):
      name = name.rstrip('/')
      if re.fullmatch(r'ckpt-\d+_temp', name):
        tf.io.gfile.rmtree(self._path(name))
      listing = name in ('checkpoint', 'checkpoints.json')
      if listing and tf.io.gfile.isdir(self._path(name)):
        # Somebody's folder, where a file of ours has to be.
        tf.io.gfile.rename(self._path(name), self._path(f'corrupt-{name}'))

  def _listing(self):
    """The steps that runs in this directory wrote, oldest first.

    Only these are ever deleted: someone else's checkpoint stays.
    """
    try:
      with tf.io.gfile.GFile(self._path('checkpoints.json')) as file:
        return [int(step) for step in json.load(file)]
    except (tf.errors.NotFoundError, ValueError, TypeError):
      return []

  def _write(self, name, text):
    files.write_atomically(self._path(name), text)

  def _path(self, name):
    return os.path.join(self.directory, name)

  def retire(self, found, say=print):
    """Renames the checkpoints of an earlier run, for a fresh start."""
    if found and self.chief:
      for step in found:
        files.set_aside(self.directory, step, 'old')
      say(f'{len(found)} earlier checkpoints are kept as old-ckpt-*')

  def restore(self, step, say=print):
    """Restores one step whole: every variable, no more and no fewer."""
    path = files.prefix(self.directory, step)
    try:
      foreign = released.recognised(path)
      reason = '' if foreign else difference(path, self._checkpoint)
    except DAMAGE as error:
      raise files.damaged(path, error) from error
    if foreign:
      self._restore_released(path, step, say)
      self._newest = step
      return
    if not reason:
      try:
        self._checkpoint.read(path).assert_consumed()
        self._newest = step
        return
      except (AssertionError, ValueError) as error:
        reason = files.first_line(error)
    raise CheckpointError(
      f'{path} was written by another architecture or optimizer ({reason}). '
      'Give the flags it was written with (config.json beside it), or another '
      '--model_dir.'
    )

  def _restore_released(self, path, step, say):
    items = self._items
    parts = released.parts_of(items['method'], items.get('probe'))
    said = released.step(path)
    if said not in (0, step):
      raise CheckpointError(
        f'{path} was written at step {said}: rename its files to ckpt-{said}.*'
      )
    try:
      report = released.load(path, parts, items['optimizer'], resuming=True)
    except released.Mismatch as error:
      raise CheckpointError(
        f'{path} has the released layout and another architecture ({error}).'
      ) from error
    items['optimizer'].iterations.assign(step)
    say(f'{path}: {released.infer(path).describe()}\n{report.describe()}')

  def restore_latest(self, say=print):
    """-> the step restored, or None when there is no checkpoint at all.

    Damaged ones are set aside only once a good one is found: else the next
    start would find nothing, and begin at step 0 without being told to.
    """
    damaged = []
    for step in reversed(files.steps(self.directory)):
      path = files.prefix(self.directory, step)
      try:
        files.verify(path)
      except DAMAGE as error:
        files.blame(path, error)
        say(f'ERROR: {path} is damaged ({files.first_line(error)}).')
        damaged.append(step)
        continue
      self.restore(step, say)
      for lost in files.cut_short(self.directory, step):
        say(f'ERROR: {self._path(f"ckpt-{lost}")} is damaged (no index).')
        damaged.append(lost)
      for bad in damaged if self.chief else ():
        files.set_aside(self.directory, bad, 'corrupt')
      if damaged:
        say(f'Damaged checkpoints are kept as corrupt-*; {path} is used.')
      return step
    if damaged:
      raise CheckpointError(
        f'all {len(damaged)} checkpoints in {self.directory} are damaged; pass '
        '--fresh_start to keep them as old-* and begin at step 0.'
      )
    return None


def load_parts(path, **items):
  """Restores some parts of a checkpoint, each of them whole -> how many
  tensors, and of how many in the file.

  A part is an item, or each of the children of a tf.train.Checkpoint.
  """
  parts = []
  for name, item in items.items():
    bundle = isinstance(item, tf.train.Checkpoint)
    children = tf.train.TrackableView.children(item) if bundle else ()
    parts += [f'{name}/{child}/' for child in children] or [f'{name}/']
  root = tf.train.Checkpoint(**items)
  try:
    reason = difference(path, root, tuple(parts))
    saved = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    if not reason:
      status = root.read(path)
      status.assert_existing_objects_matched().expect_partial()
  except (AssertionError, *DAMAGE) as error:
    raise files.damaged(path, error) from error
  if reason:
    raise CheckpointError(
      f'{path} does not hold this architecture ({reason}). Give the '
      '--resnet_depth, --width_multiplier, ... it was trained with.'
    )
  return len(_shapes(root)), len(saved)
