"""Nearest neighbours by Hamming distance, by brute force over packed codes.

Codes come as np.packbits(bits, axis=-1) leaves them, uint8 [n, ceil(k / 8)].
Neighbours are in order of (distance, row): the same ones every time.
"""

import functools
import io
import json
import os
from typing import NamedTuple

import numpy as np

_WORD = np.dtype('<u8')
# A block's words wait in the cache for one query after the other.
_BLOCK = 16384
# Of three words at most 192 bits differ, which still fits into a byte.
_GROUP = 3
# Distance and row as one number to sort by, the row in the lower bits.
_ROW_BITS = 40
# From so many queries on faiss is the faster one, with its copy of the index.
_MANY = 32
ENGINES = ('auto', 'numpy', 'faiss')


class Index(NamedTuple):
  """Codes and what they are of; of W * 64 bits the last ones are padding, 0."""

  words: np.ndarray  # [W, n] uint64: the same word of all codes is contiguous
  bits: int  # that count
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
  """The index, if its parts are of one size and of the right kinds."""
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


def save(path, index, open=open, replace=os.replace):
  """Writes an .npz so that readers see a whole file or none."""
  buffer = io.BytesIO()
  np.savez(buffer, **index._replace(facts=json.dumps(index.facts))._asdict())
  with open(f'{path}.new', 'wb') as file:
    file.write(buffer.getvalue())
  replace(f'{path}.new', path)


def load(path, open=open):
  """A file that save wrote -> Index; ValueError for any other."""
  with open(path, 'rb') as file:
    data = file.read()
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      parts = {name: arrays[name] for name in Index._fields}
    bits, facts = parts['bits'], parts['facts']
    if bits.ndim or bits.dtype.kind not in 'iu' or facts.dtype.kind != 'U':
      raise ValueError(f'bits: {bits.dtype} {list(bits.shape)}')
    parts |= {'bits': int(bits), 'facts': json.loads(str(facts))}
    return _checked(Index(**parts))
  # The file may be anything, and readers of zip files raise anything.
  except Exception as error:
    why = str(error).partition('\n')[0][:200] or type(error).__name__
    raise ValueError(
      f'{path} is not an index of codes, or it is damaged ({why}). Name '
      'another file, or move it away and make it again.'
    ) from error


def nearest(index, queries, k, engine='auto'):
  """The k nearest codes -> (distances [q, k], rows [q, k]), both int64.

  queries: uint8 [q, ceil(bits / 8)]. engine: one of ENGINES, which find the
  same; auto is numpy, or for many queries faiss where it is installed.
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
  found = [np.zeros(0, np.int64)] * queries.shape[1]
  bounds = [index.bits + 1] * queries.shape[1]
  mixed = np.empty([_GROUP, _BLOCK], _WORD)
  for start in range(0, index.words.shape[1], _BLOCK):
    block = index.words[:, start : start + _BLOCK]
    for i, query in enumerate(queries.T):
      distances = _distances(block, query, mixed)
      # Rows ascend: at the bound those that were found before are first.
      near = np.flatnonzero(distances < bounds[i])
      if not len(near):
        continue
      keys = distances[near].astype(np.int64) << _ROW_BITS | (near + start)
      keys = np.concatenate([found[i], keys])
      if len(keys) >= k:
        keys = np.partition(keys, k - 1)[:k]
        bounds[i] = keys[k - 1] >> _ROW_BITS
      found[i] = keys
  keys = np.sort(np.array(found, np.int64).reshape(-1, k), axis=1)
  return keys >> _ROW_BITS, keys & ((1 << _ROW_BITS) - 1)


def _distances(block, query, mixed):
  """block: [W, m], query: [W] -> [m] uint16; mixed: room for a group."""
  total = np.zeros(block.shape[1], np.uint16)
  for w in range(0, len(block), _GROUP):
    group = block[w : w + _GROUP]
    differ = mixed[: len(group), : len(total)]
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
  """Of each number below 2^16 how many bits are set."""
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
  # Of equal distances at the cut 1.10 and 1.15 keep the first rows, as we do.
  order = np.lexsort([rows, distances])
  distances = np.take_along_axis(distances.astype(np.int64), order, 1)
  return distances, np.take_along_axis(rows, order, 1)


def recall(index, floats, k, sample, seed):
  """Share of the k nearest by cosine that are among the k nearest by bits.

  floats: [n, d], what the codes were made of. The mean over sample random
  rows as queries; a query is no neighbour of its own.
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
  _, found = _nearest(index, index.words[:, rows], k + 1)
  shared = 0
  # Not all queries at once: cosines of a million rows take 4 MB for each.
  for start in range(0, len(rows), 32):
    own, by_bits = rows[start : start + 32], found[start : start + 32]
    cosines = (floats[own] / norms[own, None]) @ floats.T
    cosines /= norms
    cosines[np.arange(len(own)), own] = -np.inf
    by_floats = np.argpartition(cosines, n - k, axis=1)[:, n - k :]
    for row, near, wanted in zip(own, by_bits, by_floats, strict=True):
      shared += len(np.intersect1d(near[near != row][:k], wanted))
  return shared / (k * len(rows))
