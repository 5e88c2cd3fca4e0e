"""The loop around a train step: on the device, and on the host.

Knows nothing of methods or configurations: a step gives a flat dict of
numbers, a save takes a step number.
"""

import math
import signal
import time
from typing import NamedTuple

import tensorflow as tf

# The metrics of a step travel as one vector of this length: a loop on the
# device carries one tensor, whatever the method reports.
_SLOTS = 32
# Seconds between two looks at the host: stop signals, the progress line.
_LOOK_SECONDS = 8.0


class Stopped(Exception):
  """A signal asked for an end; the checkpoint is written."""


class NonFinite(Exception):
  """The loss is no longer a number."""


class Collapsed(Exception):
  """Whoever watches wants an end; the checkpoint is written."""


class Seen(NamedTuple):
  """What is found at a summary: more metrics, lines to say, whether to end."""

  metrics: dict = {}
  lines: tuple | list = ()
  over: bool = False


def _clock(after):
  """The host's seconds once the operations or tensors `after` are done."""
  with tf.control_dependencies(after):
    return tf.timestamp()


def _wait(totals, batch):
  """Seconds from the end of the step before, which gave totals, to the batch.

  A batch that came while the device still worked was not waited for. Nothing
  waits for these clocks but the step after the next: a host may prepare a step
  while its device does the one before.
  """
  # Plain operations are done when they are launched. This one needs the numbers
  # on the host, and is not optimized away.
  arrived = tf.raw_ops.Assert(condition=True, data=[totals])
  free = _clock([arrived])
  ready = _clock(tf.nest.flatten(batch, expand_composites=True))
  # Else whatever has effects in the step would wait for them, collectives too.
  dependencies = tf.compat.v1.get_default_graph().experimental_acd_manager
  for op in (arrived, free.op, ready.op):
    dependencies.run_independently(op)
  return tf.maximum(ready - free, 0.0)


def make_loop(strategy, train_step, jit_compile=False, clocks=True):
  """-> loop(iterator, n) -> means over n steps and all replicas, a dict.

  With them input_seconds: how long a step waited here for its batch; not a
  number without clocks, which TensorFlow refuses where all is deterministic.
  jit_compile: the step becomes one XLA program.
  """
  names = []

  # Nothing in a step needs AutoGraph; without it tracing is much quicker.
  @tf.autograph.experimental.do_not_convert
  def packed(batch):
    metrics = train_step(batch)
    names[:] = sorted(metrics)
    values = tf.stack([tf.cast(metrics[k], tf.float32) for k in names])
    return tf.pad(values, [[0, _SLOTS - len(names)]])

  if jit_compile:
    packed = tf.function(packed, jit_compile=True, autograph=False)

  @tf.function
  def run(iterator, n):
    totals, waited = tf.zeros([_SLOTS]), tf.zeros([], tf.float64)
    for _ in tf.range(n):
      batch = next(iterator)
      if clocks:
        waited += _wait(totals, batch)
      values = strategy.run(packed, args=(batch,))
      totals += strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)
    return totals / tf.cast(n, tf.float32), waited / tf.cast(n, tf.float64)

  def loop(iterator, n):
    means, waited = (x.numpy() for x in run(iterator, tf.constant(n)))
    metrics = {name: float(means[i]) for i, name in enumerate(names)}
    return metrics | {'input_seconds': float(waited) if clocks else math.nan}

  return loop


