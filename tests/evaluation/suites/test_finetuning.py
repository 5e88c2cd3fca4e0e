"""Trials of a whole network, and the card, from the command line."""

import json
import os

import numpy as np
import pytest

from bit_runs import call, trained
from cvr.checkpoints import locks
from cvr.configs import config, derived
from cvr.data import sources
from cvr.evaluation import evaluate
from cvr.evaluation.suites import finetuning
from cvr.evaluation.suites.finetuning import (
  SEMI,
  Trial,
  settings_of,
  transfer_grid,
)
from cvr.training import loop


def test_grids_are_the_papers():
  # SimCLR B.5: 0.05 batch / 256; 60 and 30 epochs. BYOL C.1: 5 rates at a
  # batch of 1024, by 30 and 50 epochs.
  assert SEMI[0.01]['simclr'] == [Trial(4096, 0.05, 60)]
  assert SEMI[0.1]['simclr'] == [Trial(4096, 0.05, 30)]
  for share in (0.01, 0.1):
    grid = SEMI[share]['byol']
    assert len(set(grid)) == 10 and {t.epochs for t in grid} == {30, 50}
    cfgs = [config.Config(**{'train_batch_size': t.batch,
            'learning_rate': t.rate}) for t in grid]  # fmt: skip
    rates = {round(derived.scaled_learning_rate(cfg), 6) for cfg in cfgs}
    assert rates == {0.005, 0.01, 0.02, 0.05, 0.1}
    assert {t.batch for t in grid} == {1024}


def test_transfer_grid():
  grid = transfer_grid(images=2560)
  assert len(set(grid)) == 7 * 8 and {t.steps for t in grid} == {20_000}
  rates = sorted({t.rate for t in grid})
  np.testing.assert_allclose(rates, np.logspace(-4, -1, 7))
  # The optimizer takes rate * decay off: that is the decay of the grid.
  taken = sorted({round(t.rate * t.decay, 10) for t in grid})
  np.testing.assert_allclose(taken, [0, *np.logspace(-6, -3, 7)], atol=1e-9)
  assert {t.bn_decay for t in grid} == {0.9}  # max(1 - 10 / 10, 0.9)
  assert transfer_grid(images=256_000)[0].bn_decay == pytest.approx(0.99)


def test_a_trial_is_the_protocol_whatever_the_pretraining_was():
  cfg = config.Config(
    mode='evaluate', model_dir='m', pretrain_loss='dino', num_prototypes=12,
    proj_head_hidden='gelu', local_crops=2, clip_norm=3.0,
    grad_accum_steps=2, final_learning_rate=0.1, optimizer='adamw',
    final_weight_decay=0.4, ema_alpha=0.9, area_range_lower_bound=0.3,
    area_range_upper_bound=0.9, no_augmentation=True, bbox_sampling='uniform',
    zero_init_logits_layer=True, use_binary_cross_entropy=True,
    ft_with_full_aug=True, fine_tune_after_block=3, reinit_logits_layer=False,
    checkpoint='c', learning_rate_schedule='constant', momentum=0.5,
    momentum_nesterov=False, warmup_learning_rate=0.1, precision='bf16',
    stem='small', image_size=96, seed=7, data_dir='d', eval_batch_size=8,
    train_share=0.5, health_pairs=64, batch_image_augmentation_type='simclr',
    data_service='grpc://a:1',
  )  # fmt: skip
  trial = Trial(64, 0.05, epochs=30, decay=0.01, bn_decay=0.95)
  found = settings_of(cfg, trial, 'ckpt-7', 'folder')
  own = {
    name: value
    for name, value in config.to_dict(found).items()
    if value != config.FIELDS[name].default
  }
  # The protocol's, the encoder's, and where it runs.
  assert own == {
    'mode': 'train', 'train_mode': 'finetune', 'model_dir': 'folder',
    'checkpoint': 'ckpt-7', 'optimizer': 'momentum', 'learning_rate': 0.05,
    'weight_decay': 0.01, 'warmup_epochs': 0.0, 'train_batch_size': 64,
    'train_epochs': 30, 'batch_norm_decay': 0.95, 'keep_checkpoint_max': 1,
    'pretrain_loss': 'dino', 'proj_head_hidden': 'gelu', 'stem': 'small',
    'image_size': 96, 'batch_image_augmentation_type': 'simclr',
    'precision': 'bf16', 'seed': 7, 'data_dir': 'd', 'eval_batch_size': 8,
    'health_pairs': 64,
  }  # fmt: skip
  # Defaults that are the protocol's too.
  assert (found.momentum, found.momentum_nesterov) == (0.9, True)
  assert (found.fine_tune_after_block, found.ft_proj_selector) == (-1, 0)
  crops = derived.augmentation(found)
  assert crops.random_crop and crops.jitter_prob == 0.0
  assert {*crops.area_lower} == {0.08} and {*crops.area_upper} == {1.0}
  # 1% of ImageNet stays as it is: 3 steps an epoch.
  assert Trial(4096, 0.05).fitted(12811) == Trial(4096, 0.05)
  assert Trial(4096, 0.05).fitted(12811 // 2) == Trial(2135, 0.05)
  assert Trial(4096, 0.05).fitted(101, replicas=4) == Trial(32, 0.05)
  assert Trial(4096, 0.05).fitted(7, replicas=4) == Trial(4, 0.05)
  with pytest.raises(sources.DataError, match='3 images are too few for 4'):
    Trial(4096, 0.05).fitted(3, replicas=4)


def test_of_a_grid_the_best_on_held_out_images_is_chosen(monkeypatch):
  grid = [Trial(4, rate) for rate in (0.1, 0.2, 0.3)]
  labels = np.array([0, 1, 1, 0])
  answers = {0.1: [0, 0, 0, 0], 0.2: [0, 1, 1, 1], 0.3: [1, 1, 1, 0]}
  asked = []

  def outcome(subject, trial, fitted, others):
    asked.append((fitted, others))
    return {'held': np.array(answers[trial.rate]), 'held_labels': labels}

  monkeypatch.setattr(finetuning, 'outcome', outcome)
  trial, reached = finetuning.chosen(
    None, grid, 'few', {'held': 'images'}, lambda p, y: np.mean(p == y)
  )
  assert trial == grid[1]  # The first of two equals.
  assert reached == [0.5, 0.75, 0.75]
  assert asked == [('few', {'held': 'images'})] * 3
  assert finetuning.chosen(None, grid[:1], 'few', {}, None)[1] == []
  assert len(asked) == 3


# From the command line --------------------------------------------------------


@pytest.fixture
def run_of(tmp_path, tiny_encoder):
  return trained(tmp_path, 'contrastive_ceb', '--no_augmentation=false')


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
  run_of, tmp_path, monkeypatch, two_replicas
):
  model_dir, _ = run_of
  flags = ['--suite=linear,knn,robustness', '--corrupt=fog,gaussian_noise']
  first, rows = evaluated(model_dir, *flags, '--eval_batch_size=4')
  assert len(first['numbers']) == 5 + 6 + 2 * 2 and not first['missing']
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


