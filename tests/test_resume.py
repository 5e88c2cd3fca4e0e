"""A run that is stopped ends with the bits of one that is not.

A table: what is trained, how it is stopped, and what has to be the same beside
the last checkpoint.
"""

import json
import os
import random
import re
import runpy
import shutil
import signal
import socket
from typing import NamedTuple

import numpy as np
import pytest

import run
from cvr import methods
from cvr.checkpoints import files
from cvr.training import loop
from processes import training
from saved_runs import files_in
from small_runs import (
  QUICK,
  ROOT,
  WATCH,
  assert_same_bits,
  flags,
  tensors,
)
from toy_method import Toy

VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'


class Runs:
  """Two runs of the same flags: a whole one, and one that is stopped."""

  def __init__(self, images, tmp_path, total, more, capsys, start):
    self.whole, self.stopped = tmp_path / 'whole', tmp_path / 'stopped'
    self.log, self.total = tmp_path / 'log', total
    self.capsys, self.start = capsys, start
    more = ('--mode=train', f'--train_steps={total}', *more)
    self.argv = {
      place: flags(images, place, *more) for place in (self.whole, self.stopped)
    }

  def main(self, place):
    """-> (status, what was printed, what was said in stderr)."""
    self.capsys.readouterr()
    status = run.main(self.argv[place])
    return status, *self.capsys.readouterr()

  def value(self, step, name, place=None):
    path = (place or self.stopped) / f'ckpt-{step}'
    return tensors(path)[f'method/{name}{VALUE}']


# How a run is stopped ---------------------------------------------------------


def by_signals(runs):
  """Ctrl-C after a step, SIGTERM in the third."""
  assert runs.main(runs.whole)[0] == 0
  stops, make_loop = iter([signal.SIGINT, None, signal.SIGTERM]), loop.make_loop

  def interrupted(*args, **settings):
    steps = make_loop(*args, **settings)

    def one(iterator, n):
      metrics = steps(iterator, n)
      number = next(stops, None) if 'total_loss' in metrics else None
      if number:
        os.kill(os.getpid(), number)
      return metrics

    return one

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, 'make_loop', interrupted)
    for step, name in ((1, 'SIGINT'), (3, 'SIGTERM')):
      status, out, err = runs.main(runs.stopped)
      assert status == 143
      assert f'{name} at step {step}: checkpoint written' in err
      # There is one before the first step, and never again.
      assert ('One pass' in out) == (step == 1)
      assert ('Resuming from step 1' in out) == (step == 3)
  assert runs.main(runs.stopped)[0] == 0


def by_loss_of_its_last_checkpoints(runs):
  """All that is left is from before step 4, where an epoch begins."""
  assert runs.main(runs.whole)[0] == 0
  shutil.copytree(runs.whole, runs.stopped)
  for step in files.steps(runs.stopped):
    if step > 3:
      for path in runs.stopped.glob(f'ckpt-{step}.*'):
        path.unlink()
  status, out, _ = runs.main(runs.stopped)
  assert status == 0 and 'Resuming from step 3' in out


def turned_away(second, first, log):
  """Whether a second run ends at once, and names the first."""
  assert not second.let_go_on(0) and second.process.exitcode == 2
  who = f'pid {first.process.pid} on {socket.gethostname()} since'
  return f'is in use by {who}' in log.read_text()


def by_sigkill(runs):
  """At random moments of steps and saves; while it runs a second one begins."""
  rng = random.Random(1)

  def begin(place):
    return runs.start(training, runs.argv[place], str(runs.log))

  whole = begin(runs.whole)
  for _ in range(runs.total):
    whole.line.send('go on')
  for kill in range(2):
    child = begin(runs.stopped)
    assert child.let_go_on(rng.randint(2, 3)), runs.log.read_text()
    if not kill:  # While the first waits in a step.
      before = files_in(runs.stopped, '*ckpt-*')
      assert turned_away(begin(runs.stopped), child, runs.log)
      assert files_in(runs.stopped, '*ckpt-*') == before
    child.line.send('go on')
    child.line.poll(rng.uniform(0, 0.03))  # Any moment of a step, or a save.
    child.kill()
    newest = files.steps(runs.stopped)[-1]
    assert newest > 0
  last = begin(runs.stopped)
  for child in (last, whole):
    assert not child.let_go_on(runs.total) and child.process.exitcode == 0
  resumed = f'Resuming from step {newest} of {runs.stopped}'
  assert resumed in runs.log.read_text()


# What else is the same --------------------------------------------------------


