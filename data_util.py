"""Image operations: pure functions of images and random numbers.

A view is made in two places. On the host, image by image: crop and resize
(bicubic does not compile under XLA). Then batch by batch, on the device or on
the host: flip, colour jitter, grayscale, blur, solarise, clip, normalise (BYOL,
Table 6). All random numbers of a view (DRAWS) are drawn before the crop and
passed on with the image, so that the result does not depend on the place.

A batch is stored as planes, [C, B, H, W]: some operations combine the colours
of a pixel, and in planes each colour is one long vector. Hue, saturation and
luminance are of RGB, C = 3; all other operations treat each channel alone.
"""

import functools
import math

import numpy as np
import tensorflow as tf

# The numbers in [0, 1) of a view, by what they decide. The operations of the
# colour jitter run in ascending order of their `turn`.
DRAWS = (
  'area',
  'aspect',
  'top',
  'left',
  'flip',
  'jitter',
  'brightness',
  'contrast',
  'saturation',
  'hue',
  'brightness_turn',
  'contrast_turn',
  'saturation_turn',
  'hue_turn',
  'gray',
  'blur',
  'sigma',
  'solarize',
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ASPECT_RANGE = (3 / 4, 4 / 3)
SIGMA_RANGE = (0.1, 2.0)  # Of the blur, in pixels.


def named(draws):
  """[..., DRAWS] -> {name: [...]}."""
  return dict(zip(DRAWS, tf.unstack(draws, axis=-1), strict=True))


def _between(draw, low, high):
  return low + draw * (high - low)


def clip(images):
  return tf.clip_by_value(images, 0.0, 1.0)


# One image, in the input pipeline.


def crop_boxes(shape, draws, area_lower, sampling, area_upper=1.0):
  """Random crops of an image [H, W, C] -> [views] of (top, left, h, w).

  Area u * H * W with u ~ U(area_lower, area_upper), aspect w / h in [3/4, 4/3],
  its logarithm uniform ('logarithmic', BYOL) or itself ('uniform'). A side that
  is longer than the image's is cut to it: there are no retries.

  Args:
    shape: int32 [3] or [2].
    draws: [views, DRAWS].
    area_lower, area_upper: a number, or one per view.
  """
  # By columns, not by named(): this saves operations for every image.
  area, aspect, corner = draws[:, 0], draws[:, 1], draws[:, 2:4]
  full = tf.cast(shape[:2], tf.float32)
  # In float64, so that tuples give the same as two numbers do.
  span = np.float32(np.subtract(area_upper, area_lower))
  area = (area * span + np.float32(area_lower)) * tf.reduce_prod(full)
  low, high = ASPECT_RANGE
  if sampling == 'logarithmic':
    aspect = tf.exp(_between(aspect, math.log(low), math.log(high)))
  else:
    aspect = _between(aspect, low, high)
  sides = tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect], 1)))
  sides = tf.clip_by_value(sides, 1.0, full)
  # Rounding in float32 can reach full - sides + 1, which is outside.
  room = full - sides
  corner = tf.minimum(tf.floor(corner * (room + 1.0)), room)
  boxes = tf.cast(tf.concat([corner, sides], 1), tf.int32)
  return tf.unstack(boxes, draws.shape[0])


