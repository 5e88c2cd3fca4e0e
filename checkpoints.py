"""Checkpoints: save, list, restore, fall back.

The list of checkpoints is the list of index files in the directory. The
`checkpoint` state file is written for other tools and never read: a broken one
makes TensorFlow start from step 0 without a word, and paths in it are followed.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
import time
import uuid

import tensorflow as tf

import released

_INDEX = re.compile(r'ckpt-(\d+)\.index')
# What TensorFlow raises for a cut, flipped or missing file; some are not
# TensorFlow's own exceptions.
DAMAGE = (tf.errors.OpError, IndexError, ValueError, OSError)
_VALUE = '.ATTRIBUTES/VARIABLE_VALUE'
_SLOT = '/.OPTIMIZER_SLOT/'
_SHOWN = 10  # Names in a message.
_MAX_FAILURES = 3  # Saves in a row that may fail before the run ends.


class CheckpointError(ValueError):
  """A checkpoint that cannot be used; the message says what to do."""


class NotSaved(Exception):
  """A checkpoint that cannot be written, for now; the message says why."""


def _names(directory):
  """What lies in a directory; nothing where there is none.

  listdir and isdir alone take a store that does not answer for an empty one,
  and a run would begin at step 0 and overwrite what is there.
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


def steps(directory):
  """The steps of the checkpoints in a directory, in order."""
  names = map(_INDEX.fullmatch, _names(directory))
  return sorted(int(found[1]) for found in names if found)


def prefix(directory, step):
  """The path that TensorFlow wants: without .index."""
  return os.path.join(directory, f'ckpt-{step}')


def verify(path):
  """Reads every tensor, so that damage shows before anything is assigned."""
  reader = tf.train.load_checkpoint(path)
  for name in reader.get_variable_to_shape_map():
    reader.get_tensor(name)


def _first_line(error):
  # An operation puts its own name before what is wrong.
  line = re.sub(r'^{{.*?}} ', '', str(error).partition('\n')[0])
  return line[:200]


def out_of_reach(error):
  """Whether a store did not answer: that says nothing of what it holds."""
  temporary = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
  )
  return isinstance(error, temporary) or 'libcurl code' in str(error)


def blame(path, error):
  """Raises what keeps us from a checkpoint, unless the checkpoint itself does.

  TensorFlow's reader says the same of a damaged file and of one that cannot be
  reached or may not be opened.
  """
  if out_of_reach(error):
    raise error
  with contextlib.suppress(tf.errors.NotFoundError):
    with tf.io.gfile.GFile(f'{path}.index', 'rb') as file:
      file.read(1)


def damaged(path, error):
  """The error that says so of a checkpoint, where it is the one to blame."""
  blame(path, error)
  return CheckpointError(f'{path} cannot be read ({_first_line(error)}).')


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
    'missing': here.keys() - there.keys(),
    'unexpected': there.keys() - here.keys(),
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


def _files(directory, step):
  """Names, the index first: without it the others are no checkpoint."""
  names = [n for n in _names(directory) if n.startswith(f'ckpt-{step}.')]
  return sorted(names, reverse=True)


def _cut_short(directory, after):
  """The later steps of which there is some file, but no index."""
  names = (re.match(r'ckpt-(\d+)\.data-', name) for name in _names(directory))
  found = {int(name[1]) for name in names if name}
  return sorted(s for s in found - {*steps(directory)} if s > after)


def set_aside(directory, step, mark):
  """Renames a checkpoint to <mark>-ckpt-N: kept, but never read again."""
  for name in _files(directory, step):
    source = os.path.join(directory, name)
    target = os.path.join(directory, f'{mark}-{name}')
    tf.io.gfile.rename(source, target, overwrite=True)


def _to_disk(paths):
  """Has local files written through: TensorFlow leaves that to the system."""
  folders = {os.path.dirname(path) for path in paths}
  for path in (*paths, *folders):
    if '://' in path:
      continue
    handle = os.open(path, os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)


@contextlib.contextmanager
def locked(directory):
  """One run at a time in a local directory; the lock dies with its process."""
  if '://' in directory:
    yield
    return
  with open(os.path.join(directory, '.lock'), 'a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise CheckpointError(
        f'{directory} is in use by {file.read().strip()}. Wait for it, or name '
        'another --model_dir.'
      ) from None
    except OSError:  # A file system without locks.
      pass
    file.truncate(0)
    file.write(
      f'pid {os.getpid()} on {socket.gethostname()} since '
      f'{time.strftime("%Y-%m-%d %H:%M:%S")}\n'
    )
    file.flush()
    yield


