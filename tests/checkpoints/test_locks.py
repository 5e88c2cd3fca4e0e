"""One run at a time: locks of files, signs of life in buckets."""

import fcntl
import os
import threading

import pytest
import tensorflow as tf

from cvr.checkpoints import locks
from cvr.checkpoints.files import CheckpointError

KINDS = {'file': locks._flocked, 'bucket': locks._beating}


@pytest.fixture(autouse=True)
def waits(monkeypatch):
  """Seconds that would have been slept; `meanwhile` happens then, if set."""

  class Waits(list):
    def meanwhile(self):
      pass

    def sleep(self, seconds):
      self.append(seconds)
      self.meanwhile()

  waits = Waits()
  monkeypatch.setattr(locks.time, 'sleep', waits.sleep)
  return waits


@pytest.mark.parametrize('kind', KINDS)
def test_the_second_is_refused_and_the_next_is_not(tmp_path, kind, waits):
  path, beats = str(tmp_path / '.lock'), iter(range(1, 99))
  with KINDS[kind](path):
    if kind == 'bucket':
      run = locks._holder(path)['run']
      who = locks._holder(path)['who']
      waits.meanwhile = lambda: locks._sign(path, run, who, next(beats))
    with pytest.raises(CheckpointError) as error:
      with KINDS[kind](path):
        pass
    assert f'{tmp_path} is in use by pid {os.getpid()} on' in str(error.value)
  waits.meanwhile = lambda: None
  with KINDS[kind](path):
    pass


@pytest.mark.parametrize('there', [True, False])
def test_a_link_is_not_followed(tmp_path, there):
  """Or whoever may write to a shared folder would empty a file of another."""
  target = tmp_path / 'thesis.tex'
  if there:
    target.write_text('years of work')
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / '.lock').symlink_to(target)
  with pytest.raises(CheckpointError) as error:
    with locks.locked(str(tmp_path / 'run')):
      pass
  assert 'run/.lock is a symbolic link' in str(error.value)
  assert target.exists() == there
  assert not there or target.read_text() == 'years of work'


@pytest.mark.parametrize(
  'make, kind', [(os.mkfifo, 'a device or a pipe'), (os.mkdir, 'a folder')]
)
def test_a_lock_that_is_no_file_is_refused(tmp_path, make, kind):
  make(tmp_path / '.lock')
  with pytest.raises(CheckpointError, match=f'.lock is {kind}'):
    with locks.locked(str(tmp_path)):
      pass


def test_nothing_is_written_before_the_lock_is_held(tmp_path, monkeypatch):
  path, before = tmp_path / '.lock', []
  path.write_text('pid 7 on far\n')
  flock = fcntl.flock

  def looked(*arguments):
    before.append(path.read_text())
    flock(*arguments)

  monkeypatch.setattr(locks.fcntl, 'flock', looked)
  with locks.locked(str(tmp_path)):
    assert path.read_text().startswith(f'pid {os.getpid()} on ')
  assert before == ['pid 7 on far\n']

  def no_locks(*_):
    raise OSError(95, 'Operation not supported')

  path.write_text('pid 7 on far\n')
  monkeypatch.setattr(locks.fcntl, 'flock', no_locks)
  with locks.locked(str(tmp_path)):
    assert path.read_text() == 'pid 7 on far\n'


