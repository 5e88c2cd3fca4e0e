"""What a card holds: card.json, a dict, and scores, a dict of arrays.

A number is a row, a plain dict of suite, name, dataset, split, metric, value,
low, high, images, protocol and perhaps a curve {'x', 'y', 'x_label', 'y_label'}
(one more x than y: they are the edges of a histogram). Curves with the same
'panel' are drawn in one, each as its 'line'. Scores are arrays, one row per
image, under key(row) and 'ids/<dataset>/<split>'; comparing means per class
needs 'labels/<dataset>/<split>' too.
"""

import collections
import math

import numpy as np

VERSION = 1
# Metrics that are shares of images, which readers see in percent.
SHARES = ('top_1', 'top_5', 'mean_per_class', 'accuracy')
NAMES = ('suite', 'name', 'dataset', 'split', 'metric')
_ROW = (*NAMES, 'value', 'low', 'high')


class CardError(ValueError):
  """What is wrong with a card, and what to do: one line for users."""


def key(row):
  """Where a row's scores are."""
  return '/'.join(row[part] for part in NAMES[:4])


def problem(card):
  """'' or why a value is not a card."""
  if not isinstance(card, dict) or not isinstance(card.get('numbers'), list):
    return 'it has no list of numbers'
  if card.get('version') != VERSION:
    return f'it is of version {card.get("version")!r}, not {VERSION}'
  if not isinstance(card.get('checkpoint'), dict):
    return 'it names no checkpoint'
  if not isinstance(card['checkpoint'].get('settings', {}), dict):
    return 'the settings of its checkpoint are not a dict'
  missing = card.get('missing', [])
  if not isinstance(missing, list) or not all(
    isinstance(m, dict) and {'suite', 'name', 'why'} <= {*m} for m in missing
  ):
    return 'what is missing is not a list of suite, name and why'
  of_rows = next(filter(None, map(_problem_of_row, card['numbers'])), '')
  if of_rows:
    return of_rows
  keys = [f'{row["metric"]} of {key(row)}' for row in card['numbers']]
  twice = [name for name, n in collections.Counter(keys).items() if n > 1]
  return f'{twice[0]} occurs twice' if twice else ''


def _problem_of_row(row):
  if not isinstance(row, dict):
    return f'{row!r} is not a number'
  lacks = [part for part in _ROW if part not in row]
  if lacks:
    return f'{row.get("name")} has no {", ".join(lacks)}'
  if not all(isinstance(row[part], str) for part in NAMES):
    return f'{row["name"]!r} has a description that is not text'
  for part in ('value', 'low', 'high'):
    value = row[part]
    number = isinstance(value, int | float | np.number) and _is_finite(value)
    if not number and (part == 'value' or value is not None):
      return f'{part} of {key(row)} is {value!r}'
  if not isinstance(row.get('protocol') or {}, dict):
    return f'the protocol of {key(row)} is no dict'
  return (
    '' if _drawable(row.get('curve')) else f'the curve of {key(row)} is none'
  )


def _is_finite(value):
  try:
    return math.isfinite(value)
  except OverflowError:  # An integer of 400 digits.
    return False


def _drawable(curve):
  if not curve:
    return True
  try:
    x, y = (np.asarray(curve[axis], np.float64) for axis in 'xy')
  except (KeyError, TypeError, ValueError, OverflowError):
    return False
  labels = [curve.get(f'{axis}_label') for axis in 'xy']
  labels += [curve.get(name, '') for name in ('panel', 'line')]
  sizes = x.ndim == y.ndim == 1 and len(y) and len(x) - len(y) in (0, 1)
  finite = np.isfinite(x).all() and np.isfinite(y).all()
  return sizes and finite and all(isinstance(label, str) for label in labels)
