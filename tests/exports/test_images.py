import numpy as np
import pytest
import tensorflow as tf

from cvr.exports import images as images_of

RANGE = r'images must be in \[0, 1\] as floats, or bytes as uint8'


def eager(images):
  return images_of.unit_range(tf.constant(images))


def graph(images):
  return tf.function(images_of.unit_range)(tf.constant(images))


@pytest.mark.parametrize('call', [eager, graph])
def test_bytes_and_floats_of_any_precision_are_the_same_images(call):
  levels = np.arange(256, dtype=np.uint8)
  of_bytes = call(levels)
  assert of_bytes.dtype == tf.float32
  np.testing.assert_allclose(of_bytes, np.arange(256) / 255, rtol=1e-6)
  for kind, error in ((np.float32, 1e-6), (np.float64, 1e-6), (np.half, 1e-3)):
    of_floats = call((np.arange(256) / 255).astype(kind))
    assert of_floats.dtype == tf.float32
    np.testing.assert_allclose(of_floats, of_bytes, rtol=error)


@pytest.mark.parametrize('value', [-0.01, 1.01, 255.0, np.nan, np.inf])
@pytest.mark.parametrize(
  'call, error', [(eager, ValueError), (graph, tf.errors.InvalidArgumentError)]
)
def test_other_floats_are_refused_in_the_same_words(call, error, value):
  images = np.full([2, 3, 3, 3], 0.5, np.float32)
  images[1, 2, 0, 1] = value
  with pytest.raises(error, match=RANGE) as caught:
    call(images)
  if error is ValueError:
    assert str(caught.value).count('\n') == 0


@pytest.mark.parametrize(
  'images, ranks, says',
  [
    (np.zeros([2, 8, 8, 3], np.int32), [4], r'int32 \[2, 8, 8, 3\]'),
    (np.zeros([2, 8, 8, 3], bool), [4], r'bool \[2, 8, 8, 3\]'),
    (np.zeros([8, 8, 3], np.uint8), [4], r'uint8 \[8, 8, 3\]'),
    (np.zeros([8, 8], np.uint8), [3, 4], r'uint8 \[8, 8\]'),
    (np.zeros([2, 3, 8, 8], np.float32), [3, 4], r'float32 \[2, 3, 8, 8\]'),
    (np.float64(0.5), [4], r'float64 \[\]'),
  ],
)
def test_what_has_no_form_of_images_is_named(images, ranks, says):
  wanted = r'must be \[.*height, width, 3\], uint8 or floats, not '
  with pytest.raises(ValueError, match=wanted + says):
    images_of.of_rank(images, 3, *ranks)


def test_of_a_shape_that_is_known_late():
  def trace(*shape):
    spec = tf.TensorSpec(shape[0] if shape else None, tf.uint8)
    return tf.function(
      lambda x: images_of.of_rank(x, 3, 4), input_signature=[spec]
    )

  call = trace([None] * 4)
  assert call(np.zeros([1, 5, 6, 3], np.uint8)).shape == [1, 5, 6, 3]
  assert call.get_concrete_function().output_shapes[-1] == 3
  with pytest.raises(tf.errors.InvalidArgumentError):
    call(np.zeros([1, 5, 6, 1], np.uint8))
  with pytest.raises(ValueError, match='not uint8 of unknown shape'):
    trace()(np.zeros([1, 5, 6, 3], np.uint8))
