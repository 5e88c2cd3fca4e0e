"""Checkpoints: save, restore, fall back."""

import collections
import contextlib
import json
import os
import re
import shutil
import tempfile

import tensorflow as tf

from cvr.checkpoints import (
  bundle,
  files,
  released,
  released_layout,
  released_settings,
  stored,
)
from cvr.checkpoints.files import DAMAGE, CheckpointError
from cvr.configs import places

_VALUE = '.ATTRIBUTES/VARIABLE_VALUE'
_SLOT = '/.OPTIMIZER_SLOT/'
_SHOWN = 10  # Names in a message.
_MAX_FAILURES = 3  # Saves in a row that may fail before the run ends.


class NotFinite(Exception):
  """A variable holds NaN or infinity: no checkpoint was written."""


_RECORD = 'record/.ATTRIBUTES/py_state'


class Record(tf.train.experimental.PythonState):
  """config.json inside a checkpoint, whose copies then need no other file."""

  def __init__(self, values):
    super().__init__()
    self._text = json.dumps(values)

  def serialize(self):
    return self._text

  def deserialize(self, string_value):
    """Does nothing: a resumed run has settings of its own."""


def read_record(path):
  """The Record in a checkpoint; {} in one without."""
  reader = bundle.reader(path)
  if not reader.has_tensor(_RECORD):
    return {}
  text = reader.get_tensor(_RECORD)
  if not isinstance(text, bytes):
    raise ValueError('its record of settings is no text')
  return stored.parsed(text)


def _variables(root):
  """Name in a checkpoint -> every variable but optimizer slots."""
  variables, nodes, visited = {}, [('', root)], {id(root)}
  # The list grows in the loop: breadth first, as TensorFlow names variables.
  for path, node in nodes:
    if isinstance(node, tf.Variable):
      variables[path + _VALUE] = node
    for name, child in tf.train.TrackableView.children(node).items():
      if id(child) not in visited:
        visited.add(id(child))
        name = name.replace('.', '..').replace('/', '.S')
        nodes.append((f'{path}{name}/', child))
  return variables


def _shapes(root):
  return {k: v.shape.as_list() for k, v in _variables(root).items()}


def _named(root, optimizer):
  """[(name, variable)] of all that a checkpoint holds, each once."""
  named = [
    (k.replace('/' + _VALUE, ''), v) for k, v in _variables(root).items()
  ]
  # The slots of an optimizer are none of its children, and share names.
  named += [(v.name, v) for v in optimizer.variables()] if optimizer else []
  return [*{v.ref(): (name, v) for name, v in reversed(named)}.values()][::-1]


def _not_finite(root, optimizer):
  """The names of the variables that hold a NaN or an infinity."""
  named = [(k, v) for k, v in _named(root, optimizer) if v.dtype.is_floating]
  finite = [tf.reduce_all(tf.math.is_finite(v)) for _, v in named]
  # One answer of the device for all.
  flags = tf.stack(finite).numpy() if finite else ()
  return [k for (k, _), good in zip(named, flags, strict=True) if not good]


def difference(path, root, parts=('',)):
  """Why a checkpoint does not fit root, in words; '' when it does.

  parts: the prefixes of names that root has to hold completely. Checked before
  anything is assigned: TensorFlow overwrites some variables before it meets one
  that does not fit, and silently fills a shallow network from a deeper one.
  """
  ours = _shapes(root)
  saved = bundle.reader(path).get_variable_to_shape_map()
  saved = {
    name: shape
    for name, shape in saved.items()
    if name.endswith(_VALUE) and _SLOT not in name and name.startswith(parts)
  }
  differences = {
    'missing': {f'{n} {ours[n]}' for n in ours.keys() - saved.keys()},
    'unexpected': {f'{n} {saved[n]}' for n in saved.keys() - ours.keys()},
    'of another shape': {
      f'{name} {saved[name]} for {ours[name]}'
      for name in ours.keys() & saved.keys()
      if ours[name] != saved[name]
    },
  }
  differences = {
    kind: sorted(name.replace('/' + _VALUE, '') for name in names)
    for kind, names in differences.items()
  }
  return '; '.join(
    f'{len(names)} {what}: {", ".join(names[:_SHOWN])}'
    + (', ...' if len(names) > _SHOWN else '')
    for what, names in differences.items()
    if names
  )


