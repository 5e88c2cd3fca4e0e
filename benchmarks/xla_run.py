"""Runs and times what benchmarks/xla_export.py wrote; needs numpy and JAX only.

python benchmarks/xla_run.py DIR [--steps=20] [--check]
"""

import argparse
import datetime
import json
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1]))

from benchmarks import rules

# The step counter is an int64.
jax.config.update('jax_enable_x64', True)

DTYPES = {'fp32': jnp.float32, 'bf16': jnp.bfloat16}
WARM_UP = 3
# A metric near 0 is compared with this instead.
SMALLEST = 0.01
# How far a number may be off, with all of float32 and with less.
TOLERANCE, COARSE_TOLERANCE = 1e-3, 0.1


def is_exact(precision, platform):
  """Whether numbers have all of float32; GPUs multiply it as TF32."""
  return precision == 'fp32' and platform == 'cpu'


def load(path, device):
  """An .hlo file -> its program, compiled for the device."""
  try:
    from jax._src.lib import xla_client

    module = xla_client._xla.mlir.xla_computation_to_mlir_module(
      xla_client.XlaComputation(path.read_bytes())
    )
    build = device.client.compile_and_load
    devices = xla_client.DeviceList((device,))
    options = xla_client.CompileOptions()
  except (ImportError, AttributeError) as error:
    raise SystemExit(
      f'JAX {jax.__version__} loads XLA programs in another way ({error}); '
      'JAX 0.10 is known to work.'
    ) from error
  return build(module, devices, options)


class Step:
  """An exported train step and its variables on a device."""

  def __init__(self, path, device):
    self.facts = json.loads(path.read_text())
    self.program = load(path.with_suffix('.hlo'), device)
    with np.load(path.with_suffix('.npz')) as stored:
      values = [stored[f'arr_{i}'] for i in range(len(stored.files))]
    arrays = rules.flat_batch(**self.facts['batch']) + values
    self.first = len(arrays) - len(values)
    self.arguments = [
      # bfloat16 is stored as its bits.
      jax.device_put(array.view(jnp.dtype(dtype)), device)
      for array, (dtype, _) in zip(
        arrays, self.facts['parameters'], strict=True
      )
    ]

  def __call__(self):
    """Takes a step and waits for it -> the metrics, still on the device."""
    results = self.program.execute_sharded(self.arguments)
    results = [r[0] for r in results.disassemble_into_single_device_arrays()]
    # The old variables are gone: the program writes the new ones over them.
    for output, parameter in self.facts['updates']:
      self.arguments[parameter] = results[output]
    jax.block_until_ready(results)
    return dict(zip(self.facts['metrics'], results, strict=False))

  def norms(self):
    """The norm of every variable, as the exporter takes them."""
    return [float(np.linalg.norm(v)) for v in self.arguments[self.first :]]


def deviations(step, exact):
  """Takes the steps of the reference -> {name: relative deviation from it}.

  Coarse arithmetic is compared in the losses of the first step alone: behind
  the batch norm of a small batch, gradients are mostly its rounding.
  """
  wanted = step.facts['reference']
  # An accuracy jumps by whole images.
  coarse = ('_acc',) if exact else ('_acc', 'grad_norm')
  pairs = []
  for i, metrics in enumerate(wanted['metrics'][: None if exact else 1], 1):
    found = step()
    pairs += [
      (f'{name}, step {i}', float(found[name]), value)
      for name, value in metrics.items()
      if not name.endswith(coarse)
    ]
  if exact:
    names = step.facts['variables']
    pairs += zip(names, step.norms(), wanted['norms'], strict=True)
  return {
    name: abs(found - value) / max(abs(value), SMALLEST)
    for name, found, value in pairs
  }


def checked(step, platform):
  """Compares with the reference, says how it went -> whether it agrees."""
  if not step.facts['reference']:
    print('  not checked: exported with --no_reference')
    return None
  exact = is_exact(step.facts['precision'], platform)
  found = deviations(step, exact)
  worst = max(found, key=lambda name: (np.isnan(found[name]), found[name]))
  allowed = TOLERANCE if exact else COARSE_TOLERANCE
  agrees = bool(found[worst] <= allowed)
  verdict = 'agrees with' if agrees else 'DIFFERS FROM'
  print(
    f'  {verdict} TensorFlow: at most {found[worst]:.1e} off ({worst}), '
    f'{allowed:.0e} allowed'
  )
  return agrees


def median_seconds(call, times):
  """The median time of a call that waits for its result."""
  seconds = []
  for _ in range(WARM_UP + times):
    began = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - began)
  return statistics.median(seconds[WARM_UP:])


def matmul_peak(precision, platform):
  """FLOP/s of a big matrix product, in XLA's own way for the precision."""
  n = 1024 if platform == 'cpu' else 8192
  a = jnp.asarray(rules.uniform([n, n], 0), DTYPES[precision])
  product = jax.jit(jnp.matmul)
  return (
    2 * n**3 / median_seconds(lambda: product(a, a).block_until_ready(), 10)
  )


def measure(path, device, options):
  """One export -> its row of results."""
  began = time.perf_counter()
  step = Step(path, device)
  compiling = time.perf_counter() - began
  setting = {
    name: step.facts['config'][name]
    for name in ('resnet_depth', 'image_size', 'train_batch_size')
  }
  print(f'{path.stem} {setting}: compiled in {compiling:.0f} s')
  agrees = checked(step, device.platform) if options.check else None
  seconds = median_seconds(step, options.steps)
  facts = step.facts
  peak = matmul_peak(facts['precision'], device.platform)
  return {
    'method': facts['method'],
    'precision': facts['precision'],
    **setting,
    'agrees': agrees,
    'pairs_per_second': facts['pairs'] / seconds,
    'ms_per_step': 1e3 * seconds,
    'gflops': facts['flops'] / seconds / 1e9,
    'matmul_gflops': peak / 1e9,
    'share_of_matmul': facts['flops'] / seconds / peak,
  }


def attempt(path, device, options):
  """measure(), or a row that says why not: the next may fit into memory."""
  try:
    return measure(path, device, options)
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).partition('\n')[0][:200]
    print(f'{path.stem}: {reason}')
    return {'name': path.stem, 'error': reason}


def show(rows):
  """Prints what was measured as a table."""
  columns = {
    'method': '{:16}',
    'precision': '{:9}',
    'pairs_per_second': '{:12.1f}',
    'ms_per_step': '{:11.1f}',
    'gflops': '{:10.0f}',
    'share_of_matmul': '{:11.0%}',
  }
  print(
    'method           precision      pairs/s     ms/step    GFLOP/s  of matmul'
  )
  for row in rows:
    if 'error' not in row:
      print(''.join(f.format(row[name]) for name, f in columns.items()))


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--steps', type=int, default=20)
  parser.add_argument(
    '--check', action='store_true', help="compare with TensorFlow's numbers"
  )
  options = parser.parse_args()
  paths = sorted(options.folder.glob('*.hlo'))
  if not paths:
    parser.error(f'there is no export in {options.folder}')
  device = jax.devices()[0]
  print(f'{device.device_kind} ({device.platform}), JAX {jax.__version__}')
  rows = [attempt(p.with_suffix('.json'), device, options) for p in paths]
  show(rows)
  results = {
    'device': device.device_kind,
    'platform': device.platform,
    'jax': jax.__version__,
    'date': datetime.date.today().isoformat(),
    'rows': rows,
  }
  text = json.dumps(results, indent=1)
  (options.folder / 'results.json').write_text(text + '\n')
  failed = any('error' in row or row['agrees'] is False for row in rows)
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
