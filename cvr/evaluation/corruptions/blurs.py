"""Blurs, zooms and warps of batches of images, as ImageNet-C defines them.

Lengths are for images of one side: 224 px in ImageNet-C, 32 px in CIFAR-10-C.
An image of another size gets the blur that it would show if it were enlarged to
that side (nearest neighbour), blurred there, and averaged down again: see
`spread`. Matrices and kernels are NumPy constants of the traced graph.
"""

import numpy as np
import tensorflow as tf


def to_planes(images):
  """[b, H, W, c] -> [b, c, H, W]."""
  return tf.transpose(images, [0, 3, 1, 2])


def from_planes(planes):
  return tf.transpose(planes, [0, 2, 3, 1])


def both_ways(rows, planes):
  """A matrix [n, m] over height and width: [..., m, m] -> [..., n, n]."""
  rows = tf.constant(rows, tf.float32)
  return tf.matmul(tf.matmul(rows, planes), rows, transpose_b=True)


# Matrices and kernels --------------------------------------------------------


def box_rows(size, wanted):
  """[wanted, size]: a new pixel is the mean of those whose centres it holds.

  Pillow's BOX filter; for wanted > size the nearest pixel.
  """
  step = size / wanted
  centre = (np.arange(wanted) + 0.5) * step
  away = (np.arange(size) + 0.5 - centre[:, None]) / max(step, 1.0)
  inside = (away > -0.5) & (away <= 0.5)
  return inside / inside.sum(1, keepdims=True)


def gaussian(sigma, truncate=4.0):
  """A normalised Gaussian's taps, at -radius .. radius."""
  radius = int(truncate * sigma + 0.5)
  taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
  return taps / taps.sum()


def spread(first, count, scale):
  """Taps at first, first + 1, ... of a side -> (first, [n, count]) at scale.

  A tap falls between two pixels, and is split in proportion to their overlap
  with it: [n, count] @ taps are the taps of the smaller image.
  """
  at = (first + np.arange(count)) * scale
  low = int(np.floor(at.min()))
  pixels = np.arange(low, int(np.ceil(at.max())) + 1)
  # Wider shares above that side, where taps would leave gaps.
  share = np.maximum(0, 1 - np.abs(pixels[:, None] - at) / max(1.0, scale))
  return low, share / share.sum(0)


