"""--mode=evaluate: the numbers that are asked for, as a card.

A suite yields Numbers, or Missing for what cannot be measured here. What is
slow (features, heads, finetuned networks) is in the store: an evaluation that
was cut off, or another suite of the same checkpoint, does not make it again.
"""

import os
import sys
import time

import tensorflow as tf

import config
import features
import pretrained
from evaluation import accuracy, card, rates, robustness, store
from evaluation.subject import Missing, Subject

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
  return {
    'version': 1,
    'checkpoint': {
      'path': found.path,
      'hash': model,
      'step': found.step,
      'method': cfg.pretrain_loss,
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


def _others(folder, names, content):
  """Adds what a folder's card has of other suites of the same checkpoint.

  -> its scores.
  """
  try:
    old, scores = card.read(folder)
  except card.CardError:
    return {}
  if old['checkpoint'].get('hash') != content['checkpoint']['hash']:
    return {}
  for part in ('numbers', 'missing'):
    rows = [row for row in old.get(part, []) if row['suite'] not in names]
    content[part] += rows
  kept = {card.key(row) for row in content['numbers']}
  images = ('ids/', 'labels/')
  return {k: v for k, v in scores.items() if k in kept or k.startswith(images)}


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


def evaluate(cfg, strategy, state, found, folder, say):
  """Writes card.json, card_rows.npz, card.md and plots to a folder."""
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
  )
  names, content = config.suites(cfg), _blank(cfg, found, model)
  scores = _others(folder, names, content)
  for name in names:
    say(f'{name} ...')
    for number in _SUITES[name](subject):
      _add(content, scores, number)
    card.write(folder, content, scores)
  say('\n'.join(card.brief(content)))
  say(f'Written: card.json, card.md and plots in {folder}')
  return content
