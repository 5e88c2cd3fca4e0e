"""The suite `semi` on known features."""

import dataclasses
import types

import pytest

from cvr.data import sources
from cvr.evaluation.heads import finetuning
from cvr.evaluation.subject import Subject, splits_of
from cvr.evaluation.suites import semi
from known_features import Encoder

pytestmark = pytest.mark.usefixtures('quick_heads')


def test_semi_supervision_sees_few_labels_and_chooses_on_others(
  make_subject, monkeypatch
):
  monkeypatch.setattr(finetuning, 'SEMI', {0.1: {}})
  encoder = Encoder()
  subject, _ = make_subject(encoder)
  splits = splits_of(subject)
  few, held = semi.few_and_held(subject, splits, 0.1)
  assert [few.labels.count(c) for c in range(3)] == [4, 4, 4]
  assert held.num_examples == 11 and not set(few.paths) & set(held.paths)
  (number,) = semi.suite(subject)
  assert number.value == 1.0 and number.images == 60
  # The others are there to choose by, and are not fitted to.
  assert number.protocol['train_images'] == number.protocol['images'] == 12
  assert number.protocol['held_out'] == 11
  other, _ = make_subject(encoder, seed=1)
  assert semi.few_and_held(other, splits, 0.1)[0].paths != few.paths


def test_imagenet_has_subsets_of_its_own(make_subject, monkeypatch):
  asked = []
  monkeypatch.setattr(
    Subject, 'describe', lambda _, *place: asked.append(place) or place
  )
  subject, _ = make_subject(Encoder())
  cfg = dataclasses.replace(subject.cfg, dataset='imagenet2012')
  subject, shared = subject._replace(cfg=cfg), [0]
  monkeypatch.setattr(sources, 'overlap', lambda *_: shared[0])
  splits = types.SimpleNamespace(test='validation')
  few, held = semi.few_and_held(subject, splits, 0.01)
  assert few == ('imagenet2012_subset/1pct', 'train')
  assert held == ('imagenet2012', 'train[-10009:]')
  # Test images that are training images would be chosen on, and fitted to.
  shared[0] = 10009
  with pytest.raises(sources.DataError, match='--eval_split=validation'):
    semi.few_and_held(subject, splits, 0.01)


def test_trials_are_chosen_on_images_of_neither_labels_nor_test(
  make_subject, monkeypatch
):
  tasks = []

  def tested(subject, grid, task):
    tasks.append(task)
    raise sources.DataError('enough')

  monkeypatch.setattr(finetuning, 'SEMI', {0.1: {'paper': ['grid']}})
  monkeypatch.setattr(finetuning, 'tested', tested)
  subject, _ = make_subject(Encoder())
  splits = splits_of(subject)
  list(semi.suite(subject))
  (task,) = tasks
  held = {*task.held.paths}
  assert held and held <= {*splits.train.paths}
  assert not held & {*task.fitted.paths} and not held & {*task.test.paths}
  assert task.refitted is task.fitted
  assert {*task.test.paths} == {*splits.test.paths}
