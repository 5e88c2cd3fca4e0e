"""Suites on features of which the right answer is known."""

import dataclasses
import itertools
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from cvr.configs import config
from cvr.data import sources
from cvr.evaluation import evaluate, store
from cvr.evaluation.features import Look
from cvr.evaluation.suites import accuracy, rates, robustness
from cvr.evaluation.suites.subject import Missing, Subject
from small_data import CLASSES, encoded, write

SETTINGS = {
  'mode': 'evaluate',
  'model_dir': 'none',
  'dataset': '',
  'eval_split': 'val',
  'train_mode': 'finetune',
  'image_size': 16,
  'linear_passes': 2,
}
COUNTS = {'train': 40, 'val': 20}


def make_images(root, counts=COUNTS, classes=CLASSES):
  for split, count in counts.items():
    for name in classes:
      for i in range(count):
        write(f'{root}/{split}/{name}/{i:02d}.png', encoded(i))
  return f'folder:{root}'


class Encoder:
  """Features that tell the class, or noise, in place of a network's."""

  def __init__(self, told=True, dim=6):
    self.told, self.dim, self.seen = told, dim, []

  def __call__(self, info, look=Look()):  # noqa: B008
    self.seen.append((info.split, look))
    n = info.num_examples
    draw = np.random.default_rng([n, look.random, look.severity])
    rows = draw.normal(size=[n, self.dim]).astype(np.float32)
    labels = np.array(info.labels)
    if self.told:
      rows[np.arange(n), labels] += 20
    ids = np.array([sources.example_id(info, i) for i in range(n)])
    logits = 0 * rows[:, :3]
    logits[:, 1] = 1  # The probe says 1, whatever it sees.
    # In batches, of which one cannot be decoded.
    for at in np.array_split(np.arange(n), 3):
      yield {
        'representation': rows[at],
        'logits': logits[at],
        'labels': labels[at],
        'ids': ids[at],
      }


@pytest.fixture
def make(tmp_path):
  def subject(encoder, **changes):
    images = changes.pop('images', None) or make_images(tmp_path / 'images')
    cfg = config.Config(**SETTINGS | {'dataset': images} | changes)
    probe = types.SimpleNamespace(dense=types.SimpleNamespace(units=3))
    method = types.SimpleNamespace(
      encoder=types.SimpleNamespace(representation_dim=encoder.dim)
    )
    state = types.SimpleNamespace(method=method, probe=probe)
    said = []
    made = Subject(
      cfg, tf.distribute.get_strategy(), state, 'ckpt-1', 'abc', encoder,
      store.Store(f'{tmp_path}/features'), said.append,
    )  # fmt: skip
    return made, said

  return subject


def linear_and_knn(subject):
  return [*accuracy.linear_suite(subject), *accuracy.knn_suite(subject)]


def values(numbers):
  return {n.name: n.value for n in numbers if not isinstance(n, Missing)}


def test_what_can_be_told_is_told_and_noise_is_chance(make):
  subject, _ = make(Encoder())
  found = values(linear_and_knn(subject))
  assert found.pop('online') == pytest.approx(1 / 3)  # It says 1.
  assert found.pop('online_5') == 1.0
  assert set(found.values()) == {1.0} and len(found) == 3 + 8
  # 60 images at chance: within four deviations.
  subject, _ = make(Encoder(told=False, dim=4))
  subject = subject._replace(model='noise')
  found = values(linear_and_knn(subject))
  del found['online_5']
  for name, value in found.items():
    assert abs(value - 1 / 3) < 4 * np.sqrt(2 / 9 / 60), name


def test_features_are_made_once_for_all_suites(make):
  encoder = Encoder()
  subject, _ = make(encoder)
  first = linear_and_knn(subject)
  assert sorted(encoder.seen) == [
    ('train', Look()),
    ('train', Look(random=1)),
    ('train', Look(random=2)),
    ('val', Look()),
  ]
  again = linear_and_knn(subject)
  assert len(encoder.seen) == 4
  assert [n.row() for n in first] == [n.row() for n in again]
  # Another checkpoint has features of its own.
  [*accuracy.knn_suite(subject._replace(model='abd'))]
  assert len(encoder.seen) == 6


