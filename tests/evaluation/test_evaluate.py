"""The card of a run, and what all of its suites share."""

import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from bit_runs import call
from cvr.checkpoints import locks
from cvr.configs import variants
from cvr.data import sources
from cvr.evaluation import evaluate, store
from cvr.evaluation.heads import finetuning
from cvr.evaluation.heads.finetuning import Trial
from cvr.training import loop
from known_features import Encoder, make_images, shuffled, values
from small_data import SMALL, write
from small_runs import QUICK

pytestmark = pytest.mark.usefixtures('quick_heads')


@pytest.mark.parametrize(
  'suite, split', [('semi', 'val'), ('transfer', 'test')]
)
def test_nor_those_of_other_suites(
  make_subject, tmp_path, monkeypatch, suite, split
):
  monkeypatch.setattr(finetuning, 'SEMI', {0.1: {}})
  counts = {'train': 30, 'test': 10}
  bird = make_images(tmp_path / 'birds', counts)
  found = {}
  for name, encoder in (('right', Encoder()), ('wrong', shuffled(split))):
    subject, _ = make_subject(encoder, transfer_sets=f'birdsnap={bird}')
    subject = subject._replace(store=store.Store(f'{tmp_path}/{name}'))
    (found[name],) = evaluate._SUITES[suite](subject)
  assert (found['right'].value, found['wrong'].value) == (1.0, 0.0)
  assert found['right'].protocol == found['wrong'].protocol


def test_heads_need_no_library(make_subject, monkeypatch):
  monkeypatch.setitem(sys.modules, 'sklearn', None)
  monkeypatch.setitem(sys.modules, 'sklearn.linear_model', None)
  subject, _ = make_subject(Encoder())
  assert values(evaluate._measured('linear', subject)).keys() == {
    'online', 'sgd_simclr', 'sgd_byol', 'lbfgs'
  }  # fmt: skip


# From the command line --------------------------------------------------------


@pytest.fixture
def a_run(run_copy, no_plots):
  return run_copy('contrastive_ceb', '--no_augmentation=false')


def evaluated(model_dir, *more):
  flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--linear_passes=1']
  assert call(*flags, *more) == 0
  with open(f'{model_dir}/eval/card.json') as file:
    card = json.load(file)
  with np.load(f'{model_dir}/eval/card_rows.npz') as rows:
    return card, dict(rows)


def facts(card):
  return {
    (n['suite'], n['name']): (n['value'], n['images']) for n in card['numbers']
  }


def test_a_card_does_not_depend_on_batches_and_replicas(
  a_run, tmp_path, monkeypatch, two_replicas
):
  model_dir, _ = a_run
  monkeypatch.setattr(variants, 'SEVERITIES', (3,))
  flags = ['--suite=linear,knn,robustness', '--corrupt=fog,gaussian_noise']
  first, rows = evaluated(model_dir, *flags, '--eval_batch_size=4')
  # Six settings of the neighbours, and one of them before training.
  assert len(first['numbers']) == 4 + 7 + 2 * 2 and not first['missing']
  assert all(n['images'] == 7 for n in first['numbers'])
  ids = rows[next(k for k in rows if k.startswith('ids/'))]
  assert len(set(ids)) == 7
  from cvr.numerics import replicas

  strategy = (two_replicas, 'two CPUs')
  monkeypatch.setattr(replicas, 'make_strategy', lambda *_: strategy)
  again = [f'--feature_cache={tmp_path}/other', '--eval_batch_size=6']
  second, others = evaluated(model_dir, *flags, *again)
  assert facts(first) == facts(second)
  assert rows.keys() == others.keys()
  for name, value in rows.items():
    np.testing.assert_array_equal(value, others[name])
  assert first['checkpoint']['hash'] == second['checkpoint']['hash']
  # The batches of the evaluation say nothing of those of the training.
  with open(f'{model_dir}/config.json') as file:
    record = json.load(file)
  assert first['checkpoint']['epochs'] == second['checkpoint']['epochs']
  assert first['checkpoint']['epochs'] == (
    first['checkpoint']['step']
    * record['config']['train_batch_size']
    / record['num_examples']
  )


