"""One run at a time in a model_dir.

A local file system has locks that die with their process. A bucket has none:
there an object says, again and again, who was alive when.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid

import tensorflow as tf

from checkpoint_files import CheckpointError, NotSaved

_BEAT = 20.0  # Seconds between two signs of life in a bucket,
_DEAD = 90.0  # and without one until a run counts as dead.


def _who():
  since = time.strftime('%Y-%m-%d %H:%M:%S')
  return f'pid {os.getpid()} on {socket.gethostname()} since {since}'


@contextlib.contextmanager
def locked(directory):
  """Refuses a directory that another run writes to."""
  path = os.path.join(directory, '.lock')
  with _beating(path) if '://' in directory else _flocked(path):
    yield


@contextlib.contextmanager
def _flocked(path):
  with open(path, 'a+') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise CheckpointError(
        f'{os.path.dirname(path)} is in use by {file.read().strip()}. Wait for '
        'it, or name another --model_dir.'
      ) from None
    except OSError:  # A file system without locks.
      pass
    file.truncate(0)
    file.write(f'{_who()}\n')
    file.flush()
    yield


def _holder(path):
  """-> {run, who, seen} of whoever wrote the object last."""
  try:
    with tf.io.gfile.GFile(path) as file:
      held = json.load(file)
    return {'run': held['run'], 'who': held['who'], 'seen': float(held['seen'])}
  except (tf.errors.NotFoundError, ValueError, LookupError, TypeError):
    return {'run': None, 'who': 'nobody', 'seen': float('-inf')}


def _sign(path, run, who):
  with tf.io.gfile.GFile(path, 'w') as file:
    file.write(json.dumps({'run': run, 'who': who, 'seen': time.time()}))


def _beat(path, run, who, stop):
  while not stop.wait(_BEAT):
    # A store that does not answer is for the next checkpoint to report.
    with contextlib.suppress(tf.errors.OpError):
      _sign(path, run, who)


def _refuse(path, other):
  age = max(0.0, time.time() - other['seen'])
  raise NotSaved(
    f'{os.path.dirname(path)} is in use by {other["who"]}, seen {age:.0f} s '
    f'ago. If it is dead, try again in {_DEAD - age:.0f} s'
  )


@contextlib.contextmanager
def _beating(path):
  other = _holder(path)
  if time.time() - other['seen'] < _DEAD:
    _refuse(path, other)
  run, who, stop = uuid.uuid4().hex, _who(), threading.Event()
  _sign(path, run, who)
  # Of two that begin at once the one who signed last goes on. What is left is
  # the moment between this look and the other's signature.
  other = _holder(path)
  if other['run'] != run:
    _refuse(path, other)
  thread = threading.Thread(
    target=_beat, args=(path, run, who, stop), daemon=True
  )
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    with contextlib.suppress(tf.errors.OpError):
      if _holder(path)['run'] == run:
        tf.io.gfile.remove(path)
