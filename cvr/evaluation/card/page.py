"""A card as a page of Markdown, and as lines for the screen."""

import collections
import math
import os

from cvr.evaluation.card import plots, references
from cvr.evaluation.card.schema import SHARES

_SETTINGS = """dataset image_size resnet_depth width_multiplier
  train_batch_size ceb_beta seed"""


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
  """A protocol's value, shortened."""
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
  """Lines: what the protocols of all rows share, then where they differ."""
  protocols = [row.get('protocol') or {} for row in rows]
  shared = {
    name: value
    for name, value in protocols[0].items()
    if all(p.get(name, math.nan) == value for p in protocols)
  }
  names_by_rest = collections.defaultdict(list)
  for label, protocol in zip(plots.labels(rows), protocols, strict=True):
    own = {name: v for name, v in protocol.items() if name not in shared}
    names_by_rest[_clauses(own)].append(label)
  lines = [f'Protocol: {_clauses(shared)}.', ''] if shared else []
  *few, most = sorted(names_by_rest.items(), key=lambda item: len(item[1]))
  lines += [f'- {", ".join(names)}: {own}.' for own, names in few if own]
  own, names = most
  # The largest group is shorter as 'all others' than as a list of names.
  rest = 'all others' if few else 'all'
  if own:
    lines.append(f'- {", ".join(names) if len(names) < 5 else rest}: {own}.')
  return lines + [''] if lines and lines[-1] else lines


def _clauses(protocol):
  return '; '.join(
    f'{name.replace("_", " ")}: {spelled(value)}'
    for name, value in protocol.items()
  )


def _references(method, row):
  """The papers' numbers for a cell, grouped by source."""
  by_source = collections.defaultdict(list)
  for what, value, source in references.published(method, row):
    text = f'{value:.1f} {f"({what})" if what else ""}'.strip()
    by_source[source].append(text)
  return '; '.join(f'{", ".join(v)}: {name}' for name, v in by_source.items())


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
  shown = {n: settings[n] for n in _SETTINGS.split() if n in settings}
  rows = [(n, checkpoint.get(n, '')) for n in ('path', 'hash', 'step')]
  if 'epochs' in checkpoint:
    # Not --train_epochs, of which --train_steps may have made more or fewer.
    rows.append(('epochs', spelled(checkpoint['epochs'])))
  rows += [('trained with', _clauses(shown)), ('created', card.get('created'))]
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
  names = [', '.join(filter(None, (m['suite'], m['name']))) for m in missing]
  lines = [f'- {n}: {m["why"]}' for n, m in zip(names, missing, strict=True)]
  return ['## Missing', '', *lines, '']


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
    'Intervals are 95% bootstrap intervals over images, or over what "interval '
    'over" of a protocol names. They show how much a number changes with other '
    'test images, but not with another seed of training.',
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
