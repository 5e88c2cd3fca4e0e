"""Mutation testing: a seeded sample of changes, each against its own tests.

Run by scripts/mutate.sh. Cosmic Ray (made for it) lists the possible changes of
a module and applies one to its text. mutmut forks a process in which TensorFlow
runs already, which hangs. Changes are made in a copy of the tree, in .mutate/,
with the results in .mutate/results.jsonl.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORK = ROOT / '.mutate'
SCOPE = (
  *('objectives.py', 'cvr/training/step.py', 'cvr/numerics/*.py'),
  *('cvr/methods/*.py', 'cvr/data/*.py', 'cvr/checkpoints/*.py'),
)
# Modules whose tests have another name, or stand in two places.
TESTS = {
  'cvr/checkpoints/files.py': ['checkpoints/test_saving.py'],
  'cvr/checkpoints/inspection.py': ['checkpoints/test_pretrained.py'],
  'cvr/data/class_labels.py': ['data/test_tables.py', 'data/test_kinds.py'],
  'cvr/data/dataset_info.py': ['data/test_sources.py'],
  'cvr/data/tars.py': ['data/test_wds_sets.py'],
  'objectives.py': ['test_objectives.py', 'methods/test_decorrelation.py'],
  'cvr/methods/finetune.py': ['training/test_train.py', 'test_model.py'],
}
# What every method does is tested for all of them at once.
ALL_METHODS = 'methods/test_methods.py'


def _meaningless(operator):
  """Whether a change fails at once, or only costs time: it tests no test.

  Shifts of floats, decorators such as functools.cache and staticmethod; | is of
  annotations and dicts, so that only & and | of masks replace each other.
  """
  bits = operator.count('_Bit')
  shifts = 'Shift' in operator
  return operator == 'core/RemoveDecorator' or shifts or bits == 1


# CPU seconds that tests may take, as a multiple of what they take unchanged,
# and how many times as long they may wait: other programs run beside them.
PATIENCE, LEAST, WAIT = 4, 60, 20


def tests_of(module):
  """The test files of a module: those that mirror it."""
  path = pathlib.PurePosixPath(module)
  own = path.relative_to('cvr') if path.parts[0] == 'cvr' else path
  names = TESTS.get(module, [str(own.with_name(f'test_{own.name}'))])
  if module.startswith('cvr/methods/') and ALL_METHODS not in names:
    names = [*names, ALL_METHODS]
  return [f'tests/{name}' for name in names if (ROOT / 'tests' / name).exists()]


def modules():
  paths = [path for pattern in SCOPE for path in ROOT.glob(pattern)]
  names = [path.relative_to(ROOT).as_posix() for path in paths]
  return sorted(name for name in names if not name.endswith('__init__.py'))


def mutants():
  """All changes: dicts of module, operator, occurrence and line, in order."""
  from cosmic_ray.commands import init
  from cosmic_ray.work_db import WorkDB, use_db

  WORK.mkdir(exist_ok=True)
  paths = [ROOT / module for module in modules()]
  with use_db(str(WORK / 'session.sqlite'), WorkDB.Mode.create) as session:
    init(paths, session, {})
    mutations = [item.mutations[0] for item in session.work_items]
  every = [
    {
      'module': pathlib.Path(m.module_path).relative_to(ROOT).as_posix(),
      'operator': m.operator_name,
      'occurrence': m.occurrence,
      'line': m.start_pos[0],
      'column': m.start_pos[1],
    }
    for m in mutations
    if not _meaningless(m.operator_name)
  ]
  names = ('module', 'operator', 'occurrence')
  return sorted(every, key=lambda mutant: [mutant[name] for name in names])


def sample(every, count, seed):
  """A change at each of so many places; the first ones of a larger sample.

  Not of all changes: a sum can become ten things, a comparison with None one.
  By hashes, so that a change of one module moves no other module's places.
  """

  def rank(*names):
    return hashlib.sha256(json.dumps([seed, *names]).encode()).digest()

  by_place = {}
  for mutant in every:
    place = tuple(mutant[name] for name in ('module', 'line', 'column'))
    by_place.setdefault(place, []).append(mutant)
  places = sorted(by_place, key=lambda place: rank(*place))
  return [
    min(by_place[place], key=lambda m, at=place: rank(*at, m['operator']))
    for place in places[:count]
  ]


def copy_tree():
  """The files of git and new ones as they are now, to break."""
  tree = WORK / 'tree'
  shutil.rmtree(tree, ignore_errors=True)
  listing = ['git', 'ls-files', '-co', '--exclude-standard', '-z']
  done = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True)
  for name in done.stdout.decode().split('\0'):
    if name and (ROOT / name).is_file():
      (tree / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(ROOT / name, tree / name)
  return tree


def _cpu_seconds():
  """Of all processes that were waited for."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def _limit_cpu(seconds):
  resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