def gaussian_rows(size, sigma, scale):
  """[size, size]: a Gaussian of scale * sigma; edges repeat (nearest)."""
  taps = gaussian(sigma)
  first, share = spread(-(len(taps) // 2), len(taps), scale)
  rows = np.zeros([size, size])
  for offset, tap in enumerate(share @ taps, first):
    at = np.arange(size)
    rows[at, np.clip(at + offset, 0, size - 1)] += tap
  return rows


def reflected_gaussian_rows(size, sigma, truncate=3.0):
  """[size, size]: a Gaussian of any width; edges reflect."""
  taps = gaussian(sigma, truncate)
  rows = np.zeros([size, size])
  at = np.arange(size)
  for offset, tap in enumerate(taps, -(len(taps) // 2)):
    folded = (at + offset) % (2 * size)
    rows[at, np.minimum(folded, 2 * size - 1 - folded)] += tap
  return rows


def disk(radius, soft):
  """[k, k]: a disk with smoothed border, k odd.

  Smoothed by a Gaussian of deviation `soft`, cut to 3 x 3 taps up to radius 8
  and 5 x 5 above, with reflection at the border of the kernel.
  """
  reach = max(8, int(radius))
  at = np.arange(-reach, reach + 1)
  kernel = (at**2 + at[:, None] ** 2 <= radius**2).astype(np.float64)
  kernel /= kernel.sum()
  half = 1 if radius <= 8 else 2
  taps = np.exp(-0.5 * (np.arange(-half, half + 1) / soft) ** 2)
  taps /= taps.sum()
  padded = np.pad(kernel, half, mode='reflect')
  for axis in (0, 1):
    padded = np.apply_along_axis(np.convolve, axis, padded, taps, 'valid')
  rim = max(0, reach - int(radius) - half)
  return padded[rim : len(at) - rim, rim : len(at) - rim]


def half_gaussian(radius, sigma, scale):
  """[n]: ImageMagick's kernel of a motion, 2 radius + 1 taps before it."""
  taps = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
  return spread(0, len(taps), scale)[1] @ (taps / taps.sum())


# On batches ------------------------------------------------------------------


def filtered(images, kernel):
  """Each channel of [b, H, W, c] filtered by [k, k]; edges reflect."""
  half = len(kernel) // 2
  planes = to_planes(images)
  shape = tf.shape(planes)
  padded = tf.pad(planes, [[0, 0]] * 2 + [[half, half]] * 2, 'REFLECT')
  side = images.shape[1] + 2 * half
  out = tf.nn.conv2d(
    tf.reshape(padded, [-1, side, side, 1]),
    tf.constant(kernel[:, :, None, None], tf.float32),
    1,
    'VALID',
  )
  return from_planes(tf.reshape(out, shape))


def enlarged(images, factor, size):
  """Images zoomed by factor, cropped to the centre: [b, size, size, c].

  Bilinear with aligned corners, as scipy.ndimage.zoom.
  """
  wanted = round(images.shape[1] * factor)
  zoomed = tf.raw_ops.ResizeBilinear(
    images=images, size=[wanted, wanted], align_corners=True
  )
  trim = (wanted - size) // 2
  return zoomed[:, trim : trim + size, trim : trim + size]


def clipped_zoom(images, factor):
  """[b, H, H, c] -> the same shape: the centre, enlarged."""
  size = images.shape[1]
  kept = int(np.ceil(size / factor))
  top = (size - kept) // 2
  middle = images[:, top : top + kept, top : top + kept]
  return enlarged(middle, factor, size)


def streaks(images, taps, degrees):
  """[b, H, W, c], each blurred along a line of its own; degrees [b].

  Offsets are rounded to pixels as in ImageMagick's -motion-blur; edges repeat.
  """
  height, width, channels = images.shape[1:]
  pixels = tf.reshape(images, [-1, height * width, channels])
  angle = degrees * (np.pi / 180)
  total = 0.0
  for i, tap in enumerate(taps):
    down = tf.cast(tf.math.ceil(i * tf.sin(angle) - 0.5), tf.int32)
    right = tf.cast(tf.math.ceil(i * tf.cos(angle) - 0.5), tf.int32)
    y = tf.clip_by_value(tf.range(height) + down[:, None], 0, height - 1)
    x = tf.clip_by_value(tf.range(width) + right[:, None], 0, width - 1)
    at = tf.reshape(y[:, :, None] * width + x[:, None], [-1, height * width])
    total += float(tap) * tf.gather(pixels, at, batch_dims=1)
  return tf.reshape(total, [-1, height, width, channels])


def sampled(images, y, x, repeat_edge):
  """images [b, H, W, c] at y, x [b, H, W]: bilinear, reflected outside.

  repeat_edge: reflection at the border of the last pixel, else at its centre.
  """
  height, width, channels = images.shape[1:]
  pixels = tf.reshape(images, [-1, height * width, channels])

  def folded(at, size):
    period = 2 * size if repeat_edge else 2 * size - 2
    at = tf.math.floormod(at, period)
    return tf.minimum(at, (period - 1 if repeat_edge else period) - at)

  top, left = tf.floor(y), tf.floor(x)
  total = 0.0
  for down in (0, 1):
    for right in (0, 1):
      row = folded(tf.cast(top, tf.int32) + down, height)
      column = folded(tf.cast(left, tf.int32) + right, width)
      at = tf.reshape(row * width + column, [-1, height * width])
      weight = (1 - tf.abs(y - top - down)) * (1 - tf.abs(x - left - right))
      weight = tf.reshape(weight, [-1, height * width, 1])
      total += weight * tf.gather(pixels, at, batch_dims=1)
  return tf.reshape(total, [-1, height, width, channels])


def copied_from(down, right, margin):
  """The pixel that each one copies in the end: [b, H, W] twice -> [b, H * W].

  ImageNet-C loops from the last pixel to the first, `margin` from the edges,
  and gives each the current value of its neighbour (down, right), which may
  have been replaced already. (The intention is a swap, but rows of NumPy are
  views, and the second half of the swap is lost.)
  """
  height, width = down.shape[1:]
  y, x = np.mgrid[:height, :width].astype(np.int32)
  walked = (y > margin) & (y <= height - margin)
  walked &= (x > margin) & (x <= width - margin)
  place = tf.constant(y * width + x)
  # Rounded offsets may point one pixel beyond the edge.
  row = tf.minimum(y + tf.where(walked, down, 0), height - 1)
  column = tf.minimum(x + tf.where(walked, right, 0), width - 1)
  neighbour = row * width + column
  passed = tf.constant(walked.ravel())
  place = tf.reshape(place, [1, -1])
  source = tf.reshape(neighbour, [-1, height * width])
  earlier = (source > place) & tf.gather(passed, source)
  follows = tf.where(earlier, source, place)
  # Half of the links end a chain, so that among 2^32 pixels none longer than
  # 2^5 is expected.
  for _ in range(5):
    follows = tf.gather(follows, follows, batch_dims=1)
  return tf.gather(source, follows, batch_dims=1)
