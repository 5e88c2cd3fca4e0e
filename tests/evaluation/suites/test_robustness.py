"""The suite `robustness` on known features."""

import types

import numpy as np
import pytest

from cvr.evaluation.heads import fitted
from cvr.evaluation.subject import Missing, splits_of
from cvr.evaluation.suites import robustness, robustness_sets
from known_features import Encoder, make_images
from small_data import CLASSES, encoded, write

pytestmark = pytest.mark.usefixtures('quick_heads')


def test_corruptions_are_means_over_the_same_images(make_subject):
  class Weak(Encoder):
    """Tells two classes under weak corruptions, and none under strong ones."""

    def __call__(self, info, look):
      for rows in super().__call__(info, look):
        if look.severity > 3:
          rows['representation'] *= 0
        elif look.severity:
          rows['representation'][rows['labels'] == 2] = 0
        yield rows

  subject, _ = make_subject(Weak(), corrupt='all')
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
  subject, _ = make_subject(Weak(), corrupt='fog,snow')
  names = {n.name for n in robustness.suite(subject)}
  assert names == {f'{c}/{h}' for c in ('fog', 'snow')
                   for h in ('sgd_byol', 'online')}  # fmt: skip


def test_masks_are_of_the_classes_that_occur(make_subject, tmp_path):
  few = make_images(tmp_path / 'few', {'test': 5}, CLASSES[::2])
  subject, _ = make_subject(Encoder(), robustness_sets=f'imagenet_a={few}')
  found = {n.name: n for n in robustness.suite(subject)}
  online = found['imagenet_a/online']
  # The probe says 1, which does not occur; of the others it says the first.
  assert online.value == 0.5
  np.testing.assert_array_equal(online.scores, [1] * 5 + [0] * 5)
  assert online.protocol['class_mask'] == '2 of 3 classes'
  assert '2 classes occur, not 200' in online.protocol['note']


def test_frames_of_a_list(make_subject, tmp_path):
  folder = tmp_path / 'frames'
  lines = ['path,classes,group']
  for i in range(6):
    write(f'{folder}/{i}.png', encoded(i))
    lines.append(f'{i}.png,{i % 2} {1 + i % 2},{i // 2}')
  write(f'{folder}/list.csv', '\n'.join(lines).encode())
  place = f'imagenet_vid=folder:{folder}'
  subject, _ = make_subject(Encoder(), robustness_sets=place)
  found = {n.name: n for n in robustness.suite(subject)}
  # 1 is right for all; class 0 and 1 of the first, 1 and 2 of the second.
  assert found['imagenet_vid/anchor/online'].value == 1.0
  assert found['imagenet_vid/pm_k/online'].images == 3
  write(f'{folder}/list.csv', b'path,classes,group\n9.png,0,a\n')
  (missing,) = robustness.suite(subject)
  assert isinstance(missing, Missing) and "no file '9.png'" in missing.why


def test_corruptions_of_other_than_rgb_are_missing(make_subject, tmp_path):
  subject, _ = make_subject(Encoder(), channels=1)
  (missing,) = robustness.suite(subject)
  assert 'RGB images, but this network has --channels=1' in missing.why
  # Sets of images are read as any other.
  few = make_images(tmp_path / 'few', {'test': 5})
  subject, _ = make_subject(
    Encoder(), channels=1, robustness_sets=f'imagenet_a={few}'
  )
  assert 'imagenet_a/online' in {n.name for n in robustness.suite(subject)}


def test_nothing_asked_is_said(make_subject):
  subject, _ = make_subject(Encoder())
  (missing,) = robustness.suite(subject)
  assert '--corrupt=all' in missing.why


def test_imagenet_c_is_cropped_again_by_name_alone(
  make_subject, tmp_path, monkeypatch
):
  images = make_images(tmp_path / 'c', {'val': 4})
  keys = robustness_sets._settings()
  monkeypatch.setattr(
    robustness_sets, 'corrupted', lambda _: dict.fromkeys(keys, (images, 'val'))
  )
  encoder = Encoder()
  for name, crop in (('imagenet_c', 1.0), ('imagenet_c_recropped', 0.875)):
    subject, _ = make_subject(
      encoder, images=images, robustness_sets=f'{name}={images}',
      train_split='val', eval_split='val', image_size=224,
    )  # fmt: skip
    encoder.seen.clear()
    heads = {
      'one': (lambda rows, mask: rows['labels'], {}),
    }
    splits = types.SimpleNamespace(
      train=subject.describe(images, 'val'), classes=3
    )
    found = [*robustness._published(subject, splits, heads)]
    assert [n.name for n in found] == ['mean_accuracy/one', 'mce/one']
    assert {n.dataset for n in found} == {name}
    assert {look.crop for _, look in encoder.seen} == {crop}
    assert found[0].protocol['crop'].startswith(f'central, {crop:g} of')


def test_the_scale_of_corruptions_goes_with_the_image_size(make_subject):
  encoder = Encoder()
  for size, typed, wanted in (
    (16, 'auto', 'cifar10_c'),
    (33, 'auto', 'imagenet_c'),
    (16, 'imagenet_c', 'imagenet_c'),
  ):
    subject, _ = make_subject(
      encoder, corrupt='fog', image_size=size, corrupt_scale=typed
    )
    found = [*robustness.suite(subject)]
    assert {n.protocol['corrupt_scale'] for n in found} == {wanted}
    looks = [look for _, look in encoder.seen if look.corruption]
    assert {look.scale for look in looks} == {wanted}
    encoder.seen.clear()


def test_the_frozen_head_chooses_among_the_classes_that_occur(
  make_subject, tmp_path
):
  class Misled(Encoder):
    """The variant's images look most like class 1, which it has none of."""

    def __call__(self, info, look):
      for rows in super().__call__(info, look):
        if info.split == 'test':  # Its classes are 0 and 2 of the head's.
          rows['representation'] *= 0
          at = np.arange(len(rows['labels']))
          rows['representation'][at, 2 * rows['labels']] = 20
          rows['representation'][:, 1] = 30
        yield rows

  few = make_images(tmp_path / 'few', {'test': 5}, CLASSES[::2])
  subject, _ = make_subject(Misled(), robustness_sets=f'imagenet_a={few}')
  found = {n.name: n for n in robustness.suite(subject)}
  # Among 0 and 2 alone the features tell all of them.
  assert found['imagenet_a/sgd_byol'].value == 1.0
  head, facts = fitted.sgd_head(subject, splits_of(subject), 'sgd_byol')
  rows = np.zeros([2, 6], np.float32)
  rows[[0, 1], [0, 2]] = 20
  rows[:, 1] = 30
  logits = rows @ head.kernel + head.bias
  assert logits.argmax(1).tolist() == [1, 1]  # Without a mask all are wrong.
