"""Two cards, number by number: how far B is above A on the same images."""

import collections
import json
import os

import numpy as np
import tensorflow as tf

from cvr.evaluation import statistics
from cvr.evaluation.card import card, plots

# Parts of a protocol that are found, not set: they may differ.
_FOUND = """chosen seed checkpoint validation_accuracy iterations not_converged
  refit learning_rate_used floor_taken_off concentration pairs left_out mean max
  median place""".split()
# Scores are float32; a value that is further away is no mean of them.
_ROUNDING = 1e-4


def _rows(found):
  return {(card.key(row), row['metric']): row for row in found['numbers']}


def _alike(row_a, row_b):
  """-> what differs between two rows' protocols, a phrase each."""
  a, b = row_a.get('protocol') or {}, row_b.get('protocol') or {}
  return [
    f'{name.replace("_", " ")} differs: {card.spelled(a.get(name))} in A,'
    f' {card.spelled(b.get(name))} in B'
    for name in {**a, **b}
    if name not in _FOUND and a.get(name) != b.get(name)
  ]


def _order(ids_a, ids_b):
  """-> rows of A and of B in one order of their ids, or (None, why not)."""
  if ids_a is None or ids_b is None:
    return None, 'a card has no ids of its images'
  if len(np.unique(ids_a)) < len(ids_a) or len(np.unique(ids_b)) < len(ids_b):
    return None, 'some ids are there twice'
  alone_a = len(np.setdiff1d(ids_a, ids_b))
  alone_b = len(np.setdiff1d(ids_b, ids_a))
  if alone_a or alone_b:
    return None, (
      f'other images: {alone_a:,} in A alone, {alone_b:,} in B alone'
    )
  return (np.argsort(ids_a), np.argsort(ids_b)), ''


def _aligned(row_a, scores_a, row_b, scores_b):
  """-> {'a', 'b', 'labels'} [n], image by image, or (None, why not)."""
  name = card.key(row_a)
  if name not in scores_a or name not in scores_b:
    return None, 'no score per image'
  images = f'{row_a["dataset"]}/{row_a["split"]}'
  rows, why = _order(*(s.get(f'ids/{images}') for s in (scores_a, scores_b)))
  if rows is None:
    return None, why
  a, b = scores_a[name], scores_b[name]
  if a.shape != rows[0].shape or b.shape != rows[1].shape:
    return None, 'scores and ids are not as many'
  labels = None
  if row_a['metric'] == 'mean_per_class':
    labels, other = (s.get(f'labels/{images}') for s in (scores_a, scores_b))
    if labels is None or other is None:
      return None, 'a card has no labels of its images'
    labels = labels[rows[0]]
    if not np.array_equal(labels, other[rows[1]]):
      return None, 'the same images have other labels'
  found = {'a': a[rows[0]], 'b': b[rows[1]], 'labels': labels}
  for side, row in (('a', row_a), ('b', row_b)):
    if not np.isfinite(found[side]).all():
      return None, 'a score is no number'
    if abs(statistics.mean(found[side], labels) - row['value']) > _ROUNDING:
      return None, f'the value of {side.upper()} is no mean of its scores'
  return found, ''


def _seed(row):
  return (row.get('protocol') or {}).get('seed')


def _compared(row_a, scores_a, row_b, scores_b, seed):
  """One row of the comparison."""
  found = {part: row_a[part] for part in card.NAMES}
  found |= {'a': row_a['value'], 'b': row_b['value']}
  found['difference'] = row_b['value'] - row_a['value']
  found |= dict.fromkeys(('low', 'high', 'p_value', 'test', 'images'))
  aligned, why = _aligned(row_a, scores_a, row_b, scores_b)
  notes = _alike(row_a, row_b)
  if aligned:
    found |= statistics.paired(**aligned, seed=seed)
  else:
    notes.append(f'no p-value: {why}')
  return found | {'notes': notes}


