"""The eleven transfer sets of C-SimCLR's table: where they lie, how they count.

Splits and metrics as in (SimCLR, B.8.1) and (BYOL, D.2), sizes as in BYOL's
Table 10. A set whose `dataset` is '' is in no version of TFDS: users say where
it lies.
"""

import difflib
from typing import NamedTuple

from cvr.configs import places


class TransferSet(NamedTuple):
  """A data set, its splits, and its images to train, validate and test on."""

  dataset: str  # its name in TFDS; '' where that has none
  train: str
  validation: str  # '' where it is held out of train
  test: str
  metric: str  # 'top_1' or 'mean_per_class'
  sizes: tuple[int, int, int]  # of train (without validation), validation, test


# In the order of the slides' table. TFDS calls Food-101's test images
# 'validation', and draws its own 30 images a class of Caltech-101.
SETS = {
  'food101': TransferSet(
    'food101', 'train', '', 'validation', 'top_1', (68175, 7575, 25250)
  ),
  'cifar10': TransferSet(
    'cifar10', 'train', '', 'test', 'top_1', (45000, 5000, 10000)
  ),
  'cifar100': TransferSet(
    'cifar100', 'train', '', 'test', 'top_1', (44933, 5067, 10000)
  ),
  'flowers': TransferSet(
    'oxford_flowers102', 'train', 'validation', 'test', 'mean_per_class',
    (1020, 1020, 6149),
  ),
  'pets': TransferSet(
    'oxford_iiit_pet', 'train', '', 'test', 'mean_per_class', (2940, 740, 3669)
  ),
  'cars': TransferSet(
    'cars196', 'train', '', 'test', 'top_1', (6494, 1650, 8041)
  ),
  'caltech101': TransferSet(
    'caltech101', 'train', '', 'test', 'mean_per_class', (2550, 510, 6084)
  ),
  'dtd': TransferSet(
    'dtd', 'train', 'validation', 'test', 'top_1', (1880, 1880, 1880)
  ),
  'sun397': TransferSet(
    'sun397/standard-part1-120k', 'train', '', 'test', 'top_1',
    (15880, 3970, 19850),
  ),
  'aircraft': TransferSet(
    '', 'train', 'val', 'test', 'mean_per_class', (3334, 3333, 3333)
  ),
  'birdsnap': TransferSet(
    '', 'train', '', 'test', 'top_1', (42405, 4981, 2443)
  ),
}  # fmt: skip


def _unknown(name):
  near = difflib.get_close_matches(name, SETS)
  if name:
    of_tfds = [key for key, row in SETS.items() if row.dataset == name]
    near = of_tfds or near or [key for key in SETS if name in key]
  hint = f'did you mean {" or ".join(near)}?' if near else ''
  hint = hint or f'there are: {", ".join(["all", *SETS])}'
  return ValueError(f'{name[:60]!r} is not a transfer set; {hint}')


def _entry(word):
  """'cifar10', or 'birdsnap=folder:PATH' -> its name, its data set."""
  name, equals, dataset = (part.strip() for part in word.partition('='))
  if name not in SETS:
    raise _unknown(name)
  if equals and not dataset:
    raise ValueError(
      f'{name}= needs the folder of the set, such as {name}=folder:PATH'
    )
  dataset = dataset or SETS[name].dataset
  if not dataset:
    raise ValueError(
      f'{name} is not in TFDS; give its folder: {name}=folder:PATH'
    )
  return name, dataset


def parse(text):
  """'all', 'cifar10,dtd' or 'birdsnap=folder:PATH,dtd' -> {name: data set}.

  With 'all', sets that TFDS lacks and that the text does not place have ''.
  A path may not hold a comma.
  """
  words = [word.strip() for word in text.split(',') if word.strip()]
  named = {}
  for word in words:
    if word == 'all':
      continue
    name, dataset = _entry(word)
    if name in named:
      raise ValueError(f'{name} is named twice; name each set once')
    named[name] = dataset
  if 'all' not in words:
    return named
  return {name: row.dataset for name, row in SETS.items()} | named


def splits(name, dataset):
  """-> names of the train, validation ('': held out) and test split.

  What is not of TFDS has names of its own: 'val', because 'validation' would be
  test where there is none, and 'test' for Food-101 too.
  """
  row = SETS[name]
  if places.parse(dataset):
    return 'train', 'val' if row.validation else '', 'test'
  return row.train, row.validation, row.test


def held_out(name, images):
  """How many of train's images to hold out: BYOL's number, or its share."""
  train, validation, _ = SETS[name].sizes
  return round(images * validation / (train + validation))


def check_sizes(name, sizes):
  """'' or how (train, validation, test) images differ from BYOL's Table 10."""
  parts = zip(
    ('train', 'validation', 'test'), sizes, SETS[name].sizes, strict=True
  )
  differ = [
    f'{part} has {images:,} images, not {wanted:,}'
    for part, images, wanted in parts
    if images != wanted
  ]
  return f'{name}: {", ".join(differ)} (BYOL, Table 10)' if differ else ''
