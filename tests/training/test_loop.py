"""The loop: where its chunks end, signals, means, two replicas."""

import functools
import itertools
import math
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from cvr.training import loop


class Trainer:
  """A fake loop, save and monitor, which write down what happens.

  The loss of a step is its number; a step takes `pace` seconds of a fake clock.
  at: {step: what to do inside the loop once that step is done}.
  """

  def __init__(self, start=0, pace=1.0, at=None, waiting=0.0):
    self.step, self.pace, self.at = start, pace, at or {}
    self.waiting = waiting
    self.now, self.saving = 0.0, {}
    self.chunks, self.saves, self.summaries, self.lines = [], [], [], []
    self.needed, self.shown, self.said, self.epochs = [], [], [], []
    self.bad, self.skipped, self.weights = set(), [], {}

  def loop(self, iterator, n):
    losses = []
    for _ in range(n):
      loss = float(self.step)
      self.step += 1
      self.now += self.pace
      loss += self.at.get(self.step, lambda: 0.0)() or 0.0
      if self.step not in self.bad:
        losses.append(loss)
    self.chunks.append(n)
    return self.weights | {
      'total_loss': sum(losses) / len(losses) if losses else math.nan,
      'skipped_steps': n - len(losses),
      'input_seconds': self.waiting,
    }

  def norm(self, value):
    self.weights = {'weight_norm': value}

  def save(self, step, needed):
    assert step == self.step
    self.saves.append(step)
    self.needed.append(needed)
    self.saving.get(step, lambda: None)()

  def summary(self, step, metrics):
    self.summaries.append((step, metrics))

  def progress(self, step, total, metrics, rate, eta, epochs):
    self.shown.append(metrics)
    self.epochs.append(epochs)
    self.lines.append((step, total, metrics['total_loss'], rate, eta))

  def say(self, line):
    self.said.append(line)

  def ends(self, start=0):
    return [start + int(x) for x in np.cumsum(self.chunks)]


@pytest.fixture
def fit(monkeypatch):
  """fit(trainer, total, intervals), on the trainer's clock."""

  def run(trainer, total, intervals=(0, 0), epochs=None, watch=None):
    monkeypatch.setattr(loop.time, 'monotonic', lambda: trainer.now)
    examples, on_epoch = epochs or (0, None)
    return loop.fit(
      trainer.loop,
      None,
      loop.Span(trainer.step, total, 8, *intervals, examples),
      loop.Hooks(
        trainer.save,
        trainer,
        skipped=trainer.skipped.append,
        watch=watch,
        on_epoch=on_epoch,
      ),
    )

  return run


def kill(number):
  return lambda: os.kill(os.getpid(), number)


def test_chunks_end_at_summaries_and_saves_and_never_past_the_total(fit):
  trainer = Trainer(pace=1e-3)
  assert fit(trainer, 103, (25, 40)) == 103
  assert trainer.step == 103
  assert trainer.saves == [40, 80, 103]
  assert trainer.needed == [False, False, True]
  assert [step for step, _ in trainer.summaries] == [25, 50, 75, 100, 103]
  assert trainer.ends() == [
    *(1, 2, 4, 8, 16, 25, 40, 50, 75, 80, 100, 103)  # doubles, then the marks
  ]


def test_means_weigh_chunks_by_their_steps(fit):
  trainer = Trainer(pace=1e-3)
  fit(trainer, 103, (25, 40))
  first = [0, 25, 50, 75, 100]
  for begin, (step, metrics) in zip(first, trainer.summaries, strict=True):
    assert metrics['total_loss'] == pytest.approx((begin + step - 1) / 2)


def test_resumes_at_its_start(fit):
  trainer = Trainer(start=57, pace=1e-3)
  assert fit(trainer, 103, (25, 40)) == 103
  assert trainer.saves == [80, 103]
  assert [step for step, _ in trainer.summaries] == [75, 100, 103]
  # From 57 to 74: what was before the start is no part of a mean.
  assert trainer.summaries[0][1]['total_loss'] == pytest.approx(65.5)