def test_images_that_cannot_be_decoded_are_left_out_and_lost_ones_refused(make):
  class Damaged(Encoder):
    def __call__(self, info, look=Look()):  # noqa: B008
      for i, rows in enumerate(super().__call__(info, look)):
        if i == 0:
          rows['representation'][0] = np.nan
          rows['labels'][0] = -1
        yield rows

  class Lossy(Encoder):
    def __call__(self, info, look=Look()):  # noqa: B008
      yield from list(super().__call__(info, look))[:2]

  subject, _ = make(Damaged())
  for number in accuracy.knn_suite(subject):
    assert number.images == len(number.scores) == len(number.ids) == 59
  subject, _ = make(Lossy())
  with pytest.raises(sources.DataError, match='40 images of val read, 60'):
    subject._replace(model='lossy').rows(subject.describe(
      subject.cfg.dataset, 'val'))  # fmt: skip


def shuffled(split):
  class Shuffled(Encoder):
    """The same features under other labels, in the evaluation split alone."""

    def __call__(self, info, look=Look()):  # noqa: B008
      for rows in super().__call__(info, look):
        if info.split == split:
          rows['labels'] = (rows['labels'] + 1) % 3
        yield rows

  return Shuffled()


def test_labels_of_the_test_split_change_no_head(make, tmp_path):
  found = {}
  for name, encoder in (('right', Encoder()), ('wrong', shuffled('val'))):
    subject, _ = make(encoder)
    subject = subject._replace(store=store.Store(f'{tmp_path}/{name}'))
    found[name] = {n.name: n for n in accuracy.linear_suite(subject)}
  for name in ('sgd_simclr', 'sgd_byol', 'lbfgs'):
    right, wrong = found['right'][name], found['wrong'][name]
    assert (right.value, wrong.value) == (1.0, 0.0)
    # What was chosen, and how well it did on what it was chosen on.
    assert right.protocol == wrong.protocol


@pytest.mark.parametrize(
  'suite, split', [('semi', 'val'), ('transfer', 'test')]
)
def test_nor_those_of_other_suites(make, tmp_path, monkeypatch, suite, split):
  monkeypatch.setattr(accuracy.finetuning, 'SEMI', {0.1: {}})
  counts = {'train': 30, 'test': 10}
  bird = make_images(tmp_path / 'birds', counts)
  found = {}
  for name, encoder in (('right', Encoder()), ('wrong', shuffled(split))):
    subject, _ = make(encoder, transfer_sets=f'birdsnap={bird}')
    subject = subject._replace(store=store.Store(f'{tmp_path}/{name}'))
    (found[name],) = getattr(accuracy, f'{suite}_suite')(subject)
  assert (found['right'].value, found['wrong'].value) == (1.0, 0.0)
  assert found['right'].protocol == found['wrong'].protocol


def test_semi_supervision_sees_few_labels_and_chooses_on_others(
  make, monkeypatch
):
  monkeypatch.setattr(accuracy.finetuning, 'SEMI', {0.1: {}})
  encoder = Encoder()
  subject, _ = make(encoder)
  splits = accuracy.splits_of(subject)
  few, held = accuracy._semi_split(subject, splits, 0.1)
  assert [few.labels.count(c) for c in range(3)] == [4, 4, 4]
  assert held.num_examples == 11 and not set(few.paths) & set(held.paths)
  (number,) = accuracy.semi_suite(subject)
  assert number.value == 1.0 and number.images == 60
  # The others are there to choose by, and are not fitted to.
  assert number.protocol['train_images'] == number.protocol['images'] == 12
  assert number.protocol['held_out'] == 11
  other, _ = make(encoder, seed=1)
  assert accuracy._semi_split(other, splits, 0.1)[0].paths != few.paths


