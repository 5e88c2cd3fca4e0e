"""The suite `transfer_finetune`: whole networks on other data sets.

56 trials on each of them.
"""

import dataclasses

from cvr.data import batches, sources, subsets
from cvr.evaluation.heads import finetuning
from cvr.evaluation.subject import accuracy
from cvr.evaluation.suites.transfer_splits import for_each_set


def _joined(subject, train, validation):
  """Both splits of a transfer set as one, to train on."""
  if not train.paths:
    return subject.describe(train.name, f'{train.split}+{validation.split}')
  return dataclasses.replace(
    train,
    num_examples=train.num_examples + validation.num_examples,
    paths=train.paths + validation.paths,
    labels=train.labels + validation.labels,
    files=train.files + validation.files,
  )


def _task(subject, of):
  """A TransferSet -> finetuning.Task."""
  if of.validation:
    both = _joined(subject, of.train, of.validation)
    return finetuning.Task(of.train, of.validation, both, of.test, of.metric)
  labels = batches.labels_of(of.train)
  count = of.held_out(labels)
  rest, picked = subsets.held_out(labels, count, subject.cfg.seed)
  fitted, held = (sources.kept(of.train, at) for at in (rest, picked))
  return finetuning.Task(fitted, held, of.train, of.test, of.metric)


def suite(subject):
  def measure(of):
    grid = finetuning.transfer_grid(of.train.num_examples)
    rows, right, facts = finetuning.tested(subject, grid, _task(subject, of))
    protocol = subject.protocol(train_split=of.train.split) | facts
    return accuracy(
      'transfer_finetune', of.name, of.test, rows, right, protocol, of.metric
    )

  yield from for_each_set(subject, 'transfer_finetune', measure)
