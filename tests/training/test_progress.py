"""Lines that fit a terminal, and paces that settle."""

import fcntl
import io
import os
import re
import struct
import sys
import termios

import pytest

from cvr.training import progress


@pytest.fixture
def clock(monkeypatch):
  """A list of one number: the seconds that progress believes in."""
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  return now


class Terminal(io.StringIO):
  """Of no width that anybody knows."""

  def isatty(self):
    return True


@pytest.fixture
def terminal():
  """terminal(columns) -> a stream and a function that reads what it shows."""
  opened = []

  def begin(columns):
    reader, writer = os.openpty()
    size = struct.pack('HHHH', 24, columns, 0, 0)
    fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
    stream = open(writer, 'w')
    opened.extend([stream, open(reader, 'rb', buffering=0)])
    return stream, lambda: os.read(reader, 65536).decode()

  yield begin
  for stream in opened:
    stream.close()


@pytest.mark.parametrize(
  'seconds, said',
  [
    (0, '0s'),
    (59.9, '59s'),
    (60, '1m00s'),
    (190, '3m10s'),
    (3599, '59m59s'),
    (3600, '1h00m'),
    (5 * 3600 + 2 * 60 + 59, '5h02m'),
    (86399, '23h59m'),
    (2 * 86400 + 3 * 3600 + 1800, '2d03h'),
    (100 * 86400, '100d00h'),
  ],
)
def test_duration(seconds, said):
  assert progress.duration(seconds) == said


PARTS = [(0, 'step 10'), (3, 'epoch 2'), (2, 'loss 1.5'), (1, 'ETA 9s')]


@pytest.mark.parametrize(
  'columns, line',
  [
    (80, 'step 10  epoch 2  loss 1.5  ETA 9s'),
    (35, 'step 10  epoch 2  loss 1.5  ETA 9s'),
    (34, 'step 10  loss 1.5  ETA 9s'),
    (26, 'step 10  loss 1.5  ETA 9s'),
    # What does not fit is passed over: the epoch is shorter than the loss.
    (25, 'step 10  epoch 2  ETA 9s'),
    (16, 'step 10  ETA 9s'),
    (15, 'step 10'),
    (8, 'step 10'),
    (6, ''),
  ],
)
def test_the_least_important_parts_make_room(columns, line):
  assert progress.fitted(PARTS, columns) == line


@pytest.mark.parametrize(
  'columns, line',
  [
    (80, 'Features of a data set, test  step 10  epoch 2  loss 1.5  ETA 9s'),
    (65, 'Features of a data set, test  step 10  epoch 2  loss 1.5  ETA 9s'),
    (64, '...ures of a data set, test  step 10  epoch 2  loss 1.5  ETA 9s'),
    (57, '... a data set, test  step 10  epoch 2  loss 1.5  ETA 9s'),
    (56, 'Features of a data set, test  step 10  loss 1.5  ETA 9s'),
    (21, '... a data set, test'),
  ],
)
def test_a_title_is_cut_to_the_room_that_is_left(columns, line):
  title = 'Features of a data set, test'
  assert progress.fitted(PARTS, columns, title) == line


@pytest.mark.parametrize('columns', [40, 60, 80, 132])
def test_no_line_is_as_wide_as_its_terminal(columns, terminal, clock):
  stream, read = terminal(columns)
  line = progress.Line(stream)
  line.show([(i, 'x' * 9) for i in range(30)], 'a title of some length')
  (shown,) = re.findall(r'\r\x1b\[K([^\r\n]+)', read())
  assert columns - 11 <= len(shown) < columns


def test_a_terminal_that_does_not_tell_has_80_columns(terminal):
  assert progress.width(terminal(0)[0]) == 80
  assert progress.width(terminal(97)[0]) == 97
  assert progress.width(io.StringIO()) == 80
  with open(os.devnull) as file:
    assert progress.width(file) == 80


