"""The loop around a train step: on the device, and on the host.

Knows nothing of methods or configurations: a step gives a flat dict of
numbers, a save takes a step number.
"""

import math
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from cvr.numerics import replicas
from cvr.training.progress import Pace

# Seconds between two looks at the host: stop signals, the progress line.
_LOOK_SECONDS = 8.0
# A longer step is announced: a cluster may kill a run soon after its signal.
_LONG_STEP = 10.0


class Stopped(Exception):
  """A signal asked for an end; the checkpoint is written."""


class Diverged(Exception):
  """The run does not learn from here: an earlier checkpoint may."""


class NonFinite(Exception):
  """Nor did it learn from earlier checkpoints."""


class Collapsed(Exception):
  """The watch asked for an end; the checkpoint is written."""


class Observation(NamedTuple):
  """What a watch found at a summary."""

  metrics: dict = {}  # to write beside those of the summary
  lines: tuple | list = ()  # to print
  collapsed: bool = False  # whether the run has to end


class Span(NamedTuple):
  """The steps of a run, and what divides them; 0: nothing does."""

  start: int
  total: int
  batch: int  # examples of a step
  summary_every: int = 0
  save_every: int = 0
  epoch: int = 0  # examples of one, for hooks of epochs


class Hooks(NamedTuple):
  """What is done beside the steps, on every worker.

  save: (step, whether the run cannot go on without it). Raises Diverged.
  skipped: called with the number of steps that were skipped since the host
    looked last, where there are any. Raises Diverged.
  host_means: what all workers make of a list of numbers together.
  watch: (step, metrics of a summary) -> Observation.
  on_epoch: called with an epoch's number before its first step. A run that
    resumes at that step calls it again: its checkpoint is from before.
  after_epoch: called with how many epochs are over, when the host next looks
    after the end of one, and with None at the end of the run.
  at: {step: called without arguments once so many steps are done, before the
    next}.
  """

  save: Callable
  monitor: object
  host_means: Callable = list
  skipped: Callable = bool
  watch: Callable | None = None
  on_epoch: Callable | None = None
  after_epoch: Callable | None = None
  at: dict = {}


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
  # Otherwise all operations with effects, collectives too, would wait for them.
  dependencies = tf.compat.v1.get_default_graph().experimental_acd_manager
  for op in (arrived, free.op, ready.op):
    dependencies.run_independently(op)
  return tf.maximum(ready - free, 0.0)


def make_loop(strategy, train_step, jit_compile=False, clocks=True):
  """-> loop(iterator, n) -> means over n steps and all replicas, a dict.

  Means are of the steps that were not skipped, skipped_steps is a sum. With
  them input_seconds: how long a step waited here for its batch; not a number
  without clocks, which TensorFlow refuses where all is deterministic.
  jit_compile: the step becomes one XLA program.
  """
  names = []

  # Nothing here needs AutoGraph; without it tracing is much quicker.
  def packed(batch):
    metrics = train_step(batch)
    names[:] = sorted(metrics)
    return tf.stack([tf.cast(metrics[k], tf.float32) for k in names])

  if jit_compile:
    packed = tf.function(packed, jit_compile=True, autograph=False)

  @tf.function(autograph=False)
  def run(iterator, n):
    def once(i, totals, waited):
      batch = next(iterator)
      if clocks:
        waited += _wait(totals, batch)
      values = strategy.run(packed, args=(batch,))
      totals += strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)
      return i + 1, totals, waited

    # One number for each metric, however many a step turns out to have.
    state = tf.constant(0), tf.zeros([1]), tf.zeros([], tf.float64)
    shapes = state[0].shape, tf.TensorShape([None]), state[2].shape
    _, totals, waited = tf.while_loop(
      lambda i, *_: i < n, once, state, shape_invariants=shapes
    )
    return totals / tf.cast(n, tf.float32), waited / tf.cast(n, tf.float64)

  def loop(iterator, n):
    means, waited = (x.numpy() for x in run(iterator, tf.constant(n)))
    metrics = {name: float(means[i]) for i, name in enumerate(names)}
    skipped = metrics.pop('skipped_steps', 0.0)
    share = 1 - skipped
    metrics = {k: v / share if share else math.nan for k, v in metrics.items()}
    return metrics | {
      'skipped_steps': round(skipped * n),
      'input_seconds': float(waited) if clocks else math.nan,
    }

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
    self.sums = {}  # name -> (sum, steps)

  def add(self, metrics, n):
    if not n:
      return
    for name, value in metrics.items():
      total, steps = self.sums.get(name, (0.0, 0))
      self.sums[name] = total + value * n, steps + n

  def take(self):
    """-> the means so far, and begins anew."""
    means = {name: total / steps for name, (total, steps) in self.sums.items()}
    self.sums = {}
    return means


def _share(waited, seconds):
  """{input_wait: the share of a step's seconds}, if there were clocks."""
  if math.isnan(waited):
    return {}
  return {'input_wait': min(1.0, waited / seconds)}  # Two clocks may differ.


def _memory():
  """{gpu_memory: GiB}, where there is a GPU that counts."""
  memory = replicas.gpu_memory()
  return {} if memory is None else {'gpu_memory': memory}


