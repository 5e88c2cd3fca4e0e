"""What a step adds up, and the noise of its chunks, by definitions."""

import numpy as np
import pytest
import tensorflow as tf

from cvr.training.step import make_encode, make_state, make_train_step
from small_data import plan_of
from tiny_methods import BATCH, make_batch, tiny

pytestmark = pytest.mark.usefixtures('glance')


def stepped(rate=0.1, **changes):
  """-> {name: (weights before, after a step)}, its metrics, groups by shape."""
  cfg = tiny(momentum=0.0, momentum_nesterov=False, **changes)
  state = make_state(plan_of(cfg, 10, examples=BATCH))
  variables = [*state.method.trainable_variables, *state.probe.variables]
  before = [v.numpy() for v in variables]
  step = tf.function(make_train_step(state, lambda step: rate), autograph=False)
  state.optimizer.learning_rate = rate
  metrics = step(make_batch(np.random.default_rng(0)))
  after = [v.numpy() for v in variables]
  metrics = {name: float(value) for name, value in metrics.items()}
  return variables, before, after, metrics


def test_weight_decay_is_part_of_the_loss_and_of_the_gradient():
  """Of SGD: w - rate (g + decay w), and loss + decay / 2 ||w||^2."""
  decay, rate = 0.3, 0.1
  variables, before, plain, without = stepped(rate, weight_decay=0.0)
  _, again, decayed, with_decay = stepped(rate, weight_decay=decay)
  squares = 0.0
  for v, w, w2, a, b in zip(
    variables, before, again, plain, decayed, strict=True
  ):
    np.testing.assert_array_equal(w, w2)
    norm = 'gamma' in v.name or 'beta' in v.name
    expected = 0 * w if norm else -rate * decay * w
    squares += 0.0 if norm else np.sum(np.float64(w) ** 2)
    np.testing.assert_allclose(b - a, expected, atol=2e-6, err_msg=v.name)
  assert squares > 1
  penalty = decay / 2 * squares
  assert with_decay['weight_decay'] == pytest.approx(penalty, rel=1e-5)
  difference = with_decay['total_loss'] - without['total_loss']
  assert difference == pytest.approx(penalty, rel=1e-4)
  parts = ('contrast_loss', 'supervised_loss', 'weight_decay')
  total = sum(with_decay[name] for name in parts)
  assert with_decay['total_loss'] == pytest.approx(total, rel=1e-5)


def test_no_two_chunks_of_a_run_get_the_same_noise():
  """And the step is read off each of them again."""
  cfg = tiny('contrastive_ceb', grad_cache_chunk=2)
  method = make_state(plan_of(cfg, 10, examples=BATCH)).method
  chunks, draws, noise = BATCH // 2, [], []

  def encode(views, draw):
    draws.append(int(draw))
    noise.append(method.noise(draw, 1, len(views[0]), 3).numpy())
    return int(method.step_of(draw))

  real, method.encode = method.encode, encode
  batch = make_batch(np.random.default_rng(0))
  part = {'views': tuple(view[:2] for view in batch['views'])}
  for step in range(3):
    of_chunk = make_encode(method, tf.constant(step, tf.int64))
    steps = [of_chunk(tf.constant(i), part) for i in range(chunks)]
    assert steps == [step] * chunks
  method.encode = real
  assert len(set(draws)) == len(draws) == 3 * chunks
  rows = np.concatenate(noise)
  assert len(np.unique(rows[:, 0])) == len(rows)


def test_the_chunks_of_one_batch_are_drawn_apart():
  """C-BYOL samples in encode(): the same images in both chunks of a batch."""
  cfg = tiny('byol_ceb', grad_accum_steps=2)
  method = make_state(plan_of(cfg, 10, examples=BATCH)).method
  half = make_batch(np.random.default_rng(0), BATCH // 2)
  of_chunk = make_encode(method, tf.constant(5, tf.int64))
  first, second = (of_chunk(tf.constant(i), half) for i in range(2))
  for view in range(2):
    np.testing.assert_allclose(first['mu'][view], second['mu'][view], atol=1e-5)
    distance = np.linalg.norm(first['z'][view] - second['z'][view], axis=-1)
    assert distance.min() > 1e-3
