"""Which split is meant."""

import pytest

from cvr.data import splits
from cvr.data.sources import DataError


@pytest.mark.parametrize(
  'split, there, meant',
  [
    ('validation', ('train', 'test', 'val', 'validation'), 'validation'),
    ('validation', ('train', 'test', 'val'), 'val'),
    ('validation', ('train', 'test'), 'test'),
    ('test', ('test', 'validation'), 'test'),
    ('train', ('train',), 'train'),
  ],
)
def test_a_split_is_found_or_obeyed(split, there, meant):
  assert splits.choose('x', split, there) == meant


def test_without_one_the_flag_is_named():
  with pytest.raises(splits.NoEvaluation, match='has: train.*--eval_split=...'):
    splits.choose('x', 'validation', ['train'])
  with pytest.raises(DataError, match="split 'val'.* It has: train, test"):
    splits.choose('x', 'val', ['train', 'test'])
