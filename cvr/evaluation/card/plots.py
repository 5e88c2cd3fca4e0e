"""Pictures of a card's numbers: accuracies with intervals, and curves."""

import collections
import importlib
import io

import numpy as np

from cvr.configs.methods import KINDS
from cvr.evaluation.card import names

# Distinct for readers with and without colour vision (Okabe and Ito).
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_BAR = '#9CC7E3'
_COLUMNS = 5


def draw(card, shares, classes=None):
  """A card -> {file's name: its PNG}; none where matplotlib is missing.

  shares: the metrics that are shares of images. classes: {'dataset/split': how
  many there are}, where that is known.
  """
  figure = _figure()
  if not figure:
    return {}
  rows, suites = card['numbers'], collections.defaultdict(list)
  for row in rows:
    if row.get('curve') and not _is_told_twice(row, rows):
      suites[row['suite']].append(row)
  bars = [row for row in rows if row['metric'] in shares]
  title, drawn = _title(card, bars or rows), {}
  if bars:
    made = _accuracies(figure, bars, title, classes or {})
    drawn['card_accuracy.png'] = made
  for suite, curves in suites.items():
    drawn[f'card_{suite}.png'] = _curves(
      figure, suite, curves, _clean(rows), title
    )
  return {name: _png(picture) for name, picture in drawn.items()}


def _title(card, rows):
  """Which checkpoint it is, and on which data."""
  about = card['checkpoint']
  step = (
    f', step {about["step"]:,}' if isinstance(about.get('step'), int) else ''
  )
  datasets = list(dict.fromkeys(
    f'{row["dataset"]}, {row["split"]}' for row in rows))  # fmt: skip
  more = f' and {len(datasets) - 1} more' if len(datasets) > 1 else ''
  kind = KINDS.get(about.get('method'))
  method = kind.title if kind else about.get('method', 'a checkpoint')
  return (
    f'{method}{step}\n{datasets[0]}{more}' if datasets else f'{method}{step}'
  )


def _is_told_twice(row, rows):
  """The rate of C-SimCLR, as a ratio, is that of its projections."""
  names_there = {r['name'] for r in rows}
  return (
    row['name'] in ('lipschitz_max/rate', 'lipschitz_max/mu_e')
    and 'lipschitz_max/projection' in names_there
    and 'lipschitz_max/rate' in names_there
  )


def _clean(rows):
  """{(classifier, dataset, split): its accuracy on images as they are}."""
  return {
    (row['name'], row['dataset'], row['split']): row['value']
    for row in rows
    if row['suite'] == 'linear'
  }


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


def labels(rows, of=lambda row: row['name']):
  """-> the rows' names, with what distinguishes equal ones in brackets.

  of: a row -> its name.
  """
  own = [of(row) for row in rows]
  added = [[] for _ in rows]
  for part in ('dataset', 'split', 'metric'):
    now = [(name, *more) for name, more in zip(own, added, strict=True)]
    for row, more, label in zip(rows, added, now, strict=True):
      if now.count(label) > 1:
        more.append(row[part])
  return [
    f'{name} ({", ".join(more)})' if more else name
    for name, more in zip(own, added, strict=True)
  ]


def _panels(rows):
  """{title: rows}: what says most first, then each suite in detail."""
  heads = [row for row in rows if names.is_headline(row)]
  panels = {'in short': heads} if heads else {}
  for row in rows:
    if row not in heads:
      panels.setdefault(names.suite(row['suite']), []).append(row)
  return panels


def _references(rows, classes):
  """[(name, percent, style)]: what an accuracy has to be compared with."""
  found = []
  heads = [row for row in rows if names.is_headline(row)]
  counts = {
    classes.get(f'{row["dataset"]}/{row["split"]}') for row in heads or rows
  }
  if len(counts) == 1 and None not in counts:
    found.append(('chance', 100 / counts.pop(), ':'))
  for row in rows:
    if names.is_untrained(row):
      name = 'untrained encoder, nearest neighbours'
      found.append((name, 100 * row['value'], '--'))
  return found


def _accuracies(figure, rows, title, classes):
  """Bars, the headlines in the first panel, all on one scale."""
  panels = _panels(rows)
  heights = [len(numbers) + 1.8 for numbers in panels.values()]
  made = figure(figsize=(9, 0.24 * sum(heights) + 1.3), layout='constrained')
  grid = made.subplots(
    len(panels), squeeze=False, sharex=True,
    gridspec_kw={'height_ratios': heights},
  )[:, 0]  # fmt: skip
  references = _references(rows, classes)
  for axes, (name, numbers) in zip(grid, panels.items(), strict=True):
    _bars(axes, numbers)
    axes.set_title(name, loc='left', fontsize=10, fontweight='bold')
    for what, at, style in references:
      axes.axvline(at, color='0.35', linestyle=style, linewidth=1, label=what)
  if references:
    grid[0].legend(
      loc='lower right', bbox_to_anchor=(1, 1), ncols=2, frameon=False,
      fontsize=8,
    )  # fmt: skip
  grid[-1].set_xlabel('accuracy in percent, and its 95% interval')
  grid[-1].set_xlim(0, 100)
  made.suptitle(title, fontsize=11)
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
  axes.set_yticks(places, labels(rows, names.of_row), fontsize=7)
  axes.set_ylim(len(rows) - 0.4, -0.6)
  axes.grid(axis='x', color='0.9')
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


