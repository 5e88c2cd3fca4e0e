"""The built-in data set: counts, classes, disjoint regions, determinism."""

import collections
import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvr.configs import settings
from cvr.data import photo_patches


def test_sixteen_balanced_classes(data_dir):
  """data_dir has an eighth of the patches."""
  counts = {'train': 512, 'validation': 128, 'test': 128}
  assert photo_patches.PER_CLASS == counts
  builder = tfds.builder('photo_patches/32px:2.0.0', data_dir=data_dir)
  assert {*builder.info.splits} == {*counts}
  for split, per_class in (('train', 64), ('validation', 16), ('test', 16)):
    examples = list(tfds.as_numpy(builder.as_dataset(split=split)))
    labels = [example['label'] for example in examples]
    assert np.bincount(labels).tolist() == [per_class] * 16
    assert examples[0]['image'].shape == (32, 32, 3)
    assert examples[0]['image'].dtype == np.uint8


def test_names_are_sorted_and_not_one_image_repeats(tmp_path):
  names = list(photo_patches.PHOTOGRAPHS)
  assert names == sorted(names) and len(names) == 16
  builder = photo_patches.PhotoPatches(
    config='32px', version='2.0.0', data_dir=tmp_path
  )
  examples = {
    key: example
    for split in photo_patches.PER_CLASS
    for key, example in (
      ((split, key), example)
      for key, example in builder._generate_examples(split)
    )
  }
  assert len(examples) == 12_288
  labels = [(split, e['label']) for (split, _), e in examples.items()]
  assert collections.Counter(labels) == {
    (split, label): count
    for split, count in photo_patches.PER_CLASS.items()
    for label in range(16)
  }
  images = {example['image'].tobytes() for example in examples.values()}
  # A few repeat: the corners of the retina's photograph are black.
  assert len(images) > 12_200


@pytest.mark.parametrize('version', ['1.0.0', '2.0.0'])
def test_every_pixel_is_in_one_split(version):
  for name in photo_patches.PHOTOGRAPHS:
    photograph = photo_patches.read_photograph(name)
    times = np.zeros(photograph.shape[:2], int)
    for split in photo_patches.REGIONS[version]:
      photo_patches.region(times, split, version)[:] += 1
    assert (times == 1).all()


def test_the_quarters_of_a_photograph():
  columns = np.arange(402)[None]
  train, validation, test = (
    photo_patches.region(columns, split)[0]
    for split in ('train', 'validation', 'test')
  )
  assert (train[0], train[-1]) == (0, 200)
  assert (validation[0], validation[-1]) == (201, 300)
  assert (test[0], test[-1]) == (301, 401)
  (old,) = photo_patches.region(columns, 'train', '1.0.0')
  assert (old[0], old[-1]) == (0, 300)


@pytest.mark.parametrize('height,width', [(200, 300), (172, 60), (300, 30)])
def test_boxes_lie_inside(height, width):
  boxes = photo_patches.patch_boxes(
    height, width, 500, (48, 96), np.random.default_rng(0)
  )
  top, left, side = boxes.T
  assert (boxes >= 0).all()
  assert (top + side <= height).all() and (left + side <= width).all()
  most = min(96, height, width)
  assert side.min() == min(48, most) and side.max() == most
  assert (top + side).max() == height and (left + side).max() == width


@pytest.mark.parametrize(
  'version, splits, digest',
  [
    # As runs of this version had them.
    ('1.0.0', ('train', 'test'), '0f934f7784ca3b2c'),
    ('2.0.0', ('train', 'test', 'validation'), '665c78031a716abc'),
  ],
)
def test_deterministic(version, splits, digest):
  photograph = photo_patches.read_photograph('astronaut')
  found = hashlib.sha256()
  for split in splits:
    part = photo_patches.region(photograph, split, version)
    patches = photo_patches.cut_patches(part, split, 32, (48, 96), 0)
    for _ in range(5):
      found.update(next(patches).tobytes())
  assert found.hexdigest()[:16] == digest


def test_both_versions_have_the_same_test_patches():
  of = {
    version: photo_patches.PhotoPatches(config='32px', version=version)
    for version in photo_patches.REGIONS
  }
  old, new = (
    [example['image'].tobytes() for _, example in pairs]
    for pairs in (builder._generate_examples('test') for builder in of.values())
  )
  assert len(old) == 2048 and old == new


def test_without_scikit_image_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ModuleNotFoundError, match='pip install scikit-image'):
    photo_patches.read_photograph('moon')


def test_the_command_line_knows_its_names_and_its_newest_version():
  assert settings.NEWEST == max(photo_patches.REGIONS)
  sizes = [c.name for c in photo_patches.PhotoPatches.BUILDER_CONFIGS]
  names = ['photo_patches', *(f'photo_patches/{size}' for size in sizes)]
  assert [*settings.BUILT_IN] == names
