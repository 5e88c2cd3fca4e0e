"""Neighbours by Hamming distance against loops over Python's integers."""

import io
import json
import sys

import numpy as np
import pytest

from cvr.evaluation.search import hamming


def make(n, bits, seed=0, share=0.5):
  """n random codes, of the given share of ones, and their index."""
  rng = np.random.default_rng(seed)
  codes = np.packbits(rng.random([n, bits]) < share, axis=-1)
  ids = [f'train/{i}' for i in range(n)]
  return codes, hamming.make_index(codes, bits, ids, np.arange(n) % 7, {'a': 1})


def by_hand(codes, query):
  """[(distance, row)] of all codes, the nearest first."""
  numbers = [int.from_bytes(code.tobytes(), 'big') for code in codes]
  query = int.from_bytes(query.tobytes(), 'big')
  return sorted((f'{x ^ query:b}'.count('1'), i) for i, x in enumerate(numbers))


@pytest.fixture(params=['NumPy 2', 'NumPy 1', 'faiss'])
def engine(request, monkeypatch):
  """The ways to count, all over blocks so small that there are many."""
  monkeypatch.setattr(hamming, '_BLOCK', 48)
  if request.param == 'faiss':
    pytest.importorskip(
      'faiss', reason="faiss is not installed: pip install -e '.[search]'"
    )
    return 'faiss'
  if request.param == 'NumPy 1':
    monkeypatch.delattr(np, 'bitwise_count', raising=False)
  elif not hasattr(np, 'bitwise_count'):
    pytest.skip('NumPy 1 has no bitwise_count')
  return 'numpy'


@pytest.mark.parametrize('bits', [1, 3, 8, 11, 64, 65, 200, 512])
def test_neighbours_are_those_found_by_hand(bits, engine):
  codes, index = make(230, bits)
  queries = make(9, bits, seed=1)[0]
  for k in (1, 7, 60, 230):
    distances, rows = hamming.nearest(index, queries, k, engine)
    assert distances.dtype == rows.dtype == np.int64
    for query, *found in zip(queries, distances, rows, strict=True):
      wanted = by_hand(codes, query)[:k]
      assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == wanted


def test_of_equal_codes_the_first_rows_are_taken(engine):
  index = hamming.make_index(
    np.zeros([200, 2], np.uint8), 16, ['x'] * 200, [0] * 200, {}
  )
  distances, rows = hamming.nearest(
    index, np.array([[0, 255]], 'u1'), 99, engine
  )
  assert (distances == 8).all() and rows.tolist() == [[*range(99)]]


def test_codes_that_come_nearer_and_nearer(engine):
  ones = np.arange(200)[::-1, None] > np.arange(256)
  codes = np.packbits(ones, axis=-1)
  index = hamming.make_index(codes, 256, ['x'] * 200, [0] * 200, {})
  distances, rows = hamming.nearest(index, np.zeros([1, 32], 'u1'), 60, engine)
  assert distances.tolist() == [[*range(60)]]
  assert rows.tolist() == [[*range(199, 139, -1)]]


@pytest.mark.parametrize('bits', [2048, 2**16 - 1])
def test_the_largest_distance_is_counted(bits, engine):
  codes = np.packbits(np.array([[True], [False]]).repeat(bits, 1), axis=-1)
  index = hamming.make_index(codes, bits, ['a', 'b'], [0, 1], {})
  distances, rows = hamming.nearest(index, codes, 2, engine)
  assert distances.tolist() == [[0, bits]] * 2
  assert rows.tolist() == [[0, 1], [1, 0]]


def test_no_queries_have_no_neighbours():
  _, index = make(20, 16)
  found = hamming.nearest(index, np.zeros([0, 2], 'u1'), 3, 'numpy')
  assert [x.shape for x in found] == [(0, 3)] * 2


def test_without_faiss_numpy_is_taken_or_faiss_asked_for(monkeypatch):
  monkeypatch.setitem(sys.modules, 'faiss', None)
  codes, index = make(40, 16)
  distances, _ = hamming.nearest(index, codes, 40)
  assert distances[4].tolist() == [d for d, _ in by_hand(codes, codes[4])]
  with pytest.raises(ValueError, match=r'pip install .*search'):
    hamming.nearest(index, codes, 2, 'faiss')


@pytest.mark.parametrize(
  'queries, engine, taken',
  [(31, 'auto', 'numpy'), (32, 'auto', 'faiss'), (1, 'faiss', 'faiss')]
  + [(99, 'numpy', 'numpy')],
)
def test_faiss_is_for_many_queries(queries, engine, taken, monkeypatch):
  monkeypatch.setitem(sys.modules, 'faiss', json)
  monkeypatch.setattr(hamming, '_by_faiss', lambda *_: 'faiss')
  monkeypatch.setattr(hamming, '_by_numpy', lambda *_: 'numpy')
  codes, index = make(99, 16)
  assert hamming.nearest(index, codes[:queries], 1, engine) == taken


@pytest.mark.parametrize(
  'queries, k, engine, why',
  [
    (np.zeros([1, 2], 'u1'), 0, 'numpy', '0 neighbours of 20'),
    (np.zeros([1, 2], 'u1'), 21, 'numpy', '21 neighbours of 20'),
    (np.zeros([1, 3], 'u1'), 1, 'numpy', r'11 bits are uint8 \[n, 2\]'),
    (np.zeros([2], 'u1'), 1, 'numpy', r'not uint8 \[2\]'),
    (np.zeros([1, 2], 'i8'), 1, 'numpy', 'not int64'),
    (np.full([1, 2], 255, 'u1'), 1, 'numpy', 'beyond the 11'),
    (np.zeros([1, 2], 'u1'), 1, 'scann', 'there are auto, numpy, faiss'),
  ],
)
def test_queries_that_do_not_fit_are_refused(queries, k, engine, why):
  with pytest.raises(ValueError, match=why):
    hamming.nearest(make(20, 11)[1], queries, k, engine)