class Runner:
  """Runs test files in a tree; each once unchanged, for the time."""

  def __init__(self, python, tree):
    self.python, self.tree, self.seconds = python, tree, {}

  def limit(self, files):
    """CPU seconds for changed code; an error where tests fail unchanged."""
    for file in files:
      if file not in self.seconds:
        print(f'{file}, unchanged', flush=True)
        before = _cpu_seconds()
        outcome, output = self._run([file], 3600)
        if outcome != 'survived':
          raise SystemExit(f'{file} fails unchanged.\n{output}')
        self.seconds[file] = _cpu_seconds() - before
    unchanged = sum(self.seconds[file] for file in files)
    return max(LEAST, math.ceil(PATIENCE * unchanged))

  def _run(self, files, limit):
    """-> ('survived' where all tests pass, else 'killed', what they print)."""
    options = ['-x', '-q', '--tb=line', '-p', 'no:cacheprovider']
    process = subprocess.Popen(
      [self.python, '-m', 'pytest', *options, *files], cwd=self.tree,
      text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
      start_new_session=True, preexec_fn=functools.partial(_limit_cpu, limit),
      env={**os.environ, 'PYTHONDONTWRITEBYTECODE': '1',
           'PYTHONPATH': str(self.tree)},
    )  # fmt: skip
    try:
      output, _ = process.communicate(timeout=WAIT * limit)
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
      return 'killed', 'out of time'
    except KeyboardInterrupt:
      os.killpg(process.pid, signal.SIGKILL)
      raise
    if process.returncode == -signal.SIGXCPU:
      return 'killed', 'out of time'
    return 'survived' if process.returncode == 0 else 'killed', output

  def test(self, mutant):
    """-> the mutant with its outcome, and the changed line."""
    from cosmic_ray import mutating, plugins

    path, files = self.tree / mutant['module'], tests_of(mutant['module'])
    limit = self.limit(files)
    before = path.read_text()
    operator = plugins.get_operator(mutant['operator'])()
    try:
      after = mutating.mutate_code(before, operator, mutant['occurrence'])
    except AttributeError:  # Of Cosmic Ray, where `except` names a.b.
      return mutant | {'outcome': 'not made', 'old': '', 'new': '', 'why': ''}
    path.write_text(after)
    try:
      outcome, output = self._run(files, limit)
    finally:
      path.write_text(before)
    lines = before.splitlines(), after.splitlines()
    changed = [
      (a, b) for a, b in zip(*lines, strict=False) if a.strip() != b.strip()
    ]
    old, new = changed[0] if changed else ('', '')
    return mutant | {
      'outcome': outcome, 'old': old.strip(), 'new': new.strip(),
      'why': output.strip().splitlines()[-1] if output.strip() else '',
    }  # fmt: skip


@functools.cache
def _texts_of(module):
  """A digest of a module and of its tests."""
  texts = [(ROOT / name).read_bytes() for name in (module, *tests_of(module))]
  return hashlib.sha256(b''.join(texts)).hexdigest()[:16]


def key(mutant):
  """A change is another one once its module or its tests have changed."""
  names = ('module', 'operator', 'occurrence')
  place = [mutant[name] for name in names]
  return json.dumps([*place, _texts_of(mutant['module'])])


def stored():
  """{key: result} of earlier calls, of code that is still the same."""
  path = WORK / 'results.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  results = map(json.loads, lines)
  return {result['key']: result for result in results}


def report(chosen, results, every):
  """Prints the score of those that ran, and the survivors."""
  ran = [results[key(m)] for m in chosen if key(m) in results]
  ran = [result for result in ran if result['outcome'] != 'not made']
  alive = [result for result in ran if result['outcome'] == 'survived']
  print(f'\n{len(ran)} of a sample of {len(chosen)} ran, of {every:,} changes')
  if ran:
    dead = len(ran) - len(alive)
    print(f'{dead} killed, {len(alive)} survived: {100 * dead / len(ran):.0f}%')
  for result in sorted(alive, key=lambda r: (r['module'], r['line'])):
    print(f'\n{result["module"]}:{result["line"]} {result["operator"]}')
    print(f'  - {result["old"]}\n  + {result["new"]}')


def main(argv):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--python', default=sys.executable)
  parser.add_argument('--sample', type=int, default=150)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=600)
  parser.add_argument('--report', action='store_true')
  args = parser.parse_args(argv)
  every = mutants()
  chosen, results = sample(every, args.sample, args.seed), stored()
  end = time.monotonic() + 60 * args.minutes
  left = [m for m in chosen if key(m) not in results]
  if left and not args.report:
    runner = Runner(args.python, copy_tree())
    for mutant in left:
      if time.monotonic() > end:
        break
      result = runner.test(mutant) | {'key': key(mutant)}
      results[result['key']] = result
      with open(WORK / 'results.jsonl', 'a') as file:
        file.write(json.dumps(result) + '\n')
      place = f'{result["module"]}:{result["line"]}'
      print(f'{result["outcome"]:8} {place} {result["new"]}', flush=True)
  report(chosen, results, len(every))


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except KeyboardInterrupt:
    sys.exit('\nmutate.py: stopped. The same command resumes.')
