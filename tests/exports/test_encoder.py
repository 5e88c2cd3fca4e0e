"""load_encoder: the same features as everywhere else, in one's own program."""

import json
import os
import random
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import data_util
import released_files
import released_names
import run
from cvr.checkpoints import saving
from cvr.checkpoints.files import CheckpointError
from cvr.configs import config
from cvr.exports.encoder import load_encoder
from cvr.exports.keras import keras as keras_3
from cvr.training.step import make_state
from exported_models import blocks, pictures, randomise
from small_data import CLASSES, SMALL, plan_of, write
from tiny_methods import use_encoder

SIZE = 40  # Above 32 px the evaluation cuts the border off.
RECIPES = {
  'byol': dict(image_size=SIZE),
  'simclr': dict(batch_image_augmentation_type='simclr'),
  'cmc': dict(pretrain_loss='cmc', view_pairs='lab_l,lab_ab', image_size=SIZE),
}


def write_run(folder, classes=CLASSES, **changes):
  """A run's folder with a checkpoint in which no number is trivial."""
  cfg = config.Config(**SMALL | changes)
  state = make_state(plan_of(cfg, classes=len(classes)))
  randomise(state.method)
  record = {
    'config': config.to_dict(cfg),
    'class_names': list(classes),
    'num_examples': 22,
  }
  write(f'{folder}/config.json', json.dumps(record).encode())
  items = {'record': saving.Record(record), **state.items()}
  saving.Checkpoints(str(folder), **items).save(7)
  return str(folder)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """{name of RECIPES: a run's folder}."""
  root = tmp_path_factory.mktemp('runs')
  with pytest.MonkeyPatch.context() as patch:
    use_encoder(patch)
    return {
      name: write_run(root / name, **changes)
      for name, changes in RECIPES.items()
    }


@pytest.fixture
def encoder(runs, tiny_encoder):
  return load_encoder(runs['byol'])


def bytes_of(images):
  return np.round(255 * images).astype(np.uint8)


def photos(root, count=5):
  """Images of noise, taller than wide -> [n, H, W, 3]."""
  images = np.stack(
    [bytes_of(pictures(1, 64, i)[0, :, :44]) for i in range(count)]
  )
  for i, image in enumerate(images):
    write(f'{root}/val/a/{i}.png', tf.io.encode_png(image).numpy())
  return images


def call(mode, checkpoint, *more):
  argv = ['run.py', '--use_tpu=false', f'--mode={mode}']
  assert run.main([*argv, f'--checkpoint={checkpoint}', *more]) == 0


# The same features ------------------------------------------------------------


