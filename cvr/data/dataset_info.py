"""What is known of one split of a data set before it is read."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from cvr.configs import places
from cvr.configs.settings import show
from cvr.startup import out_of_reach

DOWNLOAD_LIMIT = 10**9  # Bytes that are downloaded without asking.


class DataError(ValueError):
  """What is wrong with the data and what the user can do, in a line or two."""


class OutOfReach(Exception):
  """Data on another machine that does not answer: worth another try."""


def check_file(name, file):
  """Refuses what waits for ever or has no end when it is read."""
  if why := places.endless(file):
    raise DataError(f'--dataset={name}: {show(file)} is {why}, and no file.')


@contextlib.contextmanager
def readable(name):
  """Turns an error of the system into a DataError that names the file."""
  try:
    yield
  except OSError as error:
    if out_of_reach(error):
      raise
    raise DataError(
      f'--dataset={name}: {show(error.filename)} cannot be read: '
      f'{error.strerror}.'
    ) from error


class Shard(NamedTuple):
  """Records [skip, skip + take) of a file; the first has index `first`."""

  path: str
  skip: int
  take: int
  first: int


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """One split of a data set: what it holds and how it is read."""

  name: str
  split: str
  num_examples: int
  class_names: tuple[str, ...]  # () when there are no labels.
  # Of a split at random access: where each example is, and its label. A path is
  # a file, or whatever `read` takes: files and what is in them, after a NUL
  # what is not part of the example's name.
  paths: tuple[str, ...] = dataclasses.field(default=(), repr=False)
  labels: tuple[int, ...] = dataclasses.field(default=(), repr=False)
  # Path -> the bytes of an image file, in Python; None: TensorFlow reads it.
  read: Callable | None = dataclasses.field(default=None, repr=False)
  # What holds the examples, where they are no files of their own.
  files: tuple[str, ...] = dataclasses.field(default=(), repr=False)
  folder: str = dataclasses.field(default='', repr=False)  # Of the paths.
  # Of a split in records, which are read in order.
  shards: tuple[Shard, ...] = dataclasses.field(default=(), repr=False)
  # Sorted indices into the shards, if it is a part of them; (): all.
  keep: tuple[int, ...] = dataclasses.field(default=(), repr=False)
  bits: int = 8  # Of a channel, to decode to; above 8 images are uint16.
  channels: int = 3  # To decode to.
  # Record -> (image's bytes, label), for a split that has shards.
  parse: Callable | None = dataclasses.field(default=None, repr=False)
  # What all images of a class are parts of, such as 'photograph'; '': nothing.
  cluster: str = dataclasses.field(default='', repr=False)

  @property
  def pixels(self):
    """What decoding has to know of it."""
    return {'bits': self.bits, 'channels': self.channels}
