"""Writes whole train steps as XLA programs, to be run without TensorFlow.

  python -m benchmarks.xla_export --out=DIR --methods=contrastive,byol_ceb

For each method DIR/<name>.hlo, the program; .npz, the variables it starts from;
.json, what stands where, and what TensorFlow computes in the first steps.
benchmarks/xla_run.py reads them.
"""

import argparse
import dataclasses
import json
import pathlib
import re

from cvr.startup import quiet_start

quiet_start()

import numpy as np
import tensorflow as tf

import data_util
from benchmarks import flops, rules
from cvr.configs import (
  config,
  presets,
)
from cvr.configs.plan import make_plan
from cvr.training import (
  optimizers,
  start,
)
from cvr.training.step import make_state, make_train_step

CLASSES = 1000
REFERENCE_STEPS = 3
# The published recipe of each method.
PRESETS = {
  'contrastive': 'simclr',
  'contrastive_ceb': 'csimclr',
  'byol': 'byol',
  'byol_ceb': 'cbyol',
}


def make_step(cfg):
  """-> (state, train_step), without warm-up: the first step moves already."""
  start.set_numerics(cfg)
  plan = make_plan(cfg, examples=None, classes=CLASSES, replicas=1)
  plan = dataclasses.replace(plan, total=100)
  state = make_state(plan)
  return state, make_train_step(state, optimizers.learning_rate(plan))


def captured(concrete):
  """The variables of a traced step, in the order in which it captured them."""
  variables = {id(v.handle): v for v in concrete.graph.variables}
  return [variables[id(handle)] for handle in concrete.captured_inputs]


def interface(hlo):
  """HLO's text -> ([(dtype, shape)] of the parameters, {output: parameter})."""
  header = hlo.partition('\n')[0]
  layout = re.search(r'entry_computation_layout=\{\((.*)\)->', header)[1]
  parameters = [
    (dtype, [int(n) for n in shape.split(',') if n])
    for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', layout)
  ]
  alias = re.findall(r'\{(\d+)\}: \((\d+), \{\}', header)
  return parameters, {int(output): int(i) for output, i in alias}


def check(parameters, arrays, updates, metrics):
  """Refuses a program whose order is not the one that we rely on."""
  short = {'float32': 'f32', 'bfloat16': 'bf16', 'uint8': 'u8'}
  short |= {'int32': 's32', 'int64': 's64'}
  ours = [(short[str(a.dtype)], list(a.shape)) for a in arrays]
  if parameters != ours:
    raise ValueError(f'XLA takes {parameters}, and we would give {ours}.')
  if sorted(updates) != [metrics + i for i in range(len(updates))]:
    raise ValueError(f'After {metrics} metrics XLA returns {updates}.')


def reference(step, batch, variables):
  """Metrics of the first steps by TensorFlow's own kernels, and norms after.

  The norms catch what metrics do not see: batch norm's moving averages.
  """
  step = tf.function(step, autograph=False)
  steps = [step(batch) for _ in range(REFERENCE_STEPS)]
  return {
    'metrics': [{k: float(v) for k, v in m.items()} for m in steps],
    'norms': [float(np.linalg.norm(v.numpy())) for v in variables],
  }


def _bare(array):
  """What an .npz can hold: bfloat16 as its bits."""
  return array.view(np.uint16) if str(array.dtype) == 'bfloat16' else array


def _write(path, program, values, facts):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.with_suffix('.hlo').write_bytes(program)
  np.savez(path.with_suffix('.npz'), *map(_bare, values))
  path.with_suffix('.json').write_text(json.dumps(facts, indent=1))


def export(cfg, folder, with_reference=True):
  """Writes the three files of a configuration -> their common path."""
  state, step = make_step(cfg)
  made = {
    'size': cfg.train_batch_size,
    'image_size': cfg.image_size,
    'classes': CLASSES,
    'draws': len(data_util.DRAWS),
  }
  batch = tf.nest.map_structure(tf.constant, rules.batch(**made))
  compiled = tf.function(step, jit_compile=True, autograph=False)
  concrete = compiled.get_concrete_function(batch)
  variables = captured(concrete)
  values = [v.numpy() for v in variables]
  arrays = rules.flat_batch(**made) + values
  names = sorted(concrete.structured_outputs)
  ir = compiled.experimental_get_compiler_ir(batch)
  parameters, updates = interface(ir(stage='hlo'))
  check(parameters, arrays, updates, len(names))

  facts = {
    'method': cfg.pretrain_loss,
    'precision': cfg.precision,
    'config': config.to_dict(cfg),
    'tensorflow': tf.__version__,
    'batch': made,
    'parameters': [[str(a.dtype), list(a.shape)] for a in arrays],
    'variables': [v.name for v in variables],
    'metrics': names,
    'updates': sorted(updates.items()),
    'pairs': cfg.train_batch_size,
    'flops': cfg.train_batch_size
    * flops.train_step(state.method, cfg.image_size),
    'reference': reference(step, batch, variables) if with_reference else None,
  }
  path = pathlib.Path(folder) / f'{cfg.pretrain_loss}_{cfg.precision}'
  _write(path, ir(stage='hlo_serialized'), values, facts)
  return path


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--out', required=True)
  parser.add_argument('--methods', default=','.join(PRESETS))
  parser.add_argument('--resnet_depth', type=int, default=50)
  parser.add_argument('--image_size', type=int, default=224)
  parser.add_argument('--batch', type=int, default=256)
  parser.add_argument('--precision', default='fp32', choices=('fp32', 'bf16'))
  parser.add_argument(
    '--no_reference', action='store_true', help='skip the steps on the CPU'
  )
  args = parser.parse_args(argv)
  for method in args.methods.split(','):
    cfg = config.Config(
      **presets.PRESETS[PRESETS[method]][1]
      | {
        'resnet_depth': args.resnet_depth,
        'image_size': args.image_size,
        'train_batch_size': args.batch,
        'precision': args.precision,
      }
    )
    print(export(cfg, args.out, not args.no_reference), flush=True)


if __name__ == '__main__':
  main()
