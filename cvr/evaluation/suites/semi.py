"""The suite `semi`: 1% and 10% of the labels, finetuned and frozen."""

import numpy as np

from cvr.data import batches, sources, subsets
from cvr.evaluation.heads import finetuning, fitted, linear
from cvr.evaluation.subject import Missing, accuracy, splits_of


def suite(subject):
  """Finetuned as both papers do, and logistic regression on frozen features."""
  splits = splits_of(subject)
  test = splits.test_rows(subject)
  for share, papers in finetuning.SEMI.items():
    percent = f'{round(100 * share)}pct'
    try:
      few, held = few_and_held(subject, splits, share)
      common = _protocol(subject, splits, few)
      head, facts = _frozen_head(subject, splits, few, held)
      right = linear.predict(head, test['representation']) == test['labels']
      protocol = common | facts | {'train_images': facts['images']}
      name = f'frozen_lbfgs_{percent}'
      yield accuracy('semi', name, splits.test, test, right, protocol)
      task = finetuning.Task(few, held, few, splits.test)
      for paper, grid in papers.items():
        rows, right, facts = finetuning.tested(subject, grid, task)
        name = f'finetuned_{paper}_{percent}'
        protocol = common | facts
        yield accuracy('semi', name, splits.test, rows, right, protocol)
    except sources.DataError as error:
      yield Missing('semi', percent, str(error))


def few_and_held(subject, splits, share):
  """A share of the training labels -> its DatasetInfo, that of held-out images.

  ImageNet's shares are published (imagenet2012_subset); held-out images are
  then the last ones of its training files, a few of which may be in the share.
  Other shares are drawn by the seed, and held-out images from the rest.
  """
  cfg = subject.cfg
  if cfg.dataset.split(':')[0] == 'imagenet2012':
    train = subject.describe(cfg.dataset, 'train')
    if sources.overlap(train, splits.test):
      raise sources.DataError(
        f'--eval_split={cfg.eval_split} consists of training images, from '
        'which the published labels and the images to choose settings are '
        'taken too. Semi-supervised learning needs --eval_split=validation.'
      )
    name = f'imagenet2012_subset/{round(100 * share)}pct'
    held = subject.describe(cfg.dataset, f'train[-{linear.HELD_OUT}:]')
    return subject.describe(name, 'train'), held
  labels = batches.labels_of(splits.train)
  used = subsets.stratified(labels, share, cfg.seed)
  rest = np.setdiff1d(np.arange(len(labels)), used)
  count = fitted.held_out_count(labels[rest])
  picked = subsets.held_out(labels[rest], count, cfg.seed)[1]
  few, held = (sources.kept(splits.train, at) for at in (used, rest[picked]))
  return few, held


def _protocol(subject, splits, few):
  return subject.protocol(
    train_split=f'{few.name}, {few.split}',
    share=few.num_examples / splits.train.num_examples,
    train_images=few.num_examples,
  )


def _frozen_head(subject, splits, few, held):
  """Logistic regression on the few labels; held-out images only choose l2."""
  key = {
    'few': [sources.fingerprint(info) for info in (few, held)],
    'look': subject.central._asdict(),
    'seed': subject.cfg.seed,
  }
  rows, held_rows = fitted.lbfgs_rows(subject, few), subject.rows(held)
  return fitted.logistic_head(
    subject,
    fitted.Regression(rows, held_rows, splits.classes, key, refit=False),
  )