@pytest.mark.parametrize('kind', KINDS)
def test_the_name_in_a_lock_is_bounded_and_plain(tmp_path, kind, waits):
  path = tmp_path / '.lock'
  name = 'pid 1 \x1b[2J\u202e' + 9999 * 'x'
  if kind == 'file':
    path.write_text(name)
    handle = os.open(path, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
  else:
    locks._sign(str(path), 'other', name, 7)
    waits.meanwhile = lambda: locks._sign(str(path), 'other', name, 8)
  with pytest.raises(CheckpointError, match='in use by pid 1') as error:
    with KINDS[kind](str(path)):
      pass
  if kind == 'file':
    os.close(handle)
  message = str(error.value)
  assert message.isprintable() and len(message) < 300 + len(str(tmp_path))


def test_where_a_directory_lies_decides(tmp_path, monkeypatch):
  seen = []

  def noted(path, say):
    seen.append((path, say))
    return locks.contextlib.nullcontext()

  monkeypatch.setattr(locks, '_beating', noted)
  with locks.locked('gs://bucket/run', 'say'), locks.locked(str(tmp_path)):
    pass
  assert seen == [('gs://bucket/run/.lock', 'say')]


class Stop:
  """As an Event that is set while it is waited for the third time."""

  def __init__(self):
    self.waits = []

  def wait(self, seconds):
    self.waits.append(seconds)
    return len(self.waits) == 3


def test_signs_of_life_go_on_until_the_end(tmp_path):
  path, stop = str(tmp_path / '.lock'), Stop()
  locks._beat(path, 'a', 'me', stop)
  assert locks._holder(path) == {'run': 'a', 'who': 'me', 'beat': 2}
  assert stop.waits == [locks._BEAT] * 3


def test_signs_of_life_do_not_keep_a_process(tmp_path):
  before = {*threading.enumerate()}
  with locks._beating(str(tmp_path / '.lock')):
    (thread,) = {*threading.enumerate()} - before
    assert thread.daemon


def test_a_store_that_does_not_answer_does_not_end_the_signs(monkeypatch):
  def lost(*_):
    raise tf.errors.UnavailableError(None, None, 'no answer')

  stop = Stop()
  monkeypatch.setattr(locks, '_sign', lost)
  locks._beat('anywhere', 'a', 'me', stop)
  assert len(stop.waits) == 3


def test_who_is_silent_for_a_minute_is_dead(tmp_path, waits):
  path, lines = str(tmp_path / '.lock'), []
  locks._sign(path, 'other', 'pid 1 on far since ever', 7)
  with locks._beating(path, lines.append):
    assert sum(waits) == locks._DEAD + locks._LOOK
    assert locks._holder(path)['run'] != 'other'
  assert not os.path.exists(path)
  assert 'was last used by pid 1 on far since ever' in lines[0]


@pytest.mark.parametrize('beat', [0, 8])
def test_who_signs_again_is_alive_whatever_the_clocks_say(
  tmp_path, waits, beat
):
  """beat 0: another run, which found the dead one before."""
  path = str(tmp_path / '.lock')
  locks._sign(path, 'other', 'pid 1 on far', 7)

  def meanwhile():
    if len(waits) == 10:
      locks._sign(path, 'other' if beat else 'third', 'pid 1 on far', beat)

  waits.meanwhile = meanwhile
  with pytest.raises(CheckpointError, match='in use by pid 1 on far'):
    with locks._beating(path):
      pass
  assert len(waits) == 10
  assert locks._holder(path)['beat'] == beat


def test_who_ends_while_it_is_looked_at_leaves_the_place(tmp_path, waits):
  path = tmp_path / '.lock'
  locks._sign(str(path), 'other', 'pid 1 on far', 7)
  waits.meanwhile = lambda: len(waits) == 1 and path.unlink()
  with locks._beating(str(path)):
    assert len(waits) == 2


def test_of_two_that_begin_at_once_one_goes_on(tmp_path, waits):
  path = str(tmp_path / '.lock')
  waits.meanwhile = lambda: locks._sign(path, 'other', 'the other', 0)
  with pytest.raises(CheckpointError, match='the other'):
    with locks._beating(path):
      pass
  # And the one who lost takes nothing away from the one who won.
  assert locks._holder(path)['run'] == 'other'


def test_who_was_taken_for_dead_writes_nothing_more(
  tmp_path, monkeypatch, capsys
):
  class Ended(BaseException):
    pass

  def end(status):
    raise Ended(status)

  path = str(tmp_path / '.lock')
  locks._sign(path, 'other', 'the other', 3)
  monkeypatch.setattr(locks.os, '_exit', end)
  with pytest.raises(Ended, match='2'):
    locks._beat(path, 'a', 'me', Stop())
  assert f'{tmp_path} was taken over by the other' in capsys.readouterr().err
  assert locks._holder(path)['run'] == 'other'


@pytest.mark.parametrize(
  'content', ['', '[]', '{"run": 1}', 'x', '{"beat": {}}']
)
def test_a_lock_that_nobody_can_read_holds_nobody(tmp_path, content, waits):
  (tmp_path / '.lock').write_text(content)
  with locks._beating(str(tmp_path / '.lock')):
    assert waits == [locks._LOOK]