def test_without_intervals_only_the_end_is_saved(fit):
  trainer = Trainer(pace=1e-3)
  assert fit(trainer, 50) == 50
  assert (trainer.saves, trainer.summaries) == ([50], [])
  assert trainer.ends() == [1, 2, 4, 8, 16, 32, 50]


# Examples of an epoch, first step of a run -> [(epoch, where it is begun)]; the
# run ends at step 12, a step takes 8 examples.
EPOCHS = [
  (8, 0, [(e, e) for e in range(12)]),
  (9, 0, [(0, 0), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8),
          (8, 9), (9, 11)]),
  (20, 0, [(0, 0), (1, 3), (2, 5), (3, 8), (4, 10)]),
  (24, 0, [(0, 0), (1, 3), (2, 6), (3, 9)]),
  (95, 0, [(0, 0)]),
  (96, 0, [(0, 0)]),
  # Resumed: what was begun is not begun again, what begins there is.
  (20, 4, [(2, 5), (3, 8), (4, 10)]),
  (20, 5, [(2, 5), (3, 8), (4, 10)]),
  (20, 6, [(3, 8), (4, 10)]),
  (20, 11, []),
]  # fmt: skip


@pytest.mark.parametrize('examples, start, expected', EPOCHS)
def test_epochs_begin_before_their_first_step(fit, examples, start, expected):
  trainer, begun = Trainer(start=start, pace=1e-3), []

  def begin(epoch):
    # What is saved at its first step is from before.
    assert trainer.saves[-1:] == [trainer.step] or trainer.step == start
    begun.append((epoch, trainer.step))

  assert fit(trainer, 12, (0, 1), (examples, begin)) == 12
  assert begun == expected
  ends = trainer.ends(start)
  # Without these saves too chunks end where epochs begin.
  trainer, begun = Trainer(start=start, pace=1e-3), []
  ask = (examples, lambda epoch: begun.append((epoch, trainer.step)))
  assert fit(trainer, 12, (0, 0), ask) == 12
  assert begun == expected
  starts = {step for _, step in expected} - {start}
  assert starts <= {*trainer.ends(start)} <= {*ends}


def test_the_end_of_an_epoch_is_told_when_the_host_looks():
  told, trainer = [], Trainer(pace=1e-3)
  hooks = loop.Hooks(
    trainer.save,
    trainer,
    after_epoch=lambda over: told.append((over, trainer.step)),
  )
  # Steps of 8 of 20 examples: epochs end in steps 3, 5, 8, 10; looks at each.
  loop.fit(trainer.loop, None, loop.Span(0, 12, 8, 1, 0, 20), hooks)
  assert told == [(1, 3), (2, 5), (3, 8), (4, 10), (None, 12)]
  # Chunks do not end for it.
  told, trainer = [], Trainer(pace=1e-3)
  hooks = hooks._replace(save=trainer.save, monitor=trainer)
  hooks = hooks._replace(
    after_epoch=lambda over: told.append((over, trainer.step))
  )
  loop.fit(trainer.loop, None, loop.Span(0, 12, 8, epoch=20), hooks)
  assert trainer.ends() == [1, 2, 4, 8, 12]
  assert told == [(1, 4), (3, 8), (None, 12)]
  # And where a signal ends a run.
  told, trainer = [], Trainer(pace=10.0, at={4: kill(signal.SIGTERM)})
  hooks = hooks._replace(save=trainer.save, monitor=trainer)
  with pytest.raises(loop.Stopped):
    loop.fit(trainer.loop, None, loop.Span(0, 12, 8, epoch=200), hooks)
  assert [over for over, _ in told] == [None]


