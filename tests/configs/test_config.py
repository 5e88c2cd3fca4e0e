"""Flags, presets, checks: what a typed line turns into, or is refused for."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

from cvr.configs import (
  checks,
  command_line,
  config,
  derived,
  methods,
  presets,
  settings,
)
from cvr.configs.config import Config, ConfigError
from cvr.configs.plan import make_plan
from small_data import METHOD_SETTINGS, take_local_crops

ROOT = str(pathlib.Path(__file__).parents[2])


def parse(line='', load_stored=None):
  return command_line.parse(['run.py', *line.split()], load_stored)


def warnings(cfg, examples=50000):
  """What is said of a run on so many examples."""
  plan = make_plan(cfg, examples, classes=10, replicas=1)
  return checks.warnings(cfg, plan.total, plan.warmup)


def refusal(line):
  with pytest.raises(ConfigError) as caught:
    parse(line)
  message = str(caught.value)
  assert message.isprintable()
  return message


PUBLISHED_DEFAULTS = {
  'learning_rate': 0.3,
  'learning_rate_scaling': 'linear',
  'learning_rate_schedule': 'cosine',
  'warmup_epochs': 10,
  'weight_decay': 1e-6,
  'batch_norm_decay': 0.9,
  'ema_alpha': 0.999,
  'train_batch_size': 512,
  'eval_batch_size': 256,
  'train_split': 'train',
  'eval_split': 'validation',
  'train_epochs': 100,
  'train_steps': 0,
  'train_summary_steps': 100,
  'checkpoint_epochs': 1,
  'checkpoint_steps': 0,
  'keep_checkpoint_max': 5,
  'dataset': 'imagenet2012',
  'data_dir': '',
  'augment_on': 'auto',
  'cache_dataset': False,
  'mode': 'train_then_eval',
  'train_mode': 'pretrain',
  'lineareval_while_pretraining': True,
  'checkpoint': '',
  'zero_init_logits_layer': False,
  'reinit_logits_layer': True,
  'rename_supervised_head': False,
  'fine_tune_after_block': -1,
  'use_tpu': None,
  'tpu_name': '',
  'tpu_zone': '',
  'gcp_project': '',
  'master': '',
  'optimizer': 'lars',
  'momentum': 0.9,
  'eval_name': '',
  'export_train_model': True,
  'export_eval_model': True,
  'keep_hub_module_max': 1,
  'explicitly_watch_vars': False,
  'temperature': 0.1,
  'pretrain_loss': 'contrastive',
  'ceb_beta': 0.0,
  'beta_schedule': 'constant',
  'ceb_sampling': True,
  'kappa_e': 1024,
  'kappa_b': 10,
  'byol_loss_weight': 1.0,
  'double_batch_trick': True,
  'proj_head_mode': 'nonlinear',
  'num_proj_layers': 2,
  'proj_head_hidden_dim': 4096,
  'proj_out_dim': 256,
  'proj_head_output_bn': False,
  'projector_mid_bn': True,
  'ft_proj_selector': 0,
  'use_momentum_encoder': None,
  'use_momentum_proj_head': None,
  'use_projector': None,
  'use_target_projector': None,
  'stochastic_projector': None,
  'global_bn': True,
  'resnet_depth': 50,
  'width_multiplier': 1,
  'sk_ratio': 0,
  'se_ratio': 0,
  'image_size': 224,
  'mlp_init': 'byol',
  'batch_image_augmentation_type': 'byol',
  'use_blur': True,
  'color_jitter_brightness': 0.4,
  'color_jitter_contrast': 0.4,
  'color_jitter_saturation': 0.2,
  'color_jitter_hue': 0.1,
  'brightness_fn': 'simclrv1',
  'bbox_sampling': 'logarithmic',
  'area_range_lower_bound': 0.08,
  'clip_by_value_after_resizing': True,
  'clip_by_value_after_grayscale': True,
  'no_augmentation': False,
  'ft_with_full_aug': False,
  'use_binary_cross_entropy': False,
}
OUR_DEFAULTS = {
  'suite': 'all',
  'linear_passes': 4,
  'transfer_sets': 'all',
  'robustness_sets': '',
  'corrupt': '',
  'feature_cache': '',
  'cards': '',
  'train_share': 1.0,
  'allow_config_change': False,
  'format': 'saved_model',
  'data_service': '',
  'output': '',
  'preset': '',
  'print_config': False,
  'model_dir': '',
  'resume': 'auto',
  'fresh_start': False,
  'download': False,
  'shuffle_buffer': 16384,
  'blur_probability': '',
  'solarize_probability': '',
  'color_jitter_probability': 0.8,
  'grayscale_probability': 0.2,
  'area_range_upper_bound': 1.0,
  'local_crops': 0,
  'local_size': 96,
  'local_area': '0.05,0.14',
  'queue_size': 0,
  'queue_start': 0.0,
  'num_prototypes': 3000,
  'freeze_prototypes_steps': 0,
  'sinkhorn_epsilon': 0.05,
  'sinkhorn_iterations': 3,
  'num_heads': 3,
  'kmeans_iterations': 10,
  'stem': 'auto',
  'ceb_distribution': 'vmf',
  'gaussian_scale': 'fixed',
  'sigma_e': 1.0,
  'sigma_b': 1.0,
  'backward_view': 'same',
  'teacher_temperature': 0.04,
  'teacher_temperature_start': 0.04,
  'teacher_temperature_warmup_epochs': 0.0,
  'centring': None,
  'centre_momentum': 0.9,
  'proj_head_hidden': 'bn_relu',
  'predictor_hidden_dim': 512,
  'constant_predictor_rate': False,
  'lars_eta': 1e-3,
  'lars_clip': False,
  'lars_classic': True,
  'lars_nesterov': False,
  'momentum_nesterov': True,
  'final_learning_rate': 0.0,
  'warmup_learning_rate': 0.0,
  'final_weight_decay': 0.0,
  'clip_norm': 0.0,
  'health_pairs': 512,
  'stop_on_collapse': False,
  'precision': 'fp32',
  'jit_compile': False,
  'grad_cache_chunk': 0,
  'grad_accum_steps': 1,
  'seed': 0,
  'deterministic': False,
  'ema_schedule': 'cosine',
  'view_pairs': '',
  'er_kappa': 10.0,
  'er_estimator': 'plug_in',
  'er_leave_one_out': False,
  'er_entropy_of': 'projection',
  'er_alpha': 2.0,
  'query': '',
  'neighbors': 10,
  'latent_dim': 0,
  'latent_top_k': 0,
  'latent_estimator': 'straight_through',
  'latent_temperature': 1.0,
  'latent_temperature_end': 0.5,
  'latent_variance': 'opposing',
  'latent_scale': 'shared',
  'latent_std': 1.0,
  'latent_kl_weight': 0.0,
  'probe_latent': False,
}


def test_defaults():
  assert config.to_dict(parse()) == PUBLISHED_DEFAULTS | OUR_DEFAULTS


def test_every_flag_has_a_section_and_a_help_text():
  grouped = settings.sections()
  assert list(grouped) == list(settings.SECTIONS.values())
  names = [name for names in grouped.values() for name in names]
  assert sorted(names) == sorted(config.FIELDS)
  for field in config.FIELDS.values():
    assert field.metadata['help'].endswith('.'), field.name
    # An interval is what keeps NaN and infinity out.
    assert field.type is not float or field.metadata['choices'], field.name


def test_flags_are_absl_flags():
  values = flags.FlagValues()
  command_line.define_flags(values)
  values(['run.py', '--train_steps=7', '--nouse_blur', '--use_tpu'])
  assert (values.train_steps, values.use_blur, values.use_tpu) == (7, 0, 1)
  assert set(values) == set(config.FIELDS)


# Presets.

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


def test_a_queue_is_used_when_it_is_full():
  cfg = Config(pretrain_loss='swav', queue_size=30, train_batch_size=8)
  assert derived.queue_start_step(cfg, 100) == 4
  cfg = dataclasses.replace(cfg, queue_start=1.5)
  assert derived.queue_start_step(cfg, 100) == 19
  assert derived.queue_start_step(cfg, 8) == 4


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
  assert f'--preset={name}\n' in command_line.help_text()


# Precedence.


def stored_of(**changes):
  """What a run with these settings leaves."""
  cfg = Config(**changes)
  return command_line.Stored(config.to_dict(cfg), (cfg.pretrain_loss,))


def test_default_then_preset_then_stored_then_typed():
  stored = stored_of(
    resnet_depth=34, image_size=64, learning_rate=7.0, kappa_e=3.0
  )
  line = '--mode=eval --model_dir=m --preset=cbyol --learning_rate=9'
  cfg = parse(line, {'m': stored}.get)
  assert cfg.learning_rate == 9.0  # typed
  # Stored: whoever evaluates with the script that trained gets that run.
  assert (cfg.kappa_e, cfg.resnet_depth) == (3.0, 34)
  empty = parse('--mode=eval --model_dir=m --preset=cbyol', {}.get)
  assert empty.kappa_e == 16384.0  # preset
  assert parse('--mode=eval --model_dir=m', {'m': stored}.get).kappa_e == 3.0
  assert parse('--mode=eval --model_dir=m', {}.get).kappa_e == 1024.0
  assert parse('--mode=train --model_dir=m', {'m': stored}.get).kappa_e == 1024


def test_a_stored_run_does_not_bring_its_machine_or_its_call():
  stored = stored_of(
    mode='train', model_dir='old', use_tpu=True, tpu_name='t', resume='must'
  )
  cfg = parse('--mode=eval --model_dir=m', lambda _: stored)
  assert (cfg.mode, cfg.model_dir, cfg.resume) == ('eval', 'm', 'auto')
  assert (cfg.use_tpu, cfg.tpu_name) == (None, '')


def test_where_a_finetuned_run_began_is_not_what_it_is():
  begun = stored_of(checkpoint='/nowhere')
  line = '--mode=extract_features --model_dir=m --output=x.npz'
  assert parse(line, {'m': begun}.get).checkpoint == ''


def test_a_checkpoint_brings_its_encoder_and_nothing_else():
  stored = stored_of(
    resnet_depth=34, image_size=64, learning_rate=7.0, proj_out_dim=9
  )
  line = f'--mode=eval --model_dir=m --train_mode=finetune --checkpoint={ROOT}'
  run = stored_of(resnet_depth=18)
  cfg = parse(line, {'m': run, ROOT: stored}.get)
  assert cfg.resnet_depth == 18  # --mode=eval asks the run itself
  cfg = parse(line, {ROOT: stored}.get)
  assert (cfg.resnet_depth, cfg.learning_rate) == (34, 7.0)
  argv = ['run.py', '--train_mode=finetune', '--checkpoint=' + ROOT]
  cfg = command_line.parse(argv, {ROOT: stored}.get)
  assert (cfg.resnet_depth, cfg.image_size, cfg.proj_out_dim) == (34, 64, 9)
  assert cfg.learning_rate == 0.3
  with pytest.raises(ConfigError, match='--resnet_depth=18: .* made with 34'):
    command_line.parse([*argv, '--resnet_depth=18'], {ROOT: stored}.get)
  cfg = command_line.parse([*argv, '--resnet_depth=34'], {ROOT: stored}.get)
  assert cfg.resnet_depth == 34


def test_of_the_methods_a_checkpoint_may_belong_to_the_typed_one_counts():
  both = command_line.Stored({}, ('contrastive', 'contrastive_ceb'))
  line = '--mode=extract_features --output=f.npz --checkpoint=' + ROOT
  assert parse(line, lambda _: both).pretrain_loss == 'contrastive'
  for loss in both.methods:
    cfg = parse(f'{line} --pretrain_loss={loss}', lambda _: both)
    assert cfg.pretrain_loss == loss
  # A preset is no contradiction.
  assert parse(f'{line} --preset=byol', lambda _: both).pretrain_loss == (
    'contrastive'
  )
  with pytest.raises(ConfigError, match='contrastive or contrastive_ceb'):
    parse(f'{line} --pretrain_loss=byol', lambda _: both)
  byol = command_line.Stored({}, ('byol',))
  assert parse(line, lambda _: byol).pretrain_loss == 'byol'


def test_what_may_differ_when_a_run_is_resumed():
  stored = config.to_dict(Config(model_dir='a', seed=1, data_dir='x'))
  cfg = Config(model_dir='b', seed=1, data_dir='y', keep_checkpoint_max=9)
  lines, serious = command_line.changes(stored, cfg)
  assert serious == []
  assert lines == ['--data_dir=y, was x', '--keep_checkpoint_max=9, was 5']
  cfg = Config(model_dir='a', seed=2, ceb_beta=0.5, data_dir='x')
  lines, serious = command_line.changes(stored, cfg)
  assert lines == serious == ['--ceb_beta=0.5, was 0.0', '--seed=2, was 1']
  # A setting that the stored run did not know yet.
  del stored['seed'], stored['ceb_beta']
  assert command_line.changes(stored, cfg) == ([], [])


def test_typed_default_wins_over_preset():
  assert parse('--preset=cbyol --kappa_e=1024').kappa_e == 1024.0
  assert parse('--preset=quickstart').use_tpu is False
  assert parse('--preset=quickstart --use_tpu=true').use_tpu is True


def test_the_last_of_two_wins():
  assert parse('--use_tpu=true --seed=1 --use_tpu=false --seed=2').seed == 2
  assert parse('--use_tpu=true --use_tpu=false').use_tpu is False


@pytest.mark.parametrize(
  'line',
  [
    '--mode=train_then_eval --train_mode=pretrain --train_batch_size=4096 '
    '--train_epochs=300 --learning_rate=0.3 --weight_decay=1e-6 '
    '--temperature=0.1 --dataset=imagenet2012 --image_size=224 '
    '--eval_split=validation --resnet_depth=50 --use_blur=True '
    '--use_tpu=True --tpu_name=x --pretrain_loss=contrastive_ceb '
    '--kappa_e=1024 --kappa_b=10 --ceb_beta=1.0 --model_dir=gs://b/run '
    '--data_dir=gs://b/data --lineareval_while_pretraining=True',
    '--train_mode=pretrain --pretrain_loss=byol_ceb --train_epochs=1000 '
    '--learning_rate=0.25 --weight_decay=1.5e-6 --ema_alpha=0.996 '
    '--byol_loss_weight=2 --kappa_e=16384 --kappa_b=10 --ceb_beta=1 '
    '--use_momentum_encoder=True --use_momentum_proj_head=True '
    '--use_target_projector=True --stochastic_projector=True '
    '--train_batch_size=4096 --warmup_epochs=10 --use_tpu=true '
    '--tpu_name=x --tpu_zone=europe-west4-a --gcp_project=p',
    '--pretrain_loss=byol --use_momentum_encoder --use_momentum_proj_head '
    '--ft_proj_selector=-1 --checkpoint_epochs=10 --keep_checkpoint_max=1 '
    '--nouse_target_projector --explicitly_watch_vars=True',
    '--mode=train_then_eval --train_mode=finetune --fine_tune_after_block=4 '
    '--zero_init_logits_layer=True --optimizer=momentum --momentum=0.9 '
    f'--learning_rate=0.1 --warmup_epochs=0 --checkpoint={ROOT} '
    '--dataset=imagenet2012_subset/1pct --rename_supervised_head=True',
    '-train_steps 10 --dataset cifar10 --train_split=train[:90%]',
  ],
)
def test_published_command_lines_run_unchanged(line):
  cfg = parse(line)
  for word in line.replace(' 10 ', '=10 ').split():
    name, equals, value = word.lstrip('-').partition('=')
    if equals:
      shown = str(getattr(cfg, name))
      same_text = shown.lower() == value.lower()
      assert same_text or float(shown) == float(value), word


# Refusals: the flag, the value and what to do, on one line.

WRONG = [
  # What absl finds, or lets pass.
  ('--bz=16', ['--bz', '--help']),
  ('--tempratur=1', ['--tempratur', '--temperature']),
  ('--lr=0.1', ['--lr', '--learning_rate']),
  ('--temperature=abc', ['--temperature=abc', 'a number']),
  ('--temperature=nan', ['--temperature=nan', 'a number']),
  ('--learning_rate=inf', ['--learning_rate=inf', 'a number']),
  ('--train_steps=1.5', ['--train_steps=1.5', 'a whole number']),
  ('--train_steps', ['train_steps', 'value']),
  ('--mode=test', ['--mode=test', 'train_then_eval']),
  ('--use_blur=maybe', ['--use_blur=maybe', 'true or false']),
  ('--nouse_blur=true', ['--nouse_blur=true']),
  ('method=byol', ['method=byol', '--pretrain_loss']),
  ('pretrain_loss=byol', ['--pretrain_loss=byol?']),
  ('--use_tpu true', ['true', '--flag=true']),
  ('--seed=1 -- --seed=2', ['--seed=2']),
  ('--flagfile=/etc/hostname', ['--flagfile=/etc/hostname']),
  ('--undefok=foo --foo=1', ['--undefok=foo']),
  ('--preset=bigrun', ['--preset=bigrun', 'csimclr_300epochs']),
  # One flag.
  ('--train_batch_size=0', ['--train_batch_size=0', '[1, inf)']),
  ('--temperature=0', ['--temperature=0.0', '(0, inf)']),
  ('--kappa_e=-1', ['--kappa_e=-1.0', '(0, inf)']),
  ('--ceb_beta=-0.1', ['--ceb_beta=-0.1', '[0, inf)']),
  ('--momentum=1', ['--momentum=1.0', '[0, 1)']),
  ('--ema_alpha=1.1', ['--ema_alpha=1.1', '[0, 1]']),
  ('--area_range_lower_bound=0', ['--area_range_lower_bound', '(0, 1]']),
  ('--color_jitter_hue=0.6', ['--color_jitter_hue=0.6', '[0, 0.5]']),
  ('--fine_tune_after_block=5', ['--fine_tune_after_block=5', '[-1, 4]']),
  ('--resnet_depth=19', ['--resnet_depth=19', '18, 34, 50, 101, 152, 200']),
  ('--width_multiplier=3', ['--width_multiplier=3', '1, 2, 4']),
  ('--dataset=../../etc', ['--dataset=../../etc', 'TFDS']),
  ('--dataset=cifar10/../x', ['--dataset=cifar10/../x', 'TFDS']),
  ('--dataset=folder:', ['--dataset=folder:', 'folder:PATH']),
  ('--dataset=folder:/no/such', ['--dataset=folder:/no/such', 'no such']),
  ('--model_dir=run[1]', ['--model_dir=run[1]', '[ ] * ?']),
  ('--model_dir=run*', ['--model_dir=run*', '[ ] * ?']),
  ('--data_service=localhost:5050', ['=localhost:5050', 'grpc://localhost']),
  ('--data_service=grpc://host', ['--data_service=grpc://host', ':5050']),
  ('--eval_name=../x', ['--eval_name=../x', 'letters']),
  ('--health_pairs=1', ['--health_pairs=1', 'at least 2']),
  ('--area_range_upper_bound=1.5', ['--area_range_upper_bound=1.5', '(0, 1]']),
  (
    '--area_range_upper_bound=0.07',
    ['--area_range_upper_bound=0.07', '0.08', '--area_range_lower_bound'],
  ),
  ('--grayscale_probability=1.1', ['--grayscale_probability=1.1', '[0, 1]']),
  ('--color_jitter_probability=-1', ['--color_jitter_probability', '[0, 1]']),
  ('--local_crops=17', ['--local_crops=17', '[0, 16]']),
  ('--local_size=7', ['--local_size=7', '[8, inf)']),
  ('--local_area=0.1', ['--local_area=0.1', "'0.05,0.14'"]),
  ('--local_area=0.2,0.1', ['--local_area=0.2,0.1', "'0.05,0.14'"]),
  ('--local_area=0,0.1', ['--local_area=0,0.1', "'0.05,0.14'"]),
  ('--local_area=0.5,1.1', ['--local_area=0.5,1.1', "'0.05,0.14'"]),
  ('--local_area=nan,1', ['--local_area=nan,1', "'0.05,0.14'"]),
  ('--local_area=small', ['--local_area=small', "'0.05,0.14'"]),
  (
    '--local_crops=6 --pretrain_loss=byol',
    ['--local_crops=6', '--pretrain_loss=byol', 'two views'],
  ),
  ('--blur_probability=0.5', ['--blur_probability=0.5', 'two']),
  ('--blur_probability=1,0,1,0', ['--blur_probability=1,0,1,0', 'three']),
  ('--solarize_probability=0,0,2', ['--solarize_probability=0,0,2', 'three']),
  ('--blur_probability=0.5,1.5', ['--blur_probability=0.5,1.5', 'two']),
  ('--solarize_probability=a,b', ['--solarize_probability=a,b', 'two']),
  ('--solarize_probability=nan,0', ['--solarize_probability=nan,0', 'two']),
  # Combinations.
  ('--mode=eval', ['--mode=eval', '--model_dir']),
  ('--resume=must', ['--resume=must', '--model_dir']),
  (
    '--resume=must --model_dir=m --fresh_start',
    ['--fresh_start=true', '--resume=must'],
  ),
  ('--use_tpu=false --tpu_name=x', ['--use_tpu=false', '--tpu_name']),
  ('--use_tpu=false --master=x', ['--use_tpu=false', '--master']),
  (
    '--train_mode=finetune --fine_tune_after_block=4',
    ['--fine_tune_after_block=4', '--checkpoint'],
  ),
  ('--checkpoint=/no/such', ['--checkpoint=/no/such', 'no such']),
  (
    '--pretrain_loss=byol --use_momentum_encoder=false',
    ['--use_momentum_encoder=false', '--pretrain_loss=byol'],
  ),
  (
    '--pretrain_loss=byol_ceb --use_projector=false',
    ['--use_projector=false', '--pretrain_loss=byol_ceb'],
  ),
  (
    '--pretrain_loss=byol --stochastic_projector',
    ['--stochastic_projector=true', '--pretrain_loss=byol'],
  ),
  (
    '--use_target_projector',
    ['--use_target_projector=true', '--pretrain_loss=contrastive'],
  ),
  (
    '--pretrain_loss=byol --proj_head_mode=none',
    ['--proj_head_mode=none', 'linear'],
  ),
  ('--ft_proj_selector=3', ['--ft_proj_selector=3', '-1 to 2']),
  (
    '--ft_proj_selector=2 --proj_head_mode=linear',
    ['--ft_proj_selector=2', '-1 to 1'],
  ),
  ('--sk_ratio=0.1 --resnet_depth=34', ['--sk_ratio=0.1', '34']),
  ('--train_batch_size=1', ['--train_batch_size=1', 'compares images']),
  (
    '--optimizer=lamb --final_weight_decay=0.4',
    ['--final_weight_decay=0.4', 'adamw'],
  ),
  (
    '--pretrain_loss=simsiam --constant_predictor_rate',
    ['--constant_predictor_rate=true', '--optimizer=momentum'],
  ),
  (
    '--blur_probability=1,1 --use_blur=false',
    ['--use_blur=false', '--blur_probability'],
  ),
  ('--pretrain_loss=moco', ['--queue_size=0', '65536']),
  (
    '--pretrain_loss=moco --queue_size=1000 --train_batch_size=64',
    ['--queue_size=1000', '--train_batch_size=64', 'such as 1024'],
  ),
  (
    '--pretrain_loss=moco --queue_size=64 --train_batch_size=64 '
    '--grad_cache_chunk=8',
    ['--grad_cache_chunk=8', '--grad_accum_steps'],
  ),
  ('--pretrain_loss=cmc', ['--view_pairs=', 'lab_l,lab_ab']),
  ('--view_pairs=rgb,rgb', ['--view_pairs=rgb,rgb', '--pretrain_loss=cmc']),
  (
    '--pretrain_loss=cmc --view_pairs=rgb,lab',
    ['--view_pairs=rgb,lab', 'ycbcr_cbcr'],
  ),
  ('--pretrain_loss=cmc --view_pairs=rgb', ['--view_pairs=rgb']),
]


@pytest.mark.parametrize('line, parts', WRONG, ids=[line for line, _ in WRONG])
def test_refused(line, parts):
  message = refusal(line)
  for part in parts:
    assert part in message


@pytest.mark.parametrize(
  'line',
  [
    '--temperature=1e-3 --kappa_e=0.5 --ceb_beta=0 --momentum=0',
    '--ema_alpha=1 --area_range_lower_bound=1 --color_jitter_hue=0.5',
    '--train_batch_size=2',
    '--train_batch_size=1 --pretrain_loss=byol',
    '--train_batch_size=1 --train_mode=finetune',
    '--dataset=imagenet2012_corrupted/gaussian_noise_1',
    '--dataset=imagenette/160px-v2:1.0.0',
    f'--dataset=folder:{ROOT}',
    '--dataset=folder:gs://bucket/images',
    '--blur_probability=0,1 --solarize_probability=0.5,0.5',
    '--solarize_probability=0,0 --use_blur=false',
    '--mode=eval --model_dir=m --eval_name=v2-matched.1',
    '--resume=must --model_dir=m',
    '--fresh_start --model_dir=gs://bucket/run',
    '--use_tpu=true --tpu_name=x',
    '--use_tpu=false',
    '--data_service=grpc://my-host.lan:5050',
    f'--train_mode=finetune --fine_tune_after_block=4 --checkpoint={ROOT}',
    '--train_mode=finetune --checkpoint=gs://bucket/run',
    '--train_mode=finetune --fine_tune_after_block=4 --mode=eval --model_dir=m',
    '--train_mode=finetune --fine_tune_after_block=-1',
    '--pretrain_loss=byol_ceb --use_projector --stochastic_projector',
    '--nostochastic_projector',
    '--pretrain_loss=byol --proj_head_mode=linear --ft_proj_selector=1',
    '--proj_head_mode=none',
    '--ft_proj_selector=2',
    '--ft_proj_selector=-1',
    '--sk_ratio=0.0625 --resnet_depth=50',
    '--se_ratio=0.25 --resnet_depth=18',
    '--pretrain_loss=cmc --view_pairs=ycbcr_y,rgb --grad_cache_chunk=8',
    '--pretrain_loss=moco --queue_size=1024 --grad_accum_steps=2',
    '--train_mode=finetune --view_pairs=rgb,rgb',
    '--train_mode=finetune --pretrain_loss=moco',
    '--preset=',
  ],
)
def test_accepted(line):
  assert isinstance(parse(line), Config)


def test_a_checkpoint_prefix_counts_as_there(tmp_path):
  (tmp_path / 'ckpt-5.index').touch()
  assert parse(f'--checkpoint={tmp_path}/ckpt-5')
  assert 'no such' in refusal(f'--checkpoint={tmp_path}/ckpt-6')


def test_lamb_needs_tensorflow_addons(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert 'requirements-legacy.txt' in refusal('--optimizer=lamb')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  assert parse('--optimizer=lamb').optimizer == 'lamb'


@pytest.mark.parametrize(
  'values',
  [
    {'train_steps': True},
    {'train_steps': '3'},
    {'learning_rate': None},
    {'use_blur': 1},
    {'use_tpu': 'true'},
    {'stem': ''},
    {'learning_rate': float('nan')},
  ],
)
def test_wrong_types_from_python_or_a_file(values):
  (name,) = values
  with pytest.raises(ConfigError, match=f'--{name}='):
    config.from_dict(values)


def test_check_replicas_names_both_numbers():
  cfg = Config(train_batch_size=7, eval_batch_size=4)
  with pytest.raises(ConfigError, match='--train_batch_size=7.* 2 replicas'):
    checks.check_replicas(cfg, 2)
  checks.check_replicas(cfg, 1)
  checks.check_replicas(dataclasses.replace(cfg, train_batch_size=8), 4)
  queue = Config(pretrain_loss='swav', queue_size=6)
  with pytest.raises(ConfigError, match='--queue_size=6.* 4 replicas'):
    checks.check_replicas(queue, 4)
  checks.check_replicas(queue, 2)
  evaluating = dataclasses.replace(cfg, mode='eval', model_dir='m')
  checks.check_replicas(evaluating, 2)
  with pytest.raises(ConfigError, match='--eval_batch_size=4.* 3 replicas'):
    checks.check_replicas(evaluating, 3)


@pytest.mark.parametrize(
  'line, hint',
  [
    ('--train_steps=10', '--warmup_epochs=10'),
    ('--pretrain_loss=contrastive_ceb', '--ceb_beta=0'),
    ('--ceb_beta=1', '--pretrain_loss=contrastive'),
    ('--train_mode=finetune', '--checkpoint'),
    ('--sigma_e=2 --preset=csimclr', '--ceb_distribution=vmf'),
    ('--temperature=0.5 --preset=csimclr', '--pretrain_loss=contrastive_ceb'),
    ('--lars_nesterov --optimizer=adam', '--optimizer=adam'),
    ('--backward_view=other', '--backward_view=other'),
    ('--nomomentum_nesterov', '--optimizer=lars'),
    (
      '--final_learning_rate=0.1 --learning_rate_schedule=constant',
      '--learning_rate_schedule=constant',
    ),
    ('--data_service=grpc://host:1', 'no promised order'),
    ('--local_size=48', '--local_crops=0'),
    ('--queue_size=512 --pretrain_loss=byol', '--pretrain_loss=byol'),
    ('--num_heads=2 --pretrain_loss=swav', '--pretrain_loss=swav'),
    ('--queue_start=2 --pretrain_loss=deepcluster', 'deepcluster'),
    ('--local_area=0.1,0.2', '--local_crops=0'),
    (
      f'--train_mode=finetune --checkpoint={ROOT} --local_crops=6',
      '--train_mode=finetune',
    ),
  ],
)
def test_one_warning(line, hint):
  (warning,) = warnings(parse(line))
  assert hint in warning


def test_no_warning():
  assert checks.warnings(parse('--train_steps=10')) == []
  # The warm-up takes 10 * 50000 // 512 = 976 steps.
  assert warnings(parse('--train_steps=977')) == []
  assert len(warnings(parse('--train_steps=976'))) == 1


# What follows from the settings.


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
    'area_lower': (0.08, 0.08),
    'area_upper': (1.0, 1.0),
    'sampling': 'logarithmic',
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


@pytest.mark.usefixtures('multi_crop')
def test_local_crops_are_for_methods_that_take_them():
  assert derived.num_views(parse('--preset=cbyol')) == 2
  for line in ('--preset=cbyol', '--preset=simclr'):
    assert 'learns from two views' in refusal(f'{line} --local_crops=1')
  tuned = parse('--train_mode=finetune --preset=byol --local_crops=6')
  assert derived.num_views(tuned) == 1
  small = '--pretrain_loss=byol --local_crops=2 --image_size=32'
  (warning,) = checks.warnings(parse(small))
  assert warning.startswith('--local_size=96: larger than')
  assert checks.warnings(parse(f'{small} --local_size=32')) == []


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


# Files and text.


def test_dict_and_back():
  cfg = parse('--preset=cbyol --seed=5 --use_tpu=false')
  assert config.from_dict(json.loads(json.dumps(config.to_dict(cfg)))) == cfg
  assert config.from_dict({}) == Config()
  with pytest.raises(ConfigError, match='no_such_key'):
    config.from_dict({'no_such_key': 1})


def test_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    Config().seed = 1


def test_describe_says_who_set_what():
  argv = ['run.py', '--preset=cbyol', '--learning_rate=0.1', '--image_size=32']
  table = {
    row[0]: row[1:]
    for row in map(
      str.split,
      command_line.describe(parse(' '.join(argv[1:])), argv).split('\n'),
    )
  }
  assert table['learning_rate'] == ['0.1', 'typed']
  assert table['kappa_e'] == ['16384.0', 'preset']
  assert table['momentum'] == ['0.9']
  assert table['stem'] == ['cifar']
  assert table['use_target_projector'] == ['true']
  assert table['use_tpu'] == ['auto']
  assert set(config.FIELDS) <= set(table)


@pytest.mark.parametrize('word', ['--help', '-h', '--helpfull'])
def test_help(word):
  with pytest.raises(command_line.Help) as caught:
    parse(f'--mode=nonsense {word}')
  lines = str(caught.value).split('\n')
  assert max(map(len, lines)) <= 80
  for name in config.FIELDS:
    assert any(line.startswith(f'  --{name}=') for line in lines), name
  assert lines.count('Heads') == 1


@pytest.mark.parametrize('line', ['--help', '--bz=16', '--preset=cbyol'])
def test_no_tensorflow_before_the_config_is_valid(line):
  code = f"""