class _Fit:
  """The state of a run between two chunks of its steps."""

  def __init__(self, span, hooks):
    self.span, self.hooks = span, hooks
    self.step = span.start
    self.chunk, self.pace = 1, Pace()  # steps of the next one, steps a second
    self.means, self.skipped = _Means(), 0
    self.saving, self.summarised = 0.0, time.monotonic()  # seconds, clock
    self.said_long = False
    self.epochs = self._epochs()

  def begin_epoch(self):
    """Calls on_epoch if an epoch begins here -> the step of the next one.

    An epoch begins with the first step that takes none of the one before.
    """
    examples, batch = self.span.epoch, self.span.batch
    if not self.hooks.on_epoch:
      return math.inf
    epoch = self._epochs()
    if self.step == -(-epoch * examples // batch):
      self.hooks.on_epoch(epoch)
    return -(-(epoch + 1) * examples // batch)

  def _epochs(self):
    """How many epochs are over."""
    span = self.span
    return self.step * span.batch // span.epoch if span.epoch else 0

  def end_epoch(self, stopped):
    """Calls after_epoch if an epoch or the run is over."""
    over, after = self._epochs(), self.hooks.after_epoch
    ends = stopped or self.step == self.span.total
    if after and (ends or over > self.epochs):
      after(None if ends else over)
    self.epochs = over

  def chunk_end(self):
    """The step at which the host has something to do, at the latest."""
    every = (self.span.summary_every, self.span.save_every)
    marks = [self.step - self.step % n + n for n in every if n]
    marks += [step for step in self.hooks.at if step > self.step]
    return min(self.span.total, self.step + self.chunk, *marks)

  def call_at(self):
    """Calls what is to be called at this step."""
    if self.step in self.hooks.at:
      self.hooks.at[self.step]()

  def advance(self, steps, iterator, stop):
    """Runs a chunk -> whether any worker was asked to stop."""
    n = min(self.begin_epoch(), self.chunk_end()) - self.step
    began = time.monotonic()
    metrics = steps(iterator, n)
    seconds = (time.monotonic() - began) / n
    seconds, waited, asked = self.hooks.host_means(
      [seconds, metrics.pop('input_seconds'), stop.asked()]
    )
    self.step += n
    skipped = metrics.pop('skipped_steps', 0)
    self.skipped += skipped
    if skipped:
      self.hooks.skipped(skipped)
    elif not math.isfinite(metrics.get('weight_norm', 0.0)):
      # A finite gradient was too long.
      raise Diverged(f'the weights are not finite at step {self.step}')
    self.means.add(metrics, n - skipped)
    self.means.add({'seconds': seconds, 'waited': waited}, n)
    # The first chunk compiles; its time says nothing about the next ones.
    if self.step - n > self.span.start:
      self.chunk = max(1, min(int(_LOOK_SECONDS / seconds), 2 * self.chunk))
      self._say_if_long(seconds)
    self.pace.reach(self.step)
    self._show(metrics | _share(waited, seconds) | _memory())
    return bool(asked)

  def _say_if_long(self, seconds):
    if seconds > _LONG_STEP and not self.said_long:
      self.said_long = True
      self.hooks.monitor.say(
        f'Note: a step takes {seconds:.0f} s. After Ctrl-C or SIGTERM the run '
        'ends so much later, and the time of a save.'
      )

  def _show(self, metrics):
    span, rate = self.span, self.pace.rate
    ends = self.step, span.total
    self.hooks.monitor.progress(
      *ends,
      metrics,
      rate and rate * span.batch,
      self.pace.left(span.total - self.step),
      [n * span.batch / span.epoch for n in ends] if span.epoch else None,
    )

  def summarise(self):
    """Writes the means since the last summary, where one is due, and what the
    watch finds -> whether any worker found a collapse.
    """
    every = self.span.summary_every
    if not every or (self.step % every and self.step != self.span.total):
      return False
    means, monitor = self.means.take(), self.hooks.monitor
    seconds, waited = means.pop('seconds'), means.pop('waited')
    means['images_per_second'] = self.span.batch / seconds
    means['skipped_steps'], self.skipped = self.skipped, 0
    now = time.monotonic()
    if now > self.summarised:
      means['save_share'] = self.saving / (now - self.summarised)
    self.saving, self.summarised = 0.0, now
    means |= _share(waited, seconds) | _memory()
    watch = self.hooks.watch
    observed = watch(self.step, means) if watch else Observation()
    for line in observed.lines:
      monitor.say(line)
    monitor.summary(self.step, means | observed.metrics)
    return bool(self.hooks.host_means([float(observed.collapsed)])[0])

  def save(self, asked, collapsed, stop):
    """Saves where that is due, then ends a run that has to end before its last
    step.
    """
    every, step = self.span.save_every, self.step
    needed = asked or collapsed or step == self.span.total
    if needed or (every and step % every == 0):
      began = time.monotonic()
      try:
        self.hooks.save(step, needed)
      except Diverged as error:
        if not asked:
          raise
        raise Stopped(
          f'{error}. Stopped without a checkpoint of it.'
        ) from error
      self.saving += time.monotonic() - began
      # A signal may have come while it was written.
      asked = bool(self.hooks.host_means([stop.asked()])[0])
    if asked and not needed:
      self.hooks.save(step, True)  # If that one failed; else it is there.
    if asked:
      raise Stopped(
        f'{stop.received or "Another worker stopped"} at step {step}: '
        'checkpoint written. The same command resumes.'
      )
    if collapsed:
      raise Collapsed(
        f'collapsed at step {step} (--stop_on_collapse): checkpoint written. '
        'The flags to change are above.'
      )


def fit(steps, iterator, span, hooks):
  """Runs the steps of a Span, in chunks that end where a hook is due.

  steps: what make_loop gives. -> the last step.
  """
  run = _Fit(span, hooks)
  with _StopSignal() as stop:
    run.call_at()
    while run.step < span.total:
      asked = run.advance(steps, iterator, stop)
      run.call_at()
      collapsed = run.summarise()
      run.end_epoch(asked or collapsed)
      run.save(asked, collapsed, stop)
  return run.step
