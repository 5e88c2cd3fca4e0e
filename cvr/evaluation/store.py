"""Arrays that are made once and kept on disk, under facts that identify them.

A folder per set of facts, named by their hash: features of a checkpoint on a
data set under a preprocessing, or a head fitted on them. Rows are written in
parts and facts.json last: a folder without it is unfinished, and made again.
"""

import hashlib
import io
import json
import math
import os
import struct
import tokenize
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from cvr.checkpoints.files import write_atomically

_DEFLATE = 1032  # Nothing gets smaller by more than that.
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
_ROWS = 20_000  # In a file.
_FACTS = 'facts.json'
# What reading a missing, cut or corrupted file raises.
DAMAGE = (
  *(tf.errors.NotFoundError, ValueError, OSError, EOFError, KeyError),
  *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
  *(TypeError, OverflowError, SyntaxError, struct.error, tokenize.TokenError),
)


def digest(facts):
  """What JSON can hold -> 16 hexadecimal digits."""
  text = json.dumps(facts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path, arrays):
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  with tf.io.gfile.GFile(path, 'wb') as file:
    file.write(buffer.getvalue())


def _read(path):
  with tf.io.gfile.GFile(path, 'rb') as file:
    return unpacked(file.read())


def unpacked(data):
  """The bytes of an NPZ file -> {key: array}; one of DAMAGE, if it is none.

  Nothing is allocated that a header announces and the file does not hold, and
  nothing is unpickled.
  """
  arrays = {}
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    for member in archive.infolist():
      if not member.filename.endswith('.npy'):
        raise ValueError('it holds something else than arrays')
      if member.file_size > _DEFLATE * max(1, member.compress_size):
        raise ValueError('a size in it is too large')
      with archive.open(member) as file:
        arrays[member.filename.removesuffix('.npy')] = _array(
          file.read(member.file_size)
        )
        file.read(1)  # At the end the checksum is compared.
  return arrays


def _array(content):
  """The bytes of an NPY file -> the array."""
  file = io.BytesIO(content)
  shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
  announced = math.prod(shape) * dtype.itemsize
  if dtype.hasobject:
    raise ValueError('it holds Python objects, and allow_pickle is False')
  if announced > len(content) or min([0, *shape]) < 0:
    raise ValueError(f'a header in it announces {dtype} {shape}'[:200])
  file.seek(0)
  return np.load(file, allow_pickle=False)


def _joined(pieces):
  return {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}


class Store:
  """Folders of arrays below one folder, local or in a bucket."""

  def __init__(self, folder):
    self.folder = folder

  def _place(self, facts):
    return os.path.join(self.folder, digest(facts))

  def _finished(self, place, facts):
    """How many files there are; None where they are of other facts."""
    try:
      with tf.io.gfile.GFile(os.path.join(place, _FACTS)) as file:
        record = json.load(file)
      return record['files'] if record['facts'] == facts else None
    except (tf.errors.NotFoundError, ValueError, LookupError, TypeError):
      return None

  def _load(self, place, count):
    """The arrays in a folder; None where a file is damaged or missing."""
    names = [os.path.join(place, f'{i:05d}.npz') for i in range(count)]
    try:
      return _joined([_read(name) for name in names])
    except DAMAGE:
      return None

  def rows(self, facts, make):
    """The rows {name: [n, ...]} of facts; they are made if they are missing.

    make() yields them in pieces; it is called only then.
    """
    place = self._place(facts)
    count = self._finished(place, facts)
    rows = self._load(place, count) if count else None
    return rows or self._make(place, facts, make())

  def _make(self, place, facts, pieces):
    tf.io.gfile.makedirs(place)
    record = os.path.join(place, _FACTS)
    if tf.io.gfile.exists(record):
      tf.io.gfile.remove(record)
    waiting, parts = [], []
    for piece in pieces:
      waiting.append(piece)
      if sum(len(next(iter(p.values()))) for p in waiting) >= _ROWS:
        parts.append(self._part(place, len(parts), waiting))
        waiting = []
    if waiting:
      parts.append(self._part(place, len(parts), waiting))
    content = json.dumps({'facts': facts, 'files': len(parts)}, sort_keys=True)
    write_atomically(record, content)
    return _joined(parts)

  def _part(self, place, number, pieces):
    arrays = _joined(pieces)
    _write(os.path.join(place, f'{number:05d}.npz'), arrays)
    return arrays
