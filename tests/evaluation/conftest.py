"""Subjects of known features, and runs that several tests read."""

import types

import pytest
import tensorflow as tf

from bit_runs import Runs
from cvr.configs import config
from cvr.evaluation import store
from cvr.evaluation.card import plots
from cvr.evaluation.heads import linear
from cvr.evaluation.subject import Subject
from cvr.evaluation.suites import linear as linear_suite
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


@pytest.fixture
def quick_heads(monkeypatch):
  """Heads of few epochs and penalties, where the protocols are not the point.

  Heads of known features reach their accuracies all the same.
  """
  short = {k: p._replace(epochs=4) for k, p in linear.PROTOCOLS.items()}
  monkeypatch.setattr(linear, 'PROTOCOLS', short)
  monkeypatch.setattr(linear_suite, 'PROTOCOLS', short)
  monkeypatch.setattr(linear, 'L2_GRID', linear.L2_GRID[::11])


@pytest.fixture
def no_plots(monkeypatch):
  """Plots take seconds."""
  monkeypatch.setattr(plots, 'draw', lambda *_: {})
