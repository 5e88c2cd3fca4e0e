"""The last lines of a run: which files it wrote, and what to do next."""

import os
import shlex
import shutil
import sys

from cvr.checkpoints import files

# The files that matter to a person, and what is in them.
_FILES = {
  'metrics.jsonl': 'the curves, for TensorBoard in events.out.tfevents.*',
  'result.json': 'the evaluation',
  'report.html': 'curves and pictures of the run, for a browser',
  'bad_images.txt': 'training images that cannot be decoded or are too small',
  'profile': 'the trace of --profile_steps, for TensorBoard',
}


def _short(path):
  """A path as one types it here, quoted for a shell."""
  below = os.path.relpath(path)
  return shlex.quote(path if below.startswith('..') else below)


def python():
  """How this Python is called: a command that is copied has to run."""
  found = shutil.which('python')
  active = found and os.path.samefile(
    os.path.dirname(found), os.path.dirname(sys.executable)
  )
  return 'python' if active else _short(sys.executable)


def _command(program, **flags):
  words = [f'--{name}={shlex.quote(value)}' for name, value in flags.items()]
  return ' '.join([python(), program, *words])


def _next(cfg, program, labelled):
  """(command, what it gives) of what to do now."""
  run = {'model_dir': cfg.model_dir}
  if cfg.train_mode == 'finetune':
    output = os.path.join(cfg.model_dir, 'export')
    yield (
      _command(program, mode='export', **run, output=output),
      'the model for TensorFlow; --help=format names other formats',
    )
  elif labelled:
    yield (
      _command(program, mode='evaluate', **run, suite='linear,knn'),
      'a card: linear classifiers and nearest neighbours on frozen features',
    )
  else:
    yield (
      _command(program, mode='evaluate', **run, suite='compression'),
      'a card of what needs no labels: rates, spread, smoothness',
    )
  if cfg.train_summary_steps:
    board = _command('-m tensorboard.main', logdir=cfg.model_dir)
    yield board, 'the curves, in a browser'


def lines(cfg, argv, total, labelled):
  """What a run of `total` steps left in its folder, and two commands."""
  there = {name.rstrip('/') for name in files.listed(cfg.model_dir)}
  found = [
    (f'ckpt-{total}', 'the trained network'),
    ('config.json', 'settings'),
  ]
  found += [(name, what) for name, what in _FILES.items() if name in there]
  commands = _next(cfg, _short(argv[0]), labelled)
  return [
    '',
    f'Written to {cfg.model_dir}:',
    *(f'  {name:14}  {what}' for name, what in found),
    '',
    'Next:',
    *(f'  {command}\n      {what}' for command, what in commands),
  ]
