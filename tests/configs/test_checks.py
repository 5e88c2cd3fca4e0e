"""What is refused or warned of: the flag, the value and what to do."""

import dataclasses
import importlib.util
import re

import pytest

from cvr.configs import (
  checks,
  derived,
)
from cvr.configs.config import Config, ConfigError
from small_data import take_local_crops
from typed import ROOT, evaluating, parse, refusal, warnings

FINETUNE = f'--train_mode=finetune --checkpoint={ROOT}'

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
  ('--mode=evalute', ['did you mean evaluate or eval?', '--help=mode']),
  ('--preset=quickstrat', ['did you mean quickstart?', '--help=preset']),
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
  ('--dataset=csv:/no/such#a', ['--dataset=csv:/no/such#a', 'no such file']),
  ('--dataset=cvs:a.csv', ['--dataset=cvs:a.csv', 'csv:FILE, list:FILE']),
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
  (
    '--area_range_upper_bound=0.1 --bbox_sampling=uniform',
    ['--area_range_upper_bound=0.1', 'above 0.1'],
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
  (
    '--pretrain_loss=cmc --view_pairs=lab_l,lab_ab --channels=1',
    ['--view_pairs=lab_l,lab_ab', '--channels=1; use 3'],
  ),
  ('--channels=0', ['--channels=0', '[1, 16]']),
  ('--channels=17', ['--channels=17', '[1, 16]']),
  (
    '--mode=evaluate --model_dir=m --corrupt=fog --channels=4',
    ['--corrupt=fog', '--channels=4; drop it'],
  ),
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
    '--channels=16 --mode=evaluate --model_dir=m',
    '--preset=',
  ],
)
def test_accepted(line):
  assert isinstance(parse(line), Config)


def test_a_checkpoint_prefix_counts_as_there(tmp_path):
  (tmp_path / 'ckpt-5.index').touch()
  assert parse(f'--checkpoint={tmp_path}/ckpt-5')
  assert 'no such' in refusal(f'--checkpoint={tmp_path}/ckpt-6')


def test_an_empty_folder_is_no_data_set(tmp_path, monkeypatch):
  (tmp_path / 'train' / 'a').mkdir(parents=True)
  (tmp_path / 'train' / '.hidden').touch()
  line = f'--dataset=folder:{tmp_path}'
  assert 'the folder is empty' in refusal(line)
  (tmp_path / 'train' / 'a' / '1.jpg').touch()
  assert parse(line)
  (tmp_path / 'file').touch()
  assert 'no such folder' in refusal(f'{line}/file')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert parse('--dataset=folder:~/train')


def test_a_model_is_exported_without_its_data(tmp_path):
  gone = f'--dataset=folder:{tmp_path}/gone'
  for mode in ('--mode=export --output=o', '--mode=inspect'):
    assert parse(f'{mode} --model_dir=m {gone}')
  assert 'no such folder' in refusal(f'--mode=evaluate --model_dir=m {gone}')


def test_lamb_needs_tensorflow_addons(monkeypatch):
  there = importlib.util.find_spec('json')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert 'requirements-legacy.txt' in refusal('--optimizer=lamb')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: there)
  assert parse('--optimizer=lamb').optimizer == 'lamb'


@pytest.mark.parametrize(
  'line, package',
  [('--wandb_project=p', 'wandb'), ('--mlflow_uri=file:///x', 'mlflow')],
)
def test_a_tracker_needs_its_package(tmp_path, monkeypatch, line, package):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert refusal(line) == (
    f"{line}: needs the package {package}: pip install -e '.[{package}]'"
  )
  # A folder of that name, which W&B makes, is no package.
  (tmp_path / 'a_folder').mkdir()
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda name: find('a_folder')
  )
  assert find('a_folder') and 'needs the package' in refusal(line)
  # Where it has no effect it is not needed, and said to have none.
  cfg = parse(f'--mode=evaluate --model_dir=m {line}')
  assert f'{line}: no effect with --mode=evaluate' in checks.warnings(cfg)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: find('json'))
  assert parse(line)


