"""The entry: flags -> Config -> what to do.

  python run.py --preset=quickstart
  python run.py --help

TensorFlow is imported only after the configuration is valid, so that --help
and every typing error answer at once.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid

from cvr.checkpoints import stored
from cvr.configs import checks, command_line, config, derived
from cvr.startup import quiet_start

# 0 done, 1 a bug of ours; the rest as the README lists them.
EXIT_USAGE, EXIT_NO_USE, EXIT_RETRY, EXIT_PREEMPTED = 2, 3, 75, 143


def _git_hash():
  here = os.path.dirname(os.path.abspath(__file__))
  command = ['git', '-C', here, 'rev-parse', 'HEAD']
  try:
    found = subprocess.run(command, capture_output=True, text=True, timeout=5)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return found.stdout.strip() or None


def _record(cfg, argv):
  """What config.json holds: enough to run the same again."""
  import tensorflow as tf
  import tf_keras

  return {
    'config': config.to_dict(cfg),
    'argv': list(argv),
    'git': _git_hash(),
    'versions': {
      'python': sys.version.split()[0],
      'tensorflow': tf.__version__,
      'tf_keras': tf_keras.__version__,
    },
  }


def _probe_write(model_dir):
  """Fails at once where checkpoints could not be written hours later."""
  import tensorflow as tf

  from cvr.checkpoints import files

  path = os.path.join(model_dir, f'.write-test-{uuid.uuid4().hex}')
  try:
    tf.io.gfile.makedirs(model_dir)
    with tf.io.gfile.GFile(path, 'w') as file:
      file.write('')
    tf.io.gfile.remove(path)
  except (tf.errors.OpError, OSError) as error:
    if files.out_of_reach(error):
      raise  # For now: not the same as a place that cannot be.
    raise config.ConfigError(
      f'--model_dir={model_dir} cannot be written '
      f'({str(error).splitlines()[0]}). Name a directory you can write to.'
    ) from error


def set_precision(cfg):
  """The policy of every layer that is built from here on."""
  import tf_keras as keras

  policies = {
    'fp32': 'float32',
    'bf16': 'mixed_bfloat16',
    'fp16': 'mixed_float16',
  }
  keras.mixed_precision.set_global_policy(policies[cfg.precision])


def _set_up(cfg):
  """Precision, determinism, the strategy -> (strategy, its one line)."""
  import tensorflow as tf

  from cvr.numerics import replicas

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
    # What TensorFlow makes of a graph differs from process to process, and
    # with it C-SimCLR's last digits within 5 steps: one cause of several.
    tf.config.optimizer.set_experimental_options(
      {'disable_meta_optimizer': True}
    )
  set_precision(cfg)
  checks.check_replicas(cfg, strategy.num_replicas_in_sync)
  return strategy, where


def execute(cfg, argv):
  """Does what the configuration says; raises what main() explains."""
  if cfg.mode == 'inspect':
    from cvr.checkpoints import inspection

    print(inspection.describe(cfg.checkpoint or cfg.model_dir))
    return
  if cfg.mode == 'compare':
    quiet_start()
    from cvr.evaluation.card import comparison

    comparison.report(derived.words(cfg.cards), cfg.output, print)
    return
  strategy, where = _set_up(cfg)
  if cfg.mode == 'doctor':
    _doctor(cfg, strategy, where)
    return

  from cvr.numerics import replicas
  from cvr.training.monitor import Monitor

  results = cfg.model_dir
  if derived.reads(cfg):
    if replicas.num_workers(strategy) > 1:
      raise config.ConfigError(
        f'--mode={cfg.mode} runs in one process: unset TF_CONFIG, or '
        'start one task.'
      )
    name = f'eval_{cfg.eval_name}' if cfg.eval_name else 'eval'
    results = os.path.join(cfg.model_dir, name)
  if cfg.mode in ('extract_features', 'export'):
    results = os.path.dirname(cfg.output) or '.'
  _probe_write(results)
  monitor = Monitor(results, replicas.is_chief(strategy))
  written = cfg.mode in ('extract_features', 'export', 'search') and cfg.output
  monitor.say(f'Running on {where}; results go to {written or results}')
  act = _read if derived.reads(cfg) else _train
  act(cfg, argv, strategy, monitor)


def _doctor(cfg, strategy, where):
  """Says what holds a run up; doctor.json is the one file it may leave."""
  from cvr.data import sources
  from cvr.numerics import replicas
  from cvr.training import doctor, train
  from cvr.training.monitor import Monitor

  chief = replicas.is_chief(strategy)
  if cfg.model_dir:
    _probe_write(cfg.model_dir)
  if chief:
    print(f'Running on {where}; measuring, a minute or so', flush=True)
  info = train.describe(cfg)
  with sources.explained(info):
    numbers = doctor.measure(cfg, strategy, info)
  said = doctor.diagnose(numbers, cfg)
  if chief:
    print(*doctor.table(numbers), '', *said, sep='\n')
  if cfg.model_dir:
    content = numbers._asdict() | {'diagnosis': said}
    Monitor(cfg.model_dir, chief).write_json('doctor.json', content)


def _check_changes(cfg, say):
  """Says how a resumed run differs; refuses what changes its meaning."""
  from cvr.checkpoints import files, pretrained

  if cfg.fresh_start or not files.steps(cfg.model_dir):
    return
  path = os.path.join(cfg.model_dir, 'config.json')
  if stored.exists(path):
    settings = config.stored_settings(path, stored.read_json)
  else:
    try:
      settings = pretrained.identify(cfg.model_dir).settings
    except files.CheckpointError:
      return  # Damaged: the one before it may do.
  lines, serious = command_line.changes(settings, cfg)
  if serious and not cfg.allow_config_change:
    raise config.ConfigError(
      f'the run in --model_dir={cfg.model_dir} has other settings: '
      f'{"; ".join(serious)}. Type those of the run, name another --model_dir, '
      'or add --allow_config_change.'
    )
  for line in lines:
    say(f'Note: {line}')


def _train(cfg, argv, strategy, monitor):
  from cvr.checkpoints import locks
  from cvr.evaluation import online
  from cvr.training import train

  with contextlib.ExitStack() as held:
    # Other workers of the same run share the folder.
    if monitor.chief:
      held.enter_context(locks.locked(cfg.model_dir, monitor.say))
    _check_changes(cfg, monitor.say)
    info = train.describe(cfg)
    record = _record(cfg, argv) | {
      'class_names': info.class_names,
      'num_examples': info.num_examples,
    }
    state, total = train.train(cfg, strategy, info, record, monitor)
    if cfg.mode == 'train_then_eval' and state.probe:
      online.evaluate_state(cfg, strategy, state, total, monitor)
    monitor.say(f'Done: {total} steps in {cfg.model_dir}')


def _read(cfg, argv, strategy, monitor):
  """Evaluates, extracts features of, or exports a trained model."""
  del argv
  from cvr.checkpoints import pretrained
  from cvr.evaluation import features, online
  from cvr.evaluation.latents import study
  from cvr.evaluation.search import search
  from cvr.training import train

  record = f'{cfg.model_dir}/config.json'
  if cfg.mode == 'eval' and stored.exists(record):
    seen = stored.read_json(record).get('num_examples')
    state, total = train.rebuild(cfg, strategy, seen)
    online.follow(cfg, strategy, state, total, monitor)
    return
  if not cfg.checkpoint and not pretrained.there_is_one(cfg.model_dir):
    raise config.ConfigError(
      f'--model_dir={cfg.model_dir}: there is no config.json of a run and no '
      'checkpoint. Start the training first, or name its folder.'
    )
  found = pretrained.identify(cfg.checkpoint or cfg.model_dir)
  optimizing = cfg.mode == 'export' and cfg.format == 'released'
  state = train.load_whole(cfg, strategy, found, optimizing, monitor.say)
  if cfg.mode == 'eval':
    online.evaluate_state(cfg, strategy, state, found.step, monitor)
  elif cfg.mode == 'extract_features':
    features.extract_features(cfg, strategy, state, monitor.say)
  elif cfg.mode == 'evaluate':
    from cvr.checkpoints import locks
    from cvr.evaluation import evaluate

    folder = monitor.model_dir
    with contextlib.ExitStack() as held:
      if monitor.chief:
        held.enter_context(locks.locked(folder, monitor.say))
      evaluate.evaluate(cfg, strategy, state, found, folder, monitor.say)
  elif cfg.mode == 'latents':
    study.study(cfg, strategy, state, monitor.model_dir, monitor.say)
  elif cfg.mode == 'search':
    path = cfg.output or search.index_path(cfg, monitor.model_dir)
    search.search(cfg, strategy, state, found, path, monitor.say)
  else:
    from cvr.exports import export

    model = export.Trained(
      state=state,
      found=found,
      mean_std=derived.augmentation(cfg).mean_std,
      image_size=cfg.image_size,
      again=lambda: train.untrained(cfg, strategy, found),
    )
    export.export(cfg.format, cfg.output, model, monitor.say)


def _explained(error):
  """An error -> (exit status, a line) if it may be expected, else raises it."""
  if isinstance(error, config.ConfigError):
    return EXIT_USAGE, str(error)
  import tensorflow as tf

  from cvr.checkpoints import files
  from cvr.data import service
  from cvr.data.sources import DataError
  from cvr.evaluation.card.card import CardError
  from cvr.evaluation.latents import report
  from cvr.training import loop

  again = 'The same command goes on where it was.'
  reason = str(error).partition('\n')[0][:300]
  told = DataError | files.CheckpointError
  told |= report.Missing | CardError
  if isinstance(error, told):
    return EXIT_USAGE, str(error)
  if isinstance(error, loop.NonFinite | loop.Collapsed):
    return EXIT_NO_USE, str(error)
  if isinstance(error, service.Unreachable):
    return EXIT_RETRY, str(error)
  if isinstance(error, loop.Stopped):
    return EXIT_PREEMPTED, str(error)
  if isinstance(error, KeyboardInterrupt):
    return EXIT_PREEMPTED, f'stopped. {again}'
  denied = isinstance(error, tf.errors.PermissionDeniedError)
  if denied or 'File system scheme' in reason:
    return EXIT_USAGE, f'{reason}. Name another place.'
  # TensorFlow has one error for a full device and for a full disk.
  full = isinstance(error, tf.errors.ResourceExhaustedError)
  if full and ('OOM' in reason or 'allocat' in reason):
    return EXIT_USAGE, f'{reason}. Lower --train_batch_size.'
  system = isinstance(error, OSError)
  full |= system and error.errno in (errno.ENOSPC, errno.EDQUOT)
  unsaved = isinstance(error, files.NotSaved)
  if full or unsaved or files.out_of_reach(error):
    return EXIT_RETRY, f'{reason}. {again}'
  raise error


def _print(text):
  """A long text that may go to `head` or a pager which closes early."""
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  print(text)


def main(argv):
  """-> the exit status."""
  try:
    cfg = command_line.parse(argv, stored.read_stored)
  except command_line.Help as text:
    _print(text)
    return 0
  except Exception as error:
    status, message = _explained(error)
    print(f'run.py: {message}', file=sys.stderr)
    return status
  if cfg.print_config:
    _print(command_line.describe(cfg, argv))
    return 0
  if not cfg.model_dir and cfg.mode not in ('doctor', 'compare'):
    name = f'{cfg.pretrain_loss}_{time.strftime("%Y%m%d_%H%M%S")}'
    if cfg.mode == 'evaluate':
      # The same command goes on with what is there.
      place = os.path.abspath(cfg.checkpoint).encode()
      name = f'card_{hashlib.sha256(place).hexdigest()[:8]}'
    cfg = dataclasses.replace(cfg, model_dir=os.path.join('runs', name))
  quiet_start()
  # Outside of the training loop, which writes a checkpoint first.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    execute(cfg, argv)
  except (Exception, KeyboardInterrupt) as error:
    status, message = _explained(error)
    print(f'\nrun.py: {message}', file=sys.stderr)
    return status
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
