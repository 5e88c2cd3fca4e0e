"""The suite `transfer`: logistic regression on features of other data sets."""

import dataclasses

from cvr.configs import transfer_sets
from cvr.data import sources
from cvr.evaluation.features import Look
from cvr.evaluation.heads import fitted, linear
from cvr.evaluation.subject import accuracy
from cvr.evaluation.suites.transfer_splits import for_each_set

# The papers use no augmentation here, and cut nothing off.
_UNCUT = Look(crop=1.0)


def _fit(subject, of):
  """-> (Head, facts, [images of train, validation and test])."""
  rows = subject.rows(of.train, _UNCUT)
  if of.validation:
    pair = of.train, of.validation
    task = fitted.Regression(
      rows,
      subject.rows(of.validation, _UNCUT),
      len(of.train.class_names),
      {'transfer': [sources.fingerprint(info) for info in pair]},
      of.metric,
    )
    sizes = [info.num_examples for info in (*pair, of.test)]
  else:
    count = of.held_out(rows['labels'])
    task = fitted.regression_of(
      subject, of.train, rows, count, of.metric, _UNCUT
    )
    sizes = [of.train.num_examples - count, count, of.test.num_examples]
  return *fitted.logistic_head(subject, task), sizes


def suite(subject):
  def measure(of):
    head, facts, sizes = _fit(subject, of)
    rows = subject.rows(of.test, _UNCUT)
    right = linear.predict(head, rows['representation']) == rows['labels']
    validation = of.validation.split if of.validation else 'of train, by seed'
    protocol = subject.protocol(
      _UNCUT,
      place=of.train.name,
      train_split=of.train.split,
      train_images=of.train.num_examples,
      validation_split=validation,
      note=transfer_sets.check_sizes(of.name, sizes),
      **facts,
    )
    test = dataclasses.replace(of.test, name=of.name)
    return accuracy('transfer', of.name, test, rows, right, protocol, of.metric)

  yield from for_each_set(subject, 'transfer', measure)
