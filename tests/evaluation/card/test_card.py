"""A card's files, whole or the old ones; its page, number by number; plots."""

import copy
import json
import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import sample_card
from cvr.evaluation.card import card, references

BAR = (0x9C, 0xC7, 0xE3)


@pytest.fixture
def no_plots(monkeypatch):
  """Plots take seconds."""
  monkeypatch.setattr(card.plots, 'draw', lambda rows, shares: {})


def same(one, other):
  """Two cards with their scores."""
  assert one[0] == other[0]
  assert one[1].keys() == other[1].keys()
  for name, array in one[1].items():
    np.testing.assert_array_equal(array, other[1][name])
  return True


# Files -----------------------------------------------------------------------


def test_a_card_comes_back(tmp_path, no_plots):
  made, scores = sample_card.make(images=50)
  files = card.write(f'{tmp_path}/eval', made, scores)
  assert sorted(files) == sorted(os.listdir(f'{tmp_path}/eval'))
  for path in (f'{tmp_path}/eval', f'{tmp_path}/eval/card.json'):
    assert same(card.read(path), (made, scores))
  assert sorted(path.name for path in (tmp_path / 'eval').iterdir()) == [
    'card.json', 'card.md', 'card_rows.npz'
  ]  # fmt: skip


def test_names_with_slashes_and_numbers_of_numpy(tmp_path, no_plots):
  made, _ = sample_card.make(images=50)
  row = made['numbers'][0] | {'dataset': 'folder:../data/x', 'low': None}
  row['value'], row['protocol'] = np.float32(0.5), {'l2': np.arange(3)}
  made['numbers'] = [row]
  ids = np.array(['a', 'bcd'], object)
  written = {card.key(row): np.ones(2), 'ids/folder:../data/x/test': ids}
  card.write(str(tmp_path), made, written)
  found, scores = card.read(str(tmp_path))
  assert found['numbers'][0]['value'] == 0.5
  assert found['numbers'][0]['protocol'] == {'l2': [0, 1, 2]}
  assert scores['ids/folder:../data/x/test'].tolist() == ['a', 'bcd']
  assert scores['linear/online/folder:../data/x/test'].tolist() == [1, 1]


