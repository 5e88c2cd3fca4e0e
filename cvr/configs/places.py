"""--dataset=KIND:PLACE: where data lies that is not of TFDS."""

import errno
import os
import re
import stat
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


# What is there ----------------------------------------------------------------


def identity(path):
  """What a file or a folder is known by, whatever its name."""
  status = os.stat(path)
  return status.st_dev, status.st_ino


def is_text(path):
  """Whether a name that the system gave is UTF-8."""
  return not re.search('[\ud800-\udfff]', path)


class Walk:
  """Goes through folders, each once, however many links lead there.

  seen: (device, inode) of the folders so far; again: paths of links that led
  to one of these.
  """

  def __init__(self):
    self.seen, self.again = set(), []

  def files(self, root):
    """Yields (device, os.DirEntry) of all below root that is no folder.

    Links last, so that what lies below root has its own name. Names that begin
    with a dot are passed over.
    """
    folders, links = [root], []
    while folders or links:
      folder = folders.pop() if folders else links.pop(0)
      known = identity(folder)
      if known in self.seen:
        self.again.append(folder)
        continue
      self.seen.add(known)
      for entry in listed(folder):
        if is_folder(entry):
          (links if entry.is_symlink() else folders).append(entry.path)
        else:
          yield known[0], entry


def listed(folder):
  """The entries of a folder by name, without those that begin with a dot."""
  with os.scandir(folder) as entries:
    entries = [e for e in entries if not e.name.startswith('.')]
  return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry):
  """Whether an os.DirEntry is a folder, or a link to one."""
  try:
    return entry.is_dir()
  except OSError:  # A link that leads to itself.
    return False


_ENDLESS = ('a pipe', 'a socket', 'a device')
_KINDS_OF_FILES = {
  stat.S_IFDIR: 'a folder',
  stat.S_IFIFO: 'a pipe',
  stat.S_IFSOCK: 'a socket',
  stat.S_IFCHR: 'a device',
  stat.S_IFBLK: 'a device',
}


def no_file(path):
  """'' or why a local path is no regular file, nor a link to one.

  To open a pipe waits for ever, and a device may have no end.
  """
  try:
    mode = os.stat(path).st_mode
  except (FileNotFoundError, NotADirectoryError):
    return 'a link that leads nowhere' if os.path.islink(path) else 'not there'
  except OSError as error:
    if error.errno == errno.ELOOP:
      return 'a link that leads nowhere'
    return f'out of reach ({error.strerror})'
  except ValueError:  # A NUL, which no name has.
    return 'not there'
  return _KINDS_OF_FILES.get(stat.S_IFMT(mode), '')


def endless(path):
  """'' or 'a pipe' and the like: what must not be opened; '' of no file too."""
  why = '' if '://' in path else no_file(path)
  return why if why in _ENDLESS else ''
