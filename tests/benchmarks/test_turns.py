"""benchmarks/turns.py: alternatives in processes of their own."""

import sys

import pytest

from benchmarks import turns
from small_runs import ROOT

_PROGRAM = """
import sys
name, root = sys.argv[1:]
sys.path.insert(0, root)
from benchmarks import turns
count = 0
def counted():
  global count
  count += 1
  return count
turns.serve({f'{name}, counted': counted, f'{name}, timed': lambda: None})
"""


def command(name):
  return [sys.executable, '-c', _PROGRAM, name, ROOT]


def test_every_case_is_asked_once_per_round():
  found = turns.in_turns([command('a'), command('b')], rounds=3)
  # Two calls of each warmed it up.
  assert found['a, counted'] == found['b, counted'] == [3, 4, 5]
  assert len(found['a, timed']) == 3 and min(found['b, timed']) > 0


@pytest.mark.parametrize('cases', ['', '["a"]'])
def test_a_process_that_ends_is_told(cases):
  """Before it names its cases, or before it answers."""
  ends = [sys.executable, '-c', f'print({cases!r}, end="")']
  with pytest.raises(RuntimeError, match='ended: see above'):
    turns.in_turns([command('a'), ends], rounds=1)
