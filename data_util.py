"""Image operations, pure: every one takes its own numbers.

Those named *_image, *_view or random_* work on one image inside tf.data and
take a stateless seed, int32 [2]. Those on images [B, H, W, 3] work inside the
train step: static shapes, no resize (bicubic does not compile under XLA).
The published order is crop, flip, colour jitter, grayscale on the host, then
blur, solarise, clip, normalise on the device (BYOL, Table 6).
"""

import math

import tensorflow as tf

from randomness import split_seed, uniform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ASPECT_RANGE = (3 / 4, 4 / 3)


def clip(images):
  return tf.clip_by_value(images, 0.0, 1.0)


# One image, inside tf.data.


def crop_box(height, width, seed, area_lower, sampling):
  """Random crop -> int32 (top, left, height, width).

  Area u * H * W with u ~ U(area_lower, 1), aspect w / h in [3/4, 4/3], its
  logarithm uniform ('logarithmic', BYOL) or itself ('uniform', SimCLR). A
  side that does not fit is cut to the image's: there are no retries.
  """
  area_seed, aspect_seed, top_seed, left_seed = split_seed(seed, 4)
  full = tf.cast(tf.stack([height, width]), tf.float32)
  area = uniform([], area_seed, area_lower, 1.0) * full[0] * full[1]
  low, high = ASPECT_RANGE
  if sampling == 'logarithmic':
    low, high = math.log(low), math.log(high)
  aspect = uniform([], aspect_seed, low, high)
  if sampling == 'logarithmic':
    aspect = tf.exp(aspect)
  sides = tf.round(tf.sqrt(tf.stack([area / aspect, area * aspect])))
  sides = tf.minimum(tf.maximum(sides, 1.0), full)
  where = tf.stack([uniform([], top_seed), uniform([], left_seed)])
  # Rounding in float32 can reach full - sides + 1, which is outside.
  corner = tf.minimum(tf.floor(where * (full - sides + 1.0)), full - sides)
  return tf.unstack(tf.cast(tf.concat([corner, sides], 0), tf.int32))


def resize(image, size):
  """Any image -> float32 [size, size, 3] in the units of [0, 1], bicubic."""
  image = tf.image.convert_image_dtype(image, tf.float32)
  return tf.image.resize(image, [size, size], method='bicubic')


def random_crop(image, seed, size, area_lower, sampling, clip_after=True):
  """Random crop of an image [H, W, 3], resized to [size, size, 3]."""
  shape = tf.shape(image)
  top, left, height, width = crop_box(
    shape[0], shape[1], seed, area_lower, sampling
  )
  crop = tf.slice(image, [top, left, 0], [height, width, 3])
  crop = resize(crop, size)
  return clip(crop) if clip_after else crop


def random_flip(image, seed):
  """Mirrors left and right with probability one half."""
  return tf.where(uniform([], seed) < 0.5, tf.reverse(image, [1]), image)


def _around_one(strength, seed):
  return uniform([], seed, max(0.0, 1.0 - strength), 1.0 + strength)


def color_jitter(
  image, seed, brightness, contrast, saturation, hue, brightness_fn='simclrv1'
):
  """Brightness, contrast, saturation, hue in random order, each clipped.

  The strengths are the half-widths of the factors' ranges. Brightness is
  added ('simclrv1') or multiplied ('simclrv2').
  """
  order_seed, *seeds = split_seed(seed, 5)

  def brighten():
    if brightness_fn == 'simclrv1':
      return image + uniform([], seeds[0], -brightness, brightness)
    return image * _around_one(brightness, seeds[0])

  def contrasted():
    return tf.image.adjust_contrast(image, _around_one(contrast, seeds[1]))

  def saturated():
    return tf.image.adjust_saturation(image, _around_one(saturation, seeds[2]))

  def rotated():
    return tf.image.adjust_hue(image, uniform([], seeds[3], -hue, hue))

  order = tf.argsort(uniform([4], order_seed))
  for k in tf.unstack(order):
    # The closures above read the image as it is by now.
    image = clip(tf.switch_case(k, [brighten, contrasted, saturated, rotated]))
  return image


def to_grayscale(image):
  return tf.tile(tf.image.rgb_to_grayscale(image), [1, 1, 3])