def test_chunks_end_where_something_is_to_be_called(monkeypatch):
  """Before a run's first step, too, and of a resumed one what is left."""
  for start, expected in ((0, [0, 10, 21, 60]), (15, [21, 60]), (21, [21, 60])):
    trainer, called = Trainer(start=start, pace=1e-3), []
    monkeypatch.setattr(loop.time, 'monotonic', lambda t=trainer: t.now)

    def note(trainer=trainer, called=called):
      # Before the checkpoint of that step.
      assert trainer.saves == []
      called.append(trainer.step)

    hooks = loop.Hooks(
      trainer.save, trainer, at=dict.fromkeys((0, 10, 21, 60), note)
    )
    loop.fit(trainer.loop, None, loop.Span(start, 60, 8), hooks)
    assert called == expected
    assert {*expected} - {start} <= {*trainer.ends(start)}
    assert trainer.saves == [60]


def test_the_memory_of_a_gpu_is_shown_and_written(fit, monkeypatch):
  trainer = Trainer()
  fit(trainer, 20, (10, 0))
  told = [*trainer.shown, *(metrics for _, metrics in trainer.summaries)]
  assert not any('gpu_memory' in metrics for metrics in told)
  trainer = Trainer()
  monkeypatch.setattr(loop.replicas, 'gpu_memory', lambda: 12.5)
  fit(trainer, 20, (10, 0))
  told = [*trainer.shown, *(metrics for _, metrics in trainer.summaries)]
  assert all(metrics['gpu_memory'] == 12.5 for metrics in told)


@pytest.mark.parametrize('pace, longest', [(1.0, 8), (3.0, 2), (60.0, 1)])
def test_the_host_looks_every_few_seconds(fit, pace, longest):
  trainer = Trainer(pace=pace)
  fit(trainer, 60)
  assert max(trainer.chunks) == longest
  assert trainer.chunks[0] == 1


def test_rate_and_time_left(fit):
  trainer = Trainer(pace=0.5)
  fit(trainer, 20)
  for step, total, _, rate, eta in trainer.lines:
    assert total == 20
    # The first chunk compiles: its pace promises nothing.
    known = step > 1
    assert rate == (pytest.approx(8 / 0.5) if known else None)
    assert eta == (pytest.approx((20 - step) * 0.5) if known else None)


def test_the_time_left_has_room_for_checkpoints(fit):
  """A step takes 0.5 s, and every tenth another 5 s to be saved."""
  trainer = Trainer(pace=0.5)

  def slowly():
    trainer.now += 5

  trainer.saving = dict.fromkeys(range(10, 1000, 10), slowly)
  fit(trainer, 200, (0, 10))
  at = {step: (rate, eta) for step, *_, rate, eta in trainer.lines}
  assert at[100][0] == pytest.approx(8, rel=0.1)
  assert at[100][1] == pytest.approx(100, rel=0.1)


def test_epochs_are_told_where_they_are_known(fit):
  trainer = Trainer()
  fit(trainer, 12, epochs=(20, None))
  assert trainer.epochs[-1] == [4.8, 4.8]
  assert trainer.epochs[0] == [0.4, 4.8]
  trainer = Trainer()
  fit(trainer, 12)
  assert trainer.epochs[-1] is None


@pytest.mark.parametrize('waiting, share', [(0.0, 0.0), (0.2, 0.4), (0.6, 1.0)])
def test_the_share_of_waiting_is_within_a_step(fit, waiting, share):
  trainer = Trainer(pace=0.5, waiting=waiting)
  fit(trainer, 20, (10, 0))
  told = [*trainer.shown, *(metrics for _, metrics in trainer.summaries)]
  assert [m['input_wait'] for m in told] == pytest.approx([share] * len(told))
  assert trainer.summaries[-1][1].keys() == {
    *('total_loss', 'images_per_second', 'input_wait'),
    *('skipped_steps', 'save_share'),
  }