# Curves ----------------------------------------------------------------------


def _curves(figure, suite, rows, clean, title):
  """A panel for each 'panel' of the curves, or name; a line for each.

  clean: what a corrupted image is compared with, of _clean.
  """
  panels = collections.defaultdict(list)
  datasets = {f'{row["dataset"]}, {row["split"]}' for row in rows}
  lines = {}
  for row in rows:
    curve = _in_percent(_with_clean(row, clean))
    name = curve.get('panel', row['name'])
    line = _line(row, len(datasets) > 1)
    lines.setdefault(line, _COLOURS[len(lines) % len(_COLOURS)])
    panels[name, curve['x_label'], curve['y_label']].append((line, curve))
  across = min(_COLUMNS, len(panels))
  down = -(-len(panels) // across)
  made = figure(
    figsize=(2.6 * max(across, 2), 2.3 * down + 1.1), layout='constrained'
  )
  grid = made.subplots(down, across, squeeze=False).ravel()
  for axes, (about, curves) in zip(grid, panels.items(), strict=False):
    _panel(axes, about, curves, lines)
  _one_scale(grid, panels)
  _labels_at_the_edge(grid, [*panels], across)
  for axes in grid[len(panels) :]:
    axes.remove()
  made.suptitle(f'{names.suite(suite).capitalize()}: {title}', fontsize=11)
  named = {line: colour for line, colour in lines.items() if line}
  if named:
    handles = [grid[0].plot([], color=colour)[0] for colour in named.values()]
    made.legend(
      handles, named, loc='outside lower center', ncols=4, frameon=False
    )
  return made


def _with_clean(row, clean):
  """The curve of a row; of a corruption with the clean images before it."""
  curve = row['curve']
  key = (curve.get('line', ''), row['dataset'], row['split'])
  if curve['x_label'] != 'severity' or key not in clean or 0 in curve['x']:
    return curve
  return curve | {'x': [0, *curve['x']], 'y': [clean[key], *curve['y']]}


def _in_percent(curve):
  """Shares of images as readers see them elsewhere."""
  if curve['y_label'] not in ('top-1', 'accuracy'):
    return curve
  label = f'{curve["y_label"]}, %'
  return curve | {'y': [100 * y for y in curve['y']], 'y_label': label}


def _labels_at_the_edge(grid, panels, across):
  """Small multiples of the same two quantities say once what these are."""
  if len({about[1:] for about in panels}) > 1:
    return
  for i, axes in enumerate(grid[: len(panels)]):
    if i % across:
      axes.set_ylabel('')
      axes.tick_params(labelleft=False)
    if i + across < len(panels):
      axes.set_xlabel('')


def _line(row, several):
  """What distinguishes a curve in its panel; '' where nothing has to."""
  parts = [names.head(row['curve'].get('line', ''))]
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
  axes.set_title(names.of_panel(name), fontsize=9)
  if x_label == 'severity':
    ticks = sorted({x for _, curve in curves for x in curve['x']})
    axes.set_xticks(ticks, ['clean' if x == 0 else f'{x:g}' for x in ticks])
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


def _about(point):
  """What stands beside a checkpoint: its name and, with CEB, its knobs."""
  kind = KINDS.get(point['pretrain_loss'])
  if not kind or 'ceb_beta' not in kind.uses:
    return point['name']
  return (
    f'{point["name"]}\nbeta {point["ceb_beta"]:g}, kappa_e {point["kappa_e"]:g}'
  )


def rate_accuracy(points):
  """Cards as points of rate and accuracy -> {file's name: its PNG}.

  points: of comparison.points. None where matplotlib or numbers are missing.
  """
  there = [p for p in points if p['rate'] and p['accuracy']]
  figure = _figure()
  if not figure or not there:
    return {}
  made = figure(figsize=(7.5, 5), layout='constrained')
  axes = made.subplots()
  for method in sorted({p['pretrain_loss'] for p in there}):
    rows = [p for p in there if p['pretrain_loss'] == method]
    x = [p['rate']['value'] for p in rows]
    y = [100 * p['accuracy']['value'] for p in rows]
    ends = np.array([[_end(p, 'low'), _end(p, 'high')] for p in rows]).T
    reach = np.abs(100 * ends - y)
    title = KINDS[method].title if method in KINDS else method
    axes.errorbar(x, y, reach, marker='o', linestyle='none', label=title)
    for left, top, p in zip(x, y, rows, strict=True):
      axes.annotate(
        _about(p), (left, top), xytext=(5, 4), textcoords='offset points',
        fontsize=7, linespacing=1.3,
        # Readable where the bar of another crosses it.
        bbox={'fc': 'white', 'ec': 'none', 'pad': 0.5, 'alpha': 0.8},
      )  # fmt: skip
  axes.margins(x=0.12)  # Room for the words.
  axes.set_xlabel('what only one view knows: I(X;Z|Y) above its floor, nats')
  axes.set_ylabel('linear accuracy (logistic regression), %')
  axes.set_title(
    'Does compression cost accuracy? Bars: 95% over test images', fontsize=9
  )
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  made.legend(frameon=False, loc='outside lower center', ncols=4)
  return {'rate_accuracy.png': _png(made)}
