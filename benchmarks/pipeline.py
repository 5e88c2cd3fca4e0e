"""The input pipeline against decoding alone, and against an image at a time.

  python -m benchmarks.pipeline [--large]

Two views of 32 px from PNGs, or (--large) of 224 px from 400 px JPEGs that the
benchmark makes. `plain` is the usual way: one tf.data map that does all of it
to one image, in tf.image's operations.
"""

import argparse
import pathlib
import tempfile
import time

from cvr.startup import quiet_start

quiet_start()

import numpy as np
import tensorflow as tf

import data_util
from benchmarks import rules, timing
from cvr.configs import (
  config,
  derived,
)
from cvr.data import (
  augmentation,
  batches,
  sources,
)

BATCH = 32


def make_images(folder, size, count=64):
  """Smooth colours under noise: at 400 px JPEGs of about 100 kB."""
  rng = np.random.default_rng(0)
  side = 400 if size > 64 else size
  coarse = rules.uniform([count, 8, 8, 3], 1) * 255
  for i in range(count):
    image = tf.image.resize(coarse[i], [side, side], 'bicubic')
    image = np.clip(image + rng.normal(0, 9, image.shape), 0, 255)
    image = image.astype(np.uint8)
    path = folder / 'train' / 'ab'[i % 2]
    path.mkdir(parents=True, exist_ok=True)
    encoded = (
      tf.io.encode_jpeg(image, quality=95)
      if size > 64
      else tf.io.encode_png(image)
    )
    suffix = 'jpg' if size > 64 else 'png'
    tf.io.write_file(str(path / f'{i}.{suffix}'), encoded)


def _jitter(image, u):
  """The published operations on one image, in their random order."""
  operations = [
    lambda x: x + (u['brightness'] * 0.8 - 0.4),
    lambda x: tf.image.adjust_contrast(x, 0.6 + 0.8 * u['contrast']),
    lambda x: tf.image.adjust_saturation(x, 0.8 + 0.4 * u['saturation']),
    lambda x: tf.image.adjust_hue(x, 0.2 * u['hue'] - 0.1),
  ]
  names = ('brightness', 'contrast', 'saturation', 'hue')
  order = tf.argsort(tf.stack([u[f'{name}_turn'] for name in names]))
  for k in tf.unstack(order):
    branches = [lambda f=f, x=image: f(x) for f in operations]
    image = data_util.clip(tf.switch_case(k, branches))
  return image


def _blur(image, sigma):
  radius = image.shape[0] // 10 // 2
  taps = tf.range(-radius, radius + 1, dtype=tf.float32)
  kernel = tf.exp(-0.5 * tf.square(taps / sigma))
  kernel = tf.tile((kernel / tf.reduce_sum(kernel))[:, None, None, None],
                   [1, 1, 3, 1])  # fmt: skip
  image = tf.nn.depthwise_conv2d(image[None], kernel, [1] * 4, 'SAME')
  kernel = tf.transpose(kernel, [1, 0, 2, 3])
  return tf.nn.depthwise_conv2d(image, kernel, [1] * 4, 'SAME')[0]


def _plain_view(image, u, box, recipe, i):
  part = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], 3])
  size = recipe.image_size
  view = data_util.clip(data_util.resize(part, size))
  view = tf.cond(u['flip'] < 0.5, lambda: tf.reverse(view, [1]), lambda: view)
  x = view
  x = tf.cond(u['jitter'] < 0.8, lambda x=x: _jitter(x, u), lambda x=x: x)
  x = tf.cond(
    u['gray'] < 0.2,
    lambda x=x: tf.tile(tf.image.rgb_to_grayscale(x), [1, 1, 3]),
    lambda x=x: x,
  )
  x = tf.ensure_shape(x, [size, size, 3])
  if recipe.blur[i]:
    sigma = 0.1 + 1.9 * u['sigma']
    blur = u['blur'] < recipe.blur[i]
    x = tf.cond(blur, lambda x=x: _blur(x, sigma), lambda x=x: x)
  if recipe.solarize[i]:
    chosen = u['solarize'] < recipe.solarize[i]
    x = tf.cond(chosen, lambda x=x: tf.where(x < 0.5, x, 1 - x), lambda x=x: x)
  return data_util.normalize(data_util.clip(x))


def plain(paths, recipe):
  """One image at a time: the same operations of the same distribution."""

  def example(path):
    image = tf.io.decode_image(
      tf.io.read_file(path), 3, expand_animations=False
    )
    draws = tf.random.uniform([2, len(data_util.DRAWS)])
    boxes = data_util.crop_boxes(
      tf.shape(image), draws, recipe.area_lower, recipe.sampling
    )
    return [
      _plain_view(image, data_util.named(draws[i]), box, recipe, i)
      for i, box in enumerate(boxes)
    ]

  return _mapped(paths, example)


def _mapped(paths, example):
  files = tf.data.Dataset.from_tensor_slices(list(paths)).repeat()
  files = files.map(example, num_parallel_calls=tf.data.AUTOTUNE)
  return files.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def datasets(folder, size):
  """Name -> an endless dataset of batches."""
  info = sources.describe(f'folder:{folder}')
  recipe = derived.augmentation(config.Config(image_size=size))

  def ours(**settings):
    return batches.train_batches(
      info,
      augmentation.per_image(recipe, 2),
      batches.HostBatch(BATCH, BATCH),
      seed=0,
      **settings,
    )

  def decode(path):
    image = tf.io.decode_image(
      tf.io.read_file(path), 3, expand_animations=False
    )
    return image[0, 0]

  def finish(batch):
    return augmentation.per_batch(recipe, batch)

  return {
    'decode': _mapped(info.paths, decode),
    'plain': plain(info.paths, recipe),
    'device': ours(),
    'host': ours(finish=finish),
    'cached': ours(cache=True),
    'cached, host': ours(cache=True, finish=finish),
  }


def rates(found, seconds, rounds):
  """Images per second of each in its best round, taken in turns."""
  best = dict.fromkeys(found, 0.0)
  for _ in range(rounds):
    for name, dataset in found.items():
      # A new one each time: those that wait fill their buffers meanwhile.
      iterator = iter(dataset)
      for measured in (False, True):  # The first half is for starting up.
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
          next(iterator)
          count += 1
        rate = BATCH * count / (time.perf_counter() - began)
        if measured:
          best[name] = max(best[name], rate)
      del iterator
  return best


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--large', action='store_true', help='224 px')
  parser.add_argument('--rounds', type=int, default=4)
  parser.add_argument('--seconds', type=float, default=1.5)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  size = 224 if args.large else 32
  with tempfile.TemporaryDirectory() as folder:
    make_images(pathlib.Path(folder), size)
    found = rates(datasets(folder, size), args.seconds, args.rounds)
  rows = [
    {
      'pipeline': name,
      'images/s': f'{rate:,.0f}',
      'of decoding': f'{100 * rate / found["decode"]:.0f}%',
      'x plain': f'{rate / found["plain"]:.2f}',
    }
    for name, rate in found.items()
  ]
  timing.report('pipeline_large' if args.large else 'pipeline', rows, args.out)


if __name__ == '__main__':
  main()
