"""The sums of an evaluation step, against sorted lists."""

import types

import numpy as np
import pytest
import tensorflow as tf

from cvr.evaluation import features, online, statistics


@pytest.mark.parametrize('classes', [3, 6, 7, 20])
def test_top_1_and_top_5_are_of_sorted_logits(monkeypatch, classes):
  """Of more than six classes five are not all, nor all but one."""
  rng = np.random.default_rng(classes)
  n = 200
  logits = rng.normal(size=(n, classes)).astype(np.float32)
  labels = rng.integers(0, classes, n)
  mask = (rng.random(n) < 0.8).astype(np.float32)
  monkeypatch.setattr(features, 'prepared', lambda batch, mean_std: None)
  method = types.SimpleNamespace(embed=lambda x: x, probed=lambda x: x)
  step = online.make_eval_step(method, lambda _: tf.constant(logits), True)
  found = step({
    'mask': tf.constant(mask),
    'label': tf.constant(labels, tf.int32),
    'bad': tf.constant(1 - mask, tf.int32),
  })  # fmt: skip

  def right(k, of):
    return sum(
      label in sorted(range(classes), key=lambda c: -row[c])[:k]
      for row, label, counts in zip(logits, labels, mask, strict=True)
      if counts and label == of
    )

  bad, *by_class = found.numpy().tolist()
  each = range(classes)
  assert bad == n - mask.sum()
  assert by_class == [
    *(float(sum(mask[labels == c])) for c in each),
    *(right(1, c) for c in each),
    *(right(5, c) for c in each),
  ]
  assert classes < 6 or sum(by_class[-classes:]) < mask.sum()


@pytest.mark.parametrize('clustered', [False, True])
def test_the_interval_is_that_of_a_card(clustered):
  """Of the same images, one by one and in another order."""
  rng = np.random.default_rng(3)
  labels = rng.integers(0, 6, 300)
  hits = rng.random([2, 300]) < np.array([0.1 + labels / 9, 0.9 + 0 * labels])
  images, top_1, top_5 = (
    np.bincount(labels, weights, 6) for weights in (None, *hits)
  )
  found = online.accuracies(images, top_1, top_5, clustered)
  expected = statistics.interval(
    hits[0].astype(np.float32), clusters=labels if clustered else None
  )
  assert found == pytest.approx({
    'eval/label_top_1_accuracy': hits[0].mean(),
    'eval/label_top_1_low': expected['low'],
    'eval/label_top_1_high': expected['high'],
    'eval/label_top_5_accuracy': hits[1].mean(),
  })  # fmt: skip
  # Photographs differ more than their patches do.
  width = found['eval/label_top_1_high'] - found['eval/label_top_1_low']
  assert (width > 0.2) == clustered


def test_five_classes_have_no_top_5():
  five, six = (np.full(c, 4.0) for c in (5, 6))
  assert 'eval/label_top_5_accuracy' not in online.accuracies(
    five, five / 2, five, False
  )
  assert (
    online.accuracies(six, six / 2, six, False)['eval/label_top_5_accuracy']
    == 1
  )


def test_where_no_interval_is_known_none_is_told():
  """One image in each of two photographs, both half right: no spread."""
  found = online.accuracies(
    *(np.array([2.0, 2.0]) / k for k in (1, 2, 1)), True
  )
  assert found == {'eval/label_top_1_accuracy': 0.5}


@pytest.mark.parametrize(
  'cluster, over', [('', '48 images'), ('photograph', 'photographs')]
)
def test_what_is_reported(cluster, over):
  said, metrics = (
    [],
    {
      'eval/label_top_1_accuracy': 0.5,
      'eval/label_top_1_low': 0.35,
      'eval/label_top_1_high': 0.64999,
      'eval/images': 48.0,
      'eval/bad_images': 2.0,
    },
  )
  monitor = types.SimpleNamespace(
    write_json=lambda name, content: None,
    summary=lambda step, metrics: None,
    say=said.append,
  )
  info = types.SimpleNamespace(
    name='cifar10', split='test', channels=3, cluster=cluster
  )
  online._report(info, monitor, 7, metrics)
  assert said == [
    'step 7: top-1 50.00%  (cifar10, test)',
    f'top-1 lies between 35.00% and 65.00%: 95% interval over {over}',
    '2 images of test cannot be decoded and are left out',
  ]
  said.clear()
  metrics = {
    'eval/label_top_1_accuracy': 0.5,
    'eval/label_top_5_accuracy': 0.75,
    'eval/images': 48.0,
    'eval/bad_images': 0.0,
  }
  online._report(info, monitor, 7, metrics)
  assert said == ['step 7: top-1 50.00%  top-5 75.00%  (cifar10, test)']


@pytest.mark.parametrize('seed', [0, 1])
def test_the_logistic_probe_is_scikit_learns_optimum(seed):
  """Also with a feature that never changes, and another scale for each."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  rng = np.random.default_rng(seed)
  labels = rng.integers(5, size=900)
  rows = rng.normal(size=[900, 40]) + np.eye(5, 40)[labels] * 2
  rows *= rng.uniform(0.01, 100, 40)
  rows[:, 7] = 3.0
  rows = rows.astype(np.float32)
  train, test = (rows[:400], labels[:400]), (rows[400:], labels[400:])
  oracle = make_pipeline(
    StandardScaler(),
    LogisticRegression(C=0.1, solver='newton-cg', tol=1e-10, max_iter=10_000),
  )
  wanted = oracle.fit(train[0].astype(float), train[1]).score(*test)
  assert 0.3 < wanted < 0.95
  assert online.logistic_probe(train, test) == pytest.approx(wanted, abs=1e-12)
