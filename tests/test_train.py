"""What a configuration builds: groups, optimizers, decay, real encoders."""

import gc

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import methods
import pretrained
import resnet
import train
from config import Config, ConfigError
from small_data import METHOD_SETTINGS

SMALL = {
  'image_size': 16,
  'resnet_depth': 18,
  'proj_head_hidden_dim': 16,
  'proj_out_dim': 8,
  'train_batch_size': 4,
}


@pytest.mark.parametrize('loss', methods.METHODS)
def test_every_batch_norm_has_the_settings_of_the_run(loss):
  settings = {'batch_norm_decay': 0.7, 'global_bn': False}
  settings |= SMALL | METHOD_SETTINGS.get(loss, {})
  cfg = Config(pretrain_loss=loss, **settings)
  method = methods.METHODS[loss](cfg, 0, 1)
  norms = [m for m in method.submodules if isinstance(m, resnet.BatchNorm)]
  # ResNet-18 has 20, twice with a teacher; each MLP has one, and
  # CMC has two of everything.
  assert (
    len(norms)
    == {
      'contrastive': 21,
      'contrastive_ceb': 21,
      'byol': 43,
      'byol_ceb': 44,
      'cmc': 42,
      'moco': 42,
      'dino': 40,  # Its head has none.
      'simsiam': 23,  # Its projector has one more, on the output.
      'er_simclr': 21,
      'er_byol': 43,
      'er_dino': 40,
      'entrec_cont': 21,
      'entrec_disc': 21,
      'swav': 21,
      'deepcluster': 21,
    }[loss]
  )
  assert {(n.decay, n.epsilon, n.sync) for n in norms} == {(0.7, 1e-5, False)}


@pytest.fixture
def state_of(tiny_encoder):
  del tiny_encoder
  return lambda **changes: train.make_state(
    Config(**SMALL | changes), 3, 0, 100
  )


def test_groups_cover_what_is_trained_and_spare_the_teacher(state_of):
  state = state_of(pretrain_loss='byol_ceb')
  groups = train.make_groups(state.method, state.probe)
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


@pytest.mark.parametrize('loss', methods.METHODS)
def test_a_checkpoint_holds_every_variable_there_is(state_of, loss):
  before = [o for o in gc.get_objects() if isinstance(o, tf.Variable)]
  known = {id(v) for v in before}
  state = state_of(pretrain_loss=loss, **METHOD_SETTINGS.get(loss, {}))
  gc.collect()
  alive = {
    id(o): o.name
    for o in gc.get_objects()
    if isinstance(o, tf.Variable) and id(o) not in known
  }
  held = {id(v) for v in state.optimizer.variables()}
  nodes = [tf.train.Checkpoint(**state.items())]
  for node in nodes:  # Grows while it is walked.
    children = tf.train.TrackableView.children(node).values()
    nodes += [child for child in children if id(child) not in held]
    held |= {id(child) for child in children}
  assert len(alive) > 30
  assert not {name for i, name in alive.items() if i not in held}


@pytest.mark.parametrize(
  'optimizer', ['lars', 'momentum', 'adam', 'adamw']
)  # fmt: skip
def test_weight_decay_is_where_it_belongs(state_of, optimizer):
  """lars: the probe's kernel as a loss; adamw: none; else all but BN."""
  cfg = Config(**SMALL, optimizer=optimizer, weight_decay=0.5)
  state = state_of(optimizer=optimizer, weight_decay=0.5)
  groups = train.make_groups(state.method, state.probe)
  penalty = float(train._penalty(cfg, groups, cfg.weight_decay))
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
  groups = train.make_groups(state.method, state.probe)
  before = [v.numpy() for v in groups.trained]
  zeros = [tf.zeros_like(v) for v in groups.trained]
  train.apply_gradients(state.optimizer, zeros, groups.trained)
  rate = 4 / 256
  decayed = {v.ref() for v in groups.decayed + groups.probe_kernels}
  for v, old in zip(groups.trained, before, strict=True):
    factor = 1 - rate * 0.1 if v.ref() in decayed else 1.0
    np.testing.assert_allclose(v.numpy(), factor * old, rtol=1e-6)


# 0.04 -> 0.4 by a cosine of 4 steps.
DECAYS = [0.04, 0.0927208, 0.22, 0.3472792, 0.4]


