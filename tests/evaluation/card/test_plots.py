"""Pictures of a card."""

import copy
import pathlib
import sys

import pytest
import tensorflow as tf

import sample_card
from cvr.evaluation.card import files, plots, schema

BAR = (0x9C, 0xC7, 0xE3)


def row(suite, name, dataset, metric='top_1', split='test'):
  return {
    'suite': suite, 'name': name, 'dataset': dataset, 'metric': metric,
    'split': split, 'value': 0.5, 'low': None, 'high': None,
  }  # fmt: skip


def pixels(png):
  return tf.io.decode_png(png, channels=3).numpy()


def count(png, colour):
  return int((pixels(png) == colour).all(-1).sum())


def test_pictures_of_a_whole_card(tmp_path):
  pytest.importorskip('matplotlib')
  made, scores = sample_card.make(images=100)
  files.write(str(tmp_path), made, scores)
  names = sorted(path.name for path in tmp_path.glob('*.png'))
  assert names == [
    'card_accuracy.png', 'card_compression.png', 'card_robustness.png'
  ]  # fmt: skip
  text = (tmp_path / 'card.md').read_text()
  for name in names:
    assert text.count(f'({name})') == 1
    assert pixels((tmp_path / name).read_bytes()).std() > 10


def test_bars_are_as_long_as_accuracies():
  pytest.importorskip('matplotlib')
  areas = []
  for value in (0.24, 0.96):
    rows = [row('linear', 'online', 'cifar10') | {'value': value}]
    drawn = plots.draw(rows, schema.SHARES)
    areas.append(count(drawn['card_accuracy.png'], BAR))
  assert areas[1] / areas[0] == pytest.approx(4, rel=0.03)


def test_a_line_for_each_data_set_in_a_panel_for_each_name():
  pytest.importorskip('matplotlib')
  curve = {'x': [1, 2, 3], 'y': [0.9, 0.5, 0.1], 'x_label': 'severity',
           'y_label': 'accuracy'}  # fmt: skip
  blur = row('robustness', 'blur', 'a', 'nats') | {'curve': curve}
  other = copy.deepcopy(blur) | {'dataset': 'b'}
  one = plots.draw([blur], schema.SHARES)['card_robustness.png']
  two = plots.draw([blur, other], schema.SHARES)['card_robustness.png']
  blue, red = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
  assert count(one, blue) > 100 and not count(one, red)
  # The other one's line lies upon it.
  assert count(two, red) > 100
  fog = blur | {'name': 'fog'}
  more = plots.draw([blur, fog] * 3 + [blur | {'name': 'snow'}], ())
  assert list(more) == ['card_robustness.png']
  wide = pixels(more['card_robustness.png']).shape[1]
  assert wide == 1.5 * pixels(one).shape[1]


def test_curves_of_one_panel_are_lines_in_it():
  pytest.importorskip('matplotlib')
  curve = {'x': [1, 2, 3], 'y': [0.9, 0.5, 0.1], 'x_label': 'severity',
           'y_label': 'accuracy', 'panel': 'fog', 'line': 'online'}  # fmt: skip
  online = row('robustness', 'fog/online', 'a', 'nats') | {'curve': curve}
  lower = curve | {'y': [0.8, 0.4, 0.0], 'line': 'frozen'}
  frozen = online | {'name': 'fog/frozen', 'curve': lower}
  one = plots.draw([online], ())['card_robustness.png']
  two = plots.draw([online, frozen], ())['card_robustness.png']
  blue, red = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
  assert count(one, blue) > 100 and not count(one, red)
  assert count(two, blue) > 100 and count(two, red) > 100
  assert pixels(two).shape == pixels(one).shape
  # In panels of their own the picture is wider.
  apart = frozen | {'curve': lower | {'panel': 'snow'}}
  three = plots.draw([online, apart, apart | {'name': 'x'}], ())
  assert pixels(three['card_robustness.png']).shape == pixels(one).shape
  snow = online | {'curve': curve | {'panel': 'frost'}}
  wide = plots.draw([online, apart, snow], ())['card_robustness.png']
  assert pixels(wide).shape[1] == 1.5 * pixels(one).shape[1]


def test_without_matplotlib(monkeypatch, tmp_path):
  for module in ('matplotlib', 'matplotlib.figure'):
    monkeypatch.setitem(sys.modules, module, None)
  files.write(str(tmp_path), *sample_card.make(images=50))
  assert not list(pathlib.Path(tmp_path).glob('*.png'))
  assert '## Plots' not in (tmp_path / 'card.md').read_text()
