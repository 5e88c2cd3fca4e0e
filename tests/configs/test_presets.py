"""Presets are the published recipes."""

import dataclasses

import pytest

from cvr.configs import (
  derived,
  help,
  presets,
)
from cvr.configs.config import Config
from typed import parse, warnings

# pretrain_loss, epochs, learning rate, weight decay, EMA base, weight w.
PUBLISHED_RECIPES = {
  'simclr_300epochs': ('contrastive', 300, 0.3, 1e-6, None, None),
  'simclr_1000epochs': ('contrastive', 1000, 0.2, 1.5e-6, None, None),
  'csimclr_300epochs': ('contrastive_ceb', 300, 0.3, 1e-6, None, None),
  'csimclr_1000epochs': ('contrastive_ceb', 1000, 0.2, 1.5e-6, None, None),
  'byol_300epochs': ('byol', 300, 0.3, 1e-6, 0.99, 5.0),
  'byol_1000epochs': ('byol', 1000, 0.2, 1.5e-6, 0.996, 2.0),
  'cbyol_300epochs': ('byol_ceb', 300, 0.35, 1e-6, 0.99, 5.0),
  'cbyol_1000epochs': ('byol_ceb', 1000, 0.25, 1.5e-6, 0.996, 2.0),
}


@pytest.mark.parametrize('name', PUBLISHED_RECIPES)
def test_published_recipe(name):
  loss, epochs, rate, decay, ema, weight = PUBLISHED_RECIPES[name]
  cfg = parse(f'--preset={name}')
  assert cfg.pretrain_loss == loss
  assert (cfg.train_epochs, cfg.learning_rate) == (epochs, rate)
  assert cfg.weight_decay == decay
  if ema:
    assert (cfg.ema_alpha, cfg.byol_loss_weight) == (ema, weight)
  kappas = {'contrastive_ceb': (1024, 10, 1), 'byol_ceb': (16384, 10, 1)}
  if loss in kappas:
    assert (cfg.kappa_e, cfg.kappa_b, cfg.ceb_beta) == kappas[loss]
  if loss == 'contrastive':
    assert cfg.temperature == 0.1
  assert (cfg.dataset, cfg.image_size) == ('imagenet2012', 224)
  assert (cfg.resnet_depth, cfg.train_batch_size) == (50, 4096)
  assert (cfg.optimizer, cfg.momentum, cfg.lars_eta) == ('lars', 0.9, 1e-3)
  assert (cfg.warmup_epochs, cfg.ft_proj_selector) == (10, 0)
  assert (cfg.proj_head_hidden_dim, cfg.proj_out_dim) == (4096, 256)


def test_short_names_are_the_300_epochs():
  for name in ('simclr', 'csimclr', 'byol', 'cbyol'):
    short, long = parse(f'--preset={name}'), parse(f'--preset={name}_300epochs')
    assert dataclasses.replace(short, preset=long.preset) == long


def test_published_lengths():
  """ImageNet's 1,281,167 images at batch 4096: the paper's step counts."""
  images = 1281167
  for name, steps in (('csimclr', 93836), ('csimclr_1000epochs', 312785)):
    cfg = parse(f'--preset={name}')
    assert derived.train_steps(cfg, images) == steps
    assert derived.warmup_steps(cfg, images) == 3127
    assert derived.checkpoint_steps(cfg, images) == 313
  rates = [
    derived.scaled_learning_rate(parse(f'--preset={name}'))
    for name in ('byol', 'cbyol', 'byol_1000epochs', 'cbyol_1000epochs')
  ]
  assert rates == pytest.approx([4.8, 5.6, 3.2, 4.0], rel=1e-12)


def test_cifar10_recipes():
  recipes = {
    'cifar10_simclr': (0.4, 1e-4, 2048, 0.8, (0.5, 0.5), (0.0, 0.0)),
    'cifar10_csimclr': (0.4, 1e-4, 2048, 0.8, (0.5, 0.5), (0.0, 0.0)),
    'cifar10_byol': (1.0, 1e-5, 4096, 0.4, (0.0, 0.0), (0.0, 0.2)),
    'cifar10_cbyol': (1.0, 1e-5, 4096, 0.4, (0.0, 0.0), (0.0, 0.2)),
  }
  for name, (rate, decay, hidden, jitter, blur, solarize) in recipes.items():
    cfg = parse(f'--preset={name}')
    views = derived.augmentation(cfg)
    assert (cfg.learning_rate, cfg.weight_decay) == (rate, decay)
    assert (cfg.proj_head_hidden_dim, cfg.proj_out_dim) == (hidden, 256)
    assert (cfg.resnet_depth, derived.stem(cfg)) == (18, 'cifar')
    assert (cfg.train_epochs, cfg.train_batch_size) == (1000, 256)
    assert (cfg.lars_eta, cfg.lars_clip) == (0.02, True)
    assert (views.brightness, views.contrast) == (jitter, jitter)
    assert (views.blur, views.solarize) == (blur, solarize)
  assert parse('--preset=cifar10_simclr').temperature == 0.2
  # C-SimCLR's inverse temperature.
  assert parse('--preset=cifar10_csimclr').kappa_b == 1 / 0.2
  assert parse('--preset=cifar10_byol').ema_alpha == 0.99


