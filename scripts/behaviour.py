"""What a user sees of the program, recorded so that a change of it shows.

python scripts/behaviour.py --check     compare the texts with tests/golden
python scripts/behaviour.py --write     record them again, after a wanted change
python scripts/behaviour.py --against=COMMIT [--work=FOLDER]
    train every method for three steps with this tree and with another commit,
    and compare checkpoints, metrics, an evaluation card and the exports

Texts do not depend on the machine: the help, every preset's configuration, the
names of the tensors and metrics of every method. Floats do, so two commits are
compared on one machine. Everything goes through run.py, the one interface that
does not change when files move.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
STEPS = 3
_SMALL = """--image_size=16 --stem=small --resnet_depth=18 --train_batch_size=8
  --proj_head_hidden_dim=16 --proj_out_dim=8 --eval_batch_size=8
  --train_summary_steps=1 --health_pairs=8 --warmup_epochs=0 --use_tpu=false
  --deterministic --checkpoint_steps=1000 --num_prototypes=5
  --eval_split=validation --ceb_beta=0.5 --predictor_hidden_dim=4
  --latent_dim=6 --queue_size=16"""

# Texts -----------------------------------------------------------------------


def _run(tree, *arguments):
  """What run.py of a tree prints."""
  command = [sys.executable, str(tree / 'run.py'), *arguments]
  return subprocess.run(
    command, capture_output=True, text=True, check=True, cwd=tree
  ).stdout


def presets(help_text):
  return re.findall(r'^  --preset=(\w+)$', help_text, re.M)


def _table_and_notes(text):
  """The lines of --print_config: one for each setting, and the rest."""
  table, _, notes = text.partition('\n\nNotes\n')
  return table.splitlines(), notes.splitlines()


def configurations(print_config, names):
  """The settings of a call without flags, and of each preset what differs.

  print_config: arguments -> what --print_config prints.
  """
  plain, notes = _table_and_notes(print_config())
  lines = ['no preset', *plain, *notes]
  for name in names:
    own, notes = _table_and_notes(print_config(f'--preset={name}'))
    lines += ['', name]
    lines += [b for a, b in zip(plain, own, strict=True) if a != b]
    lines += notes
  return '\n'.join(lines) + '\n'


def tensor_lines(names):
  """Names of a checkpoint's tensors -> sorted lines, an encoder's as one."""
  short = {
    re.sub(r'\b((?:target_)?encoder)/.+?(?=/\.)', r'\1/*', name)
    for name in names
    # Not of the model: what TensorFlow adds to every checkpoint.
    if name != '_CHECKPOINTABLE_OBJECT_GRAPH'
  }
  return [name.replace('/.ATTRIBUTES/VARIABLE_VALUE', '') for name in short]


def record(tensors, metrics):
  """{method: names of tensors}, {method: names of metrics} -> a text.

  Metrics that all methods have come once.
  """
  shared = set.intersection(*map(set, metrics.values()))
  lines = ['every method', *(f'  {name}' for name in sorted(shared))]
  for method, names in tensors.items():
    lines += ['', f'{method}: metrics']
    lines += [f'  {name}' for name in sorted({*metrics[method]} - shared)]
    lines += [f'{method}: tensors']
    lines += [f'  {name}' for name in sorted(tensor_lines(names))]
  return '\n'.join(lines) + '\n'


def texts(tree, runs):
  """{name of a golden file: its content}, of the runs of train_all."""
  help_text = _run(tree, '--help')
  tensors, metrics = {}, {}
  for method in methods(help_text):
    tensors[method] = _tensors(f'{runs}/{method}/ckpt-{STEPS}')
    metrics[method] = _metrics(f'{runs}/{method}')[-1]
  return {
    'help.txt': help_text,
    'configurations.txt': configurations(
      lambda *more: _run(tree, *more, '--print_config'), presets(help_text)
    ),
    'names.txt': record(tensors, metrics),
  }


def methods(help_text):
  """The values of --pretrain_loss."""
  found = re.search(r'--pretrain_loss=\w+\s+\(one of(.*?)\)', help_text, re.S)
  return [name.strip() for name in found[1].split(',')]


# Runs ------------------------------------------------------------------------


def make_images(folder):
  """A data set of three classes, 24 images to train on and 12 to evaluate."""
  import numpy as np
  import tensorflow as tf

  rng = np.random.default_rng(0)
  for split, count in (('train', 8), ('validation', 4)):
    for label, name in enumerate(('bird', 'cat', 'dog')):
      place = pathlib.Path(folder, split, name)
      place.mkdir(parents=True)
      for i in range(count):
        image = rng.integers(0, 256, [20, 20, 3])
        image[..., label] //= 2
        png = tf.io.encode_png(image.astype(np.uint8)).numpy()
        (place / f'{i}.png').write_bytes(png)


_CALLS = """
import json, os, sys
tree, calls = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, tree)
os.chdir(tree)
import run
for name, argv in calls:
  print('---', name, flush=True)
  status = run.main(['run.py', *argv])
  if status:
    print(f'{name}: status {status}', flush=True)
