"""Nearest neighbours by Hamming distance, by brute force over packed codes.

Codes are np.packbits(bits, axis=-1): uint8 [n, ceil(k / 8)]. Neighbours are in
order of (distance, row), so that ties have one order.
"""

import functools
import io
import json
from typing import NamedTuple

import numpy as np

from cvr.evaluation import store
from cvr.training import progress

_WORD = np.dtype('<u8')
# Codes at a time: their words stay in the cache from query to query.
_BLOCK = 16384
# Words at a time: at most 192 bits of three differ, which fits into a byte.
_GROUP = 3
# Distance and row as one number to sort by, the row in the lower bits.
_ROW_BITS = 40
# For so many queries faiss is faster, although it copies the index.
_MANY = 32
ENGINES = ('auto', 'numpy', 'faiss')


class Index(NamedTuple):
  """Codes and their images; bits after the first `bits` of W * 64 are 0."""

  words: np.ndarray  # [W, n] uint64: the same word of all codes is contiguous
  bits: int
  ids: np.ndarray  # [n] strings
  labels: np.ndarray  # [n] ints
  facts: dict  # JSON: where the codes come from


def make_index(codes, bits, ids, labels, facts):
  """codes: uint8 [n, ceil(bits / 8)] -> Index."""
  ids, labels = np.asarray(ids, np.str_), np.asarray(labels)
  return _checked(Index(_words(codes, bits), bits, ids, labels, facts))


