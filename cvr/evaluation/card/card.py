"""The evaluation card: card.json, its scores, a page and plots for readers.

A number is a row, a plain dict of suite, name, dataset, split, metric, value,
low, high, images, protocol and perhaps a curve {'x', 'y', 'x_label', 'y_label'}
(one more x than y: they are the edges of a histogram). Curves with the same
'panel' are drawn in one, each as its 'line'. Scores are arrays, one row per
image, under key(row) and 'ids/<dataset>/<split>'; what a mean per class is
compared by needs 'labels/<dataset>/<split>' too.
"""

import collections
import io
import json
import math
import os

import numpy as np
import tensorflow as tf

from cvr.checkpoints.files import write_atomically
from cvr.evaluation import store
from cvr.evaluation.card import plots, references

VERSION = 1
# Shares of images, which readers see in percent.
SHARES = ('top_1', 'top_5', 'mean_per_class', 'accuracy')
NAMES = ('suite', 'name', 'dataset', 'split', 'metric')
_ROW = (*NAMES, 'value', 'low', 'high')
_SETTINGS = """dataset image_size resnet_depth width_multiplier train_epochs
  train_steps train_batch_size ceb_beta seed"""


class CardError(ValueError):
  """What is wrong with a card, and what to do: one line for users."""


def key(row):
  """Where a row's scores are."""
  return '/'.join(row[part] for part in NAMES[:4])


# Files -----------------------------------------------------------------------


def _plain(value):
  """For json: numpy's numbers and arrays as Python's."""
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  raise TypeError(f'{value!r} is nothing that json can write')


def _problem(card):
  """'' or what makes of something no card."""
  if not isinstance(card, dict) or not isinstance(card.get('numbers'), list):
    return 'it has no list of numbers'
  if card.get('version') != VERSION:
    return f'it is of version {card.get("version")!r}, not {VERSION}'
  if not isinstance(card.get('checkpoint'), dict):
    return 'it names no checkpoint'
  if not isinstance(card['checkpoint'].get('settings', {}), dict):
    return 'the settings of its checkpoint are no dict'
  missing = card.get('missing', [])
  if not isinstance(missing, list) or not all(
    isinstance(m, dict) and {'suite', 'name', 'why'} <= {*m} for m in missing
  ):
    return 'what is missing is no list of suite, name and why'
  problem = next(filter(None, map(_problem_of_row, card['numbers'])), '')
  if problem:
    return problem
  keys = [f'{row["metric"]} of {key(row)}' for row in card['numbers']]
  twice = [name for name in keys if keys.count(name) > 1]
  return f'{twice[0]} is there twice' if twice else ''


def _problem_of_row(row):
  if not isinstance(row, dict):
    return f'{row!r} is no number'
  lacks = [part for part in _ROW if part not in row]
  if lacks:
    return f'{row.get("name")} has no {", ".join(lacks)}'
  if not all(isinstance(row[part], str) for part in NAMES):
    return f'{row["name"]!r} is described by something else than text'
  for part in ('value', 'low', 'high'):
    value = row[part]
    number = isinstance(value, int | float | np.number) and math.isfinite(value)
    if not number and (part == 'value' or value is not None):
      return f'{part} of {key(row)} is {value!r}'
  return (
    '' if _drawable(row.get('curve')) else f'the curve of {key(row)} is none'
  )


def _drawable(curve):
  if not curve:
    return True
  try:
    x, y = (np.asarray(curve[axis], np.float64) for axis in 'xy')
  except (KeyError, TypeError, ValueError):
    return False
  labels = [curve.get(f'{axis}_label') for axis in 'xy']
  labels += [curve.get(name, '') for name in ('panel', 'line')]
  sizes = x.ndim == y.ndim == 1 and len(y) and len(x) - len(y) in (0, 1)
  finite = np.isfinite(x).all() and np.isfinite(y).all()
  return sizes and finite and all(isinstance(label, str) for label in labels)


