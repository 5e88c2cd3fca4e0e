"""The entry: flags -> Config -> what to do.

  python run.py --preset=quickstart
  python run.py --help

TensorFlow is imported only after the configuration is valid, so that --help
and every typing error answer at once.
"""

# ruff: noqa: E402

import os
import signal
import sys

# 0 done, 1 a bug of ours; the rest as the README lists them.
EXIT_USAGE, EXIT_NO_USE, EXIT_RETRY, EXIT_PREEMPTED = 2, 3, 75, 143


def _stop_at_once(number, frame):
  """There is nothing yet that could be lost."""
  del number, frame
  os.write(2, b'run.py: stopped before it began.\n')
  os._exit(EXIT_PREEMPTED)


if __name__ == '__main__':
  for _number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(_number, _stop_at_once)

import contextlib
import dataclasses
import errno
import hashlib
import time

from cvr import startup
from cvr.checkpoints import stored
from cvr.configs import command_line, config, derived
from cvr.startup import check_front, quiet_start


def execute(cfg, argv):
  """Does what the configuration says; raises what main() explains."""
  if cfg.mode == 'inspect':
    from cvr.checkpoints import inspection

    print(inspection.describe(cfg.checkpoint or cfg.model_dir))
    return
  if cfg.mode == 'compare':
    from cvr.evaluation.card import comparison

    comparison.report(derived.words(cfg.cards), cfg.output, print)
    return
  if cfg.mode == 'preview':
    from cvr.report import preview

    preview.preview(cfg, print)
    return
  from cvr.numerics import replicas
  from cvr.training import doctor, start
  from cvr.training.monitor import Monitor

  strategy, where = start.set_up(cfg)
  if cfg.mode == 'doctor':
    doctor.report(cfg, strategy, where)
    return
  if derived.reads(cfg) and replicas.num_workers(strategy) > 1:
    raise config.ConfigError(
      f'--mode={cfg.mode} runs in one process: unset TF_CONFIG, or '
      'start one task.'
    )
  results, chief = _results(cfg), replicas.is_chief(strategy)
  with _removed_if_empty(results) if chief else contextlib.nullcontext():
    start.check_writable(results)
    monitor = Monitor(results, chief)
    written = cfg.mode in ('extract_features', 'export', 'search')
    place = written and cfg.output or results
    monitor.say(f'Running on {where}; results go to {place}')
    if note := start.precision_note(cfg, where):
      monitor.say(note)
    if derived.reads(cfg):
      _read(cfg, strategy, monitor)
    else:
      _train(cfg, argv, strategy, monitor)


@contextlib.contextmanager
def _removed_if_empty(path):
  """Removes the folders that were made for a call which left nothing there."""
  path, made = os.path.normpath(path), []
  while '://' not in path and path and not os.path.exists(path):
    made.append(path)
    path = os.path.dirname(path)
  try:
    yield
  finally:
    with contextlib.suppress(OSError):
      for folder in made:
        if os.listdir(folder) == ['.lock']:
          os.remove(os.path.join(folder, '.lock'))
        os.rmdir(folder)


def _results(cfg):
  """The folder that a call writes to."""
  if cfg.mode in ('extract_features', 'export'):
    return os.path.dirname(cfg.output) or '.'
  if not derived.reads(cfg) or cfg.mode == 'report':
    return cfg.model_dir
  name = f'eval_{cfg.eval_name}' if cfg.eval_name else 'eval'
  return os.path.join(cfg.model_dir, name)


def _locked(folder, monitor):
  """One run at a time; the chief holds the lock for its workers."""
  from cvr.checkpoints import locks

  if monitor.chief:
    return locks.locked(folder, monitor.say)
  return contextlib.nullcontext()


def _train(cfg, argv, strategy, monitor):
  from cvr.data import splits
  from cvr.evaluation import online
  from cvr.training import closing, start, trackers, train

  with _locked(cfg.model_dir, monitor):
    cfg = start.with_stored_depth(cfg)
    start.check_changes(cfg, monitor.say, strategy.num_replicas_in_sync)
    info = train.describe(cfg, monitor.say)
    cfg = dataclasses.replace(cfg, bit_depth=str(info.bits))
    record = start.record(cfg, argv, info, strategy.num_replicas_in_sync)
    with trackers.opened(cfg, monitor):
      state, total = train.train(cfg, strategy, info, record, monitor)
      if cfg.mode == 'train_then_eval' and state.probe:
        with contextlib.suppress(splits.NoEvaluation):  # Was said before.
          online.evaluate_state(cfg, strategy, state, total, monitor)
    monitor.say(f'Done: {total} steps in {cfg.model_dir}')
    if monitor.chief:
      report_at_end(cfg, strategy, state, total, info, monitor.say)
      labelled = bool(info.class_names)
      monitor.say('\n'.join(closing.lines(cfg, argv, total, labelled)))


def report_at_end(cfg, strategy, state, total, info, say):
  """Writes report.html, where it is wanted; it never fails a run."""
  if cfg.report:
    from cvr.report import collect

    collect.at_end(cfg, strategy, state, total, info.class_names, say)