def test_the_share_of_a_run_that_saving_takes(fit):
  trainer = Trainer(pace=1.0)

  def save():
    trainer.now += 5

  trainer.saving = {10: save, 15: save, 20: save}
  fit(trainer, 40, (20, 5))
  shares = [metrics['save_share'] for _, metrics in trainer.summaries]
  # Two saves within 30 s, then one of 25: a save follows its summary.
  assert shares == pytest.approx([10 / 30, 5 / 25])


def test_a_step_that_delays_a_stop_is_said_once(fit):
  trainer = Trainer(pace=12.0)
  fit(trainer, 5)
  (line,) = trainer.said
  assert 'a step takes 12 s' in line
  trainer = Trainer(pace=8.0)
  fit(trainer, 5)
  assert trainer.said == []


def test_without_clocks_nothing_is_said_of_waiting(fit):
  trainer = Trainer(waiting=math.nan)
  fit(trainer, 20, (10, 0))
  told = [*trainer.shown, *(metrics for _, metrics in trainer.summaries)]
  assert len(told) > 2 and not any('input_wait' in m for m in told)


def test_the_first_chunk_compiles_and_says_nothing_about_the_pace(fit):
  trainer = Trainer(pace=0.5)

  def compile_slowly():
    trainer.now += 600

  trainer.at = {1: compile_slowly}
  fit(trainer, 40)
  assert trainer.chunks[:6] == [1, 1, 2, 4, 8, 16]
  assert trainer.lines[1][-1] == pytest.approx(38 * 0.5)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('step', [11, 20])  # 20: a checkpoint is due anyway
def test_a_signal_saves_once_and_stops(fit, number, step):
  before = signal.getsignal(number)
  trainer = Trainer(pace=10.0, at={step: kill(number)})
  name = signal.Signals(number).name
  with pytest.raises(loop.Stopped, match=f'{name} at step {step}:'):
    fit(trainer, 100, (0, 20))
  assert (trainer.saves, trainer.needed) == ([step], [True])
  assert trainer.step == step
  assert signal.getsignal(number) is before


def test_a_signal_during_a_save_lets_it_finish_and_stops(fit):
  trainer = Trainer(pace=10.0)
  trainer.saving = {20: kill(signal.SIGTERM)}
  with pytest.raises(loop.Stopped, match='at step 20:'):
    fit(trainer, 100, (0, 20))
  # The second finds it there, unless the first was let fail.
  assert (trainer.saves, trainer.step) == ([20, 20], 20)


def test_a_second_signal_changes_nothing(fit):
  trainer = Trainer(pace=10.0, at={11: kill(signal.SIGTERM)})
  trainer.saving = {11: kill(signal.SIGINT)}
  with pytest.raises(loop.Stopped, match='at step 11:'):
    fit(trainer, 100, (0, 20))
  assert trainer.saves == [11]


def test_a_signal_in_the_last_step_stops_before_what_follows(fit):
  before = signal.getsignal(signal.SIGTERM)
  trainer = Trainer(at={30: kill(signal.SIGTERM)})
  with pytest.raises(loop.Stopped, match='at step 30:'):
    fit(trainer, 30)
  assert trainer.saves == [30]
  assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_end_before_their_save(fit, value):
  """A finite gradient may have been too long."""
  before = signal.getsignal(signal.SIGINT)
  trainer = Trainer(pace=1e-3, at={15: lambda: trainer.norm(value)})
  with pytest.raises(loop.Diverged, match='not finite at step 16'):
    fit(trainer, 100, (8, 8))
  assert trainer.saves == [8]
  assert [step for step, _ in trainer.summaries] == [8]
  assert signal.getsignal(signal.SIGINT) is before


