"""Arrays on disk under their facts: made once, whole or made anew."""

import os

import numpy as np
import pytest
import tensorflow as tf

import hostile_files
from cvr.evaluation import store

FACTS = {'model': 'abc', 'look': {'crop': 0.875}}


def pieces(count, calls=None, stop=None):
  """Pieces of 3 rows; fails before piece `stop`."""

  def make():
    if calls is not None:
      calls.append(count)
    for i in range(count):
      if i == stop:
        raise KeyboardInterrupt
      at = np.arange(3 * i, 3 * i + 3)
      yield {'x': at[:, None] * np.ones([1, 2]), 'ids': np.array(list('abc'))}

  return make


def test_objects_in_an_archive_are_not_unpickled(tmp_path):
  path, mark = tmp_path / 'x.npz', tmp_path / 'MARK'
  np.savez(path, x=np.array([hostile_files.Payload(str(mark))], object))
  with np.load(path, allow_pickle=True) as archive:
    assert archive['x'] is not None
  assert mark.exists()  # It would have worked.
  mark.unlink()
  with pytest.raises(ValueError, match='Python objects'):
    store.unpacked(path.read_bytes())
  assert not mark.exists()


@pytest.fixture
def kept(tmp_path, monkeypatch):
  monkeypatch.setattr(store, '_ROWS', 5)  # Two pieces are a file.
  return store.Store(f'{tmp_path}/features')


def test_rows_are_made_once_and_come_back_as_they_were(kept):
  calls = []
  made = kept.rows(FACTS, pieces(5, calls))
  again = store.Store(kept.folder).rows(FACTS, pieces(1, calls))
  assert calls == [5]
  for rows in (made, again):
    np.testing.assert_array_equal(rows['x'][:, 1], np.arange(15))
    assert ''.join(rows['ids']) == 'abc' * 5
  (place,) = os.listdir(kept.folder)
  assert sorted(os.listdir(f'{kept.folder}/{place}')) == [
    *('00000.npz', '00001.npz', '00002.npz', 'facts.json')
  ]


def test_other_facts_are_other_rows(kept):
  calls = []
  kept.rows(FACTS, pieces(2, calls))
  for other in (
    FACTS | {'model': 'abd'},
    FACTS | {'look': {'crop': 1.0}},
    FACTS | {'seed': 0},
  ):
    kept.rows(other, pieces(3, calls))
  assert calls == [2, 3, 3, 3]
  assert len(os.listdir(kept.folder)) == 4


def test_what_was_cut_off_is_made_anew(kept):
  with pytest.raises(KeyboardInterrupt):
    kept.rows(FACTS, pieces(5, stop=3))
  (place,) = os.listdir(kept.folder)
  assert os.listdir(f'{kept.folder}/{place}') == ['00000.npz']
  calls = []
  rows = kept.rows(FACTS, pieces(4, calls))
  assert calls == [4] and len(rows['x']) == 12
  # An interrupted second making does not leave the old one's end.
  with pytest.raises(KeyboardInterrupt):
    kept._make(f'{kept.folder}/{place}', FACTS, pieces(4, stop=1)())
  assert len(kept.rows(FACTS, pieces(2, calls))['x']) == 6


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'gone', 'facts', 'other'])
def test_damage_is_seen_and_mended(kept, damage):
  kept.rows(FACTS, pieces(5))
  (place,) = os.listdir(kept.folder)
  part = f'{kept.folder}/{place}/00001.npz'
  facts = f'{kept.folder}/{place}/facts.json'
  with open(part, 'rb') as file:
    content = bytearray(file.read())
  if damage == 'cut':
    content = content[: len(content) // 2]
  if damage == 'flipped':
    content[len(content) // 3] ^= 0x40
  if damage in ('cut', 'flipped'):
    with open(part, 'wb') as file:
      file.write(content)
  if damage == 'gone':
    os.remove(part)
  if damage in ('facts', 'other'):
    with open(facts, 'w') as file:
      file.write('{"fil' if damage == 'facts' else '{"facts": {}, "files": 1}')
  calls = []
  rows = kept.rows(FACTS, pieces(5, calls))
  assert calls == [5]
  np.testing.assert_array_equal(rows['x'][:, 0], np.arange(15))


def test_a_store_that_does_not_answer_is_not_a_damaged_one(kept, monkeypatch):
  kept.rows(FACTS, pieces(2))

  def fail(*_):
    raise tf.errors.UnavailableError(None, None, 'no route')

  monkeypatch.setattr(store, '_read', fail)
  with pytest.raises(tf.errors.UnavailableError):
    kept.rows(FACTS, pieces(2))
