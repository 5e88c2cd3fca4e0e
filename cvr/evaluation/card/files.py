"""Writes and reads a card: card.json, card_rows.npz, card.md and plots."""

import io
import json
import os

import numpy as np
import tensorflow as tf

from cvr.checkpoints.files import plain, write_atomically
from cvr.configs import places
from cvr.evaluation import store
from cvr.evaluation.card import page, plots, schema
from cvr.evaluation.card.schema import CardError

# The longest text of a card that is shown; descriptions are shorter.
_TEXT = 1000


def _plain(value):
  """For json: NumPy's numbers and arrays as Python's."""
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  raise TypeError(f'{value!r} cannot be written as JSON')


def write(folder, card, scores):
  """Writes a card over the one in a folder, which may be gs:// -> file names.

  card: a dict of JSON; scores: {key: array}. Each file is the new one or the
  old one. Scores are written first, so that those card.json names exist.
  """
  problem = schema.problem(card)
  if problem:
    raise CardError(f'This card cannot be written: {problem}.')
  try:
    text = json.dumps(card, indent=2, default=_plain, allow_nan=False)
  except ValueError as error:
    raise CardError(f'This card cannot be written: {error}.') from error
  # As readers of the file will see it, without NumPy's numbers.
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
  pictures = plots.draw(card, schema.SHARES, _classes(scores))
  for name, picture in pictures.items():
    write_atomically(os.path.join(folder, name), picture)
  text = '\n'.join(page.markdown(card, pictures))
  write_atomically(os.path.join(folder, 'card.md'), text)
  return ['card.json', 'card_rows.npz', 'card.md', *pictures]


def _classes(scores):
  """{'dataset/split': how many classes its images have}, of those scored."""
  return {
    name.removeprefix('labels/'): len(np.unique(labels))
    for name, labels in scores.items()
    if name.startswith('labels/')
  }


def _rows_of(path):
  """Where the scores of a card.json are."""
  return path.removesuffix('.json') + '_rows.npz'


def set_aside(folder, name):
  """Renames a folder's card, and its scores, to card-<name>.json -> path."""
  path = os.path.join(folder, 'card.json')
  kept = os.path.join(folder, f'card-{name}.json')
  # Scores first: interrupted, card.json is left without scores, not with those
  # of another card.
  if tf.io.gfile.exists(_rows_of(path)):
    tf.io.gfile.rename(_rows_of(path), _rows_of(kept), overwrite=True)
  tf.io.gfile.rename(path, kept, overwrite=True)
  return kept


def _shown(value):
  """A value of a foreign card whose texts a terminal may get."""
  if isinstance(value, str):
    return plain(value, _TEXT)
  if isinstance(value, list):
    return [_shown(part) for part in value]
  if isinstance(value, dict):
    return {plain(k, _TEXT): _shown(part) for k, part in value.items()}
  return value


def read(path):
  """A card.json, or its folder -> the card, {key: array of scores}.

  A card may come from anybody: its texts are bounded and without control
  characters.
  """
  if not path.endswith('.json'):
    path = os.path.join(path, 'card.json')
  wanted = 'name a card.json of --mode=evaluate'
  try:
    _check_file(path)
    with tf.io.gfile.GFile(path, 'rb') as file:
      card = _shown(json.loads(file.read()))
  except tf.errors.OpError as error:
    raise CardError(f'{path} cannot be read: {wanted}.') from error
  except (ValueError, RecursionError) as error:
    raise CardError(
      f'{path} is not JSON ({plain(error)}): {wanted}.'
    ) from error
  problem = schema.problem(card)
  if problem:
    raise CardError(f'{path} is not a card ({plain(problem)}): {wanted}.')
  return card, _read_scores(_rows_of(path))


def _check_file(path):
  if why := places.endless(path):
    raise ValueError(f'it is {why}')


def _read_scores(path):
  if not tf.io.gfile.exists(path):
    return {}
  try:
    _check_file(path)
    with tf.io.gfile.GFile(path, 'rb') as file:
      stored = store.unpacked(file.read())
    # The keys are names of the card, four of them joined.
    return {plain(k, 4 * _TEXT): array for k, array in stored.items()}
  except store.DAMAGE as error:
    raise CardError(
      f'{path} is damaged ({plain(error)}): evaluate its checkpoint again, '
      'or remove it to compare without p-values.'
    ) from error
