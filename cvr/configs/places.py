"""--dataset=KIND:PLACE: where data lies that is not of TFDS."""

import os
from typing import NamedTuple

# Kind -> what stands behind its colon.
KINDS = {
  'folder': 'PATH',
  'csv': 'FILE',
  'list': 'FILE',
  'npz': 'FILE',
  'npy': 'FILE',
  'wds': 'PATTERN',
  'hf': 'NAME_OR_PATH',
}
FILES = tuple(kind for kind, place in KINDS.items() if place == 'FILE')
SPLIT = '{split}'  # In a path: the name of the split.
NO_LABEL = 'none'  # Typed as the name of the labels: there are to be none.


class Place(NamedTuple):
  """Where data lies; label: the name of its labels, if it was typed."""

  kind: str
  path: str
  label: str = ''

  def of(self, split):
    """The path of a split."""
    return self.path.replace(SPLIT, split)

  @property
  def has_file_per_split(self):
    return SPLIT in self.path


def parse(dataset):
  """'csv:~/a.csv#breed' -> Place; None for what is not KIND:PLACE."""
  kind, _, path = dataset.partition(':')
  label = ''
  if kind != 'folder' and '#' in path:
    path, _, label = path.rpartition('#')
  if kind not in KINDS or not path:
    return None
  return Place(kind, os.path.expanduser(path), label)


def known():
  """The kinds, for people."""
  return ', '.join(f'{kind}:{place}' for kind, place in KINDS.items())