def test_weight_decay_goes_to_its_final_value():
  cfg = Config(optimizer='adamw', weight_decay=0.04, final_weight_decay=0.4)
  decay = train.weight_decay(cfg, 4)
  found = [float(decay(step)) for step in range(5)]
  np.testing.assert_allclose(found, DECAYS, rtol=1e-6)
  constant = train.weight_decay(Config(weight_decay=0.04), 4)
  assert [constant(step) for step in (0, 3)] == [0.04, 0.04]


def test_adamw_decays_by_the_schedule(tiny_encoder):
  cfg = Config(
    **SMALL, optimizer='adamw', weight_decay=0.04, final_weight_decay=0.4,
    learning_rate=16.0, learning_rate_schedule='constant', warmup_epochs=0.0,
  )  # fmt: skip
  state = train.make_state(cfg, 3, 0, 4)
  groups = train.make_groups(state.method, state.probe)
  zeros = [tf.zeros_like(v) for v in groups.trained]
  kernel, expected = groups.decayed[-1], groups.decayed[-1].numpy()
  for decay in DECAYS[:3]:
    train.apply_gradients(state.optimizer, zeros, groups.trained)
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
    state = train.make_state(cfg, 3, 0, 4)
    groups = train.make_groups(state.method, state.probe)
    of = groups.probe_kernels if optimizer == 'lars' else groups.penalised
    step = train.make_train_step(cfg, state, lambda step: 0.0)
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
  groups = train.make_groups(state.method, state.probe)
  v, start = groups.trained[0], groups.trained[0].numpy()
  rate = 16.0 * 4 / 256  # 0.25
  for gradient in (1.0, 3.0):
    gradients = [tf.fill(w.shape, gradient) for w in groups.trained]
    train.apply_gradients(state.optimizer, gradients, groups.trained)
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
    state = train.make_state(cfg, 3, 0, 100)
    groups = train.make_groups(state.method, state.probe)
    before = [v.numpy() for v in groups.trained]
    step = train.make_train_step(cfg, state, lambda step: 1.0)
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
  rate = train.learning_rate(cfg, 10, 110)
  steps = {0: 0.3, 5: 2.55, 10: 4.8, 60: 2.4024, 110: 0.0048}
  for step, expected in steps.items():
    assert float(rate(step)) == pytest.approx(expected, rel=1e-5)


def test_the_probe_does_not_change_the_method(state_of):
  """The same weights after a step with and without the linear probe."""
  rng = np.random.default_rng(0)
  batch = {
    'views': tuple(
      tf.constant(rng.random((4, 16, 16, 3)), tf.float32) for _ in range(2)
    ),
    'label': tf.constant([0, 1, 2, 0]),
    'bad': tf.zeros([4], tf.int32),
  }
  weights = []
  for wanted in (True, False):
    changes = {
      'lineareval_while_pretraining': wanted,
      'optimizer': 'momentum',
      'weight_decay': 0.0,
    }
    state = state_of(**changes)
    assert (state.probe is not None) == wanted
    step = train.make_train_step(
      Config(**SMALL | changes), state, lambda step: 0.1
    )
    tf.function(step, autograph=False)(batch)
    weights.append([v.numpy() for v in state.method.trainable_variables])
  for a, b in zip(*weights, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bfloat16_keeps_weights_and_losses_in_float32(state_of):
  keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    state = state_of(pretrain_loss='byol_ceb', ceb_beta=1.0)
    views = [tf.random.uniform([4, 16, 16, 3]) for _ in range(2)]
    at = tf.constant(1, tf.int64)
    output = state.method.objective(state.method.encode(views, at), at)
  finally:
    keras.mixed_precision.set_global_policy('float32')
  assert output.loss.dtype == tf.float32
  assert {v.dtype for v in state.method.variables} == {tf.float32}
  full = state_of(pretrain_loss='byol_ceb', ceb_beta=1.0)
  expected = full.method.objective(full.method.encode(views, at), at)
  # bfloat16 has 8 bits: the same loss to a percent or so, and not the same.
  assert float(output.loss) == pytest.approx(float(expected.loss), rel=0.03)
  assert float(output.loss) != float(expected.loss)


def test_reading_a_model_asks_for_no_optimizer(tiny_encoder):
  """LAMB is not on this stack, but what it trained can be read here."""
  cfg = Config(optimizer='lamb', **SMALL)
  found = pretrained.Found('a/ckpt-1', False, {}, (), 3, 1, {})
  state = train.untrained(cfg, tf.distribute.get_strategy(), found)
  assert state.probe.dense.units == 3
  with pytest.raises(ConfigError, match='tensorflow-addons'):
    train.untrained(cfg, tf.distribute.get_strategy(), found, optimizing=True)