def augment_view(
  image,
  seed,
  *,
  size,
  area_lower,
  sampling,
  brightness,
  contrast,
  saturation,
  hue,
  brightness_fn,
  jitter_prob=0.8,
  gray_prob=0.2,
  clip_after_resize=True,
  clip_after_gray=True,
):
  """The host's part of a view: crop, flip, jitter, grayscale (1.9).

  Args:
    image: uint8 or float [H, W, 3].
    seed: int32 [2].

  Returns: float32 [size, size, 3].
  """
  crop, flip, jitter, colors, gray = split_seed(seed, 5)
  view = random_crop(image, crop, size, area_lower, sampling, clip_after_resize)
  view = random_flip(view, flip)
  if jitter_prob > 0:
    view = tf.cond(
      uniform([], jitter) < jitter_prob,
      lambda: color_jitter(
        view, colors, brightness, contrast, saturation, hue, brightness_fn
      ),
      lambda: view,
    )
  if gray_prob > 0:
    colored = view
    view = tf.cond(
      uniform([], gray) < gray_prob,
      lambda: to_grayscale(colored),
      lambda: colored,
    )
  return clip(view) if clip_after_gray else view


def eval_image(image, size, crop_proportion=0.875):
  """Centre square of crop_proportion of the shorter side, resized."""
  shape = tf.shape(image)[:2]
  side = tf.cast(tf.reduce_min(shape), tf.float32) * crop_proportion
  side = tf.maximum(tf.cast(tf.round(side), tf.int32), 1)
  top, left = tf.unstack((shape - side + 1) // 2)
  crop = tf.slice(image, [top, left, 0], [side, side, 3])
  return clip(resize(crop, size))


# A batch of images, inside the train step.


def _blur_matrix(length, radius, sigma):
  """[B] -> [B, length, length]: a banded matrix, one Gaussian a row."""
  offset = tf.range(length)[:, None] - tf.range(length)[None]
  offset = tf.cast(offset, tf.float32)
  scale = -0.5 / tf.square(sigma)[:, None]
  taps = tf.range(-radius, radius + 1, dtype=tf.float32)
  total = tf.reduce_sum(tf.exp(scale * tf.square(taps)), -1)
  band = tf.exp(scale[..., None] * tf.square(offset))
  band = tf.where(tf.abs(offset) <= radius, band, 0.0)
  return band / total[:, None, None]


def gaussian_blur(images, sigma):
  """Blurs each image [B, H, W, 3] with its own sigma [B].

  2 * (H // 10 // 2) + 1 taps (23 at 224 px), zeros beyond the border. As
  products with banded matrices: a depthwise convolution is twice as fast on
  the CPU, but seventy times slower there once XLA compiles it.
  """
  height, width = images.shape[1:3]
  radius = height // 10 // 2
  rows = _blur_matrix(height, radius, sigma)
  columns = rows if height == width else _blur_matrix(width, radius, sigma)
  return tf.einsum('bhk,bkwc,bvw->bhvc', rows, images, columns)


def solarize(images):
  """Inverts what is brighter than one half."""
  return tf.where(images < 0.5, images, 1.0 - images)


def normalize(images, mean=IMAGENET_MEAN, std=IMAGENET_STD):
  return (images - tf.constant(mean)) / tf.constant(std)


def augment_batch(
  images,
  seed,
  *,
  blur_prob,
  solarize_prob,
  mean_std,
  global_batch,
  rows=lambda x: x,
  sigma_range=(0.1, 2.0),
):
  """The device's part of a view: blur, solarise, clip, normalise (1.9).

  Args:
    images: float32 [b, H, W, 3] in [0, 1], this replica's.
    seed: int32 [2], of the step and the view.
    mean_std: whether ImageNet's mean and deviation are taken out.
    global_batch: images of all replicas; the random numbers are drawn for
      all of them, so that two replicas equal one big batch.
    rows: cuts a [global_batch] tensor to this replica's rows.
  """
  pick, width, invert = split_seed(seed, 3)

  def chosen(prob, seed):
    return rows(uniform([global_batch], seed) < prob)[:, None, None, None]

  if blur_prob > 0:
    sigma = rows(uniform([global_batch], width, *sigma_range))
    blurred = gaussian_blur(images, sigma)
    images = tf.where(chosen(blur_prob, pick), blurred, images)
  if solarize_prob > 0:
    inverted = solarize(images)
    images = tf.where(chosen(solarize_prob, invert), inverted, images)
  images = clip(images)
  return normalize(images) if mean_std else images