class _StopSignal:
  """Turns SIGTERM and Ctrl-C into a flag that the loop looks at."""

  def __init__(self):
    self.received = None

  def __enter__(self):
    self._old = {
      number: signal.signal(number, self._receive)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def _receive(self, number, frame):
    del frame
    self.received = signal.Signals(number).name

  def asked(self):
    """1.0 once a signal came: a number, which hosts can add up."""
    return float(self.received is not None)

  def __exit__(self, *error):
    for number, old in self._old.items():
      signal.signal(number, old)


class _Means:
  """Means of metrics over chunks of different lengths."""

  def __init__(self):
    self.steps, self.sums = 0, {}

  def add(self, metrics, n):
    self.steps += n
    for name, value in metrics.items():
      self.sums[name] = self.sums.get(name, 0.0) + value * n

  def take(self):
    """-> the means so far, and begins anew."""
    means = {k: v / self.steps for k, v in self.sums.items()}
    self.steps, self.sums = 0, {}
    return means


def _share(waited, seconds):
  """{input_wait: the share of a step's seconds}, if there were clocks."""
  if math.isnan(waited):
    return {}
  return {'input_wait': min(1.0, waited / seconds)}  # Two clocks may differ.


def _next_stop(step, total, *intervals):
  """The next step at which the host has something to do."""
  marks = [step - step % i + i for i in intervals if i > 0]
  return min([total, *marks])


def _check_finite(step, metrics):
  """Raises NonFinite, with what to turn."""
  # The weights too: what a bad gradient did shows in the next loss only.
  for name in ('total_loss', 'weight_norm'):
    if math.isfinite(metrics.get(name, 0.0)):
      continue
    raise NonFinite(
      f'{name} is {metrics[name]} at step {step}. Lower --learning_rate (for '
      'small batches --learning_rate_scaling=sqrt), lengthen --warmup_epochs, '
      'set --clip_norm, or use --precision=fp32; the last checkpoint is from '
      'before.'
    )


def _summarise(step, means, batch, watch, monitor):
  """Tells the means since the last summary, and what watch sees -> Seen."""
  seconds, waited = means.pop('seconds'), means.pop('waited')
  means['images_per_second'] = batch / seconds
  means |= _share(waited, seconds)
  seen = watch(step, means) if watch else Seen()
  for line in seen.lines:
    monitor.say(line)
  monitor.summary(step, means | seen.metrics)
  return seen


def _begin_epoch(epochs, step, batch):
  """Calls who waits for an epoch that begins here -> where the next begins.

  An epoch begins with the first step that takes none of the one before.
  """
  if not epochs:
    return math.inf
  examples, begin = epochs
  epoch = step * batch // examples
  if step == -(-epoch * examples // batch):
    begin(epoch)
  return -(-(epoch + 1) * examples // batch)


def fit(
  loop,
  iterator,
  *,
  start,
  total,
  batch,
  intervals,
  save,
  monitor,
  host_means=list,
  watch=None,
  epochs=None,
):
  """The loop: chunks of steps that end at summaries, saves and looks.

  intervals: (summary steps, checkpoint steps), 0 for none.
  save: (step, whether the run cannot go on without it).
  host_means: what the worker processes make of a list of numbers together.
  watch: (step, metrics of a summary) -> Seen, on every worker.
  epochs: (examples of one, what to call with its number before its first
    step). Whoever resumes at that step calls it: a checkpoint is from before.
  """
  means, step, chunk, pace = _Means(), start, 1, None
  with _StopSignal() as stop:
    while step < total:
      ends = _next_stop(step, total, *intervals)
      ends = min(ends, _begin_epoch(epochs, step, batch))
      n = min(chunk, ends - step)
      began = time.monotonic()
      metrics = loop(iterator, n)
      seconds = (time.monotonic() - began) / n
      waited = metrics.pop('input_seconds')
      seconds, waited, asked = host_means([seconds, waited, stop.asked()])
      step += n
      _check_finite(step, metrics)
      means.add(metrics | {'seconds': seconds, 'waited': waited}, n)
      # The first chunk compiles; its time says nothing about the next ones.
      if step - n > start:
        pace = seconds
        chunk = max(1, min(int(_LOOK_SECONDS / pace), 2 * chunk))
      rate = batch / seconds
      eta = None if pace is None else (total - step) * pace
      shown = metrics | _share(waited, seconds)
      monitor.progress(step, total, shown, rate, eta)
      over = 0.0
      if intervals[0] and (step % intervals[0] == 0 or step == total):
        seen = _summarise(step, means.take(), batch, watch, monitor)
        (over,) = host_means([float(seen.over)])
      due = intervals[1] and step % intervals[1] == 0
      needed = bool(asked or over) or step == total
      if due or needed:
        save(step, needed)
        # A signal may have come while it was written.
        (asked,) = host_means([stop.asked()])
      if asked and not needed:
        save(step, True)  # If that one failed; else it is there already.
      if asked:
        raise Stopped(
          f'{stop.received or "Another worker stopped"} at step {step}: '
          'checkpoint written. The same command goes on from here.'
        )
      if over:
        raise Collapsed(
          f'collapsed at step {step} (--stop_on_collapse): checkpoint written. '
          'What to turn stands above.'
        )
  return step
