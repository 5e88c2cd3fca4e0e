"""What scripts/mutate.py changes, and against which tests."""

import pathlib
import sys

import mutate
from typed import ROOT


def made(count=40):
  return [
    {'module': 'm.py', 'operator': f'core/{i}', 'occurrence': 0,
     'line': i // 4, 'column': 0}
    for i in range(count)
  ]  # fmt: skip


def test_every_module_in_scope_has_tests_of_its_own():
  modules = mutate.modules()
  assert {'objectives.py', 'cvr/training/step.py'} < {*modules}
  assert {name.split('/')[1] for name in modules if 'cvr/' in name} == {
    'numerics', 'methods', 'data', 'checkpoints', 'training'
  }  # fmt: skip
  for module in modules:
    assert mutate.tests_of(module), module
  assert mutate.tests_of('cvr/methods/latents.py') == [
    'tests/methods/test_latents.py', 'tests/methods/test_methods.py'
  ]  # fmt: skip
  assert all((pathlib.Path(ROOT) / name).exists() for name in mutate.TESTS)


def test_a_sample_has_one_change_of_a_place_and_begins_with_the_smaller_one():
  every = made()
  few, more = mutate.sample(every, 3, 0), mutate.sample(every, 10, 0)
  assert few == more[:3]
  assert len({mutant['line'] for mutant in more}) == len(more) == 10
  assert mutate.sample(every, 3, 1) != few


def test_what_fails_at_once_is_left_out():
  arithmetic = 'core/ReplaceBinaryOperator_Add_'
  assert not mutate._meaningless(f'{arithmetic}Sub')
  assert mutate._meaningless(f'{arithmetic}LShift')
  assert mutate._meaningless(f'{arithmetic}BitOr')
  assert not mutate._meaningless('core/ReplaceBinaryOperator_BitAnd_BitOr')


def tree_of(tmp_path, monkeypatch):
  """A repository of one module, its test, and a copy of it."""
  files = {
    'thing.py': 'def f(x):\n  return x + 1\n',
    'tests/test_thing.py': (
      'import thing\n\ndef test_f():\n  assert thing.f(2) == 3\n'
    ),
  }
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  monkeypatch.setattr(mutate, 'ROOT', tmp_path)
  return mutate.Runner(sys.executable, tmp_path)


def test_tests_that_fail_or_hang_kill_and_others_do_not(tmp_path, monkeypatch):
  runner, tests = tree_of(tmp_path, monkeypatch), ['tests/test_thing.py']
  assert runner.limit(tests) == mutate.LEAST
  assert 0 < runner.seconds[tests[0]] < mutate.LEAST
  assert runner._run(tests, 60)[0] == 'survived'
  (tmp_path / 'thing.py').write_text('def f(x):\n  return x - 1\n')
  assert runner._run(tests, 60)[0] == 'killed'
  (tmp_path / 'thing.py').write_text('while True:\n  pass\n')
  assert runner._run(tests, 2) == ('killed', 'out of time')


def test_tests_that_wait_for_ever_are_killed_too(tmp_path, monkeypatch):
  runner = tree_of(tmp_path, monkeypatch)
  monkeypatch.setattr(mutate, 'WAIT', 0.1)
  (tmp_path / 'thing.py').write_text(
    'import threading\nthreading.Event().wait()\n'
  )
  found = runner._run(['tests/test_thing.py'], 10)
  assert found == ('killed', 'out of time')
