"""What a configuration builds: groups, optimizers, decay, real encoders."""

import gc

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import resnet
from cvr import methods
from cvr.checkpoints import pretrained
from cvr.configs.config import Config, ConfigError
from cvr.configs.presets import PRESETS
from cvr.data.sources import DataError
from cvr.training import loading, train
from cvr.training.step import make_train_step
from small_data import METHOD_SETTINGS, SMALL, plan_of


@pytest.mark.parametrize('loss', methods.METHODS)
def test_every_batch_norm_has_the_settings_of_the_run(loss):
  settings = {'batch_norm_decay': 0.7, 'global_bn': False}
  settings |= SMALL | METHOD_SETTINGS.get(loss, {})
  cfg = Config(pretrain_loss=loss, **settings)
  method = methods.METHODS[loss](plan_of(cfg))
  norms = [m for m in method.submodules if isinstance(m, resnet.BatchNorm)]
  # ResNet-18 has 21, twice with a teacher; each MLP has one, and
  # CMC has two of everything.
  assert (
    len(norms)
    == {
      'contrastive': 22,
      'contrastive_ceb': 22,
      'byol': 45,
      'byol_ceb': 46,
      'cmc': 44,
      'moco': 44,
      'dino': 42,  # Its head has none.
      'simsiam': 24,  # Its projector has one more, on the output.
      'vicreg': 22,
      'er_simclr': 22,
      'er_byol': 45,
      'er_dino': 42,
      'entrec_cont': 22,
      'entrec_disc': 22,
      'swav': 22,
      'deepcluster': 22,
      # Down to the bottleneck, and up.
      'stochcon_bernoulli': 24,
      'stochcon_gaussian': 24,
    }[loss]
  )
  assert {(n.decay, n.epsilon, n.sync) for n in norms} == {(0.7, 1e-5, False)}


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
    step = make_train_step(state, lambda step: 0.1)
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


def test_any_preset_can_be_read_without_its_optimizer():
  for name, (_, row) in PRESETS.items():
    cfg = loading._any_optimizer(Config(**row))
    assert cfg.optimizer == 'lars', name


def test_reading_a_model_asks_for_no_optimizer(tiny_encoder, monkeypatch):
  """LAMB is not on this stack, but what it trained can be read here."""
  monkeypatch.setattr(loading, 'check_sizes', lambda cfg, path: None)
  cfg = Config(optimizer='lamb', **SMALL)
  found = pretrained.Checkpoint('a/ckpt-1', False, {}, (), 3, 1, {})
  state = loading.untrained(cfg, tf.distribute.get_strategy(), found)
  assert state.probe.dense.units == 3
  with pytest.raises(ConfigError, match='tensorflow-addons'):
    loading.untrained(cfg, tf.distribute.get_strategy(), found, optimizing=True)


@pytest.mark.parametrize('loss', ['moco', 'dino', 'byol'])
def test_a_twin_that_is_a_copy_is_one_of_what_was_loaded(
  state_of, monkeypatch, loss
):
  state = state_of(pretrain_loss=loss, **METHOD_SETTINGS.get(loss, {}))
  online = state.method.encoder.trainable_variables
  twin = state.method.target_encoder.trainable_variables

  def load(path, names, method, probe):
    for v in method.encoder.trainable_variables:
      v.assign(tf.fill(v.shape, 7.0))

  monkeypatch.setattr(pretrained, 'locate', lambda path: path)
  monkeypatch.setattr(pretrained, 'load', load)
  train.load_pretrained(Config(checkpoint='a/ckpt-1'), state, lambda line: None)
  same = [np.array_equal(a, b) for a, b in zip(online, twin, strict=True)]
  # BYOL's twin begins with weights of its own, as published.
  assert any(same) == all(same) == (loss != 'byol')


def test_what_python_reads_is_not_for_the_data_service(tmp_path):
  np.save(f'{tmp_path}/a.npy', np.zeros([9, 8, 8], np.uint8))
  cfg = Config(
    dataset=f'npy:{tmp_path}/a.npy', data_service='grpc://localhost:1', **SMALL
  )
  with pytest.raises(
    DataError, match='only this process can read this kind of data'
  ):
    train.describe(cfg)


def test_a_run_is_rebuilt_with_the_examples_it_had(tiny_encoder, folder):
  cfg = Config(
    dataset=f'folder:{folder}',
    pretrain_loss='deepcluster',
    train_epochs=2,
    **SMALL | METHOD_SETTINGS['deepcluster'],
  )
  strategy = tf.distribute.get_strategy()
  state, total = loading.rebuild(cfg, strategy, 60)
  assert state.method.memory[0].shape[0] == 60
  assert total == 60 * 2 // cfg.train_batch_size + 1
  state, _ = loading.rebuild(cfg, strategy)
  assert state.method.memory[0].shape[0] == 22
