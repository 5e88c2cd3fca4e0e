"""What a run has, as plain data: read from its files, and one pass of features.

Files may be of another version, cut short or written by anybody: what cannot be
read is left out, with a line that says so.
"""

import contextlib
import io
import json
import logging
import os
import time

import tensorflow as tf

from cvr.checkpoints import files, stored
from cvr.checkpoints.files import write_atomically
from cvr.configs import command_line, config, derived, methods, presets
from cvr.configs.settings import FIELDS, of_the_run, show, with_version
from cvr.data import sources
from cvr.evaluation.card import files as cards
from cvr.evaluation.card.schema import CardError
from cvr.numerics import replicas
from cvr.report import collect_images, page, projector
from cvr.training import loading, start

FILE = 'report.html'
_MOST_BAD = 200  # Names of bad images in a page.
_MOST_BYTES = 200 * 2**20  # Of a file of metrics.
# What a file that is damaged, gone or somebody else's may raise.
_UNREADABLE = (OSError, ValueError, tf.errors.OpError, RecursionError)
# What may stand in the way of pictures: the rest of the page is there.
_NO_PICTURES = (
  sources.DataError,
  files.CheckpointError,
  config.ConfigError,
  tf.errors.OpError,
)


def _text(path):
  """A file's text; '' where there is none."""
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      return file.read(_MOST_BYTES).decode(errors='replace')
  except tf.errors.NotFoundError:
    return ''


def _json(path, notes):
  """A JSON object in a file; {} where there is none, or a damaged one."""
  try:
    text = _text(path)
    found = json.loads(text) if text else {}
    if isinstance(found, dict):
      return found
    notes.append(f'{os.path.basename(path)} holds something else')
  except _UNREADABLE as error:
    notes.append(f'{os.path.basename(path)}: {files.first_line(error)}')
  return {}