def losses(model_dir):
  """step -> loss, of which the later row counts."""
  rows = (model_dir / 'metrics.jsonl').read_text().splitlines()
  return {row['step']: row['train/total_loss'] for row in map(json.loads, rows)}


def examples(runs):
  """The same at every step, or its loss would be another."""
  found = losses(runs.stopped)
  assert found == losses(runs.whole)
  assert sorted(found) == list(range(1, runs.total + 1))
  counter = f'optimizer/iter{VALUE}'
  end = tensors(runs.stopped / f'ckpt-{runs.total}')
  assert end[counter] == runs.total


def moved(*names):
  """These are not what they were where it resumed."""

  def check(runs):
    for name in names:
      early, late = (runs.value(step, name) for step in (3, runs.total))
      assert not np.array_equal(early, late), name

  return check


def clusters(runs):
  moved('memory/0', 'memory/1', 'centroids', 'assignments', 'usage')(runs)
  for crop in range(2):  # It saw all of them before step 0.
    norms = np.linalg.norm(runs.value(0, f'memory/{crop}'), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def state_of_any_kind(runs):
  """And of a run that is done nothing is left to do, but it can be read."""
  # Epochs begin at steps 0, 3 and 5; one pass over 24 examples takes 30.
  counts = runs.value(runs.total, 'counts', runs.whole)
  np.testing.assert_array_equal(counts, [30, 3])
  before = files_in(runs.stopped, 'ckpt-*')
  status, out, _ = runs.main(runs.stopped)
  assert status == 0 and f'Resuming from step {runs.total}' in out
  assert files_in(runs.stopped, 'ckpt-*') == before
  # Who reads it has no training data, and needs their number all the same.
  argv = ['run.py', '--mode=extract_features', '--use_tpu=false']
  argv += [f'--checkpoint={runs.stopped}', f'--output={runs.log}.npz']
  assert run.main(argv) == 0
  # What the quickstart ends with: the encoder before and after.
  runs.capsys.readouterr()
  script = runpy.run_path(f'{ROOT}/scripts/quickstart_table.py')
  script['main'](str(runs.whole))
  rows = re.findall(
    r'(\w+) encoder +(\d+) +(\d+\.\d)%', runs.capsys.readouterr().out
  )
  assert [row[:2] for row in rows] == [
    ('untrained', '0'),
    ('trained', f'{runs.total}'),
  ]


# The table --------------------------------------------------------------------


class Row(NamedTuple):
  flags: tuple
  stopped: object
  same: object = None
  total: int = 7
  encoder: str = 'glance'
  method: type | None = None


# 24 examples by tens: epochs begin at steps 0, 3 and 5.
TENS = ('--train_batch_size=10', '--checkpoint_steps=3')
ROWS = {
  'SimCLR': Row((*TENS, WATCH), by_loss_of_its_last_checkpoints, None, 6,
                'tiny_encoder'),
  'a method with all that a method may keep': Row(
    (*TENS, *QUICK, WATCH, '--checkpoint_steps=100'), by_signals,
    state_of_any_kind, method=Toy),
  'SwAV': Row(
    (*TENS, *QUICK, '--pretrain_loss=swav', '--num_prototypes=6',
     '--queue_size=14', '--freeze_prototypes_steps=4', '--local_crops=1',
     '--local_size=8'),
    by_loss_of_its_last_checkpoints, moved('queue', 'prototypes/kernel')),
  'DeepCluster': Row(
    (*TENS, *QUICK, '--pretrain_loss=deepcluster', '--num_prototypes=5'),
    by_loss_of_its_last_checkpoints, clusters),
  'StochCon': Row(
    (*TENS, *QUICK, '--pretrain_loss=stochcon_bernoulli', '--latent_dim=6'),
    by_loss_of_its_last_checkpoints),
  # A teacher, and noise.
  'C-BYOL': Row(
    ('--pretrain_loss=byol_ceb', '--train_summary_steps=1', '--deterministic',
     '--use_blur=false'), by_sigkill, examples, 12),
}  # fmt: skip


@pytest.mark.parametrize('name', ROWS)
def test_a_stopped_run_ends_with_the_bits_of_a_whole_one(
  name, images, tmp_path, capsys, start, monkeypatch, request
):
  row = ROWS[name]
  request.getfixturevalue(row.encoder)
  if row.method:
    monkeypatch.setitem(methods.METHODS, 'contrastive', row.method)
  runs = Runs(images, tmp_path, row.total, row.flags, capsys, start)
  row.stopped(runs)
  end = f'ckpt-{row.total}'
  assert_same_bits(runs.whole / end, runs.stopped / end)
  if row.same:
    row.same(runs)