class Checkpoints:
  """The checkpoints of one run: `items` are the trackables they hold."""

  def __init__(self, directory, keep=5, chief=True, alone=True, **items):
    self.directory = directory
    self.keep = max(keep, 1)
    self.chief = chief
    # Other workers wait in the middle of a save: then none may fail.
    self._may_fail = _MAX_FAILURES if alone else 1
    self._items = items
    self._checkpoint = tf.train.Checkpoint(**items)
    self._newest = None
    self._failures = 0

  def check_room(self):
    """Fails at once where the disk has no room for the checkpoints of a run."""
    if '://' in self.directory or not self.chief:
      return
    named = _named(self._checkpoint, self._items.get('optimizer'))
    sizes = [v.dtype.size * v.shape.num_elements() for _, v in named]
    one = sum(sizes)
    # One more than are kept, while the newest is written.
    missing = self.keep + 1 - min(self.keep, len(files.steps(self.directory)))
    os.makedirs(self.directory, exist_ok=True)
    free = shutil.disk_usage(self.directory).free
    if free < missing * one:
      raise files.NotSaved(
        f'{missing} checkpoints of {one / 1e6:,.0f} MB need room in '
        f'{self.directory}, where {free / 1e6:,.0f} MB are free. Make room, or '
        'keep fewer (--keep_checkpoint_max)'
      )

  def save(self, step, needed=True, say=print):
    """Writes ckpt-<step>, then deletes the oldest of those written here.

    Deletes nothing before the new one is on the disk and was read back, except
    what a killed run would have deleted at that point. A save that is not
    needed yet may fail, on a full disk, a few times in a row.
    """
    # Not looked up in the directory: workers might list it at different times.
    path = files.prefix(self.directory, step)
    if step == self._newest:
      return path
    bad = _not_finite(self._checkpoint, self._items.get('optimizer'))
    if bad:
      more = f' and {len(bad) - 1} more' if len(bad) > 1 else ''
      raise NotFinite(f'{bad[0]}{more} is not finite at step {step}')
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
      say(
        f'ERROR: {what}. The training continues; make room in {self.directory}.'
      )
    return path

  def _save(self, step):
    path = files.prefix(self.directory, step)
    self._clear_temporary()
    # A killed run may not have deleted its old ones.
    written = self._prune([s for s in self._listing() if s != step]) + [step]
    # Listed first: if this run is killed, the next one knows the files as ours.
    self._write('checkpoints.json', json.dumps(written))
    # TensorFlow writes an index in place: readers would see half of it.
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
    """Deletes all but the newest of these steps -> those that are left.

    Damaged and incomplete ones do not count.
    """
    complete = files.steps(self.directory)
    kept = [s for s in written if s in complete][-self.keep :]
    for old in written:
      if old not in kept:
        self._remove(old)
    return kept

  def _remove(self, step):
    for name in files.files(self.directory, step):
      tf.io.gfile.remove(self._path(name))

  def _clear_temporary(self):
    """Removes the temporary files of runs that were killed while writing."""
    for name in files.listed(self.directory):
      name = name.rstrip('/')
      if re.fullmatch(r'ckpt-\d+_temp', name):
        tf.io.gfile.rmtree(self._path(name))
      listing = name in ('checkpoint', 'checkpoints.json')
      if listing and tf.io.gfile.isdir(self._path(name)):
        # A folder that somebody made, where our file has to be.
        tf.io.gfile.rename(self._path(name), self._path(f'corrupt-{name}'))

  def _listing(self):
    """The steps that runs in this directory wrote, oldest first.

    Only these are ever deleted: someone else's checkpoint stays.
    """
    path = self._path('checkpoints.json')
    if places.endless(path):
      return []
    try:
      with tf.io.gfile.GFile(path) as file:
        steps = json.load(file)
    except (tf.errors.OpError, ValueError, RecursionError) as error:
      if isinstance(error, tf.errors.OpError) and files.out_of_reach(error):
        raise
      return []
    # Anybody may have written it: Infinity is a number there.
    steps = steps if isinstance(steps, list) else []
    return [step for step in steps if type(step) is int and step >= 0]

  def _write(self, name, text):
    files.write_atomically(self._path(name), text)

  def _path(self, name):
    return os.path.join(self.directory, name)

  def retire(self, steps, say=print):
    """Renames the checkpoints of an earlier run, for a fresh start."""
    if steps and self.chief:
      for step in steps:
        files.set_aside(self.directory, step, 'old')
      say(f'{len(steps)} earlier checkpoints are kept as old-ckpt-*')

  def restore(self, step, say=print):
    """Restores one step: every variable, no more and no fewer."""
    path = files.prefix(self.directory, step)
    try:
      foreign = released_settings.recognised(path)
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
    parts = released_layout.parts_of(items['method'], items.get('probe'))
    stored = released_settings.step(path)
    if stored not in (0, step):
      raise CheckpointError(
        f'{path} was written at step {stored}: rename its files to '
        f'ckpt-{stored}.*'
      )
    try:
      report = released.load(path, parts, items['optimizer'], resuming=True)
    except released_layout.Mismatch as error:
      raise CheckpointError(
        f'{path} has the released layout and another architecture ({error}).'
      ) from error
    items['optimizer'].iterations.assign(step)
    say(
      f'{path}: {released_settings.infer(path).describe()}\n{report.describe()}'
    )

  def restore_latest(self, say=print):
    """-> the step restored, or None when there is no checkpoint at all.

    Damaged ones are set aside only once a good one is found: otherwise the next
    start would find none, and begin at step 0 unasked.
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


def _owner(name):
  """The part of a state that a variable in a checkpoint belongs to."""
  part, _, rest = name.partition('/')
  if _SLOT in name:
    return 'optimizer'
  return rest.partition('/')[0] if part == 'method' else part


def load_parts(path, **items):
  """Restores parts of a checkpoint -> (how many tensors, {part: how many of it
  are in the file and were left}).

  A part is an item, or each child of an item that is a tf.train.Checkpoint; it
  has to be in the file completely.
  """
  parts = []
  for name, item in items.items():
    grouped = isinstance(item, tf.train.Checkpoint)
    children = tf.train.TrackableView.children(item) if grouped else ()
    parts += [f'{name}/{child}/' for child in children] or [f'{name}/']
  root = tf.train.Checkpoint(**items)
  try:
    reason = difference(path, root, tuple(parts))
    saved = bundle.reader(path).get_variable_to_shape_map()
    if not reason:
      status = root.read(path)
      status.assert_existing_objects_matched().expect_partial()
  except (AssertionError, *DAMAGE) as error:
    raise files.damaged(path, error) from error
  if reason:
    raise CheckpointError(
      f'{path} has another architecture ({reason}). Give the --resnet_depth, '
      '--width_multiplier, ... it was trained with.'
    )
  ours = _shapes(root)
  left = [n for n in saved if n.endswith(_VALUE) and n not in ours]
  return len(ours), dict(sorted(collections.Counter(map(_owner, left)).items()))