def metrics_of(text):
  """The lines of metrics.jsonl -> {tag: (steps, values)}, and how many lines
  were no summaries. Of a step that was repeated the later line counts.
  """
  by_tag, damaged = {}, 0
  for line in text.splitlines():
    try:
      row = json.loads(line)
      step = int(row.pop('step'))
      rows = {tag: float(value) for tag, value in row.items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
      damaged += 1
      continue
    for tag, value in rows.items():
      by_tag.setdefault(tag, {})[step] = value
  series = {}
  for tag, found in by_tag.items():
    steps = sorted(found)
    series[tag] = (steps, [found[step] for step in steps])
  return series, damaged


def _bad_images(text):
  """bad_images.txt -> {'count', 'rows': [(name, reason)]}."""
  rows = [line.partition('\t')[::2] for line in text.splitlines() if line]
  return {
    'count': len(rows),
    'rows': [(name, why) for why, name in rows[:_MOST_BAD]],
  }


def _card(folder, notes):
  """The numbers of eval/card.json; None where there is none."""
  path = os.path.join(folder, 'eval', 'card.json')
  if not tf.io.gfile.exists(path):
    return None
  try:
    card, _ = cards.read(path)
  except (CardError, *_UNREADABLE) as error:
    notes.append(f'eval/card.json: {files.first_line(error)}')
    return None
  return {
    'numbers': card['numbers'],
    'step': card['checkpoint'].get('step'),
    'created': card.get('created'),
  }


def changed(settings):
  """Settings of a run that are not its preset's, or the defaults.

  -> {flag: (value, what the preset has)}.
  """
  preset = settings.get('preset', '')
  values = presets.PRESETS[preset][1] if preset in presets.PRESETS else {}
  base = {name: field.default for name, field in FIELDS.items()}
  base |= with_version(dict(values))
  own = of_the_run(settings)
  return {
    name: (show(value), show(base[name]))
    for name, value in own.items()
    if name in base and name != 'preset' and value != base[name]
  }


def _environment(record):
  versions = record.get('versions', {})
  found = dict(versions) if isinstance(versions, dict) else {}
  found = {str(name): str(version) for name, version in found.items()}
  if record.get('git'):
    found['commit of this project'] = str(record['git'])
  argv = record.get('argv', [])
  if isinstance(argv, list):
    found['command'] = ' '.join(map(show, argv))
  return found


def of_files(folder):
  """What the files of a run's folder say: plain data, without pictures."""
  notes = []
  record = _json(os.path.join(folder, 'config.json'), notes)
  settings = record.get('config', {})
  settings = settings if isinstance(settings, dict) else {}
  series, damaged = metrics_of(_text(os.path.join(folder, 'metrics.jsonl')))
  if damaged:
    notes.append(f'metrics.jsonl: {damaged:,} lines are no summaries')
  kind = methods.KINDS.get(settings.get('pretrain_loss'))
  title = kind.title if kind else 'a run'
  if settings.get('train_mode') == 'finetune':
    title = 'Finetuning'
  classes = record.get('class_names')
  return {
    'name': os.path.basename(os.path.normpath(folder)),
    'folder': folder,
    'title': title,
    'settings': {name: show(value) for name, value in settings.items()},
    'preset': str(settings.get('preset', '')),
    'changed': changed(settings),
    'examples': record.get('num_examples'),
    'classes': len(classes) if isinstance(classes, list) else 0,
    'environment': _environment(record),
    'metrics': series,
    'result': _json(os.path.join(folder, 'result.json'), notes),
    'bad_images': _bad_images(_text(os.path.join(folder, 'bad_images.txt'))),
    'card': _card(folder, notes),
    'step': max((steps[-1] for steps, _ in series.values()), default=None),
    'images': None,
    'notes': notes,
    'written': time.strftime('%Y-%m-%d %H:%M'),
  }


def _loaded(cfg, strategy, say):
  """-> (a State, its step, names of its classes) of a run's folder."""
  start.set_numerics(cfg)
  checkpoint = loading.identify(cfg)
  state = loading.load(cfg, strategy, checkpoint, say)
  names = checkpoint.record.get('class_names') or ()
  return state, checkpoint.step, names


def of_run(cfg, strategy, say):
  """A stored run -> all that a page shows of it."""
  found = of_files(cfg.model_dir)
  try:
    state, step, names = _loaded(cfg, strategy, say)
    found['step'] = step
    found['images'] = collect_images.images_of(
      cfg, strategy, state, names, collect_images.MOST, say, extra=True
    )
  except _NO_PICTURES as error:
    found['notes'].append(f'No pictures: {files.first_line(error)}')
    say(f'No pictures of {cfg.model_dir}: {files.first_line(error)}')
  return found


def _others(cfg):
  """The configurations of --compare; ConfigError where one is no run."""
  for folder in derived.words(cfg.compare):
    argv = ['run.py', '--mode=report', f'--model_dir={folder}']
    argv += [f'--data_dir={cfg.data_dir}'] if cfg.data_dir else []
    argv += [f'--eval_batch_size={cfg.eval_batch_size}']
    if not stored.exists(os.path.join(folder, 'config.json')):
      raise config.ConfigError(
        f'--compare={folder}: there is no config.json of a run.'
      )
    yield command_line.parse(argv, stored.read_stored)


def _write(folder, runs):
  path = os.path.join(folder, FILE)
  write_atomically(path, page.page(runs))
  return path


def report(cfg, strategy, say):
  """--mode=report: writes the page of a run, or of several -> its path."""
  runs = [of_run(one, strategy, say) for one in (cfg, *_others(cfg))]
  path = _write(cfg.model_dir, runs)
  say(f'Written: {path}')
  shown = runs[0]['images']
  if shown:
    classes = shown['class_names']
    labels = [classes[k] if k >= 0 else '' for k in shown['labels']]
    projector.write(cfg.model_dir, *shown['points'], shown['names'], labels)
    say(f"TensorBoard's projector shows its {shown['count']:,} images too")
  return path


def at_end(cfg, strategy, state, total, class_names, say):
  """The page of a run that has just ended.

  It must not cost the run, nor end it: what goes wrong becomes a line.
  """
  # What reading says of the data was said when the run began.
  before = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    found = of_files(cfg.model_dir) | {'step': total}
    if replicas.num_workers(strategy) == 1:
      count = collect_images.at_end(cfg, total)
      with contextlib.redirect_stdout(io.StringIO()):
        found['images'] = collect_images.images_of(
          cfg, strategy, state, class_names, count, lambda line: None
        )
    else:
      found['notes'].append(
        'No pictures, since several workers trained: --mode=report makes them'
      )
    _write(cfg.model_dir, [found])
  # Whatever it is: the run has ended well.
  except Exception as error:
    say(f'Warning: no {FILE}: {type(error).__name__}: '
        f'{files.first_line(error)}')  # fmt: skip
  finally:
    logging.disable(before)