def test_suites_share_features_and_a_card_keeps_what_was_done(
  run_of, capsys, monkeypatch
):
  model_dir, _ = run_of
  evaluated(model_dir, '--suite=linear')
  assert capsys.readouterr().out.count('Features of') == 3
  card, _ = evaluated(model_dir, '--suite=linear,knn,compression')
  said = capsys.readouterr().out
  assert 'Features of' not in said and 'Logistic regression' not in said
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

  monkeypatch.setattr('cvr.evaluation.heads.knn.predictions', stop)
  flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--linear_passes=1']
  assert call(*flags, '--suite=linear,knn') == 143
  with open(f'{model_dir}/eval/card.json') as file:
    names = [n['suite'] for n in json.load(file)['numbers']]
  # What was not measured this time is still there, in its place.
  assert list(dict.fromkeys(names)) == ['linear', 'knn', 'compression']


def test_semi_supervised_trials_are_made_once_and_go(
  run_of, capsys, monkeypatch
):
  model_dir, _ = run_of
  grid = {'byol': [Trial(4, rate, steps=2) for rate in (0.01, 1e30)]}
  monkeypatch.setattr(finetuning, 'SEMI', {0.3: grid})
  card, _ = evaluated(model_dir, '--suite=semi')
  said = capsys.readouterr().out
  assert said.count('Training in') == 2
  assert 'It counts as wrong everywhere' in said
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


def test_a_trial_that_was_stopped_goes_on(run_of, monkeypatch, capsys):
  model_dir, _ = run_of
  grid = {'simclr': [Trial(4, 0.01, steps=4)]}
  monkeypatch.setattr(finetuning, 'SEMI', {0.3: grid})
  monkeypatch.setitem(finetuning._COMMON, 'checkpoint_steps', 2)
  real, calls = loop.fit, []

  def halfway(*args, **settings):
    calls.append(settings['start'])
    if len(calls) == 1:
      real(*args, **settings | {'total': 2})
      raise loop.Stopped('stopped at step 2')
    return real(*args, **settings)

  monkeypatch.setattr(loop, 'fit', halfway)
  flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--suite=semi']
  assert call(*flags) == 143
  evaluated(model_dir, '--suite=semi')
  assert calls == [0, 2]


def test_what_cannot_be_had_ends_its_suite_alone(run_of, monkeypatch):
  model_dir, _ = run_of

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


def test_the_card_of_another_checkpoint_is_kept(run_of, capsys):
  model_dir, _ = run_of
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


def test_two_evaluations_in_a_folder_are_refused(run_of, capsys):
  model_dir, _ = run_of
  os.makedirs(f'{model_dir}/eval')
  with locks.locked(f'{model_dir}/eval'):
    flags = ['--mode=evaluate', f'--model_dir={model_dir}', '--suite=knn']
    assert call(*flags) == 2
  assert f'{model_dir}/eval is in use by' in capsys.readouterr().err
  evaluated(model_dir, '--suite=knn')


def test_a_checkpoint_alone_has_a_folder_to_go_on_in(
  run_of, tmp_path, monkeypatch, capsys
):
  model_dir, _ = run_of
  monkeypatch.chdir(tmp_path)
  flags = ['--mode=evaluate', f'--checkpoint={model_dir}', '--suite=knn']
  assert call(*flags) == 0
  assert 'Features of' in capsys.readouterr().out
  assert call(*flags) == 0
  assert 'Features of' not in capsys.readouterr().out
  assert len(os.listdir(tmp_path / 'runs')) == 1
