"""Trials of a whole network: grids, settings, and the choice among them."""

import types

import numpy as np
import pytest

from cvr.configs import config, derived
from cvr.data import sources
from cvr.evaluation.heads import finetuning
from cvr.evaluation.heads.finetuning import (
  SEMI,
  Task,
  Trial,
  settings_of,
  transfer_grid,
)


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
  asked, titles = [], []

  def outcome(subject, trial, fitted, others, title):
    asked.append((fitted, others))
    titles.append(title)
    return {'held': np.array(answers[trial.rate]), 'held_labels': labels}

  monkeypatch.setattr(finetuning, 'outcome', outcome)
  task = Task('few', 'images', 'all', 'test')
  trial, reached = finetuning.chosen(None, grid, task)
  assert trial == grid[1]  # The first of two equals.
  assert reached == [0.5, 0.75, 0.75]
  assert asked == [('few', {'held': 'images'})] * 3
  assert titles == ['trial 1/3', 'trial 2/3', 'trial 3/3']
  assert finetuning.chosen(None, grid[:1], task)[1] == []
  assert len(asked) == 3
  # What is trained on the same images is tested by the way.
  finetuning.chosen(None, grid[:1] * 2, task._replace(refitted='few'))
  assert asked[3:] == [('few', {'held': 'images', 'test': 'test'})] * 2


@pytest.mark.parametrize('refitted', ['few', 'all'])
def test_the_test_split_chooses_no_trial(monkeypatch, refitted):
  """The trial that is best on test images is the worst on held-out ones."""
  grid = [Trial(4, rate) for rate in (0.1, 0.2, 0.3)]
  labels = np.array([0, 1, 1, 0])
  right = {0.1: (2, 2), 0.2: (4, 0), 0.3: (0, 4)}  # held-out, test

  def outcome(subject, trial, fitted, others, title=''):
    made = {}
    for name, split in others.items():
      count = right[trial.rate][split == 'test']
      made[name] = np.where(np.arange(4) < count, labels, 1 - labels)
      made[f'{name}_labels'], made[f'{name}_ids'] = labels, np.arange(4)
    return made

  class Few:
    """A split of four images, equal to its name."""

    num_examples = 4

  few = Few()
  monkeypatch.setattr(finetuning, 'outcome', outcome)
  subject = types.SimpleNamespace(
    strategy=types.SimpleNamespace(num_replicas_in_sync=1)
  )
  task = Task(few, 'images', few if refitted == 'few' else 'all', 'test')
  _, hits, facts = finetuning.tested(subject, grid, task)
  assert facts['chosen']['rate'] == 0.2
  assert facts['validation_accuracy'] == [0.5, 1.0, 0.0]
  assert not hits.any()
