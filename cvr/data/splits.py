"""Which split of a data set is meant, of those that there are."""

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
      f'--dataset={name}: no split to evaluate on: neither validation, val nor '
      f'test. There is: {known}. Name one: --eval_split=...'
    )
  raise DataError(
    f'--dataset={name}: no split {split!r} (--train_split, --eval_split). '
    f'There is: {known}.'
  )
