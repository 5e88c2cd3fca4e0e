"""Which Python scripts/python.sh takes."""

import os
import shutil
import subprocess

import pytest

from small_runs import ROOT


@pytest.fixture
def choose(tmp_path):
  """choose(**environment) -> the finished process, which prints its choice.

  There are three Pythons: of an active environment, of .venv, named by PYTHON.
  """
  (tmp_path / 'scripts').mkdir()
  shutil.copy(f'{ROOT}/scripts/python.sh', tmp_path / 'scripts')
  script = '. "$(dirname "$0")/python.sh"; echo "$python"; echo "$root"'
  (tmp_path / 'scripts' / 'train.sh').write_text(script)

  def run(**environment):
    path = f'{tmp_path}/bin:{os.path.dirname(shutil.which("bash"))}'
    return subprocess.run(
      [shutil.which('bash'), f'{tmp_path}/scripts/train.sh'],
      env={'PATH': path} | environment, capture_output=True, text=True,
      cwd='/',
    )  # fmt: skip

  return run


def python(path, has_packages):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f'#!/bin/sh\nexit {int(not has_packages)}\n')
  path.chmod(0o755)
  return str(path)


def test_that_of_the_folder_is_taken_where_it_is(tmp_path, choose):
  python(tmp_path / 'bin' / 'python3', True)
  assert choose().stdout.split('\n')[0] == 'python3'
  own = python(tmp_path / '.venv' / 'bin' / 'python', True)
  assert choose().stdout == f'{own}\n{tmp_path}\n'
  # One that was made for something else is passed over.
  python(tmp_path / '.venv' / 'bin' / 'python', False)
  assert choose().stdout.split('\n')[0] == 'python3'


@pytest.mark.parametrize('name', ['VIRTUAL_ENV', 'CONDA_PREFIX'])
def test_an_active_environment_comes_first(tmp_path, choose, name):
  own = python(tmp_path / '.venv' / 'bin' / 'python', True)
  python(tmp_path / 'bin' / 'python3', True)
  assert choose(**{name: '/x'}).stdout.split('\n')[0] == 'python3'
  python(tmp_path / 'bin' / 'python3', False)
  assert choose(**{name: '/x'}).stdout.split('\n')[0] == own


def test_what_was_asked_for_is_taken_or_nothing(tmp_path, choose):
  python(tmp_path / '.venv' / 'bin' / 'python', True)
  asked = python(tmp_path / 'mine', True)
  assert choose(PYTHON=asked).stdout.split('\n')[0] == asked
  python(tmp_path / 'mine', False)
  assert choose(PYTHON=asked).returncode == 2


def test_without_an_environment_a_line_says_how_to_make_one(tmp_path, choose):
  python(tmp_path / 'bin' / 'python3', False)
  python(tmp_path / '.venv' / 'bin' / 'python', False)
  done = choose()
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr == (
    f'train.sh: no Python here has TensorFlow. In {tmp_path}: python3 -m venv '
    '.venv && .venv/bin/pip install -e .\n'
  )
