"""The suites of accuracy: linear, kNN, semi-supervised, transfer."""

import dataclasses
import functools
import json

import numpy as np

from cvr.configs import transfer_sets
from cvr.data import batches, sources, subsets
from cvr.evaluation.features import Look
from cvr.evaluation.heads import knn, linear
from cvr.evaluation.suites import finetuning
from cvr.evaluation.suites.subject import Missing, accuracy, knows, splits_of

# Images that hyper-parameters are chosen on: at most, and at most this share.
_HELD_OUT, _HELD_SHARE = 10_009, 0.1
# L-BFGS takes at most so many images.
_MOST = 50_000
_KS, _TEMPERATURES = (10, 20, 100, 200), (0.07, 0.1)
# No augmentation and nothing cut off, as transfer is published.
_WHOLE = Look(crop=1.0)


def _held_out_count(labels, wanted=None):
  """How many images to choose on; each class keeps one to be fitted to.

  wanted: a protocol's number, by itself a tenth.
  """
  if wanted is None:
    wanted = min(_HELD_OUT, max(1, round(_HELD_SHARE * len(labels))))
  count = min(wanted, len(labels) - len(np.unique(labels)))
  if not count:
    raise sources.DataError(
      f'{len(labels)} labelled images leave none to choose settings on: more '
      'than one of a class are needed.'
    )
  return count


def _part(rows, at):
  return {name: value[at] for name, value in rows.items()}


# Heads: linear classifiers of the representation ------------------------------


def _kept(subject, facts, make):
  """A linear.Head and its facts, made before or now."""

  def pieces():
    head, found = make()
    yield {
      'kernel': head.kernel,
      'bias': head.bias,
      'facts': np.array([json.dumps(found)]),
    }

  rows = subject.store.rows(subject.facts(head=facts), pieces)
  head = linear.Head(rows['kernel'], rows['bias'])
  return head, json.loads(str(rows['facts'][0]))


def sgd_head(subject, splits, name):
  """The frozen protocol `name` on the training split -> (Head, facts)."""
  cfg = subject.cfg
  facts = sources.fingerprint(splits.train) | {
    'head': name,
    'passes': cfg.linear_passes,
    'seed': cfg.seed,
  }

  def make():
    looks = [Look(random=i + 1) for i in range(cfg.linear_passes)]
    rows = [subject.rows(splits.train, look) for look in looks or [Look()]]
    subject.say(f'Linear classifier: {name}')
    return linear.sgd_probe(
      linear.PROTOCOLS[name],
      [r['representation'] for r in rows],
      rows[0]['labels'],
      splits.classes,
      cfg.seed,
    )

  return _kept(subject, facts, make)


def logistic_head(subject, train, held, classes, metric, facts, refit=True):
  """L-BFGS with the l2 that is best on held rows -> (Head, facts).

  facts: what the rows are of. refit: whether the head is of both in the end.
  """

  def make():
    subject.say(
      f'Logistic regression: {len(train["labels"]):,} images, '
      f'{len(linear.L2_GRID)} values of l2'
    )
    return linear.logistic_path(
      (train['representation'], train['labels']),
      (held['representation'], held['labels']),
      metric,
      classes,
      refit,
    )

  own = {'head': 'lbfgs', 'metric': metric, 'refit': refit}
  return _kept(subject, facts | own, make)


def _logistic_of_split(subject, info, rows, classes, metric, look, count):
  """The same, `count` of the rows held out of a training split by seed."""
  seed = subject.cfg.seed
  rest, held = subsets.held_out(rows['labels'], count, seed)
  facts = sources.fingerprint(info) | {
    'look': look._asdict(),
    'held_out': count,
    'seed': seed,
  }
  return logistic_head(
    subject, _part(rows, rest), _part(rows, held), classes, metric, facts
  )


def fitted_rows(subject, info):
  """The rows of a training split that L-BFGS takes.

  Of more images than _MOST, which would take days, a stratified part.
  """
  rows = subject.rows(info)
  if len(rows['labels']) <= _MOST:
    return rows
  return _part(
    rows, subsets.stratified(rows['labels'], _MOST, subject.cfg.seed)
  )


def lbfgs_head(subject, splits):
  """That of the main data set's training split -> (Head, facts)."""
  rows = fitted_rows(subject, splits.train)
  count = _held_out_count(rows['labels'])
  return _logistic_of_split(
    subject, splits.train, rows, splits.classes, 'top_1', Look(), count
  )


# The suites -------------------------------------------------------------------


