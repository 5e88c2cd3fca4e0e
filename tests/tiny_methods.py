"""Methods in small, a batch for them, and a step."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import model
from cvr import methods
from cvr.configs.config import Config
from cvr.methods.skeletons import head_options
from cvr.numerics import schedules
from cvr.training.step import make_state, make_train_step
from small_data import METHOD_SETTINGS, plan_of

# 24 px is where blur begins to have more than one tap.
SIZE, BATCH = 24, 8


def tiny(loss='contrastive', distribution='vmf', **changes):
  """A configuration that builds and runs in a moment."""
  settings = {
    'pretrain_loss': loss,
    'ceb_distribution': distribution,
    'ceb_beta': 0.5,
    'kappa_e': 64.0,
    'image_size': SIZE,
    'stem': 'small',
    'resnet_depth': 18,
    'proj_head_hidden_dim': 16,
    'proj_out_dim': 8,
    'train_batch_size': BATCH,
    'optimizer': 'momentum',
    'learning_rate': 0.1,
    'ema_alpha': 0.9,
  }
  return Config(**settings | METHOD_SETTINGS.get(loss, {}) | changes)


def make_batch(rng, rows=BATCH):
  return {
    'views': tuple(
      tf.constant(rng.random((rows, SIZE, SIZE, 3)), tf.float32)
      for _ in range(2)
    ),
    'label': tf.constant(rng.integers(0, 3, rows), tf.int32),
    'index': tf.range(rows, dtype=tf.int64),
    'bad': tf.zeros([rows], tf.int32),
  }


class Glance(keras.layers.Layer):
  """An encoder without convolutions: XLA compiles it in a moment."""

  representation_dim = 12

  def __init__(self, plan):
    super().__init__(dtype=tf.float32)
    options = head_options(plan.cfg)
    self.mlp = model.MLP(1, 0, 12, output_bn=True, **options)

  def call(self, x, training=False, frozen=0):
    del frozen
    side = SIZE // 4
    small = tf.nn.avg_pool2d(x, side, side, 'VALID')
    return self.mlp(tf.reshape(small, [x.shape[0], -1]), training=training)[-1]


def make(cfg, total=10):
  keras.utils.set_random_seed(0)
  return methods.make_method(plan_of(cfg, total, 2, examples=BATCH))


def trained_variables(method):
  return [v for layer in method.trained() for v in layer.trainable_variables]


def output_of(method, batch, step=3):
  at = tf.constant(step, tf.int64)
  index = {'index': batch['index']}
  return method.objective(method.encode(batch['views'], at) | index, at)


def loss_and_gradients(method, batch, variables, step=3):
  @tf.function(autograph=False)
  def run(batch):
    with tf.GradientTape() as tape:
      tape.watch(variables)
      output = output_of(method, batch, step)
    return output, tape.gradient(output.loss, variables)

  return run(batch)


def step_weights(cfg, batch, steps=1, strategy=None, compiled=False):
  """The trained weights, teacher and moving statistics after some steps."""
  strategy = strategy or tf.distribute.get_strategy()
  replicas = strategy.num_replicas_in_sync
  with strategy.scope():
    state = make_state(plan_of(cfg, 100, examples=BATCH))
    step = make_train_step(state, schedules.warmup_cosine(0.1, 0, 100))

  def part(context):
    r = context.replica_id_in_sync_group
    rows = BATCH // replicas
    cut = slice(r * rows, (r + 1) * rows)
    return tf.nest.map_structure(lambda x: x[cut], batch)

  parts = strategy.experimental_distribute_values_from_function(part)

  @tf.function(autograph=False, jit_compile=compiled)
  def run(parts):
    metrics = strategy.run(step, args=(parts,))
    return {
      k: strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None)
      for k, v in metrics.items()
    }

  for _ in range(steps):
    metrics = run(parts)
  metrics = {k: float(v) for k, v in metrics.items()}
  return metrics, [v.numpy() for v in state.method.variables]


def assert_same(first, second, tolerance):
  metrics, weights = first
  other_metrics, other_weights = second
  assert set(metrics) == set(other_metrics)
  for name, value in metrics.items():
    assert value == pytest.approx(
      other_metrics[name], rel=tolerance, abs=tolerance
    ), name
  assert len(weights) == len(other_weights)
  for a, b in zip(weights, other_weights, strict=True):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
