"""docs/reliability.md: its tests are there, and its recipes do what it says."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'reliability.md'
SCRIPTS = str(ROOT / 'scripts')
sys.path.insert(0, SCRIPTS)
chaos = __import__('chaos')
sys.path.remove(SCRIPTS)


def test_every_fault_has_tests_that_there_are():
  named = chaos.faults()
  assert list(named) == [f'F{i}' for i in range(1, 39)]
  functions = {}
  for _, tests in named.values():
    assert tests
    for test in tests:
      file, _, name = test.partition('::')
      if file not in functions:
        nodes = ast.parse((ROOT / file).read_text()).body
        functions[file] = {getattr(node, 'name', None) for node in nodes}
      assert name in functions[file], test


def block(language, word):
  """The first block of the page in a language that has the word."""
  found = re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(), re.DOTALL)
  return next(text for text in found if word in text)


@pytest.mark.parametrize(
  'status, requeued',
  [(0, False), (2, False), (3, False), (75, True), (143, True)],
)
def test_the_slurm_script_asks_for_another_try(tmp_path, status, requeued):
  """With stand-ins for srun and scontrol."""
  for name, body in (
    ('srun', f'echo "$@" >"$HERE/srun"; exit {status}'),
    ('scontrol', 'echo "$@" >"$HERE/scontrol"'),
  ):
    program = tmp_path / name
    program.write_text(f'#!/bin/bash\n{body}\n')
    program.chmod(0o755)
  (tmp_path / 'calls').mkdir()
  done = subprocess.run(
    ['bash', '-c', block('', '#SBATCH')],
    env=os.environ
    | {
      'PATH': f'{tmp_path}:{os.environ["PATH"]}',
      'HERE': str(tmp_path / 'calls'),
      'SLURM_JOB_ID': '17',
    },
  )
  assert done.returncode == status
  calls = {p.name: p.read_text() for p in (tmp_path / 'calls').iterdir()}
  assert '--kill-on-bad-exit=1 python run.py --preset=' in calls['srun']
  assert ('scontrol' in calls) == requeued
  assert not requeued or calls['scontrol'] == 'requeue 17\n'


def test_the_manifest_is_one_of_kubernetes():
  validate = pytest.importorskip(
    'kubernetes_validate', reason='pip install kubernetes-validate'
  )
  import yaml

  manifest = yaml.safe_load(block('yaml', 'kind: Job'))
  validate.validate(manifest, validate.latest_version(), strict=True)
  rules = manifest['spec']['podFailurePolicy']['rules']
  assert rules[0]['onExitCodes']['values'] == [1, 2, 3]
  del manifest['spec']['template']['spec']['restartPolicy']
  manifest['spec']['backoffLimit'] = 'many'
  with pytest.raises(validate.ValidationError):
    validate.validate(manifest, validate.latest_version(), strict=True)


def test_the_table_of_chaos():
  named = chaos.faults()
  tests = {fault: [2, 0] for fault in named}
  trials = [
    {'method': 'byol', 'kills': ['between', 'in a save'], 'lost': 0, 'same': 1},
    {'method': 'cmc', 'kills': ['between'], 'lost': 0, 'same': 1},
  ]
  lines, well = chaos.table(tests, [12, 0], [36, 0], trials, 5)
  assert well and lines[-3].startswith('38 of 38 faults survived. Of 12 tests')
  assert (
    '3 kills of 2 runs (seed 5), 1 during a save; 0 checkpoints' in lines[-1]
  )
  assert not chaos.table(tests | {'F6': [2, 1]}, [12, 0], [36, 0], trials, 5)[1]
  assert not chaos.table(tests | {'F6': [0, 0]}, [12, 0], [36, 0], trials, 5)[1]
  assert not chaos.table(tests, [11, 1], [36, 0], trials, 5)[1]
  assert not chaos.table(tests, [0, 0], [36, 0], trials, 5)[1]
  assert not chaos.table(tests, [12, 0], [35, 1], trials, 5)[1]
  assert not chaos.table(tests, [12, 0], [36, 0], [trials[0] | {'same': 0}], 5)[
    1
  ]
  assert not chaos.table(tests, [12, 0], [36, 0], [trials[0] | {'lost': 1}], 5)[
    1
  ]
