"""What a run tells people, read back from where people read it."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf

from cvr.training import progress
from cvr.training.monitor import Monitor
from small_runs import events


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  """A list of one number: the seconds that the monitor believes in."""
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


def test_a_log_gets_one_plain_line_a_minute(tmp_path, clock):
  stream = io.StringIO()
  log = Monitor(str(tmp_path), stream=stream)
  metrics = {
    'total_loss': 1.23456,
    'supervised_acc': 0.4567,
    'input_wait': 0.034,
  }
  for step in range(1, 14):
    log.progress(step, 100, metrics, 1234.5, 190)
    clock[0] += 10
  assert stream.getvalue() == ''.join(
    f'step {step}/100  loss 1.2346  probe 45.7%  1,234 img/s  '
    'input 3%  ETA 3m10s\n'
    for step in (1, 7, 13)
  )
  log.progress(14, 100, metrics, 1234.5, 190)
  log.progress(100, 100, metrics, 1234.5, 0)  # the last one is always told
  assert stream.getvalue().count('\n') == 4
  assert stream.getvalue().endswith(
    'step 100/100  loss 1.2346  probe 45.7%  1,234 img/s  input 3%  ETA 0s\n'
  )


def test_a_terminal_has_one_line_that_is_rewritten(tmp_path, clock):
  stream = Terminal()
  waiting = {'input_wait': 0.5}
  screen = Monitor(str(tmp_path), stream=stream)
  screen.progress(1, 2, {'total_loss': 2.0} | waiting, 10, 5)
  screen.say('a note')
  screen.progress(2, 2, {'total_loss': 1.0} | waiting, 10, 0)
  clear = '\r\033[K'
  assert stream.getvalue() == (
    f'{clear}step 1/2  loss 2.0000  10 img/s  input 50%  ETA 5s'
    f'{clear}a note\n'
    f'{clear}step 2/2  loss 1.0000  10 img/s  input 50%  ETA 0s\n'
  )


# The longest line that a run on ImageNet has.
LONG = {
  'step': 1_251_234,
  'total': 1_252_000,
  'metrics': {
    'total_loss': 12.34567,
    'supervised_acc': 0.7123,
    'input_wait': 1.0,
  },
  'rate': 12_345.6,
  'eta': 10 * 86400 + 3 * 3600,
  'epochs': (3999.4, 4000.0),
}


@pytest.mark.parametrize(
  'columns, line',
  [
    (160, 'step 1,251,234/1,252,000  epoch 3999.4/4000  loss 12.3457  '
     'probe 71.2%  12,346 img/s  input 100%  ETA 10d03h'),
    (80, 'step 1,251,234/1,252,000  loss 12.3457  probe 71.2%  '
     '12,346 img/s  ETA 10d03h'),
    (60, 'step 1,251,234/1,252,000  loss 12.3457  ETA 10d03h'),
    (40, 'step 1,251,234/1,252,000  ETA 10d03h'),
  ],
)  # fmt: skip
def test_a_progress_line_never_wraps(tmp_path, monkeypatch, columns, line):
  monkeypatch.setattr(progress, 'width', lambda stream: columns)
  screen = Monitor(str(tmp_path), stream=(stream := Terminal()))
  screen.progress(**LONG)
  assert stream.getvalue() == f'\r\033[K{line}'
  assert len(line) < columns


@pytest.mark.parametrize(
  'epochs, said',
  [
    ((0.0234, 0.5), '0.023/0.5'),
    ((3.0, 7.8125), '3/7.8'),
    ((12.34, 300.0), '12.3/300'),
  ],
)
def test_epochs_have_the_digits_that_change(tmp_path, epochs, said):
  screen = Monitor(str(tmp_path), stream=(stream := Terminal()))
  screen.progress(1, 2, {'total_loss': 2.0}, epochs=epochs)
  assert f'epoch {said}  loss' in stream.getvalue()


def test_a_gpu_has_its_memory_in_the_line(tmp_path):
  screen = Monitor(str(tmp_path), stream=(stream := Terminal()))
  screen.progress(1, 2, {'total_loss': 2.0, 'gpu_memory': 12.345})
  assert stream.getvalue().endswith('step 1/2  loss 2.0000  GPU 12.3 GiB')


def test_the_line_of_one_of_many_runs_says_which(tmp_path):
  screen = Monitor(str(tmp_path), stream=(stream := Terminal()), title='3 of 9')
  screen.progress(1, 2, {'total_loss': 2.0})
  assert stream.getvalue() == '\r\033[K3 of 9  step 1/2  loss 2.0000'


def test_tensorboard_has_the_published_tags(tmp_path):
  tags = {
    'total_loss': 'train/total_loss',
    'weight_decay': 'train/weight_decay',
    'contrast_loss': 'train/contrast_loss',
    'contrast_acc': 'train/contrast_acc',
    'contrast_entropy': 'train/contrast_entropy',
    'supervised_loss': 'train/supervised_loss',
    'supervised_acc': 'train/supervised_acc',
    'byol_loss': 'train/byol_loss',
    'ema_alpha': 'train/ema_alpha',
    'ceb_beta_log': 'train/ceb_beta_log',
    'learning_rate': 'learning_rate',
    'eval/label_top_1_accuracy': 'eval/label_top_1_accuracy',
    'eval/label_top_5_accuracy': 'eval/label_top_5_accuracy',
    'eval/regularization_loss': 'eval/regularization_loss',
  }
  board = Monitor(str(tmp_path))
  expected = {}
  for step in (100, 250):
    values = {name: step + i / 4 for i, name in enumerate(tags)}
    board.summary(step, values)
    expected |= {(tags[name], step): value for name, value in values.items()}
  assert events(tmp_path) == expected
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = map(json.loads, lines)
  assert expected == {
    (name, row['step']): row[name]
    for row in rows
    for name in row.keys() - {'step'}
  }


def test_metrics_jsonl_goes_on_where_it_was(tmp_path):
  rows = [{'step': s, 'total_loss': 1 / s, 'health/x': 0.5} for s in (3, 7, 9)]
  for part in (rows[:2], rows[2:]):
    log = Monitor(str(tmp_path))
    for row in part:
      metrics = {name: tf.constant(row[name]) for name in row if name != 'step'}
      log.summary(row['step'], metrics)
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  assert [row['step'] for row in found] == [3, 7, 9]
  for row, wanted in zip(found, rows, strict=True):
    wanted = {
      name.replace('total', 'train/total'): wanted[name] for name in wanted
    }
    assert row == pytest.approx(wanted, rel=1e-7)


def test_write_json_is_sorted_and_makes_its_directory(tmp_path):
  folder = tmp_path / 'run' / 'eval'
  log = Monitor(str(folder))
  log.write_json('result.json', {'b': 1.5, 'a': {'d': 1, 'c': [2]}})
  assert (folder / 'result.json').read_text() == (
    '{\n  "a": {\n    "c": [\n      2\n    ],\n    "d": 1\n  },\n'
    '  "b": 1.5\n}\n'
  )


def test_write_json_shows_the_old_file_or_the_new(tmp_path, monkeypatch):
  log = Monitor(str(tmp_path))
  log.write_json('result.json', {'step': 1})
  rename, seen = tf.io.gfile.rename, []

  def watched(source, target, overwrite):
    seen.append((tmp_path / 'result.json').read_text())
    rename(source, target, overwrite=overwrite)

  monkeypatch.setattr(tf.io.gfile, 'rename', watched)
  log.write_json('result.json', {'step': 2})
  assert [json.loads(text) for text in seen] == [{'step': 1}]
  assert json.loads((tmp_path / 'result.json').read_text()) == {'step': 2}
  others = {path.name.partition('.')[0] for path in tmp_path.iterdir()}
  assert others == {'result'}


def test_who_is_not_chief_says_and_writes_nothing(tmp_path, clock):
  for stream in (io.StringIO(), Terminal()):
    other = Monitor(str(tmp_path / 'run'), chief=False, stream=stream)
    other.say('hello')
    other.progress(2, 2, {'total_loss': 1.0, 'input_wait': 0.0}, 10, 0)
    other.summary(2, {'total_loss': 1.0})
    other.write_json('result.json', {})
    assert stream.getvalue() == ''
  assert list(tmp_path.iterdir()) == []


def shown(folder):
  """{(tag, step): (the plugin that shows it, its tensor)} of event files."""
  return {
    (value.tag, event.step): (
      value.metadata.plugin_data.plugin_name, tf.make_ndarray(value.tensor)
    )
    for path in folder.glob('events.*')
    for event in tf.compat.v1.train.summary_iterator(str(path))
    for value in event.summary.value
  }  # fmt: skip


def test_tensorboard_has_pictures_and_the_settings_once(tmp_path):
  board = Monitor(str(tmp_path))
  board.write_json('config.json', {'config': {'seed': 7, 'stem': 'small'}})
  for step in (3, 6):
    board.summary(step, {'total_loss': 1.0})
    images = {'views/x': np.zeros([2, 4, 8, 3])} if step == 3 else None
    board.show(step, images, {'similarity/y': np.arange(9.0)})
  found = shown(tmp_path)
  assert {key: plugin for key, (plugin, _) in found.items()} == {
    ('settings', 3): 'text', ('train/total_loss', 3): 'scalars',
    ('views/x', 3): 'images', ('similarity/y', 3): 'histograms',
    ('train/total_loss', 6): 'scalars', ('similarity/y', 6): 'histograms',
  }  # fmt: skip
  assert b'| seed | `7` |' in found['settings', 3][1].item()
  # Two pictures, after their width and height.
  assert [*found['views/x', 3][1][:2]] == [b'8', b'4']
  assert len(found['views/x', 3][1]) == 4