class Checkpoints:
  """The checkpoints of one run: `items` are the trackables they hold."""

  def __init__(self, directory, keep=5, chief=True, **items):
    self.directory = directory
    self.keep = max(keep, 1)
    self.chief = chief
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
    path = prefix(self.directory, step)
    if step == self._newest:
      return path
    self._newest = step
    if not self.chief:
      # Every worker takes part in reading variables; the chief's file counts.
      scratch = self._path(f'.worker-{uuid.uuid4().hex}')
      self._checkpoint.write(os.path.join(scratch, 'ckpt'))
      tf.io.gfile.rmtree(scratch)
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
        f'({_first_line(error)})'
      )
      with contextlib.suppress(*DAMAGE):  # The store may be out of reach.
        self._remove(step)
        self._clear_temporary()
      if needed or self._failures >= _MAX_FAILURES:
        raise NotSaved(f'{what}. Make room in {self.directory}') from error
      say(f'ERROR: {what}. Going on; make room in {self.directory}.')
    return path

  def _save(self, step):
    path = prefix(self.directory, step)
    self._clear_temporary()
    # A run that was killed may not have come to that.
    written = self._prune([s for s in self._listing() if s != step]) + [step]
    # Listed first: if we are killed on the way, the next run knows it as ours.
    self._write('checkpoints.json', json.dumps(written))
    # TensorFlow writes an index in place: readers would see a half of it.
    temporary = f'{path}_temp'
    self._checkpoint.write(prefix(temporary, step))
    names = _files(temporary, step)[::-1]
    _to_disk([os.path.join(temporary, name) for name in names])
    for name in names:
      source = os.path.join(temporary, name)
      tf.io.gfile.rename(source, self._path(name), overwrite=True)
    self._clear_temporary()
    _to_disk([self._path(name) for name in names])
    verify(path)
    self._write('checkpoint', f'model_checkpoint_path: "ckpt-{step}"\n')
    self._write('checkpoints.json', json.dumps(self._prune(written)))

  def _prune(self, written):
    """Deletes all of these steps but the newest -> those that are left.

    What is damaged or was cut short does not count.
    """
    there = steps(self.directory)
    kept = [s for s in written if s in there][-self.keep :]
    for old in written:
      if old not in kept:
        self._remove(old)
    return kept

  def _remove(self, step):
    for name in _files(self.directory, step):
      tf.io.gfile.remove(self._path(name))

  def _clear_temporary(self):
    """Removes what runs that were killed while they wrote left behind."""
    for name in _names(self.directory):
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
    temporary = self._path(name) + '.new'
    with tf.io.gfile.GFile(temporary, 'w') as file:
      file.write(text)
    tf.io.gfile.rename(temporary, self._path(name), overwrite=True)

  def _path(self, name):
    return os.path.join(self.directory, name)

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
      foreign = released.recognised(path)
      reason = '' if foreign else difference(path, self._checkpoint)
    except DAMAGE as error:
      raise damaged(path, error) from error
    if foreign:
      self._restore_released(path)
      self._newest = step
      return
    if not reason:
      try:
        self._checkpoint.read(path).assert_consumed()
        self._newest = step
        return
      except (AssertionError, ValueError) as error:
        reason = _first_line(error)
    raise CheckpointError(
      f'{path} was written by another architecture or optimizer ({reason}). '
      'Give the flags it was written with (config.json beside it), or another '
      '--model_dir.'
    )

  def _restore_released(self, path):
    items = self._items
    parts = released.parts_of(items['method'], items.get('probe'))
    try:
      released.load(path, parts, items['optimizer'])
    except released.Mismatch as error:
      raise CheckpointError(
        f'{path} has the released layout and another architecture ({error}).'
      ) from error

  def restore_latest(self, say=print):
    """-> the step restored, or None when there is no checkpoint at all.

    Damaged ones are set aside only once a good one is found: else the next
    start would find nothing, and begin at step 0 without being told to.
    """
    damaged = []
    for step in reversed(steps(self.directory)):
      path = prefix(self.directory, step)
      try:
        verify(path)
      except DAMAGE as error:
        blame(path, error)
        say(f'ERROR: {path} is damaged ({_first_line(error)}).')
        damaged.append(step)
        continue
      self.restore(step)
      for lost in _cut_short(self.directory, step):
        say(f'ERROR: {prefix(self.directory, lost)} is damaged (no index).')
        damaged.append(lost)
      for bad in damaged if self.chief else ():
        set_aside(self.directory, bad, 'corrupt')
      if damaged:
        say(f'Damaged checkpoints are kept as corrupt-*; {path} is used.')
      return step
    if damaged:
      raise CheckpointError(
        f'all {len(damaged)} checkpoints in {self.directory} are damaged; pass '
        '--fresh_start to keep them as old-* and begin at step 0.'
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
    raise damaged(path, error) from error
  if reason:
    raise CheckpointError(
      f'{path} does not hold this architecture ({reason}). Give the '
      '--resnet_depth, --width_multiplier, ... it was trained with.'
    )
  return len(_shapes(root)), len(saved)
