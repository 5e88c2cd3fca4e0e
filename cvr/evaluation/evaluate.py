"""--mode=evaluate: the numbers that are asked for, as a card.

A suite yields Numbers, or Missing for what cannot be measured here. What is
slow (features, heads, finetuned networks) is in the store: an evaluation that
was cut off, or another suite of the same checkpoint, does not make it again.
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
from cvr.evaluation.card import card
from cvr.evaluation.heads import linear
from cvr.evaluation.suites import accuracy, rates, robustness
from cvr.evaluation.suites.subject import Missing, Subject

_SUITES = {
  'linear': accuracy.linear_suite,
  'knn': accuracy.knn_suite,
  'semi': accuracy.semi_suite,
  'transfer': accuracy.transfer_suite,
  'robustness': robustness.suite,
  'compression': rates.suite,
  'transfer_finetune': accuracy.transfer_finetune_suite,
}


def _blank(cfg, found, model):
  method = cfg.pretrain_loss
  if cfg.train_mode == 'finetune':
    # No longer what the papers' numbers of a method are of.
    method = f'a finetuned network ({method})'
  return {
    'version': 1,
    'checkpoint': {
      'path': found.path,
      'hash': model,
      'step': found.step,
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


def _earlier(folder, model, say):
  """What a folder's card has of the same checkpoint -> (numbers, missing,
  scores).

  Another one's card is kept beside the new one.
  """
  path = os.path.join(folder, 'card.json')
  if not tf.io.gfile.exists(path):
    return [], [], {}
  try:
    old, scores = card.read(path)
    if old['checkpoint'].get('hash') == model:
      return old['numbers'], old.get('missing', []), scores
    why, name = 'is of another checkpoint', str(old['checkpoint'].get('hash'))
  except card.CardError as error:
    why, name = f'cannot be gone on with ({error})', 'unreadable'
  name = name if re.fullmatch(r'\w{1,64}', name) else 'unreadable'
  kept = card.set_aside(folder, name)
  say(f'{path} {why}: it is {kept} now')
  return [], [], {}


def _add(content, scores, found):
  """Puts a Number or a Missing on the card."""
  if isinstance(found, Missing):
    content['missing'].append(found._asdict())
    return
  content['numbers'].append(found.row())
  if found.scores is not None:
    key = f'{found.suite}/{found.name}/{found.dataset}/{found.split}'
    split = f'{found.dataset}/{found.split}'
    scores[key] = found.scores.astype('float32')
    scores[f'ids/{split}'] = found.ids
    scores[f'labels/{split}'] = found.labels


def _place(row):
  order = [*_SUITES]
  return order.index(row['suite']) if row['suite'] in order else len(order)


def _measured(suite, subject):
  """The Numbers of a suite, until its data set or a library ends it."""
  try:
    yield from _SUITES[suite](subject)
  except (sources.DataError, linear.NoLibrary) as error:
    yield Missing(suite, '', str(error))


def _joined(content, numbers, missing, done):
  """The card of this call so far, with what an earlier one has beside it.

  Numbers stay until they are measured again, what was missing until its suite
  is done again. All in the order of the suites, whichever was measured last.
  """
  new = {card.key(row) for row in content['numbers']}
  numbers = [row for row in numbers if card.key(row) not in new]
  missing = [row for row in missing if row['suite'] not in done]
  return content | {
    'numbers': sorted(content['numbers'] + numbers, key=_place),
    'missing': sorted(content['missing'] + missing, key=_place),
  }


def evaluate(cfg, strategy, state, found, folder, say):
  """Writes card.json, card_rows.npz, card.md and plots to a folder.

  What an earlier call of the same checkpoint has put there stays beside it.
  """
  model = pretrained.fingerprint(found.path)
  kept = cfg.feature_cache or os.path.join(folder, 'features')
  subject = Subject(
    cfg,
    strategy,
    state,
    found.path,
    model,
    features.make_read(cfg, strategy, state),
    store.Store(kept),
    say,
    tuple(found.record.get('class_names', ())),
  )
  content = _blank(cfg, found, model)
  numbers, missing, scores = _earlier(folder, model, say)
  asked = derived.suites(cfg)
  for i, suite in enumerate(asked):
    say(f'{suite} ...')
    for number in _measured(suite, subject):
      _add(content, scores, number)
    whole = _joined(content, numbers, missing, asked[: i + 1])
    files = card.write(folder, whole, scores)
  say('\n'.join(card.brief(content)))
  say(f'Written: {", ".join(files)} in {folder}')
  if not any(name.endswith('.png') for name in files):
    say("Plots need matplotlib: pip install -e '.[plot]'")
