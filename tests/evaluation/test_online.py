"""The sums of an evaluation step, against sorted lists."""

import types

import numpy as np
import pytest
import tensorflow as tf

from cvr.evaluation import features, online


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

  def right(k):
    return sum(
      label in sorted(range(classes), key=lambda c: -row[c])[:k]
      for row, label, counts in zip(logits, labels, mask, strict=True)
      if counts
    )

  images = int(mask.sum())
  assert found.numpy().tolist() == [images, n - images, right(1), right(5)]
  assert classes < 6 or right(5) < images