"""


def _start(tree, calls, log):
  """Calls run.main of a tree, one after the other, in one process."""
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  return subprocess.Popen(
    [sys.executable, '-c', _CALLS, str(tree), json.dumps(calls)],
    stdout=log, stderr=subprocess.STDOUT, env=environment,
  )  # fmt: skip


def training(name, images, model_dir, steps=STEPS):
  sys.path.insert(0, str(ROOT))
  from cvr.configs.methods import KINDS

  pairs = KINDS[name].small.get('view_pairs', '')
  return [
    *_SMALL.split(), f'--view_pairs={pairs}', f'--pretrain_loss={name}',
    f'--dataset=folder:{images}', f'--model_dir={model_dir}',
    f'--train_steps={steps}', '--mode=train',
  ]  # fmt: skip


def reading(model_dir, runs):
  """The calls that make a card and every export of a run."""
  model = [f'--model_dir={model_dir}', '--use_tpu=false']
  suites = ['--linear_passes=1', '--suite=linear,knn,compression']
  formats = ('saved_model', 'safetensors', 'onnx', 'keras', 'released')
  return [
    ('card', [*model, '--mode=evaluate', *suites]),
    *(
      (
        kind,
        [
          *model,
          '--mode=export',
          f'--format={kind}',
          f'--output={runs}/exports/{kind}',
        ],
      )
      for kind in formats
    ),
  ]


def train_all(tree, names, images, runs, read=False):
  """Runs of all methods in runs/NAME; if read, a card and exports of the first.

  In two processes, each of which imports TensorFlow once.
  """
  halves = [
    [(name, training(name, images, f'{runs}/{name}')) for name in half]
    for half in (names[::2], names[1::2])
  ]
  if read:
    halves[0] += reading(f'{runs}/{names[0]}', runs)
  with open(f'{runs}.log', 'w') as log:
    processes = [_start(tree, half, log) for half in halves]
    if any([process.wait() for process in processes]):
      sys.exit(f'a run failed: see {runs}.log')


# Comparisons -----------------------------------------------------------------


def _tensors(prefix):
  import tensorflow as tf

  reader = tf.train.load_checkpoint(prefix)
  return sorted(reader.get_variable_to_shape_map())


def _values(prefix):
  import numpy as np
  import tensorflow as tf

  reader = tf.train.load_checkpoint(prefix)
  values = {n: np.asarray(reader.get_tensor(n)) for n in _tensors(prefix)}
  # Not text: the record of the run, and the graph of objects.
  return {n: value for n, value in values.items() if value.dtype.kind in 'iufb'}


def _metrics(folder):
  """The rows of metrics.jsonl, without what a clock says."""
  lines = pathlib.Path(folder, 'metrics.jsonl').read_text().splitlines()
  clocks = ('images_per_second', 'input_wait', 'gpu_memory', 'save_share')
  clocks = {f'train/{name}' for name in clocks}
  rows = [{_tag(k): v for k, v in json.loads(line).items()} for line in lines]
  return [{k: v for k, v in row.items() if k not in clocks} for row in rows]


def _tag(name):
  """The tag of a metric, which trees before 2026-12 wrote without `train/`."""
  name = {'ceb_beta': 'ceb_beta_log'}.get(name, name)
  whole = '/' in name or name in ('step', 'learning_rate')
  return name if whole else f'train/{name}'


def _largest_difference(ours, theirs):
  """The largest difference of two trees of numbers, of the larger's size."""
  import numpy as np

  if isinstance(ours, dict):
    if not isinstance(theirs, dict) or ours.keys() != theirs.keys():
      return float('inf')
    pairs = [(ours[key], theirs[key]) for key in ours]
  elif isinstance(ours, list):
    if not isinstance(theirs, list) or len(ours) != len(theirs):
      return float('inf')
    pairs = list(zip(ours, theirs, strict=True))
  elif isinstance(ours, str | bool | None):
    return 0.0 if ours == theirs else float('inf')
  else:
    a, b = np.asarray(ours), np.asarray(theirs)
    if a.shape != b.shape:
      return float('inf')
    if np.array_equal(a, b, equal_nan=a.dtype.kind == 'f'):
      return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-12))
  return max((_largest_difference(a, b) for a, b in pairs), default=0.0)


def _card(runs, name):
  """What a card says of a model, without where and when."""
  card = json.loads(pathlib.Path(runs, name, 'eval/card.json').read_text())
  return [
    {k: row[k] for k in ('suite', 'name', 'metric', 'value', 'low', 'high')}
    for row in card['numbers']
  ]


def _parity(runs):
  found = pathlib.Path(runs, 'exports').glob('*/*_parity.json')
  return {
    path.name: json.loads(path.read_text())['endpoints'] for path in found
  }


