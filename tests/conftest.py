"""Two logical CPU devices for every test: a strategy of two replicas."""

# ruff: noqa: E402

import run

run.quiet_start()

import pytest
import tensorflow as tf
import tf_keras as keras

from small_data import make_folder

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(autouse=True)
def seeded():
  """The same initial weights at every run of the suite."""
  keras.utils.set_random_seed(0)


@pytest.fixture(scope='session')
def two_replicas():
  """A MirroredStrategy over the two logical CPUs."""
  return tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  """For TFDS; the built-in data set is prepared in it once."""
  return str(tmp_path_factory.getbasetemp() / 'tfds')


@pytest.fixture
def folder(tmp_path):
  """22 images of 3 classes, and 7 to evaluate on."""
  return make_folder(tmp_path / 'images')


@pytest.fixture
def tiny_encoder(monkeypatch):
  """Methods get a thin ResNet of two blocks: it traces in a moment."""
  import methods
  import resnet

  monkeypatch.setitem(resnet.BLOCKS, 18, (False, (1, 0, 0, 1)))

  def make_encoder(cfg):
    return resnet.ResNet(
      cfg.resnet_depth,
      1 / 8,
      stem='small',
      bn_decay=cfg.batch_norm_decay,
      sync_bn=cfg.global_bn,
    )

  monkeypatch.setattr(methods, 'make_encoder', make_encoder)
