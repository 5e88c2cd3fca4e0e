"""What happens before the first step: devices, a folder, config.json."""

import dataclasses
import os
import subprocess
import sys
import uuid

import tensorflow as tf
import tf_keras as keras

from cvr.checkpoints import files, pretrained, stored
from cvr.configs import checks, command_line, config
from cvr.numerics import replicas


def set_numerics(cfg):
  """How layers and graphs compute that are built from here on."""
  # It makes AddN of additions, and AddN has more than one order (see sums.py).
  tf.config.optimizer.set_experimental_options(
    {'arithmetic_optimization': False}
  )
  policies = {
    'fp32': 'float32',
    'bf16': 'mixed_bfloat16',
    'fp16': 'mixed_float16',
  }
  keras.mixed_precision.set_global_policy(policies[cfg.precision])


def slow_bfloat16(device, cpuinfo='/proc/cpuinfo'):
  """Whether the device is an Intel or AMD processor that has no bfloat16."""
  if 'CPU' not in device or not os.path.exists(cpuinfo):
    return False
  with open(cpuinfo) as file:
    flags = [line.split() for line in file if line.startswith('flags')]
  return bool(flags) and not {'avx512_bf16', 'amx_bf16'} & {*flags[0]}


def precision_note(cfg, device):
  """A line where --precision makes a run slower, or ''."""
  if cfg.precision != 'bf16' or not slow_bfloat16(device):
    return ''
  return (
    'Note: --precision=bf16: this processor has no bfloat16 (avx512_bf16, '
    'amx_bf16), steps are many times slower. Use --precision=fp32.'
  )


def set_up(cfg):
  """Precision, determinism, the strategy -> (strategy, one line about it)."""
  if cfg.mode == 'export':
    # One copy of every variable, and float32 with all its digits.
    tf.config.set_visible_devices([], 'GPU')
    return tf.distribute.get_strategy(), 'the CPU'
  try:
    strategy, where = replicas.make_strategy(
      cfg.use_tpu, cfg.tpu_name, cfg.tpu_zone, cfg.gcp_project, cfg.master
    )
  except replicas.NoDevice as error:
    raise config.ConfigError(str(error)) from error
  if cfg.deterministic:
    tf.config.experimental.enable_op_determinism()
  set_numerics(cfg)
  checks.check_replicas(cfg, strategy.num_replicas_in_sync)
  return strategy, where


def check_writable(folder):
  """Fails at once where checkpoints could not be written hours later."""
  path = os.path.join(folder, f'.write-test-{uuid.uuid4().hex}')
  try:
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(path, 'w') as file:
      file.write('')
    tf.io.gfile.remove(path)
  except (tf.errors.OpError, OSError) as error:
    if files.out_of_reach(error):
      raise  # Another attempt may succeed; the place is not to blame.
    raise config.ConfigError(
      f'--model_dir={folder} cannot be written '
      f'({str(error).splitlines()[0]}). Name a directory you can write to.'
    ) from error


def _git_hash():
  here = os.path.dirname(os.path.abspath(__file__))
  command = ['git', '-C', here, 'rev-parse', 'HEAD']
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=5)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() or None


def record(cfg, argv, info, replicas=1):
  """What config.json holds: enough to run the same again."""
  return {
    'config': config.to_dict(cfg),
    'argv': list(argv),
    'git': _git_hash(),
    'versions': {
      'python': sys.version.split()[0],
      'tensorflow': tf.__version__,
      'tf_keras': keras.__version__,
    },
    'class_names': info.class_names,
    'num_examples': info.num_examples,
    'replicas': replicas,
  }


def with_stored_depth(cfg):
  """--bit_depth=auto of a resumed run is what its first part resolved it to."""
  path = os.path.join(cfg.model_dir, 'config.json')
  resumes = files.steps(cfg.model_dir) and not cfg.fresh_start
  if cfg.bit_depth != 'auto' or not resumes or not stored.exists(path):
    return cfg
  settings = config.stored_settings(path, stored.read_json)
  return dataclasses.replace(cfg, bit_depth=settings['bit_depth'])


def check_changes(cfg, say, replicas=1):
  """Says how a resumed run differs; refuses what changes its meaning."""
  if cfg.fresh_start or not files.steps(cfg.model_dir):
    return
  path = os.path.join(cfg.model_dir, 'config.json')
  if stored.exists(path):
    settings = config.stored_settings(path, stored.read_json)
    before = stored.read_json(path).get('replicas', replicas)
    if before != replicas:
      say(
        f'Note: the run had {before} replicas and now has {replicas}. The data '
        'stay the same; last digits differ.'
      )
  else:
    try:
      settings = pretrained.identify(cfg.model_dir).settings
    except files.CheckpointError:
      return  # Damaged: the one before it may do.
  lines, serious = command_line.changes(settings, cfg)
  if serious and not cfg.allow_config_change:
    raise config.ConfigError(
      f'the run in --model_dir={cfg.model_dir} has other settings: '
      f'{"; ".join(serious)}. Use those of the run, name another --model_dir, '
      'or add --allow_config_change.'
    )
  for line in lines:
    say(f'Note: {line}')