def test_an_index_is_read_as_it_was_written():
  _, index = make(30, 70)
  found = hamming.from_bytes(hamming.to_bytes(index))
  assert found.bits == 70 and found.facts == {'a': 1}
  for name in ('words', 'ids', 'labels'):
    written, read = getattr(index, name), getattr(found, name)
    assert written.dtype == read.dtype and (written == read).all()
  assert found.ids[3] == 'train/3'


def test_damage_is_seen_in_every_part_of_a_file():
  data = hamming.to_bytes(make(40, 64)[1])
  at = data.index(make(40, 64)[1].words.tobytes())
  flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
  cuts = [data[:n] for n in (0, 1, at + 9, len(data) - 30)]
  for damaged in (flipped, b'not an index', data[at:], *cuts):
    with pytest.raises(ValueError):
      hamming.from_bytes(damaged)


class Trap:
  """Says so when a pickle of it is opened."""

  def __reduce__(self):
    return (pytest.fail, ('a pickle was opened',))


@pytest.mark.parametrize(
  'name, value, why',
  [
    ('words', None, 'words'),
    ('words', np.zeros([2, 9], 'u8'), r'words: uint64 \[2, 9\]'),
    ('words', np.zeros([1, 10], 'u8'), r'words: uint64 \[1, 10\]'),
    ('words', np.zeros([2, 10], 'u4'), 'words: uint32'),
    ('words', np.zeros([2, 10], '>u8'), 'words: >u8'),
    ('words', np.full([2, 10], 2**64 - 1, 'u8'), 'beyond the 70'),
    ('words', np.array([[Trap()] * 10] * 2), 'allow_pickle'),
    ('bits', 64, r'words: uint64 \[2, 10\]'),
    ('bits', 0, '10 codes of 0 bits'),
    ('bits', -70, '10 codes of -70 bits'),
    ('bits', 2**16, '10 codes of 65536 bits'),
    ('bits', 70.0, 'bits: float64'),
    ('bits', [70], r'bits: int64 \[1\]'),
    ('ids', ['a'] * 9, 'ids: <U1'),
    ('ids', np.arange(10), 'ids: int64'),
    ('ids', [['a'] * 10], r'ids: <U1 \[1, 10\]'),
    ('labels', np.zeros(10), 'labels: float64'),
    ('labels', np.zeros([0], int), '0 codes'),
    ('labels', 3, '0 codes'),
    ('facts', 'no JSON', 'Expecting value'),
    ('facts', '[1]', 'facts: list'),
    ('facts', np.array([Trap()]), 'allow_pickle'),
  ],
)
def test_files_that_contradict_themselves_are_refused(name, value, why):
  parts = make(10, 70)[1]._asdict() | {'facts': json.dumps({})}
  parts[name] = value
  file = io.BytesIO()
  np.savez(file, **{k: v for k, v in parts.items() if v is not None})
  with pytest.raises(ValueError, match=why):
    hamming.from_bytes(file.getvalue())


def test_parts_that_do_not_fit_make_no_index():
  codes, _ = make(10, 16)
  with pytest.raises(ValueError, match=r'ids: <U1 \[9\]'):
    hamming.make_index(codes, 16, ['a'] * 9, [0] * 10, {})
  with pytest.raises(ValueError, match='beyond the 15'):
    hamming.make_index(codes | 1, 15, ['a'] * 10, [0] * 10, {})


# With 3 bits an image has more copies than neighbours are asked for.
@pytest.mark.parametrize('bits', [3, 24])
def test_recall_is_the_share_found_by_hand(bits):
  rng = np.random.default_rng(2)
  floats = rng.normal(size=[70, bits]).astype(np.float32)
  floats *= rng.uniform(0.1, 10, [70, 1])
  codes = np.packbits(floats > 0, axis=-1)
  index = hamming.make_index(codes, bits, ['x'] * 70, [0] * 70, {})
  shares = []
  for i, x in enumerate(floats.astype(float)):
    by_bits = [j for _, j in by_hand(codes, codes[i]) if j != i][:5]
    apart = [
      (-(x @ y) / np.sqrt((x @ x) * (y @ y)), j)
      for j, y in enumerate(floats.astype(float))
      if j != i
    ]
    by_floats = [j for _, j in sorted(apart)[:5]]
    shares.append(len({*by_bits} & {*by_floats}) / 5)
  assert hamming.recall(index, floats, 5, 70, 0) == pytest.approx(
    np.mean(shares), abs=1e-12
  )
  own = np.random.default_rng(3).choice(70, 8, replace=False)
  assert hamming.recall(index, floats, 5, 8, 3) == pytest.approx(
    np.mean([shares[i] for i in own]), abs=1e-12
  )
  assert hamming.recall(index, floats, 69, 70, 0) == 1


def test_recall_wants_floats_of_the_same_rows():
  _, index = make(20, 16)
  for floats, k in (
    (np.ones([19, 4]), 3),
    (np.ones(20), 3),
    (np.ones([20, 4]), 20),
  ):
    with pytest.raises(ValueError, match='recall at'):
      hamming.recall(index, floats, k, 5, 0)
  with pytest.raises(ValueError, match='0 queries'):
    hamming.recall(index, np.ones([20, 4]), 3, 0, 0)
  with pytest.raises(ValueError, match='not finite'):
    hamming.recall(index, np.full([20, 4], np.nan), 3, 5, 0)
