"""Charts of classes: a confusion matrix, and counts."""

from cvr.report.charts import escape, figure, number

_SIDE, _LEFT = 400, 128


def _row(i, row, names, cell, points):
  total = sum(row) or 1
  for j, count in enumerate(row):
    x, y = _LEFT + j * cell, i * cell
    share = count / total
    if count:
      kind = 'right' if i == j else 'wrong'
      yield (
        f'<rect class="cell {kind}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{cell - 1:.1f}" height="{cell - 1:.1f}" '
        f'opacity="{0.12 + 0.88 * share:.2f}"/>'
      )
      if cell >= 24:
        ink = ' on' if share > 0.45 else ''
        yield (
          f'<text class="count{ink}" x="{x + cell / 2:.1f}" '
          f'y="{y + cell / 2 + 4:.1f}" text-anchor="middle">{count}</text>'
        )
    points.append(
      [
        round(x + cell / 2, 1),
        round(y + cell / 2, 1),
        f'{names[i]}, taken for {names[j]}: {count} of {total} '
        f'({number(100 * share)}%)'
        if i != j
        else f'{names[i]}, found: {count} of {total} ({number(100 * share)}%)',
      ]
    )


def _short(name, most=17):
  return (
    name if len(name) <= most else f'{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}'
  )


def matrix(title, counts, names, note=''):
  """Counts [k, k] of k classes: rows are labels, columns are predictions."""
  cell = (_SIDE - _LEFT) / max(len(names), 6)
  side = cell * len(names)
  body, points = [], []
  for i, (row, name) in enumerate(zip(counts, names, strict=True)):
    body += _row(i, row, names, cell, points)
    middle = cell * (i + 0.5)
    body.append(
      f'<text class="tick" x="{_LEFT - 6}" y="{middle + 4:.1f}" '
      f'text-anchor="end">{escape(_short(name))}</text>'
      f'<text class="tick" text-anchor="end" transform="translate('
      f'{_LEFT + middle + 4:.1f} {side + 8:.1f}) rotate(-60)">'
      f'{escape(_short(name))}</text>'
    )
  body.append(
    f'<path class="axis" d="M{_LEFT} 0V{side:.1f}H{_LEFT + side:.1f}"/>'
  )
  longest = max(len(_short(name)) for name in names)
  size = (_SIDE + 8, round(side + 24 + 5.6 * longest))
  return figure(title, ''.join(body), [points], note, size, 'map')


def bars(title, rows, note=''):
  """Counts by name: (name, count)."""
  left, high, width = 150, 20, 460
  most = max((count for _, count in rows), default=0) or 1
  body, points = [], []
  for i, (name, count) in enumerate(rows):
    y, long = 8 + high * i, (width - left - 70) * count / most
    body.append(
      f'<text class="row" x="{left - 8}" y="{y + 13}" text-anchor="end">'
      f'{escape(_short(name, 22))}</text><rect class="cell right" x="{left}" '
      f'y="{y + 2}" width="{long:.1f}" height="{high - 5}"/>'
      f'<text class="row" x="{left + long + 6:.1f}" y="{y + 13}">{count:,}'
      '</text>'
    )
    points.append([round(left + long, 1), y + 9, f'{name}: {count:,} images'])
  size = (width, 16 + high * len(rows))
  return figure(title, ''.join(body), [points], note, size, 'wide')
