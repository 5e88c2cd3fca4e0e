"""The sections of a page that are of images: plain data of runs -> HTML."""

from cvr.report import charts
from cvr.report.charts import escape, number
from cvr.report.tiles import place

_LEGEND = 24  # Classes that have a button; more are chosen from a list.
_SIDE = 64  # Of a tile on the page: a query and its neighbours fit in a row.


def split(first, second):
  """Two parts beside each other, where there is room."""
  if not first or not second:
    return first or second
  return f'<div class="split"><div>{first}</div><div>{second}</div></div>'


def _bits(count):
  return f'{count} bit' if count == 1 else f'{count} bits'


def _class(images, i):
  """The class of image i; '' without one."""
  label = images['labels'][i]
  return images['class_names'][label] if label >= 0 else ''


def pairs(run, sheets):
  """Augmented pairs, as the network sees them, with their similarity."""
  found = (run['images'] or {}).get('pairs')
  if not found:
    return ''
  sheet = sheets.add(found['sheet'])
  size = 72 if found['sheet'].side <= 48 else 88
  cards = ''.join(
    f'<li>{sheets.tile(sheet, 2 * i, "view 1", size)}'
    f'{sheets.tile(sheet, 2 * i + 1, "view 2", size)}'
    f'<span>cosine {cosine:.2f}</span></li>'
    for i, cosine in enumerate(found['cosines'])
  )
  return f'<ul class="pairs">{cards}</ul>'


def _legend(images, which):
  names, counts = images['class_names'], {}
  for label in images['labels']:
    counts[label] = counts.get(label, 0) + 1
  if not names:
    return ''
  if len(names) > _LEGEND:
    options = ''.join(
      f'<option value="{k}">{escape(name)}</option>'
      for k, name in enumerate(names)
      if k in counts
    )
    return (
      f'<label class="choose">Show one class: <select data-map="{which}">'
      f'<option value="">all</option>{options}</select></label>'
    )
  items = []
  for k, name in enumerate(names):
    colour, shape = charts.class_style(k, len(names))
    mark = charts.mark(shape, 6, 6, colour)
    items.append(
      f'<li><button type="button" data-map="{which}" data-class="{k}" '
      f'aria-pressed="false"><svg viewBox="0 0 12 12" aria-hidden="true">'
      f'{mark}</svg>{escape(name)}</button></li>'
    )
  return f'<ul class="legend classes">{"".join(items)}</ul>'


def embedding_map(run, sheets, number_of_map):
  """Representations in two dimensions, an image behind every mark."""
  images = run['images']
  sheet = sheets.add(images['sheet'])
  texts = [
    f'{_class(images, i)} {name}'.strip()
    for i, name in enumerate(images['names'])
  ]
  tiles = [(sheet, *place(images['sheet'], i)) for i in range(images['count'])]
  drawn = []
  for name, points in images['maps'].items():
    note = ''
    if 'shares' in points:
      first, second = (100 * share for share in points['shares'])
      note = (
        f'The two directions hold {first:.0f}% and {second:.0f}% of the '
        'variance: what is apart here is apart, what is together may not be.'
      )
    drawn.append(
      charts.scatter(
        f'{images["count"]:,} images by {name}',
        points['x'],
        points['y'],
        images['labels'],
        len(images['class_names']),
        texts,
        tiles,
        note,
      )  # fmt: skip
    )
  which = f'map{number_of_map}'
  group = f'<div class="maps" id="{which}">{"".join(drawn)}</div>'
  if len(drawn) > 1:  # Beside each other, below what chooses a class of both.
    return _legend(images, which) + group
  return split(group, _legend(images, which))


def _neighbour(sheets, sheet, tile, images, i, query, says, size):
  own = _class(images, i)
  wrong = own != _class(images, query)
  kind = ' other' if wrong else ''
  label = f'{own} {images["names"][i]}, {says}'.strip()
  name = f'<b>{escape(own)}</b>' if wrong else ''
  return (
    f'<li class="near{kind}">{sheets.tile(sheet, tile, label, size)}'
    f'<span>{escape(says)}</span>{name}</li>'
  )


def neighbours(run, sheets, large):
  """Queries and their nearest images, a row each; by bits where there are."""
  images = run['images']
  order, sheet = large
  tile_of = {row: tile for tile, row in enumerate(order)}
  found, size, parts = images['neighbours'], _SIDE, []
  for by, (rows, values) in found['by'].items():
    shown = (lambda v: f'{v:.2f}') if by == 'cosine' else _bits
    lines = []
    for query, near, nearness in zip(
      found['queries'], rows, values, strict=True
    ):
      own = _class(images, query)
      head = (
        f'<div class="query">'
        f'{sheets.tile(sheet, tile_of[query], images["names"][query], size)}'
        f'<span>{escape(own or "query")}</span></div>'
      )
      others = ''.join(
        _neighbour(
          sheets, sheet, tile_of[i], images, i, query, shown(value), size
        )
        for i, value in zip(near, nearness, strict=True)
      )
      lines.append(f'<li>{head}<ol>{others}</ol></li>')
    title = 'by cosine of the representations'
    title = title if by == 'cosine' else 'by the bits that differ'
    parts.append(
      f'<h3>Nearest {title}</h3>'
      f'<ul class="neighbours" style="--w:{size}px">{"".join(lines)}</ul>'
    )
  return ''.join(parts)


def errors(run, sheets, large):
  """Wrong predictions of the probe that it is most sure of."""
  images = run['images']
  verdict = images['verdict']
  if not verdict or not verdict['errors']:
    return ''
  order, sheet = large
  tile_of = {row: tile for tile, row in enumerate(order)}
  size, cards = _SIDE, []
  for error in verdict['errors']:
    i = error['image']
    wrong = images['class_names'][error['predicted']]
    cards.append(
      f'<li>{sheets.tile(sheet, tile_of[i], images["names"][i], size)}'
      f'<span>{escape(_class(images, i))}</span>'
      f'<span>taken for <b>{escape(wrong)}</b>, '
      f'{100 * error["probability"]:.0f}% sure</span></li>'
    )
  return f'<ul class="errors">{"".join(cards)}</ul>'


def data(run):
  """What was wrong with the images that were read."""
  images, bad, parts = run['images'], run['bad_images'], []
  if images:
    text = (
      f'The pictures are of {images["count"]:,} of the {images["of"]:,} images '
      f'of {images["dataset"]}, {images["split"]}.'
    )
    if images['bad']:
      text += f' {images["bad"]:,} more cannot be decoded.'
    parts.append(f'<p>{escape(text)}</p>')
  if not bad['count']:
    parts.append('<p>No training image was found to be damaged.</p>')
    return ''.join(parts)
  rows = ''.join(
    f'<li><code>{escape(name)}</code> {escape(why)}</li>'
    for name, why in bad['rows']
  )
  more = bad['count'] - len(bad['rows'])
  rows += f'<li>and {number(more)} more, in bad_images.txt</li>' if more else ''
  parts.append(
    f'<p>{bad["count"]:,} training images cannot be decoded or are too small:'
    f'</p><ul class="bad">{rows}</ul>'
  )
  return ''.join(parts)
