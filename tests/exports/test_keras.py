import numpy as np
import pytest

import model
from cvr.exports import keras as keras_export
from cvr.exports.keras import keras
from exported_models import (
  KINDS,
  assert_documented_lines_give_our_features,
  assert_same_model,
)


@pytest.mark.parametrize('kind', KINDS)  # Written layer by layer.
def test_a_keras_file_is_the_same_model(written, kind):
  made = written('keras', kind)
  network = keras.models.load_model(made.folder / 'model.keras')
  assert_same_model(made, network, 'keras', 'model.keras')


def test_the_documented_lines_give_our_features(written, tmp_path):
  made = written('keras', 'plain')
  assert_documented_lines_give_our_features(made, 'Keras', tmp_path)


def test_a_head_with_gelu():
  x = np.random.default_rng(0).normal(size=[7, 3]).astype('float32')
  mlp = model.MLP(3, 5, 4, mid_bn=False, activation='gelu')
  expected = mlp(x)[-1]
  first = y = keras.Input([3])
  for layer in mlp.layers_out:
    y = keras_export._linear(y, layer)
  y = keras.Model(first, y)(x)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
