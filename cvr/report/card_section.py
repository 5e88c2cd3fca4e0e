"""The section of a page that shows evaluation cards: plain data -> HTML."""

from cvr.evaluation.card import names
from cvr.evaluation.card.schema import SHARES
from cvr.report import charts
from cvr.report.charts import escape, number
from cvr.report.sections import scrolled, table

_LONG = 40  # Rows that the chart shows.


def _card_cell(row):
  if row is None:
    return '-'
  share = row['metric'] in SHARES
  shown = (lambda v: f'{100 * v:.1f}') if share else number
  text = shown(row['value']) + ('%' if share else '')
  if row['low'] is not None and row['high'] is not None:
    text += f'<small>{shown(row["low"])} to {shown(row["high"])}</small>'
  return text


def _card_rows(runs):
  """-> {what names a row of a card: the row of each run, or None}."""
  found = {}
  for i, run in enumerate(runs):
    for row in (run['card'] or {'numbers': []})['numbers']:
      key = tuple(
        row[k] for k in ('suite', 'name', 'dataset', 'split', 'metric')
      )
      found.setdefault(key, [None] * len(runs))[i] = row
  return found


def card(runs, labels):
  """The numbers of eval/card.json, headlines as a chart; '' without cards."""
  rows = _card_rows(runs)
  if not rows:
    return ''
  parts = []
  if len(runs) == 1:
    heads = [
      row
      for (row,) in rows.values()
      if names.is_headline(row) and row['metric'] in SHARES
    ]
    classes = runs[0]['classes']
    lines = [('chance', 100 / classes)] if classes else []
    lines += [
      ('untrained encoder', 100 * row['value'])
      for (row,) in rows.values()
      if names.is_untrained(row)
    ]
    told = ' and '.join(f'{name} ({at:.1f}%)' for name, at in lines)
    if heads:
      parts.append(
        charts.intervals(
          'Accuracy of what reads the representation',
          _scaled(heads[:_LONG]),
          'accuracy, %',
          lines,
          'With 95% intervals over test images.'
          + (f' Dashed, from left to right: {told}.' if lines else ''),
        )  # fmt: skip
      )
  by_suite = {}
  for key, values in rows.items():
    by_suite.setdefault(key[0], []).append((key, values))
  for suite, lines in by_suite.items():
    cells = [
      [
        escape(names.of_row(next(filter(None, values)))),
        escape(f'{key[2]}, {key[3]}'),
        escape(key[4].replace('_', ' ')),
        *map(_card_cell, values),
      ]
      for key, values in lines
    ]
    head = ['', 'data', 'measure', *(map(escape, labels))]
    head[3:] = head[3:] if len(runs) > 1 else ['value']
    content = scrolled(table(head, cells, 'numbers'), names.suite(suite))
    parts.append(
      f'<details><summary>{escape(names.suite(suite).capitalize())} '
      f'({len(lines)})</summary>{content}</details>'
    )
  return ''.join(parts)


def _scaled(rows):
  return [
    (
      names.of_row(row),
      *(None if row[k] is None else 100 * row[k]
        for k in ('value', 'low', 'high')),
    )
    for row in rows
  ]  # fmt: skip
