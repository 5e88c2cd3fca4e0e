"""What each operation on the way to two views costs, on one core.

  python -m benchmarks.parts [--large]

On the images of benchmarks.pipeline; batches of 16, as the input has them.
"""

import argparse
import pathlib
import tempfile

from cvr.startup import quiet_start

quiet_start()

import numpy as np
import tensorflow as tf

import data_util
from benchmarks import pipeline, timing
from cvr.configs import (
  config,
  derived,
)
from cvr.data import (
  augmentation,
  decoding,
)

COUNT = 16
NOTHING = 'a call of nothing'


def _repeated(function, *arguments):
  """-> a call of function for each of the arguments, one after the other."""
  traced = tf.function(function, autograph=False, reduce_retracing=True)

  def call():
    for some in zip(*arguments, strict=True):
      traced(*some)

  return call


def _of_images(files, recipe):
  """{name: (a call for all images, how many times two views need it)}."""
  draws = tf.unstack(tf.random.uniform([COUNT, 2, len(data_util.DRAWS)]))
  images = [decoding.decode(file) for file in files]
  floats = [tf.cast(image, tf.float32) for image in images]
  boxes = [
    augmentation._boxes(recipe, tf.shape(image), numbers)[0]
    for image, numbers in zip(images, draws, strict=True)
  ]
  size = recipe.image_size
  crops = [
    data_util.crop(*pair, size) for pair in zip(floats, boxes, strict=True)
  ]
  shapes = [tf.shape(image) for image in images]
  seeds = [tf.constant([i, 1], tf.int64) for i in range(COUNT)]

  def numbers(shape, seed):
    return augmentation._boxes(recipe, shape, augmentation._draws(2, seed))

  return {
    NOTHING: (_repeated(lambda s: s, shapes), 0),
    'decode': (_repeated(decoding.decode, files), 1),
    'draws and boxes': (_repeated(numbers, shapes, seeds), 1),
    'to floats': (_repeated(lambda x: tf.cast(x, tf.float32), images), 1),
    'crop, bicubic': (
      _repeated(lambda x, box: data_util.crop(x, box, size), floats, boxes),
      2,
    ),
    'to bytes': (_repeated(data_util.to_bytes, crops), 2),
  }


def _of_batches(recipe):
  """The same of what is done to batches."""
  rng, size = np.random.default_rng(0), recipe.image_size
  images = rng.integers(0, 256, [COUNT, size, size, 3], dtype=np.uint8)
  draws = tf.random.uniform([COUNT, len(data_util.DRAWS)])
  u, on = data_util.named(draws), tf.ones([COUNT], tf.bool)
  planes = data_util.to_planes(images, on)
  strengths = (recipe.brightness, recipe.contrast, recipe.saturation,
               recipe.hue)  # fmt: skip

  def batch(function, *arguments):
    traced = tf.function(function, autograph=False)
    return lambda: traced(*arguments)

  return {
    'flip, to planes': (batch(data_util.to_planes, images, on), 2),
    'colour jitter': (
      batch(lambda x: data_util.color_jitter(x, u, on, strengths), planes),
      2,
    ),
    'grayscale': (batch(data_util.to_grayscale, planes, on), 2),
    'blur': (batch(data_util.gaussian_blur, planes, u['sigma'] + 0.1), 2),
    'solarise, normalise': (
      batch(lambda x: data_util.finish(x, on, True), planes),
      2,
    ),
  }


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--large', action='store_true', help='224 px')
  parser.add_argument('--rounds', type=int, default=10)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)
  size = 224 if args.large else 32
  recipe = derived.augmentation(config.Config(image_size=size))
  with tempfile.TemporaryDirectory() as folder:
    pipeline.make_images(pathlib.Path(folder), size, COUNT)
    paths = sorted(pathlib.Path(folder).rglob('*.*'))
    files = [tf.io.read_file(str(path)) for path in paths]
    images = _of_images(files, recipe)
  parts = images | _of_batches(recipe)
  found = timing.best({k: call for k, (call, _) in parts.items()}, args.rounds)
  once = {
    # The calls of single images have Python between them.
    name: (seconds - (found[NOTHING] if name in images else 0)) / COUNT
    for name, seconds in found.items()
  }
  rows = [
    {
      'operation': name,
      'times': times,
      'us each': f'{1e6 * once[name]:.0f}',
      'us for two views': f'{1e6 * times * once[name]:.0f}',
      'of decoding': f'{100 * times * once[name] / once["decode"]:.0f}%',
    }
    for name, (_, times) in parts.items()
    if times
  ]
  timing.report('parts_large' if args.large else 'parts', rows, args.out)


if __name__ == '__main__':
  main()