def test_transfer_reports_what_is_missing_and_goes_on(make, tmp_path):
  bird = make_images(tmp_path / 'birds', {'train': 30, 'test': 10})
  craft = make_images(tmp_path / 'craft', {'train': 10, 'val': 10, 'test': 9})
  sets = f'birdsnap={bird},dtd=folder:{tmp_path}/none,aircraft={craft}'
  encoder = Encoder()
  subject, _ = make(encoder, transfer_sets=sets)
  by_name = {n.name: n for n in accuracy.transfer_suite(subject)}
  assert isinstance(by_name['dtd'], Missing)
  assert 'there is no folder' in by_name['dtd'].why
  bird, craft = by_name['birdsnap'], by_name['aircraft']
  assert (bird.value, bird.metric, bird.images) == (1.0, 'top_1', 30)
  assert (craft.value, craft.metric) == (1.0, 'mean_per_class')
  # BYOL's share of the 90 training images, and a split of its own.
  assert bird.protocol['held_out'] == round(90 * 4981 / (42405 + 4981))
  assert craft.protocol['held_out'] == 30
  assert all(look == Look(crop=1.0) for _, look in encoder.seen)
  assert 'not 42,405' in bird.protocol['note']


def test_numbers_that_would_mean_nothing_are_refused(make, tmp_path):
  class Broken(Encoder):
    """No numbers for one class, as after a loss that became NaN."""

    def __call__(self, info, look=Look()):  # noqa: B008
      for rows in super().__call__(info, look):
        rows['representation'][rows['labels'] == 2] = np.nan
        yield rows

  subject, _ = make(Broken())
  with pytest.raises(sources.DataError, match='are no numbers'):
    list(accuracy.knn_suite(subject))
  subject, _ = make(Encoder(), eval_split='train')
  with pytest.raises(config.ConfigError, match='120 of its images are in'):
    list(accuracy.knn_suite(subject))
  write(f'{tmp_path}/loose/train/a/1.png', encoded(1))
  write(f'{tmp_path}/loose/val/1.png', encoded(1))
  subject, _ = make(Encoder(), images=f'folder:{tmp_path}/loose')
  with pytest.raises(config.ConfigError, match='validation|val has no labels'):
    list(accuracy.knn_suite(subject))


def test_a_probe_is_asked_for_its_own_classes_alone(make):
  subject, _ = make(Encoder())
  for names in (CLASSES, ()):  # Of released checkpoints nobody knows them.
    own = subject._replace(class_names=names)
    assert 'online' in values(accuracy.linear_suite(own))
  for names in (CLASSES[::-1], CLASSES[:2], ('x', 'y', 'z')):
    other = subject._replace(class_names=names)
    first = next(accuracy.linear_suite(other))
    assert isinstance(first, Missing) and 'other classes' in first.why
    heads = robustness._heads(other, accuracy.splits_of(other))
    assert list(heads) == ['sgd_byol']


def test_without_a_probe_all_else_is_measured(make):
  class Unlabelled(Encoder):
    def __call__(self, info, look=Look()):  # noqa: B008
      for rows in super().__call__(info, look):
        del rows['logits']
        yield rows

  subject, _ = make(Unlabelled(), corrupt='fog')
  state = types.SimpleNamespace(method=subject.state.method, probe=None)
  subject = subject._replace(state=state)
  first, *rest = accuracy.linear_suite(subject)
  assert first.why == 'the checkpoint has no probe'
  assert {n.name for n in rest} == {'sgd_simclr', 'sgd_byol', 'lbfgs'}
  assert [n.name for n in robustness.suite(subject)] == ['fog/sgd_byol']


def test_a_probe_that_says_nothing_is_never_right(make):
  class Broken(Encoder):
    def __call__(self, info, look=Look()):  # noqa: B008
      for rows in super().__call__(info, look):
        rows['logits'][rows['labels'] == 1] = np.nan
        yield rows

  subject, _ = make(Broken())
  online, online_5 = itertools.islice(accuracy.linear_suite(subject), 2)
  # It says 1, of which nothing is left; 5 of 3 classes are all of them.
  assert online.value == 0.0 and online_5.value == pytest.approx(2 / 3)


def test_without_a_library_what_needs_none_is_there(make, monkeypatch):
  monkeypatch.setitem(sys.modules, 'sklearn.linear_model', None)
  subject, _ = make(Encoder())
  *found, missing = evaluate._measured('linear', subject)
  assert values(found).keys() == {
    'online', 'online_5', 'sgd_simclr', 'sgd_byol'
  }  # fmt: skip
  assert missing.suite == 'linear' and "'.[quickstart]'" in missing.why


