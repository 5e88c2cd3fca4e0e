"""Every method in small on the built-in photographs, and what ER changes.

python scripts/families.py [NAMES OF RUNS]

A run is what RUNS says beside BASE. Whatever is done already, in part or whole,
is not done again: remove runs/families/NAME to repeat one. The tables go to the
screen and to runs/families/tables.md, what the methods keep is drawn in
information.png beside it.
"""

import json
import os
import sys
import time

import plot_information
import quickstart_table  # Puts the project on the path.
from cvr.configs.methods import KINDS
from cvr.configs.settings import show
from cvr.startup import call, stops_in_a_line

ROOT = os.path.join('runs', 'families')
STEPS, BATCH = 160, 256
# One network and one length for all; what a method needs is in its row of
# cvr/configs/methods.py.
BASE = {
  'dataset': 'photo_patches/32px',
  'eval_split': 'test',
  'image_size': 32,
  'stem': 'small',
  'resnet_depth': 18,
  'shortcut': 'torchvision',
  'train_batch_size': BATCH,
  'train_steps': STEPS,
  'warmup_epochs': 1.0,
  'learning_rate': 0.5,  # By scripts/choose_small.py.
  'proj_head_hidden_dim': 512,
  'proj_out_dim': 128,
  'checkpoint_steps': 80,
  'train_summary_steps': 20,
  'use_tpu': False,
}
METHODS = {name: kind.small for name, kind in KINDS.items()}
# The claim of ER: with the entropy in the loss, teachers may move faster and
# batches be smaller. Both of a pair get the same; as many images are seen.
PAIRS = [('byol', 'er_byol'), ('dino', 'er_dino')]
CHANGES = {
  'EMA 0.99': {'ema_alpha': 0.99},
  'EMA 0.8': {'ema_alpha': 0.8},
  'EMA 0.4': {'ema_alpha': 0.4},
  'EMA 0.99, batch 64': {
    'ema_alpha': 0.99,
    'train_batch_size': BATCH // 4,
    'train_steps': STEPS * 4,
  },
}
RUNS = {name: {'pretrain_loss': name} | row for name, row in METHODS.items()}


def changed(name, change):
  """The run of a method under a change, which may be its own."""
  same = RUNS[name] | CHANGES[change] == RUNS[name]
  return name if same else f'{name}, {change}'


RUNS |= {
  changed(name, change): RUNS[name] | values
  for pair in PAIRS
  for change, values in CHANGES.items()
  for name in pair
}


def folder(name):
  return os.path.join(ROOT, name.replace(', ', '_').replace(' ', ''))


def facts(name):
  """Where what was found of a run lies."""
  return os.path.join(folder(name), 'families.json')


def train(model_dir, settings):
  """Trains a run to its end in a process of its own, or stops this one."""
  settings = BASE | settings | {'mode': 'train', 'model_dir': model_dir}
  flags = [f'--{key}={show(value)}' for key, value in settings.items()]
  # Its exit status 0 means that the last checkpoint is there.
  if call(sys.executable, 'run.py', *flags):
    sys.exit(
      f'{model_dir} did not end well: see above. The same command resumes.'
    )


def information(model_dir):
  """What the last summary says of entropy, reconstruction and the bounds."""
  with open(os.path.join(model_dir, 'metrics.jsonl')) as file:
    last = json.loads(file.readlines()[-1])
  return {k: v for k, v in last.items() if k.startswith('information/')}


def result(name):
  """Trains and measures a run, unless that is done -> its facts."""
  path = facts(name)
  if os.path.exists(path):
    with open(path) as file:
      return json.load(file)
  print(f'\n{name}', flush=True)
  start = time.monotonic()
  train(folder(name), RUNS[name])
  ends = (0, -1) if name in METHODS else (-1,)
  _, _, accuracies = quickstart_table.measure(folder(name), ends)
  facts_of_run = {
    'untrained': accuracies[0] if name in METHODS else None,
    'trained': accuracies[-1],
    'seconds': time.monotonic() - start,
  } | information(folder(name))
  with open(f'{path}.part', 'w') as file:
    json.dump(facts_of_run, file, indent=2)
  os.replace(f'{path}.part', path)
  print(f'{name}: top-1 {100 * accuracies[-1]:.1f}%', flush=True)
  return facts_of_run


def _row(*cells):
  return '| ' + ' | '.join(cells) + ' |'


def _percent(share):
  return f'{100 * share:.1f}'


def methods_table(results):
  """All methods that are done: accuracy, and the information view."""
  terms = ('entropy', 'reconstruction', 'er_bound', 'infonce_bound')
  heads = ['untrained', 'trained', 'gain', 'H', 'rec', 'H - rec', 'InfoNCE']
  lines = [_row('method', *heads), _row('---', *['---:'] * len(heads))]
  for name in METHODS:
    if name in results:
      row = results[name]
      before, after = row['untrained'], row['trained']
      nats = [row.get(f'information/{term}') for term in terms]
      lines.append(
        _row(
          f'`{name}`',
          *map(_percent, (before, after, after - before)),
          *('' if x is None else f'{x:.2f}' for x in nats),
        )
      )
  return lines


def changes_table(results):
  """Methods without and with entropy in the loss, under each change."""
  lines = [_row('method', *CHANGES), _row('---', *['---:'] * len(CHANGES))]
  for pair in PAIRS:
    for name in pair:
      runs = [results.get(changed(name, change)) for change in CHANGES]
      cells = [_percent(found['trained']) if found else '' for found in runs]
      lines.append(_row(f'`{name}`', *cells))
  return lines


def main(names):
  unknown = [name for name in names if name not in RUNS]
  if unknown:
    sys.exit(f'No such run: {unknown[0]}. There are: {"; ".join(RUNS)}')
  for name in names or RUNS:
    result(name)
  results = {name: result(name) for name in RUNS if os.path.exists(facts(name))}
  lines = [*methods_table(results), '', *changes_table(results)]
  with open(os.path.join(ROOT, 'tables.md'), 'w') as file:
    file.write('\n'.join(lines) + '\n')
  print('\n' + '\n'.join(lines) + '\n')
  done = [folder(name) for name in METHODS if name in results]
  plot_information.main([*done, f'--output={ROOT}/information.png'])


if __name__ == '__main__':
  stops_in_a_line()
  main(sys.argv[1:])
