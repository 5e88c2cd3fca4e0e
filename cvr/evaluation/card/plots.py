"""Pictures of a card's numbers: accuracies with intervals, and curves."""

import collections
import importlib
import io

import numpy as np

# Distinct for readers with and without colour vision (Okabe and Ito).
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_BAR = '#9CC7E3'
_COLUMNS = 5


def draw(rows, shares):
  """A card's rows -> {file's name: its PNG}; none where matplotlib is missing.

  shares: the metrics that are shares of images.
  """
  figure = _figure()
  if not figure:
    return {}
  suites = collections.defaultdict(list)
  for row in rows:
    if row.get('curve'):
      suites[row['suite']].append(row)
  bars = [row for row in rows if row['metric'] in shares]
  drawn = {'card_accuracy.png': _accuracies(figure, bars)} if bars else {}
  for suite, curves in suites.items():
    drawn[f'card_{suite}.png'] = _curves(figure, suite, curves)
  return {name: _png(picture) for name, picture in drawn.items()}


def available():
  """Whether matplotlib, which draws, is installed."""
  return _figure() is not None


def _figure():
  """matplotlib's Figure, which needs no display; None where it is missing."""
  try:
    return importlib.import_module('matplotlib.figure').Figure
  except ImportError:
    return None


def _png(figure):
  file = io.BytesIO()
  figure.savefig(file, dpi=120, format='png')
  return file.getvalue()


# Accuracies ------------------------------------------------------------------


def labels(rows):
  """-> the rows' names, with what distinguishes equal ones in brackets."""
  added = [[] for _ in rows]
  for part in ('dataset', 'split', 'metric'):
    now = [(row['name'], *more) for row, more in zip(rows, added, strict=True)]
    for row, more, label in zip(rows, added, now, strict=True):
      if now.count(label) > 1:
        more.append(row[part])
  return [
    f'{row["name"]} ({", ".join(more)})' if more else row['name']
    for row, more in zip(rows, added, strict=True)
  ]


def _accuracies(figure, rows):
  """A panel of bars for each suite, all on one scale."""
  suites = collections.defaultdict(list)
  for row in rows:
    suites[row['suite']].append(row)
  heights = [len(numbers) + 1.5 for numbers in suites.values()]
  made = figure(figsize=(9, 0.24 * sum(heights) + 0.6), layout='constrained')
  panels = made.subplots(
    len(suites), squeeze=False, sharex=True,
    gridspec_kw={'height_ratios': heights},
  )[:, 0]  # fmt: skip
  for axes, (suite, numbers) in zip(panels, suites.items(), strict=True):
    _bars(axes, numbers)
    axes.set_title(suite, loc='left', fontsize=10, fontweight='bold')
  panels[-1].set_xlabel('accuracy in percent, and its 95% interval')
  panels[-1].set_xlim(0, 100)
  return made


def _bars(axes, rows):
  places = range(len(rows))
  values = [100 * row['value'] for row in rows]
  axes.barh(places, values, color=_BAR, height=0.7)
  for place, row, value in zip(places, rows, values, strict=True):
    start = end = value
    if None not in (row['low'], row['high']):
      start, end = 100 * row['low'], 100 * row['high']
      axes.plot([start, end], [place] * 2, color=_COLOURS[0], linewidth=2)
    # Where there is no room on its right, inside the bar.
    inside = end > 92
    axes.annotate(
      f'{value:.1f}', (start if inside else end, place),
      xytext=(-4 if inside else 4, 0), textcoords='offset points',
      ha='right' if inside else 'left', va='center', fontsize=7,
    )  # fmt: skip
  axes.set_yticks(places, labels(rows), fontsize=7)
  axes.set_ylim(len(rows) - 0.4, -0.6)
  axes.grid(axis='x', color='0.9')
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


# Curves ----------------------------------------------------------------------


