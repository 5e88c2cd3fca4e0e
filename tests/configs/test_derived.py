"""What follows from the settings."""

import dataclasses

import pytest

from cvr.configs import (
  derived,
  methods,
  settings,
)
from cvr.configs.config import Config
from small_data import METHOD_SETTINGS, take_local_crops
from typed import evaluating, parse


def test_a_queue_is_used_when_it_is_full():
  cfg = Config(pretrain_loss='swav', queue_size=30, train_batch_size=8)
  assert derived.queue_start_step(cfg, 100) == 4
  cfg = dataclasses.replace(cfg, queue_start=1.5)
  assert derived.queue_start_step(cfg, 100) == 19
  assert derived.queue_start_step(cfg, 8) == 4


def test_steps():
  cfg = Config(train_batch_size=100, train_epochs=3, warmup_epochs=0.5)
  assert derived.train_steps(cfg, 1030) == 31
  assert derived.warmup_steps(cfg, 1030) == 5
  assert derived.checkpoint_steps(cfg, 1030) == 10
  assert derived.checkpoint_steps(cfg, 30) == 1
  cfg = dataclasses.replace(cfg, train_steps=4, checkpoint_steps=2)
  assert derived.train_steps(cfg, 1030) == 4
  assert derived.checkpoint_steps(cfg, 1030) == 2


def test_learning_rate_scaling():
  cfg = Config(learning_rate=0.075, train_batch_size=1024)
  assert derived.scaled_learning_rate(cfg) == pytest.approx(0.3)
  cfg = dataclasses.replace(cfg, learning_rate_scaling='sqrt')
  assert derived.scaled_learning_rate(cfg) == pytest.approx(2.4)
  cfg = dataclasses.replace(cfg, final_learning_rate=0.01)
  found = derived.scaled_learning_rate(cfg, 'final_learning_rate')
  assert found == pytest.approx(0.32)


def test_stem():
  assert derived.stem(Config(image_size=32)) == 'cifar'
  assert derived.stem(Config(image_size=33)) == 'imagenet'
  assert derived.stem(Config(image_size=32, stem='small')) == 'small'


def test_method_facts():
  facts = {
    loss: (
      derived.is_ceb(cfg),
      derived.has_teacher(cfg),
      derived.has_latent(cfg),
    )
    for loss in methods.KINDS
    for cfg in [Config(pretrain_loss=loss, **METHOD_SETTINGS.get(loss, {}))]
  }
  assert facts == {
    'contrastive': (False, False, False),
    'contrastive_ceb': (True, False, False),
    'byol': (False, True, False),
    'byol_ceb': (True, True, False),
    'cmc': (False, False, False),
    'vicreg': (False, False, False),
    'moco': (False, True, False),
    'dino': (False, True, False),
    'simsiam': (False, False, False),
    'er_simclr': (False, False, False),
    'er_byol': (False, True, False),
    'er_dino': (False, True, False),
    'entrec_cont': (False, False, False),
    'entrec_disc': (False, False, False),
    'swav': (False, False, False),
    'deepcluster': (False, False, False),
    'stochcon_bernoulli': (False, False, True),
    'stochcon_gaussian': (False, False, True),
  }


def test_published_augmentation():
  assert dataclasses.asdict(derived.augmentation(Config())) == {
    'size': (224, 224),
    'random_crop': True,
    'whole': True,
    'area_lower': (0.08, 0.08),
    'area_upper': (1.0, 1.0),
    'sampling': 'logarithmic',
    'tries': 0,
    'covered': (0.1, 0.1),
    'jitter_prob': 0.8,
    'brightness': 0.4,
    'contrast': 0.4,
    'saturation': 0.2,
    'hue': 0.1,
    'brightness_fn': 'simclrv1',
    'gray_prob': 0.2,
    'clip_after_resize': True,
    'clip_after_gray': True,
    'blur': (1.0, 0.1),
    'solarize': (0.0, 0.2),
    'mean_std': True,
  }