def test_skipped_steps_are_told_and_no_part_of_a_mean(fit):
  trainer = Trainer(pace=1e-3)
  trainer.bad = {10, 11, 17, *range(24, 33)}
  fit(trainer, 40, (8, 0))
  losses = {step: m.get('total_loss') for step, m in trainer.summaries}
  # The loss of a step is the number of those before.
  assert losses == {
    8: np.mean(range(8)),
    16: np.mean([8, *range(11, 16)]),
    24: np.mean([*range(17, 23)]),
    32: None,
    40: np.mean(range(32, 40)),
  }
  counts = [m['skipped_steps'] for _, m in trainer.summaries]
  assert counts == [0, 2, 2, 8, 0]
  assert sum(trainer.skipped) == 12 and 0 not in trainer.skipped


def test_a_stop_while_the_state_is_not_finite_is_a_stop(fit):
  def diverged():
    raise loop.Diverged('a weight is infinite at step 15')

  trainer = Trainer(at={15: kill(signal.SIGTERM)})
  trainer.saving = {16: diverged}
  with pytest.raises(loop.Stopped, match='infinite.*without a checkpoint'):
    fit(trainer, 100)
  trainer = Trainer()
  trainer.saving = {15: diverged}
  with pytest.raises(loop.Diverged):
    fit(trainer, 15)


def test_what_is_seen_at_a_summary_is_told_and_written(fit):
  trainer = Trainer(pace=1e-3)
  asked = []

  def watch(step, metrics):
    asked.append((step, metrics['total_loss']))
    lines = ['look here'] if step == 50 else []
    return loop.Observation({'health/x': step / 2}, lines)

  assert fit(trainer, 60, (25, 0), watch=watch) == 60
  # It gets the means of the same summary.
  assert asked == [(25, 12.0), (50, 37.0), (60, 54.5)]
  assert trainer.said == ['look here']
  for step, metrics in trainer.summaries:
    assert metrics['health/x'] == step / 2 and 'total_loss' in metrics


@pytest.mark.parametrize('step, saves', [(20, [20]), (25, [20, 25])])
def test_who_watches_may_end_the_run_after_a_checkpoint(fit, step, saves):
  trainer = Trainer(pace=1e-3)
  watch = lambda at, _: loop.Observation(collapsed=at == step)  # noqa: E731
  with pytest.raises(loop.Collapsed, match=f'at step {step} '):
    fit(trainer, 100, (5, 20), watch=watch)
  assert (trainer.saves, trainer.step) == (saves, step)
  assert trainer.needed[-1]
  assert trainer.summaries[-1][0] == step


def test_all_workers_end_when_one_has_seen_it(monkeypatch):
  """This one saw nothing; host_means says that another did at step 10."""
  trainer = Trainer(pace=1e-3)
  monkeypatch.setattr(loop.time, 'monotonic', lambda: trainer.now)

  seen = [0.5]

  def host_means(values):
    alone = len(values) == 1 and trainer.step == 10
    return [seen.pop()] if alone and seen else values

  with pytest.raises(loop.Collapsed, match='at step 10 '):
    loop.fit(
      trainer.loop,
      None,
      loop.Span(0, 100, 8, summary_every=5),
      loop.Hooks(
        trainer.save,
        trainer,
        host_means,
        watch=lambda step, metrics: loop.Observation(),
      ),
    )
  assert trainer.saves == [10]


def test_a_signal_comes_before_a_collapse(fit):
  trainer = Trainer(pace=10.0, at={5: kill(signal.SIGTERM)})
  watch = lambda step, metrics: loop.Observation(collapsed=True)  # noqa: E731
  with pytest.raises(loop.Stopped, match='at step 5:'):
    fit(trainer, 100, (5, 0), watch=watch)
  assert trainer.saves == [5]


def metrics_of(batch):
  """A train step whose metrics are told apart: order, size, dtype."""
  mean = tf.reduce_mean(batch)
  return {
    'total_loss': mean,
    'a_square': mean**2,
    'count': tf.size(batch),
  }


