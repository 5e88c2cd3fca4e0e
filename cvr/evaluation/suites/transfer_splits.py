"""The splits of the data sets of --transfer_sets, for both suites of them."""

from typing import NamedTuple

from cvr.configs import transfer_sets
from cvr.data import sources
from cvr.evaluation.heads import fitted
from cvr.evaluation.subject import Missing


class TransferSet(NamedTuple):
  """A data set under its name in the table, wherever it is stored."""

  name: str
  train: sources.DatasetInfo
  validation: sources.DatasetInfo | None  # None: a part of train, by seed
  test: sources.DatasetInfo

  @property
  def metric(self):
    return transfer_sets.SETS[self.name].metric

  def held_out(self, labels):
    """How many of the training images [n] settings are chosen on."""
    wanted = transfer_sets.held_out(self.name, len(labels))
    return fitted.held_out_count(labels, wanted)


def _described(subject, name, place):
  if not place:
    raise sources.DataError(
      f'{name} is not in TFDS: give its folder with '
      f'--transfer_sets={name}=folder:PATH'
    )
  splits = [
    subject.describe(place, split) if split else None
    for split in transfer_sets.splits(name, place)
  ]
  if any(info and not info.class_names for info in splits):
    raise sources.DataError(f'{name}: {place} has a split without labels.')
  return TransferSet(name, *splits)


def for_each_set(subject, suite, measure):
  """measure(TransferSet) -> a Number, or Missing, for each of the sets."""
  for name, place in transfer_sets.parse(subject.cfg.transfer_sets).items():
    try:
      yield measure(_described(subject, name, place))
    except sources.DataError as error:
      yield Missing(suite, name, str(error))
