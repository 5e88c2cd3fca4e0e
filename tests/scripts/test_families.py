"""scripts/families.py: its runs are what they say, and are not done twice."""

import json
import os
import pathlib
import sys

import pytest

from cvr import methods
from cvr.configs import checks, config

SCRIPTS = os.path.join(pathlib.Path(__file__).parents[2], 'scripts')
sys.path.insert(0, SCRIPTS)
families = __import__('families')
sys.path.remove(SCRIPTS)


def test_every_method_has_a_run_and_every_flag_of_it_an_effect():
  assert set(families.METHODS) == set(methods.METHODS)
  for name, row in families.RUNS.items():
    cfg = config.Config(**families.BASE | row)
    assert checks.warnings(cfg) == [], name
    # The untrained network of those in the first table is still there.
    written = 1 + cfg.train_steps // cfg.checkpoint_steps
    assert name not in families.METHODS or written <= cfg.keep_checkpoint_max


def test_both_of_a_pair_get_the_same_and_see_as_many_images():
  for change, values in families.CHANGES.items():
    for name in sum(families.PAIRS, ()):
      plain = families.BASE | families.RUNS[name]
      run = families.BASE | families.RUNS[families.changed(name, change)]
      images = plain['train_batch_size'] * plain['train_steps']
      assert run['train_batch_size'] * run['train_steps'] == images
      assert run == plain | values
  assert families.changed('byol', 'EMA 0.99') == 'byol'
  assert families.changed('byol', 'EMA 0.4') == 'byol, EMA 0.4'


@pytest.fixture
def commands(tmp_path, monkeypatch):
  """Runs train nothing: the commands that would, and their exit status."""
  monkeypatch.setattr(families, 'ROOT', str(tmp_path))
  calls, status = [], [0]
  drawn = lambda argv: calls.append(argv[-1])  # noqa: E731
  monkeypatch.setattr(families.plot_information, 'main', drawn)

  def call(*argv):
    calls.append(argv)
    folder = [a for a in argv if a.startswith('--model_dir=')][0][12:]
    os.makedirs(folder, exist_ok=True)
    with open(f'{folder}/metrics.jsonl', 'w') as file:
      file.write('{"step": 1, "information/entropy": 0.0}\n')
      file.write('{"step": 2, "information/entropy": 3.5, "x": 1}\n')
    return status[0]

  monkeypatch.setattr(families, 'call', call)
  monkeypatch.setattr(
    families.quickstart_table,
    'measure',
    lambda folder, ends: (16, [0, 9], [0.5, 0.75][-len(ends) :]),
  )
  return calls, status


def test_a_run_is_done_once_and_an_end_is_no_result(commands, capsys):
  calls, status = commands
  status[0] = 143
  with pytest.raises(SystemExit, match='byol did not end well'):
    families.main(['byol'])
  assert not os.path.exists(f'{families.folder("byol")}/families.json')
  status[0] = 0
  for _ in range(2):
    families.main(['byol', 'byol, EMA 0.4'])
  # What was found before stays in the tables.
  families.main(['byol'])
  plots = [call for call in calls if isinstance(call, str)]
  assert len(calls) == 3 + len(plots)
  assert plots == [f'--output={families.ROOT}/information.png'] * 3
  (*_, last) = [call for call in calls if call not in plots]
  assert '--ema_alpha=0.4' in last and '--mode=train' in last
  with open(f'{families.folder("byol")}/families.json') as file:
    facts = json.load(file)
  assert facts['information/entropy'] == 3.5 and 'x' not in facts
  lines = capsys.readouterr().out.splitlines()
  assert '| `byol` | 50.0 | 75.0 | 25.0 | 3.50 |  |  |  |' in lines
  assert '| `byol` | 75.0 |  | 75.0 |  |' in lines


def test_a_run_that_there_is_not(commands):
  with pytest.raises(SystemExit, match='No such run: byl'):
    families.main(['byl'])
  assert commands[0] == []