def test_swav_and_deepcluster_recipes():
  # Batch, crops, its rates: warm-up from, peak, end.
  recipes = {
    'swav': (4096, 2, (0.3, 4.8, 0.0048)),
    'swav_256': (256, 8, (0.0, 0.6, 0.0006)),
    'deepcluster': (4096, 2, (0.3, 4.8, 0.0048)),
    'cifar10_swav': (256, 2, (0.0, 0.6, 0.0)),
    'cifar10_deepcluster': (256, 2, (0.0, 0.6, 0.0)),
  }
  names = ('warmup_learning_rate', 'learning_rate', 'final_learning_rate')
  for name, (batch, crops, rates) in recipes.items():
    cfg = parse(f'--preset={name}')
    found = [derived.scaled_learning_rate(cfg, rate) for rate in names]
    assert found == pytest.approx(rates, rel=1e-9)
    assert (cfg.train_batch_size, derived.num_views(cfg)) == (batch, crops)
    assert (cfg.proj_head_hidden_dim, cfg.proj_out_dim) == (2048, 128)
    assert (cfg.num_prototypes, cfg.temperature) == (3000, 0.1)
    assert (cfg.optimizer, cfg.weight_decay) == ('lars', 1e-6)
    small = name.startswith('cifar10')
    assert (cfg.lars_eta, cfg.lars_clip) == ((0.02 if small else 1e-3), small)
    assert cfg.train_epochs == (1000 if small else 400)
    views = derived.augmentation(cfg)
    assert (views.brightness, views.hue, views.gray_prob) == (0.8, 0.2, 0.2)
    assert views.blur == (0.5,) * crops and views.solarize == (0.0,) * crops
  swav, small = parse('--preset=swav'), parse('--preset=swav_256')
  assert (swav.freeze_prototypes_steps, swav.warmup_epochs) == (313, 10)
  assert (small.freeze_prototypes_steps, small.warmup_epochs) == (5005, 0)
  assert (swav.queue_size, small.queue_size) == (0, 3840)
  # Of 5004.6 steps each.
  assert derived.queue_start_step(small, 1281167) == 75069
  views = derived.augmentation(small)
  assert views.size == (224, 224, *[96] * 6)
  assert views.area_lower == (0.14, 0.14, *[0.05] * 6)


def test_simclr_repo_recipe():
  cfg = parse('--preset=cifar10_simclr_repo')
  views = derived.augmentation(cfg)
  assert (cfg.train_batch_size, cfg.learning_rate) == (512, 1.0)
  assert (cfg.weight_decay, cfg.temperature) == (1e-4, 0.5)
  assert (cfg.lars_eta, cfg.lars_clip) == (1e-3, False)
  assert (views.brightness, views.saturation, views.hue) == (0.4, 0.4, 0.1)
  assert views.blur == (0.0, 0.0)
  assert not views.mean_std


def test_dino_and_simsiam_recipes():
  adam, sgd = parse('--preset=dino'), parse('--preset=dino_sgd')
  for cfg in (adam, sgd):
    rate = derived.scaled_learning_rate(cfg, 'final_learning_rate')
    assert rate == pytest.approx(1e-6)
    assert cfg.freeze_prototypes_steps == 1281167 // cfg.train_batch_size
    assert derived.num_views(cfg) == 10
    recipe = derived.augmentation(cfg)
    assert recipe.blur == (1.0, 0.1, *(0.5,) * 8)
    assert recipe.solarize == (0.0, 0.2, *(0.0,) * 8)
  assert derived.scaled_learning_rate(adam) == pytest.approx(0.002)
  assert derived.augmentation(adam).area_upper == (1.0, 1.0, *(0.4,) * 8)
  assert derived.augmentation(sgd).area_upper == (1.0, 1.0, *(0.14,) * 8)
  simsiam = parse('--preset=cifar10_simsiam')
  assert derived.scaled_learning_rate(simsiam) == 0.5
  assert derived.augmentation(simsiam).blur == (0.0, 0.0)


@pytest.mark.parametrize('name', presets.PRESETS)
def test_every_preset_is_valid_and_without_idle_settings(name):
  cfg = parse(f'--preset={name}')
  assert warnings(cfg) == []
  assert f'--preset={name}\n' in help.whole()


def test_views_of_other_recipes():
  def resolved(views):
    return derived.augmentation(Config(**views))

  moco = resolved(presets.MOCO_V2_VIEWS)
  assert moco == dataclasses.replace(
    derived.augmentation(Config()),
    area_lower=(0.2, 0.2),
    saturation=0.4,
    brightness_fn='simclrv2',
    blur=(0.5, 0.5),
    solarize=(0.0, 0.0),
  )
  assert resolved(presets.INFOMIN_VIEWS) == dataclasses.replace(
    moco, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
  )


def test_who_has_the_published_shortcut():
  """solo-learn's networks are torchvision's; SimCLR's own are not."""
  found = {
    name: parse(f'--preset={name}').shortcut
    for name, (_, row) in presets.PRESETS.items()
    if row.get('resnet_depth') in (18, 34)
  }
  assert found.pop('cifar10_simclr_repo') == 'published'
  assert len(found) > 10 and {*found.values()} == {'torchvision'}
  assert parse('--resnet_depth=18').shortcut == 'published'
