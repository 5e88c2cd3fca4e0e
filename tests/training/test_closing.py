"""What a run says at its end: commands that can be copied."""

import os
import pathlib
import shlex
import sys

import pytest

from cvr.configs import command_line
from cvr.configs.config import Config
from cvr.training import closing
from small_runs import ROOT


@pytest.fixture
def at_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def run_in(folder, names, **settings):
  """The lines of a run that left these files."""
  folder.mkdir()
  for name in names:
    (folder / name).write_text('')
  cfg = Config(model_dir=str(folder), **settings)
  return closing.lines(cfg, ['run.py'], 7, labelled=True)


def commands(lines):
  at = lines.index('Next:')
  return [shlex.split(line.split('\n')[0]) for line in lines[at + 1 :]]


def test_files_that_are_there_are_named(tmp_path, at_root):
  names = ['metrics.jsonl', 'result.json', 'checkpoint', 'ckpt-7.index']
  lines = run_in(tmp_path / 'run', names)
  assert lines[1] == f'Written to {tmp_path}/run:'
  listed = [line.split()[0] for line in lines[2 : lines.index('', 2)]]
  assert listed == ['ckpt-7', 'config.json', 'metrics.jsonl', 'result.json']
  bare = run_in(tmp_path / 'other', [])
  assert not any('result.json' in line for line in bare)


@pytest.mark.parametrize(
  'settings, mode',
  [
    ({}, 'evaluate'),
    ({'train_mode': 'finetune'}, 'export'),
    ({'mode': 'train'}, 'evaluate'),
  ],
)
def test_what_comes_next_can_be_typed(tmp_path, at_root, settings, mode):
  lines = run_in(tmp_path / "it's a run", [], **settings)
  (_, program, *flags), (*_, board) = commands(lines)
  assert program == 'run.py'
  cfg = command_line.parse(['run.py', *flags])
  assert (cfg.mode, cfg.model_dir) == (mode, f"{tmp_path}/it's a run")
  assert board == f"--logdir={tmp_path}/it's a run"
  assert len(commands(run_in(tmp_path / 'no', [], train_summary_steps=0))) == 1


def test_without_labels_a_card_needs_none(tmp_path, at_root):
  cfg = Config(model_dir=str(tmp_path))
  (first, _) = commands(closing.lines(cfg, ['run.py'], 7, False))
  assert '--suite=compression' in first


def test_the_python_is_the_one_that_runs(tmp_path, monkeypatch, at_root):
  folder = pathlib.Path(sys.executable).parent
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  if (folder / 'python').exists():
    assert closing.python() == 'python'
  # An environment that is not active.
  (tmp_path / 'python').write_text('')
  (tmp_path / 'python').chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))
  assert os.path.samefile(shlex.split(closing.python())[0], sys.executable)
  monkeypatch.setattr(sys, 'executable', f'{ROOT}/scripts/env.sh')
  assert closing.python() == 'scripts/env.sh'
  monkeypatch.setenv('PATH', '')
  assert closing.python() == 'scripts/env.sh'


def test_the_program_is_named_from_here(tmp_path, at_root):
  cfg = Config(model_dir=str(tmp_path))
  for typed in ('scripts/../run.py', f'{ROOT}/run.py'):
    (first, _) = commands(closing.lines(cfg, [typed], 7, True))
    assert first[1] == 'run.py'