def compare(card_a, scores_a, card_b, scores_b, seed=0):
  """Two cards and their scores -> {'a', 'b', 'rows', 'notes'}.

  A row per number that both have: 'a', 'b', 'difference' = b - a with 'low',
  'high', 'p_value', 'test', 'images', 'only_a', 'only_b' (statistics.paired)
  and 'p_holm', of all rows with a p-value; None where images, ids or scores do
  not allow it. 'notes' say why, and what differs between the protocols.
  """
  rows_a, rows_b = _rows(card_a), _rows(card_b)
  rows = [
    _compared(row, scores_a, rows_b[name], scores_b, seed)
    for name, row in rows_a.items()
    if name in rows_b
  ]
  tested = [row for row in rows if row['p_value'] is not None]
  adjusted = statistics.holm([row['p_value'] for row in tested])
  for row in rows:
    row['p_holm'] = None
  for row, p_value in zip(tested, adjusted, strict=True):
    row['p_holm'] = p_value
  notes = []
  for side, own, other in (('A', rows_a, rows_b), ('B', rows_b, rows_a)):
    alone = [f'{name} ({metric})' for name, metric in own
             if (name, metric) not in other]  # fmt: skip
    if alone:
      notes.append(f'Only in {side}: {", ".join(alone)}.')
  both = rows_a.keys() & rows_b.keys()
  if any(_seed(rows_a[name]) != _seed(rows_b[name]) for name in both):
    notes.append(
      'A and B were evaluated with different seeds, and so had different images'
      ' to choose on, different labels in semi, and L-BFGS different parts of'
      ' large sets: --seed=0 in both evaluations makes them the same.'
    )
  a, b = card_a['checkpoint'], card_b['checkpoint']
  if a.get('hash') and a.get('hash') == b.get('hash'):
    notes.append('A and B are the same checkpoint.')
  return {'a': a, 'b': b, 'rows': rows, 'notes': notes}


# For readers -----------------------------------------------------------------


def _p(value):
  if value is None:
    return ''
  return '< 0.0001' if value < 1e-4 else f'{value:.2g}'


def _signed(value, metric):
  text = card.shown(value, metric)
  return text if not text or text.startswith('-') else f'+{text}'


def _sentence(row):
  """An accuracy that has a p-value in plain words."""
  low, high, difference = (
    card.shown(row[part], row['metric'])
    for part in ('low', 'high', 'difference')
  )
  side = 'below' if difference.startswith('-') else 'above'
  how = f'{difference.lstrip("-")} points {side}'
  p = _p(row['p_value'])
  p = p if p.startswith('<') else f'= {p}'
  interval = f'95% interval {low} to {high}, ' if low else ''
  return (
    f'- B is {how if float(difference) else "level with"} A on'
    f' {row["dataset"]} ({row["suite"]}/{row["name"]}): {interval}p {p}'
    f' ({row["test"]}, {row["images"]:,} images).'
  )


def _notes(result):
  """What to know before believing a row, rows with the same note together."""
  found = collections.defaultdict(list)
  for row in result['rows']:
    for note in row['notes']:
      label = f'{row["suite"]}/{row["name"]} on {row["dataset"]}'
      found[note].append(label)
  lines = [f'- {note}' for note in result['notes']]
  lines += [f'- {", ".join(who)}: {note}.' for note, who in found.items()]
  return ['## Notes', '', *lines, ''] if lines else []


def _table(rows):
  cells = []
  for row in rows:
    metric = row['metric']
    low, high = (_signed(row[end], metric) for end in ('low', 'high'))
    cells.append([
      f'{row["suite"]}/{row["name"]}', f'{row["dataset"]}, {row["split"]}',
      metric.replace('_', ' ') + (', %' if metric in card.SHARES else ''),
      card.shown(row['a'], metric), card.shown(row['b'], metric),
      _signed(row['difference'], metric), f'{low} to {high}' if low else '',
      _p(row['p_value']), _p(row['p_holm']), row['test'] or '',
    ])  # fmt: skip
  head = ['', 'data set', 'metric', 'A', 'B', 'B - A', '95% interval', 'p']
  return card.table([*head, "p, Holm's", 'test'], cells)