def distorted_boxes(shape, tries, corner, area_lower, area_upper, covered):
  """Random crops as tf.image.sample_distorted_bounding_box draws them (SimCLR).

  Of each try the aspect is uniform in [3/4, 4/3], then the height uniform among
  the whole numbers with which the area is in its bounds and the crop in the
  image. Rounding may break the bounds again: the first try that keeps them is
  taken, the whole image where none does. As in that op, a crop that is not as
  high as the image never touches its last row, nor its last column likewise.

  Args:
    shape: int32 [3] or [2].
    tries: [views, tries, 2], in [0, 1). corner: [views, 2], likewise.
    area_lower, area_upper, covered: one per view, as shares of the image. No
      crop is smaller than `covered`, by which areas are not scaled.

  Returns: [views] of (top, left, h, w).
  """
  full = tf.cast(shape[:2], tf.float32)
  whole = tf.reduce_prod(full)
  least, most, covered = (
    whole * tf.constant(share, tf.float32)[:, None]
    for share in (area_lower, area_upper, covered)
  )
  aspect = _between(tries[..., 0], *ASPECT_RANGE)
  # The largest height with round(height * aspect) <= width.
  widest = tf.floor((full[1] + 0.5) / aspect)
  widest -= tf.cast(tf.round(widest * aspect) > full[1], tf.float32)
  highest = tf.minimum(tf.round(tf.sqrt(most / aspect)), widest)
  highest = tf.minimum(highest, full[0])
  lowest = tf.minimum(tf.round(tf.sqrt(least / aspect)), highest)
  height = lowest + tf.floor(tries[..., 1] * (highest - lowest + 1.0))

  def area(height):
    return height * tf.round(height * aspect)

  height += tf.cast(area(height) < least, tf.float32)
  height -= tf.cast(area(height) > most, tf.float32)
  sides = tf.stack([height, tf.round(height * aspect)], -1)
  fits = (area(height) >= tf.maximum(least, covered)) & (area(height) <= most)
  fits &= tf.reduce_all((sides >= 1.0) & (sides <= full), -1)
  first = tf.argmax(fits, 1, tf.int32)
  sides = tf.where(
    tf.reduce_any(fits, 1)[:, None], tf.gather(sides, first, batch_dims=1), full
  )
  corner = tf.floor(corner * (full - sides))
  boxes = tf.cast(tf.concat([corner, sides], 1), tf.int32)
  return tf.unstack(boxes, tries.shape[0])


def resize(image, size):
  """[..., H, W, C] -> float32 [..., size, size, C], about in [0, 1]."""
  image = tf.image.convert_image_dtype(image, tf.float32)
  return tf.image.resize(image, [size, size], method='bicubic')


def crop(image, box, size):
  """The box (top, left, height, width) of float [H, W, C], resized, bicubic."""
  channels = image.shape[-1]
  part = tf.slice(image, [box[0], box[1], 0], [box[2], box[3], channels])
  return tf.image.resize(part, [size, size], method='bicubic')


def to_bytes(levels):
  """Floats on the scale [0, 255] -> uint8, a quarter of the memory."""
  levels = tf.raw_ops.ClipByValue(  # One pass; tf.clip_by_value takes two.
    t=levels, clip_value_min=0.0, clip_value_max=255.0
  )
  return tf.cast(levels + 0.5, tf.uint8)


