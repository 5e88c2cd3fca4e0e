"""The script that draws runs: what it reads, and what it says."""

import json
import pathlib
import runpy
import sys

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = runpy.run_path(f'{ROOT}/scripts/plot_information.py')


def row(step, x, y):
  names = ('information/reconstruction', 'information/entropy')
  return {'step': step} | dict(zip(names, (x, y), strict=True))


@pytest.fixture
def folder(tmp_path):
  """folder(name, rows) -> a model_dir that has them."""

  def make(name, rows):
    (tmp_path / name).mkdir()
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    (tmp_path / name / 'metrics.jsonl').write_text(text)
    return str(tmp_path / name)

  return make


def test_of_repeated_steps_the_later_row_counts(folder):
  rows = [row(1, 5, 6), row(3, 0, 0), {'step': 2, 'loss': 1}, row(3, 7, 8)]
  steps, points = SCRIPT['read'](folder('run', rows))
  np.testing.assert_array_equal(steps, [1, 3])
  np.testing.assert_array_equal(points, [[5, 6], [7, 8]])


def test_runs_without_such_numbers(folder, tmp_path):
  with pytest.raises(SystemExit, match='--health_pairs=0'):
    SCRIPT['read'](folder('run', [{'step': 2, 'loss': 1}]))
  with pytest.raises(SystemExit, match='Name the --model_dir'):
    SCRIPT['read'](str(tmp_path / 'elsewhere'))


def test_every_run_has_a_line_of_its_colour(folder, tmp_path):
  pytest.importorskip('matplotlib')
  runs = [
    folder(name, [row(1, 0, 0), row(2, x, 4)])
    for name, x in (('one', 1), ('two', 3))
  ]
  output = f'{tmp_path}/drawn.png'
  SCRIPT['main']([*runs, f'--output={output}'])
  image = tf.io.decode_png(tf.io.read_file(output), channels=3).numpy()
  for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
    assert (image == colour).all(-1).sum() > 100
  assert not (image == (0x00, 0x9E, 0x73)).all(-1).any()


def test_labels_leave_out_what_all_folders_share():
  labels = SCRIPT['labels']
  assert labels(['runs/small/one', 'runs/large/one']) == [
    'small/one',
    'large/one',
  ]
  assert labels(['/runs/one/', '/runs/two']) == ['one', 'two']
  assert labels(['runs/one']) == ['one']


def test_without_matplotlib(folder, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  run = folder('run', [row(1, 0, 0)])
  with pytest.raises(SystemExit, match=r"pip install -e '\.\[plot\]'"):
    SCRIPT['main']([run, f'--output={tmp_path}/x.png'])
