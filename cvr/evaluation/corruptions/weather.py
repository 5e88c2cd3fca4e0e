"""Snow, frost and fog as ImageNet-C has them, on batches of images.

Flakes, fog and ice are drawn at `base` px (224 in ImageNet-C, 32 in CIFAR-10-C)
or as fine as the image needs, and averaged down to its size. draw(fn, shape,
stream) -> [b, *shape], independent for each image: see corruptions.draws. Two
differ from ImageNet-C: frost adds procedural pictures with the colours and the
contrast of its photographs; snow's motion blur follows the sources of
ImageMagick, without that program.
"""

import functools

import numpy as np
import tensorflow as tf

from cvr.evaluation.corruptions import blurs
from cvr.numerics import randomness

# Of the five photographs of frost: means of red, green and blue, and the
# deviation of their gray levels, as in the files of imagecorruptions 1.1.2.
# The second and the third are one photograph.
PHOTOGRAPHS = (
  (77.7, 149.1, 165.7, 18.0),
  (200.8, 205.4, 214.5, 22.0),
  (200.8, 205.4, 214.5, 22.0),
  (137.6, 152.8, 165.2, 28.9),
  (112.4, 123.4, 134.8, 43.1),
)
_PANES, _PANE_SIDE = len(PHOTOGRAPHS), 512
# Of the pictures of frost, by the side of the images: CIFAR-10-C's.
_SHRUNK = {32: 0.2}


def snow(x, draw, base, mean, spread, zoom, least, radius, sigma, keep):
  """[b, H, H, 3]: flakes, blurred as they fall, over a whitened image."""
  size = x.shape[1]
  side = int(np.ceil(base / zoom))
  flakes = mean + spread * draw(randomness.normal, [side, side, 1])
  flakes = blurs.enlarged(flakes, zoom, base)
  flakes = tf.where(flakes < least, 0.0, tf.clip_by_value(flakes, 0.0, 1.0))
  flakes = tf.floor(255 * flakes) / 255
  down = blurs.box_rows(base, size)
  flakes = blurs.both_ways(down, flakes[..., 0])[..., None]
  degrees = -135 + 90 * draw(randomness.uniform, [], 1)
  taps = blurs.half_gaussian(radius, sigma, size / base)
  flakes = tf.round(255 * blurs.streaks(flakes, taps, degrees)) / 255
  gray = tf.reduce_sum(x * [0.299, 0.587, 0.114], -1, keepdims=True)
  x = keep * x + (1 - keep) * tf.maximum(x, 1.5 * gray + 0.5)
  return x + flakes + tf.reverse(flakes, [1, 2])


def plasma(uniforms, decay):
  """Diamond-square on a torus: [b, 4^n - 1] of [0, 1) -> [b, 2^n, 2^n].

  Scaled to the range [0, 1].
  """
  field = tf.zeros_like(uniforms[:, :1, None])
  wibble, done = 100.0, 0
  while done < uniforms.shape[1]:
    n = field.shape[1]
    noise = uniforms[:, done : done + 3 * n * n]
    noise = wibble**2 * (2 * tf.reshape(noise, [-1, 3, n, n]) - 1)
    across = field + tf.roll(field, -1, 2)
    along = field + tf.roll(field, -1, 1)
    middle = (across + tf.roll(across, -1, 1)) / 4 + noise[:, 0]
    top = (across + middle + tf.roll(middle, 1, 1)) / 4 + noise[:, 1]
    left = (along + middle + tf.roll(middle, 1, 2)) / 4 + noise[:, 2]
    rows = tf.stack(
      [tf.stack([field, top], -1), tf.stack([left, middle], -1)], 2
    )
    field = tf.reshape(rows, [-1, 2 * n, 2 * n])
    wibble, done = wibble / decay, done + 3 * n * n
  field -= tf.reduce_min(field, [1, 2], keepdims=True)
  return field / tf.reduce_max(field, [1, 2], keepdims=True)


def fog(x, draw, base, strength, decay):
  """[b, H, H, 3]: the corner of a plasma fractal, added.

  The fractal's side is the next power of two: 256 at 224 px, 32 at 32 px.
  """
  size = x.shape[1]
  whole = 2 ** int(np.ceil(np.log2(base)))
  # For smaller images the finest levels, which averaging would remove, are not
  # drawn.
  side = 2 ** int(np.ceil(np.log2(whole * size / base)))
  field = plasma(draw(randomness.uniform, [side**2 - 1]), decay)
  corner = side * base // whole
  rows = blurs.box_rows(corner, size)
  field = blurs.both_ways(rows, field[:, :corner, :corner])
  brightest = tf.reduce_max(x, [1, 2, 3], keepdims=True)
  x += strength * field[..., None]
  return x * brightest / (brightest + strength)


# Frost -----------------------------------------------------------------------


def _smooth(noise, along, across, angle):
  """White noise [n, n] by a Gaussian at an angle, around a torus; std 1."""
  f = np.fft.fftfreq(len(noise))
  fy, fx = f[:, None], f[None]
  u = fx * np.cos(angle) + fy * np.sin(angle)
  v = fy * np.cos(angle) - fx * np.sin(angle)
  gain = np.exp(-2 * np.pi**2 * ((u * along) ** 2 + (v * across) ** 2))
  out = np.fft.ifft2(np.fft.fft2(noise) * gain).real
  return (out - out.mean()) / out.std()


@functools.lru_cache
def panes():
  """[5, 512, 512]: needles of ice in patches, from a fixed seed.

  Of mean 0 and deviation 1, between -4/3 and 2.
  """
  rng = np.random.default_rng(2019)
  out = []
  for _ in range(_PANES):
    noise = functools.partial(rng.standard_normal, [_PANE_SIDE] * 2)
    start = rng.uniform(0, np.pi)
    needles = np.full([_PANE_SIDE] * 2, -np.inf)
    for angle in start + np.pi * np.arange(5) / 5:
      patch = _smooth(noise(), 22, 22, 0)
      long = _smooth(noise(), 9, 1.2, angle)
      needles = np.maximum(needles, long + 0.9 * patch)
    cloud = _smooth(noise(), 45, 45, 0)
    grain = _smooth(noise(), 0.7, 0.7, 0)
    ice = 0.75 * needles + 0.9 * cloud + 0.5 * grain
    rank = np.argsort(np.argsort(ice, None)).reshape(ice.shape) / ice.size
    # Of uniform ranks this power has mean 0.4 and deviation 0.3.
    out.append((rank**1.5 - 0.4) / 0.3)
  return np.array(out)


def frost(x, draw, base, keep, amount):
  """[b, H, H, 3]: a random part of one of five panes, added to the image."""
  size = x.shape[1]
  side = round(_PANE_SIDE * _SHRUNK.get(base, 1.0) * size / base)
  rows = blurs.box_rows(_PANE_SIDE, side)
  scaled = tf.constant(rows @ panes() @ rows.T, tf.float32)
  room = [_PANES, side - size, side - size]
  place = draw(randomness.uniform, [3]) * room
  pane, top, left = tf.unstack(
    tf.cast(place, tf.int32)[..., None, None], axis=1
  )
  at = tf.range(size)
  flat = (pane * side + top + at[:, None]) * side + left + at
  pattern = tf.gather(tf.reshape(scaled, [-1]), flat)[..., None]
  levels = tf.gather(tf.constant(PHOTOGRAPHS) / 255, pane)  # [b, 1, 1, 4]
  ice = levels[..., :3] + levels[..., 3:] * pattern
  return keep * x + amount * ice
