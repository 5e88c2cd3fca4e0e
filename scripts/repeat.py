"""Does a run repeat? Three processes of one method, of which one is killed.

python scripts/repeat.py [METHODS]     (without names: all of them)

Trains the quickstart's network for 100 steps of 8 images, three times: twice
in one go, and once killed by SIGKILL soon after steps 30 and 60 and then
continued. Then it compares every tensor of every checkpoint, bit by bit. A row
per method goes to the screen and to runs/repeat/table.md. Status 1: something
differs.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import families  # Puts the project on the path.
from cvr.configs.settings import show
from cvr.startup import quiet_start, stops_in_a_line

if __name__ == '__main__':
  stops_in_a_line()
quiet_start()

import numpy as np
import tensorflow as tf

from cvr.checkpoints import files

ROOT = os.path.join('runs', 'repeat')
STEPS, EVERY, BATCH = 100, 10, 8
KILLED_AFTER = (30, 60)


def command(name, model_dir):
  """What trains a method in small."""
  settings = families.BASE | families.RUNS[name]
  settings |= {
    'mode': 'train',
    'model_dir': model_dir,
    'train_batch_size': BATCH,
    'train_steps': STEPS,
    'checkpoint_steps': EVERY,
    'keep_checkpoint_max': STEPS // EVERY + 1,
    # What only looks takes longer than so few steps.
    'health_pairs': 0,
    'report': False,
  }
  flags = [f'--{key}={show(value)}' for key, value in settings.items()]
  return [sys.executable, 'run.py', *flags]


def started(name, model_dir):
  os.makedirs(model_dir, exist_ok=True)
  with open(os.path.join(model_dir, 'output.txt'), 'a') as log:
    return subprocess.Popen(command(name, model_dir), stdout=log, stderr=log)


def ended_well(process, model_dir):
  if process.wait():
    sys.exit(f'A run did not end well: see {model_dir}/output.txt')


def killed(name, model_dir):
  """Runs to the end, but killed on the way -> the steps of its checkpoints."""
  steps = []
  for after in KILLED_AFTER:
    process = started(name, model_dir)
    while (
      process.poll() is None and max(files.steps(model_dir), default=0) < after
    ):
      time.sleep(0.05)
    if process.poll() is not None:
      sys.exit(f'A run ended before it was killed: see {model_dir}/output.txt')
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps.append(max(files.steps(model_dir)))
  ended_well(started(name, model_dir), model_dir)
  return steps


def tensors(prefix):
  reader = tf.train.load_checkpoint(prefix)
  names = reader.get_variable_to_shape_map()
  values = {name: reader.get_tensor(name) for name in names}
  return {k: v for k, v in values.items() if isinstance(v, np.ndarray)}


def differences(first, second):
  """-> (tensors compared, those that differ) over all checkpoints."""
  steps = files.steps(first)
  if steps != files.steps(second) or steps != [*range(0, STEPS + 1, EVERY)]:
    sys.exit(f'{first} and {second} do not have the same checkpoints.')
  count, differ = 0, []
  for step in steps:
    a, b = (
      tensors(os.path.join(run, f'ckpt-{step}')) for run in (first, second)
    )
    if a.keys() != b.keys():
      sys.exit(f'{first} and {second} do not have the same tensors.')
    count += len(a)
    # Of bits, so that NaN equals NaN and 0 does not equal -0.
    differ += [f'{step}: {k}' for k in a if a[k].tobytes() != b[k].tobytes()]
  return count, differ


def row(name):
  """Runs a method three times -> (its row of the table, whether it repeats)."""
  folder = os.path.join(ROOT, name)
  shutil.rmtree(folder, ignore_errors=True)
  whole, again, stopped = (
    os.path.join(folder, run) for run in ('whole', 'again', 'killed')
  )
  # Beside each other: what one does delays the other, differently each time.
  beside = started(name, again)
  ended_well(started(name, whole), whole)
  ended_well(beside, again)
  steps = killed(name, stopped)
  found = [differences(whole, other) for other in (again, stopped)]
  count = sum(n for n, _ in found)
  differ = [x for _, names in found for x in names]
  at = ' and '.join(map(str, steps))
  line = f'| `{name}` | {at} | {count:,} | {len(differ)} |'
  for first in differ[:1]:
    line += f' first: {first}'
  return line, not differ


def main():
  names = sys.argv[1:] or list(families.METHODS)
  unknown = [name for name in names if name not in families.METHODS]
  if unknown:
    sys.exit(f'No such method: {", ".join(unknown)}')
  os.makedirs(ROOT, exist_ok=True)
  lines = ['| method | killed after step | tensors compared | differ |',
           '| --- | --- | ---: | ---: |']  # fmt: skip
  print('\n'.join(lines), flush=True)
  well = True
  for name in names:
    line, same = row(name)
    well &= same
    lines.append(line)
    print(line, flush=True)
  with open(os.path.join(ROOT, 'table.md'), 'w') as file:
    file.write('\n'.join(lines) + '\n')
  sys.exit(not well)


if __name__ == '__main__':
  main()
