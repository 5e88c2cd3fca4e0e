"""Image operations against numpy transcriptions: eager, tf.data, compiled."""

import colorsys
import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import data_util

STRENGTHS = (0.4, 0.4, 0.2, 0.1)


def draws_of(batch, seed=0, **fixed):
  """[batch, DRAWS] of independent numbers, some of them fixed."""
  draws = np.random.default_rng(seed).random([batch, len(data_util.DRAWS)])
  for name, value in fixed.items():
    draws[:, data_util.DRAWS.index(name)] = value
  return draws.astype(np.float32)


def numbers(draws, row=0):
  """One view's draws by their names, as float64."""
  return dict(zip(data_util.DRAWS, draws[row].astype(np.float64), strict=True))


def planes_of(images):
  return np.moveaxis(np.asarray(images, np.float32), -1, 0)


def images_of(planes):
  return np.moveaxis(np.asarray(planes), 0, -1)


def make_image(height=40, width=52, seed=0, channels=3):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, [height, width, channels], dtype=np.uint8)


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
def test_crop_boxes_follow_the_drawn_numbers(sampling):
  height, width, ratios, areas = 60, 90, [], []
  draws = draws_of(60)
  boxes = data_util.crop_boxes([height, width, 3], draws, 0.08, sampling)
  for row, box in enumerate(boxes):
    u = numbers(draws, row)
    area = (0.08 + 0.92 * u['area']) * height * width
    low, high = 3 / 4, 4 / 3
    if sampling == 'logarithmic':
      low, high = np.log(low), np.log(high)
    aspect = low + (high - low) * u['aspect']
    aspect = np.exp(aspect) if sampling == 'logarithmic' else aspect
    h = min(round(np.sqrt(area / aspect)), height)
    w = min(round(np.sqrt(area * aspect)), width)
    top = np.floor(u['top'] * (height - h + 1))
    left = np.floor(u['left'] * (width - w + 1))
    assert box.numpy().tolist() == [top, left, h, w]
    areas.append(area / height / width)
    ratios.append(aspect)
  assert 0.08 <= min(areas) < 0.2 and 0.85 < max(areas) <= 1
  assert 0.75 <= min(ratios) < 0.8 and 1.25 < max(ratios) <= 4 / 3


def test_crop_of_a_single_pixel():
  image = np.full([1, 1, 3], 255, np.uint8)
  (box,) = data_util.crop_boxes([1, 1, 3], draws_of(1), 0.08, 'logarithmic')
  view = data_util.crop(image.astype(np.float32), box, 8)
  np.testing.assert_allclose(view, np.full([8, 8, 3], 255), atol=1e-4)


def test_crop_is_slice_and_bicubic_and_bytes_are_it_rounded():
  image, box = make_image(), tf.constant([3, 20, 30, 17])
  expected = 255 * bicubic(image[3:33, 20:37], 24)
  assert expected.min() < 0 and expected.max() > 255
  view = data_util.crop(image.astype(np.float32), box, 24)
  np.testing.assert_allclose(view, expected, atol=5e-4)
  stored = data_util.to_bytes(view).numpy()
  assert stored.dtype == np.uint8
  assert np.abs(stored - expected.clip(0, 255)).max() <= 0.5 + 1e-3
  assert set(np.unique(stored)) >= {0, 255}


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


def test_eval_image_takes_a_batch():
  images = np.stack([make_image(41, 64, seed=i) for i in range(2)])
  shown = data_util.eval_image(images, 32)
  for image, alone in zip(images, shown, strict=True):
    np.testing.assert_array_equal(alone, data_util.eval_image(image, 32))


def test_planes_are_the_images_mirrored_where_chosen():
  images = np.stack([make_image(seed=i) for i in range(3)])
  mirrored = np.array([False, True, False])
  planes = data_util.to_planes(images, mirrored)
  expected = images / 255.0
  expected[1] = expected[1, :, ::-1]
  np.testing.assert_allclose(images_of(planes), expected, atol=1e-7)
  floats = data_util.to_planes((images / 255).astype(np.float32), mirrored)
  np.testing.assert_allclose(images_of(floats), expected, atol=1e-7)


def numpy_jitter(image, u, brightness_fn='simclrv1', strengths=STRENGTHS):
  """-> (the image after four operations in their order, that order)."""
  b, c, s, h = strengths

  def brightness(x):
    if brightness_fn == 'simclrv1':
      return x + (2 * u['brightness'] - 1) * b
    return x * (1 + (2 * u['brightness'] - 1) * b)

  def contrast(x):
    mean = x.mean((0, 1))
    return (x - mean) * (1 + (2 * u['contrast'] - 1) * c) + mean

  def saturation(x):
    factor = 1 + (2 * u['saturation'] - 1) * s

    def one(rgb):
      hue, sat, value = colorsys.rgb_to_hsv(*rgb)
      return colorsys.hsv_to_rgb(hue, min(max(sat * factor, 0), 1), value)

    return np.apply_along_axis(one, -1, x)

  def hue(x):
    delta = (2 * u['hue'] - 1) * h

    def one(rgb):
      hue, sat, value = colorsys.rgb_to_hsv(*rgb)
      return colorsys.hsv_to_rgb((hue + delta) % 1, sat, value)

    return np.apply_along_axis(one, -1, x)

  steps = [brightness, contrast, saturation, hue]
  steps = steps if image.shape[-1] == 3 else steps[:2]
  turns = [u[f'{step.__name__}_turn'] for step in steps]
  order = tuple(np.argsort(turns, kind='stable').tolist())
  for k in order:
    image = steps[k](image).clip(0, 1)
  return image, order