@pytest.mark.parametrize('replicas', [1, 2])
def test_device_loop_means_over_steps_and_replicas(two_replicas, replicas):
  strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
  rows = np.arange(24, dtype=np.float32).reshape(12, 2) ** 2

  def batches(context):
    return tf.data.Dataset.from_tensor_slices(rows).batch(
      2 // context.num_replicas_in_sync
    )

  iterator = iter(strategy.distribute_datasets_from_function(batches))
  steps = loop.make_loop(strategy, metrics_of)
  done = 0
  for n in (1, 3, 2):
    # [steps, replicas, numbers of one replica]
    part = rows[2 * done : 2 * (done + n)].reshape(n, replicas, -1)
    means = steps(iterator, n)
    assert means.pop('input_seconds') >= 0
    assert means.pop('skipped_steps') == 0
    assert set(means) == {'total_loss', 'a_square', 'count'}
    assert means['total_loss'] == pytest.approx(part.mean(), rel=1e-6)
    square = (part.mean(-1) ** 2).mean()
    assert means['a_square'] == pytest.approx(square, rel=1e-6)
    assert means['count'] == 4 / replicas
    done += n
  with pytest.raises(tf.errors.OutOfRangeError):
    steps(iterator, 1)


@pytest.mark.parametrize('free, ready, waited', [(3, 7, 4.0), (7, 3, 0.0)])
@pytest.mark.parametrize('replicas', [1, 2])
def test_a_batch_that_came_before_it_was_needed_was_not_waited_for(
  monkeypatch, two_replicas, replicas, free, ready, waited
):
  strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
  clocks = itertools.cycle((free, ready))  # In the order they are made.
  monkeypatch.setattr(
    tf, 'timestamp', lambda: tf.constant(next(clocks), tf.float64)
  )
  data = tf.data.Dataset.from_tensors(tf.ones([2])).repeat()
  iterator = iter(strategy.distribute_datasets_from_function(lambda _: data))
  steps = loop.make_loop(strategy, metrics_of)
  assert steps(iterator, 5)['input_seconds'] == waited


def ancestors(node, graph):
  """The types of all operations of a graph that one of them waits for."""
  inputs = {
    n.name: [i.strip('^').split(':')[0] for i in n.input] for n in graph
  }
  found, left = {node}, [node]
  while left:
    new = {i for i in inputs.get(left.pop(), ()) if i not in found}
    found |= new
    left += new
  return {n.op for n in graph if n.name in found - {node}}


@pytest.mark.parametrize('compiled', [False, True])
def test_nothing_of_a_step_waits_for_the_clocks(monkeypatch, compiled):
  """So a device may be busy while the host prepares its next step."""
  made, function = [], tf.function

  def kept(f=None, **options):
    if f is None:
      return functools.partial(kept, **options)
    made.append(function(f, **options))
    return made[-1]

  monkeypatch.setattr(tf, 'function', kept)
  total = tf.Variable(0.0)

  @function(jit_compile=compiled)
  def add(x):
    return total.assign_add(tf.reduce_sum(x))

  def step(row):
    tf.print('an effect that is ordered after others')
    return {'total_loss': add(row)}

  data = tf.data.Dataset.from_tensors(tf.ones([2])).repeat()
  loop.make_loop(tf.distribute.get_strategy(), step)
  (run,) = made
  traced = run.get_concrete_function(iter(data), tf.constant(3))
  library = traced.graph.as_graph_def().library.function
  (body,) = [f.node_def for f in library if '_body_' in f.signature.name]
  # One for the end of the step before, one for the batch.
  free, ready = (n.name for n in body if n.op == 'Timestamp')
  assert ancestors(free, body) == {'Assert', 'Const'}
  assert ancestors(ready, body) == {'IteratorGetNext'}
  for kind in ('IteratorGetNext', 'PrintV2', 'StatefulPartitionedCall'):
    (node,) = (n.name for n in body if n.op == kind)
    assert not ancestors(node, body) & {'Timestamp', 'Assert'}
