"""Image operations against numpy transcriptions: eager, tf.data, compiled."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import data_util
import randomness

JITTER = dict(
  brightness=0.4,
  contrast=0.4,
  saturation=0.2,
  hue=0.1,
  brightness_fn='simclrv1',
)


def make_image(height=40, width=52, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, [height, width, 3], dtype=np.uint8)


def in_dataset(function, seed, *args):
  """function(*args, seed) computed by a map of tf.data."""
  dataset = tf.data.Dataset.from_tensors((args, seed))
  return next(iter(dataset.map(lambda args, seed: function(*args, seed))))


def draw(seed, low=0.0, high=1.0, shape=()):
  return randomness.uniform(shape, seed, low, high).numpy().astype(np.float64)


def bicubic(image, size):
  """Keys' cubic (a = -1/2), half-pixel centres, weights renormalised.

  TensorFlow looks the weights up in a table of 1024 positions per pixel.
  """

  def weights(length):
    matrix = np.zeros([size, length])
    for i in range(size):
      centre = round(((i + 0.5) * length / size - 0.5) * 1024) / 1024
      for k in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
        x = abs(centre - k)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        if 0 <= k < length:
          matrix[i, k] = near if x <= 1 else far if x < 2 else 0
    return matrix / matrix.sum(1, keepdims=True)

  rows, columns = weights(image.shape[0]), weights(image.shape[1])
  return np.einsum('hk,kwc,vw->hvc', rows, image / 255.0, columns)


@pytest.mark.parametrize('sampling', ['logarithmic', 'uniform'])
def test_crop_box_follows_the_drawn_numbers(sampling):
  height, width, ratios, areas = 60, 90, [], []
  for i in range(60):
    seed = tf.constant([7, i])
    seeds = randomness.split_seed(seed, 4)
    box = data_util.crop_box(height, width, seed, 0.08, sampling)
    top, left, h, w = (int(x) for x in box)
    area = draw(seeds[0], 0.08, 1.0) * height * width
    if sampling == 'logarithmic':
      aspect = np.exp(draw(seeds[1], np.log(3 / 4), np.log(4 / 3)))
    else:
      aspect = draw(seeds[1], 3 / 4, 4 / 3)
    assert h == min(round(np.sqrt(area / aspect)), height)
    assert w == min(round(np.sqrt(area * aspect)), width)
    assert top == np.floor(draw(seeds[2]) * (height - h + 1))
    assert left == np.floor(draw(seeds[3]) * (width - w + 1))
    areas.append(area / height / width)
    ratios.append(aspect)
  assert 0.08 <= min(areas) < 0.2 and 0.85 < max(areas) <= 1
  assert 0.75 <= min(ratios) < 0.8 and 1.25 < max(ratios) <= 4 / 3


def test_crop_of_a_single_pixel():
  view = data_util.random_crop(
    np.full([1, 1, 3], 255, np.uint8), [0, 0], 8, 0.08, 'logarithmic'
  )
  np.testing.assert_allclose(view, np.ones([8, 8, 3]), atol=1e-6)


def test_random_crop_is_slice_bicubic_clip():
  image, seed = make_image(), tf.constant([3, 4])
  top, left, h, w = (
    int(x) for x in data_util.crop_box(40, 52, seed, 0.08, 'logarithmic')
  )
  expected = bicubic(image[top : top + h, left : left + w], 24)
  assert expected.min() < 0 and expected.max() > 1

  def crop(image, seed, clip):
    return data_util.random_crop(image, seed, 24, 0.08, 'logarithmic', clip)

  np.testing.assert_allclose(crop(image, seed, False), expected, atol=2e-6)
  clipped = in_dataset(lambda x, s: crop(x, s, True), seed, image)
  np.testing.assert_allclose(clipped, expected.clip(0, 1), atol=2e-6)


def test_eval_image_is_the_centre_square():
  image = make_image(41, 64)
  side = round(0.875 * 41)  # 36
  top, left = (41 - side + 1) // 2, (64 - side + 1) // 2
  crop = image[top : top + side, left : left + side]
  expected = bicubic(crop, 32).clip(0, 1)
  np.testing.assert_allclose(
    data_util.eval_image(image, 32), expected, atol=2e-6
  )
  whole = data_util.eval_image(make_image(32, 32), 32, 1.0)
  np.testing.assert_allclose(whole, make_image(32, 32) / 255.0, atol=1e-6)


def test_flip_mirrors_half_of_the_images():
  image = make_image()
  flipped = 0
  for i in range(40):
    out = data_util.random_flip(image, tf.constant([i, 1])).numpy()
    if not (out == image).all():
      np.testing.assert_array_equal(out, image[:, ::-1])
      flipped += 1
  assert 10 < flipped < 30


def numpy_jitter(image, seed, brightness_fn, strengths=(0.4, 0.4, 0.2, 0.1)):
  order_seed, *seeds = randomness.split_seed(seed, 5)
  b, c, s, h = strengths

  def brightness(x):
    if brightness_fn == 'simclrv1':
      return x + draw(seeds[0], -b, b)
    return x * draw(seeds[0], 1 - b, 1 + b)

  def contrast(x):
    mean = x.mean((0, 1))
    return (x - mean) * draw(seeds[1], 1 - c, 1 + c) + mean

  def saturation(x):
    factor = draw(seeds[2], 1 - s, 1 + s)

    def one(rgb):
      hue, sat, value = colorsys.rgb_to_hsv(*rgb)
      return colorsys.hsv_to_rgb(hue, min(max(sat * factor, 0), 1), value)

    return np.apply_along_axis(one, -1, x)

  def hue(x):
    delta = draw(seeds[3], -h, h)

    def one(rgb):
      hue, sat, value = colorsys.rgb_to_hsv(*rgb)
      return colorsys.hsv_to_rgb((hue + delta) % 1, sat, value)

    return np.apply_along_axis(one, -1, x)

  steps = [brightness, contrast, saturation, hue]
  order = np.argsort(draw(order_seed, shape=[4]), kind='stable')
  for k in order:
    image = steps[k](image).clip(0, 1)
  return image, tuple(order)


@pytest.mark.parametrize('brightness_fn', ['simclrv1', 'simclrv2'])
def test_color_jitter(brightness_fn):
  image = make_image(9, 11) / np.float32(255)
  orders = set()
  for i in range(4):
    seed = tf.constant([i, 8])
    expected, order = numpy_jitter(image, seed, brightness_fn)
    orders.add(order)
    settings = {**JITTER, 'brightness_fn': brightness_fn}
    out = data_util.color_jitter(image, seed, **settings)
    np.testing.assert_allclose(out, expected, atol=3e-6)
    mapped = in_dataset(
      lambda x, s, settings=settings: data_util.color_jitter(x, s, **settings),
      seed,
      image,
    )
    np.testing.assert_allclose(mapped, expected, atol=3e-6)
  assert len(orders) > 1


def test_grayscale():
  image = make_image() / np.float32(255)
  gray = image @ np.array([0.2989, 0.587, 0.114])
  expected = np.repeat(gray[..., None], 3, -1)
  np.testing.assert_allclose(data_util.to_grayscale(image), expected, atol=1e-6)


def view_of(image, seed, **changes):
  settings = dict(size=16, area_lower=0.08, sampling='logarithmic', **JITTER)
  return data_util.augment_view(image, seed, **{**settings, **changes})


def test_augment_view_composes_in_the_published_order():
  image, seed = make_image(), tf.constant([5, 6])
  crop, flip, _, colors, _ = randomness.split_seed(seed, 5)
  cut = data_util.random_crop(image, crop, 16, 0.08, 'logarithmic')
  plain = data_util.random_flip(cut, flip).numpy()
  settings = dict(jitter_prob=0.0, gray_prob=0.0)
  np.testing.assert_array_equal(view_of(image, seed, **settings), plain)
  jittered = data_util.color_jitter(plain, colors, **JITTER)
  gray = data_util.to_grayscale(jittered)
  settings = dict(jitter_prob=1.0, gray_prob=1.0)
  np.testing.assert_allclose(view_of(image, seed, **settings), gray, atol=1e-6)


def test_augment_view_probabilities():
  image, jittered, gray = make_image(), 0, 0
  dataset = tf.data.Dataset.range(200).map(
    lambda i: (
      view_of(image, tf.stack([2, tf.cast(i, tf.int32)]), gray_prob=0.0),
      view_of(
        image,
        tf.stack([2, tf.cast(i, tf.int32)]),
        jitter_prob=0.0,
        gray_prob=0.0,
      ),
      view_of(image, tf.stack([2, tf.cast(i, tf.int32)])),
    )
  )
  assert dataset.element_spec[0].shape == [16, 16, 3]
  for colored, plain, view in dataset.as_numpy_iterator():
    jittered += not np.array_equal(colored, plain)
    gray += np.ptp(view, -1).max() < 1e-6
    assert view.min() >= 0 and view.max() <= 1
  assert 136 <= jittered <= 184  # 0.8, four standard deviations.
  assert 17 <= gray <= 63  # 0.2


def make_batch(batch=4, height=48, width=48):
  rng = np.random.default_rng(1)
  return rng.random([batch, height, width, 3], np.float32)


def numpy_blur(image, sigma, radius):
  x = np.arange(-radius, radius + 1)
  kernel = np.exp(-(x**2) / (2 * sigma**2))
  kernel /= kernel.sum()
  for axis in (0, 1):
    image = ndimage.correlate1d(image, kernel, axis, mode='constant')
  return image


@pytest.mark.parametrize(
  'height,width,radius', [(48, 48, 2), (32, 32, 1), (40, 64, 2), (230, 20, 11)]
)
@pytest.mark.parametrize('jit', [False, True])
def test_gaussian_blur(height, width, radius, jit):
  images = make_batch(3, height, width)
  sigma = np.array([0.1, 0.7, 2.0], np.float32)
  blur = tf.function(data_util.gaussian_blur, jit_compile=jit)
  expected = [
    numpy_blur(image.astype(np.float64), s, radius)
    for image, s in zip(images, sigma, strict=True)
  ]
  np.testing.assert_allclose(blur(images, sigma), expected, atol=2e-6)


def test_solarize_and_normalize():
  images = make_batch()
  np.testing.assert_allclose(
    data_util.solarize(images), np.where(images < 0.5, images, 1 - images)
  )
  expected = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(data_util.normalize(images), expected, atol=1e-5)


BATCH = dict(blur_prob=0.5, solarize_prob=0.3, mean_std=True, global_batch=8)


def numpy_batch(images, seed):
  pick, width, invert = randomness.split_seed(seed, 3)
  sigma = draw(width, 0.1, 2.0, [len(images)])
  out = []
  for i, image in enumerate(images.astype(np.float64)):
    if draw(pick, shape=[len(images)])[i] < 0.5:
      image = numpy_blur(image, sigma[i], 2)
    if draw(invert, shape=[len(images)])[i] < 0.3:
      image = np.where(image < 0.5, image, 1 - image)
    image = image.clip(0, 1) - [0.485, 0.456, 0.406]
    out.append(image / [0.229, 0.224, 0.225])
  return np.stack(out)


def test_augment_batch_plain_mapped_and_compiled():
  images, seed = make_batch(8), tf.constant([4, 2])
  expected = numpy_batch(images, seed)
  augment = lambda x, s: data_util.augment_batch(x, s, **BATCH)  # noqa: E731
  compiled = tf.function(augment, jit_compile=True)
  mapped = in_dataset(augment, seed, images)
  for out in (augment(images, seed), compiled(images, seed), mapped):
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_halves_of_a_batch_equal_the_whole():
  images, seed = make_batch(8), tf.constant([1, 9])
  whole = data_util.augment_batch(images, seed, **BATCH)
  for part in (slice(0, 4), slice(4, 8)):
    half = data_util.augment_batch(
      images[part], seed, rows=lambda x, part=part: x[part], **BATCH
    )
    np.testing.assert_allclose(half, whole[part], atol=1e-6)


def test_probability_zero_costs_nothing():
  settings = dict(blur_prob=0.0, solarize_prob=0.0, mean_std=False)
  step = tf.function(
    lambda x: data_util.augment_batch(x, [0, 1], global_batch=4, **settings)
  )
  images = make_batch()
  np.testing.assert_array_equal(step(images), images)
  graph = step.get_concrete_function(tf.TensorSpec(images.shape)).graph
  kinds = {operation.type for operation in graph.get_operations()}
  assert not kinds & {'Einsum', 'BatchMatMulV2', 'SelectV2'}


@pytest.mark.parametrize('prob', [0.1, 1.0])
def test_blur_probability(prob):
  images, blurred = make_batch(64, 20, 20), 0
  for i in range(8):
    out = data_util.augment_batch(
      images,
      [i, 0],
      blur_prob=prob,
      solarize_prob=0.0,
      mean_std=False,
      global_batch=64,
      sigma_range=(1.0, 2.0),
    )
    blurred += int((np.abs(out - images).max((1, 2, 3)) > 1e-3).sum())
  low, high = (24, 79) if prob == 0.1 else (512, 512)
  assert low <= blurred <= high
