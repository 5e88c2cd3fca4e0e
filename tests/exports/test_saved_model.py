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


@pytest.mark.parametrize('kind', ['selective', 'small images'])
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