def eval_image(image, size, crop_proportion=0.875):
  """[..., H, W, C] -> the central square of a share of its side, resized."""
  shape = tf.shape(image)[-3:-1]
  side = tf.cast(tf.reduce_min(shape), tf.float32) * crop_proportion
  side = tf.maximum(tf.cast(tf.round(side), tf.int32), 1)
  top, left = tf.unstack((shape - side + 1) // 2)
  crop = image[..., top : top + side, left : left + side, :]
  return clip(resize(crop, size))


def whole_image(image, size):
  """All of an image, resized to a square whatever its shape."""
  return clip(resize(image, size))


# A batch of images, as planes.

# Each operation is compiled alone: as one program, XLA on the CPU computes
# twice what two operations share, and takes three times as long. Inside a
# compiled step they become part of it.
_compiled = functools.partial(tf.function, jit_compile=True, autograph=False)


def _each(numbers):
  """[B] -> [B, 1, 1], to broadcast with [B, H, W]."""
  return numbers[:, None, None]


@_compiled
def to_planes(images, mirrored):
  """uint8 or float [B, H, W, C] -> [C, B, H, W]; mirrored: bool [B]."""
  scale = 1 / 255 if images.dtype == tf.uint8 else 1.0
  planes = tf.cast(tf.transpose(images, [3, 0, 1, 2]), tf.float32) * scale
  return tf.where(_each(mirrored), tf.reverse(planes, [3]), planes)


@_compiled
def brightness_contrast(planes, before, factor, after):
  """Brightness, contrast, brightness again, each clipped.

  Args:
    before, after: (multiplied, added), float [B] each.
    factor: [B], scales the distance to each channel's mean.
  """

  def brightness(x, pair):
    return clip(x * _each(pair[0]) + _each(pair[1]))

  planes = brightness(planes, before)
  mean = tf.reduce_mean(planes, [2, 3], keepdims=True)
  planes = clip((planes - mean) * _each(factor) + mean)
  return brightness(planes, after)


@_compiled
def hue_saturation(planes, turn, factor):
  """Rotates every pixel's hue by `turn` circles and scales its saturation.

  Equal to the way through HSV: saturation is chroma / value, and the three
  colours are one piecewise linear function of the hue, shifted by thirds of
  the circle.
  """
  red, green, blue = tf.unstack(planes)
  value = tf.reduce_max(planes, 0)
  chroma = value - tf.reduce_min(planes, 0)
  share = 1.0 / tf.where(chroma > 0, chroma, 1.0)
  # Not `red == value`: a compiler may compute a colour twice, with other
  # rounding. At a tie the formulas agree.
  sixths = tf.where(
    (red >= green) & (red >= blue),
    (green - blue) * share,
    tf.where(
      green >= blue, 2.0 + (blue - red) * share, 4.0 + (red - green) * share
    ),
  )
  chroma = tf.minimum(chroma * _each(factor), value)
  offsets = tf.constant([5.0, 3.0, 1.0])[:, None, None, None]
  place = sixths + 6.0 * _each(turn) + offsets
  place -= 6.0 * tf.floor(place / 6.0)
  return clip(value - chroma * clip(tf.minimum(place, 4.0 - place)))


def jitter_numbers(u, on, strengths, brightness_fn):
  """-> brightness (multiplied, added), contrast, saturation, hue.

  They change nothing where `on` is false.
  """
  b, c, s, h = strengths

  def around_one(draw, strength):
    return tf.where(
      on, _between(draw, max(0.0, 1.0 - strength), 1.0 + strength), 1.0
    )

  if brightness_fn == 'simclrv1':
    added = tf.where(on, _between(u['brightness'], -b, b), 0.0)
    brightness = (tf.ones_like(added), added)
  else:
    multiplied = around_one(u['brightness'], b)
    brightness = (multiplied, tf.zeros_like(multiplied))
  return (
    brightness,
    around_one(u['contrast'], c),
    around_one(u['saturation'], s),
    tf.where(on, _between(u['hue'], -h, h), 0.0),
  )


def color_jitter(planes, u, on, strengths, brightness_fn='simclrv1'):
  """Brightness, contrast, saturation, hue in random order, each clipped.

  In every order, brightness and contrast stand before, between or after hue
  and saturation. So five passes serve all images of a batch. Images of other
  than three channels have no hue and saturation: one pass does.

  Args:
    u: {name: [B]}, the draws. on: bool [B].
    strengths: half-widths of the ranges, in the order above. Brightness is
      added ('simclrv1') or multiplied ('simclrv2').
  """
  brightness, contrast, saturation, hue = jitter_numbers(
    u, on, strengths, brightness_fn
  )
  brighter_first = u['brightness_turn'] < u['contrast_turn']

  def brightness_if(chosen):
    multiplied, added = brightness
    return tf.where(chosen, multiplied, 1.0), tf.where(chosen, added, 0.0)

  if planes.shape[0] != 3:
    before, after = map(brightness_if, (brighter_first, ~brighter_first))
    return brightness_contrast(planes, before, contrast, after)
  turns = u['hue_turn'], u['saturation_turn']
  first, second = tf.minimum(*turns), tf.maximum(*turns)
  hue_first = turns[0] < turns[1]

  def slot(turn):  # 0: before hue and saturation, 1: between, 2: after.
    return tf.cast(turn > first, tf.int32) + tf.cast(turn > second, tf.int32)

  for i in range(3):
    here = slot(u['brightness_turn']) == i
    planes = brightness_contrast(
      planes,
      brightness_if(brighter_first & here),
      tf.where(slot(u['contrast_turn']) == i, contrast, 1.0),
      brightness_if(~brighter_first & here),
    )
    if i < 2:
      is_hue = hue_first == (i == 0)
      planes = hue_saturation(
        planes, tf.where(is_hue, hue, 0.0), tf.where(is_hue, 1.0, saturation)
      )
  return planes


@_compiled
def to_grayscale(planes, chosen):
  """Luminance in all three planes of RGB where chosen [B]."""
  weights = tf.constant([0.2989, 0.587, 0.114])[:, None, None, None]
  gray = tf.reduce_sum(planes * weights, 0, keepdims=True)
  return tf.where(_each(chosen), gray, planes)


_BLOCK = 32  # Rows of a blur's output that one product computes.


def _blur_bands(sigma, radius, channels):
  """[B] -> [C, B, _BLOCK, _BLOCK + 2 radius]: a Gaussian in each row."""
  taps = tf.range(-radius, radius + 1, dtype=tf.float32)
  weights = tf.exp(-0.5 * tf.square(taps / sigma[:, None]))
  weights /= tf.reduce_sum(weights, -1, keepdims=True)
  # Row i holds the weights in columns i, i + 1, ...
  rows = [tf.pad(weights, [[0, 0], [i, _BLOCK - 1 - i]]) for i in range(_BLOCK)]
  # Tiled over the channels, because matmul broadcasts slowly.
  return tf.tile(tf.stack(rows, 1)[None], [channels, 1, 1, 1])


def _blocks(length, radius):
  """Yields (the rows a block reads, the part of its bands inside)."""
  for first in range(0, length, _BLOCK):
    rows = min(_BLOCK, length - first)
    low, high = max(0, first - radius), min(length, first + rows + radius)
    shift = first - radius
    yield slice(low, high), (slice(rows), slice(low - shift, high - shift))


def gaussian_blur(planes, sigma):
  """Blurs each image of [C, B, H, W] with its own sigma [B].

  2 * (H // 10 // 2) + 1 taps (23 at 224 px), zeros beyond the border. Computed
  as products with banded matrices, in blocks: on the CPU a depthwise
  convolution is slower, and seventy times slower when XLA compiles it.
  """
  height, width = planes.shape[2:]
  radius = height // 10 // 2
  bands = _blur_bands(sigma, radius, planes.shape[0])
  planes = tf.concat(
    [
      tf.matmul(bands[(..., *part)], planes[:, :, reads])
      for reads, part in _blocks(height, radius)
    ],
    2,
  )
  return tf.concat(
    [
      tf.matmul(planes[..., reads], bands[(..., *part)], transpose_b=True)
      for reads, part in _blocks(width, radius)
    ],
    3,
  )


def mean_and_std(channels):
  """What images are normalised by: ImageNet's mean and deviation, by colour.

  Where there are not three colours, their average for every channel.
  """
  both = IMAGENET_MEAN, IMAGENET_STD
  if channels == 3:
    return both
  return tuple((round(sum(x) / 3, 3),) * channels for x in both)


def normalize(images):
  """[..., C] in [0, 1] -> mean 0 and deviation 1 over ImageNet."""
  mean, std = mean_and_std(images.shape[-1])
  return (images - tf.constant(mean)) / tf.constant(std)


def denormalize(images):
  """The inverse of normalize."""
  mean, std = mean_and_std(images.shape[-1])
  return images * tf.constant(std) + tf.constant(mean)


@_compiled
def finish(planes, inverted, mean_std):
  """Solarises where inverted [B], clips, normalises -> [B, H, W, C]."""
  dark = _each(~inverted) | (planes < 0.5)
  planes = clip(tf.where(dark, planes, 1.0 - planes))
  images = tf.transpose(planes, [1, 2, 3, 0])
  return normalize(images) if mean_std else images


def augment_batch(
  images,
  draws,
  *,
  strengths,
  brightness_fn='simclrv1',
  jitter_prob=0.8,
  gray_prob=0.2,
  clip_after_gray=True,
  blur_prob,
  solarize_prob,
  mean_std,
  flip_prob=0.5,
  sigma_range=SIGMA_RANGE,
):
  """All operations of a view after its crop (BYOL, Table 6).

  Args:
    images: uint8 or float [B, H, W, C].
    draws: [B, DRAWS].
    strengths: of the colour jitter (color_jitter).
    gray_prob: 0 unless C = 3.
    mean_std: whether to normalize by ImageNet's mean and deviation.

  Returns: float32 [B, H, W, C].
  """
  u = named(draws)
  planes = to_planes(images, u['flip'] < flip_prob)
  if jitter_prob > 0:
    planes = color_jitter(
      planes, u, u['jitter'] < jitter_prob, strengths, brightness_fn
    )
  if gray_prob > 0:
    planes = to_grayscale(planes, u['gray'] < gray_prob)
  if clip_after_gray:
    planes = clip(planes)
  if blur_prob > 0:
    blurred = gaussian_blur(planes, _between(u['sigma'], *sigma_range))
    planes = tf.where(_each(u['blur'] < blur_prob), blurred, planes)
  return finish(planes, u['solarize'] < solarize_prob, mean_std)
