"""Groups, optimizers, rates and decay, against numbers done by hand."""

import numpy as np
import pytest
import tensorflow as tf

from cvr.configs.config import Config
from cvr.training import optimizers
from cvr.training.step import make_state, make_train_step
from small_data import SMALL, plan_of


def test_groups_cover_what_is_trained_and_spare_the_teacher(state_of):
  state = state_of(pretrain_loss='byol_ceb')
  groups = optimizers.make_groups(state.method, state.probe)
  trained = {v.ref() for v in groups.trained}
  assert len(trained) == len(groups.trained)
  twins = [state.method.target_encoder, state.method.target_projector]
  assert not trained & {
    v.ref() for layer in twins for v in layer.trainable_variables
  }
  probe = state.probe.trainable_variables
  assert {v.ref() for v in probe} <= trained
  # LARS decays and adapts the method's kernels, and nothing of the probe.
  assert all(v.shape.rank in (2, 4) for v in groups.decayed)
  assert not {v.ref() for v in groups.decayed} & {v.ref() for v in probe}
  assert [v.shape.as_list() for v in groups.probe_kernels] == [[64, 3]]


@pytest.mark.parametrize(
  'optimizer', ['lars', 'momentum', 'adam', 'adamw']
)  # fmt: skip
def test_weight_decay_is_where_it_belongs(state_of, optimizer):
  """lars: the probe's kernel as a loss; adamw: none; else all but BN."""
  cfg = Config(**SMALL, optimizer=optimizer, weight_decay=0.5)
  state = state_of(optimizer=optimizer, weight_decay=0.5)
  groups = optimizers.make_groups(state.method, state.probe)
  penalty = float(optimizers.penalty(cfg, groups, cfg.weight_decay))
  body, head = state.method.trainable_variables, state.probe.variables
  expected = {
    'lars': [v for v in head if v.shape.rank == 2],
    'adamw': [],
  }.get(optimizer, [v for v in body if v.shape.rank > 1] + list(head))
  total = sum(0.25 * float(tf.reduce_sum(v**2)) for v in expected)
  assert penalty == pytest.approx(total, rel=1e-5)


def test_adamw_decays_kernels_alone(state_of):
  state = state_of(
    optimizer='adamw', weight_decay=0.1, learning_rate=1.0,
    learning_rate_schedule='constant',
  )  # fmt: skip
  groups = optimizers.make_groups(state.method, state.probe)
  before = [v.numpy() for v in groups.trained]
  zeros = [tf.zeros_like(v) for v in groups.trained]
  optimizers.apply_gradients(state.optimizer, zeros, groups.trained)
  rate = 4 / 256
  decayed = {v.ref() for v in groups.decayed + groups.probe_kernels}
  for v, old in zip(groups.trained, before, strict=True):
    factor = 1 - rate * 0.1 if v.ref() in decayed else 1.0
    np.testing.assert_allclose(v.numpy(), factor * old, rtol=1e-6)


# 0.04 -> 0.4 by a cosine of 4 steps.
DECAYS = [0.04, 0.0927208, 0.22, 0.3472792, 0.4]


def test_weight_decay_goes_to_its_final_value():
  cfg = Config(optimizer='adamw', weight_decay=0.04, final_weight_decay=0.4)
  decay = optimizers.weight_decay(plan_of(cfg, 4))
  found = [float(decay(step)) for step in range(5)]
  np.testing.assert_allclose(found, DECAYS, rtol=1e-6)
  constant = optimizers.weight_decay(plan_of(Config(weight_decay=0.04), 4))
  assert [constant(step) for step in (0, 3)] == [0.04, 0.04]


def test_adamw_decays_by_the_schedule(tiny_encoder):
  cfg = Config(
    **SMALL, optimizer='adamw', weight_decay=0.04, final_weight_decay=0.4,
    learning_rate=16.0, learning_rate_schedule='constant', warmup_epochs=0.0,
  )  # fmt: skip
  state = make_state(plan_of(cfg, 4))
  groups = optimizers.make_groups(state.method, state.probe)
  zeros = [tf.zeros_like(v) for v in groups.trained]
  kernel, expected = groups.decayed[-1], groups.decayed[-1].numpy()
  for decay in DECAYS[:3]:
    optimizers.apply_gradients(state.optimizer, zeros, groups.trained)
    expected = expected * (1 - 16.0 * 4 / 256 * decay)
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-6)


