"""Charts: plain data -> a figure of SVG, as text.

A figure carries what its marks say in `data-points`: script.js shows it on
hover and to the arrow keys. Colours are classes that style.css has for light
and dark; what a colour says, a dash, a shape or a word says, too.
"""

import html
import json
import math
from typing import NamedTuple

# A chart is drawn at about this size, so that its text is as large as other
# text: style.css never makes it much wider or narrower.
WIDTH, HEIGHT = 340, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 38
SERIES = 8  # Colours of lines; further lines begin again.
SHAPES = ('circle', 'square', 'triangle')
CLASS_COLOURS = 12
_MOST_POINTS = 300  # Of a line; more are thinned out.


class Series(NamedTuple):
  """A line. A value that is no number is a gap."""

  name: str
  x: list
  y: list


def escape(text):
  """Text as HTML has it, in an attribute too."""
  return html.escape(str(text), quote=True)


def number(value):
  """A number for readers, of about four digits."""
  if value is None or not math.isfinite(value):
    return 'not a number'
  if value == int(value) and abs(value) < 1e7:
    return f'{int(value):,}'
  size = abs(value)
  if 0.001 <= size < 1e5:
    return f'{value:,.1f}' if size >= 1000 else f'{value:.4g}'
  return f'{value:.2e}'


def ticks(low, high, count=4):
  """Round numbers from low to high, about `count` of them."""
  span = high - low
  if not span > 0 or not math.isfinite(span):
    return [low]
  raw = span / count
  power = 10 ** math.floor(math.log10(raw))
  step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.99)
  first = math.ceil(low / step - 1e-9)
  last = math.floor(high / step + 1e-9)
  return [round(i * step, 12) for i in range(first, last + 1)]


class Scale(NamedTuple):
  """Values from low to high -> places from start to end."""

  low: float
  high: float
  start: float
  end: float
  log: bool = False

  def __call__(self, value):
    low, high = self.low, self.high
    if self.log:
      low, high, value = (math.log10(v) for v in (low, high, value))
    share = (value - low) / (high - low) if high > low else 0.5
    return self.start + share * (self.end - self.start)

  def ticks(self, count=4):
    if not self.log:
      return ticks(self.low, self.high, count)
    powers = range(
      math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1
    )
    every = max(1, len(powers) // 5)
    return [10.0**p for p in powers[::every]]


def extent(values, margin=0.05, floor=None):
  """-> the range to draw values in; wider than nothing."""
  good = [v for v in values if v is not None and math.isfinite(v)]
  if not good:
    return 0.0, 1.0
  low, high = min(good), max(good)
  room = margin * (high - low) or 0.1 * abs(high) or 0.5
  low, high = low - room, high + room
  if floor is not None and min(good) >= floor:
    low = max(low, floor)
  return low, high


def _short(value):
  """A tick's label."""
  size = abs(value)
  if size >= 1e6 or 0 < size < 1e-3:
    return f'{value:.0e}'.replace('e-0', 'e-').replace('e+0', 'e')
  if size >= 1e4:
    return f'{value / 1000:g}k'
  return f'{value:.6g}'.replace('-', '\N{MINUS SIGN}')


def axes(x, y, x_label, y_label, width=WIDTH, height=HEIGHT, x_ticks=4):
  """The grid, ticks and labels of two Scales."""
  parts = []
  bottom, left = height - _BOTTOM, _LEFT
  for value in y.ticks():
    at = y(value)
    parts.append(
      f'<path class="grid" d="M{left} {at:.1f}H{width - _RIGHT}"/>'
      f'<text class="tick" x="{left - 6}" y="{at + 4:.1f}" '
      f'text-anchor="end">{_short(value)}</text>'
    )
  for value in x.ticks(x_ticks):
    at = x(value)
    parts.append(
      f'<path class="grid" d="M{at:.1f} {bottom}v4"/>'
      f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" '
      f'text-anchor="middle">{_short(value)}</text>'
    )
  parts.append(f'<path class="axis" d="M{left} {bottom}H{width - _RIGHT}"/>')
  middle = (left + width - _RIGHT) / 2
  parts.append(
    f'<text class="label" x="{middle:.0f}" y="{height - 4}" '
    f'text-anchor="middle">{escape(x_label)}</text>'
  )
  if y_label:
    at = (_TOP + bottom) / 2
    parts.append(
      f'<text class="label" transform="translate(11 {at:.0f}) rotate(-90)" '
      f'text-anchor="middle">{escape(y_label)}</text>'
    )
  return ''.join(parts)


def figure(
  title, body, points, note='', size=(WIDTH, HEIGHT), kind='', says='', key=''
):
  """A figure with its title, its SVG and what its marks say.

  points: a list of series; each a list of [x, y, text], or of [x, y, text,
  sheet, column, row] with a tile to show. kind: a class of style.css. key: what
  its colours are.
  """
  width, height = size
  data = escape(json.dumps(points, separators=(',', ':')))
  label = escape(f'{title}. {says}'.strip())
  note = f'<p class="note">{note}</p>' if note else ''
  data = f' tabindex="0" data-points="{data}"' * any(points)
  return (
    f'<figure class="chart {kind}">'
    f'<figcaption>{escape(title)}</figcaption>{key}'
    f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}"'
    f'{data}>{body}<g class="cursor"></g></svg>{note}</figure>'
  )


