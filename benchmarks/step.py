"""The whole train step against the bare forward and backward pass.

  python -m benchmarks.step [--large] [--methods=contrastive,byol]

Bare: the same networks, heads included, of tf_keras' own layers, the mean
square of the outputs as a loss, no optimizer. Shares are of the machine's
largest matmul, measured in between.
"""

import argparse
import dataclasses
import sys

from cvr.startup import quiet_start

quiet_start()

import numpy as np
import tensorflow as tf

import data_util
from benchmarks import bare, flops, timing
from cvr.configs import (
  config,
  derived,
  presets,
)
from cvr.configs.plan import make_plan
from cvr.training import (
  optimizers,
  start,
)
from cvr.training.step import make_state, make_train_step

PRESETS = {
  'contrastive': 'simclr',
  'contrastive_ceb': 'csimclr',
  'byol': 'byol',
  'byol_ceb': 'cbyol',
}
DTYPES = {'fp32': tf.float32, 'bf16': tf.bfloat16}


def make_config(method, depth, size, batch, precision):
  """The published recipe at another size."""
  return config.Config(
    **presets.PRESETS[PRESETS[method]][1]
    | {
      'resnet_depth': depth,
      'image_size': size,
      'train_batch_size': batch,
      'precision': precision,
    }
  )


def make_batch(cfg, augmented):
  """Random images: bytes and draws, or finished views."""
  rng, size = np.random.default_rng(0), cfg.image_size
  shape = [cfg.train_batch_size, size, size, 3]
  batch = {
    'label': tf.zeros([cfg.train_batch_size], tf.int32),
    'bad': tf.zeros([cfg.train_batch_size], tf.int32),
  }
  if not augmented:
    views = [tf.random.uniform(shape) for _ in range(2)]
    return batch | {'views': tuple(views)}
  views = [tf.constant(rng.integers(0, 256, shape), tf.uint8) for _ in range(2)]
  draws = rng.random([cfg.train_batch_size, 2, len(data_util.DRAWS)])
  draws = tf.constant(draws, tf.float32)
  return batch | {'views': tuple(views), 'draws': draws}


def whole_step(cfg):
  """-> (run(batch), the floating point operations of a step, graph(batch))."""
  plan = make_plan(cfg, examples=None, classes=1000, replicas=1)
  # Without warm-up: the first step moves already.
  plan = dataclasses.replace(plan, total=1000)
  state = make_state(plan)
  step = make_train_step(state, optimizers.learning_rate(plan))
  step = tf.function(step, autograph=False)
  cost = flops.train_step(state.method, cfg.image_size)
  return (
    lambda batch: step(batch)['total_loss'].numpy(),
    cost * cfg.train_batch_size,
    lambda batch: step.get_concrete_function(batch).graph,
  )


def bare_step(cfg):
  """-> run(batch) of forward and backward passes alone."""
  stem = derived.stem(cfg)
  net = bare.encoder(cfg.resnet_depth, cfg.image_size, stem)
  hidden, out = cfg.proj_head_hidden_dim, cfg.proj_out_dim
  heads = [bare.mlp(net.output_shape[-1], hidden, out)]
  teacher = []
  if derived.has_teacher(cfg):
    heads.append(bare.mlp(out, hidden, out))
    teacher = [
      bare.encoder(cfg.resnet_depth, cfg.image_size, stem),
      bare.mlp(net.output_shape[-1], hidden, out),
    ]
  if cfg.pretrain_loss == 'byol_ceb':
    heads.append(bare.mlp(out, hidden, out))
  variables = [v for m in (net, *heads) for v in m.trainable_variables]

  def through(models, x):
    for m in models:
      x = m(x, training=True)
    return tf.cast(x, tf.float32)

  @tf.function(autograph=False)
  def step(views):
    fixed = [through(teacher, v) for v in views] if teacher else []
    seen = views if teacher else [tf.concat(views, 0)]
    with tf.GradientTape() as tape:
      outputs = [through((net, *heads[:2]), v) for v in seen]
      outputs += [through(heads[2:], y) for y in fixed if heads[2:]]
      loss = tf.add_n([tf.reduce_mean(y * y) for y in outputs])
    # All of them leave the graph: what nobody reads would not be computed.
    return tape.gradient(loss, variables), fixed

  return lambda batch: step(batch['views'])[0][0].numpy()


def measure(cfg, rounds):
  """-> a row of the table."""
  print(f'{cfg.pretrain_loss} {cfg.precision} ...', file=sys.stderr, flush=True)
  start.set_numerics(cfg)
  step, cost, _ = whole_step(cfg)
  alone = bare_step(cfg)
  product, product_cost = timing.matmul(DTYPES[cfg.precision])
  finished, raw = make_batch(cfg, False), make_batch(cfg, True)
  seconds = timing.best(
    {
      'matmul': product,
      'bare': lambda: alone(finished),
      'step': lambda: step(finished),
      'augmented': lambda: step(raw),
    },
    rounds,
  )
  peak = product_cost / seconds['matmul']

  def share(name):
    return f'{100 * cost / seconds[name] / peak:.0f}%'

  return {
    'method': cfg.pretrain_loss,
    'model': f'R{cfg.resnet_depth} {cfg.image_size}px b{cfg.train_batch_size}',
    'precision': cfg.precision,
    'peak GFLOP/s': f'{peak / 1e9:.0f}',
    'bare': share('bare'),
    'step': share('step'),
    'step/bare': f'{seconds["step"] / seconds["bare"]:.3f}',
    'augmented/step': f'{seconds["augmented"] / seconds["step"]:.3f}',
    'pairs/s': f'{cfg.train_batch_size / seconds["augmented"]:.1f}',
  }


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--methods', default=','.join(PRESETS))
  parser.add_argument('--precisions', default='fp32,bf16')
  parser.add_argument('--large', action='store_true', help='R50 at 224 px')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  model = (50, 224, 16) if args.large else (18, 32, 64)
  rows = [
    measure(make_config(method, *model, precision), args.rounds)
    for precision in args.precisions.split(',')
    for method in args.methods.split(',')
  ]
  name = 'step_large' if args.large else 'step'
  timing.report(name, rows, args.out)


if __name__ == '__main__':
  main()
