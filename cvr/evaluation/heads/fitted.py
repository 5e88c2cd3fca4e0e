"""Linear heads of a checkpoint, fitted once and kept in its store.

A head is a function of rows of the training split; facts say what it was
fitted to and how, and are part of the protocol of its numbers.
"""

import json
from typing import NamedTuple

import numpy as np

from cvr.data import sources, subsets
from cvr.evaluation.heads import linear

# Settings are chosen on at most this share of the images.
_HELD_SHARE = 0.1
# A logistic regression takes at most so many images: of 1.3 million it would
# take days.
_MOST = 50_000


def held_out_count(labels, wanted=None):
  """How many images to choose settings on; each class keeps one to fit to.

  wanted: a protocol's number; None: a tenth, at most linear.HELD_OUT.
  """
  if wanted is None:
    tenth = max(1, round(_HELD_SHARE * len(labels)))
    wanted = min(linear.HELD_OUT, tenth)
  count = min(wanted, len(labels) - len(np.unique(labels)))
  if not count:
    raise sources.DataError(
      f'{len(labels)} labelled images are too few to hold some out: a class '
      'needs more than one.'
    )
  return count


def _part(rows, at):
  return {name: value[at] for name, value in rows.items()}


def _stored(subject, key, fit):
  """fit() -> (linear.Head, facts), from the store if `key` is in it."""

  def pieces():
    head, facts = fit()
    yield {
      'kernel': head.kernel,
      'bias': head.bias,
      'facts': np.array([json.dumps(facts)]),
    }

  rows = subject.store.rows(subject.facts(head=key), pieces)
  head = linear.Head(rows['kernel'], rows['bias'])
  return head, json.loads(str(rows['facts'][0]))


def sgd_head(subject, splits, name):
  """The frozen protocol `name` on the training split -> (Head, facts)."""
  cfg = subject.cfg
  passes = range(1, cfg.linear_passes + 1)
  looks = [subject.central._replace(random=i) for i in passes]
  looks = looks or [subject.central]
  key = sources.fingerprint(splits.train) | {
    'head': name,
    'looks': [look.facts() for look in looks],
    'seed': cfg.seed,
  }

  def fit():
    rows = [subject.rows(splits.train, look) for look in looks]
    subject.say(f'Linear classifier: {name}')
    return linear.sgd_probe(
      linear.PROTOCOLS[name],
      [r['representation'] for r in rows],
      rows[0]['labels'],
      splits.classes,
      cfg.seed,
    )

  return _stored(subject, key, fit)


class Regression(NamedTuple):
  """What a logistic regression is fitted to, and what its l2 is chosen on."""

  train: dict  # rows
  held: dict  # rows
  classes: int
  key: dict  # what the rows are, for the store
  metric: str = 'top_1'
  refit: bool = True  # on both sets, once l2 is chosen


def logistic_head(subject, task):
  """The regression with the l2 that is best on held rows -> (Head, facts)."""
  train, held = task.train, task.held

  def fit():
    subject.say(
      f'Logistic regression: {len(train["labels"]):,} images, '
      f'{len(linear.L2_GRID)} values of l2'
    )
    return linear.logistic_path(
      (train['representation'], train['labels']),
      (held['representation'], held['labels']),
      task.metric,
      task.classes,
      task.refit,
    )

  own = {'head': 'lbfgs', 'metric': task.metric, 'refit': task.refit}
  # Heads of stores that do not name it are L-BFGS' with a tolerance of 1e-5.
  own['solver'] = linear.SOLVER
  return _stored(subject, task.key | own, fit)


def regression_of(subject, info, rows, count, metric='top_1', look=None):
  """The Regression with `count` rows of a training split held out by seed."""
  seed = subject.cfg.seed
  rest, held = subsets.held_out(rows['labels'], count, seed)
  key = sources.fingerprint(info) | {
    'look': (look or subject.central).facts(),
    'held_out': count,
    'seed': seed,
  }
  classes = len(info.class_names)
  return Regression(_part(rows, rest), _part(rows, held), classes, key, metric)


def lbfgs_rows(subject, info):
  """The rows of a training split that logistic regression is fitted to.

  Of more than _MOST images a stratified part.
  """
  rows = subject.rows(info)
  if len(rows['labels']) <= _MOST:
    return rows
  return _part(
    rows, subsets.stratified(rows['labels'], _MOST, subject.cfg.seed)
  )


def lbfgs_head(subject, splits):
  """That of the main data set's training split -> (Head, facts)."""
  rows = lbfgs_rows(subject, splits.train)
  count = held_out_count(rows['labels'])
  return logistic_head(
    subject, regression_of(subject, splits.train, rows, count)
  )
