"""Tar files of WebDataset: their headers, and the samples in them.

A tar file is read in place: nothing is ever extracted, names are names alone.
"""

import itertools
import json
import re
import tarfile
from typing import NamedTuple

import tensorflow as tf

from cvr.configs import places
from cvr.configs.settings import show

IMAGES = ('jpg', 'jpeg', 'png', 'gif', 'bmp')
LABELS = ('cls', 'json', 'txt')  # The first that a sample has.
JSON_KEYS = ('label', 'class', 'cls')  # Likewise.
LONGEST = 100  # Characters of a text that is a label and no caption.
_LABEL_BYTES, _NAME_BYTES = 1 << 20, 1 << 16  # At most.
_BLOCK = 512
_WITHOUT_DATA = (
  *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
  *(tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
)


class Damaged(ValueError):
  """What is wrong with a tar file, and where: a few lines at most.

  A name in it may have thousands of characters.
  """

  def __init__(self, why):
    super().__init__(why if len(why) <= 1000 else f'{why[:997]}...')


class Entry(NamedTuple):
  """A regular file in a tar file."""

  name: str
  first: int  # The place of its first byte.
  size: int


class Sample(NamedTuple):
  """An image in a tar file and its label, a text; None: it has none."""

  name: str
  first: int
  size: int
  label: str | None
  source: str  # Of the label: a suffix.


# Headers.


def open_file(path):
  return tf.io.gfile.GFile(path, 'rb') if '://' in path else open(path, 'rb', 0)


def _content(file, entry, most):
  if entry.size > most:
    raise Damaged(f'{show(entry.name)} has {entry.size:,} bytes')
  file.seek(entry.first)
  return file.read(entry.size)


def _pax_name(records):
  """The path in a PAX header, 'length key=value' lines; None: it has none."""
  while match := re.match(rb'([1-9]\d{0,6}) ([^=]*)=', records):
    end = int(match[1])
    if match[2] == b'path':
      return records[match.end() : end - 1]
    records = records[end:]
  return None


def _header(block, at, last):
  """A block of 512 bytes -> tarfile.TarInfo."""
  where = f'after {show(last)}' if last else 'at its beginning'
  if len(block) < _BLOCK:
    raise Damaged(f'it is cut off {where}: its end mark is missing')
  try:
    return tarfile.TarInfo.frombuf(block, 'utf-8', 'replace')
  except tarfile.HeaderError as error:
    if block.startswith(b'\x1f\x8b') and not at:
      why = 'it is compressed: decompress it with gunzip'
      raise Damaged(why) from error
    raise Damaged(f'it is damaged {where}, at byte {at:,}') from error


def _check_end(file):
  """Nothing but zeros may follow the end mark, up to a whole record."""
  if file.read(1 << 20).strip(b'\0'):
    raise Damaged(
      'it continues after its end mark: cat does not join tar files'
    )


def entries(file, size):
  """Yields the regular files in an open tar file of `size` bytes."""
  at, long_name, last = 0, None, ''
  while True:
    file.seek(at)
    block = file.read(_BLOCK)
    if block == bytes(_BLOCK):
      _check_end(file)
      return
    header = _header(block, at, last)
    length = 0 if header.type in _WITHOUT_DATA else header.size
    entry = Entry(header.name, at + _BLOCK, length)
    there = size - entry.first
    if not 0 <= entry.size <= there:
      raise Damaged(
        f'it is cut off in {show(long_name or entry.name)}, which has '
        f'{there:,} of {entry.size:,} bytes'
      )
    at = entry.first + -(-entry.size // _BLOCK) * _BLOCK
    if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
      long_name = _pax_name(_content(file, entry, _NAME_BYTES))
    elif header.type == tarfile.GNUTYPE_LONGNAME:
      long_name = _content(file, entry, _NAME_BYTES).partition(b'\0')[0]
    elif header.type not in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
      if long_name is not None:
        name = long_name.decode(errors='replace').replace('\0', '')
        entry = entry._replace(name=name)
      long_name, last = None, entry.name
      if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
        yield entry
      elif _key(entry.name)[1] in IMAGES:
        raise Damaged(f'{show(entry.name)} is a link or a special file')


# Samples.


def _key(name):
  """'a/b.left.PNG' -> ('a/b', 'left.png'), as WebDataset has it."""
  folder, _, base = name.rpartition('/')
  stem, _, suffix = base.partition('.')
  return f'{folder}/{stem}', suffix.lower()


def _in_json(text, keys):
  """The label in a JSON text: the value of the first of keys, or all of it."""
  value = json.loads(text)
  if isinstance(value, dict):
    value = next((value[key] for key in keys if key in value), None)
  if isinstance(value, bool | float | list | dict):
    raise ValueError('its label is neither an integer nor a text')
  return None if value is None else str(value)


def _label(file, parts, wanted):
  """{suffix: Entry} of a sample -> its label, the suffix it is from."""
  if wanted == places.NO_LABEL:
    return None, ''
  suffixes, keys = LABELS, JSON_KEYS
  if wanted:
    of_json = wanted not in LABELS
    suffixes = ('json',) if of_json else (wanted,)
    keys = (wanted,) if of_json else JSON_KEYS
  for suffix in suffixes:
    if suffix not in parts:
      continue
    content = _content(file, parts[suffix], _LABEL_BYTES)
    try:
      text = content.decode().strip()
      value = _in_json(text, keys) if suffix == 'json' else text
    except (ValueError, RecursionError) as error:
      why = f'{show(parts[suffix].name)} holds no label: {error}'
      raise Damaged(why) from error
    if value is not None and suffix == 'txt' and not wanted:
      value = value[: LONGEST + 1]  # That shows whether it is a caption.
    if value is not None:
      return value, suffix
  return None, ''


def samples(path, size, wanted):
  """The Samples of a tar file: entries of one key that follow each other."""
  samples = []
  with open_file(path) as file:
    named = ((*_key(entry.name), entry) for entry in entries(file, size))
    # As in WebDataset: what is called .so, so or __so__ is passed over.
    named = (
      row for row in named
      if row[1] and not re.search(r'/(__[^/]*__)?$', row[0])
    )  # fmt: skip
    for key, group in itertools.groupby(named, lambda row: row[0]):
      parts = {}
      for _, suffix, entry in group:
        if suffix in parts:
          raise Damaged(f'{show(entry.name)} occurs twice in a row')
        parts[suffix] = entry
      image = next((parts[s] for s in IMAGES if s in parts), None)
      if not image and not {*LABELS} & {*parts}:
        continue  # Such as a README.
      if not image:
        raise Damaged(
          f'the sample {show(key)} has no image ({", ".join(IMAGES)}), only: '
          f'{", ".join(map(show, parts))}'
        )
      samples.append(Sample(*image, *_label(file, parts, wanted)))
  return samples