def write(folder, card, scores):
  """Writes a card over the one in a folder, which may be gs://.

  card: a dict of JSON; scores: {key: array}. Files are whole or the old ones,
  and scores come first: what card.json names is there. -> their names.
  """
  problem = _problem(card)
  if problem:
    raise CardError(f'This card cannot be written: {problem}.')
  try:
    text = json.dumps(card, indent=2, default=_plain, allow_nan=False)
  except ValueError as error:
    raise CardError(f'This card cannot be written: {error}.') from error
  # What readers of the file will see, without numpy's numbers.
  card = json.loads(text)
  tf.io.gfile.makedirs(folder)
  arrays, buffer = {}, io.BytesIO()
  for name, array in scores.items():
    array = np.asarray(array)
    # Strings of an object array would be pickled.
    arrays[name] = array.astype(str) if array.dtype == object else array
  np.savez_compressed(buffer, **arrays)
  write_atomically(os.path.join(folder, 'card_rows.npz'), buffer.getvalue())
  write_atomically(os.path.join(folder, 'card.json'), f'{text}\n')
  pictures = plots.draw(card['numbers'], SHARES)
  for name, picture in pictures.items():
    write_atomically(os.path.join(folder, name), picture)
  page = '\n'.join(markdown(card, pictures))
  write_atomically(os.path.join(folder, 'card.md'), page)
  return ['card.json', 'card_rows.npz', 'card.md', *pictures]


def _rows_of(path):
  """Where the scores of a card.json are."""
  return path.removesuffix('.json') + '_rows.npz'


def set_aside(folder, name):
  """Renames a folder's card, and its scores, to card-<name>.json -> path."""
  path = os.path.join(folder, 'card.json')
  kept = os.path.join(folder, f'card-{name}.json')
  # The scores first: what is still card.json is then without, not with others.
  if tf.io.gfile.exists(_rows_of(path)):
    tf.io.gfile.rename(_rows_of(path), _rows_of(kept), overwrite=True)
  tf.io.gfile.rename(path, kept, overwrite=True)
  return kept


def read(path):
  """A card.json, or its folder -> the card, {key: array of scores}."""
  if not path.endswith('.json'):
    path = os.path.join(path, 'card.json')
  wanted = 'name a card.json that --mode=evaluate has written'
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      card = json.loads(file.read())
  except tf.errors.OpError as error:
    raise CardError(f'{path} cannot be read: {wanted}.') from error
  except ValueError as error:
    raise CardError(f'{path} is no JSON ({error}): {wanted}.') from error
  problem = _problem(card)
  if problem:
    raise CardError(f'{path} is no card ({problem}): {wanted}.')
  return card, _read_scores(_rows_of(path))


def _read_scores(path):
  if not tf.io.gfile.exists(path):
    return {}
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      with np.load(io.BytesIO(file.read())) as stored:
        return dict(stored)
  except store.DAMAGE as error:
    raise CardError(
      f'{path} is damaged ({error}): evaluate its checkpoint again, or remove'
      ' it to compare without p-values.'
    ) from error


# The page --------------------------------------------------------------------


def shown(value, metric):
  """A number as readers see it: percent of images, or in its own unit."""
  if value is None:
    return ''
  # Adding 0 makes -0.0 of what is rounded 0.0.
  percent = metric in SHARES
  return f'{round(100 * value, 1) + 0:.1f}' if percent else f'{value:.4g}'


def table(head, rows):
  """-> lines of Markdown."""
  rows = [head, ['---'] * len(head), *rows]
  rows = [[str(cell).replace('|', '\\|') for cell in row] for row in rows]
  return [f'| {" | ".join(row)} |' for row in rows] + ['']


