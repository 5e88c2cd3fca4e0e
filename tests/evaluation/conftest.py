"""Subjects of known features, and runs that several tests read."""

import types

import pytest
import tensorflow as tf

from bit_runs import Runs
from cvr.configs import config
from cvr.evaluation import store
from cvr.evaluation.subject import Subject
from known_features import SETTINGS, make_images


@pytest.fixture
def make_subject(tmp_path):
  """make(encoder, **settings) -> a Subject with its features, and its lines."""

  def make(encoder, **changes):
    images = changes.pop('images', None) or make_images(tmp_path / 'images')
    cfg = config.Config(**SETTINGS | {'dataset': images} | changes)
    probe = types.SimpleNamespace(dense=types.SimpleNamespace(units=3))
    method = types.SimpleNamespace(
      encoder=types.SimpleNamespace(representation_dim=encoder.dim)
    )
    state = types.SimpleNamespace(method=method, probe=probe)
    lines = []
    subject = Subject(
      cfg, tf.distribute.get_strategy(), state, 'ckpt-1', 'abc', encoder,
      store.Store(f'{tmp_path}/features'), lines.append,
    )  # fmt: skip
    return subject, lines

  return make


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
  return Runs(tmp_path_factory.mktemp)


@pytest.fixture
def run_copy(runs, tmp_path, tiny_encoder):
  """run_copy(kind, *flags) -> a copy of a run that a test may change."""
  del tiny_encoder
  return lambda kind, *more: runs.copy(tmp_path, kind, *more)
