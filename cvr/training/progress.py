"""Progress of long jobs: a line that is rewritten, or one a minute in a file.

A terminal cannot rewrite a line that wraps, so that lines are made to fit.
"""

import math
import os
import sys
import time

# Where no terminal tells: files are read in terminals of this width, by `tee`
# while they are written.
_WIDTH = 80
_TITLE = 20  # Columns that a title has at least.
_IN_A_FILE = 60.0  # Seconds between two lines.
_PATIENCE = 1.0  # Seconds before a job is shown, and between two updates.
# Seconds that a pace remembers: half of those it was measured for.
_MEMORY = (120.0, 3600.0)


def duration(seconds):
  """Seconds as people say them: 42s, 3m10s, 5h02m, 2d03h."""
  seconds = int(seconds)
  for size, unit, small, name in (
    (86400, 'd', 3600, 'h'),
    (3600, 'h', 60, 'm'),
    (60, 'm', 1, 's'),
  ):
    if seconds >= size:
      return f'{seconds // size}{unit}{seconds % size // small:02d}{name}'
  return f'{seconds}s'


def width(stream):
  """The columns of a terminal; 80 where they are not known."""
  try:
    return os.get_terminal_size(stream.fileno()).columns or _WIDTH
  except (OSError, ValueError, AttributeError):
    return _WIDTH


def fitted(parts, columns, title=''):
  """(rank, text) in their order -> one line of fewer than `columns`.

  Parts of a low rank are taken first, one that does not fit is left out. The
  title stands in front of them; its end stays where there is not room for all.
  """
  room, taken = columns - 1 - min(len(title), _TITLE), set()
  for place in sorted(range(len(parts)), key=lambda i: parts[i][0]):
    needed = len(parts[place][1]) + 2 * bool(taken or title)
    if needed <= room:
      taken.add(place)
      room -= needed
  texts = [text for i, (_, text) in enumerate(parts) if i in taken]
  room = columns - 1 - len('  '.join(['', *texts]))
  if title and len(title) > room:
    title = f'...{title[3 - room :]}'
  return '  '.join([title] * bool(title) + texts)


class Pace:
  """How many a second, smoothed over time; pauses in between count."""

  def __init__(self):
    self._began = self._last = None
    self._units = self._seconds = 0.0

  def reach(self, done):
    """Tells that so many are done now. The first call only starts the clock."""
    now = time.monotonic()
    if self._last is None:
      self._began = now
    else:
      before, then = self._last
      low, high = _MEMORY
      memory = min(max((now - self._began) / 2, low), high)
      keep = math.exp(-(now - then) / memory)
      self._units = keep * self._units + done - before
      self._seconds = keep * self._seconds + now - then
    self._last = done, now

  @property
  def rate(self):
    """Units a second; None before there is one."""
    known = self._seconds > 0 and self._units > 0
    return self._units / self._seconds if known else None

  def left(self, units):
    """Seconds that so many more will take; None before that is known."""
    return units / self.rate if self.rate else None


def _pace_text(rate):
  if rate < 1:
    return f'{duration(1 / rate)} each'
  return f'{rate:,.0f}/s' if rate >= 10 else f'{rate:.2g}/s'


class Line:
  """The last line of a stream, which shows how far a job is."""

  def __init__(self, stream=None):
    self._stream = stream or sys.stdout
    self.terminal = self._stream.isatty()
    self._last = -math.inf

  def _print(self, text, end='\n'):
    clear = '\r\033[K' if self.terminal else ''
    print(clear + text, end=end, file=self._stream, flush=True)

  def say(self, text):
    """A line that stays."""
    self._print(text)

  def show(self, parts, title='', last=False):
    """Parts as `fitted` takes them. The last line of a job stays."""
    now = time.monotonic()
    if not (self.terminal or last or now - self._last >= _IN_A_FILE):
      return
    self._last = now
    line = fitted(parts, width(self._stream), title)
    self._print(line, end='\n' if last or not self.terminal else '')

  def clear(self):
    """Removes what show() left on a terminal, if it did."""
    if self.terminal and self._last > -math.inf:
      self._print('', end='')


class Job:
  """A job of a known number of units, other than the steps of a run.

  Shown on stdout once it takes longer than a moment; nothing of it stays on a
  terminal. shown: whether to show it at all. even: whether all units take about
  as long; otherwise nothing is said of the time that is left.
  """

  def __init__(self, title, total, unit, shown=True, even=True):
    self._title, self._total, self._unit = title, total, unit
    self._even = even
    self._pace, self._done, self._shown = Pace(), 0, shown
    self._line = Line()
    patience = _PATIENCE if self._line.terminal else _IN_A_FILE
    self._due = time.monotonic() + patience

  def __enter__(self):
    return self

  def __exit__(self, *error):
    if self._shown:
      self._line.clear()

  def advance(self, units=1):
    """Tells that so many more are done."""
    self._done += units
    self._pace.reach(self._done)
    now = time.monotonic()
    if self._shown and now >= self._due:
      self._due = now + _PATIENCE
      self._line.show(self._parts(), self._title)

  def _parts(self):
    parts = [(0, f'{self._done:,}/{self._total:,} {self._unit}')]
    rate = self._pace.rate
    if rate and self._even:
      left = self._pace.left(max(self._total - self._done, 0))
      parts.append((2, _pace_text(rate)))
      parts.append((1, f'ETA {duration(left)}'))
    return parts


def over(items, title, total, unit, even=True):
  """Yields items, and shows how many are done."""
  with Job(title, total, unit, even=even) as job:
    for item in items:
      yield item
      job.advance()
