"""What a typed line turns into: precedence, help, published command lines."""

import json
import os
import subprocess
import sys

import pytest
from absl import flags

from cvr.checkpoints import stored
from cvr.configs import command_line, config, help
from cvr.configs.config import Config, ConfigError
from typed import ROOT, parse


def test_flags_are_absl_flags():
  values = flags.FlagValues()
  command_line.define_flags(values)
  values(['run.py', '--train_steps=7', '--nouse_blur', '--use_tpu'])
  assert (values.train_steps, values.use_blur, values.use_tpu) == (7, 0, 1)
  assert set(values) == set(config.FIELDS)


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


@pytest.mark.parametrize('mode', ['extract_features', 'finetune'])
def test_channels_are_of_the_architecture(mode):
  stored = stored_of(channels=5)
  line = f'--checkpoint={ROOT} --output=x.npz'
  kind = 'train_mode' if mode == 'finetune' else 'mode'
  line += f' --{kind}={mode}'
  for typed in ('', ' --channels=5'):
    assert parse(line + typed, lambda _: stored).channels == 5
  with pytest.raises(ConfigError, match='--channels=3: .* made with 5; drop'):
    parse(f'{line} --channels=3', lambda _: stored)
  older = command_line.Stored({}, ('byol',))
  assert parse(line, lambda _: older).channels == 3


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


def test_braces_that_the_shell_has_expanded_are_refused():
  words = [f'--dataset=wds:/d/{k:02d}.tar' for k in range(3)]
  with pytest.raises(ConfigError, match="00.tar and 2 more: .*'wds:...'"):
    parse(' '.join(words))
  pattern = 'wds:/d/{00..02}.tar'
  assert parse(f'--dataset={pattern}').dataset == pattern


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


def shown(line):
  with pytest.raises(command_line.Help) as caught:
    parse(line)
  return str(caught.value)


@pytest.mark.parametrize('word', ['--help', '-h', '--helpfull', '--help --x'])
def test_help(word):
  assert shown(f'--mode=nonsense {word}') == help.whole()


@pytest.mark.parametrize('word', ['--help=Heads', '--help Heads', '-h Heads'])
def test_help_of_a_word(word):
  assert shown(f'--mode=nonsense {word}') == help.about('Heads')
  with pytest.raises(ConfigError, match='did you mean Heads?'):
    parse(word.replace('Heads', 'heds'))


def test_what_has_no_effect_is_noted_with_the_table():
  argv = ['run.py', '--pretrain_loss=byol', '--kappa_e=3', '--print_config']
  text = command_line.describe(parse(' '.join(argv[1:])), argv)
  table, notes = text.split('\n\nNotes\n')
  assert notes == '--kappa_e=3.0: no effect with --pretrain_loss=byol'
  argv = ['run.py', '--pretrain_loss=byol']
  plain = command_line.describe(parse(argv[1]), argv)
  assert 'Notes' not in plain and len(plain.split('\n')) == len(
    table.split('\n')
  )


@pytest.mark.parametrize(
  'line', ['--help', '--help=seed', '--bz=16', '--preset=cbyol']
)
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


def older_run(tmp_path, **settings):
  """A config.json as the code wrote it before --shortcut existed."""
  record = config.to_dict(Config(**settings))
  del record['shortcut']
  (tmp_path / 'config.json').write_text(json.dumps({'config': record}))
  return f'--model_dir={tmp_path}'


@pytest.mark.parametrize(
  'line',
  ['--mode=eval', '--mode=train', '--mode=extract_features --output=x.npz'],
)
def test_an_older_run_stays_what_it_was(tmp_path, line):
  where = older_run(tmp_path, resnet_depth=18)
  line = f'{where} {line} --resnet_depth=18'
  assert parse(line, stored.read_stored).shortcut == 'torchvision'
  # A new folder, or a run that says what it is, has the default.
  assert parse('--resnet_depth=18', stored.read_stored).shortcut == 'published'
  record = config.to_dict(Config(resnet_depth=18))
  (tmp_path / 'config.json').write_text(json.dumps({'config': record}))
  assert parse(line, stored.read_stored).shortcut == 'published'


def test_finetuning_takes_over_what_an_older_run_was(tmp_path):
  older_run(tmp_path, resnet_depth=18)
  line = f'--train_mode=finetune --checkpoint={tmp_path}'
  assert parse(line, stored.read_stored).shortcut == 'torchvision'
  with pytest.raises(ConfigError, match='was made with torchvision'):
    parse(f'{line} --shortcut=published', stored.read_stored)
  # Of deeper networks both are the same.
  older_run(tmp_path, resnet_depth=50)
  parse(f'{line} --shortcut=published', stored.read_stored)


def test_a_resumed_older_run_may_be_typed_another_shortcut(tmp_path):
  """Then it is a change of the run, which resuming refuses by itself."""
  where = older_run(tmp_path, resnet_depth=18)
  line = f'{where} --mode=train --resnet_depth=18 --shortcut=published'
  cfg = parse(line, stored.read_stored)
  settings = config.stored_settings(f'{tmp_path}/config.json', stored.read_json)
  _, serious = command_line.changes(settings, cfg)
  assert serious == ['--shortcut=published, was torchvision']


def test_built_in_photographs_are_of_the_newest_version_where_typed(tmp_path):
  newest = 'photo_patches/32px:2.0.0'
  assert parse('--preset=quickstart').dataset == newest
  assert parse('--dataset=photo_patches/32px').dataset == newest
  first = 'photo_patches/32px:1.0.0'
  assert parse(f'--dataset={first}').dataset == first
  assert parse('--dataset=cifar10').dataset == 'cifar10'


def test_an_older_run_keeps_its_version_of_the_photographs(tmp_path):
  """It was stored without one, when there was only the first."""
  where = older_run(tmp_path, dataset='photo_patches/32px')
  for line in ('--mode=eval', '--preset=quickstart --mode=train'):
    cfg = parse(f'{where} {line}', stored.read_stored)
    assert cfg.dataset == 'photo_patches/32px'
  older_run(tmp_path, dataset='photo_patches/32px:2.0.0')
  cfg = parse(f'{where} --mode=eval', stored.read_stored)
  assert cfg.dataset == 'photo_patches/32px:2.0.0'


def test_the_evaluation_split_of_a_preset_is_of_its_own_data_set(tmp_path):
  (tmp_path / 'a.jpg').touch()
  assert parse('--preset=quickstart').eval_split == 'test'
  line = f'--preset=quickstart --dataset=folder:{tmp_path}'
  assert parse(line).eval_split == 'validation'
  assert parse(f'{line} --eval_split=val').eval_split == 'val'
  assert 'eval_split                     test' not in (
    command_line.describe(parse(line), ['run.py', *line.split()])
  )
