"""Colours against scikit-image, and which network sees what."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from skimage import color

import data_util
from cvr.configs import derived
from cvr.methods import towers

CORNERS = np.array(list(itertools.product([0.0, 1.0], repeat=3)))


def pixels():
  """Random colours, nearly black ones, the corners of the cube."""
  rng = np.random.default_rng(0)
  some = rng.random((200, 3))
  return np.concatenate([some, 0.05 * some, CORNERS])[None]


def test_lab_is_that_of_scikit_image():
  found = towers.rgb_to_lab(tf.constant(pixels(), tf.float32))
  np.testing.assert_allclose(found, color.rgb2lab(pixels()), atol=2e-3)


def test_ycbcr_is_that_of_scikit_image():
  found = towers.rgb_to_ycbcr(tf.constant(pixels(), tf.float32))
  # Its numbers are those of studio swing.
  expected = (color.rgb2ycbcr(pixels()) - [16, 128, 128]) / [219, 224, 224]
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize('part', towers.PARTS)
def test_every_part_spans_what_a_network_is_used_to(part):
  seen = towers.PARTS[part](tf.constant(CORNERS, tf.float32)).numpy()
  np.testing.assert_allclose(seen.min(0), -1.0, atol=1e-3)
  np.testing.assert_allclose(seen.max(0), 1.0, atol=1e-3)


def test_the_flag_names_every_part():
  assert tuple(towers.PARTS) == derived.COLOUR_PARTS


class Means(keras.layers.Layer):
  """In place of a ResNet: the mean colours."""

  representation_dim = 1

  def call(self, x, training=False, frozen=0):
    assert x.dtype == tf.float32
    return tf.reduce_mean(x, [1, 2])


@pytest.mark.parametrize('mean_std', [False, True])
def test_each_network_sees_its_part_of_the_image_as_it_was(mean_std):
  rng = np.random.default_rng(1)
  first, second = (
    tf.constant(rng.random((2, 4, 4, 3)), tf.float32) for _ in range(2)
  )
  both = towers.Towers(('ycbcr_cbcr', 'lab_l'), [Means(), Means()], mean_std)

  def given(images):
    return data_util.normalize(images) if mean_std else images

  chroma = 2 * towers.rgb_to_ycbcr(first)[..., 1:]
  for light, found in (
    (first, both(given(first))),
    (second, both(given(first), second=given(second))),
  ):
    light = towers.rgb_to_lab(light)[..., :1] / 50 - 1
    expected = np.concatenate(
      [np.mean(chroma, (1, 2)), np.mean(light, (1, 2))], -1
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
