"""One run at a time in a model_dir.

A local file system has locks that end with their process. A bucket has none:
there a run rewrites an object at intervals, as a sign that it is alive.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import sys
import threading
import time
import uuid

import tensorflow as tf

from cvr.checkpoints.files import CheckpointError, plain

# In a bucket, the seconds between two signs of life, without one until a run
# counts as dead, and between two readings of another run's.
_BEAT, _DEAD, _LOOK = 20.0, 60.0, 2.0


def _who():
  since = time.strftime('%Y-%m-%d %H:%M:%S')
  return f'pid {os.getpid()} on {socket.gethostname()} since {since}'


@contextlib.contextmanager
def locked(directory, say=print):
  """Refuses a directory that another run writes to."""
  path = os.path.join(directory, '.lock')
  with _beating(path, say) if '://' in directory else _flocked(path):
    yield


def _opened(path):
  """The lock as a file, made if it is missing, its content as it was."""
  try:
    # A link would lead to a file of somebody else, which then is overwritten.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
  except OSError as error:
    if error.errno not in (errno.ELOOP, errno.EISDIR):
      raise
    kind = 'a folder' if error.errno == errno.EISDIR else 'a symbolic link'
    raise _no_lock(path, kind) from None
  if not stat.S_ISREG(os.fstat(handle).st_mode):
    os.close(handle)
    raise _no_lock(path, 'a device or a pipe')
  return open(handle, 'r+', errors='replace')


def _no_lock(path, kind):
  return CheckpointError(
    f'{path} is {kind}, not the file that a run writes there. Remove it, or '
    'name another --model_dir.'
  )


@contextlib.contextmanager
def _flocked(path):
  with _opened(path) as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise CheckpointError(
        f'{os.path.dirname(path)} is in use by {plain(file.read(200).strip())}.'
        ' Wait for it, or name another --model_dir.'
      ) from None
    except OSError:
      # A file system without locks: nobody will read who has it.
      pass
    else:
      file.truncate(0)
      file.write(f'{_who()}\n')
      file.flush()
    yield


def _holder(path):
  """-> {run, who, beat} of the run that wrote the object last."""
  try:
    with tf.io.gfile.GFile(path) as file:
      sign = json.load(file)
    sign = {name: sign[name] for name in ('run', 'who', 'beat')}
    return sign | {'who': plain(sign['who'])}
  except (tf.errors.NotFoundError, ValueError, LookupError, TypeError):
    return {'run': None, 'who': 'nobody', 'beat': 0}


def _sign(path, run, who, beat):
  with tf.io.gfile.GFile(path, 'w') as file:
    file.write(json.dumps({'run': run, 'who': who, 'beat': beat}))


def _refuse(path, other):
  raise CheckpointError(
    f'{os.path.dirname(path)} is in use by {other["who"]}. Wait for it, or '
    'name another --model_dir.'
  )


def _await_death(path, other, say):
  """Refuses if the other run signs again; clocks of two machines may differ."""
  say(
    f'{os.path.dirname(path)} was last used by {other["who"]}, which did not '
    f'end normally: waiting {_DEAD:.0f} s for a sign of life'
  )
  for _ in range(int(_DEAD / _LOOK)):
    time.sleep(_LOOK)
    now = _holder(path)
    if now['run'] is None:
      return
    if now != other:
      _refuse(path, now)


def _beat(path, run, who, stop):
  beat = 0
  while not stop.wait(_BEAT):
    beat += 1
    # If the store does not answer, saving the next checkpoint will report it.
    with contextlib.suppress(tf.errors.OpError):
      other = _holder(path)
      if other['run'] not in (run, None):
        # This run was suspended so long that it counted as dead, or another
        # started at the same moment. It must not write another checkpoint.
        message = f'{os.path.dirname(path)} was taken over by {other["who"]}.'
        print(f'\nrun.py: {message}', file=sys.stderr, flush=True)
        os._exit(2)
      _sign(path, run, who, beat)


@contextlib.contextmanager
def _beating(path, say=print):
  other = _holder(path)
  if other['run'] is not None:
    _await_death(path, other, say)
  run, who, stop = uuid.uuid4().hex, _who(), threading.Event()
  _sign(path, run, who, 0)
  # Of two that start at the same moment the last to sign continues.
  time.sleep(_LOOK)
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