def spelled(value):
  """A protocol's value in few words."""
  if isinstance(value, dict):
    return ', '.join(f'{name} {spelled(part)}' for name, part in value.items())
  if isinstance(value, list) and len(value) > 8:
    if all(isinstance(part, int | float) for part in value):
      least, most = spelled(min(value)), spelled(max(value))
      return f'{len(value)} values from {least} to {most}'
    return f'{len(value)} entries'
  if isinstance(value, list):
    return f'[{", ".join(map(spelled, value))}]'
  if value is None or isinstance(value, bool):
    return {None: 'none', True: 'yes', False: 'no'}[value]
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _protocols(rows):
  """Lines: what all rows of a suite share, then what each has of its own."""
  protocols = [row.get('protocol') or {} for row in rows]
  shared = {
    name: value
    for name, value in protocols[0].items()
    if all(p.get(name, math.nan) == value for p in protocols)
  }
  apart = collections.defaultdict(list)
  for label, protocol in zip(plots.labels(rows), protocols, strict=True):
    own = {name: v for name, v in protocol.items() if name not in shared}
    apart[_clauses(own)].append(label)
  lines = [f'Protocol: {_clauses(shared)}.', ''] if shared else []
  *few, most = sorted(apart.items(), key=lambda item: len(item[1]))
  lines += [f'- {", ".join(who)}: {own}.' for own, who in few if own]
  own, who = most
  # A long list of names says less than that they are the rest.
  rest = 'all others' if few else 'all'
  if own:
    lines.append(f'- {", ".join(who) if len(who) < 5 else rest}: {own}.')
  return lines + [''] if lines and lines[-1] else lines


def _clauses(protocol):
  return '; '.join(
    f'{name.replace("_", " ")}: {spelled(value)}'
    for name, value in protocol.items()
  )


def _references(method, row):
  """The papers' numbers for a cell, those of a source together."""
  found = collections.defaultdict(list)
  for what, value, source in references.published(method, row):
    found[source].append(f'{value:.1f} {f"({what})" if what else ""}'.strip())
  return '; '.join(f'{", ".join(v)}: {source}' for source, v in found.items())


def _suite(method, rows):
  numbers = []
  for row in rows:
    low, high = (shown(row[end], row['metric']) for end in ('low', 'high'))
    unit = ', %' if row['metric'] in SHARES else ''
    numbers.append([
      row['name'], f'{row["dataset"]}, {row["split"]}',
      row['metric'].replace('_', ' ') + unit,
      shown(row['value'], row['metric']), f'{low} to {high}' if low else '',
      f'{row["images"]:,}' if row.get('images') else '',
      _references(method, row),
    ])  # fmt: skip
  head = ['', 'data set', 'metric', 'value', '95% interval', 'images']
  if any(cells[-1] for cells in numbers):
    head.append('published')
  else:
    numbers = [cells[:-1] for cells in numbers]
  return table(head, numbers)


def _header(card):
  checkpoint = card['checkpoint']
  settings = checkpoint.get('settings', {})
  told = {n: settings[n] for n in _SETTINGS.split() if n in settings}
  rows = [(n, checkpoint.get(n, '')) for n in ('path', 'hash', 'step')]
  rows += [('trained with', _clauses(told)), ('created', card.get('created'))]
  rows += [('versions', spelled(card.get('versions', {})))]
  title = f'# Evaluation of {checkpoint.get("method", "a checkpoint")}'
  return [title, '', *table(['', ''], [row for row in rows if row[1]])]


def _suites(card):
  suites = collections.defaultdict(list)
  for row in card['numbers']:
    suites[row['suite']].append(row)
  return suites


def _missing(card):
  missing = card.get('missing', [])
  if not missing:
    return []
  who = [', '.join(filter(None, (m['suite'], m['name']))) for m in missing]
  told = [f'- {w}: {m["why"]}' for w, m in zip(who, missing, strict=True)]
  return ['## Missing', '', *told, '']


def brief(card):
  """A card -> lines for the screen: the numbers, and what is missing."""
  lines, method = [], card['checkpoint'].get('method')
  for suite, rows in _suites(card).items():
    lines += ['', f'## {suite}', '', *_suite(method, rows)]
  return lines + _missing(card)


def markdown(card, pictures=()):
  """A card -> lines of its page; pictures: names of files beside it."""
  method = card['checkpoint'].get('method')
  lines = _header(card)
  lines += [
    'Intervals are 95% bootstrap intervals over images. They say how much'
    ' another draw of test images would move a number, and nothing about'
    ' another seed of training.',
    '',
  ]
  for suite, rows in _suites(card).items():
    lines += [f'## {suite}', '', *_suite(method, rows), *_protocols(rows)]
  lines += _missing(card)
  if pictures:
    lines += ['## Plots', '']
    lines += [f'![{os.path.splitext(name)[0]}]({name})' for name in pictures]
    lines += ['']
  return lines