def test_suites_share_features_and_a_card_keeps_what_was_done(
  a_run, capsys, monkeypatch
):
  model_dir, _ = a_run
  evaluated(model_dir, '--suite=linear')
  assert capsys.readouterr().out.count('Features of') == 3
  card, _ = evaluated(model_dir, '--suite=linear,knn,compression')
  said = capsys.readouterr().out
  # Those of the network before training are new.
  assert said.count('Features of') == 2 and 'Logistic regression' not in said
  assert 'before training' in said
  names = {n['name'] for n in card['numbers']}
  assert {'residual_information/method', 'lipschitz_max/rate'} <= names
  # In C-SimCLR the rate says how far apart two views are.
  value = {n['name']: n['value'] for n in card['numbers']}
  assert value['lipschitz_max/rate'] == pytest.approx(
    value['lipschitz_max/projection'], rel=1e-3
  )

  # Stopped in the middle: what came before is on the card.
  def stop(self, *_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr('cvr.evaluation.suites.knn.predictions', stop)
  flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--linear_passes=1']
  assert call(*flags, '--suite=linear,knn') == 143
  with open(f'{model_dir}/eval/card.json') as file:
    names = [n['suite'] for n in json.load(file)['numbers']]
  # What was not measured this time is still there, in its place.
  assert list(dict.fromkeys(names)) == ['linear', 'knn', 'compression']


def test_semi_supervised_trials_are_made_once_and_go(
  a_run, capsys, monkeypatch
):
  model_dir, _ = a_run
  grid = {'byol': [Trial(4, rate, steps=2) for rate in (0.01, 1e30)]}
  monkeypatch.setattr(finetuning, 'SEMI', {0.3: grid})
  card, _ = evaluated(model_dir, '--suite=semi')
  said = capsys.readouterr().out
  assert said.count('Training in') == 2
  assert 'It counts as wrong for every image' in said
  (number,) = [
    n for n in card['numbers'] if n['name'] == 'finetuned_byol_30pct'
  ]
  protocol = number['protocol']
  assert protocol['chosen']['rate'] == 0.01 and protocol['train_images'] == 7
  assert protocol['share'] == pytest.approx(7 / 22)
  assert protocol['validation_accuracy'][1] == 0.0
  assert not [
    n for n in os.listdir(f'{model_dir}/eval/features') if 'run-' in n
  ]
  again, _ = evaluated(model_dir, '--suite=semi')
  assert 'Training in' not in capsys.readouterr().out
  assert facts(again) == facts(card)


def test_a_trial_that_was_stopped_goes_on(a_run, monkeypatch, capsys):
  model_dir, _ = a_run
  grid = {'simclr': [Trial(4, 0.01, steps=4)]}
  monkeypatch.setattr(finetuning, 'SEMI', {0.3: grid})
  monkeypatch.setitem(finetuning._COMMON, 'checkpoint_steps', 2)
  real, calls = loop.fit, []

  def halfway(steps, iterator, span, hooks):
    calls.append(span.start)
    if len(calls) == 1:
      real(steps, iterator, span._replace(total=2), hooks)
      raise loop.Stopped('stopped at step 2')
    return real(steps, iterator, span, hooks)

  monkeypatch.setattr(loop, 'fit', halfway)
  flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--suite=semi']
  assert call(*flags) == 143
  evaluated(model_dir, '--suite=semi')
  assert calls == [0, 2]


def test_what_cannot_be_had_ends_its_suite_alone(a_run, monkeypatch):
  model_dir, _ = a_run

  def lost(subject):
    raise sources.DataError('no such split')
    yield

  monkeypatch.setitem(evaluate._SUITES, 'semi', lost)
  card, _ = evaluated(model_dir, '--suite=semi,knn')
  missing = [{'suite': 'semi', 'name': '', 'why': 'no such split'}]
  assert card['missing'] == missing
  assert {n['suite'] for n in card['numbers']} == {'knn'}
  # Another suite says nothing of it, the same one anew does.
  again, _ = evaluated(model_dir, '--suite=knn')
  assert again['missing'] == missing
  monkeypatch.setitem(evaluate._SUITES, 'semi', lambda subject: ())
  again, _ = evaluated(model_dir, '--suite=semi')
  assert again['missing'] == []
  assert facts(again) == facts(card)


def test_the_card_of_another_checkpoint_is_kept(a_run, capsys):
  model_dir, _ = a_run
  evaluated(model_dir, '--suite=knn')
  path = f'{model_dir}/eval/card.json'
  with open(path) as file:
    other = file.read().replace('"hash": "', '"hash": "x')
  with open(path, 'w') as file:
    file.write(other)
  evaluated(model_dir, '--suite=knn')
  assert 'is of another checkpoint' in capsys.readouterr().out
  hash = json.loads(other)['checkpoint']['hash']
  with open(f'{model_dir}/eval/card-{hash}.json') as file:
    assert file.read() == other
  assert os.path.exists(f'{model_dir}/eval/card-{hash}_rows.npz')


def test_two_evaluations_in_a_folder_are_refused(a_run, capsys):
  model_dir, _ = a_run
  os.makedirs(f'{model_dir}/eval')
  with locks.locked(f'{model_dir}/eval'):
    flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--suite=knn']
    assert call(*flags) == 2
  assert f'{model_dir}/eval is in use by' in capsys.readouterr().err
  evaluated(model_dir, '--suite=knn')


def test_a_checkpoint_alone_has_a_folder_to_go_on_in(
  a_run, tmp_path, monkeypatch, capsys
):
  model_dir, _ = a_run
  monkeypatch.chdir(tmp_path)
  flags = ['--mode=evaluate', f'--checkpoint={model_dir}', '--suite=knn']
  assert call(*flags) == 0
  assert 'Features of' in capsys.readouterr().out
  assert call(*flags) == 0
  assert 'Features of' not in capsys.readouterr().out
  assert len(os.listdir(tmp_path / 'runs')) == 1


# Without labels ---------------------------------------------------------------


def test_an_unlabelled_run_is_measured_without_labels(
  tmp_path, tiny_encoder, no_plots, capsys
):
  rng = np.random.default_rng(0)
  for i in range(12):
    image = rng.integers(0, 256, [20, 20, 3], np.uint8)
    write(f'{tmp_path}/flat/{i}.png', tf.io.encode_png(image).numpy())
  settings = SMALL | {'pretrain_loss': 'contrastive_ceb'}
  flags = [f'--{k}={v}' for k, v in settings.items()]
  flags += ['--mode=train', f'--dataset=folder:{tmp_path}/flat', *QUICK]
  flags += ['--no_augmentation=false', '--warmup_epochs=0']
  flags += ['--train_steps=1', '--health_pairs=0']
  model_dir = f'{tmp_path}/run'
  assert call(*flags, f'--model_dir={model_dir}') == 0
  # Whether there are plots does not tell whether matplotlib is there.
  card, _ = evaluated(model_dir, '--suite=linear,knn,semi,compression')
  assert 'Plots need' not in capsys.readouterr().out
  names = {n['name'] for n in card['numbers']}
  assert names >= {
    'residual_information/method', 'relevant_information',
    'lipschitz_max/representation', 'uniformity', 'effective_rank',
  }  # fmt: skip
  counts = {n['name']: n['images'] for n in card['numbers']}
  # The pairs that were used, of which InfoNCE scores a half.
  assert counts.pop('relevant_information') == 6
  assert {*counts.values()} == {12}, counts
  assert [m['suite'] for m in card['missing']] == [
    'linear', 'knn', 'semi', 'compression'
  ]  # fmt: skip
  assert all('has no labels' in m['why'] for m in card['missing'])
  # Nothing at all: no success.
  alone = ['--mode=evaluate', f'--model_dir={model_dir}', '--suite=linear,knn']
  assert call(*alone) == 2
  told = capsys.readouterr()
  assert 'nothing was measured' in told.err and 'has no labels' in told.out
