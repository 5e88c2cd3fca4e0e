"""The 15 corruptions of ImageNet-C, in TensorFlow, for images of any size.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019. The scale 'imagenet_c' has the
parameters of ImageNet-C, for images of 224 px, and 'cifar10_c' those of
CIFAR-10-C, most of them milder, for 32 px. Accuracies are similar to those on
the published sets but not comparable, for these exceptions:
  frost adds procedural pictures to the image, not the published photographs,
    but with their colours and contrast;
  motion_blur and snow blur as the sources of ImageMagick's -motion-blur do,
  without that program;
  elastic_transform moves by exact distances, not by multiples of 1/32 pixel;
  nothing is stored as a JPEG of quality 85, as ImageNet-C is.
Images have 8 bits before and after, as there. At another size H lengths are
multiplied by H / 224 (or H / 32): an image shows what it would show if it were
enlarged to 224 px, corrupted and averaged down. Noise per pixel is the same.
"""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cvr.evaluation.corruptions import blurs, weather
from cvr.numerics import randomness

GROUPS = {
  'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
  'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
  'weather': ('snow', 'frost', 'fog', 'brightness'),
  'digital': (
    'contrast',
    'elastic_transform',
    'pixelate',
    'jpeg_compression',
  ),
}
# Of a level: more than what float32 may lower an integer by.
_SLACK = 1e-4
CORRUPTIONS = tuple(name for group in GROUPS.values() for name in group)


def to_levels(x):
  """[0, 1] -> integers in [0, 255], as floats."""
  return tf.round(255 * tf.clip_by_value(x, 0.0, 1.0))


def truncated(x):
  """As to_levels, by cutting the fraction off, as NumPy's uint8 does."""
  return tf.floor(255 * tf.clip_by_value(x, 0.0, 1.0) + _SLACK)


def from_levels(levels):
  # No division by 255: graph optimizers may turn it into this product.
  return levels * (1 / 255)


# Noise -----------------------------------------------------------------------


def gaussian_noise(x, draw, base, scale):
  del base
  return x + scale * draw(randomness.normal, x.shape[1:])


def _alias(p):
  """Walker's alias tables of p [k]: (share of a slot kept, its alias)."""
  keep, other = p * len(p) / p.sum(), np.arange(len(p))
  small = [i for i, share in enumerate(keep) if share < 1]
  large = [i for i, share in enumerate(keep) if share >= 1]
  while small and large:
    slot, giver = small.pop(), large[-1]
    other[slot] = giver
    keep[giver] -= 1 - keep[slot]
    if keep[giver] < 1:
      small.append(large.pop())
  keep[small + large] = 1.0
  return keep, other


@functools.lru_cache
def poisson_tables(rate):
  """Walker's tables of Poisson(level / 255 * rate): [256, k] twice."""
  # The tail beyond has less than 1e-9, below the resolution of 24 bits.
  k = 2 ** int(np.ceil(np.log2(rate + 8 * rate**0.5)))
  counts = np.arange(k)
  log_factorial = np.cumsum(np.log(np.maximum(counts, 1)))
  mean = np.maximum(np.arange(256) / 255 * rate, 1e-30)[:, None]
  p = np.exp(counts * np.log(mean) - mean - log_factorial)
  keep, other = zip(*map(_alias, p), strict=True)
  return np.array(keep, np.float32), np.array(other, np.int32)


def shot_noise(x, draw, base, rate):
  """Counts of photons, Poisson(rate x), over rate."""
  del base
  keep, other = poisson_tables(rate)
  k = keep.shape[1]
  u = k * draw(randomness.uniform, x.shape[1:])
  slot = tf.floor(u)
  at = tf.cast(to_levels(x) * k + slot, tf.int32)
  kept = u - slot < tf.gather(keep.ravel(), at)
  rest = tf.cast(tf.gather(other.ravel(), at), tf.float32)
  return tf.where(kept, slot, rest) / rate


def impulse_noise(x, draw, base, amount):
  """Salt and pepper, independent in each channel."""
  del base
  u = draw(randomness.uniform, x.shape[1:])
  return tf.where(u < amount, tf.where(u < amount / 2, 0.0, 1.0), x)


# Blur ------------------------------------------------------------------------