def test_what_depends_on_the_settings_is_made_anew(make):
  encoder = Encoder()
  subject, said = make(encoder)
  list(accuracy.linear_suite(subject))
  fits = [line for line in said if 'Linear' in line or 'Logistic' in line]
  assert len(fits) == 3
  for change in ({'image_size': 24}, {'precision': 'bf16'}, {'stem': 'small'}):
    count, made = len(encoder.seen), len(said)
    other = subject._replace(cfg=dataclasses.replace(subject.cfg, **change))
    list(accuracy.linear_suite(other))
    assert len(encoder.seen) == count + 4
    fits = [x for x in said[made:] if 'Linear' in x or 'Logistic' in x]
    assert len(fits) == 3, change


def test_too_few_images_to_choose_on(make, tmp_path):
  images = make_images(tmp_path / 'one', {'train': 1, 'val': 4})
  subject, _ = make(Encoder(), images=images)
  with pytest.raises(sources.DataError, match='leave none to choose'):
    list(accuracy.linear_suite(subject))
  images = make_images(tmp_path / 'two', {'train': 2, 'val': 4})
  subject, _ = make(Encoder(), images=images)
  first, second = accuracy.semi_suite(subject)
  for missing, of in ((first, '1pct'), (second, '10pct')):
    assert isinstance(missing, Missing) and missing.name == of


def test_a_transfer_set_keeps_an_image_of_every_class_to_fit(make, tmp_path):
  # A fifth of 9 pets are 2; of 8 classes only one may be held out.
  pets = tmp_path / 'pets'
  names = [f'c{i}' for i in range(8)]
  make_images(pets, {'train': 1, 'test': 2}, names)
  write(f'{pets}/train/c0/more.png', encoded(9))
  ones = make_images(tmp_path / 'ones', {'train': 1, 'test': 2}, names)
  places = f'pets=folder:{pets},birdsnap={ones}'
  subject, _ = make(Encoder(dim=8), transfer_sets=places)
  found = {n.name: n for n in accuracy.transfer_suite(subject)}
  assert found['pets'].protocol['held_out'] == 1
  assert found['pets'].protocol['note'].startswith('pets: train has 8 images')
  assert 'leave none to choose' in found['birdsnap'].why


def test_lbfgs_says_how_many_images_it_is_of(make, monkeypatch):
  monkeypatch.setattr(accuracy, '_MOST', 50)
  subject, _ = make(Encoder())
  by_name = {n.name: n.protocol for n in accuracy.linear_suite(subject)}
  assert by_name['sgd_byol']['train_images'] == 120
  assert by_name['lbfgs']['train_images'] == by_name['lbfgs']['images'] == 50
  assert by_name['lbfgs']['held_out'] == 5


def test_fewer_bits_are_fitted_on_the_images_of_lbfgs(make, monkeypatch):
  monkeypatch.setattr(accuracy, '_MOST', 60)
  fitted, real = [], rates.linear.logistic

  def logistic(features, labels, l2, classes):
    fitted.append(len(labels))
    return real(features, labels, l2, classes)

  monkeypatch.setattr(rates.linear, 'logistic', logistic)
  subject, _ = make(Encoder())
  found = [*rates._bits(subject, accuracy.splits_of(subject))]
  names = [f'6_numbers_of_{bits}_bits' for bits in (32, 8, 4, 2, 1)]
  assert [n.name for n in found] == names and fitted == [60] * 5
  assert all(n.value == 1.0 and n.images == 60 for n in found)
  assert all(n.protocol['train_images'] == 60 for n in found)
  assert found[0].curve['x'] == [6 * bits for bits in (32, 8, 4, 2, 1)]