def test_the_penalty_follows_the_schedule(tiny_encoder):
  """As the step reports it; with lars that is the probe's kernel alone."""
  batch = {
    'views': (tf.random.uniform([4, 16, 16, 3]),) * 2,
    'label': tf.constant([0, 1, 2, 0]),
    'bad': tf.zeros([4], tf.int32),
  }
  for optimizer in ('momentum', 'lars'):
    cfg = Config(
      **SMALL, optimizer=optimizer, weight_decay=0.04, final_weight_decay=0.4
    )
    state = make_state(plan_of(cfg, 4))
    groups = optimizers.make_groups(state.method, state.probe)
    of = groups.probe_kernels if optimizer == 'lars' else groups.penalised
    step = make_train_step(state, lambda step: 0.0)
    step = tf.function(step, autograph=False)
    for decay in DECAYS[:3]:
      squares = sum(float(tf.nn.l2_loss(v)) for v in of)
      found = float(step(batch)['weight_decay'])
      assert found == pytest.approx(decay * squares, rel=1e-5)


@pytest.mark.parametrize('nesterov', [True, False])
def test_momentum_with_and_without_nesterov(state_of, nesterov):
  state = state_of(
    optimizer='momentum', momentum_nesterov=nesterov, learning_rate=16.0,
    learning_rate_schedule='constant', momentum=0.5,
  )  # fmt: skip
  groups = optimizers.make_groups(state.method, state.probe)
  v, start = groups.trained[0], groups.trained[0].numpy()
  rate = 16.0 * 4 / 256  # 0.25
  for gradient in (1.0, 3.0):
    gradients = [tf.fill(w.shape, gradient) for w in groups.trained]
    optimizers.apply_gradients(state.optimizer, gradients, groups.trained)
  # Velocities 1, 3.5; looking ahead: 1 + .5, 3 + .5 * 3.5.
  moved = 1.5 + 4.75 if nesterov else 1 + 3.5
  np.testing.assert_allclose(v.numpy(), start - rate * moved, rtol=1e-5)


def test_gradients_are_clipped_by_the_norm_of_them_all(tiny_encoder):
  """Plain SGD: the weights move by the clipped gradients."""
  batch = {
    'views': tuple(tf.random.uniform([4, 16, 16, 3]) for _ in range(2)),
    'label': tf.constant([0, 1, 2, 0]),
    'bad': tf.zeros([4], tf.int32),
  }

  def moved(clip_norm):
    cfg = Config(
      **SMALL, optimizer='momentum', momentum=0.0, momentum_nesterov=False,
      learning_rate=64.0, learning_rate_schedule='constant', weight_decay=0.0,
      clip_norm=clip_norm,
    )  # fmt: skip
    state = make_state(plan_of(cfg, 100))
    groups = optimizers.make_groups(state.method, state.probe)
    before = [v.numpy() for v in groups.trained]
    step = make_train_step(state, lambda step: 1.0)
    metrics = tf.function(step, autograph=False)(batch)
    steps = [b - v.numpy() for v, b in zip(groups.trained, before, strict=True)]
    return float(metrics['grad_norm']), np.concatenate(
      [s.ravel() for s in steps]
    )

  norm, whole = moved(0.0)
  assert np.linalg.norm(whole) == pytest.approx(norm, rel=1e-3)
  reported, clipped = moved(norm / 4)
  # What is reported is what there was to clip.
  assert reported == pytest.approx(norm, rel=1e-4)
  np.testing.assert_allclose(clipped, whole / 4, rtol=1e-2, atol=1e-5)
  np.testing.assert_allclose(moved(norm * 4)[1], whole, rtol=1e-2, atol=1e-5)


def test_learning_rates_begin_and_end_where_they_are_told():
  """SwAV's: 0.3 -> 4.8 in the warm-up, then down to 0.0048, at batch 4096."""
  cfg = Config(
    train_batch_size=4096, learning_rate=0.3, final_learning_rate=0.0003,
    warmup_learning_rate=0.3 / 16,
  )  # fmt: skip
  rate = optimizers.learning_rate(plan_of(cfg, 110, warmup=10))
  steps = {0: 0.3, 5: 2.55, 10: 4.8, 60: 2.4024, 110: 0.0048}
  for step, expected in steps.items():
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('name', ['adam', 'adamw'])
def test_what_was_held_long_moves_by_the_rate_afterwards(name):
  """Moments that begin late would be corrected as if they had not."""
  cfg = Config(optimizer=name, weight_decay=0.0)
  rate = lambda step: 0.01  # noqa: E731
  v = tf.Variable(1.0)
  groups = optimizers.Groups([v], [], [], [])
  optimizer = optimizers.make_optimizer(cfg, groups, rate, lambda step: 0.0)

  @tf.function(autograph=False)
  def step(stays):
    optimizers.update(optimizer, [tf.constant(3.0)], [v], {v.ref(): stays})

  for _ in range(300):
    step(tf.constant(True))
  assert float(v) == 1.0
  for k in range(1, 11):
    step(tf.constant(False))
    assert float(v) == pytest.approx(1.0 - 0.01 * k, abs=1e-4)
