"""Two logical CPU devices for every test: a strategy of two replicas."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.fixture(scope='session')
def two_replicas():
  """A MirroredStrategy over the two logical CPUs."""
  return tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
