"""Methods in small, a batch for them, and a step that is traced once."""

import glob
import tempfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.core.protobuf import config_pb2

import model
import resnet
import tiny_run
from cvr import methods
from cvr.configs.config import Config
from cvr.methods import skeletons
from cvr.methods.skeletons import head_options
from cvr.numerics import schedules
from cvr.training.step import make_state, make_train_step
from small_data import METHOD_SETTINGS, plan_of

WHOLE_18 = resnet.BLOCKS[18]
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
    side = x.shape[1] // 4
    small = tf.nn.avg_pool2d(x, side, side, 'VALID')
    return self.mlp(tf.reshape(small, [x.shape[0], -1]), training=training)[-1]


def whole_resnet(plan):
  """All blocks of ResNet-18, with few channels."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.BLOCKS, 18, WHOLE_18)
    return tiny_run.make_encoder(plan)


def use_encoder(patch, encoder=tiny_run.make_encoder):
  """Methods get a thin ResNet of two blocks, or another encoder."""
  patch.setitem(resnet.BLOCKS, 18, tiny_run.BLOCKS)
  patch.setattr(skeletons, 'make_encoder', encoder)


def make(cfg, total=10):
  keras.utils.set_random_seed(0)
  return methods.make_method(plan_of(cfg, total, 2, examples=BATCH))


def trained_variables(method):
  return [v for layer in method.trained() for v in layer.trainable_variables]


def output_of(method, batch, step=3):
  at = tf.constant(step, tf.int64)
  index = {'index': batch['index']}
  return method.objective(method.encode(batch['views'], at) | index, at)


def wide_sums(graph):
  """The numbers of tensors, where more than two, that AddN adds in a graph.

  graph: a tf.Graph or a GraphDef, the functions in its library included.
  """
  graph = graph.as_graph_def() if isinstance(graph, tf.Graph) else graph
  nodes = [
    *graph.node,
    *(n for f in graph.library.function for n in f.node_def),
  ]
  counts = [n.attr['N'].i for n in nodes if n.op in ('AddN', 'AccumulateNV2')]
  return [count for count in counts if count > 2]


def optimised(function, *args):
  """Calls a tf.function -> the graphs that TensorFlow made of it."""
  tf.summary.trace_on(graph=True, profiler=False)
  function(*args)
  with tempfile.TemporaryDirectory() as folder:
    with tf.summary.create_file_writer(folder).as_default():
      tf.summary.trace_export('call', step=0)
    return [
      graph.post_optimization_graph
      for path in glob.glob(f'{folder}/*')
      for event in tf.compat.v1.train.summary_iterator(path)
      for value in event.summary.value
      for graph in config_pb2.RunMetadata.FromString(
        value.tensor.string_val[0]
      ).function_graphs
    ]


def loss_and_gradients(method, batch, variables, step=3):
  @tf.function(autograph=False)
  def run(batch):
    with tf.GradientTape() as tape:
      tape.watch(variables)
      output = output_of(method, batch, step)
    return output, tape.gradient(output.loss, variables)

  return run(batch)


class Traced:
  """A state and its step on a batch, traced once for all who ask.

  encoder: in place of that which methods have at the moment.
  """

  def __init__(self, cfg, strategy=None, encoder=None):
    self.cfg, self.encoder = cfg, encoder or skeletons.make_encoder
    self.strategy = strategy or tf.distribute.get_strategy()
    with self.strategy.scope(), pytest.MonkeyPatch.context() as patch:
      use_encoder(patch, self.encoder)
      self.state = make_state(plan_of(cfg, 100, examples=BATCH))
      step = make_train_step(self.state, schedules.warmup_cosine(0.1, 0, 100))

    def plain(parts):
      metrics = self.strategy.run(step, args=(parts,))
      return {
        k: self.strategy.reduce(tf.distribute.ReduceOp.MEAN, v, axis=None)
        for k, v in metrics.items()
      }

    self._plain = tf.function(plain, autograph=False)
    # The traced step as a whole, which XLA compiles.
    self._compiled = tf.function(
      lambda parts: self._plain(parts), autograph=False, jit_compile=True
    )
    self._first = [v.numpy() for v in self.variables()]

  def variables(self):
    """All of the state."""
    optimizer = self.state.optimizer.variables()
    modules = [m for m in self.state[:2] if m]
    return [*(v for m in modules for v in m.variables), *optimizer]

  def reset(self):
    """The state is as it was built."""
    for variable, value in zip(self.variables(), self._first, strict=True):
      variable.assign(value)

  def _parts(self, batch):
    replicas = self.strategy.num_replicas_in_sync

    def part(context):
      r = context.replica_id_in_sync_group
      rows = BATCH // replicas
      cut = slice(r * rows, (r + 1) * rows)
      return tf.nest.map_structure(lambda x: x[cut], batch)

    return self.strategy.experimental_distribute_values_from_function(part)

  def used(self, batch):
    """The variables that a step reads or writes."""
    return self._plain.get_concrete_function(self._parts(batch)).variables

  def graph(self, batch):
    """The traced step."""
    return self._plain.get_concrete_function(self._parts(batch)).graph

  def optimised(self, batch):
    """What TensorFlow makes of it, after a step."""
    return optimised(self._plain, self._parts(batch))

  def step(self, batch, compiled=False):
    """-> metrics of a step from where the state is."""
    run = self._compiled if compiled else self._plain
    return {k: float(v) for k, v in run(self._parts(batch)).items()}

  def after(self, batch, steps=1, compiled=False):
    """-> (metrics of the last of so many first steps, the method's weights)."""
    self.reset()
    for _ in range(steps):
      metrics = self.step(batch, compiled)
    return metrics, [v.numpy() for v in self.state.method.variables]


def step_weights(cfg, batch, steps=1, strategy=None, compiled=False):
  """The trained weights, teacher and moving statistics after some steps."""
  return Traced(cfg, strategy).after(batch, steps, compiled)


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
