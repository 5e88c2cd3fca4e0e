import numpy as np
import pytest
import tensorflow as tf

from exported_models import (
  LOAD,
  SHOW,
  alone,
  assert_same_model,
  blocks,
  expected,
  pictures,
)


@pytest.mark.parametrize('kind', ['selective', 'small images', 'five channels'])
def test_a_saved_model_is_the_same_model(written, kind):
  made = written('saved_model', kind)
  network = tf.saved_model.load(str(made.folder / 'saved_model'))
  assert_same_model(made, network, 'saved_model', 'saved_model')


def test_the_endpoints_have_the_published_names(written):
  path = written('saved_model', 'plain').folder / 'saved_model'
  endpoints = tf.saved_model.load(str(path))(pictures(2, 64))
  assert {name: x.shape.as_list() for name, x in endpoints.items()} == {
    'initial_conv': [2, 32, 32, 8],
    'initial_max_pool': [2, 16, 16, 8],
    'block_group1': [2, 16, 16, 8],
    'block_group2': [2, 8, 8, 16],
    'block_group3': [2, 4, 4, 32],
    'block_group4': [2, 2, 2, 64],
    'final_avg_pool': [2, 64],
    'proj_head_input': [2, 64],
    'proj_head_output': [2, 6],
    'supervised_head_input': [2, 64],
    'logits_sup': [2, 3],
  }


def test_it_learns_in_a_process_without_our_code(written, tmp_path):
  made = written('saved_model', 'plain')
  (tmp_path / 'exports').symlink_to(made.folder)
  np.save(tmp_path / 'images.npy', pictures(6))
  first, second = blocks('TensorFlow')
  code = (
    f'{LOAD}labels = np.array([0, 1, 2] * 2)\n{first}{SHOW}{second}'
    'print(len(model.variables), len(model.trainable_variables))\n'
    'old = [v.numpy() for v in model.variables]\n'
    'model(images)\n'
    'changed = [(v.numpy() != o).any() for v, o in zip(model.variables, old)]\n'
    'print(sum(changed))\n'
    'model(images, trainable=True)\n'
    'changed = [(v.numpy() != o).any() for v, o in zip(model.variables, old)]\n'
    'print(sum(changed))\n'
    'print(*losses)\n'
  )
  out, err = alone(tmp_path, code)
  counts, still, moved, losses = out.splitlines()
  method, probe = made.model.state.method, made.model.state.probe
  layers = (method.encoder, method.projector, probe)
  everything = [v for layer in layers for v in layer.variables]
  learned = [v for layer in layers for v in layer.trainable_variables]
  assert counts == f'{len(everything)} {len(learned)}'
  # Evaluation moves nothing, training the two statistics of every norm.
  assert int(still) == 0
  assert int(moved) == len(everything) - len(learned)
  before, between, after = map(float, losses.split())
  assert after < between < before
  assert 'custom gradient' not in err
  np.testing.assert_allclose(
    np.load(tmp_path / 'features.npy'),
    expected(made.model, pictures(6))['final_avg_pool'],
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.fixture(scope='module')
def loaded(written):
  path = written('saved_model', 'plain').folder / 'saved_model'
  return tf.saved_model.load(str(path))


@pytest.mark.parametrize('trainable', [None, False, True])
def test_bytes_are_images_of_255_steps(loaded, trainable):
  images = np.random.default_rng(0).integers(0, 256, (2, 40, 32, 3), np.uint8)
  images[0, 0, 0], images[0, 0, 1] = 0, 255
  arguments = {} if trainable is None else {'trainable': trainable}
  of_bytes = loaded(tf.constant(images), **arguments)
  of_floats = loaded(tf.constant(images / np.float32(255)), **arguments)
  assert of_bytes.keys() == of_floats.keys()
  # Batch statistics of two images enlarge what rounding leaves.
  rtol, atol = (1e-2, 1e-3) if trainable else (1e-4, 1e-5)
  for name, value in of_bytes.items():
    np.testing.assert_allclose(value, of_floats[name], rtol, atol, err_msg=name)
  served = loaded.signatures['serving_uint8'](tf.constant(images))
  still = loaded(tf.constant(images))
  np.testing.assert_allclose(
    served['final_avg_pool'], still['final_avg_pool'], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('value', [-0.01, 1.01, 255.0, np.nan, np.inf])
@pytest.mark.parametrize('how', ['call', 'train', 'serve'])
def test_floats_that_are_no_images_are_refused(loaded, value, how):
  images = pictures(2, 32).copy()
  images[1, 5, 7, 2] = value
  images = tf.constant(images)
  calls = {
    'call': loaded,
    'train': lambda images: loaded(images, trainable=True),
    'serve': loaded.signatures['serving_default'],
  }
  with pytest.raises(tf.errors.InvalidArgumentError, match=r'in \[0, 1\]'):
    calls[how](images)


def test_black_white_and_rounding_pass(loaded):
  for value in (0.0, 1.0, -1e-6, 1.000001):
    h = loaded(tf.fill([1, 32, 32, 3], value))['final_avg_pool']
    assert np.isfinite(h).all()
