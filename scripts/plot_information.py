"""Draws what runs keep: entropy against reconstruction, a line per run.

  python scripts/plot_information.py RUN [RUN ...] [--output=information.png]

RUN: a model_dir. Every point is a summary in its metrics.jsonl, on the same
held-out pairs of views. Needs matplotlib: pip install -e '.[plot]'. Entropies
depend on the dimension: compare runs of one --proj_out_dim.
"""

import argparse
import json
import os
import sys

import numpy as np

_NAMES = ('information/reconstruction', 'information/entropy')
# Apart for readers with and without colour vision (Okabe and Ito).
_COLOURS = (
  *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9'),
  *('#000000', '#8C564B'),
)
_STYLES = ('-', '--', ':')


def read(folder):
  """A run's folder -> (steps [n], points [n, 2]: reconstruction, entropy)."""
  path = os.path.join(folder, 'metrics.jsonl')
  try:
    with open(path) as file:
      rows = [json.loads(line) for line in file]
  except OSError as error:
    sys.exit(f'{path}: {error.strerror}. Name the --model_dir of a run.')
  # Of a step that was repeated after a crash the later row counts.
  points = {
    row['step']: [row[name] for name in _NAMES]
    for row in rows
    if all(name in row for name in _NAMES)
  }
  if not points:
    sys.exit(
      f'{path} has no {_NAMES[1]}: the run had --health_pairs=0, or no summary'
    )
  steps = sorted(points)
  return np.array(steps), np.array([points[step] for step in steps])


def labels(folders):
  """Names for runs: their folders, without what all have in front."""
  folders = [os.path.abspath(folder) for folder in folders]
  shared = os.path.commonpath([os.path.dirname(folder) for folder in folders])
  return [os.path.relpath(folder, shared) for folder in folders]


def _bounds(axes):
  """Grey lines along which the bound, entropy less reconstruction, is one."""
  (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
  for bound in range(int(np.ceil(low - right)), int(high - left) + 1):
    ends = np.array([max(left, low - bound), min(right, high - bound)])
    axes.plot(ends, ends + bound, color='0.85', linewidth=0.8, zorder=0)
    axes.annotate(
      f'{bound}', (ends[1], ends[1] + bound), color='0.5', fontsize=8,
      xytext=(2, 2), textcoords='offset points', annotation_clip=False,
    )  # fmt: skip
  axes.set(xlim=(left, right), ylim=(low, high))


def draw(runs, output):
  """runs: {label: (steps, points)} -> a PNG."""
  try:
    import matplotlib
  except ImportError:
    sys.exit("The plot needs matplotlib: pip install -e '.[plot]'")
  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=(9, 5.5), layout='constrained')
  for k, (label, (steps, points)) in enumerate(runs.items()):
    colour = _COLOURS[k % len(_COLOURS)]
    style = _STYLES[k // len(_COLOURS) % len(_STYLES)]
    axes.plot(
      *points.T, color=colour, linestyle=style, linewidth=1.5,
      marker='.', markersize=5,
      label=f'{label} ({steps[0]} to {steps[-1]})',
    )  # fmt: skip
    axes.plot(*points[-1], color=colour, marker='o', markersize=9)
  axes.set(
    xlabel='reconstruction, nats (right: views further apart)',
    ylabel='entropy, nats (up: more spread out)',
  )
  axes.set_title(
    'Entropy against reconstruction; grey: their difference, a bound\n'
    'on the information between views. A dot ends each run (steps).',
    pad=18,  # The numbers of the grey lines stand in between.
  )
  _bounds(axes)
  # Beside the axes, where no line can lie.
  figure.legend(frameon=False, loc='outside right upper')
  figure.savefig(output, dpi=150)


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('runs', nargs='+', metavar='RUN')
  parser.add_argument('--output', default='information.png')
  given = parser.parse_args(argv)
  draw(
    dict(zip(labels(given.runs), map(read, given.runs), strict=True)),
    given.output,
  )
  print(f'{len(given.runs)} runs in {given.output}')


if __name__ == '__main__':
  main()