def test_imagenet_has_subsets_of_its_own(make, monkeypatch):
  asked = []
  monkeypatch.setattr(
    Subject, 'describe', lambda _, *place: asked.append(place) or place
  )
  subject, _ = make(Encoder())
  cfg = dataclasses.replace(subject.cfg, dataset='imagenet2012')
  subject, shared = subject._replace(cfg=cfg), [0]
  monkeypatch.setattr(sources, 'overlap', lambda *_: shared[0])
  splits = types.SimpleNamespace(test='validation')
  few, held = accuracy._semi_split(subject, splits, 0.01)
  assert few == ('imagenet2012_subset/1pct', 'train')
  assert held == ('imagenet2012', 'train[-10009:]')
  # Test images that are training images would be chosen on, and fitted to.
  shared[0] = 10009
  with pytest.raises(sources.DataError, match='--eval_split=validation'):
    accuracy._semi_split(subject, splits, 0.01)


# Robustness -------------------------------------------------------------------


def test_corruptions_are_means_over_the_same_images(make):
  class Weak(Encoder):
    """Tells two classes under weak corruptions, and none under strong ones."""

    def __call__(self, info, look=Look()):  # noqa: B008
      for rows in super().__call__(info, look):
        if look.severity > 3:
          rows['representation'] *= 0
        elif look.severity:
          rows['representation'][rows['labels'] == 2] = 0
        yield rows

  subject, _ = make(Weak(), corrupt='all')
  found = {n.name: n for n in robustness.suite(subject)}
  assert len(found) == 2 * 16
  whole = found['corrupted/sgd_byol']
  # Zeros are some class, the same at every time.
  always = whole.scores.reshape(3, 20)[:, 0]
  said = np.argmax(always)
  expected = {0: 3 / 5, 1: 3 / 5, 2: 0.0}
  expected[said] += 2 / 5 if said < 2 else 1.0
  np.testing.assert_allclose(always, [expected[c] for c in range(3)], rtol=1e-5)
  fog = found['fog/sgd_byol']
  assert whole.value == pytest.approx(fog.value) and whole.images == 60
  assert fog.curve['x'] == [1, 2, 3, 4, 5]
  assert np.mean(fog.curve['y']) == pytest.approx(fog.value)
  assert found['corrupted/online'].value == pytest.approx(1 / 3)
  subject, _ = make(Weak(), corrupt='fog,snow')
  names = {n.name for n in robustness.suite(subject)}
  assert names == {f'{c}/{h}' for c in ('fog', 'snow')
                   for h in ('sgd_byol', 'online')}  # fmt: skip


def test_masks_are_of_the_classes_that_occur(make, tmp_path):
  few = make_images(tmp_path / 'few', {'test': 5}, CLASSES[::2])
  subject, _ = make(Encoder(), robustness_sets=f'imagenet_a={few}')
  found = {n.name: n for n in robustness.suite(subject)}
  online = found['imagenet_a/online']
  # The probe says 1, which does not occur; of the others it says the first.
  assert online.value == 0.5
  np.testing.assert_array_equal(online.scores, [1] * 5 + [0] * 5)
  assert online.protocol['class_mask'] == '2 of 3 classes'
  assert '2 classes occur, not 200' in online.protocol['note']


def test_frames_of_a_list(make, tmp_path):
  folder = tmp_path / 'frames'
  lines = ['path,classes,group']
  for i in range(6):
    write(f'{folder}/{i}.png', encoded(i))
    lines.append(f'{i}.png,{i % 2} {1 + i % 2},{i // 2}')
  write(f'{folder}/list.csv', '\n'.join(lines).encode())
  place = f'imagenet_vid=folder:{folder}'
  subject, _ = make(Encoder(), robustness_sets=place)
  found = {n.name: n for n in robustness.suite(subject)}
  # 1 is right for all; class 0 and 1 of the first, 1 and 2 of the second.
  assert found['imagenet_vid/anchor/online'].value == 1.0
  assert found['imagenet_vid/pm_k/online'].images == 3
  write(f'{folder}/list.csv', b'path,classes,group\n9.png,0,a\n')
  (missing,) = robustness.suite(subject)
  assert isinstance(missing, Missing) and "no file '9.png'" in missing.why


def test_nothing_asked_is_said(make):
  subject, _ = make(Encoder())
  (missing,) = robustness.suite(subject)
  assert '--corrupt=all' in missing.why
  (missing,) = rates.suite(subject)
  assert 'finetuned' in missing.why
