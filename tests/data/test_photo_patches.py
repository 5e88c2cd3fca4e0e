"""The built-in data set: counts, classes, disjoint regions, determinism."""

import collections
import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvr.data import photo_patches


def test_sixteen_balanced_classes(data_dir):
  """data_dir has an eighth of the patches."""
  assert photo_patches.PER_CLASS == {'train': 512, 'test': 128}
  builder = tfds.builder('photo_patches/32px', data_dir=data_dir)
  for split, per_class in (('train', 64), ('test', 16)):
    examples = list(tfds.as_numpy(builder.as_dataset(split=split)))
    labels = [example['label'] for example in examples]
    assert np.bincount(labels).tolist() == [per_class] * 16
    assert examples[0]['image'].shape == (32, 32, 3)
    assert examples[0]['image'].dtype == np.uint8


def test_names_are_sorted_and_not_one_image_repeats(tmp_path):
  names = list(photo_patches.PHOTOGRAPHS)
  assert names == sorted(names) and len(names) == 16
  builder = photo_patches.PhotoPatches(config='32px', data_dir=tmp_path)
  examples = {
    key: example
    for split in photo_patches.PER_CLASS
    for key, example in (
      ((split, key), example)
      for key, example in builder._generate_examples(split)
    )
  }
  assert len(examples) == 10_240
  labels = [(split, e['label']) for (split, _), e in examples.items()]
  assert collections.Counter(labels) == {
    (split, label): count
    for split, count in photo_patches.PER_CLASS.items()
    for label in range(16)
  }
  images = {example['image'].tobytes() for example in examples.values()}
  # A few repeat: the corners of the retina's photograph are black.
  assert len(images) > 10_200


def test_regions_share_no_pixel():
  for name in photo_patches.PHOTOGRAPHS:
    photograph = photo_patches.read_photograph(name)
    marked = np.zeros(photograph.shape, np.uint8)
    photo_patches.region(marked, 'train')[:] += 1
    photo_patches.region(marked, 'test')[:] += 2
    border = photograph.shape[1] * 3 // 4
    assert (marked[:, :border] == 1).all() and (marked[:, border:] == 2).all()


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


def test_deterministic():
  photograph = photo_patches.read_photograph('astronaut')
  digest = hashlib.sha256()
  for split in ('train', 'test'):
    patches = photo_patches.cut_patches(photograph, split, 32, (48, 96), 0)
    for _ in range(5):
      digest.update(next(patches).tobytes())
  assert digest.hexdigest()[:16] == '0f934f7784ca3b2c'


def test_without_scikit_image_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(ModuleNotFoundError, match='pip install scikit-image'):
    photo_patches.read_photograph('moon')
