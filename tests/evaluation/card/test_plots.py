"""Pictures of a card."""

import copy
import pathlib
import sys

import pytest
import tensorflow as tf

import sample_card
from cvr.evaluation.card import files, names, plots, schema

BAR = (0x9C, 0xC7, 0xE3)


def row(suite, name, dataset, metric='top_1', split='test'):
  return {
    'suite': suite, 'name': name, 'dataset': dataset, 'metric': metric,
    'split': split, 'value': 0.5, 'low': None, 'high': None,
  }  # fmt: skip


def draw(rows, shares, classes=None):
  card = {'checkpoint': {'method': 'byol', 'step': 7}, 'numbers': rows}
  return plots.draw(card, shares, classes)


def pixels(png):
  return tf.io.decode_png(png, channels=3).numpy()


def count(png, colour):
  return int((pixels(png) == colour).all(-1).sum())


def test_pictures_of_a_whole_card(tmp_path):
  pytest.importorskip('matplotlib')
  made, scores = sample_card.make(images=100)
  files.write(str(tmp_path), made, scores)
  pictures = sorted(path.name for path in tmp_path.glob('*.png'))
  assert pictures == [
    'card_accuracy.png', 'card_compression.png', 'card_robustness.png'
  ]  # fmt: skip
  text = (tmp_path / 'card.md').read_text()
  for name in pictures:
    assert text.count(f'({name})') == 1
    assert pixels((tmp_path / name).read_bytes()).std() > 10


def test_bars_are_as_long_as_accuracies():
  pytest.importorskip('matplotlib')
  areas = []
  for value in (0.24, 0.96):
    rows = [row('linear', 'online', 'cifar10') | {'value': value}]
    drawn = draw(rows, schema.SHARES)
    areas.append(count(drawn['card_accuracy.png'], BAR))
  assert areas[1] / areas[0] == pytest.approx(4, rel=0.03)


def test_a_line_for_each_data_set_in_a_panel_for_each_name():
  pytest.importorskip('matplotlib')
  curve = {'x': [1, 2, 3], 'y': [0.9, 0.5, 0.1], 'x_label': 'severity',
           'y_label': 'accuracy'}  # fmt: skip
  blur = row('robustness', 'blur', 'a', 'nats') | {'curve': curve}
  other = copy.deepcopy(blur) | {'dataset': 'b'}
  one = draw([blur], schema.SHARES)['card_robustness.png']
  two = draw([blur, other], schema.SHARES)['card_robustness.png']
  blue, red = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
  assert count(one, blue) > 100 and not count(one, red)
  # The other one's line lies upon it.
  assert count(two, red) > 100
  fog = blur | {'name': 'fog'}
  more = draw([blur, fog] * 3 + [blur | {'name': 'snow'}], ())
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
  one = draw([online], ())['card_robustness.png']
  two = draw([online, frozen], ())['card_robustness.png']
  blue, red = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
  assert count(one, blue) > 100 and not count(one, red)
  assert count(two, blue) > 100 and count(two, red) > 100
  assert pixels(two).shape == pixels(one).shape
  # In panels of their own the picture is wider.
  apart = frozen | {'curve': lower | {'panel': 'snow'}}
  three = draw([online, apart, apart | {'name': 'x'}], ())
  assert pixels(three['card_robustness.png']).shape == pixels(one).shape
  snow = online | {'curve': curve | {'panel': 'frost'}}
  wide = draw([online, apart, snow], ())['card_robustness.png']
  assert pixels(wide).shape[1] == 1.5 * pixels(one).shape[1]


def test_without_matplotlib(monkeypatch, tmp_path):
  for module in ('matplotlib', 'matplotlib.figure'):
    monkeypatch.setitem(sys.modules, module, None)
  files.write(str(tmp_path), *sample_card.make(images=50))
  assert not list(pathlib.Path(tmp_path).glob('*.png'))
  assert '## Plots' not in (tmp_path / 'card.md').read_text()


def test_accuracies_come_with_what_they_are_compared_with():
  rows = [
    row('linear', 'lbfgs', 'a'),
    row('knn', 'k20_t0.07', 'a'),
    row('knn', 'k10_t0.1', 'a'),
    row('knn', 'untrained/k20_t0.07', 'a') | {'value': 0.3},
    row('robustness', 'corrupted/online', 'a'),
  ]
  found = plots._references(rows, {'a/test': 8})
  assert [(name, at) for name, at, _ in found] == [
    ('chance', 12.5),
    ('untrained encoder, nearest neighbours', 30.0),
  ]
  assert plots._references(rows[:2], {}) == []
  panels = plots._panels(rows)
  assert [*panels] == ['in short', 'nearest neighbours']
  assert [r['name'] for r in panels['in short']] == [
    'lbfgs', 'k20_t0.07', 'corrupted/online']  # fmt: skip
  title = plots._title({'checkpoint': {'method': 'byol', 'step': 70}}, rows)
  assert title == 'BYOL, step 70\na, test'


def test_a_corruption_begins_with_clean_images():
  curve = {'x': [1, 2], 'y': [0.4, 0.2], 'x_label': 'severity',
           'y_label': 'top-1', 'line': 'online'}  # fmt: skip
  fog = row('robustness', 'fog/online', 'a') | {'curve': curve}
  clean = plots._clean([row('linear', 'online', 'a') | {'value': 0.75}, fog])
  made = plots._in_percent(plots._with_clean(fog, clean))
  assert made['x'] == [0, 1, 2] and made['y'] == [75, 40, 20]
  assert made['y_label'] == 'top-1, %'
  # Of another data set there is no clean accuracy.
  assert plots._with_clean(fog | {'dataset': 'b'}, clean) == curve


def test_the_rate_is_not_drawn_twice():
  kinds = ('representation', 'projection', 'mu_e', 'rate')
  rows = [row('compression', f'lipschitz_max/{k}', 'a', 'ratio') for k in kinds]
  drawn = [r['name'] for r in rows if not plots._is_told_twice(r, rows)]
  assert drawn == ['lipschitz_max/representation', 'lipschitz_max/projection']
  # Of another method e is not the projection.
  drawn = [r for r in rows[:3] if not plots._is_told_twice(r, rows[:3])]
  assert len(drawn) == 3


@pytest.mark.parametrize(
  'suite, name, says',
  [
    ('knn', 'k20_t0.07', '20 neighbours, temperature 0.07'),
    ('knn', 'untrained/k20_t0.07',
     'untrained encoder, 20 neighbours, temperature 0.07'),
    ('linear', 'lbfgs', 'linear, L-BFGS'),
    ('robustness', 'gaussian_noise/online', 'gaussian noise: probe of the run'),
    ('semi', '1pct_simclr', '1% of the labels, simclr'),
    ('compression', '8_numbers_of_4_bits', '8 numbers of 4 bits'),
    ('transfer', 'some_thing', 'some thing'),
  ],
)  # fmt: skip
def test_rows_have_names_for_readers(suite, name, says):
  assert names.of_row({'suite': suite, 'name': name}) == says
