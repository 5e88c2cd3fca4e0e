"""What a run survives: the tests of all faults, then kills at random moments.

python scripts/chaos.py [--minutes=30] [--seed=0]

First it runs the tests that docs/reliability.md names for each fault, those of
10,000 hostile files and calls, and those of sums in the steps of all methods.
Then, for so many minutes, it kills small runs of all methods in turn with
SIGKILL, every third time during a save, resumes them, and compares each bit by
bit with a twin that nobody killed. What is done is kept in runs/chaos and not
repeated: remove the folder to begin anew. Status 1: something was lost.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree

import repeat  # Puts the project on the path.
from cvr.checkpoints import files
from cvr.configs.methods import KINDS
from cvr.configs.settings import show
from cvr.startup import stops_in_a_line

PROJECT = pathlib.Path(__file__).resolve().parents[1]
ROOT = os.path.join('runs', 'chaos')
# Runs of seconds: what matters is how they end.
STEPS, EVERY = 24, 4
_SMALL = {
  'mode': 'train',
  'dataset': 'photo_patches/32px',
  'image_size': 16,
  'local_size': 8,
  'stem': 'small',
  'resnet_depth': 18,
  'width_multiplier': 1,
  'train_batch_size': 16,
  'train_steps': STEPS,
  'checkpoint_steps': EVERY,
  'keep_checkpoint_max': 2,
  'train_summary_steps': 8,
  'proj_head_hidden_dim': 32,
  'proj_out_dim': 16,
  'warmup_epochs': 0.0,
  'health_pairs': 0,
  'use_tpu': False,
}
_KILLS = 8  # of one run
_FUZZED = ('tests/test_hostile.py', 'tests/configs/test_hostile_flags.py')
# Files of each of nine kinds, calls of each of three: 10,050 together.
_CASES = {'HOSTILE_SEEDS': 750, 'HOSTILE_FLAGS': 1100}
_SECONDS = 3.0, 14.0  # from the start of a process to its end


def faults():
  """{fault: (what it is, its tests)}, of the table in docs/reliability.md."""
  text = (PROJECT / 'docs' / 'reliability.md').read_text()
  found = {}
  for line in text.splitlines():
    row = re.match(r'\| (F\d+) \| (.*?) \| .* \| (.*) \|$', line)
    if row:
      found[row[1]] = row[2], re.findall(r'`(tests/\S+?)`', row[3])
  return found


def kept(make):
  """make(), or what it gave in an earlier call: numbers, in a file."""
  path = os.path.join(ROOT, f'{make.__name__}.json')
  if not os.path.exists(path):
    found = make()
    with open(path, 'w') as file:
      json.dump(found, file)
  with open(path) as file:
    return json.load(file)


def _tested(tests, **more):
  """{test: [passed, failed]} of a call of pytest. more: of its environment."""
  report = os.path.join(ROOT, 'tests.xml')
  subprocess.run(
    [sys.executable, '-m', 'pytest', '-q', '-n', '2', '--dist=worksteal',
     f'--junitxml={report}', *tests], check=False, env=os.environ | more,
  )  # fmt: skip
  counts = collections.defaultdict(lambda: [0, 0])
  for case in xml.etree.ElementTree.parse(report).iter('testcase'):
    name = case.get('name').partition('[')[0]
    file = case.get('classname').replace('.', '/') + '.py'
    bad = any(child.tag in ('failure', 'error') for child in case)
    counts[f'{file}::{name}'][bad] += 1
  return counts


def fault_tests():
  """{fault: (tests that passed, that failed)}."""
  named = faults()
  tests = {test for _, tests in named.values() for test in tests}
  counts = _tested(sorted(tests))
  return {
    fault: [sum(counts[test][k] for test in tests) for k in (0, 1)]
    for fault, (_, tests) in named.items()
  }


def fuzzing():
  """-> (tests of hostile files and calls that passed, that failed)."""
  counts = _tested(_FUZZED, **{name: str(n) for name, n in _CASES.items()})
  return [sum(count[k] for count in counts.values()) for k in (0, 1)]


def sums():
  """-> (tests of sums in steps that passed, that failed)."""
  counts = _tested(['tests/training/test_sums.py'], EVERY_METHOD='1')
  return [sum(count[k] for count in counts.values()) for k in (0, 1)]


def started(name, model_dir):
  settings = _SMALL | KINDS[name].small | {
    'pretrain_loss': name, 'model_dir': model_dir,
  }  # fmt: skip
  os.makedirs(model_dir, exist_ok=True)
  flags = [f'--{key}={show(value)}' for key, value in settings.items()]
  with open(os.path.join(model_dir, 'output.txt'), 'ab') as log:
    return subprocess.Popen(
      [sys.executable, 'run.py', *flags], stdout=log, stderr=log
    )


def saves(model_dir, since):
  """Whether a checkpoint is being written, begun after `since`.

  Of a save that was killed before, the folder may still be there.
  """
  for entry in os.scandir(model_dir):
    if re.fullmatch(r'ckpt-\d+_temp', entry.name):
      with contextlib.suppress(FileNotFoundError):
        if entry.stat().st_mtime > since:
          return True
  return False


def kill(process, model_dir, seconds, inside):
  """Kills it after so many seconds, `inside`: then during its next save.

  -> 'in a save', 'between', or None where it had ended before.
  """
  since, end = time.time(), time.monotonic() + seconds
  while process.poll() is None:
    late = time.monotonic() > end
    if late and (not inside or saves(model_dir, since)):
      break
    time.sleep(0.001 if late else 0.01)
  if process.poll() is not None:
    return None
  where = 'in a save' if saves(model_dir, since) else 'between'
  process.send_signal(signal.SIGKILL)
  process.wait()
  return where


def resumed_at(model_dir):
  """The steps at which a run said that it resumes."""
  path = pathlib.Path(model_dir, 'output.txt')
  text = path.read_text() if path.exists() else ''
  return [int(n) for n in re.findall(r'Resuming from step (\d+)', text)]


def newest(model_dir):
  return max(files.steps(model_dir), default=0)


def trial(number, seed):
  """One run, killed several times -> what happened, as a dict."""
  rng = random.Random(f'{seed} {number}')
  name = [*KINDS][number % len(KINDS)]
  folder = os.path.join(ROOT, f'{number:03d}_{name}')
  shutil.rmtree(folder, ignore_errors=True)
  twin, model_dir = (os.path.join(folder, x) for x in ('twin', 'killed'))
  beside = started(name, twin)
  kills, lost, where = [], 0, ''
  while where is not None:
    finished, said = newest(model_dir), len(resumed_at(model_dir))
    process = started(name, model_dir)
    if len(kills) < _KILLS:
      inside = len(kills) % 3 == 0
      where = kill(process, model_dir, rng.uniform(*_SECONDS), inside)
    else:
      process.wait()
      where = None
    kills += [where] if where else []
    # The steps since the last checkpoint are those that may be lost.
    back = resumed_at(model_dir)[said:]
    lost += bool(back) and back[0] < finished
  same = not process.wait() and not beside.wait()
  if same:
    a, b = (
      repeat.tensors(os.path.join(run, f'ckpt-{STEPS}'))
      for run in (twin, model_dir)
    )
    same = a.keys() == b.keys() and all(
      a[key].tobytes() == b[key].tobytes() for key in a
    )
  if same and not lost:
    shutil.rmtree(folder)
  return {'method': name, 'kills': kills, 'lost': lost, 'same': bool(same)}


def table(tests, fuzzed, added, trials, seed):
  """The lines of table.md -> (lines, whether all is well)."""
  lines = ['| fault | tests passed | failed |', '| --- | ---: | ---: |']
  survived = 0
  for fault, (what, _) in faults().items():
    passed, failed = tests[fault]
    survived += passed > 0 and not failed
    lines.append(f'| {fault}: {what} | {passed} | {failed} |')
  kills = [where for t in trials for where in t['kills']]
  inside = kills.count('in a save')
  lost = sum(t['lost'] for t in trials)
  bad = [t for t in trials if not t['same']]
  lines += [
    '',
    f'{survived} of {len(faults())} faults survived. Of {sum(fuzzed)} tests '
    f'with 10,050 hostile files and calls {fuzzed[1]} failed.',
    f'Of {sum(added)} tests that no step (every method, one and two replicas) '
    f'adds three tensors in no fixed order {added[1]} failed.',
    f'SIGKILL: {len(kills)} kills of {len(trials)} runs (seed {seed}), '
    f'{inside} during a save; {lost} checkpoints lost; '
    f'{len(trials) - len(bad)} of {len(trials)} runs ended with the bits of '
    f'their twins. Methods: {len({t["method"] for t in trials})}.',
  ]
  well = survived == len(faults()) and not lost and not bad
  return lines, well and all(n and not m for n, m in (fuzzed, added))


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument(
    '--minutes', type=float, default=30, help='of kills, after the tests'
  )
  parser.add_argument('--seed', type=int, default=0)
  wanted = parser.parse_args()
  stops_in_a_line()
  os.makedirs(ROOT, exist_ok=True)
  tests, fuzzed, added = kept(fault_tests), kept(fuzzing), kept(sums)
  end = time.monotonic() + 60 * wanted.minutes
  path = pathlib.Path(ROOT, f'trials_{wanted.seed}.jsonl')
  trials = []
  if path.exists():
    trials = [json.loads(line) for line in path.read_text().splitlines()]
  while time.monotonic() < end:
    found = trial(len(trials), wanted.seed)
    trials.append(found)
    with path.open('a') as file:
      file.write(json.dumps(found) + '\n')
    ends = collections.Counter(found['kills'])
    print(
      f'{len(trials)}: {found["method"]}, killed {ends["between"]} times '
      f'between saves and {ends["in a save"]} during one, '
      f'{"same bits" if found["same"] else "OTHER BITS"}',
      flush=True,
    )
  lines, well = table(tests, fuzzed, added, trials, wanted.seed)
  pathlib.Path(ROOT, 'table.md').write_text('\n'.join(lines) + '\n')
  print('\n'.join(['', *lines]))
  sys.exit(not well)


if __name__ == '__main__':
  main()