def linear_suite(subject):
  """A: the stored probe. B: frozen SGD; L-BFGS."""
  splits = splits_of(subject)
  test = splits.tested(subject)

  def number(name, correct, protocol, metric='top_1'):
    return accuracy(
      'linear', name, splits.test, test, correct, protocol, metric
    )

  why = knows(subject, splits.train.class_names)
  if why:
    yield Missing('linear', 'online', why)
  else:
    online = subject.protocol(Look(), **subject.probe_facts())
    order = np.argsort(-test['logits'], 1, kind='stable')
    hit = order == test['labels'][:, None]
    hit[np.isnan(test['logits']).any(1)] = False
    yield number('online', hit[:, 0], online)
    yield number('online_5', hit[:, :5].any(1), online, 'top_5')
  train = {
    'train_split': splits.train.split,
    'train_images': splits.train.num_examples,
  }
  for name in linear.PROTOCOLS:
    head, found = sgd_head(subject, splits, name)
    correct = linear.predict(head, test['representation']) == test['labels']
    passes = subject.cfg.linear_passes
    views = f'{passes} random crops and flips of each' if passes else 'central'
    protocol = subject.protocol(Look(), **train, train_crop=views, **found)
    yield number(name, correct, protocol)
  head, found = lbfgs_head(subject, splits)
  correct = linear.predict(head, test['representation']) == test['labels']
  # Of a large split only a part.
  train['train_images'] = found['images']
  protocol = subject.protocol(Look(), **train, train_crop='central', **found)
  yield number('lbfgs', correct, protocol)


def knn_suite(subject):
  """Weighted kNN at every k and temperature: none of them is chosen."""
  splits = splits_of(subject)
  train, test = subject.rows(splits.train), splits.tested(subject)
  found = knn.predictions(
    train['representation'],
    train['labels'],
    test['representation'],
    splits.classes,
    _KS,
    _TEMPERATURES,
  )
  for (k, temperature), predicted in found.items():
    yield accuracy(
      'knn',
      f'k{k}_t{temperature:g}',
      splits.test,
      test,
      predicted == test['labels'],
      subject.protocol(
        Look(),
        train_split=splits.train.split,
        train_images=len(train['labels']),
        similarity='cosine, votes exp(similarity / temperature)',
      ),
    )


def _semi_split(subject, splits, share):
  """A share of the training labels -> (its split, held-out images' split).

  ImageNet's is published (imagenet2012_subset); images to choose on are then
  the last ones of its training files, of which a few may be in the share.
  Others are drawn by the seed, and images to choose on from the rest.
  """
  cfg = subject.cfg
  if cfg.dataset.split(':')[0] == 'imagenet2012':
    whole = subject.describe(cfg.dataset, 'train')
    if sources.overlap(whole, splits.test):
      raise sources.DataError(
        f'--eval_split={cfg.eval_split} is of the training images, which the '
        'published parts of the labels and the images to choose on are of too. '
        'Semi-supervised learning needs --eval_split=validation.'
      )
    name = f'imagenet2012_subset/{round(100 * share)}pct'
    held = subject.describe(cfg.dataset, f'train[-{_HELD_OUT}:]')
    return subject.describe(name, 'train'), held
  labels = batches.labels_of(splits.train)
  used = subsets.stratified(labels, share, cfg.seed)
  rest = np.setdiff1d(np.arange(len(labels)), used)
  count = _held_out_count(labels[rest])
  picked = subsets.held_out(labels[rest], count, cfg.seed)[1]
  few, held = (sources.kept(splits.train, at) for at in (used, rest[picked]))
  return few, held


def semi_suite(subject):
  """1% and 10% of the labels: finetuned as both papers do, and frozen."""
  splits = splits_of(subject)
  test = splits.tested(subject)
  for share, papers in finetuning.SEMI.items():
    of = f'{round(100 * share)}pct'
    try:
      yield from _semi(subject, splits, test, share, of, papers)
    except sources.DataError as error:
      yield Missing('semi', of, str(error))


def _semi(subject, splits, test, share, of, papers):
  few, held = _semi_split(subject, splits, share)
  common = subject.protocol(
    Look(), train_split=f'{few.name}, {few.split}',
    share=few.num_examples / splits.train.num_examples,
    train_images=few.num_examples,
  )  # fmt: skip
  rows, held_rows = fitted_rows(subject, few), subject.rows(held)
  facts = [sources.fingerprint(info) for info in (few, held)]
  # Of the few labels alone: the others are only there to choose by.
  facts = {'few': facts, 'seed': subject.cfg.seed}
  head, found = logistic_head(
    subject, rows, held_rows, splits.classes, 'top_1', facts, False
  )
  right = linear.predict(head, test['representation']) == test['labels']
  own = common | found | {'train_images': found['images']}
  yield accuracy('semi', f'frozen_lbfgs_{of}', splits.test, test, right, own)
  for paper, grid in papers.items():
    number = functools.partial(accuracy, 'semi', f'finetuned_{paper}_{of}')
    yield _finetuned(subject, number, grid, few, held, few, splits.test, common)