def test_a_pace_is_smooth_and_its_time_left_settles(clock):
  """One that takes 1 s a unit, and 20 s more for every 50th: 1.4 s."""
  pace, estimates = progress.Pace(), []
  for done in range(1001):
    pace.reach(done)
    if done:
      estimates.append(pace.left(1000 - done) + clock[0])
    clock[0] += 1 + 20 * (done % 50 == 49)
  # The last step alone would promise 1000 or 21,000 s.
  assert all(0.9 < e / 1400 < 1.1 for e in estimates[200:])
  jumps = [abs(b - a) for a, b in zip(estimates, estimates[1:], strict=False)]
  assert max(jumps[200:]) < 200


def test_a_pace_forgets_how_slow_it_was(clock):
  pace = progress.Pace()
  for done in range(400):
    pace.reach(done)
    clock[0] += 10.0 if done < 100 else 0.1
  # 1000 s of slowness, then 30: not yet forgotten.
  assert 0.1 < pace.rate < 1
  for done in range(400, 40_000):
    pace.reach(done)
    clock[0] += 0.1
  assert pace.rate == pytest.approx(10, rel=0.02)


def test_a_pace_needs_time_and_progress(clock):
  pace = progress.Pace()
  assert pace.rate is None and pace.left(5) is None
  pace.reach(3)
  assert pace.rate is None
  pace.reach(3)
  assert pace.rate is None
  clock[0] = 2.0
  pace.reach(8)
  assert pace.rate == pytest.approx(2.5)
  assert pace.left(5) == pytest.approx(2.0)


def run_job(clock, seconds, units=100):
  for _ in progress.over(range(units), 'Counting', units, 'sheep'):
    clock[0] += seconds


def test_a_short_job_shows_nothing(clock, monkeypatch):
  for stream, seconds in ((Terminal(), 0.009), (io.StringIO(), 0.59)):
    monkeypatch.setattr(sys, 'stdout', stream)
    run_job(clock, seconds)
    assert stream.getvalue() == ''


def test_a_file_gets_a_plain_line_of_a_job_a_minute(clock, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', stream := io.StringIO())
  run_job(clock, 1.3)
  assert stream.getvalue().splitlines() == [
    'Counting  47/100 sheep  1s each  ETA 1m08s',
    'Counting  94/100 sheep  1s each  ETA 7s',
  ]


def test_where_units_differ_no_time_is_promised(clock, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', stream := Terminal())
  for i in progress.over(range(5), 'Fits', 5, 'l2', even=False):
    clock[0] += 2.0**i
  *shown, _ = stream.getvalue().split('\r\033[K')[1:]
  assert shown == [f'Fits  {i}/5 l2' for i in range(1, 6)]


@pytest.mark.parametrize(
  'rate, said',
  [
    (12345.6, '12,346/s'),
    (10, '10/s'),
    (9.87, '9.9/s'),
    (1, '1/s'),
    (0.5, '2s each'),
    (1 / 200, '3m20s each'),
  ],
)
def test_a_slow_pace_is_told_by_how_long_each_takes(rate, said):
  assert progress._pace_text(rate) == said


def test_of_a_job_nothing_stays_on_a_terminal(clock, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', stream := Terminal())
  run_job(clock, 1 / 16)
  *shown, last = stream.getvalue().split('\r\033[K')[1:]
  assert last == '' and len(shown) == 6 and '\n' not in stream.getvalue()
  assert shown[0] == 'Counting  16/100 sheep  16/s  ETA 5s'
  with pytest.raises(ZeroDivisionError):
    for _ in progress.over(range(100), 'Counting', 100, 'sheep'):
      clock[0] += 2
      if clock[0] > 12:
        raise ZeroDivisionError
  assert stream.getvalue().endswith('\r\033[K')


def test_a_job_that_is_not_to_be_shown_is_silent(clock, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', stream := Terminal())
  with progress.Job('Counting', 100, 'sheep', shown=False) as job:
    for _ in range(100):
      clock[0] += 10
      job.advance()
  assert stream.getvalue() == ''
