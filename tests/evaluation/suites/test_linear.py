"""The suite `linear`, and what all suites share, on known features."""

import dataclasses
import itertools
import types

import numpy as np
import pytest

from cvr.data import sources
from cvr.evaluation import store
from cvr.evaluation.features import Look
from cvr.evaluation.heads import fitted
from cvr.evaluation.subject import Missing, splits_of
from cvr.evaluation.suites import knn, linear, robustness, semi
from known_features import Encoder, make_images, shuffled, values
from small_data import CLASSES


def linear_and_knn(subject):
  return [*linear.suite(subject), *knn.suite(subject)]


def test_what_can_be_told_is_told_and_noise_is_chance(make_subject):
  subject, _ = make_subject(Encoder())
  found = values(linear_and_knn(subject))
  assert found.pop('online') == pytest.approx(1 / 3)  # It says 1.
  assert set(found.values()) == {1.0} and len(found) == 3 + 8
  # 60 images at chance: within four deviations.
  subject, _ = make_subject(Encoder(told=False, dim=4))
  subject = subject._replace(model='noise')
  found = values(linear_and_knn(subject))
  for name, value in found.items():
    assert abs(value - 1 / 3) < 4 * np.sqrt(2 / 9 / 60), name


@pytest.mark.usefixtures('quick_heads')
def test_features_are_made_once_for_all_suites(make_subject):
  encoder = Encoder()
  subject, _ = make_subject(encoder)
  first = linear_and_knn(subject)
  assert sorted(encoder.seen) == [
    ('train', Look(1.0)),  # At 16 px nothing is cut off.
    ('train', Look(1.0, random=1)),
    ('train', Look(1.0, random=2)),
    ('val', Look(1.0)),
  ]
  again = linear_and_knn(subject)
  assert len(encoder.seen) == 4
  assert [n.row() for n in first] == [n.row() for n in again]
  # Another checkpoint has features of its own.
  [*knn.suite(subject._replace(model='abd'))]
  assert len(encoder.seen) == 6


@pytest.mark.usefixtures('quick_heads')
def test_labels_of_the_test_split_change_no_head(make_subject, tmp_path):
  found = {}
  for name, encoder in (('right', Encoder()), ('wrong', shuffled('val'))):
    subject, _ = make_subject(encoder)
    subject = subject._replace(store=store.Store(f'{tmp_path}/{name}'))
    found[name] = {n.name: n for n in linear.suite(subject)}
  for name in ('sgd_simclr', 'sgd_byol', 'lbfgs'):
    right, wrong = found['right'][name], found['wrong'][name]
    assert (right.value, wrong.value) == (1.0, 0.0)
    # What was chosen, and how well it did on what it was chosen on.
    assert right.protocol == wrong.protocol


@pytest.mark.usefixtures('quick_heads')
def test_a_probe_is_asked_for_its_own_classes_alone(make_subject):
  subject, _ = make_subject(Encoder())
  for names in (CLASSES, ()):  # Of released checkpoints nobody knows them.
    own = subject._replace(class_names=names)
    assert 'online' in values(linear.suite(own))
  for names in (CLASSES[::-1], CLASSES[:2], ('x', 'y', 'z')):
    other = subject._replace(class_names=names)
    first = next(linear.suite(other))
    assert isinstance(first, Missing) and 'other classes' in first.why
    heads = robustness._heads(other, splits_of(other))
    assert list(heads) == ['sgd_byol']


@pytest.mark.usefixtures('quick_heads')
def test_without_a_probe_all_else_is_measured(make_subject):
  class Unlabelled(Encoder):
    def __call__(self, info, look):
      for rows in super().__call__(info, look):
        del rows['logits']
        yield rows

  subject, _ = make_subject(Unlabelled(), corrupt='fog')
  state = types.SimpleNamespace(method=subject.state.method, probe=None)
  subject = subject._replace(state=state)
  first, *rest = linear.suite(subject)
  assert first.why == 'the checkpoint has no probe'
  assert {n.name for n in rest} == {'sgd_simclr', 'sgd_byol', 'lbfgs'}
  assert [n.name for n in robustness.suite(subject)] == ['fog/sgd_byol']


