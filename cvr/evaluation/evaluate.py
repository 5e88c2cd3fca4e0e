"""--mode=evaluate: the suites of --suite, as a card.

A suite yields Numbers, or Missing for what cannot be measured here. What is
slow (features, heads, finetuned networks) is in the store: an interrupted
evaluation, or another suite of the same checkpoint, does not make it again.
"""

import os
import re
import sys
import time

import tensorflow as tf

from cvr.checkpoints import pretrained
from cvr.configs import config, derived
from cvr.data import sources
from cvr.evaluation import features, store
from cvr.evaluation.card import files, page, plots, schema
from cvr.evaluation.subject import Missing, NoLabels, Subject
from cvr.evaluation.suites import (
  compression,
  knn,
  linear,
  robustness,
  semi,
  transfer,
  transfer_finetune,
)
from cvr.training import loading

_SUITES = {
  'linear': linear.suite,
  'knn': knn.suite,
  'semi': semi.suite,
  'transfer': transfer.suite,
  'robustness': robustness.suite,
  'compression': compression.suite,
  'transfer_finetune': transfer_finetune.suite,
}


def _empty_card(cfg, checkpoint, model):
  method = cfg.pretrain_loss
  if cfg.train_mode == 'finetune':
    # So that no numbers of the papers are put beside it.
    method = f'a finetuned network ({method})'
  if cfg.channels != 3:
    method = f'a network of --channels={cfg.channels} ({method})'
  return {
    'version': schema.VERSION,
    'checkpoint': {
      'path': checkpoint.path,
      'hash': model,
      'step': checkpoint.step,
      **_epochs(cfg, checkpoint),
      'method': method,
      'settings': config.to_dict(cfg),
    },
    'created': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
    'versions': {
      'python': sys.version.split()[0],
      'tensorflow': tf.__version__,
    },
    'numbers': [],
    'missing': [],
  }


def _epochs(cfg, checkpoint):
  """{epochs: how many were run}, where that is known."""
  examples = checkpoint.record.get('num_examples')
  if not examples:
    return {}
  return {'epochs': checkpoint.step * cfg.train_batch_size / examples}


def _earlier(folder, model, say):
  """The card in a folder, if it is of this checkpoint, and its scores.

  The card of another checkpoint is renamed.
  """
  path = os.path.join(folder, 'card.json')
  if not tf.io.gfile.exists(path):
    return {'numbers': []}, {}
  try:
    card, scores = files.read(path)
    if card['checkpoint'].get('hash') == model:
      return card, scores
    why, name = 'is of another checkpoint', str(card['checkpoint'].get('hash'))
  except schema.CardError as error:
    why, name = f'cannot be continued ({error})', 'unreadable'
  name = name if re.fullmatch(r'\w{1,64}', name) else 'unreadable'
  kept = files.set_aside(folder, name)
  say(f'{path} {why}: it is kept as {kept}')
  return {'numbers': []}, {}


def _add(card, scores, number):
  """Puts a Number or a Missing on the card."""
  if isinstance(number, Missing):
    card['missing'].append(number._asdict())
    return
  row = number.row()
  card['numbers'].append(row)
  if number.scores is not None:
    split = f'{number.dataset}/{number.split}'
    scores[schema.key(row)] = number.scores.astype('float32')
    scores[f'ids/{split}'] = number.ids
    scores[f'labels/{split}'] = number.labels


def _measured(suite, subject):
  """The Numbers of a suite; Missing without its data or labels."""
  try:
    yield from _SUITES[suite](subject)
  except (sources.DataError, NoLabels) as error:
    yield Missing(suite, '', str(error))


def _joined(card, earlier, done):
  """The card of this call so far, with the rows of an earlier one.

  Earlier numbers stay until they are measured again, what was missing until its
  suite is done again. Rows are in the order of the suites.
  """
  new = {schema.key(row) for row in card['numbers']}
  rows = {
    'numbers': [r for r in earlier['numbers'] if schema.key(r) not in new],
    'missing': [
      r for r in earlier.get('missing', []) if r['suite'] not in done
    ],
  }
  order = {suite: place for place, suite in enumerate(_SUITES)}

  def place(row):
    return order.get(row['suite'], len(order))

  return card | {k: sorted(card[k] + rows[k], key=place) for k in rows}


def evaluate(cfg, strategy, state, checkpoint, folder, say):
  """Writes card.json, card_rows.npz, card.md and plots to a folder.

  Numbers of an earlier call for the same checkpoint are kept. ConfigError if
  this call measured nothing that it was asked for.
  """
  model = pretrained.fingerprint(checkpoint.path)
  cache = cfg.feature_cache or os.path.join(folder, 'features')
  subject = Subject(
    cfg,
    strategy,
    state,
    checkpoint.path,
    model,
    features.make_read(cfg, strategy, state),
    store.Store(cache),
    say,
    tuple(checkpoint.record.get('class_names') or ()),
    lambda: loading.untrained(cfg, strategy, checkpoint),
  )
  card = _empty_card(cfg, checkpoint, model)
  earlier, scores = _earlier(folder, model, say)
  suites = derived.suites(cfg)
  for i, suite in enumerate(suites):
    say(f'{suite} ...')
    for number in _measured(suite, subject):
      _add(card, scores, number)
    written = files.write(
      folder, _joined(card, earlier, suites[: i + 1]), scores
    )
  say('\n'.join(page.brief(card)))
  say(f'Written: {", ".join(written)} in {folder}')
  if not plots.available():
    say("Plots need matplotlib: pip install -e '.[plot]'")
  if card['missing'] and not card['numbers']:
    raise config.ConfigError(
      f'nothing was measured; the reasons are above and in {folder}/card.md.'
    )