@pytest.mark.parametrize('cut', ['write', 'rename'])
@pytest.mark.parametrize('file', ['card_rows.npz', 'card.json', 'card.md'])
def test_an_interrupted_write(tmp_path, no_plots, monkeypatch, cut, file):
  """What was there stays as it was, from the file that failed on."""
  folder = str(tmp_path)
  before, after = (sample_card.make(seed, images=50) for seed in (0, 1))
  card.write(folder, *before)
  old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

  class Broken(tf.io.gfile.GFile):
    def write(self, content):
      if f'/{file}' not in self.name:
        return super().write(content)
      super().write(content[: len(content) // 2])
      self.close()
      raise OSError('no space left on device')

  def rename(source, target, overwrite, real=tf.io.gfile.rename):
    if target.endswith(f'/{file}'):
      raise OSError('killed')
    real(source, target, overwrite)

  broken = {'write': ('GFile', Broken), 'rename': ('rename', rename)}
  with monkeypatch.context() as patched:
    patched.setattr(card.tf.io.gfile, *broken[cut])
    with pytest.raises(OSError):
      card.write(folder, *after)
  names = ['card_rows.npz', 'card.json', 'card.md']
  for name in names[names.index(file) :]:
    assert (tmp_path / name).read_bytes() == old[name]
  for name in names[: names.index(file)]:
    assert (tmp_path / name).read_bytes() != old[name]
  assert card.read(folder)[0] == (after if file == 'card.md' else before)[0]
  card.write(folder, *after)
  assert same(card.read(folder), after)


def broken_cards():
  made, _ = sample_card.make(images=20)
  yield 'is no JSON', '{"version": 1, "numbers": [{"suite"'
  yield 'is no JSON', b'\x89PNG\xff\xfe'
  yield 'no list of numbers', []
  yield 'no list of numbers', {'loss': 3.5}
  yield 'no list of numbers', made | {'numbers': {'a': 1}}
  yield 'version 2, not 1', made | {'version': 2}
  yield 'names no checkpoint', made | {'checkpoint': None}
  row = made['numbers'][0]
  for why, change in (
    ('value of linear/online/imagenet2012/test', {'value': '0.7'}),
    ('value of linear/online/imagenet2012/test', {'value': None}),
    ('value of linear/online/imagenet2012/test', {'value': float('nan')}),
    ('low of linear/online/imagenet2012/test', {'low': float('inf')}),
    ('something else than text', {'dataset': None}),
    ('curve of linear/online', {'curve': {'x': [1], 'y': []}}),
    ('curve of linear/online', {'curve': {'x': [1], 'y': [2]}}),
    (
      'curve of linear/online',
      {
        'curve': {
          'x': [1],
          'y': [2],
          'x_label': '',
          'y_label': '',
          'panel': [1],
        }
      },
    ),
  ):
    yield why, made | {'numbers': [row | change]}
  no_split = {name: part for name, part in row.items() if name != 'split'}
  yield 'online has no split', made | {'numbers': [no_split]}
  yield 'no number', made | {'numbers': [3]}
  yield (
    'top_1 of linear/online/imagenet2012/test is there twice',
    made | {'numbers': [row, row]},
  )


@pytest.mark.parametrize(('why', 'content'), [*broken_cards()])
def test_what_is_no_card(tmp_path, no_plots, why, content):
  path = tmp_path / 'card.json'
  if isinstance(content, bytes | str):
    path.write_bytes(
      content if isinstance(content, bytes) else content.encode()
    )
  else:
    path.write_text(json.dumps(content))
    with pytest.raises(card.CardError, match=why):
      card.write(f'{tmp_path}/new', content, {})
    assert not (tmp_path / 'new').exists()
  with pytest.raises(card.CardError, match=why) as error:
    card.read(str(path))
  message = str(error.value)
  assert message.startswith(str(path)) and '\n' not in message
  assert message.endswith('name a card.json that --mode=evaluate has written.')


def test_a_protocol_that_json_cannot_hold(tmp_path):
  made, _ = sample_card.make(images=20)
  made['numbers'][0]['protocol']['l2'] = float('inf')
  with pytest.raises(card.CardError, match='cannot be written'):
    card.write(f'{tmp_path}/new', made, {})
  assert not (tmp_path / 'new').exists()


def test_a_card_that_is_not_there(tmp_path):
  for path in (f'{tmp_path}/card.json', f'{tmp_path}/none'):
    with pytest.raises(card.CardError, match='cannot be read: name a card'):
      card.read(path)
  (tmp_path / 'card.json').mkdir()
  with pytest.raises(card.CardError, match='cannot be read'):
    card.read(str(tmp_path))


def test_scores_that_are_lost_or_damaged(tmp_path, no_plots):
  card.write(str(tmp_path), *sample_card.make(images=50))
  path = tmp_path / 'card_rows.npz'
  whole = path.read_bytes()
  for content in (whole[: len(whole) // 2], b'', b'not numpy'):
    path.write_bytes(content)
    with pytest.raises(card.CardError, match='damaged'):
      card.read(str(tmp_path))
  path.unlink()
  assert card.read(str(tmp_path))[1] == {}


def test_a_flipped_bit_is_found_or_harmless(tmp_path, no_plots):
  card.write(str(tmp_path), *sample_card.make(images=50))
  before = card.read(str(tmp_path))
  path = tmp_path / 'card_rows.npz'
  whole, found = path.read_bytes(), 0
  for at in range(20, len(whole), len(whole) // 150):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
    try:
      assert same(card.read(str(tmp_path)), before)
    except card.CardError as error:
      found += 'damaged' in str(error)
  assert found > 100


def test_a_card_that_is_set_aside_keeps_its_own_scores(tmp_path, no_plots):
  first, second = sample_card.make(seed=1), sample_card.make(seed=2)
  folder = str(tmp_path)
  card.write(folder, *first)
  kept = card.set_aside(folder, 'abc')
  assert (
    kept == f'{folder}/card-abc.json' and not (tmp_path / 'card.json').exists()
  )
  card.write(folder, *second)
  assert same(card.read(kept), first) and same(card.read(folder), second)
  # Without scores, as of a card that was cut off.
  (tmp_path / 'card_rows.npz').unlink()
  assert card.read(card.set_aside(folder, 'def'))[1] == {}


# The page --------------------------------------------------------------------


def page(made):
  return '\n'.join(card.markdown(made))


def tables(made):
  """{suite: rows of cells}, without what is not of a suite."""
  found, suite = {}, None
  for line in card.markdown(made):
    if line.startswith('## '):
      suite = line[3:]
    elif line.startswith('| ') and suite:
      found.setdefault(suite, []).append(line[2:-2].split(' | '))
  return {suite: rows[2:] for suite, rows in found.items()}


def percent(value):
  return f'{100 * value:.1f}'


def test_the_page_has_exactly_the_numbers():
  made, _ = sample_card.make(images=500)
  found = tables(made)
  assert list(found) == [
    'linear', 'knn', 'semi', 'transfer', 'robustness', 'compression'
  ]  # fmt: skip
  cells = [cells for rows in found.values() for cells in rows]
  assert len(cells) == len(made['numbers']) == 42
  for row, (name, dataset, metric, value, interval, images, *_) in zip(
    made['numbers'], cells, strict=True
  ):
    assert name == row['name'] and dataset == f'{row["dataset"]}, test'
    assert images == '500'
    if row['metric'] in ('top_1', 'mean_per_class'):
      assert metric == row['metric'].replace('_', ' ') + ', %'
      assert value == percent(row['value'])
    else:
      assert metric == row['metric'] and float(value) == row['value']
    ends = [row['low'], row['high']]
    assert interval == ('' if None in ends else ' to '.join(map(percent, ends)))


def test_the_page_says_what_was_evaluated_and_what_is_missing():
  made, _ = sample_card.make(images=50)
  text = page(made)
  for part in (
    '# Evaluation of byol_ceb',
    '| path | runs/byol_ceb/ckpt-100 |',
    '| hash | 00000000 |',
    '| step | 100 |',
    '| created | 2025-01-31T12:00:00+00:00 |',
    '| versions | tensorflow 2.17.0, numpy 1.26.4 |',
    'dataset: imagenet2012; resnet depth: 50; train epochs: 1000',
    '- transfer, birdsnap: TFDS has no Birdsnap: --transfer=birdsnap=folder:',
    'nothing about another seed of training',
  ):
    assert text.count(part) == 1, part
  made['missing'] = []
  assert '## Missing' not in page(made)


def test_protocols_are_spelled_once():
  made, _ = sample_card.make(images=50)
  made['numbers'] = [r for r in made['numbers'] if r['suite'] == 'transfer']
  lines = card.markdown(made)
  (shared,) = [line for line in lines if line.startswith('Protocol: ')]
  assert shared == (
    'Protocol: crop: centre 224 of 224; bn: moving statistics; layer:'
    ' representation; seed: 0; grid: l2 45 values from 1e-06 to 1e+05.'
  )
  for row in made['numbers']:
    chosen = f'chosen: l2 {row["protocol"]["chosen"]["l2"]:.4g}.'
    (line,) = [line for line in lines if line.endswith(chosen)]
    assert f'logistic ({row["dataset"]})' in line


def test_rows_with_a_protocol_of_their_own():
  made, _ = sample_card.make(images=50)
  made['numbers'] = [r for r in made['numbers'] if r['suite'] == 'robustness']
  text = page(made)
  assert 'Protocol: ' not in text
  masked = [line for line in text.splitlines() if 'class mask' in line]
  assert len(masked) == 1 and masked[0].startswith('- imagenet_a: crop: ')
  assert 'class mask: 200 values from 0 to 995.' in masked[0]
  assert '- mce: pairs: 20000.' in text
  assert text.count('- all others: crop: centre 224 of 256; bn: ') == 1


# The papers' numbers ---------------------------------------------------------


def row(suite, name, dataset, metric='top_1', split='test'):
  return {
    'suite': suite, 'name': name, 'dataset': dataset, 'metric': metric,
    'split': split, 'value': 0.5, 'low': None, 'high': None,
  }  # fmt: skip


SHOWN = [
  ('byol_ceb', row('linear', 'sgd_byol', 'imagenet2012'), [75.8, 78.9]),
  ('byol_ceb', row('linear', 'online', 'imagenet2012'), [75.9, 79.1, 78.8]),
  ('dino', row('knn', 'k20_t0.07', 'imagenet2012'), [67.5]),
  ('contrastive', row('semi', '1pct_byol', 'imagenet2012'), [48.3]),
  ('byol', row('semi', 'simclr_10pct', 'imagenet2012'), [68.8]),
  ('byol', row('robustness', 'mean', 'imagenet_c'), [42.7]),
  ('contrastive_ceb', row('robustness', 'x', 'youtube_bb'), [59.5]),
  ('contrastive_ceb', row('transfer', 'logistic', 'cars196'), [52.7]),
  (
    'contrastive',
    row('transfer', 'logistic', 'oxford_flowers102', 'mean_per_class'),
    [88.4],
  ),
  ('stochcon_gaussian', row('linear', 'sgd_simclr', 'cifar10'), [92.4]),
]


@pytest.mark.parametrize(('method', 'number', 'wanted'), SHOWN)
def test_papers_numbers_beside_their_like(method, number, wanted):
  found = [value for _, value, _ in references.published(method, number)]
  assert {*wanted} <= {*found}
  made, _ = sample_card.make(method=method, images=20)
  text = page(made | {'numbers': [number]})
  for value in wanted:
    assert f'{value:.1f}' in text
  for change in (
    {'dataset': 'folder:imagenet2012'},
    {'metric': 'top_5'},
    {'split': 'train[90%:]'},
    {'split': 'validation[:1%]'},
    {'name': 'k200_t0.1' if number['suite'] == 'knn' else 'frozen_lbfgs_1pct'},
    {'suite': 'compression'},
  ):
    text = page(made | {'numbers': [number | change]})
    assert 'published' not in text, change
  made['checkpoint'] = made['checkpoint'] | {'method': 'er_byol'}
  assert 'published' not in page(made | {'numbers': [number]})


def test_numbers_that_only_look_alike():
  for method, number in (
    ('contrastive', row('transfer', 'logistic', 'pets')),
    ('contrastive', row('transfer', 'finetune', 'cifar10')),
    ('byol', row('transfer', 'logistic', 'cifar10')),
    ('byol', row('robustness', 'gaussian_noise', 'imagenet_c')),
    ('byol', row('robustness', 'x', 'imagenet_v2/topimages')),
    ('byol', row('semi', 'all', 'imagenet2012')),
  ):
    assert references.published(method, number) == []


# Plots -----------------------------------------------------------------------


def pixels(png):
  return tf.io.decode_png(png, channels=3).numpy()


def count(png, colour):
  return int((pixels(png) == colour).all(-1).sum())


def test_pictures_of_a_whole_card(tmp_path):
  pytest.importorskip('matplotlib')
  made, scores = sample_card.make(images=100)
  card.write(str(tmp_path), made, scores)
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
    drawn = card.plots.draw(rows, card.SHARES)
    areas.append(count(drawn['card_accuracy.png'], BAR))
  assert areas[1] / areas[0] == pytest.approx(4, rel=0.03)


def test_a_line_for_each_data_set_in_a_panel_for_each_name():
  pytest.importorskip('matplotlib')
  curve = {'x': [1, 2, 3], 'y': [0.9, 0.5, 0.1], 'x_label': 'severity',
           'y_label': 'accuracy'}  # fmt: skip
  blur = row('robustness', 'blur', 'a', 'nats') | {'curve': curve}
  other = copy.deepcopy(blur) | {'dataset': 'b'}
  one = card.plots.draw([blur], card.SHARES)['card_robustness.png']
  two = card.plots.draw([blur, other], card.SHARES)['card_robustness.png']
  blue, red = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
  assert count(one, blue) > 100 and not count(one, red)
  # The other one's line lies upon it.
  assert count(two, red) > 100
  fog = blur | {'name': 'fog'}
  more = card.plots.draw([blur, fog] * 3 + [blur | {'name': 'snow'}], ())
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
  one = card.plots.draw([online], ())['card_robustness.png']
  two = card.plots.draw([online, frozen], ())['card_robustness.png']
  blue, red = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
  assert count(one, blue) > 100 and not count(one, red)
  assert count(two, blue) > 100 and count(two, red) > 100
  assert pixels(two).shape == pixels(one).shape
  # In panels of their own the picture is wider.
  apart = frozen | {'curve': lower | {'panel': 'snow'}}
  three = card.plots.draw([online, apart, apart | {'name': 'x'}], ())
  assert pixels(three['card_robustness.png']).shape == pixels(one).shape
  snow = online | {'curve': curve | {'panel': 'frost'}}
  wide = card.plots.draw([online, apart, snow], ())['card_robustness.png']
  assert pixels(wide).shape[1] == 1.5 * pixels(one).shape[1]


def test_without_matplotlib(monkeypatch, tmp_path):
  for module in ('matplotlib', 'matplotlib.figure'):
    monkeypatch.setitem(sys.modules, module, None)
  card.write(str(tmp_path), *sample_card.make(images=50))
  assert not list(pathlib.Path(tmp_path).glob('*.png'))
  assert '## Plots' not in (tmp_path / 'card.md').read_text()