def _read(cfg, strategy, monitor):
  """Evaluates, extracts features of, or exports a trained model."""
  from cvr.training import loading, trackers

  record = f'{cfg.model_dir}/config.json'
  if cfg.mode == 'eval' and stored.exists(record):
    from cvr.evaluation import online

    examples = stored.read_json(record).get('num_examples')
    state, total = loading.rebuild(cfg, strategy, examples)
    with trackers.opened(cfg, monitor):
      online.follow(cfg, strategy, state, total, monitor)
    return
  if cfg.mode == 'report':
    from cvr.report import collect

    collect.report(cfg, strategy, monitor.say)
    return
  checkpoint = loading.identify(cfg)
  state = loading.load(cfg, strategy, checkpoint, monitor.say)
  if cfg.mode == 'export':
    from cvr.exports import export

    model = export.Trained(
      state=state,
      checkpoint=checkpoint,
      mean_std=state.method.plan.recipe.mean_std,
      image_size=cfg.image_size,
      again=lambda: loading.untrained(cfg, strategy, checkpoint),
      channels=cfg.channels,
    )
    export.export(cfg.format, cfg.output, model, monitor.say)
  else:
    _measure(cfg, strategy, state, checkpoint, monitor)


def _measure(cfg, strategy, state, checkpoint, monitor):
  """What cvr/evaluation does with a trained model."""
  folder, say = monitor.model_dir, monitor.say
  if cfg.mode == 'eval':
    from cvr.evaluation import online
    from cvr.training import trackers

    with trackers.opened(cfg, monitor):
      online.evaluate_state(cfg, strategy, state, checkpoint.step, monitor)
  elif cfg.mode == 'extract_features':
    from cvr.evaluation import features

    features.extract_features(cfg, strategy, state, say)
  elif cfg.mode == 'evaluate':
    from cvr.evaluation import evaluate

    with _locked(folder, monitor):
      evaluate.evaluate(cfg, strategy, state, checkpoint, folder, say)
  elif cfg.mode == 'latents':
    from cvr.evaluation.latents import study

    study.study(cfg, strategy, state, folder, say)
  else:
    from cvr.evaluation.search import search

    path = cfg.output or search.index_path(cfg, folder)
    found = search.search(cfg, strategy, state, checkpoint, path, say)
    from cvr.report import neighbours

    neighbours.write(found, os.path.dirname(path) or '.', say)


def _explained(error):
  """An error -> (exit status, a line) if it may be expected, else raises it."""
  again = 'The same command resumes the run.'
  if isinstance(error, config.ConfigError):
    return EXIT_USAGE, str(error)
  if isinstance(error, KeyboardInterrupt):
    return EXIT_PREEMPTED, f'stopped. {again}'

  from cvr.checkpoints import files
  from cvr.data import service
  from cvr.data.sources import DataError, OutOfReach
  from cvr.evaluation.card.schema import CardError
  from cvr.evaluation.latents import report
  from cvr.training import loop

  reason = files.plain(startup.reason(error), 300)
  expected = DataError | files.CheckpointError
  expected |= report.Missing | CardError
  if isinstance(error, expected):
    return EXIT_USAGE, str(error)
  if isinstance(error, loop.NonFinite | loop.Collapsed):
    return EXIT_NO_USE, str(error)
  if isinstance(error, service.Unreachable | OutOfReach):
    return EXIT_RETRY, str(error)
  if isinstance(error, loop.Stopped):
    return EXIT_PREEMPTED, str(error)
  status = _of_the_system(error, reason)
  if not status:
    raise error
  return status


def _of_the_system(error, reason):
  """(exit status, a line) of what the machine or a store refuses, or None."""
  import tensorflow as tf

  from cvr.checkpoints import files

  again = 'The same command resumes the run.'
  denied = isinstance(error, tf.errors.PermissionDeniedError)
  if denied or 'File system scheme' in reason:
    return EXIT_USAGE, f'{reason}. Name another place.'
  # TensorFlow has one error for a full device and for a full disk.
  full = isinstance(error, tf.errors.ResourceExhaustedError)
  if full and ('OOM' in reason or 'allocat' in reason):
    smaller = '--train_batch_size (--eval_batch_size in an evaluation)'
    return EXIT_USAGE, f'{reason}. Lower {smaller} or --image_size.'
  system = isinstance(error, OSError)
  full |= system and error.errno in (errno.ENOSPC, errno.EDQUOT)
  unsaved = isinstance(error, files.NotSaved)
  if full or unsaved or files.out_of_reach(error):
    return EXIT_RETRY, f'{reason}. {again}'
  # 'PATH; Too many levels of symbolic links', of no operation.
  if isinstance(error, tf.errors.OpError) and not error.op and '; ' in reason:
    return EXIT_USAGE, f'{reason}. Name another file, or mend this one.'
  return None


def _print(text):
  """A long text that may go to `head` or a pager which closes early."""
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  print(text)


def main(argv):
  """-> the exit status."""
  try:
    check_front()
  except ImportError as error:  # A model.py of the user's, with python -m run.
    print(f'run.py: {error}', file=sys.stderr)
    return EXIT_USAGE
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
    if cfg.mode == 'preview':
      name = f'preview_{time.strftime("%Y%m%d_%H%M%S")}'
    if cfg.mode == 'evaluate':
      # The same command goes on with what is there.
      place = os.path.abspath(cfg.checkpoint).encode()
      name = f'card_{hashlib.sha256(place).hexdigest()[:8]}'
    cfg = dataclasses.replace(cfg, model_dir=os.path.join('runs', name))
  # Outside of the training loop, which writes a checkpoint first.
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.default_int_handler)
  try:
    quiet_start()
    execute(cfg, argv)
  except (Exception, KeyboardInterrupt) as error:
    status, message = _explained(error)
    print(f'\nrun.py: {message}', file=sys.stderr)
    return status
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