def _finetuned(
  subject, number, grid, fitted, held, refitted, test, protocol, metric='top_1'
):
  """Chooses among a grid, trains the best on refitted -> its Number on test."""

  def measure(predicted, labels):
    return linear.METRICS[metric](predicted == labels, labels)

  replicas = subject.strategy.num_replicas_in_sync
  grid = [trial.fitted(fitted.num_examples, replicas) for trial in grid]
  others = {'held': held}
  if refitted is fitted:
    others['test'] = test  # The chosen one need not be trained again.
  trial, reached = finetuning.chosen(subject, grid, fitted, others, measure)
  others = others if refitted is fitted else {'test': test}
  rows = finetuning.outcome(subject, trial, refitted, others)
  right = rows['test'] == rows['test_labels']
  return number(
    test,
    {'labels': rows['test_labels'], 'ids': rows['test_ids']},
    right,
    protocol
    | {
      'layer': 'the whole network',
      'normalisation': protocol['normalisation'],
      'chosen': trial._asdict(),
      'grid': [one._asdict() for one in grid],
      'validation_accuracy': reached,
      'train_crop': 'random crops and flips',
    },
    metric,
  )


def _transfer_splits(subject, name, place):
  """-> DatasetInfos of a transfer set: train, validation (or None), test."""
  if not place:
    raise sources.DataError(
      f'{name} is not in TFDS: say where it lies with '
      f'--transfer_sets={name}=folder:PATH'
    )
  found = [
    subject.describe(place, split) if split else None
    for split in transfer_sets.splits(name, place)
  ]
  if any(info and not info.class_names for info in found):
    raise sources.DataError(f'{name}: {place} has a split without labels.')
  return found


def _held_out_of(name, labels):
  """How many of a transfer set's training images to choose on."""
  return _held_out_count(labels, transfer_sets.held_out(name, len(labels)))


def _transfer(subject, suite, measure):
  """measure(name, splits) -> a Number, of every set that can be had."""
  for name, place in transfer_sets.parse(subject.cfg.transfer_sets).items():
    try:
      yield measure(name, _transfer_splits(subject, name, place))
    except sources.DataError as error:
      yield Missing(suite, name, str(error))


def transfer_suite(subject):
  """Logistic regression on frozen features of other data sets."""

  def measure(name, splits):
    train, validation, test = splits
    row, classes = transfer_sets.SETS[name], len(train.class_names)
    rows = subject.rows(train, _WHOLE)
    if validation:
      held = subject.rows(validation, _WHOLE)
      facts = [sources.fingerprint(info) for info in (train, validation)]
      head, found = logistic_head(
        subject, rows, held, classes, row.metric, {'transfer': facts}
      )
      sizes = [info.num_examples for info in splits]
    else:
      count = _held_out_of(name, rows['labels'])
      sizes = [train.num_examples - count, count, test.num_examples]
      head, found = _logistic_of_split(
        subject,
        train,
        rows,
        classes,
        row.metric,
        _WHOLE,
        count,
      )
    rows = subject.rows(test, _WHOLE)
    right = linear.predict(head, rows['representation']) == rows['labels']
    protocol = subject.protocol(
      _WHOLE, place=train.name, train_split=train.split,
      train_images=train.num_examples,
      validation_split=validation.split if validation else 'of train, by seed',
      note=transfer_sets.check_sizes(name, sizes), **found,
    )  # fmt: skip
    # Under the name of the table, wherever it lies.
    test = dataclasses.replace(test, name=name)
    return accuracy('transfer', name, test, rows, right, protocol, row.metric)

  yield from _transfer(subject, 'transfer', measure)


def _joined(subject, train, validation):
  """Both splits of a transfer set as one, to train on."""
  if not train.paths:
    return subject.describe(train.name, f'{train.split}+{validation.split}')
  return dataclasses.replace(
    train,
    num_examples=train.num_examples + validation.num_examples,
    paths=train.paths + validation.paths,
    labels=train.labels + validation.labels,
  )


def transfer_finetune_suite(subject):
  """The whole network finetuned on other data sets: 56 trials on each."""

  def measure(name, splits):
    train, held, test = splits
    row = transfer_sets.SETS[name]
    fitted, both = train, train
    if held:
      both = _joined(subject, train, held)
    else:
      labels = batches.labels_of(train)
      count = _held_out_of(name, labels)
      rest, picked = subsets.held_out(labels, count, subject.cfg.seed)
      fitted, held = sources.kept(train, rest), sources.kept(train, picked)
    number = functools.partial(accuracy, 'transfer_finetune', name)
    grid = finetuning.transfer_grid(train.num_examples)
    protocol = subject.protocol(Look(), train_split=train.split)
    return _finetuned(
      subject, number, grid, fitted, held, both, test, protocol, row.metric
    )

  yield from _transfer(subject, 'transfer_finetune', measure)
