"""--dataset=csv:FILE and list:FILE: images that a text file names.

Paths are relative to the file. They may leave its folder only for --data_dir: a
table that comes from somewhere else should not choose what is read here.
"""

import csv
import io
import logging
import os
from typing import NamedTuple

from cvr.configs import places
from cvr.configs.settings import show
from cvr.data import class_labels, splits
from cvr.data.dataset_info import DataError, DatasetInfo, check_file

# What columns are called, in any case.
PATHS = ('path', 'file', 'image', 'filename')
LABELS = ('label', 'class')
SPLIT = 'split'

log = logging.getLogger(__name__)


class _Row(NamedTuple):
  line: int
  path: str
  label: str | None
  split: str


class _Damaged(DataError):
  """A line of a table that cannot be read."""

  def __init__(self, name, file, line, why):
    super().__init__(f'--dataset={name}: {file}, line {line}: {why}.')


def _text(name, file):
  check_file(name, file)
  try:
    with open(file, 'rb') as stream:
      data = stream.read()
  except OSError as error:
    raise DataError(
      f'--dataset={name}: {file} cannot be read: {error.strerror}.'
    ) from error
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise _Damaged(name, file, line, 'it is not UTF-8 text') from error


# A list.


def _list_rows(name, file, label):
  """Lines `path` or `path<tab>label`; empty ones are passed over."""
  rows = []
  for number, line in enumerate(_text(name, file).split('\n'), 1):
    path, tab, value = line.removesuffix('\r').partition('\t')
    if not path and not tab:
      continue
    if '\t' in value or (tab and not (path.strip() and value.strip())):
      why = 'it must be a path, or a path, a tab and a label'
      raise _Damaged(name, file, number, why)
    value = value.strip() if label != places.NO_LABEL else ''
    rows.append(_Row(number, path, value or None, 'train'))
  return rows


# A table.


def _columns(name, file, header, label):
  """-> the places of path, label (or None) and split (or None) in a row."""
  names = [column.strip().lower() for column in header]
  twice = {n for n in names if names.count(n) > 1 and n}
  if twice:
    why = f'the column {show(min(twice))!r} occurs twice'
    raise _Damaged(name, file, 1, why)
  known = ', '.join(map(show, names))

  def column(kind, wanted):
    found = [n for n in names if n in wanted]
    if len(found) > 1:
      log.warning('%s: %s are columns of %s; using %s', name,
                  ' and '.join(found), kind, found[0])  # fmt: skip
    return names.index(found[0]) if found else None

  path = column('paths', PATHS)
  if path is None:
    why = f'no column of paths ({", ".join(PATHS)}), only: {known}'
    raise _Damaged(name, file, 1, why)
  split = column('splits', (SPLIT,))
  if label == places.NO_LABEL:
    return path, None, split
  if label and label.lower() not in names:
    raise _Damaged(name, file, 1, f'no column {show(label)!r}, only: {known}')
  return path, column('labels', (label.lower(),) if label else LABELS), split


def _csv_rows(name, file, label):
  text = _text(name, file)
  first = text.partition('\n')[0]
  reader = csv.reader(
    io.StringIO(text, newline=''),
    delimiter=max(',;\t', key=first.count),
    strict=True,
  )
  rows = []
  try:
    header = next(reader, [])
    path, label, split = _columns(name, file, header, label)
    for row in reader:
      if not row:
        continue
      if len(row) != len(header):
        why = f'it has {len(row)} columns, but the header has {len(header)}'
        raise _Damaged(name, file, reader.line_num, why)
      part = 'train' if split is None else row[split].strip()
      if not part:
        raise _Damaged(name, file, reader.line_num, 'it names no split')
      value = None if label is None else row[label].strip() or None
      rows.append(_Row(reader.line_num, row[path].strip(), value, part))
  except csv.Error as error:
    raise _Damaged(name, file, reader.line_num, str(error)) from error
  return rows


# The files that are named.


class _Folders:
  """What is in folders, each looked up once; which of it may be read."""

  def __init__(self, roots):
    self._roots = [os.path.realpath(root) for root in roots]
    self._allowed, self._files, self._links = {}, {}, {}

  def _is_inside(self, path):
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, r]) == r for r in self._roots)

  def _look(self, folder):
    self._allowed[folder] = self._is_inside(folder)
    self._files[folder], self._links[folder] = set(), set()
    if self._allowed[folder] and os.path.isdir(folder):
      with os.scandir(folder) as entries:
        for entry in entries:
          if entry.is_file():
            self._files[folder].add(entry.name)
          if entry.is_symlink():
            self._links[folder].add(entry.name)

  def problem(self, path):
    """'' or why a file cannot be used."""
    folder, base = os.path.split(path)
    if folder not in self._allowed:
      self._look(folder)
    linked = base in self._links[folder]
    if not self._allowed[folder] or (linked and not self._is_inside(path)):
      return (
        f'{show(path)} is outside of {self._roots[0]}. To allow it, name its '
        'folder: --data_dir=...'
      )
    if base not in self._files[folder]:
      return f'there is no file {show(path)}'
    return ''


def _located(name, file, rows, data_dir):
  """-> the folder of the table, the path of each row's image, which exists."""
  folder = os.path.dirname(os.path.abspath(file))
  more = [data_dir] if data_dir and '://' not in data_dir else []
  folders, paths = _Folders([folder, *more]), []
  for row in rows:
    # In a path of ours a NUL has a meaning, and no file has one in its name.
    if not row.path or '\0' in row.path:
      raise _Damaged(name, file, row.line, 'it names no image')
    path = os.path.normpath(os.path.join(folder, row.path))
    problem = folders.problem(path)
    if problem:
      shorter = path.rpartition(' ')[0]
      if row.label is None and shorter and not folders.problem(shorter):
        problem += '; a label follows a tab, not a space'
      raise _Damaged(name, file, row.line, problem)
    paths.append(path)
  return folder, tuple(paths)


def _rows_of(name, place, split):
  """-> the split that is meant, its file, its rows, those of train."""
  if place.kind == 'list' or place.has_file_per_split:
    split, file, train_file = splits.choose_file(
      name, place, split, os.path.exists
    )
    read = {'csv': _csv_rows, 'list': _list_rows}[place.kind]
    rows = read(name, file, place.label)
    same = train_file == file
    train = rows if same else read(name, train_file, place.label)
    return split, file, rows, train
  rows, by_split = _csv_rows(name, place.path, place.label), {}
  for row in rows:
    by_split.setdefault(row.split, []).append(row)
  split = splits.choose(name, split, [*by_split])
  return split, place.path, by_split[split], by_split.get('train', rows)


def describe(name, place, split, data_dir=None, **_):
  """Finds the images and the labels of a split -> DatasetInfo."""
  split, file, rows, train = _rows_of(name, place, split)
  if not rows:
    raise DataError(f'--dataset={name}: {file} names no image.')
  classes, labels = class_labels.numbered(
    name,
    [row.label for row in rows],
    [row.label for row in train],
    lambda i: f'{file}, line {rows[i].line}',
  )
  folder, paths = _located(name, file, rows, data_dir)
  return DatasetInfo(
    name,
    split,
    len(paths),
    classes,
    paths,
    labels,
    folder=folder,
  )