@pytest.mark.parametrize(
  'brightness_fn,compiled',
  [('simclrv1', False), ('simclrv2', False), ('simclrv1', True)],
)
def test_color_jitter_in_every_order(brightness_fn, compiled):
  images = make_batch(24, 7, 9)
  # Gray pixels, black ones, pure colours: where HSV has its corners.
  images[:, 0, :5] = [[0.5] * 3, [0] * 3, [1] * 3, [1, 0, 0], [0, 1, 1]]
  draws = draws_of(24, seed=2)
  turns = [i for i, n in enumerate(data_util.DRAWS) if n.endswith('_turn')]
  every = np.array(list(itertools.permutations([0.1, 0.3, 0.6, 0.9])))
  draws[:, turns] = every

  def jitter(planes, draws):
    u = data_util.named(draws)
    on = tf.fill([24], True)
    return data_util.color_jitter(planes, u, on, STRENGTHS, brightness_fn)

  jitter = tf.function(jitter, jit_compile=True) if compiled else jitter
  out, orders = images_of(jitter(planes_of(images), draws)), set()
  for row, image in enumerate(images):
    expected, order = numpy_jitter(image, numbers(draws, row), brightness_fn)
    np.testing.assert_allclose(out[row], expected, atol=3e-6)
    orders.add(order)
  assert len(orders) == 24


def test_color_jitter_leaves_alone_what_is_not_chosen():
  images, u = make_batch(4), data_util.named(draws_of(4))
  on = np.array([True, False, True, False])
  out = data_util.color_jitter(planes_of(images), u, on, STRENGTHS)
  moved = np.abs(images_of(out) - images).max((1, 2, 3))
  assert (moved[on] > 0.01).all() and (moved[~on] < 1e-6).all()


def test_each_operation_is_tensorflows_own():
  """Against tf.image, which the published code uses."""
  images = make_batch(3)
  planes, half = planes_of(images), np.full([3], 0.5, np.float32)
  one, zero = np.ones_like(half), np.zeros_like(half)
  same = (one, zero)
  out = data_util.brightness_contrast(planes, same, 1.3 * one, same)
  expected = tf.image.adjust_contrast(images, 1.3)
  np.testing.assert_allclose(images_of(out), np.clip(expected, 0, 1), atol=2e-6)
  out = data_util.hue_saturation(planes, 0.07 * one, one)
  expected = tf.image.adjust_hue(images, 0.07)
  np.testing.assert_allclose(images_of(out), expected, atol=2e-6)
  out = data_util.hue_saturation(planes, zero, 1.2 * one)
  expected = tf.image.adjust_saturation(images, 1.2)
  np.testing.assert_allclose(images_of(out), expected, atol=2e-6)


def test_grayscale():
  images = make_batch(2)
  out = data_util.to_grayscale(planes_of(images), np.array([True, False]))
  gray = images[0] @ np.array([0.2989, 0.587, 0.114])
  expected = np.repeat(gray[..., None], 3, -1)
  np.testing.assert_allclose(images_of(out)[0], expected, atol=1e-6)
  np.testing.assert_array_equal(images_of(out)[1], images[1])


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
  'height,width,radius,jit',
  [
    (32, 32, 1, False),
    (40, 64, 2, False),
    (40, 64, 2, True),
    (230, 20, 11, False),
    (230, 20, 11, True),
  ],
)
def test_gaussian_blur(height, width, radius, jit):
  images = make_batch(3, height, width)
  sigma = np.array([0.1, 0.7, 2.0], np.float32)
  blur = tf.function(data_util.gaussian_blur, jit_compile=jit)
  expected = [
    numpy_blur(image.astype(np.float64), s, radius)
    for image, s in zip(images, sigma, strict=True)
  ]
  blurred = images_of(blur(planes_of(images), sigma))
  np.testing.assert_allclose(blurred, expected, atol=2e-6)


@pytest.mark.parametrize('mean_std', [False, True])
def test_finish_solarizes_clips_and_normalizes(mean_std):
  images = make_batch() * 1.2 - 0.1
  inverted = np.array([True, False, True, False])
  out = data_util.finish(planes_of(images), inverted, mean_std)
  where = inverted[:, None, None, None] & (images >= 0.5)
  expected = np.where(where, 1 - images, images).clip(0, 1)
  if mean_std:
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(out, expected, atol=1e-5)


