"""What the quickstart prints at its end can be typed."""

import shlex

import quickstart_table
from typed import parse


def test_what_to_try_can_be_typed(monkeypatch, capsys):
  found = 16, [0, 250], [0.601, 0.796]
  monkeypatch.setattr(quickstart_table, 'measure', lambda folder: found)
  quickstart_table.main('runs/quickstart')
  out = capsys.readouterr().out
  assert 'trained encoder                      250    79.6%' in out
  assert max(map(len, out.split('\n'))) <= 80
  text = out.replace('\\\n', ' ').replace('folder:PATH', 'folder:.')
  lines = [line.strip() for line in text.split('\n')]
  assert '. .venv/bin/activate' in lines
  prefix = 'python run.py '
  typed = [line for line in lines if line.startswith(prefix)]
  cfgs = [parse(' '.join(shlex.split(line)[2:])) for line in typed]
  assert [(cfg.mode, cfg.model_dir) for cfg in cfgs] == [
    ('train_then_eval', 'runs/simclr'),
    ('report', 'runs/quickstart'),
    ('train_then_eval', 'runs/mine'),
  ]
  assert cfgs[0].pretrain_loss == 'contrastive'
