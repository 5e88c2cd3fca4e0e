"""How an encoder is shown a split: central, random, and corrupted images."""

import numpy as np
import pytest
import tensorflow as tf

import data_util
from cvr.data.sources import describe
from cvr.evaluation import features
from cvr.evaluation.corruptions import corruptions
from cvr.evaluation.features import Look
from cvr.numerics import randomness
from small_data import write

SIZE = 16


@pytest.fixture
def info(tmp_path):
  """Nine images of noise, taller than wide."""
  for i in range(9):
    noise = np.random.default_rng(i).integers(0, 256, [40, 28, 3], np.uint8)
    write(
      f'{tmp_path}/val/{"ab"[i % 2]}/{i}.png', tf.io.encode_png(noise).numpy()
    )
  return describe(f'folder:{tmp_path}', split='val')


def shown(info, look, batch=4):
  """{index: image} of a look."""
  source = features.eval_input(info, SIZE, batch, look)
  found = {}
  for rows in source(tf.distribute.InputContext()).as_numpy_iterator():
    for i, image in zip(rows['index'], rows['views'][0], strict=True):
      if i >= 0:
        assert i not in found
        found[int(i)] = image
  return found


def decoded(info, i):
  return tf.io.decode_image(tf.io.read_file(info.paths[i]))


def test_the_central_crop_has_its_share(info):
  for share in (0.875, 1.0):
    for i, image in shown(info, Look(crop=share)).items():
      side = round(28 * share)
      top, left = (41 - side) // 2, (29 - side) // 2
      part = decoded(info, i)[top : top + side, left : left + side]
      part = tf.image.convert_image_dtype(part, tf.float32)
      expected = tf.image.resize(part, [SIZE, SIZE], method='bicubic')
      np.testing.assert_allclose(image, np.clip(expected, 0, 1), atol=1e-6)


def test_random_crops_are_of_the_pass_and_the_image_alone(info):
  first = shown(info, Look(random=1))
  assert sorted(first) == list(range(9))
  for batch in (3, 9):
    for i, image in shown(info, Look(random=1), batch).items():
      np.testing.assert_array_equal(image, first[i])
  second = shown(info, Look(random=2))
  flips = 0
  for k, views in ((1, first), (2, second)):
    for i, image in views.items():
      draws = randomness.uniform([1, len(data_util.DRAWS)], [k, i])
      (box,) = data_util.crop_boxes([40, 28], draws, 0.08, 'logarithmic')
      top, left, height, width = (int(x) for x in box)
      part = decoded(info, i)[top : top + height, left : left + width]
      part = tf.image.convert_image_dtype(part, tf.float32)
      part = np.clip(tf.image.resize(part, [SIZE] * 2, method='bicubic'), 0, 1)
      flip = draws[0, data_util.DRAWS.index('flip')] < 0.5
      flips += int(flip)
      np.testing.assert_allclose(
        image, part[:, ::-1] if flip else part, atol=1e-6
      )
  assert 2 < flips < 16
  assert all(np.abs(first[i] - second[i]).max() > 0.1 for i in range(9))


def test_what_is_corrupted_is_the_crop_of_each_image(info):
  plain = shown(info, Look())
  found = shown(info, Look(corruption='gaussian_noise', severity=3))
  assert sorted(found) == list(range(9))
  for i, image in found.items():
    expected = corruptions.corrupt(
      'gaussian_noise',
      3,
      tf.constant(plain[i][None]),
      tf.constant([i], tf.int64),
    )
    np.testing.assert_array_equal(image, expected[0])
    assert np.abs(image - plain[i]).max() > 0.1
