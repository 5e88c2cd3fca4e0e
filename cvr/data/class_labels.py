"""Labels as data sets have them -> class numbers and names of classes."""

import re

from cvr.configs.settings import show
from cvr.data.dataset_info import DataError

MOST_CLASSES = 1_000_000
_INTEGER = re.compile(r'-1|0|[1-9]\d{0,17}')


def _are_integers(values):
  return all(isinstance(v, int) or _INTEGER.fullmatch(v) for v in values)


def _classes_of(name, values):
  """-> {label: class number}: texts are sorted, integers stay what they are."""
  if not _are_integers(values):
    return {v: k for k, v in enumerate(sorted({*map(str, values)}))}
  last = max(map(int, values))
  if last >= MOST_CLASSES:
    raise DataError(
      f'--dataset={name}: the label {last} would need {last + 1:,} classes. '
      'Number them from 0, or use texts as labels.'
    )
  return {str(k): k for k in range(last + 1)}


def numbered(name, values, train, where):
  """-> (the names of the classes, the class of each example).

  Args:
    values: the labels of a split: integers, or texts; None or -1: no label.
    train: those of the training split, whose classes count.
    where: index -> what an example is called in a message.

  Returns: no names and -1 for all, if no example has a label.
  """
  values, train = (
    [None if v is None or str(v) == '-1' else v for v in labels]
    for labels in (values, train)
  )
  if all(v is None for v in values):
    return (), (-1,) * len(values)
  if None in values:
    raise DataError(
      f'--dataset={name}: {where(values.index(None))} has no label, others '
      'have one.'
    )
  classes = _classes_of(name, [v for v in train if v is not None] or values)
  for i, value in enumerate(values):
    if str(value) not in classes:
      raise DataError(
        f'--dataset={name}: {where(i)}: the label {show(value)!r} is not a '
        f'class of the training split, which has {len(classes):,}.'
      )
  return tuple(classes), tuple(classes[str(v)] for v in values)
