"""--profile_steps: a trace of some steps, for TensorBoard's profiler."""

import contextlib
import os

import tensorflow as tf


class _Trace:
  """Begins and ends once; what TensorFlow refuses is a warning.

  Of several workers the chief alone traces itself.
  """

  def __init__(self, monitor):
    self._folder = os.path.join(monitor.model_dir, 'profile')
    self._say, self._chief = monitor.say, monitor.chief
    self._running = False

  def begin(self):
    if not self._chief:
      return
    try:
      tf.profiler.experimental.start(self._folder)
      self._running = True
    except tf.errors.OpError as error:
      self._warn(error)

  def end(self):
    if not self._running:
      return
    self._running = False
    try:
      tf.profiler.experimental.stop()
      self._say(f'Trace of the steps: {self._folder}')
    except tf.errors.OpError as error:
      self._warn(error)

  def _warn(self, error):
    reason = str(error).partition('\n')[0][:200]
    self._say(f'WARNING: no trace of the steps ({reason})')


@contextlib.contextmanager
def traced(steps, monitor):
  """-> {step: what to call once it is done}, for loop.Hooks.

  steps: (first, last), between which a trace is taken; () for none. All
  workers get them: they have to stop at the same steps.
  """
  trace = _Trace(monitor)
  first, last = steps or (None, None)
  try:
    yield {first: trace.begin, last: trace.end} if steps else {}
  finally:
    trace.end()  # Of a run that ended in between.