@pytest.mark.parametrize('text', ['10', '20,10', '5,5', '-1,3', '1.5,3', 'a,b'])
def test_a_trace_needs_two_steps(text):
  assert 'such as 10,20' in refusal(f'--profile_steps={text}')
  assert derived.profile_steps(parse('--profile_steps=0,7')) == (0, 7)
  assert derived.profile_steps(parse('')) == ()


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
    ('--data_service=grpc://host:1', 'the order of examples is not fixed'),
    ('--local_size=48', '--local_crops=0'),
    ('--bbox_tries=7', '--bbox_sampling=logarithmic'),
    ('--queue_size=512 --pretrain_loss=byol', '--pretrain_loss=byol'),
    ('--kappa_e=64', '--pretrain_loss=contrastive'),
    ('--kappa_b=64 --pretrain_loss=byol', '--pretrain_loss=byol'),
    ('--sigma_e=2', '--pretrain_loss=contrastive'),
    ('--sigma_b=2', '--pretrain_loss=contrastive'),
    ('--gaussian_scale=learned', '--pretrain_loss=contrastive'),
    ('--beta_schedule=cosine', '--pretrain_loss=contrastive'),
    ('--noceb_sampling --pretrain_loss=byol', '--pretrain_loss=byol'),
    ('--noprojector_mid_bn', '--pretrain_loss=contrastive'),
    ('--noprojector_mid_bn --pretrain_loss=moco --queue_size=512', 'moco'),
    ('--latent_std=2', '--pretrain_loss=contrastive'),
    ('--latent_std=2 --pretrain_loss=stochcon_gaussian', 'variance=opposing'),
    ('--momentum=0.5 --optimizer=adamw', '--optimizer=adamw'),
    ('--num_proj_layers=3 --proj_head_mode=linear', 'proj_head_mode=linear'),
    ('--proj_head_output_bn --proj_head_mode=none', 'proj_head_mode=none'),
    ('--fine_tune_after_block=2', '--train_mode=pretrain'),
    ('--ft_with_full_aug', '--train_mode=pretrain'),
    (f'{FINETUNE} --nolineareval_while_pretraining', 'train_mode=finetune'),
    (f'{FINETUNE} --health_pairs=8', '--train_mode=finetune'),
    ('--health_pairs=8 --train_summary_steps=0', '--train_summary_steps=0'),
    ('--noreinit_logits_layer', '--checkpoint='),
    ('--warmup_learning_rate=0.1 --warmup_epochs=0', '--warmup_epochs=0.0'),
    ('--bbox_sampling=uniform --no_augmentation', '--no_augmentation=true'),
    ('--blur_probability=1,1 --no_augmentation', '--no_augmentation=true'),
    ('--queue_start=2 --pretrain_loss=swav', '--queue_size=0'),
    (
      '--teacher_temperature_start=0.1 --pretrain_loss=dino',
      '--teacher_temperature_warmup_epochs=0.0',
    ),
    ('--num_heads=2 --pretrain_loss=swav', '--pretrain_loss=swav'),
    ('--queue_start=2 --pretrain_loss=deepcluster', 'deepcluster'),
    ('--local_area=0.1,0.2', '--local_crops=0'),
    (
      f'{FINETUNE} --local_crops=6',
      '--train_mode=finetune',
    ),
  ],
)
def test_one_warning(line, hint):
  (warning,) = warnings(parse(line))
  assert hint in warning


@pytest.mark.parametrize('channels', [1, 4])
def test_one_line_about_all_that_is_of_rgb(channels):
  line = f'--channels={channels} --train_steps=977'
  for more in ('', '--grayscale_probability=0.5 --color_jitter_hue=0.2'):
    cfg = parse(f'{line} {more}')
    (warning,) = warnings(cfg)
    assert warning.startswith(f'--channels={channels}: no saturation, hue')
    used = checks.in_use(cfg)
    assert 'color_jitter_hue' not in used and 'use_blur' in used
  # Where no view is coloured nothing is left out.
  assert warnings(parse(f'{line} --no_augmentation')) == []
  assert 'color_jitter_hue' in checks.in_use(parse(''))


def test_no_warning():
  assert checks.warnings(parse('--train_steps=10')) == []
  # The warm-up takes 10 * 50000 // 512 = 976 steps.
  assert warnings(parse('--train_steps=977')) == []
  # What a run has that is older than the flag.
  assert warnings(parse('--train_steps=977 --bbox_tries=0')) == []
  assert len(warnings(parse('--train_steps=976'))) == 1


@pytest.fixture
def multi_crop(monkeypatch):
  """As if BYOL took local crops."""
  take_local_crops(monkeypatch, 'byol')


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


@pytest.mark.parametrize(
  'flags, words',
  [
    (
      ['--suite=linea'],
      '--suite=linea: linea is unknown; there are all, linear',
    ),
    (['--suite='], '--suite=: must be all or some of'),
    (
      ['--corrupt=fogg'],
      '--corrupt=fogg: fogg is unknown; there are all, gaussian',
    ),
    (['--robustness_sets=imagenet_b'], 'imagenet_b is unknown; there are all'),
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
