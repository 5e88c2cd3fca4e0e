"""Two cards, number by number: how far B is above A on the same images."""

import collections
import json
import os

import numpy as np
import tensorflow as tf

from cvr.checkpoints.files import write_atomically
from cvr.evaluation import statistics
from cvr.evaluation.card import files, page, plots, schema

# Parts of a protocol that are outcomes rather than settings: they may differ.
_OUTCOMES = """chosen seed checkpoint validation_accuracy iterations
  not_converged refit learning_rate_used floor_taken_off concentration pairs
  left_out mean max median place""".split()
# Scores are float32; a value further away than this is not their mean.
_ROUNDING = 1e-4


def _rows(card):
  return {(schema.key(row), row['metric']): row for row in card['numbers']}


def _alike(row_a, row_b):
  """-> what differs between two rows' protocols, a phrase each."""
  a, b = row_a.get('protocol') or {}, row_b.get('protocol') or {}
  return [
    f'{name.replace("_", " ")} differs: {page.spelled(a.get(name))} in A,'
    f' {page.spelled(b.get(name))} in B'
    for name in {**a, **b}
    if name not in _OUTCOMES and a.get(name) != b.get(name)
  ]


def _order(ids_a, ids_b):
  """-> ((rows of A, rows of B), '') in the order of ids, or (None, why not)."""
  if ids_a is None or ids_b is None:
    return None, 'a card has no ids of its images'
  if len(np.unique(ids_a)) < len(ids_a) or len(np.unique(ids_b)) < len(ids_b):
    return None, 'some ids occur twice'
  alone_a = len(np.setdiff1d(ids_a, ids_b))
  alone_b = len(np.setdiff1d(ids_b, ids_a))
  if alone_a or alone_b:
    return None, (f'other images: {alone_a:,} only in A, {alone_b:,} only in B')
  return (np.argsort(ids_a), np.argsort(ids_b)), ''


def _labels(row_a, scores_a, row_b, scores_b):
  """-> {'labels', 'clusters': (A's, B's) or None}, or (None, why not).

  labels: where the metric is a mean per class. clusters: where intervals are
  over clusters, which hold all images of a class.
  """
  per_class = row_a['metric'] == 'mean_per_class'
  clustered = any(
    (row.get('protocol') or {}).get('interval_over') for row in (row_a, row_b)
  )
  if not (per_class or clustered):
    return {'labels': None, 'clusters': None}, ''
  name = f'labels/{row_a["dataset"]}/{row_a["split"]}'
  labels, other = scores_a.get(name), scores_b.get(name)
  if labels is None or other is None:
    return None, 'a card has no labels of its images'
  return {
    'labels': (labels, other) if per_class else None,
    'clusters': (labels, other) if clustered else None,
  }, ''


def _aligned(row_a, scores_a, row_b, scores_b):
  """-> {'a', 'b', 'labels', 'clusters'} [n], or (None, why not)."""
  name = schema.key(row_a)
  if name not in scores_a or name not in scores_b:
    return None, 'no score per image'
  images = f'{row_a["dataset"]}/{row_a["split"]}'
  rows, why = _order(*(s.get(f'ids/{images}') for s in (scores_a, scores_b)))
  if rows is None:
    return None, why
  a, b = scores_a[name], scores_b[name]
  if a.shape != rows[0].shape or b.shape != rows[1].shape:
    return None, 'scores and ids differ in number'
  scores = {'a': a[rows[0]], 'b': b[rows[1]]}
  labels, why = _labels(row_a, scores_a, row_b, scores_b)
  if labels is None:
    return None, why
  for use, both in labels.items():
    scores[use] = both and both[0][rows[0]]
    if both and not np.array_equal(scores[use], both[1][rows[1]]):
      return None, 'the same images have other labels'
  return _checked(scores, row_a, row_b)


def _checked(scores, row_a, row_b):
  """-> (scores, ''), or (None, why they are not those of the rows)."""
  for side, row in (('a', row_a), ('b', row_b)):
    if not np.isfinite(scores[side]).all():
      return None, 'a score is not a number'
    value = statistics.mean(scores[side], scores['labels'])
    if abs(value - row['value']) > _ROUNDING:
      return None, f'the value of {side.upper()} is not the mean of its scores'
  return scores, ''


def _seed(row):
  return (row.get('protocol') or {}).get('seed')


def _compared(row_a, scores_a, row_b, scores_b, seed):
  """One row of the comparison."""
  row = {part: row_a[part] for part in schema.NAMES}
  row |= {'a': row_a['value'], 'b': row_b['value']}
  row['difference'] = row_b['value'] - row_a['value']
  row |= dict.fromkeys(('low', 'high', 'p_value', 'test', 'images'))
  aligned, why = _aligned(row_a, scores_a, row_b, scores_b)
  notes = _alike(row_a, row_b)
  if aligned:
    row |= statistics.paired(**aligned, seed=seed)
  else:
    notes.append(f'no p-value: {why}')
  return row | {'notes': notes}


