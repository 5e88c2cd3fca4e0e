"""Which split of a data set is meant, of those that there are."""

import re

from cvr.configs.settings import show
from cvr.data.dataset_info import DataError

# Where 'validation' is asked for: the first of these that there is.
EVALUATION = ('validation', 'val', 'test')


class NoEvaluation(DataError):
  """A data set has nothing to evaluate on, unless a split is named."""


def found(there):
  """The split to evaluate on, of those in a data set; None: there is none."""
  return next((split for split in EVALUATION if split in there), None)


def choose(name, split, there):
  """-> the split of a data set that is meant; an error if it has none such.

  there: names of its splits.
  """
  meant = found(there) if split == 'validation' else split
  if meant in there:
    return meant
  known = ', '.join(map(show, there)) or 'none'
  if split == 'validation':
    raise NoEvaluation(
      f'--dataset={name}: no split to evaluate on (validation, val or test). '
      f'It has: {known}. Choose one: --eval_split=...'
    )
  raise DataError(
    f'--dataset={name}: no split {split!r} (--train_split, --eval_split). It '
    f'has: {known}.'
  )


def choose_file(name, place, split, exists):
  """-> the split that is meant, the path that holds it, that of train.

  {split} in the place's path stands for the split's name; without it the path
  is the training split, and the only one.

  exists: path -> whether there is one.
  """
  if not place.has_file_per_split:
    return choose(name, split, ['train']), place.path, place.path
  if not re.fullmatch(r'\w+', split):
    raise DataError(
      f'--dataset={name}: split {split!r} (--train_split, --eval_split): only '
      'whole splits are supported, such as train or validation.'
    )
  names = dict.fromkeys(('train', *EVALUATION, split))
  there = [s for s in names if exists(place.of(s))]
  chosen = choose(name, split, there)
  train = 'train' if 'train' in there else chosen
  return chosen, place.of(chosen), place.of(train)