def markdown(result):
  """What compare() found -> lines of a page."""
  lines = ['# B against A', '']
  for side in 'ab':
    about = result[side]
    parts = [about.get(part) for part in ('method', 'path', 'hash')]
    parts = ', '.join(str(part) for part in parts if part)
    lines += [f'- {side.upper()}: {parts}']
  rows = result['rows']
  if not rows:
    return [*lines, '', 'They have no number in common.', '', *_notes(result)]
  lines += ['', *_table(rows)]
  tested = [row for row in rows if row['p_value'] is not None]
  said = [_sentence(row) for row in tested if row['metric'] in card.SHARES]
  lines += [*said, ''] if said else []
  if tested:
    lines += [
      'Intervals and p-values are over images, and hold for these two'
      ' checkpoints. They say nothing about other seeds of training: for a'
      ' method against another, train several seeds of both.',
      '',
      f"Holm's p-values allow for all {len(tested)} comparisons at once.",
      '',
    ]
  return lines + _notes(result)


# Several cards ----------------------------------------------------------------

# What a card of compression is one point of.
_RATE = ('compression', 'residual_information/projections')
_RELEVANT = ('compression', 'relevant_information')
_HEAD = ('linear', 'lbfgs')
_KNOBS = ('pretrain_loss', 'ceb_beta', 'kappa_e', 'kappa_b', 'seed')


def points(cards):
  """Cards -> a dict each: what was trained, its rate, what it knows, accuracy.

  None for numbers that a card does not have.
  """
  found = []
  for content in cards:
    rows = {(row['suite'], row['name']): row for row in content['numbers']}
    about = content['checkpoint']
    settings = about.get('settings', {})
    knobs = {name: settings.get(name) for name in _KNOBS}
    parts = {'rate': _RATE, 'relevant': _RELEVANT, 'accuracy': _HEAD}
    numbers = {name: rows.get(part) for name, part in parts.items()}
    found.append(knobs | {'step': about.get('step')} | numbers)
  return found


def _knob(value):
  """A setting in full: 16384, not 1.638e+04."""
  return f'{value:g}' if isinstance(value, float) else card.spelled(value)


def _point_table(found):
  """points() -> lines: only the settings that are not the same everywhere."""
  knobs = [
    name
    for name in (*_KNOBS, 'step')
    if len({str(point[name]) for point in found}) > 1
  ]
  head = [knob.replace('_', ' ') for knob in knobs]
  head += ['I(X;Z|Y) above its floor, nats', 'I(Y;Z), nats', 'L-BFGS, %']
  cells = []
  for point in found:
    numbers = [point[name] for name in ('rate', 'relevant', 'accuracy')]
    shown = [card.shown(n['value'], n['metric']) if n else '' for n in numbers]
    cells.append([*(_knob(point[knob]) for knob in knobs), *shown])
  return card.table(head, cells)


def report(paths, output, say):
  """--mode=compare: the cards against the first one, and all in one table.

  Two cards are shown number by number. Of more only the table is; their pages
  are in the folder `output`, if one is given: comparison.md, comparison.json
  and rate_accuracy.png.
  """
  cards = [card.read(path) for path in paths]
  results = [compare(*cards[0], *other) for other in cards[1:]]
  found = points([content for content, _ in cards])
  table = ['# All cards', '', *_point_table(found)]
  pages = [line for result in results for line in markdown(result)]
  say('\n'.join(pages if len(results) == 1 else table))
  if not output:
    return
  content = json.dumps({'results': results, 'cards': found}, indent=2)
  files = {'comparison.json': content.encode()}
  files['comparison.md'] = '\n'.join([*table, *pages]).encode()
  files |= plots.rate_accuracy(found)
  tf.io.gfile.makedirs(output)
  for name, data in files.items():
    with tf.io.gfile.GFile(os.path.join(output, name), 'wb') as file:
      file.write(data)
  say(f'Written: {", ".join(files)} in {output}')
