"""The suite `linear`: the stored probe, and linear heads on frozen features."""

import numpy as np

from cvr.evaluation.heads import fitted
from cvr.evaluation.heads.linear import PROTOCOLS, predict
from cvr.evaluation.subject import Missing, accuracy, splits_of


def _probe(subject, splits, test):
  """Top-1 of the stored probe, trained beside the encoder.

  And top-5 of more than five classes: of fewer it is 100%.
  """
  problem = subject.probe_problem(splits.train.class_names)
  if problem:
    yield Missing('linear', 'online', problem)
    return
  protocol = subject.protocol(**subject.probe_protocol())
  order = np.argsort(-test['logits'], 1, kind='stable')
  hit = order == test['labels'][:, None]
  hit[np.isnan(test['logits']).any(1)] = False
  numbers = [('online', hit[:, 0], 'top_1')]
  if hit.shape[1] > 5:
    numbers.append(('online_5', hit[:, :5].any(1), 'top_5'))
  for name, hits, metric in numbers:
    yield accuracy('linear', name, splits.test, test, hits, protocol, metric)


def suite(subject):
  """A: the stored probe. B: frozen SGD; L-BFGS."""
  splits = splits_of(subject)
  test = splits.test_rows(subject)
  yield from _probe(subject, splits, test)

  def number(name, head, facts, images, crop):
    right = predict(head, test['representation']) == test['labels']
    train = {'train_split': splits.train.split, 'train_images': images}
    protocol = subject.protocol(**train, train_crop=crop, **facts)
    return accuracy('linear', name, splits.test, test, right, protocol)

  passes = subject.cfg.linear_passes
  crops = f'{passes} random crops and flips of each' if passes else 'central'
  for name in PROTOCOLS:
    head, facts = fitted.sgd_head(subject, splits, name)
    yield number(name, head, facts, splits.train.num_examples, crops)
  head, facts = fitted.lbfgs_head(subject, splits)
  # Only a part of a large split.
  yield number('lbfgs', head, facts, facts['images'], 'central')