def compare(card_a, scores_a, card_b, scores_b, seed=0):
  """Two cards and their scores -> {'a', 'b', 'rows', 'notes'}.

  A row per number that both have: 'a', 'b', 'difference' = b - a with 'low',
  'high', 'p_value', 'test', 'images', 'only_a', 'only_b' (statistics.paired)
  and 'p_holm', over all rows with a p-value; None where images, ids or scores
  do not match. 'notes' say why, and how the protocols differ.
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
      'A and B were evaluated with different seeds. So they differ in the '
      'images that choose settings, in the labels of semi, and in the part of '
      'a large set that L-BFGS takes. Evaluate both with the same --seed.'
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
  text = page.shown(value, metric)
  return text if not text or text.startswith('-') else f'+{text}'


def _sentence(row):
  """An accuracy that has a p-value in plain words."""
  low, high, difference = (
    page.shown(row[part], row['metric'])
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
  """Caveats of the rows, those with the same note together."""
  by_note = collections.defaultdict(list)
  for row in result['rows']:
    for note in row['notes']:
      label = f'{row["suite"]}/{row["name"]} on {row["dataset"]}'
      by_note[note].append(label)
  lines = [f'- {note}' for note in result['notes']]
  lines += [f'- {", ".join(who)}: {note}.' for note, who in by_note.items()]
  return ['## Notes', '', *lines, ''] if lines else []


def _table(rows):
  cells = []
  for row in rows:
    metric = row['metric']
    low, high = (_signed(row[end], metric) for end in ('low', 'high'))
    cells.append([
      f'{row["suite"]}/{row["name"]}', f'{row["dataset"]}, {row["split"]}',
      metric.replace('_', ' ') + (', %' if metric in schema.SHARES else ''),
      page.shown(row['a'], metric), page.shown(row['b'], metric),
      _signed(row['difference'], metric), f'{low} to {high}' if low else '',
      _p(row['p_value']), _p(row['p_holm']), row['test'] or '',
    ])  # fmt: skip
  head = ['', 'data set', 'metric', 'A', 'B', 'B - A', '95% interval', 'p']
  return page.table([*head, "p, Holm's", 'test'], cells)


def markdown(result):
  """What compare() returned -> lines of a page."""
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
  shares = [row for row in tested if row['metric'] in schema.SHARES]
  lines += [*map(_sentence, shares), ''] if shares else []
  if tested:
    lines += [
      'Intervals and p-values are over images, or over clusters of them where '
      'the test says so, and hold for these two checkpoints. They do not cover '
      'other seeds of training: to compare methods, train several seeds of '
      'both.',
      '',
      f"Holm's p-values allow for all {len(tested)} comparisons at once.",
      '',
    ]
  return lines + _notes(result)


# Several cards ----------------------------------------------------------------

# The coordinates of a card in the plane of rate and accuracy.
_RATE = ('compression', 'residual_information/projections')
_RELEVANT = ('compression', 'relevant_information')
_HEAD = ('linear', 'lbfgs')
_KNOBS = ('pretrain_loss', 'ceb_beta', 'kappa_e', 'kappa_b', 'seed')


def _named(about):
  """A checkpoint's name in a picture: the folder of its run."""
  path = os.path.normpath(str(about.get('path', '')))
  is_prefix = os.path.basename(path).startswith('ckpt-')
  return os.path.basename(os.path.dirname(path) if is_prefix else path)


def points(cards):
  """Cards -> a dict each: settings, rate, relevant information, accuracy.

  None for numbers that a card does not have.
  """
  points = []
  for card in cards:
    rows = {(row['suite'], row['name']): row for row in card['numbers']}
    about = card['checkpoint']
    settings = about.get('settings', {})
    knobs = {name: settings.get(name) for name in _KNOBS}
    parts = {'rate': _RATE, 'relevant': _RELEVANT, 'accuracy': _HEAD}
    numbers = {name: rows.get(part) for name, part in parts.items()}
    named = {'name': _named(about), 'step': about.get('step')}
    points.append(knobs | named | numbers)
  return points


def _knob(value):
  """A setting in full: 16384, not 1.638e+04."""
  return f'{value:g}' if isinstance(value, float) else page.spelled(value)


def _point_table(points):
  """points() -> lines; of the settings only those that differ."""
  knobs = [
    name
    for name in (*_KNOBS, 'step')
    if len({str(point[name]) for point in points}) > 1
  ]
  head = [knob.replace('_', ' ') for knob in knobs]
  head += ['I(X;Z|Y) above its floor, nats', 'I(Y;Z), nats', 'L-BFGS, %']
  cells = []
  for point in points:
    numbers = [point[name] for name in ('rate', 'relevant', 'accuracy')]
    shown = [page.shown(n['value'], n['metric']) if n else '' for n in numbers]
    cells.append([*(_knob(point[knob]) for knob in knobs), *shown])
  return page.table(head, cells)


def report(paths, output, say):
  """--mode=compare: the cards against the first one, and all in one table.

  Two cards are printed number by number, of more only the table. With a folder
  `output` all pages are written there: comparison.md, comparison.json and
  rate_accuracy.png.
  """
  cards = [files.read(path) for path in paths]
  results = [compare(*cards[0], *other) for other in cards[1:]]
  all_points = points([card for card, _ in cards])
  table = ['# All cards', '', *_point_table(all_points)]
  pages = [line for result in results for line in markdown(result)]
  say('\n'.join(pages if len(results) == 1 else table))
  if not output:
    return
  written = {
    'comparison.json': json.dumps(
      {'results': results, 'cards': all_points}, indent=2
    ),
    'comparison.md': '\n'.join([*table, *pages]),
    **plots.rate_accuracy(all_points),
  }
  tf.io.gfile.makedirs(output)
  for name, content in written.items():
    write_atomically(os.path.join(output, name), content)
  say(f'Written: {", ".join(written)} in {output}')
