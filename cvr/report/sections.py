"""The sections of a page that are of numbers: plain data of runs -> HTML."""

import math

from cvr.report import charts, maps, names
from cvr.report.charts import Series, escape, number

_RESIDUAL = 'information/residual'
_SHARED = 'information/infonce_bound'
_PLANE = ('information/reconstruction', 'information/entropy')


def percent(value):
  return f'{100 * value:.1f}%'


def _values(run, tag):
  """-> (steps, values) of a metric; of the residual information what is above
  its value for views that agree, where that is known.
  """
  steps, values = run['metrics'].get(tag, ((), ()))
  pairs = (run['images'] or {}).get('pairs') or {}
  floor = pairs.get('residual_floor') if tag == _RESIDUAL else None
  return steps, [v - floor for v in values] if floor else values


def _last(run, tag):
  """The last value of a metric that is a number; None without one."""
  values = _values(run, tag)[1]
  return next((v for v in reversed(values) if math.isfinite(v)), None)


def table(head, rows, kind=''):
  """Cells are HTML already; the first of a row is its head."""
  # An empty corner is the head of nothing.
  cells = ''.join(
    f'<th scope="col">{cell}</th>' if cell else '<td></td>' for cell in head
  )
  lines = [f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>']
  for first, *rest in rows:
    cells = ''.join(f'<td>{cell}</td>' for cell in rest)
    lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
  return ''.join([*lines, '</tbody></table>'])


def notes(lines):
  """What people should know first, in a box; '' without any."""
  items = ''.join(f'<li>{escape(line)}</li>' for line in lines)
  box = f'<div class="notes" role="note"><ul>{items}</ul></div>'
  return box if lines else ''


def scrolled(content, label):
  """What may be wider than the window, in a box that scrolls."""
  return (
    f'<div class="scroll" tabindex="0" role="region" '
    f'aria-label="{escape(label)}">{content}</div>'
  )


# At a glance -----------------------------------------------------------------


def _with_interval(found, less=''):
  """{'value', 'low', 'high'} of shares -> (value, what stands below it)."""
  low, high = found.get('low'), found.get('high')
  parts = []
  if low is not None and high is not None:
    parts.append(f'95% interval {100 * low:.1f} to {100 * high:.1f}')
  return percent(found['value']), ', '.join(filter(None, [*parts, less]))


def _accuracy(run):
  result, images = run['result'], run['images'] or {}
  value = result.get('eval/label_top_1_accuracy')
  less = f'chance {100 / run["classes"]:.1f}%' if run['classes'] else ''
  if isinstance(value, int | float):
    ends = {
      end: result.get(f'eval/label_top_1_{end}') for end in ('low', 'high')
    }
    return _with_interval({'value': value, **ends}, less)
  if images.get('verdict'):
    count = f'of {images["count"]:,} images'
    return _with_interval(images['verdict']['accuracy'], f'{less}, {count}')
  return None


def _same_class(run):
  images = run['images'] or {}
  if 'same_class' not in images:
    return None
  less = f'by chance {percent(images["chance"])}'
  return _with_interval(images['same_class'], less)


def _nats(tag, below):
  def of(run):
    value = _last(run, tag)
    return None if value is None else (f'{number(value)} nats', below)

  return of


def _rank(run):
  images = run['images'] or {}
  value = images.get('rank', _last(run, 'health/effective_rank'))
  if value is None:
    return None
  width = f'of {images["width"]:,}' if images else ''
  return f'{value:.1f}', f'{width} that the encoder has'.strip()


def _length(run):
  if run['step'] is None:
    return None
  examples, batch = run['examples'], run['settings'].get('train_batch_size')
  below = 'steps'
  if isinstance(examples, int) and examples and str(batch).isdigit():
    below = f'steps, {number(run["step"] * int(batch) / examples)} epochs'
  return f'{run["step"]:,}', below


GLANCE = (
  ('Probe on held-out images', _accuracy),
  ('Nearest neighbour is of the same class', _same_class),
  (
    'Two views share at least',
    _nats(_SHARED, 'I(Y;Z), a bound on held-out images'),
  ),
  (
    'Only one view knows',
    _nats(_RESIDUAL, 'I(X;Z|Y), of held-out images'),
  ),
  ('Directions in use', _rank),
  ('Trained for', _length),
)


def glance(runs, labels):
  """The numbers that say most, large; of several runs as a table."""
  found = [(title, [of(run) for run in runs]) for title, of in GLANCE]
  found = [(title, values) for title, values in found if any(values)]
  if len(runs) == 1:
    items = ''.join(
      f'<div><dt>{escape(title)}</dt><dd>{escape(value)}'
      f'<small>{escape(below)}</small></dd></div>'
      for title, ((value, below),) in found
    )
    return f'<dl class="glance">{items}</dl>'
  rows = [
    [
      escape(title),
      *(
        f'{escape(v[0])}<small>{escape(v[1])}</small>' if v else '-'
        for v in values
      ),
    ]
    for title, values in found
  ]
  head = ['', *map(escape, labels)]
  return scrolled(table(head, rows, 'numbers'), 'The runs in numbers')


# What is learned -------------------------------------------------------------


def _lines(runs, labels, tag, scale):
  return [
    Series(label, steps, [scale * v for v in values])
    for (steps, values), label in zip(
      [_values(run, tag) for run in runs], labels, strict=True
    )
  ]


def _curve(runs, labels, tag):
  metric = names.of_tag(tag)
  lines = _lines(runs, labels, tag, 100 if metric.percent else 1)
  broken = sum(not math.isfinite(v) for line in lines for v in line.y)
  note = escape(metric.says)
  if broken:
    note += f' <strong>{broken} values are not numbers.</strong>'
  return charts.line_chart(
    metric.title, lines, 'step', metric.unit, floor=metric.floor, note=note
  )


def curves(runs, labels):
  """The metrics over steps; '' where there are none."""
  main, more = names.ordered(tag for run in runs for tag in run['metrics'])
  if not main and not more:
    return (
      '<p>There is no metrics.jsonl: the run had '
      '<code>--train_summary_steps=0</code>, or no summary yet.</p>'
    )
  drawn = [_curve(runs, labels, tag) for tag in main]
  parts = [charts.legend(labels), f'<div class="grid">{"".join(drawn)}</div>']
  if more:
    drawn = ''.join(_curve(runs, labels, tag) for tag in more)
    parts.append(
      f'<details><summary>All other curves ({len(more)})</summary>'
      f'{charts.legend(labels)}<div class="grid">{drawn}</div></details>'
    )
  return ''.join(parts)


def information(runs, labels):
  """What two views share, and what only one of them knows: charts, or ''."""
  there = {tag for run in runs for tag in run['metrics']}
  drawn = [
    _curve(runs, labels, tag) for tag in (_SHARED, _RESIDUAL) if tag in there
  ]
  return f'<div class="grid">{"".join(drawn)}</div>' if drawn else ''


def _way(run):
  """-> (reconstruction, entropy, steps) of the summaries that have both."""
  found = [dict(zip(*run['metrics'].get(t, ((), ())), strict=True))
           for t in _PLANE]  # fmt: skip
  steps = [
    step
    for step in sorted({*found[0]} & {*found[1]})
    if all(math.isfinite(values[step]) for values in found)
  ]
  return *([values[step] for step in steps] for values in found), steps


def plane(runs, labels):
  """Entropy against reconstruction, a way for each run; '' without."""
  ways = [(label, *_way(run)) for run, label in zip(runs, labels, strict=True)]
  if not any(steps for *_, steps in ways):
    return ''
  note = (
    'A way from the first summary to the last, which has the large dot. Up: '
    'projections are spread out. Right: the two views of an image are further '
    'apart. '
    'Along a gray line the difference of both is one number: a bound on what '
    'two views share, in nats.'
  )
  return charts.plane(
    'Entropy against reconstruction', ways,
    'reconstruction, nats', 'entropy, nats', note,
  )  # fmt: skip


# What came out ---------------------------------------------------------------


def spectrum(runs, labels):
  """The eigenvalues of the representations' covariance, on one scale."""
  lines = []
  for run, label in zip(runs, labels, strict=True):
    shares = (run['images'] or {}).get('spectrum', [])
    # What is below is float32's rounding.
    shares = [100 * share for share in shares if share > 1e-8]
    lines.append(Series(label, [*range(1, len(shares) + 1)], shares))
  if not any(line.y for line in lines):
    return ''
  return charts.line_chart(
    'Spectrum of the representation', lines, 'direction', 'share of the '
    'variance, %', log=True,
    note='From the direction with the largest variance on. A line that falls '
    'at once: few directions are used.',
  )  # fmt: skip


def highest(runs):
  """The largest share in a bin of all runs' similarities, in percent."""
  found = [(run['images'] or {}).get('pairs') for run in runs]
  return max(
    (
      100 * max(counts) / (sum(counts) or 1)
      for pairs in filter(None, found)
      for _, counts in pairs['histogram'][0]
    ),
    default=0,
  )


def similarities(run, label, most=0):
  """Cosines of two views of an image, and of different images."""
  pairs = (run['images'] or {}).get('pairs')
  if not pairs:
    return ''
  groups, edges = pairs['histogram']
  same, other = pairs['means']
  note = (
    f'Of the projections of {pairs["count"]} held-out pairs: '
    f'{same:.2f} and {other:.2f} on average. The less they overlap, the better '
    'images are told apart.'
  )
  title = 'Similarity of views' + (f': {label}' if label else '')
  chart = charts.histograms(title, groups, edges, 'cosine', note, most)
  return chart


def confusion(run, label):
  """What the probe takes for what."""
  images = run['images'] or {}
  verdict = images.get('verdict')
  if not verdict:
    return ''
  shown = [images['class_names'][k] for k in verdict['classes']]
  title = 'What the probe takes for what' + (f': {label}' if label else '')
  note = 'Rows are the classes of the images, columns what the probe says.'
  if len(shown) < len(images['class_names']):
    note += f' The {len(shown)} classes with most errors are shown.'
  return maps.matrix(title, verdict['matrix'], shown, note)


# Settings --------------------------------------------------------------------


def settings(runs, labels):
  """What was set, and where it differs from the preset; all of it below."""
  changed = sorted({name for run in runs for name in run['changed']})
  parts = []
  bases = {run['preset'] for run in runs}
  (base,) = bases if len(bases) == 1 else ('',)
  base = f'the preset {base}' if base else 'the default'
  if changed:
    rows = []
    for name in changed:
      values = [run['settings'].get(name, '-') for run in runs]
      usual = next(r['changed'][name][1] for r in runs if name in r['changed'])
      rows.append(
        [
          f'<code>--{escape(name)}</code>',
          *(f'<code>{escape(v) or "-"}</code>' for v in values),
          f'<code>{escape(usual) or "-"}</code>',
        ]
      )
    head = ['setting', *(map(escape, labels) if len(runs) > 1 else ['value'])]
    head.append(escape(base))
    parts.append(scrolled(table(head, rows), 'Settings that were changed'))
  else:
    parts.append(f'<p>Nothing differs from {escape(base)}.</p>')
  everything = sorted({name for run in runs for name in run['settings']})
  rows = [
    [
      f'<code>--{escape(name)}</code>',
      *(
        f'<code>{escape(run["settings"].get(name, "-")) or "-"}</code>'
        for run in runs
      ),
    ]
    for name in everything
  ]
  head = ['setting', *(map(escape, labels) if len(runs) > 1 else ['value'])]
  content = scrolled(table(head, rows), 'All settings')
  parts.append(
    f'<details><summary>All settings ({len(rows)})</summary>{content}</details>'
  )
  return ''.join(parts)


def environment(runs, labels):
  """Versions, the commit, the command that was typed."""
  keys = list(dict.fromkeys(k for run in runs for k in run['environment']))
  if not keys:
    return '<p>There is no config.json that tells.</p>'
  rows = [
    [
      escape(key),
      *(
        f'<code>{escape(run["environment"].get(key, "-"))}</code>'
        for run in runs
      ),
    ]
    for key in keys
  ]
  head = ['', *(map(escape, labels) if len(runs) > 1 else ['value'])]
  return scrolled(table(head, rows), 'Environment')
