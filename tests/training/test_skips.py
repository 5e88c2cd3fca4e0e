"""Steps whose loss or gradient is not finite, in whole runs (F17, F18)."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import run
from cvr.checkpoints import files, saving
from cvr.data import augmentation
from cvr.training import loop, skips
from small_runs import QUICK, flags, tensors

pytestmark = pytest.mark.usefixtures('glance')

ADAM = ('--optimizer=adamw', '--learning_rate=1e-3', '--mode=train', *QUICK)


@pytest.fixture
def spoil(monkeypatch):
  """spoil(which): views are NaN where which(indices of a batch) [] holds."""
  plain = augmentation.per_batch

  def install(which):
    def per_batch(recipe, batch):
      made = plain(recipe, batch)
      bad = tf.where(which(batch['index']), math.nan, 0.0)
      return made | {'views': tuple(view + bad for view in made['views'])}

    monkeypatch.setattr(augmentation, 'per_batch', per_batch)

  return install


def finite(prefix):
  return all(
    np.isfinite(value).all()
    for value in tensors(prefix).values()
    if value.dtype.kind == 'f'
  )


def test_one_bad_batch_is_skipped_and_named(images, tmp_path, capsys, spoil):
  """The batch of example 7 in the first of two epochs."""
  spoil(lambda index: tf.reduce_any(index == 7))
  argv = flags(images, tmp_path, *ADAM, '--train_summary_steps=1')
  assert run.main([*argv, '--checkpoint_steps=1', '--seed=1']) == 0
  told = capsys.readouterr().out
  rows = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = {row['step']: row for row in map(json.loads, rows)}
  skipped = {s for s, row in rows.items() if row['train/skipped_steps']}
  # Three batches are an epoch: each has the example once.
  assert len(skipped) == 2 and len(rows) == 6
  for step in range(1, 7):
    row, here = rows[step], tmp_path / f'ckpt-{step}'
    if step not in skipped:
      assert math.isfinite(row['train/total_loss'])
      continue
    assert 'train/total_loss' not in row
    before, after = (tensors(tmp_path / f'ckpt-{s}') for s in (step - 1, step))
    count = {k for k in after if not np.array_equal(after[k], before[k])}
    assert count == {'optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE'}
    assert finite(here)
    # Steps are numbered by those before them.
    (line,) = [x for x in told.splitlines() if f'step {step - 1} was' in x]
    named = line[line.index('examples ') + 9 :].rstrip(').').split(', ')
    assert '7' in named and len(named) == 8


def test_a_run_that_stays_bad_returns_three_times_and_ends(
  images, tmp_path, capsys, spoil
):
  # From the second epoch on, of which the third step is the first bad one.
  count = tf.Variable(0)

  def later(index):
    del index
    return count.assign_add(1) > 4

  spoil(later)
  argv = flags(images, tmp_path, *ADAM, '--max_bad_steps=3')
  assert run.main([*argv, '--train_steps=40']) == 3
  told = capsys.readouterr()
  assert told.out.count('Back to the checkpoint of step') == 3
  assert 'return 3 of 3' in told.out and '--learning_rate' in told.err
  assert 'steps in a row were not finite' in told.err
  assert 'Traceback' not in told.err
  assert all(finite(tmp_path / f'ckpt-{s}') for s in files.steps(tmp_path))


def test_a_state_that_is_not_finite_is_never_written(images, tmp_path, capsys):
  """Finite gradients, but activations whose variance is infinite."""
  argv = flags(images, tmp_path, '--pretrain_loss=byol', *ADAM)
  assert run.main([*argv, '--learning_rate=1e9', '--checkpoint_steps=1']) == 3
  told = capsys.readouterr()
  assert told.out.count('is not finite at step') == 3
  steps = files.steps(tmp_path)
  assert steps and all(finite(tmp_path / f'ckpt-{step}') for step in steps)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_save_names_what_is_not_finite_and_keeps_the_others(tmp_path, value):
  good, bad = tf.Variable([1.0, 2.0]), tf.Variable([0.0, 1.0], name='bad')
  net = tf.train.Checkpoint(good=good, count=tf.Variable(3), bad=bad)
  store = saving.Checkpoints(str(tmp_path), keep=1, net=net)
  store.save(1)
  bad[1].assign(value)
  with pytest.raises(saving.NotFinite, match='net/bad is not finite at step 2'):
    store.save(2)
  assert files.steps(tmp_path) == [1]
  bad[1].assign(0.5)
  store.save(2)
  assert files.steps(tmp_path) == [2]


def test_slots_of_an_optimizer_are_looked_at_too(tmp_path):
  weight = tf.Variable([1.0])
  optimizer = keras.optimizers.legacy.SGD(0.1, momentum=0.9)
  optimizer.apply_gradients([(tf.constant([1.0]), weight)])
  net = tf.train.Checkpoint(weight=weight)
  store = saving.Checkpoints(str(tmp_path), net=net, optimizer=optimizer)
  store.save(1)
  optimizer.get_slot(weight, 'momentum').assign([math.inf])
  with pytest.raises(saving.NotFinite, match='momentum'):
    store.save(2)


def test_slots_of_one_name_are_all_looked_at(tmp_path):
  weights = [tf.Variable([1.0], name='kernel') for _ in range(2)]
  optimizer = keras.optimizers.legacy.SGD(0.1, momentum=0.9)
  optimizer.apply_gradients([(tf.constant([1.0]), w) for w in weights])
  slots = [optimizer.get_slot(w, 'momentum') for w in weights]
  assert slots[0].name == slots[1].name
  store = saving.Checkpoints(str(tmp_path), optimizer=optimizer)
  for step, slot in enumerate(slots):
    slot.assign([math.inf])
    with pytest.raises(saving.NotFinite, match='momentum'):
      store.save(step)
    slot.assign([0.0])


def test_what_is_told_of_skipped_steps():
  told = []
  noted = skips.Skips(12, 3, told.append)
  strategy = tf.distribute.get_strategy()
  index = tf.range(12)[::-1]
  noted.note(tf.constant(False), tf.constant(4, tf.int64), index)
  noted.look(strategy, 1)
  assert 'step 4 was skipped' in told[0]
  assert 'examples 0, 1, 2, 3, 4, 5, 6, 7, ...' in told[0]
  noted.note(tf.constant(True), tf.constant(5, tf.int64), index)
  for step in (6, 7):
    noted.note(tf.constant(False), tf.constant(step, tf.int64), index + 20)
  noted.look(strategy, 2)
  assert '2 steps were skipped' in told[1] and 'last 7, examples 20' in told[1]
  noted.note(tf.constant(False), tf.constant(8, tf.int64), index)
  with pytest.raises(loop.Diverged, match='3 steps in a row.* up to step 8'):
    noted.look(strategy, 1)
  # After a return it counts anew.
  noted.note(tf.constant(False), tf.constant(8, tf.int64), index)
  noted.look(strategy, 1)
