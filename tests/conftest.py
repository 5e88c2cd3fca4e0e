"""Two logical CPU devices for every test: a strategy of two replicas."""

# ruff: noqa: E402

import collections
import os

# XLA optimizes for machines, not for what it computes: tests compile quicker.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')

from cvr.startup import quiet_start

quiet_start()

import pytest
import tensorflow as tf
import tf_keras as keras

import processes
import run
import tiny_methods
from small_data import SMALL, make_folder, plan_of
from small_runs import make_images

tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0],
  [tf.config.LogicalDeviceConfiguration()] * 2,
)


def pytest_terminal_summary(terminalreporter):
  """What ran, by file: the dots do not tell."""
  passed = terminalreporter.stats.get('passed', [])
  files = collections.Counter(r.nodeid.partition('::')[0] for r in passed)
  terminalreporter.section('what ran')
  for file, count in sorted(files.items()):
    terminalreporter.write_line(f'{count:5d} passed  {file}')


@pytest.fixture(autouse=True)
def seeded():
  """The same initial weights at every run of the suite."""
  keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def no_report(request, monkeypatch):
  """Runs of tests end without a report, which takes a moment each.

  But for tests that are marked `report`.
  """
  if not request.node.get_closest_marker('report'):
    monkeypatch.setattr(run, 'report_at_end', lambda *_: None)


@pytest.fixture(scope='session')
def two_replicas():
  """A MirroredStrategy over the two logical CPUs."""
  return tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])


@pytest.fixture
def folder(tmp_path):
  """22 images of 3 classes, and 7 to evaluate on."""
  return make_folder(tmp_path / 'images')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  """Two classes of 20 px noise around two colours, as JPEG files."""
  return make_images(tmp_path_factory.mktemp('images'))


@pytest.fixture
def tiny_encoder(monkeypatch):
  """Methods get a thin ResNet of two blocks: it traces in a moment."""
  tiny_methods.use_encoder(monkeypatch)


@pytest.fixture
def glance(monkeypatch):
  """Methods get an encoder without convolutions: for what is not of them."""
  tiny_methods.use_encoder(monkeypatch, tiny_methods.Glance)


@pytest.fixture
def state_of(tiny_encoder):
  del tiny_encoder
  from cvr.configs.config import Config
  from cvr.training.step import make_state

  return lambda **changes: make_state(plan_of(Config(**SMALL | changes)))


@pytest.fixture
def start():
  """start(function, *args) -> a Child; none of them outlives the test."""
  started = []

  def begin(*args):
    started.append(processes.Child(*args))
    return started[-1]

  yield begin
  for child in started:
    child.process.kill()
    child.process.join()