def test_other_augmentations():
  def resolved(**settings):
    return derived.augmentation(Config(**settings))

  simclr = resolved(batch_image_augmentation_type='simclr')
  assert (simclr.blur, simclr.solarize) == ((0.5, 0.5), (0.0, 0.0))
  assert not simclr.mean_std
  assert resolved(use_blur=False).blur == (0.0, 0.0)
  assert resolved(use_blur=False).solarize == (0.0, 0.2)
  assert resolved(blur_probability='0.3, 0.7').blur == (0.3, 0.7)
  plain = resolved(train_mode='finetune')
  assert plain.random_crop
  assert (plain.jitter_prob, plain.gray_prob) == (0, 0)
  assert (plain.blur, plain.solarize) == ((0, 0), (0, 0))
  full = resolved(train_mode='finetune', ft_with_full_aug=True)
  assert full == resolved()
  none = resolved(no_augmentation=True, ft_with_full_aug=True)
  assert not none.random_crop
  assert (none.jitter_prob, none.gray_prob) == (0, 0)
  assert (none.blur, none.solarize) == ((0, 0), (0, 0))
  assert none.mean_std
  some = resolved(
    grayscale_probability=0.3,
    color_jitter_probability=0.6,
    area_range_upper_bound=0.4,
  )
  assert (some.gray_prob, some.jitter_prob) == (0.3, 0.6)
  assert some.area_upper == (0.4, 0.4)
  of_rgb = {'saturation': 0, 'hue': 0, 'gray_prob': 0}
  expected = dataclasses.replace(resolved(), **of_rgb)
  assert resolved(channels=1) == expected


@pytest.fixture
def multi_crop(monkeypatch):
  """As if BYOL took local crops."""
  take_local_crops(monkeypatch, 'byol')


@pytest.mark.usefixtures('multi_crop')
def test_local_crops_follow_two_global_ones():
  line = '--pretrain_loss=byol --local_crops=3 --area_range_lower_bound=0.14'
  cfg = parse(line)
  recipe = derived.augmentation(cfg)
  assert derived.num_views(cfg) == 5
  assert (recipe.size, recipe.image_size) == ((224, 224, 96, 96, 96), 224)
  assert recipe.area_lower == (0.14, 0.14, 0.05, 0.05, 0.05)
  assert recipe.area_upper == (1.0, 1.0, 0.14, 0.14, 0.14)
  assert recipe.blur == (1.0, 0.1, 0.5, 0.5, 0.5)
  assert recipe.solarize == (0.0, 0.2, 0.0, 0.0, 0.0)
  other = derived.augmentation(
    parse(
      f'{line} --local_size=64 --local_area=0.05,0.4 '
      '--blur_probability=0.3,0.4,0.1 --solarize_probability=0.6,0.7'
    )
  )
  assert other.size == (224, 224, 64, 64, 64)
  assert other.area_upper == (1.0, 1.0, 0.4, 0.4, 0.4)
  assert other.blur == (0.3, 0.4, 0.1, 0.1, 0.1)
  assert other.solarize == (0.6, 0.7, 0.0, 0.0, 0.0)
  simclr = f'{line} --batch_image_augmentation_type=simclr'
  assert derived.augmentation(parse(simclr)).blur == (0.5,) * 5
  sharp = derived.augmentation(parse(f'{line} --use_blur=false'))
  assert sharp.blur == (0.0,) * 5
  assert sharp.solarize == (0.0, 0.2, 0.0, 0.0, 0.0)


def test_suites_come_in_their_order_and_all_leaves_out_the_long_one():
  assert derived.suites(evaluating()) == [*settings.SUITES[:-1]]
  found = derived.suites(evaluating('--suite=robustness,linear'))
  assert found == ['linear', 'robustness']
  found = derived.suites(evaluating('--suite=all,transfer_finetune'))
  assert found == [*settings.SUITES]


def test_names_of_corruptions_and_sets():
  assert derived.corruptions(evaluating()) == []
  assert len(derived.corruptions(evaluating('--corrupt=all'))) == 15
  named = evaluating('--corrupt=snow,fog')
  assert derived.corruptions(named) == ['snow', 'fog']
  # ImageNet has variants, and so have they where somebody says where they lie.
  assert len(derived.robustness_places(evaluating())) == 7
  other = ['--dataset=cifar10']
  assert derived.robustness_places(evaluating(*other)) == {}
  places = '--robustness_sets=objectnet=folder:/o,imagenet_a'
  assert derived.robustness_places(evaluating(*other, places)) == {
    'imagenet_a': '',
    'objectnet': 'folder:/o',
  }
