"""Where the time of a train step goes, by kinds of operations.

  python -m benchmarks.breakdown [--large] [--methods=...] [--precision=bf16]

TensorFlow's profiler says how long each operation took. Products are compared
with the largest matrix product, what moves memory with the addition of two
large vectors; both are timed in between. Bytes are those of the inputs and
outputs of the step's graph as it is written: what the runtime fuses moves less.
"""

import argparse
import collections
import math
import pathlib
import tempfile

from cvr.startup import quiet_start

quiet_start()

import tensorflow as tf

from benchmarks import step, timing
from cvr.training import start

KINDS = {
  'convolutions': ('Conv2D', 'FusedConv2D'),
  'their gradients by input': ('Conv2DBackpropInput',),
  'their gradients by kernel': ('Conv2DBackpropFilter',),
  'other products': ('MatMul', 'FusedMatMul'),
  'batch norm': (
    'FusedBatchNormV3',
    'FusedBatchNormGradV3',
    'FusedBatchNormEx',
    'FusedBatchNormGradEx',
  ),
  'ReLU': ('Relu', 'ReluGrad'),
  'additions': ('Add', 'AddV2', 'AddN'),
  'casts': ('Cast',),
}
REST = 'all the rest'
_KIND_OF = {op: kind for kind, ops in KINDS.items() for op in ops}
_CALLS = 5


def kind_of(op_type):
  # Fused operations and those of oneDNN have prefixes.
  plain = op_type.lstrip('_').removeprefix('Mkl').removeprefix('Native')
  return _KIND_OF.get(plain, REST)


def flops_of(op):
  """Floating point operations of a product, 0 of anything else."""
  if op.type == 'MatMul':
    rows = 0 if op.get_attr('transpose_a') else 1
    inner = op.inputs[0].shape[rows]
    return 2 * inner * op.outputs[0].shape.num_elements()
  if op.type not in ('Conv2D', 'Conv2DBackpropInput', 'Conv2DBackpropFilter'):
    return 0
  kernel = op.outputs[0] if op.type.endswith('Filter') else op.inputs[1]
  out = op.outputs[0] if op.type == 'Conv2D' else op.inputs[2]
  return 2 * math.prod(kernel.shape[:3]) * out.shape.num_elements()


def _bytes_of(op):
  tensors = [*op.inputs, *op.outputs]
  return sum(
    x.dtype.size * (x.shape.num_elements() or 0)
    for x in tensors
    if x.dtype not in (tf.resource, tf.variant, tf.string)
  )


def written(graph):
  """-> {kind: (floating point operations, bytes)} of a graph."""
  found = collections.defaultdict(lambda: (0, 0))
  for op in graph.get_operations():
    kind = kind_of(op.type)
    work, moved = found[kind]
    found[kind] = (work + flops_of(op), moved + _bytes_of(op))
  return found


def profile(call):
  """-> {kind: seconds of a call}, by TensorFlow's profiler."""
  from tensorflow.tsl.profiler.protobuf import xplane_pb2

  options = tf.profiler.experimental.ProfilerOptions(
    host_tracer_level=3  # Cheap operations too.
  )
  with tempfile.TemporaryDirectory() as folder:
    with tf.profiler.experimental.Profile(folder, options):
      for _ in range(_CALLS):
        call()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
  seconds = collections.Counter()
  for plane in space.planes:
    names = {k: v.name for k, v in plane.event_metadata.items()}
    for line in plane.lines:
      for event in line.events:
        name, _, op_type = names[event.metadata_id].partition(':')
        # Operations are 'name:Type'; other events have '::', or spaces.
        if op_type.isidentifier() and ' ' not in name:
          seconds[kind_of(op_type)] += event.duration_ps * 1e-12 / _CALLS
  return seconds


def _addition(size=2**25):
  """-> (the sum of two large vectors to be timed, the bytes it moves)."""
  a = tf.random.uniform([size])
  add = tf.function(lambda a: tf.reduce_max((a + 1.0)[:1]), autograph=False)
  return lambda: add(a).numpy(), 2 * 4 * size


def measure(cfg, rounds):
  """-> the rows of a table, the slowest kind first."""
  start.set_numerics(cfg)
  call, _, graph = step.whole_step(cfg)
  batch = step.make_batch(cfg, augmented=False)
  product, product_cost = timing.matmul(step.DTYPES[cfg.precision])
  addition, moved = _addition()
  found = timing.best(
    {'matmul': product, 'add': addition, 'step': lambda: call(batch)}, rounds
  )
  peak, bandwidth = product_cost / found['matmul'], moved / found['add']
  seconds = profile(lambda: call(batch))
  total = sum(seconds.values())
  work = written(graph(batch))

  def row(kind, time):
    flops, traffic = work[kind]
    return {
      'kind': kind,
      'ms': f'{1e3 * time:.1f}',
      'share': f'{100 * time / total:.0f}%',
      'of matmul': f'{100 * flops / time / peak:.0f}%' if flops else '',
      'GB/s': f'{traffic / time / 1e9:.1f}',
      'of addition': f'{100 * traffic / time / bandwidth:.0f}%',
    }

  print(
    f'{cfg.pretrain_loss} R{cfg.resnet_depth} {cfg.image_size}px '
    f'b{cfg.train_batch_size} {cfg.precision}: step {1e3 * found["step"]:.0f} '
    f'ms, its operations {1e3 * total:.0f} ms one after the other; matmul '
    f'{peak / 1e9:.0f} GFLOP/s, addition {bandwidth / 1e9:.1f} GB/s'
  )
  return [row(kind, time) for kind, time in seconds.most_common()]


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--methods', default='contrastive')
  parser.add_argument('--precision', default='fp32', choices=step.DTYPES)
  parser.add_argument('--large', action='store_true', help='R50 at 224 px')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  # Two at once would share the cores, and each look half as fast.
  tf.config.threading.set_inter_op_parallelism_threads(1)
  model = (50, 224, 16) if args.large else (18, 32, 64)
  for method in args.methods.split(','):
    cfg = step.make_config(method, *model, args.precision)
    name = f'breakdown_{method}_{args.precision}' + '_large' * args.large
    timing.report(name, measure(cfg, args.rounds), args.out)


if __name__ == '__main__':
  main()