def compare(ours, theirs, names):
  """Prints a line per method -> whether all is the same."""
  same = True

  def tell(what, difference):
    nonlocal same
    same &= difference == 0
    verdict = f'differ by {difference:.1e}   <-- NOT THE SAME'
    verdict = 'identical' if difference == 0 else verdict
    print(f'{what:32} {verdict}', flush=True)

  for name in names:
    step = f'{name}/ckpt-{STEPS}'
    a, b = _values(f'{ours}/{step}'), _values(f'{theirs}/{step}')
    tell(f'{name}: {len(a)} tensors', _largest_difference(a, b))
    a, b = (_metrics(f'{runs}/{name}') for runs in (ours, theirs))
    tell(f'{name}: {len(a[-1])} metrics', _largest_difference(a, b))
  a, b = (_card(runs, names[0]) for runs in (ours, theirs))
  tell(f'a card of {len(a)} numbers', _largest_difference(a, b))
  a, b = (_parity(runs) for runs in (ours, theirs))
  tell(f'{len(a)} exports', _largest_difference(a, b))
  return same


def read_old(work, images, name):
  """This tree resumes, inspects and compares what the other one has written."""
  model = f'{work}/resumed'
  shutil.copytree(f'{work}/theirs/{name}', model, dirs_exist_ok=True)
  cards = [f'{work}/{who}/{name}/eval/card.json' for who in ('theirs', 'ours')]
  calls = [
    ('resume', [*training(name, images, model, STEPS + 1),
                '--allow_config_change']),
    ('inspect', ['--mode=inspect', f'--model_dir={model}']),
    ('eval', ['--mode=eval', f'--model_dir={model}', '--use_tpu=false']),
    ('compare', ['--mode=compare', f'--cards={",".join(cards)}']),
  ]  # fmt: skip
  path = f'{work}/read_old.log'
  with open(path, 'w') as log:
    _start(ROOT, calls, log).wait()
  text = pathlib.Path(path).read_text()
  good = f'Resuming from step {STEPS}' in text and ': status ' not in text
  print(f'resume, inspect, eval, compare of the old files: '
        f'{"done" if good else f"FAILED, see {path}"}')  # fmt: skip
  return good


@contextlib.contextmanager
def checked_out(commit, folder):
  git = ['git', '-C', str(ROOT), 'worktree']
  subprocess.run([*git, 'add', '--detach', '-f', folder, commit],
                 check=True, capture_output=True)  # fmt: skip
  try:
    yield pathlib.Path(folder)
  finally:
    subprocess.run([*git, 'remove', '--force', folder], check=True)


def against(commit, work):
  """Trains with both trees -> whether they do the same."""
  images = f'{work}/images'
  make_images(images)
  with checked_out(commit, f'{work}/tree') as tree:
    ours, theirs = (methods(_run(t, '--help')) for t in (ROOT, tree))
    names = [name for name in ours if name in theirs]
    for who, place in (('theirs', tree), ('ours', ROOT)):
      os.makedirs(f'{work}/{who}', exist_ok=True)
      print(f'{who}: training {len(names)} methods for {STEPS} steps',
            flush=True)  # fmt: skip
      train_all(place, names, images, f'{work}/{who}', read=True)
  same = compare(f'{work}/ours', f'{work}/theirs', names)
  counts = collections.Counter(ours + theirs)
  print('only in one of them:', [n for n in counts if counts[n] == 1] or 'none')
  return read_old(work, images, names[0]) and same


def golden():
  """{name of a golden file: its content as this tree has it}."""
  with tempfile.TemporaryDirectory() as work:
    make_images(f'{work}/images')
    os.mkdir(f'{work}/ours')
    names = methods(_run(ROOT, '--help'))
    train_all(ROOT, names, f'{work}/images', f'{work}/ours')
    return texts(ROOT, f'{work}/ours')


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--check', action='store_true')
  what.add_argument('--write', action='store_true')
  what.add_argument('--against', metavar='COMMIT')
  parser.add_argument('--work', help='keep everything in this new folder')
  arguments = parser.parse_args()
  if arguments.against:
    with tempfile.TemporaryDirectory() as temporary:
      work = os.path.abspath(arguments.work or temporary)
      os.makedirs(work, exist_ok=True)
      return 0 if against(arguments.against, work) else 1
  changed = 0
  for name, content in golden().items():
    path = GOLDEN / name
    old = path.read_text() if path.exists() else ''
    if old != content:
      changed += 1
      print(f'{path.relative_to(ROOT)} differs from what this tree does')
    if arguments.write:
      path.write_text(content)
  return 0 if arguments.write else int(changed > 0)


if __name__ == '__main__':
  try:
    sys.exit(main())
  except KeyboardInterrupt:
    sys.exit('\nbehaviour.py: stopped.')
