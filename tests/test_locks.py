"""One run at a time: locks of files, signs of life in buckets."""

import json
import os

import pytest
import tensorflow as tf

import locks
from checkpoint_files import CheckpointError, NotSaved

KINDS = {'file': locks._flocked, 'bucket': locks._beating}


@pytest.mark.parametrize('kind', KINDS)
def test_the_second_is_refused_and_the_next_is_not(tmp_path, kind):
  path = str(tmp_path / '.lock')
  with KINDS[kind](path):
    with pytest.raises((CheckpointError, NotSaved)) as error:
      with KINDS[kind](path):
        pass
    assert f'{tmp_path} is in use by pid {os.getpid()} on' in str(error.value)
  with KINDS[kind](path):
    pass


def test_where_a_directory_lies_decides(tmp_path, monkeypatch):
  seen = []

  def noted(path):
    seen.append(path)
    return locks.contextlib.nullcontext()

  monkeypatch.setattr(locks, '_beating', noted)
  with locks.locked('gs://bucket/run'), locks.locked(str(tmp_path)):
    pass
  assert seen == ['gs://bucket/run/.lock']


class Stop:
  """As an Event that is set while it is waited for the third time."""

  def __init__(self):
    self.waits = []

  def wait(self, seconds):
    self.waits.append(seconds)
    return len(self.waits) == 3


def test_signs_of_life_go_on_until_the_end(tmp_path, monkeypatch):
  path, now, stop = str(tmp_path / '.lock'), iter([7.0, 8.0, 9.0]), Stop()
  monkeypatch.setattr(locks.time, 'time', lambda: next(now))
  locks._beat(path, 'a', 'me', stop)
  assert json.loads((tmp_path / '.lock').read_text())['seen'] == 8.0
  assert stop.waits == [locks._BEAT] * 3


def test_a_store_that_does_not_answer_does_not_end_the_signs(monkeypatch):
  def lost(*_):
    raise tf.errors.UnavailableError(None, None, 'no answer')

  stop = Stop()
  monkeypatch.setattr(locks, '_sign', lost)
  locks._beat('anywhere', 'a', 'me', stop)
  assert len(stop.waits) == 3


@pytest.mark.parametrize(
  'age, free', [(0, False), (89, False), (91, True), (-30, False)]
)
def test_who_is_not_heard_of_is_dead(tmp_path, monkeypatch, age, free):
  """-30: the other's clock is ahead."""
  path = str(tmp_path / '.lock')
  monkeypatch.setattr(locks.time, 'time', lambda: 1000.0)
  locks._sign(path, 'other', 'pid 1 on far since ever')
  monkeypatch.setattr(locks.time, 'time', lambda: 1000.0 + age)
  if free:
    with locks._beating(path):
      assert locks._holder(path)['run'] != 'other'
    assert not os.path.exists(path)
    return
  with pytest.raises(NotSaved, match='pid 1 on far since ever, seen'):
    with locks._beating(path):
      pass
  assert locks._holder(path)['run'] == 'other'


def test_of_two_that_begin_at_once_one_goes_on(tmp_path, monkeypatch):
  path, sign = str(tmp_path / '.lock'), locks._sign

  def overtaken(path, run, who):
    sign(path, run, who)
    sign(path, 'other', 'the other')

  monkeypatch.setattr(locks, '_sign', overtaken)
  with pytest.raises(NotSaved, match='the other'):
    with locks._beating(path):
      pass
  # And the one who lost takes nothing away from the one who won.
  assert locks._holder(path)['run'] == 'other'


@pytest.mark.parametrize(
  'content', ['', '[]', '{"run": 1}', 'x', '{"seen": {}}']
)
def test_a_lock_that_nobody_can_read_holds_nobody(tmp_path, content):
  (tmp_path / '.lock').write_text(content)
  with locks._beating(str(tmp_path / '.lock')):
    pass
