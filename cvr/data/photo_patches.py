"""A built-in data set that needs no network: patches of real photographs.

The photographs are part of scikit-image's wheel; the class of a patch is its
photograph. Train patches come from the left half of each, validation patches
from the quarter beside it, test patches from the right quarter, so that no
pixel is in two splits. TFDS knows it as `photo_patches/32px` and
`photo_patches/64px`.

Version 1.0.0, which older runs were trained on, has no validation split: train
patches come from the left three quarters. The test patches are the same.
"""

import importlib.util
import os

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# Class -> file of skimage/data. The wheel holds all of these.
PHOTOGRAPHS = {
  'astronaut': 'astronaut.png',
  'brick': 'brick.png',
  'camera': 'camera.png',
  'chelsea': 'chelsea.png',
  'clock': 'clock_motion.png',
  'coffee': 'coffee.png',
  'coins': 'coins.png',
  'grass': 'grass.png',
  'gravel': 'gravel.png',
  'hubble_deep_field': 'hubble_deep_field.jpg',
  'immunohistochemistry': 'ihc.png',
  'moon': 'moon.png',
  'page': 'page.png',
  'retina': 'retina.jpg',
  'rocket': 'rocket.jpg',
  'text': 'text.png',
}
# Split -> its patches of a photograph. The order is part of the seed.
PER_CLASS = {'train': 512, 'test': 128, 'validation': 128}
# Version -> split -> the part of a photograph's width that it covers.
REGIONS = {
  '1.0.0': {'train': (0, 0.75), 'test': (0.75, 1)},
  '2.0.0': {'train': (0, 0.5), 'test': (0.75, 1), 'validation': (0.5, 0.75)},
}


def read_photograph(name):
  """-> uint8 [H, W, 3], from the installed scikit-image's files."""
  spec = importlib.util.find_spec('skimage')
  if spec is None:
    raise ModuleNotFoundError(
      'photo_patches is cut from photographs that come with scikit-image: '
      'pip install scikit-image'
    )
  folder = os.path.join(os.path.dirname(spec.origin), 'data')
  data = tf.io.read_file(os.path.join(folder, PHOTOGRAPHS[name]))
  return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def region(photograph, split, version='2.0.0'):
  """The part of a photograph [H, W, 3] that the patches of a split cover."""
  width = photograph.shape[1]
  left, right = (int(end * width) for end in REGIONS[version][split])
  return photograph[:, left:right]


def patch_boxes(height, width, count, sides, rng):
  """-> int [count, 3]: (top, left, side) of random squares in the image."""
  high = min(sides[1], height, width)
  low = min(sides[0], high)
  side = rng.integers(low, high, count, endpoint=True)
  top = rng.integers(0, height - side, endpoint=True)
  left = rng.integers(0, width - side, endpoint=True)
  return np.stack([top, left, side], -1)


def cut_patches(part, split, size, sides, seed):
  """part: `region` -> yields PER_CLASS[split] patches uint8 [size, size, 3]."""
  from PIL import Image  # Comes with scikit-image, which is optional.

  rng = np.random.default_rng([seed, list(PER_CLASS).index(split)])
  boxes = patch_boxes(*part.shape[:2], PER_CLASS[split], sides, rng)
  for top, left, side in boxes:
    patch = Image.fromarray(part[top : top + side, left : left + side])
    yield np.asarray(patch.resize((size, size), Image.Resampling.BICUBIC))


class PatchConfig(tfds.core.BuilderConfig):
  """size: of the images; sides: the smallest and largest side of a patch."""

  def __init__(self, size, sides):
    super().__init__(
      name=f'{size}px', description=f'{size} px, from {sides[0]} to {sides[1]}'
    )
    self.size = size
    self.sides = sides


class PhotoPatches(tfds.core.GeneratorBasedBuilder):
  """Patches of the photographs in scikit-image's wheel."""

  # A name without a version means the first one, as runs have stored it; the
  # command line adds the newest (cvr/configs/settings.py). TFDS prepares the
  # canonical version and the newest one, nothing older.
  VERSION = tfds.core.Version('1.0.0')
  SUPPORTED_VERSIONS = [tfds.core.Version('2.0.0')]
  BUILDER_CONFIGS = [PatchConfig(32, (48, 96)), PatchConfig(64, (64, 128))]

  def _info(self):
    size = self.builder_config.size
    return tfds.core.DatasetInfo(
      builder=self,
      description=__doc__,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(size, size, 3)),
          'label': tfds.features.ClassLabel(names=list(PHOTOGRAPHS)),
        }
      ),
      supervised_keys=('image', 'label'),
    )

  def _split_generators(self, dl_manager):
    splits = REGIONS[str(self.version)]
    return {split: self._generate_examples(split) for split in splits}

  def _generate_examples(self, split):
    config = self.builder_config
    for label, name in enumerate(PHOTOGRAPHS):
      part = region(read_photograph(name), split, str(self.version))
      patches = cut_patches(part, split, config.size, config.sides, seed=label)
      for i, image in enumerate(patches):
        yield f'{name}_{i:04}', {'image': image, 'label': label}