def _curves(figure, suite, rows):
  """A panel for each 'panel' of the curves, or name; a line for each."""
  panels = collections.defaultdict(list)
  datasets = {f'{row["dataset"]}, {row["split"]}' for row in rows}
  lines = {}
  for row in rows:
    curve = row['curve']
    name = curve.get('panel', row['name'])
    line = _line(row, len(datasets) > 1)
    lines.setdefault(line, _COLOURS[len(lines) % len(_COLOURS)])
    panels[name, curve['x_label'], curve['y_label']].append((line, curve))
  across = min(_COLUMNS, len(panels))
  down = -(-len(panels) // across)
  made = figure(
    figsize=(2.6 * max(across, 2), 2.3 * down + 0.6), layout='constrained'
  )
  grid = made.subplots(down, across, squeeze=False).ravel()
  for axes, (about, curves) in zip(grid, panels.items(), strict=False):
    _panel(axes, about, curves, lines)
  _one_scale(grid, panels)
  for axes in grid[len(panels) :]:
    axes.remove()
  made.suptitle(': '.join([suite, *datasets]) if len(datasets) == 1 else suite)
  named = {line: colour for line, colour in lines.items() if line}
  if named:
    handles = [grid[0].plot([], color=colour)[0] for colour in named.values()]
    made.legend(handles, named, loc='outside lower center', ncols=3)
  return made


def _line(row, several):
  """What distinguishes a curve in its panel; '' where nothing has to."""
  parts = [row['curve'].get('line', '')]
  parts += [f'{row["dataset"]}, {row["split"]}'] if several else []
  return ', '.join(filter(None, parts))


def _panel(axes, about, curves, colours):
  name, x_label, y_label = about
  for line, curve in curves:
    x, y, colour = curve['x'], curve['y'], colours[line]
    if len(x) == len(y) + 1:
      axes.stairs(y, x, fill=True, color=colour, alpha=0.6)
    else:
      axes.plot(x, y, color=colour, marker='.')
      # Bits and dimensions come in powers of two.
      if min(x) > 0 and max(x) >= 32 * min(x):
        axes.set_xscale('log', base=2)
  axes.set_title(name.replace('_', ' '), fontsize=9)
  axes.set_xlabel(x_label, fontsize=8)
  axes.set_ylabel(y_label, fontsize=8)
  axes.tick_params(labelsize=7)
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def _one_scale(grid, panels):
  """The same y limits for all panels of the same two quantities."""
  alike = collections.defaultdict(list)
  for axes, (about, curves) in zip(grid, panels.items(), strict=False):
    alike[about[1:]].append(
      (axes, [y for _, curve in curves for y in curve['y']])
    )
  for group in alike.values():
    low = min(min(values) for _, values in group)
    high = max(max(values) for _, values in group)
    # A single value has no range of its own.
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1
    bottom = low - margin if low < 0 else max(low - margin, 0)
    for axes, _ in group:
      axes.set_ylim(bottom, high + margin)


# Several cards ----------------------------------------------------------------


def _end(point, which):
  """An end of the interval of an accuracy, which is itself without one."""
  end = point['accuracy'][which]
  return point['accuracy']['value'] if end is None else end


def rate_accuracy(points):
  """Cards as points of rate and accuracy -> {file's name: its PNG}.

  points: of comparison.points. None where matplotlib or numbers are missing.
  """
  there = [p for p in points if p['rate'] and p['accuracy']]
  figure = _figure()
  if not figure or not there:
    return {}
  made = figure(figsize=(6, 4.5), layout='constrained')
  axes = made.subplots()
  for method in sorted({p['pretrain_loss'] for p in there}):
    rows = [p for p in there if p['pretrain_loss'] == method]
    x = [p['rate']['value'] for p in rows]
    y = [100 * p['accuracy']['value'] for p in rows]
    ends = np.array([[_end(p, 'low'), _end(p, 'high')] for p in rows]).T
    reach = np.abs(100 * ends - y)
    axes.errorbar(x, y, reach, marker='o', linestyle='none', label=method)
    for left, top, p in zip(x, y, rows, strict=True):
      axes.annotate(
        f'{p["ceb_beta"]:g}, {p["kappa_e"]:g}', (left, top), xytext=(4, 4),
        textcoords='offset points', fontsize=7,
      )  # fmt: skip
  axes.margins(x=0.12)  # Room for the words.
  axes.set_xlabel('I(X;Z|Y) of the projections above its floor, nats')
  axes.set_ylabel('accuracy of L-BFGS in percent, 95% over images')
  axes.set_title('beta, kappa_e', fontsize=9)
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  axes.legend(frameon=False)
  return {'rate_accuracy.png': _png(made)}
