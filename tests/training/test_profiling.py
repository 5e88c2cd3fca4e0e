"""A trace begins and ends with its steps."""

import io

import pytest
import tensorflow as tf

from cvr.training import profiling
from cvr.training.monitor import Monitor


@pytest.fixture
def profiler(monkeypatch):
  """What TensorFlow's profiler is asked to do."""
  asked = []
  profiler = tf.profiler.experimental
  monkeypatch.setattr(profiler, 'start', lambda folder: asked.append(folder))
  monkeypatch.setattr(profiler, 'stop', lambda: asked.append('stop'))
  return asked


def test_a_trace_is_taken_between_two_steps(tmp_path, profiler):
  monitor = Monitor(str(tmp_path), stream=(said := io.StringIO()))
  with profiling.traced((10, 20), monitor) as at:
    assert at.keys() == {10, 20} and profiler == []
    at[10]()
    assert profiler == [f'{tmp_path}/profile']
    at[20]()
  assert profiler == [f'{tmp_path}/profile', 'stop']
  assert said.getvalue() == f'Trace of the steps: {tmp_path}/profile\n'


def test_a_run_that_ends_in_between_ends_its_trace(tmp_path, profiler):
  monitor = Monitor(str(tmp_path), stream=io.StringIO())
  with pytest.raises(ZeroDivisionError):
    with profiling.traced((10, 20), monitor) as at:
      at[10]()
      raise ZeroDivisionError
  assert profiler[1:] == ['stop']
  # One that resumes after its beginning takes none.
  profiler.clear()
  with profiling.traced((10, 20), monitor) as at:
    at[20]()
  assert profiler == []


def test_all_workers_stop_at_its_steps_and_one_traces(tmp_path, profiler):
  other = Monitor(str(tmp_path), chief=False)
  with profiling.traced((10, 20), other) as at:
    assert at.keys() == {10, 20}
    at[10]()
    at[20]()
  assert profiler == []
  with profiling.traced((), other) as at:
    assert at == {}


def test_a_profiler_that_refuses_is_a_warning(tmp_path, monkeypatch):
  def refuse(folder):
    raise tf.errors.AlreadyExistsError(None, None, 'another one is at work')

  monkeypatch.setattr(tf.profiler.experimental, 'start', refuse)
  monitor = Monitor(str(tmp_path), stream=(said := io.StringIO()))
  with profiling.traced((0, 5), monitor) as at:
    at[0]()
    at[5]()
  assert said.getvalue() == (
    'WARNING: no trace of the steps (another one is at work)\n'
  )