def _words(codes, bits):
  """uint8 [n, ceil(bits / 8)] -> words [W, n]."""
  codes = np.asarray(codes)
  if codes.dtype != np.uint8 or codes.shape[1:] != (-(-bits // 8),):
    raise ValueError(
      f'codes of {bits} bits are uint8 [n, {-(-bits // 8)}], not '
      f'{codes.dtype} {list(codes.shape)}'
    )
  padded = np.zeros([len(codes), -(-bits // 64) * 8], np.uint8)
  padded[:, : codes.shape[1]] = codes
  words = np.ascontiguousarray(padded.view(_WORD).T)
  _check_padding(words, bits)
  return words


def _check_padding(words, bits):
  counted = np.packbits(np.arange(len(words) * 64) < bits).view(_WORD)
  if (words[-1] & ~counted[-1]).any():
    raise ValueError(f'bits are set beyond the {bits} of each code')


def _checked(index):
  """The index, if its parts agree in size and have the right types."""
  words, bits, ids, labels, facts = index
  size = [-(-bits // 64), len(labels) if labels.ndim else 0]
  # Distances are uint16.
  if not (0 < bits < 2**16 and size[1]):
    raise ValueError(f'{size[1]} codes of {bits} bits')
  for name, array, shape, kinds in (
    ('words', words, size, 'u'),
    ('ids', ids, size[1:], 'U'),
    ('labels', labels, size[1:], 'iu'),
  ):
    if list(array.shape) != shape or array.dtype.kind not in kinds:
      raise ValueError(f'{name}: {array.dtype} {list(array.shape)}')
  if words.dtype != _WORD or not isinstance(facts, dict):
    raise ValueError(f'words: {words.dtype}; facts: {type(facts).__name__}')
  _check_padding(words, bits)
  return index


def to_bytes(index):
  """Index -> the content of an .npz file."""
  buffer = io.BytesIO()
  np.savez(buffer, **index._replace(facts=json.dumps(index.facts))._asdict())
  return buffer.getvalue()


def from_bytes(data):
  """What to_bytes gave -> Index; ValueError for anything else."""
  try:
    arrays = store.unpacked(data)
    parts = {name: arrays[name] for name in Index._fields}
    bits, facts = parts['bits'], parts['facts']
    if bits.ndim or bits.dtype.kind not in 'iu' or facts.dtype.kind != 'U':
      raise ValueError(f'bits: {bits.dtype} {list(bits.shape)}')
    parts |= {'bits': int(bits), 'facts': json.loads(str(facts))}
    return _checked(Index(**parts))
  # Data may be anything, and readers of zip files raise any exception.
  except Exception as error:
    why = str(error).partition('\n')[0][:200] or type(error).__name__
    raise ValueError(why) from error


def nearest(index, queries, k, engine='auto'):
  """The k nearest codes -> (distances [q, k], rows [q, k]), both int64.

  queries: uint8 [q, ceil(bits / 8)]. engine: one of ENGINES, which agree; auto
  is numpy, or faiss for many queries where it is installed.
  """
  return _nearest(index, _words(queries, index.bits), k, engine)


def _nearest(index, queries, k, engine='auto'):
  """queries: words [W, q]."""
  if not 0 < k <= index.words.shape[1]:
    raise ValueError(f'{k} neighbours of {index.words.shape[1]} codes')
  if engine not in ENGINES:
    raise ValueError(f'engine: {engine}; there are {", ".join(ENGINES)}')
  wanted = engine == 'faiss' or engine == 'auto' and queries.shape[1] >= _MANY
  faiss = _faiss() if wanted else None
  if engine == 'faiss' and not faiss:
    raise ValueError("faiss is not installed: pip install -e '.[search]'")
  if faiss:
    return _by_faiss(faiss, index, queries, k)
  return _by_numpy(index, queries, k)


def _by_numpy(index, queries, k):
  nearest_keys = [np.zeros(0, np.int64)] * queries.shape[1]
  bounds = [index.bits + 1] * queries.shape[1]
  room = np.empty([_GROUP, _BLOCK], _WORD)
  for start in range(0, index.words.shape[1], _BLOCK):
    block = index.words[:, start : start + _BLOCK]
    for i, query in enumerate(queries.T):
      distances = _distances(block, query, room)
      # Rows ascend: of codes at the bound the earlier ones are kept already.
      near = np.flatnonzero(distances < bounds[i])
      if not len(near):
        continue
      keys = distances[near].astype(np.int64) << _ROW_BITS | (near + start)
      keys = np.concatenate([nearest_keys[i], keys])
      if len(keys) >= k:
        keys = np.partition(keys, k - 1)[:k]
        bounds[i] = keys[k - 1] >> _ROW_BITS
      nearest_keys[i] = keys
  keys = np.sort(np.array(nearest_keys, np.int64).reshape(-1, k), axis=1)
  return keys >> _ROW_BITS, keys & ((1 << _ROW_BITS) - 1)


def _distances(block, query, room):
  """block: [W, m], query: [W] -> [m] uint16; room: for a group's words."""
  total = np.zeros(block.shape[1], np.uint16)
  for w in range(0, len(block), _GROUP):
    group = block[w : w + _GROUP]
    differ = room[: len(group), : len(total)]
    np.bitwise_xor(group, query[w : w + _GROUP, None], out=differ)
    total += np.add.reduce(_ones(differ), axis=0, dtype=np.uint8)
  return total


def _ones(words):
  """How many bits of each word are set, uint8."""
  if hasattr(np, 'bitwise_count'):
    return np.bitwise_count(words)
  # NumPy 1.
  counts = _table()[words.view(np.uint16)]
  return counts[:, ::4] + counts[:, 1::4] + counts[:, 2::4] + counts[:, 3::4]


@functools.cache
def _table():
  """The number of bits set in each number below 2^16."""
  numbers = np.arange(2**16, dtype=np.uint16).view(np.uint8)
  return np.unpackbits(numbers).reshape(-1, 16).sum(1, dtype=np.uint8)


def _faiss():
  try:
    import faiss
  except ImportError:
    return None
  return faiss


def _by_faiss(faiss, index, queries, k):
  flat = faiss.IndexBinaryFlat(64 * len(index.words))
  flat.add(np.ascontiguousarray(index.words.T).view(np.uint8))
  distances, rows = flat.search(
    np.ascontiguousarray(queries.T).view(np.uint8), k
  )
  # faiss 1.10 and 1.15 also keep the first rows among ties at the cut.
  order = np.lexsort([rows, distances])
  distances = np.take_along_axis(distances.astype(np.int64), order, 1)
  return distances, np.take_along_axis(rows, order, 1)


def recall(index, floats, k, sample, seed):
  """Share of the k nearest by cosine that are among the k nearest by bits.

  floats: [n, d], which the codes were made of. The mean over `sample` random
  rows as queries; a query does not count as its own neighbour.
  """
  n = index.words.shape[1]
  floats = np.asarray(floats, np.float32)
  if floats.ndim != 2 or len(floats) != n or not 0 < k < n or sample < 1:
    raise ValueError(
      f'recall at {k} of {n} codes, floats {floats.shape}, {sample} queries'
    )
  norms = np.sqrt(np.einsum('nd,nd->n', floats, floats))
  if not np.isfinite(norms).all():
    raise ValueError('recall: floats are not finite')
  norms = np.maximum(norms, np.finfo(np.float32).tiny)
  rows = np.random.default_rng(seed).choice(n, min(sample, n), replace=False)
  _, neighbours = _nearest(index, index.words[:, rows], k + 1)
  shared = 0
  # Not all queries at once: cosines of a million rows take 4 MB for each.
  starts = range(0, len(rows), 32)
  for start in progress.over(starts, 'Recall', len(starts), 'batches'):
    own, by_bits = (x[start : start + 32] for x in (rows, neighbours))
    cosines = (floats[own] / norms[own, None]) @ floats.T
    cosines /= norms
    cosines[np.arange(len(own)), own] = -np.inf
    by_floats = np.argpartition(cosines, n - k, axis=1)[:, n - k :]
    for row, near, wanted in zip(own, by_bits, by_floats, strict=True):
      shared += len(np.intersect1d(near[near != row][:k], wanted))
  return shared / (k * len(rows))
