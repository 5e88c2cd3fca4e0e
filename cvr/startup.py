"""How programs start and stop: the right front, quietly, and in one line."""

import errno
import gc
import importlib.util
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile

import absl.logging

# The modules beside this package, whose names others may have as well.
FRONT = ('data_util', 'lars_optimizer', 'model', 'objectives', 'resnet')

# What the system says of a file on another machine that does not answer.
_NETWORK = {
  getattr(errno, name)
  for name in """ESTALE ETIMEDOUT ENETDOWN ENETUNREACH ENETRESET ECONNRESET
    ECONNABORTED ECONNREFUSED EHOSTDOWN EHOSTUNREACH ENOTCONN ESHUTDOWN
    EREMOTEIO ENOLINK""".split()
  if hasattr(errno, name)
}


def _found(name):
  """The file that `import name` gives, or None."""
  if name in sys.modules:
    return getattr(sys.modules[name], '__file__', None)
  spec = importlib.util.find_spec(name)
  return spec and spec.origin


def check_front():
  """Raises an ImportError if a file of somebody else's hides one of FRONT."""
  here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  for name in FRONT:
    ours, found = os.path.join(here, f'{name}.py'), _found(name)
    if found and os.path.realpath(found) != os.path.realpath(ours):
      raise ImportError(
        f'{found} hides the {name}.py that cvr needs: rename it, or start '
        'Python in another folder.'
      )


def quiet_start():
  """Imports TensorFlow without what its C++ parts print before any log level.

  Shown all the same when the import fails, or with TF_CPP_MIN_LOG_LEVEL=0.
  """
  # A program that has TensorFlow already keeps its choice.
  if 'tensorflow' not in sys.modules:
    # The first use of tf.keras would import Keras 3, which nothing here needs:
    # a second and 60 MB.
    os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
    # TensorFlow uses oneDNN only where it finds AVX-512 with VNNI or newer.
    # With AVX2, as most laptops have it, a step takes eight times as long.
    if platform.machine() in ('x86_64', 'AMD64'):
      os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
  # TFDS warns of its own deprecations there.
  absl.logging.set_verbosity(absl.logging.ERROR)
  if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') == '0':
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  # Looking for garbage takes a quarter of the time of an import that leaves
  # none.
  collects = gc.isenabled()
  with tempfile.TemporaryFile() as output:
    os.dup2(output.fileno(), 2)
    try:
      gc.disable()
      import tensorflow  # noqa: F401
    except Exception:
      output.seek(0)
      os.write(stderr, output.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
      if collects:
        gc.enable()
  # Evaluating several data sets traces often, of which it warns.
  logging.getLogger('tensorflow').setLevel(logging.ERROR)


def out_of_reach(error):
  """Whether a store did not answer, which says nothing about its files."""
  if isinstance(error, OSError):
    return error.errno in _NETWORK
  import tensorflow as tf

  temporary = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
  )
  answers = r'libcurl code|HTTP response code (429|5\d\d)'
  return isinstance(error, temporary) or bool(re.search(answers, str(error)))


def reason(error):
  """What an error says, in one line: of TensorFlow's long texts the cause."""
  text = str(error).partition('\n\t [[')[0]
  lines = [line for line in text.splitlines() if line.strip()]
  # What workers add to every error of another one.
  added = 'The error could be from a previous operation'
  lines = [line for line in lines if not line.startswith(added)] or ['']
  # A graph's error tells first where the graph was made.
  line = lines[-1 if lines[0].startswith('Graph execution error') else 0]
  line = re.sub(r'^{{.*?}} |^\s*\(\d+\) [A-Z_]+: +', '', line)
  return re.sub(r' \[Op:\w+\].*$', '', line)


def stops_in_a_line(line='stopped. The same command resumes.'):
  """From now on Ctrl-C ends this program with a line and not a traceback.

  Its exit status stays what a shell expects of Ctrl-C, 130.
  """

  def told(kind, error, trace):
    if not issubclass(kind, KeyboardInterrupt):
      sys.__excepthook__(kind, error, trace)
      return
    print(f'\n{os.path.basename(sys.argv[0])}: {line}', file=sys.stderr)

  sys.excepthook = told


def call(*words):
  """Runs a program to its end -> its exit status.

  Ctrl-C reaches both. The other one has time to write its checkpoint, then this
  one is interrupted, too.
  """
  asked = []
  before = signal.signal(signal.SIGINT, lambda *_: asked.append(True))
  try:
    with subprocess.Popen(words) as process:
      status = process.wait()
  finally:
    signal.signal(signal.SIGINT, before)
  if asked:
    raise KeyboardInterrupt
  return status