import sys
from cvr.configs import command_line, config
try:
  command_line.parse(['run.py', {line!r}])
except (config.ConfigError, command_line.Help) as answer:
  print(answer)
heavy = {{'tensorflow', 'numpy', 'tensorflow_datasets'}} & set(sys.modules)
sys.exit(3 if heavy else 0)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', ['simclr', 'csimclr', 'byol', 'cbyol'])
def test_scripts_name_a_preset_and_pass_flags_on(name):
  def typed(*args, **env):
    script = os.path.join(ROOT, 'scripts', f'{name}.sh')
    done = subprocess.run(
      ['bash', script, *args],
      env=os.environ | {'PYTHON': 'echo'} | env,
      capture_output=True,
      text=True,
      check=True,
    )
    program, *rest = done.stdout.split()
    assert os.path.realpath(program) == os.path.join(ROOT, 'run.py')
    return parse(' '.join(rest))

  cfg = typed('--train_steps=100')
  assert (cfg.preset, cfg.train_steps) == (f'{name}_300epochs', 100)
  assert cfg.use_tpu is True
  cfg = typed('--use_tpu=false', CONFIG=f'{name}_1000epochs')
  assert (cfg.train_epochs, cfg.use_tpu) == (1000, False)


# The evaluation card.


def evaluating(*flags):
  return parse(' '.join(['--mode=evaluate', '--model_dir=x', *flags]))


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


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--suite=linea'], '--suite=linea: linea is none of all, linear, knn'),
    (['--suite='], '--suite=: must name some of all'),
    (['--corrupt=fogg'], '--corrupt=fogg: fogg is none of all, gaussian_noise'),
    (['--robustness_sets=imagenet_b'], 'imagenet_b is none of all, imagenet_a'),
    (['--transfer_sets=cifar1'], 'did you mean cifar10'),
    (['--transfer_sets=birdsnap'], 'birdsnap=folder:PATH'),
    (['--suite=compression', '--train_mode=finetune'], 'was finetuned'),
    (['--mode=compare', '--cards=a'], 'needs --cards=A/card.json,B/card.json'),
    (['--train_share=0'], 'must be a number in (0, 1]'),
  ],
)
def test_what_an_evaluation_refuses(flags, words):
  with pytest.raises(ConfigError, match=re.escape(words)):
    evaluating(*flags)