@pytest.mark.usefixtures('quick_heads')
def test_a_probe_that_says_nothing_is_never_right(make_subject):
  class Broken(Encoder):
    def __call__(self, info, look):
      for rows in super().__call__(info, look):
        rows['logits'][rows['labels'] == 1] = np.nan
        yield rows

  subject, _ = make_subject(Broken())
  online, other = itertools.islice(linear.suite(subject), 2)
  # It says 1, of which nothing is left. Three classes have no top-5.
  assert online.value == 0.0 and other.name == 'sgd_simclr'


@pytest.mark.usefixtures('quick_heads')
def test_what_depends_on_the_settings_is_made_anew(make_subject):
  encoder = Encoder()
  subject, said = make_subject(encoder)
  list(linear.suite(subject))
  fits = [line for line in said if 'Linear' in line or 'Logistic' in line]
  assert len(fits) == 3
  for change in (
    {'image_size': 24},
    {'precision': 'bf16'},
    {'stem': 'small'},
    {'eval_crop': '0.875'},
  ):
    count, made = len(encoder.seen), len(said)
    other = subject._replace(cfg=dataclasses.replace(subject.cfg, **change))
    list(linear.suite(other))
    assert len(encoder.seen) == count + 4
    fits = [x for x in said[made:] if 'Linear' in x or 'Logistic' in x]
    assert len(fits) == 3, change


@pytest.mark.usefixtures('quick_heads')
def test_too_few_images_to_choose_on(make_subject, tmp_path):
  images = make_images(tmp_path / 'one', {'train': 1, 'val': 4})
  subject, _ = make_subject(Encoder(), images=images)
  with pytest.raises(sources.DataError, match='too few to hold some out'):
    list(linear.suite(subject))
  images = make_images(tmp_path / 'two', {'train': 2, 'val': 4})
  subject, _ = make_subject(Encoder(), images=images)
  first, second = semi.suite(subject)
  for missing, of in ((first, '1pct'), (second, '10pct')):
    assert isinstance(missing, Missing) and missing.name == of


@pytest.mark.usefixtures('quick_heads')
def test_lbfgs_says_how_many_images_it_is_of(make_subject, monkeypatch):
  monkeypatch.setattr(fitted, '_MOST', 50)
  subject, _ = make_subject(Encoder())
  by_name = {n.name: n.protocol for n in linear.suite(subject)}
  assert by_name['sgd_byol']['train_images'] == 120
  assert by_name['lbfgs']['train_images'] == by_name['lbfgs']['images'] == 50
  assert by_name['lbfgs']['held_out'] == 5


@pytest.mark.usefixtures('quick_heads')
def test_top_5_of_nine_classes(make_subject, monkeypatch, tmp_path):
  """The label's place among the logits decides, here place 0 to 8."""
  names = tuple(f'class{i}' for i in range(9))
  images = make_images(tmp_path / 'nine', {'train': 6, 'val': 9}, names)

  class Ranked(Encoder):
    def __call__(self, info, look):
      n = 0
      for rows in super().__call__(info, look):
        labels = rows['labels']
        rows['logits'] = np.zeros([len(labels), 9], np.float32)
        for row, label in zip(rows['logits'], labels, strict=True):
          others = [c for c in range(9) if c != label]
          order = [*others[: n % 9], label, *others[n % 9 :]]
          row[order] = np.arange(9, 0, -1)
          n += 1
        yield rows

  subject, _ = make_subject(Ranked(dim=12), images=images)
  subject.state.probe.dense.units = 9
  online, online_5 = itertools.islice(linear.suite(subject), 2)
  assert online.value == pytest.approx(1 / 9)
  assert online_5.value == pytest.approx(5 / 9)
