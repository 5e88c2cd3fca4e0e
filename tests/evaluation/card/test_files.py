"""A card's files: read as they were written, complete or the old ones."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

import sample_card
from cvr.evaluation.card import comparison, files, schema


def same(one, other):
  """Two cards with their scores."""
  assert one[0] == other[0]
  assert one[1].keys() == other[1].keys()
  for name, array in one[1].items():
    np.testing.assert_array_equal(array, other[1][name])
  return True


def test_a_card_comes_back(tmp_path, no_plots):
  made, scores = sample_card.make(images=50)
  names = files.write(f'{tmp_path}/eval', made, scores)
  assert sorted(names) == sorted(os.listdir(f'{tmp_path}/eval'))
  for path in (f'{tmp_path}/eval', f'{tmp_path}/eval/card.json'):
    assert same(files.read(path), (made, scores))
  assert sorted(path.name for path in (tmp_path / 'eval').iterdir()) == [
    'card.json', 'card.md', 'card_rows.npz'
  ]  # fmt: skip


def test_names_with_slashes_and_numbers_of_numpy(tmp_path, no_plots):
  made, _ = sample_card.make(images=50)
  row = made['numbers'][0] | {'dataset': 'folder:../data/x', 'low': None}
  row['value'], row['protocol'] = np.float32(0.5), {'l2': np.arange(3)}
  made['numbers'] = [row]
  ids = np.array(['a', 'bcd'], object)
  written = {schema.key(row): np.ones(2), 'ids/folder:../data/x/test': ids}
  files.write(str(tmp_path), made, written)
  found, scores = files.read(str(tmp_path))
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
  files.write(folder, *before)
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
    patched.setattr(tf.io.gfile, *broken[cut])
    with pytest.raises(OSError):
      files.write(folder, *after)
  names = ['card_rows.npz', 'card.json', 'card.md']
  for name in names[names.index(file) :]:
    assert (tmp_path / name).read_bytes() == old[name]
  for name in names[: names.index(file)]:
    assert (tmp_path / name).read_bytes() != old[name]
  assert files.read(folder)[0] == (after if file == 'card.md' else before)[0]
  files.write(folder, *after)
  assert same(files.read(folder), after)


def broken_cards():
  made, _ = sample_card.make(images=20)
  yield 'is not JSON', '{"version": 1, "numbers": [{"suite"'
  yield 'is not JSON', b'\x89PNG\xff\xfe'
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
    ('has a description that is not text', {'dataset': None}),
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
  yield 'is not a number', made | {'numbers': [3]}
  yield (
    'top_1 of linear/online/imagenet2012/test occurs twice',
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
    with pytest.raises(schema.CardError, match=why):
      files.write(f'{tmp_path}/new', content, {})
    assert not (tmp_path / 'new').exists()
  with pytest.raises(schema.CardError, match=why) as error:
    files.read(str(path))
  message = str(error.value)
  assert message.startswith(str(path)) and '\n' not in message
  assert message.endswith('name a card.json of --mode=evaluate.')


def test_a_protocol_that_json_cannot_hold(tmp_path):
  made, _ = sample_card.make(images=20)
  made['numbers'][0]['protocol']['l2'] = float('inf')
  with pytest.raises(schema.CardError, match='cannot be written'):
    files.write(f'{tmp_path}/new', made, {})
  assert not (tmp_path / 'new').exists()


def test_a_card_that_is_not_there(tmp_path):
  for path in (f'{tmp_path}/card.json', f'{tmp_path}/none'):
    with pytest.raises(schema.CardError, match='cannot be read: name a card'):
      files.read(path)
  (tmp_path / 'card.json').mkdir()
  with pytest.raises(schema.CardError, match='cannot be read'):
    files.read(str(tmp_path))


def test_scores_that_are_lost_or_damaged(tmp_path, no_plots):
  files.write(str(tmp_path), *sample_card.make(images=50))
  path = tmp_path / 'card_rows.npz'
  whole = path.read_bytes()
  for content in (whole[: len(whole) // 2], b'', b'not numpy'):
    path.write_bytes(content)
    with pytest.raises(schema.CardError, match='damaged'):
      files.read(str(tmp_path))
  path.unlink()
  assert files.read(str(tmp_path))[1] == {}


def test_a_flipped_bit_is_found_or_harmless(tmp_path, no_plots):
  files.write(str(tmp_path), *sample_card.make(images=50))
  before = files.read(str(tmp_path))
  path = tmp_path / 'card_rows.npz'
  whole, found = path.read_bytes(), 0
  for at in range(20, len(whole), len(whole) // 150):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
    try:
      assert same(files.read(str(tmp_path)), before)
    except schema.CardError as error:
      found += 'damaged' in str(error)
  assert found > 100


def test_a_card_that_is_set_aside_keeps_its_own_scores(tmp_path, no_plots):
  first, second = sample_card.make(seed=1), sample_card.make(seed=2)
  folder = str(tmp_path)
  files.write(folder, *first)
  kept = files.set_aside(folder, 'abc')
  assert (
    kept == f'{folder}/card-abc.json' and not (tmp_path / 'card.json').exists()
  )
  files.write(folder, *second)
  assert same(files.read(kept), first) and same(files.read(folder), second)
  # Without scores, as of a card that was cut off.
  (tmp_path / 'card_rows.npz').unlink()
  assert files.read(files.set_aside(folder, 'def'))[1] == {}


def texts(value):
  """All of the texts in a value of JSON, names of parts too."""
  if isinstance(value, str):
    return [value]
  if isinstance(value, dict):
    return [t for pair in value.items() for part in pair for t in texts(part)]
  return [t for v in value for t in texts(v)] if isinstance(value, list) else []


def test_texts_of_a_foreign_card_are_bounded_and_plain(
  tmp_path, no_plots, capsys
):
  """In every place that has one: a terminal would obey their characters."""
  evil = '\x1b]0;evil\x07\u202e\n## Not of this page ' + 10**5 * 'x'
  for side in 'ab':
    made, scores = sample_card.make(images=50)
    made['numbers'] = made['numbers'][:2]
    row = made['numbers'][0]
    scores = {schema.key(row): np.ones(50)}
    row |= {'dataset': f'{evil}{side}', 'name': evil}
    row['protocol'] = {evil: [evil, {evil: f'{evil}{side}'}]}
    made['checkpoint'] |= {'method': evil, 'hash': f'{evil}{side}'}
    made['checkpoint']['settings'] = {'ceb_beta': side + evil, 'seed': evil}
    made['missing'] = [{'suite': evil, 'name': evil, 'why': evil}]
    files.write(str(tmp_path / side), made, scores)
    card, _ = files.read(str(tmp_path / side))
    assert len(texts(card)) > 30
    assert all(t.isprintable() and len(t) < 1100 for t in texts(card))
  cards = [str(tmp_path / side) for side in 'ab']
  comparison.report([*cards, cards[0]], '', print)
  lines = capsys.readouterr().out.splitlines()
  assert all(line.isprintable() for line in lines)
  assert not any(line.startswith('## Not') for line in lines)
  assert sum(map(len, lines)) < 50_000


def test_scores_are_found_under_a_name_that_was_made_plain(tmp_path, no_plots):
  made, _ = sample_card.make(images=50)
  made['numbers'] = [made['numbers'][0] | {'dataset': 'folder:a\tb'}]
  files.write(
    str(tmp_path), made, {schema.key(made['numbers'][0]): np.arange(50)}
  )
  card, scores = files.read(str(tmp_path))
  assert scores[schema.key(card['numbers'][0])].tolist() == list(range(50))


def test_json_that_is_nested_too_deeply_is_no_card(tmp_path):
  (tmp_path / 'card.json').write_text('[' * 100_000 + ']' * 100_000)
  with pytest.raises(schema.CardError, match='not JSON'):
    files.read(str(tmp_path))