def defocus_blur(x, draw, base, radius, soft):
  del draw
  kernel = blurs.disk(radius, soft)
  first = -(len(kernel) // 2)
  _, share = blurs.spread(first, len(kernel), x.shape[1] / base)
  return blurs.filtered(x, share @ kernel @ share.T)


def glass_blur(x, draw, base, sigma, reach, times):
  """Pixels copied from `reach` away, between two Gaussian blurs."""
  size = x.shape[1]
  scale = size / base
  rows = blurs.gaussian_rows(size, sigma, scale)
  x = blurs.from_planes(blurs.both_ways(rows, blurs.to_planes(x)))
  x = truncated(x) / 255
  pixels = tf.reshape(x, [-1, size * size, 3])
  for time in range(times):
    u = draw(randomness.uniform, [2, size, size], time) * (2 * reach)
    # In [-reach, reach); a fraction of a pixel is its probability of rounding
    # up.
    steps = tf.floor(u)
    moved = tf.cast(tf.floor((steps - reach) * scale + u - steps), tf.int32)
    margin = int(np.ceil(reach * scale))
    source = blurs.copied_from(moved[:, 0], moved[:, 1], margin)
    pixels = tf.gather(pixels, source, batch_dims=1)
  planes = blurs.to_planes(tf.reshape(pixels, [-1, size, size, 3]))
  return blurs.from_planes(blurs.both_ways(rows, planes))


def motion_blur(x, draw, base, radius, sigma):
  taps = blurs.half_gaussian(radius, sigma, x.shape[1] / base)
  degrees = -45 + 90 * draw(randomness.uniform, [])
  return blurs.streaks(x, taps, degrees)


def zoom_blur(x, draw, base, end, step):
  del draw, base
  factors = np.arange(1, end, step)
  zoomed = [blurs.clipped_zoom(x, factor) for factor in factors]
  return (x + tf.add_n(zoomed)) / (len(factors) + 1)


# Brightness and digital ------------------------------------------------------


def brightness(x, draw, base, shift):
  """Raises the value of HSV; hue and saturation stay."""
  del draw, base
  value = tf.reduce_max(x, -1, keepdims=True)
  raised = tf.minimum(value + shift, 1.0)
  return tf.where(value > 0, tf.math.divide_no_nan(x, value), 1.0) * raised


def contrast(x, draw, base, factor):
  del draw, base
  # In integers: a sum of so many floats has an error of 0.01 levels.
  total = tf.reduce_sum(tf.cast(to_levels(x), tf.int32), [1, 2], keepdims=True)
  mean = tf.cast(total, tf.float32) / (255 * x.shape[1] * x.shape[2])
  return (x - mean) * factor + mean


def _affine(moves, size):
  """Moves of three points [b, 3, 2] (x, y) -> sources y, x [b, H, H]."""
  centre, reach = size // 2, size // 3
  corners = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
  moved = tf.concat([corners + moves, tf.ones_like(moves[..., :1])], -1)
  # The inverse map: from target pixels to their sources.
  back = tf.linalg.solve(moved, tf.zeros_like(moves) + corners)
  grid = np.stack(
    [*np.mgrid[:size, :size][::-1], np.ones([size, size])], -1
  ).astype(np.float32)
  was = tf.reshape(
    tf.matmul(tf.reshape(grid, [1, -1, 3]), back), [-1, size, size, 2]
  )
  return was[..., 1], was[..., 0]


def elastic_transform(x, draw, base, alpha, sigma, shift):
  """A random affine map, then a smooth random displacement."""
  size = x.shape[1]
  scale = size / base
  moves = scale * shift * (2 * draw(randomness.uniform, [3, 2]) - 1)
  x = blurs.sampled(x, *_affine(moves, size), repeat_edge=False)
  if not alpha:
    return x
  rows = blurs.reflected_gaussian_rows(base, sigma)
  rows = scale**0.5 * blurs.box_rows(base, size) @ rows
  noise = alpha * (2 * draw(randomness.uniform, [2, base, base], 1) - 1)
  move = blurs.both_ways(rows, noise)
  at = tf.range(size, dtype=tf.float32)
  return blurs.sampled(
    x, at[:, None] + move[:, 1], at + move[:, 0], repeat_edge=True
  )


def pixelate(x, draw, base, proportion):
  """Shrunk and enlarged by Pillow's BOX filter, in 8 bits."""
  del draw, base
  size = x.shape[1]
  down = blurs.box_rows(size, int(size * proportion)).astype(np.float32)
  up = blurs.box_rows(int(size * proportion), size)
  planes = tf.matmul(255 * blurs.to_planes(x), down, transpose_b=True)
  # Pillow rounds half up, after each of its two passes.
  planes = tf.floor(planes + 0.5001)
  planes = tf.floor(tf.matmul(down, planes) + 0.5001)
  return blurs.from_planes(blurs.both_ways(up, planes)) / 255


def jpeg_compression(x, draw, base, quality):
  """By libjpeg, image by image on the host."""
  del draw, base

  def compressed(image):
    data = tf.io.encode_jpeg(image, quality=quality)
    return tf.io.decode_jpeg(data, 3, dct_method='INTEGER_ACCURATE')

  levels = tf.map_fn(compressed, tf.cast(to_levels(x), tf.uint8))
  return tf.cast(tf.ensure_shape(levels, x.shape), tf.float32) / 255


# All of them -----------------------------------------------------------------

_FUNCTIONS = {
  'gaussian_noise': gaussian_noise,
  'shot_noise': shot_noise,
  'impulse_noise': impulse_noise,
  'defocus_blur': defocus_blur,
  'glass_blur': glass_blur,
  'motion_blur': motion_blur,
  'zoom_blur': zoom_blur,
  'snow': weather.snow,
  'frost': weather.frost,
  'fog': weather.fog,
  'brightness': brightness,
  'contrast': contrast,
  'elastic_transform': elastic_transform,
  'pixelate': pixelate,
  'jpeg_compression': jpeg_compression,
}
# What programs that round have made; NumPy cuts off the fraction of the rest.
_ROUNDED = ('motion_blur', 'pixelate', 'jpeg_compression')
# For severities 1 to 5; lengths in pixels at 224 px, of make_imagenet_c.py in
# hendrycks/robustness.
IMAGENET_C = {
  'gaussian_noise': [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)],
  'shot_noise': [(60,), (25,), (12,), (5,), (3,)],
  'impulse_noise': [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)],
  'defocus_blur': [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
  'glass_blur': [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
  'motion_blur': [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
  'zoom_blur': [
    (1.11, 0.01),
    (1.16, 0.01),
    (1.21, 0.02),
    (1.26, 0.02),
    (1.31, 0.03),
  ],
  'snow': [
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
  ],
  'frost': [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
  'fog': [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
  'brightness': [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
  'contrast': [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
  # The authors' code has fractions of 244, not of 224.
  'elastic_transform': [
    (488, 170.8, 24.4),
    (488, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
  ],
  'pixelate': [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)],
  'jpeg_compression': [(25,), (18,), (15,), (10,), (7,)],
}
# Lengths in pixels at 32 px, of make_cifar_c.py there.
CIFAR10_C = {
  'gaussian_noise': [(0.04,), (0.06,), (0.08,), (0.09,), (0.1,)],
  'shot_noise': [(500,), (250,), (100,), (75,), (50,)],
  'impulse_noise': [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)],
  'defocus_blur': [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
  'glass_blur': [
    (0.05, 1, 1),
    (0.25, 1, 1),
    (0.4, 1, 1),
    (0.25, 1, 2),
    (0.4, 1, 2),
  ],
  'motion_blur': [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
  'zoom_blur': [
    (1.06, 0.01),
    (1.11, 0.01),
    (1.16, 0.01),
    (1.21, 0.01),
    (1.26, 0.01),
  ],
  'snow': [
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
  ],
  'frost': [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
  'fog': [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
  'brightness': [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)],
  'contrast': [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)],
  # Fractions of 32.
  'elastic_transform': [
    (0, 0, 2.56),
    (1.6, 6.4, 2.24),
    (2.56, 1.92, 1.92),
    (3.2, 1.28, 1.6),
    (3.2, 0.96, 0.96),
  ],
  'pixelate': [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)],
  'jpeg_compression': [(80,), (65,), (58,), (50,), (40,)],
}


class Scale(NamedTuple):
  """The parameters of a published set, and the side that lengths are for."""

  parameters: dict
  side: int


SCALES = {
  'imagenet_c': Scale(IMAGENET_C, 224),
  'cifar10_c': Scale(CIFAR10_C, 32),
}
# To be raised when images in stores would come out differently.
VERSION = 3


def draws(name, severity, index, seed=0):
  """-> draw(fn, shape, stream=0) -> [b, *shape]; fn: of numerics.randomness.

  Each image's draw depends on its index [b], the seed, name and severity alone.
  """
  key = (seed * len(CORRUPTIONS) + CORRUPTIONS.index(name)) * 5 + severity
  index = tf.cast(index, tf.int64)

  def draw(fn, shape, stream=0):
    # Mapped, so that the draw of an image cannot depend on its batch.
    first = tf.constant(8 * key + stream, tf.int64)
    return tf.map_fn(
      lambda i: fn(shape, tf.stack([first, i])),
      index,
      fn_output_signature=tf.float32,
    )

  return draw


def corrupt(name, severity, images, index, seed=0, scale='imagenet_c'):
  """images [b, H, H, 3] in [0, 1], index [b] in their split -> the same shape.

  severity: 1 to 5; scale: of SCALES. Results lie on the 256 levels of 8 bits.
  """
  if images.shape[1] is None or images.shape[1] != images.shape[2]:
    raise ValueError(
      f'images of shape {images.shape} are to be corrupted; they have to be '
      'square, and of a size that is known when the graph is traced'
    )
  draw = draws(name, severity, index, seed)
  parameters, side = SCALES[scale]
  x = from_levels(to_levels(images))
  x = _FUNCTIONS[name](x, draw, side, *parameters[name][severity - 1])
  return from_levels(to_levels(x) if name in _ROUNDED else truncated(x))
