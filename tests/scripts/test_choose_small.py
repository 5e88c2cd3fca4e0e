"""scripts/choose_small.py chooses on validation patches, a rate first."""

import json
import os
import pathlib
import sys

import pytest

from cvr.configs import checks, config

SCRIPTS = os.path.join(pathlib.Path(__file__).parents[2], 'scripts')
sys.path.insert(0, SCRIPTS)
choose_small = __import__('choose_small')
sys.path.remove(SCRIPTS)


@pytest.fixture
def runs(tmp_path, monkeypatch):
  """{(rate, beta): the settings it was trained with}; nothing is trained."""
  monkeypatch.setattr(choose_small, 'ROOT', str(tmp_path))
  trained = {}

  def train(folder, settings):
    os.makedirs(folder)
    with open(os.path.join(folder, 'settings'), 'w') as file:
      json.dump(settings, file)
    trained[settings['learning_rate'], settings['ceb_beta']] = settings

  def measure(folder, ends):
    """The best are a rate of 0.5 and a beta of 0.3."""
    assert ends == (-1,)
    with open(os.path.join(folder, 'settings')) as file:
      s = json.load(file)
    far = abs(s['learning_rate'] - 0.5) + abs(s['ceb_beta'] - 0.3)
    return 16, [0, 160], (0.8 - far / 10,)

  monkeypatch.setattr(choose_small.families, 'train', train)
  monkeypatch.setattr(choose_small.quickstart_table, 'measure', measure)
  return trained


def test_the_best_rate_then_every_beta_with_it(runs, capsys, tmp_path):
  choose_small.main()
  assert {*runs} == {
    *((rate, 0.1) for rate in choose_small.RATES),
    *((0.5, beta) for beta in choose_small.BETAS),
  }
  table = (tmp_path / 'table.md').read_text()
  assert table.strip() in capsys.readouterr().out
  assert '| 0.5 | 0.3 | 80.0 |' in table
  choose_small.main()  # Nothing is trained again.
  assert len(runs) == 5


def test_no_run_sees_test_patches(runs):
  choose_small.main()
  for settings in runs.values():
    cfg = config.Config(**choose_small.families.BASE | settings)
    assert (cfg.eval_split, cfg.train_split) == ('validation', 'train')
    assert checks.warnings(cfg) == []


def test_the_largest_beta_within_one_standard_error():
  """At 80% of 400 images that is 2 points."""
  found = {0.03: 0.80, 0.1: 0.781, 0.3: 0.779, 1.0: 0.5}
  assert choose_small.largest(found, 400) == 0.1
  assert choose_small.largest(found, 300) == 0.3