@pytest.mark.parametrize('recipe', RECIPES)
def test_features_are_those_of_extract_features(
  runs, tiny_encoder, tmp_path, recipe
):
  images = photos(tmp_path)
  call(
    'extract_features',
    runs[recipe],
    f'--dataset=folder:{tmp_path}',
    '--eval_split=val',
    '--eval_batch_size=4',
    f'--output={tmp_path}/f.npz',
  )
  with np.load(tmp_path / 'f.npz') as file:
    expected = file['representation']
  assert np.abs(expected[0] - expected[1]).max() > 1e-2
  encoder = load_encoder(runs[recipe])
  features = encoder(encoder.preprocess(images))
  np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
  assert features.shape == (len(images), encoder.representation_dim)
  # One by one, too.
  shown = [encoder.preprocess(image) for image in images]
  assert {image.shape[0] for image in shown} == {
    SIZE if recipe != 'simclr' else 16
  }
  np.testing.assert_allclose(
    encoder(tf.stack(shown)), expected, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('recipe', ['byol', 'simclr'])
def test_features_are_those_of_exports(runs, tiny_encoder, tmp_path, recipe):
  encoder, images = load_encoder(runs[recipe]), pictures(3, 24)
  for kind in ('saved_model', 'keras'):
    call('export', runs[recipe], f'--format={kind}', f'--output={tmp_path}')
  saved = tf.saved_model.load(f'{tmp_path}/saved_model')
  kept = keras_3.models.load_model(f'{tmp_path}/model.keras')
  for network in (saved, kept):
    expected = np.array(network(images)['final_avg_pool'])
    np.testing.assert_allclose(encoder(images), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def released(tmp_path, monkeypatch):
  """-> (a folder with a checkpoint in the published layout, its tensors)."""
  released_files.shorten(monkeypatch)
  sizes = released_files.SMALL
  tensors = released_files.values(released_names.tensors('byol', **sizes))
  folder = tmp_path / 'released'
  folder.mkdir()
  released_files.write(folder / 'ckpt-40', tensors)
  return str(folder), tensors


def test_a_released_checkpoint_by_folder_prefix_and_archive(released, tmp_path):
  folder, tensors = released
  path = str(tmp_path / 'checkpoint.tar.gz')
  with tarfile.open(path, 'w:gz') as tar:
    tar.add(folder, '.')
  images = pictures(2, 16)
  expected = released_files.features(tensors, data_util.normalize(images))
  for place in (folder, f'{folder}/ckpt-40', path):
    encoder = load_encoder(place)
    np.testing.assert_allclose(encoder(images), expected, rtol=1e-3, atol=1e-4)
  assert encoder.class_names == () and encoder.representation_dim == 64


def test_a_prefix_a_path_and_a_copied_checkpoint(runs, encoder, tmp_path):
  """A copy has its settings inside; its data set may be elsewhere."""
  for name in os.listdir(runs['byol']):
    if name.startswith('ckpt-'):
      os.link(f'{runs["byol"]}/{name}', tmp_path / name)
  expected = encoder(pictures(2))
  for place in (f'{runs["byol"]}/ckpt-7', tmp_path, tmp_path / 'ckpt-7'):
    other = load_encoder(place)
    np.testing.assert_array_equal(other(pictures(2)), expected)
    assert other.class_names == CLASSES


def test_a_run_without_labels_has_no_classes(tiny_encoder, tmp_path):
  encoder = load_encoder(write_run(tmp_path, classes=()))
  assert encoder.class_names == ()


# Images -----------------------------------------------------------------------


def test_bytes_are_the_same_images_as_floats(encoder):
  images = bytes_of(pictures(2))
  expected = encoder(images / np.float32(255))
  for same in (images, images / 255, tf.constant(images)):
    np.testing.assert_allclose(encoder(same), expected, rtol=1e-4, atol=1e-5)
  shown = encoder.preprocess(images / 255)
  np.testing.assert_allclose(shown, encoder.preprocess(images), atol=1e-6)


def test_what_is_no_image_is_refused(encoder):
  images = pictures(2)
  for bad in (255 * images, images - 0.5, np.where(images > 0.9, np.nan, 0)):
    for call in (encoder, encoder.preprocess):
      with pytest.raises(ValueError, match=r'^images must be in \[0, 1\]'):
        call(bad)
  for bad in (
    images[0],
    images[..., :1],
    images.astype(np.int32),
    images[None],
  ):
    with pytest.raises(ValueError, match=r'^images must be \[n, height'):
      encoder(bad)
  with pytest.raises(ValueError, match=r'^images must be \[height, width, 3\]'):
    encoder.preprocess(images[..., 0])


def test_in_a_graph(encoder):
  @tf.function
  def features(images):
    return encoder(encoder.preprocess(images))

  images = pictures(2, 64)
  expected = encoder(encoder.preprocess(images))
  np.testing.assert_allclose(features(images), expected, rtol=1e-5, atol=1e-6)
  with pytest.raises(tf.errors.InvalidArgumentError, match=r'in \[0, 1\]'):
    features(2 * images)
  shown = tf.data.Dataset.from_tensor_slices(images).map(encoder.preprocess)
  assert shown.element_spec.shape == [SIZE, SIZE, 3]
  np.testing.assert_allclose(
    next(iter(shown)), encoder.preprocess(images[0]), atol=1e-6
  )


# Training ---------------------------------------------------------------------


def values(variables):
  return [v.numpy() for v in variables]


def moved(variables, before):
  return [
    not np.array_equal(v, old) for v, old in zip(variables, before, strict=True)
  ]


def test_a_gradient_by_a_tape(encoder):
  images = tf.constant(pictures(3))
  with tf.GradientTape() as tape:
    tape.watch(images)
    loss = tf.reduce_sum(encoder(images) ** 2)
  of_images, *of_weights = tape.gradient(
    loss, [images, *encoder.trainable_variables]
  )
  for gradient in (of_images, *of_weights):
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
  assert len(of_weights) == len(encoder.layer.trainable_weights) > 10


def fitted(encoder, images, **settings):
  """A model of one's own around the layer, after three steps -> it."""
  model = keras.Sequential([encoder.layer, keras.layers.Dense(3)])
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  model.compile(keras.optimizers.SGD(0.1), loss, **settings)
  model.fit(images, np.array([0, 1, 2] * 2), 2, verbose=0)
  return model


@pytest.mark.parametrize('kind', ['bytes', 'floats'])
def test_a_layer_learns_in_keras_own_loop(encoder, kind):
  images = pictures(6, 24)
  images = bytes_of(images) if kind == 'bytes' else images
  layer = encoder.layer
  still = [v for v in layer.weights if not v.trainable]
  before = values(layer.trainable_weights), values(still)
  model = fitted(encoder, images)
  assert all(moved(layer.trainable_weights, before[0]))
  assert all(moved(still, before[1])) and len(still) > 5
  after = values(layer.weights)
  logits = model.predict(images, verbose=0)
  assert not any(moved(layer.weights, after))
  # The callable has what the model learned.
  dense = model.layers[-1]
  np.testing.assert_allclose(
    dense(encoder(images)), logits, rtol=1e-4, atol=1e-5
  )


def test_a_frozen_layer_keeps_its_statistics_too(encoder):
  encoder.layer.trainable = False
  before = values(encoder.layer.weights)
  model = fitted(encoder, pictures(6, 24))
  assert not any(moved(encoder.layer.weights, before))
  assert encoder.trainable_variables == []
  assert len(model.trainable_variables) == 2


def test_batch_norm_follows_training(encoder):
  images = pictures(4, 24)
  still = encoder(images)
  np.testing.assert_array_equal(encoder.layer(images), still)
  with tf.GradientTape():
    np.testing.assert_array_equal(encoder(images), still)
  for call in (encoder, encoder.layer):
    before = values(encoder.layer.weights)
    assert np.abs(call(images, training=True) - still).max() > 1e-3
    changes = moved(encoder.layer.weights, before)
    assert changes == [not v.trainable for v in encoder.layer.weights]


def test_a_model_refuses_what_the_encoder_refuses(encoder):
  with pytest.raises(tf.errors.InvalidArgumentError, match=r'in \[0, 1\]'):
    fitted(encoder, 255 * pictures(6, 24))


def test_the_documented_lines(runs, tiny_encoder, tmp_path, monkeypatch):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'mine').symlink_to(runs['byol'])
  monkeypatch.chdir(tmp_path)
  scope = {
    'photos': bytes_of(pictures(4, 64)),
    'labels': np.array([0, 3, 9, 1]),
  }
  load, finetune, loop = blocks('TensorFlow', 'python.md')
  exec(load, scope)
  encoder = scope['encoder']
  assert scope['features'].shape == (4, encoder.representation_dim)
  before = values(encoder.layer.weights)
  exec(finetune, scope)
  assert all(moved(encoder.layer.weights, before))
  exec(loop, scope)
  assert len(scope['gradients']) == len(encoder.trainable_variables)
  assert all(np.isfinite(g).all() for g in scope['gradients'])


def test_the_lines_of_the_readme(runs, tiny_encoder, tmp_path, monkeypatch):
  (tmp_path / 'runs').mkdir()
  (tmp_path / 'runs' / 'quickstart').symlink_to(runs['byol'])
  monkeypatch.chdir(tmp_path)
  (lines,) = blocks('In Python', '../README.md')
  scope = {'images': bytes_of(pictures(4, 64))}
  exec(lines, scope)
  encoder, features = scope['encoder'], scope['features']
  assert features.shape == (4, encoder.representation_dim)
  assert encoder.layer.trainable_variables == encoder.trainable_variables


# The process is the user's ----------------------------------------------------


def test_loading_leaves_seeds_and_precision_alone(runs, tiny_encoder):
  expected = load_encoder(runs['byol'])(pictures(2))
  random.seed(5)
  np.random.seed(5)
  states = random.getstate(), np.random.get_state()[1].tolist()
  keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    encoder = load_encoder(runs['byol'])
    assert keras.mixed_precision.global_policy().name == 'mixed_bfloat16'
  finally:
    keras.mixed_precision.set_global_policy('float32')
  assert states == (random.getstate(), np.random.get_state()[1].tolist())
  # Built under a policy, as every layer of Keras, it computes by it.
  features = encoder(pictures(2))
  assert features.dtype == tf.float32
  apart = np.abs(features - expected).max() / np.abs(expected).max()
  assert 1e-5 < apart < 0.05
  # But images are not rounded before they are normalised.
  np.testing.assert_array_equal(encoder.layer(pictures(2)), features)


# What cannot be loaded --------------------------------------------------------


def refused(path):
  with pytest.raises(ValueError) as caught:
    load_encoder(path)
  message = str(caught.value)
  assert '--checkpoint' not in message and '\n' not in message
  return message


def test_what_is_not_there_is_said(tmp_path, runs, tiny_encoder):
  path = f'{tmp_path}/none'
  assert refused(path).startswith(f'{path}: there is no such folder')
  assert 'no such file' in refused(f'{path}.tar.gz')
  (tmp_path / 'config.json').write_bytes(
    open(f'{runs["byol"]}/config.json', 'rb').read()
  )
  assert 'no ckpt-*.index in this directory' in refused(str(tmp_path))
  assert 'must not contain' in refused(f'{tmp_path}/run[1]')


def test_damage_is_named(tmp_path, tiny_encoder):
  folder = write_run(tmp_path)
  data = f'{folder}/ckpt-7.data-00000-of-00001'
  content = open(data, 'rb').read()
  for damage in ('data', 'index'):
    name = data if damage == 'data' else f'{folder}/ckpt-7.index'
    os.truncate(name, 40)
    with pytest.raises(CheckpointError, match='ckpt-7 cannot be read'):
      load_encoder(folder)
    write(data, content)


def test_a_checkpoint_that_says_nothing_of_its_network(tmp_path, encoder):
  items = tf.train.Checkpoint(method=encoder.layer)
  items.write(f'{tmp_path}/ckpt-7')
  assert 'does not describe its network' in refused(f'{tmp_path}/ckpt-7')