def _thinned(series):
  """At most _MOST_POINTS of a line's points, its last among them."""
  count = len(series.x)
  every = max(1, -(-count // _MOST_POINTS))
  keep = [*range(0, count, every)]
  if keep and keep[-1] != count - 1:
    keep.append(count - 1)
  return series._replace(
    x=[series.x[i] for i in keep], y=[series.y[i] for i in keep]
  )


def _alone(points):
  """Those of [(x, y) or None] that have no neighbour, and so no line."""
  around = [None, *points, None]
  for before, point, after in zip(around[:-2], points, around[2:], strict=True):
    if point and not before and not after:
      yield point


def _path(points):
  """[(x, y) or None] -> a path with gaps."""
  parts, pen = [], 'M'
  for point in points:
    if point is None:
      pen = 'M'
      continue
    parts.append(f'{pen}{point[0]:.1f} {point[1]:.1f}')
    pen = 'L'
  return ''.join(parts)


def legend(names, kind='s'):
  """Names beside their colours; none where there is nothing to tell apart."""
  if len(names) < 2:
    return ''
  items = ''.join(
    f'<li><svg class="key" viewBox="0 0 24 10" aria-hidden="true">'
    f'<path class="line {kind}{i % SERIES}" d="M1 5H23"/></svg>'
    f'{escape(name)}</li>'
    for i, name in enumerate(names)
  )
  return f'<ul class="legend">{items}</ul>'


def _is_good(value, log):
  return value is not None and math.isfinite(value) and (value > 0 or not log)


def line_chart(
  title,
  lines,
  x_label,
  y_label='',
  *,
  log=False,
  floor=None,
  note='',
  band=None,
):
  """Lines over one x.

  lines: Series, of which the k-th has the k-th colour. log: of y. band: (low,
  high) of an interval around the last value of the first line.
  """
  lines = [_thinned(line) for line in lines]
  values = [y for line in lines for y in line.y if _is_good(y, log)]
  low, high = extent([*values, *(band or ())], floor=floor)
  if log:
    low, high = (min(values), max(values)) if values else (0.1, 1)
    low, high = (low / 2, high * 2) if low == high else (low, high)
  across = [x for line in lines for x in line.x] or [0]
  x = Scale(min(across), max(across), _LEFT, WIDTH - _RIGHT - 6)
  y = Scale(low, high, HEIGHT - _BOTTOM, _TOP, log)
  body, points = [axes(x, y, x_label, y_label)], []
  for k, line in enumerate(lines):
    at = [
      (x(a), y(b)) if _is_good(b, log) else None
      for a, b in zip(line.x, line.y, strict=True)
    ]
    body.append(f'<path class="line s{k % SERIES}" d="{_path(at)}"/>')
    body += [
      f'<circle class="dot d{k % SERIES}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
      for a, b in _alone(at)
    ]
    prefix = f'{line.name}: ' if len(lines) > 1 else ''
    points.append(
      [
        [
          round(x(a), 1),
          round(p[1], 1) if p else None,
          f'{prefix}{number(b)} at {x_label} {number(a)}',
        ]
        for a, b, p in zip(line.x, line.y, at, strict=True)
      ]
    )
  if band:
    top, bottom = y(band[1]), y(band[0])
    right = WIDTH - _RIGHT - 6
    ends = f'h8m-4 0V{bottom:.1f}m-4 0h8'
    body.append(f'<path class="band" d="M{right - 4} {top:.1f}{ends}"/>')
  says = '; '.join(
    f'{line.name}: {number(line.y[0])} to {number(line.y[-1])}'
    for line in lines
    if line.y
  )
  return figure(title, ''.join(body), points, note, says=says)


def plane(title, paths, x_label, y_label, note=''):
  """Ways of runs through a plane, each to a large dot; and lines of y - x.

  paths: (name, x, y, steps).
  """
  size = (400, 300)
  xs = [v for _, x, _, _ in paths for v in x]
  ys = [v for _, _, y, _ in paths for v in y]
  x = Scale(*extent(xs), _LEFT + 8, size[0] - _RIGHT - 22)
  y = Scale(*extent(ys), size[1] - _BOTTOM, _TOP + 8)
  body = [axes(x, y, x_label, y_label, *size)]
  for bound in ticks(y.low - x.high, y.high - x.low, 6):
    left, right = max(x.low, y.low - bound), min(x.high, y.high - bound)
    if right <= left:
      continue
    end = x(right), y(right + bound)
    body.append(
      f'<path class="bound" d="M{x(left):.1f} {y(left + bound):.1f}'
      f'L{end[0]:.1f} {end[1]:.1f}"/><text class="tick" '
      f'x="{end[0] + 3:.1f}" y="{end[1] - 2:.1f}">{_short(bound)}</text>'
    )
  points = []
  for k, (name, px, py, steps) in enumerate(paths):
    at = [(x(a), y(b)) for a, b in zip(px, py, strict=True)]
    body.append(f'<path class="line s{k % SERIES}" d="{_path(at)}"/>')
    body += [
      f'<circle class="dot d{k % SERIES}" cx="{a:.1f}" cy="{b:.1f}" '
      f'r="{6 if i == len(at) - 1 else 2.2}"/>'
      for i, (a, b) in enumerate(at)
    ]
    prefix = f'{name}: ' if len(paths) > 1 else ''
    points.append([
      [
        round(a, 1), round(b, 1),
        f'{prefix}step {number(step)}: entropy {number(v)}, reconstruction '
        f'{number(u)}, their difference {number(v - u)} nats',
      ]
      for (a, b), u, v, step in zip(at, px, py, steps, strict=True)
    ])  # fmt: skip
  return figure(title, ''.join(body), points, note, size, 'large')


def histograms(title, groups, edges, x_label, note='', most=0):
  """Shares of several groups in the same bins, as steps.

  groups: (name, counts). Each is drawn as a share of its own. most: the share
  in percent that the axis has to hold, as those beside it do.
  """
  x = Scale(edges[0], edges[-1], _LEFT, WIDTH - _RIGHT - 6)
  shares = [
    (name, [100 * c / (sum(counts) or 1) for c in counts])
    for name, counts in groups
  ]
  top = max([most, *(max(s) for _, s in shares)]) or 1
  y = Scale(0, 1.08 * top, HEIGHT - _BOTTOM, _TOP)
  body, points = [axes(x, y, x_label, 'share, %')], []
  for k, (name, values) in enumerate(shares):
    steps = [f'M{x(edges[0]):.1f} {y(0):.1f}']
    for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
      steps.append(f'V{y(value):.1f}H{x(right):.1f}' if left != right else '')
    path = ''.join(steps) + f'V{y(0):.1f}'
    body.append(f'<path class="steps f{k % SERIES}" d="{path}Z"/>')
    body.append(f'<path class="line s{k % SERIES}" d="{path}"/>')
    points.append([
      [
        round(x((left + right) / 2), 1), round(y(value), 1),
        f'{name}: {value:.1f}% between {number(left)} and {number(right)}',
      ]
      for left, right, value in zip(edges[:-1], edges[1:], values, strict=True)
    ])  # fmt: skip
  key = legend([name for name, _ in groups])
  return figure(title, ''.join(body), points, note, key=key)


def mark(shape, x, y, style):
  """A point of a map."""
  if shape == 'square':
    return (
      f'<path class="{style}" d="M{x - 2.6:.1f} {y - 2.6:.1f}h5.2v5.2h-5.2z"/>'
    )
  if shape == 'triangle':
    return f'<path class="{style}" d="M{x:.1f} {y - 3.4:.1f}l3.2 5.8h-6.4z"/>'
  return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="2.8"/>'


def class_style(k, classes):
  """-> (colour's class, shape) of class k; gray where there are too many."""
  if k < 0 or classes > CLASS_COLOURS * len(SHAPES):
    return 'k-other', 'circle'
  shape = SHAPES[k // CLASS_COLOURS % len(SHAPES)]
  return f'k{k % CLASS_COLOURS}', shape


def scatter(title, x, y, labels, classes, texts, tiles, note=''):
  """A map of images: a mark for each, which shows its tile.

  labels: the class of each, -1 without. texts: what each says. tiles: (sheet,
  column, row) of each.
  """
  size = (400, 380)
  across = Scale(*extent(x, 0.03), 8, size[0] - 8)
  down = Scale(*extent(y, 0.03), size[1] - 8, 8)
  body, points = [], []
  for a, b, label, text, tile in zip(x, y, labels, texts, tiles, strict=True):
    at = across(a), down(b)
    colour, shape = class_style(label, classes)
    body.append(mark(shape, *at, f'm {colour} c{label}'))
    points.append([round(at[0], 1), round(at[1], 1), text, *tile])
  return figure(title, ''.join(body), [points], note, size, 'map')


def intervals(title, rows, x_label, lines=(), note=''):
  """Values with their intervals, a row each; vertical lines to compare with.

  rows: (name, value, low, high), low and high may be None. lines: (name, at).
  """
  left, row_height = 214, 24
  height = _TOP + row_height * len(rows) + _BOTTOM
  width = 400
  values = [v for row in rows for v in row[1:] if v is not None]
  values += [at for _, at in lines]
  low, high = extent(values, 0.08)
  x = Scale(max(low, 0) if min(values, default=0) >= 0 else low, high, left,
            width - 24)  # fmt: skip
  bottom = height - _BOTTOM
  body, points = [], []
  for value in x.ticks(5):
    body.append(
      f'<path class="grid" d="M{x(value):.1f} {_TOP}V{bottom}"/>'
      f'<text class="tick" x="{x(value):.1f}" y="{bottom + 16}" '
      f'text-anchor="middle">{_short(value)}</text>'
    )
  for name, at in lines:
    body.append(
      f'<path class="reference" d="M{x(at):.1f} {_TOP}V{bottom}"/>'
      f'<title>{escape(name)}</title>'
    )
  for i, (name, value, low, high) in enumerate(rows):
    y = _TOP + row_height * (i + 0.5)
    body.append(
      f'<text class="row" x="{left - 10}" y="{y + 4:.1f}" '
      f'text-anchor="end">{escape(name)}</text>'
    )
    text = f'{name}: {number(value)}'
    if low is not None and high is not None:
      body.append(
        f'<path class="whisker" d="M{x(low):.1f} {y:.1f}H{x(high):.1f}"/>'
      )
      text += f', 95% interval {number(low)} to {number(high)}'
    body.append(
      f'<circle class="dot d0" cx="{x(value):.1f}" cy="{y}" r="4.5"/>'
    )
    points.append([round(x(value), 1), y, text])
  body.append(
    f'<text class="label" x="{(left + width) / 2:.0f}" y="{height - 4}" '
    f'text-anchor="middle">{escape(x_label)}</text>'
  )
  size = (width, height)
  return figure(title, ''.join(body), [points], note, size, 'wide')