BATCH = dict(
  strengths=STRENGTHS,
  blur_prob=0.5,
  solarize_prob=0.3,
  mean_std=True,
)


def numpy_batch(images, draws):
  out, colours = [], images.shape[-1] == 3
  mean = [0.485, 0.456, 0.406] if colours else 0.449
  std = [0.229, 0.224, 0.225] if colours else 0.226
  for row, image in enumerate(images / 255.0):
    u = numbers(draws, row)
    image = image[:, ::-1] if u['flip'] < 0.5 else image
    if u['jitter'] < 0.8:
      image, _ = numpy_jitter(image, u)
    if u['gray'] < 0.2 and colours:
      gray = image @ np.array([0.2989, 0.587, 0.114])
      image = np.repeat(gray[..., None], 3, -1)
    if u['blur'] < 0.5:
      image = numpy_blur(image, 0.1 + 1.9 * u['sigma'], 2)
    if u['solarize'] < 0.3:
      image = np.where(image < 0.5, image, 1 - image)
    out.append((image.clip(0, 1) - mean) / std)
  return np.stack(out)


def test_augment_batch_plain_mapped_and_compiled():
  images = np.stack([make_image(40, 40, i) for i in range(16)])
  draws = draws_of(16, seed=4)
  expected = numpy_batch(images, draws)
  augment = functools.partial(data_util.augment_batch, **BATCH)
  compiled = tf.function(augment, jit_compile=True)
  dataset = tf.data.Dataset.from_tensors((images, draws)).map(augment)
  mapped = next(iter(dataset))
  for out in (augment(images, draws), compiled(images, draws), mapped):
    np.testing.assert_allclose(out, expected, atol=5e-5)


@pytest.mark.parametrize('channels', [1, 5])
def test_other_than_three_channels_are_each_treated_alone(channels):
  images = np.stack([make_image(40, 40, i, channels) for i in range(16)])
  draws = draws_of(16, seed=4)
  augment = functools.partial(data_util.augment_batch, **BATCH, gray_prob=0.0)
  expected = numpy_batch(images, draws)
  for out in (augment(images, draws), tf.function(augment)(images, draws)):
    np.testing.assert_allclose(out, expected, atol=5e-5)
  back = data_util.denormalize(data_util.normalize(images / np.float32(255)))
  np.testing.assert_allclose(back, images / 255, atol=1e-6)
  # What is cut out of an image has its channels, also where a graph is traced.
  image = images[0].astype(np.float32)
  cut = tf.function(lambda x: data_util.crop(x, [3, 5, 10, 20], 8))(image)
  assert cut.shape == [8, 8, channels]
  expected = 255 * bicubic(image[3:13, 5:25], 8)
  np.testing.assert_allclose(cut, expected, atol=5e-4)
  centre = tf.function(lambda x: data_util.eval_image(x, 8))(images[0])
  expected = bicubic(images[0][3:38, 3:38], 8).clip(0, 1)
  np.testing.assert_allclose(centre, expected, atol=2e-6)


def test_what_an_image_gets_does_not_depend_on_its_batch():
  images = np.stack([make_image(40, 40, i) for i in range(16)])
  draws = draws_of(16)
  whole = data_util.augment_batch(images, draws, **BATCH)
  for part in (slice(0, 8), slice(8, 16)):
    half = data_util.augment_batch(images[part], draws[part], **BATCH)
    np.testing.assert_allclose(half, whole[part], atol=1e-5)


PLAIN = dict(
  strengths=STRENGTHS,
  jitter_prob=0.0,
  gray_prob=0.0,
  blur_prob=0.0,
  solarize_prob=0.0,
  mean_std=False,
  flip_prob=0.0,
)


def test_probability_zero_costs_nothing():
  step = tf.function(lambda *a: data_util.augment_batch(*a, **PLAIN))
  images, draws = make_batch(), draws_of(4)
  np.testing.assert_array_equal(step(images, draws), images)
  graph = step.get_concrete_function(
    tf.TensorSpec(images.shape), tf.TensorSpec(draws.shape)
  ).graph
  kinds = {operation.type for operation in graph.get_operations()}
  assert not kinds & {'Einsum', 'BatchMatMulV2', 'SelectV2'}


@pytest.mark.parametrize(
  'name, prob',
  [
    ('jitter_prob', 0.8),
    ('gray_prob', 0.2),
    ('blur_prob', 0.1),
    ('blur_prob', 1.0),
    ('solarize_prob', 0.2),
    ('flip_prob', 0.5),
  ],
)
def test_shares_of_images_are_the_probabilities(name, prob):
  images, draws = make_batch(200, 20, 20), draws_of(200, seed=3)
  draws[:, data_util.DRAWS.index('sigma')] = 0.9
  out = data_util.augment_batch(images, draws, **PLAIN | {name: prob})
  changed = int((np.abs(out - images).max((1, 2, 3)) > 1e-3).sum())
  slack = 4 * np.sqrt(200 * prob * (1 - prob))
  assert 200 * prob - slack <= changed <= 200 * prob + slack
