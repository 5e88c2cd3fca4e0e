"""Imports TensorFlow without its noise, before anything else imports it."""

import logging
import os
import sys
import tempfile

import absl.logging


def quiet_start():
  """Imports TensorFlow without what its C++ parts print before any log level.

  Shown all the same when the import fails, or with TF_CPP_MIN_LOG_LEVEL=0.
  """
  # TFDS warns of its own deprecations there.
  absl.logging.set_verbosity(absl.logging.ERROR)
  if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3') == '0':
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as output:
    os.dup2(output.fileno(), 2)
    try:
      import tensorflow  # noqa: F401
    except BaseException:
      output.seek(0)
      os.write(stderr, output.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
  # Evaluating several data sets traces often, of which it warns.
  logging.getLogger('tensorflow').setLevel(logging.ERROR)
