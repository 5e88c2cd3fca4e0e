"""Rows of a checkpoint: what is left out, and what is refused."""

import dataclasses

import numpy as np
import pytest

from cvr.configs import config
from cvr.data import sources
from cvr.evaluation.subject import accuracy
from cvr.evaluation.suites import knn
from known_features import Encoder
from small_data import encoded, write

pytestmark = pytest.mark.usefixtures('quick_heads')


def test_images_that_cannot_be_decoded_are_left_out_and_lost_ones_refused(
  make_subject,
):
  class Damaged(Encoder):
    def __call__(self, info, look):
      for i, rows in enumerate(super().__call__(info, look)):
        if i == 0:
          rows['representation'][0] = np.nan
          rows['labels'][0] = -1
        yield rows

  class Lossy(Encoder):
    def __call__(self, info, look):
      yield from list(super().__call__(info, look))[:2]

  subject, _ = make_subject(Damaged())
  for number in knn.suite(subject):
    assert number.images == len(number.scores) == len(number.ids) == 59
  subject, _ = make_subject(Lossy())
  with pytest.raises(sources.DataError, match='40 images of val read, 60'):
    subject._replace(model='lossy').rows(subject.describe(
      subject.cfg.dataset, 'val'))  # fmt: skip


def test_rows_of_another_crop_are_made_anew_and_the_card_says_which(
  make_subject,
):
  encoder, sides = Encoder(), []
  subject, _ = make_subject(encoder)
  for crop in ('1', '0.875', 'auto'):
    cfg = dataclasses.replace(subject.cfg, eval_crop=crop)
    subject = subject._replace(cfg=cfg)
    sides += [n.protocol['crop'] for n in knn.suite(subject)][:1]
  # Those of auto, at 16 px, are the first ones, read again.
  assert [look.crop for _, look in encoder.seen] == [1, 1, 0.875, 0.875]
  whole, part = '1 of the shorter side', '0.875 of the shorter side'
  assert sides == [f'central, {x}, 16 px' for x in (whole, part, whole)]


def test_numbers_that_would_mean_nothing_are_refused(make_subject, tmp_path):
  class Broken(Encoder):
    """No numbers for one class, as after a loss that became NaN."""

    def __call__(self, info, look):
      for rows in super().__call__(info, look):
        rows['representation'][rows['labels'] == 2] = np.nan
        yield rows

  subject, _ = make_subject(Broken())
  with pytest.raises(sources.DataError, match='are NaN or infinite'):
    list(knn.suite(subject))
  subject, _ = make_subject(Encoder(), eval_split='train')
  with pytest.raises(config.ConfigError, match='120 of its images are in'):
    list(knn.suite(subject))
  write(f'{tmp_path}/loose/train/a/1.png', encoded(1))
  write(f'{tmp_path}/loose/val/1.png', encoded(1))
  subject, _ = make_subject(Encoder(), images=f'folder:{tmp_path}/loose')
  with pytest.raises(config.ConfigError, match='validation|val has no labels'):
    list(knn.suite(subject))


def test_intervals_of_patches_are_over_their_photographs():
  labels = np.repeat(np.arange(16), 30)
  right = np.isin(labels, np.arange(10)).astype(np.float32)
  rows = {'labels': labels, 'ids': np.arange(480).astype(str)}
  made = {}
  for cluster in ('', 'photograph'):
    info = sources.DatasetInfo('a', 'test', 480, ('x',), cluster=cluster)
    made[cluster] = accuracy('linear', 'b', info, rows, right, {})
  images, photographs = made.values()
  assert images.value == photographs.value == pytest.approx(10 / 16)
  assert images.protocol == {}
  assert photographs.protocol == {'interval_over': 'photographs'}
  # 10 of 16, not 300 of 480.
  wide, narrow = (row.high - row.low for row in (photographs, images))
  assert wide / narrow == pytest.approx(30**0.5, rel=0.1)
