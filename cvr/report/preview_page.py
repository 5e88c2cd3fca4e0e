"""What --mode=preview found of a data set: plain data -> lines, and a page."""

import os

from cvr.report import charts, maps, page
from cvr.report.charts import escape, number
from cvr.report.sections import notes, scrolled, table

_NAMED = 20  # Of files that are damaged or twice there.
_BARS = 60  # Classes whose counts are drawn.


def boxes_on_tile(pair, side):
  """The two crops of an original, in the pixels of its square tile:
  [(left, top, width, height)].
  """
  high, wide = pair['size']
  scale = side / max(high, wide)
  left, top = (side - wide * scale) / 2, (side - high * scale) / 2
  return [
    (left + x * scale, top + y * scale, w * scale, h * scale)
    for y, x, h, w in pair['boxes']
  ]


def caption(pair, k):
  """What was done to view k of a pair, in words."""
  numbers = pair['numbers'][k]
  _, _, h, w = pair['boxes'][k]
  share = h * w / (pair['size'][0] * pair['size'][1])
  parts = [f'crop {100 * share:.0f}%']
  parts += [name for name in ('flip', 'gray', 'solarize') if numbers[name]]
  if numbers['blur']:
    parts.append(f'blur {numbers["blur"]:.1f} px')
  return ', '.join(parts)


def _colours(numbers):
  """The strengths of the colour jitter of a view; '' where it has none."""
  changed = [
    f'{name} {numbers[name]:+.2f}'
    if name in ('brightness', 'hue')
    else f'{name} x {numbers[name]:.2f}'
    for name in ('brightness', 'contrast', 'saturation', 'hue')
    if abs(numbers[name] - (name in ('contrast', 'saturation'))) > 1e-6
  ]
  return ', '.join(changed)


def _count(number_of, what):
  """'1 image', '2,000 images'."""
  return f'{number_of:,} {what}' + ('' if number_of == 1 else 's')


# What is wrong ---------------------------------------------------------------


def _range(sides):
  """'32 x 32', or the smallest and largest of them."""
  high, wide = zip(*sides, strict=True)
  smallest, largest = min(sides, key=_area), max(sides, key=_area)
  if len({*sides}) == 1:
    return f'{wide[0]} x {high[0]} px'
  return (
    f'{smallest[1]} x {smallest[0]} to {largest[1]} x {largest[0]} px, '
    f'{len({*sides}):,} different'
  )


def _area(sides):
  return sides[0] * sides[1]


def warnings(found):
  """What a reader should know before training, a sentence each."""
  lines = []
  for split in found['splits']:
    name = split['split']
    if split['bad']:
      lines.append(
        f'damaged in {name}: {_count(len(split["bad"]), "image")}, such as '
        f'{split["bad"][0][0]}'
      )
    small = sum(min(sides) < found['image_size'] for sides in split['sides'])
    if small:
      lines.append(
        f'smaller than the crop of {found["image_size"]} px, and enlarged: '
        f'{small:,} of {_count(len(split["sides"]), "image")} of {name}'
      )
    if len(split['bits']) > 1:
      lines.append(f'{name} mixes images of 8 and of 16 bits a channel')
    counts = [n for n in (split['counts'] or {}).values()]
    if counts and min(counts) * 10 < max(counts):
      lines.append(
        f'classes of {name} have from {min(counts):,} to {max(counts):,} images'
      )
    if split['repeated']:
      lines.append(
        f'more than once in {name}: {_count(len(split["repeated"]), "image")}'
      )
  pairs = (found['duplicates'] or {}).get('pairs')
  if pairs:
    first, second = (split['split'] for split in found['splits'])
    lines.append(f'in {first} and {second}: {_count(len(pairs), "image")}')
  return lines


def lines(found):
  """What is printed."""
  printed = []
  for split in found['splits']:
    parts = [f'{split["images"]:,} images']
    if split['classes']:
      parts.append(f'{split["classes"]:,} classes')
    if split['sides']:
      parts.append(_range(split['sides']))
    parts += [f'{bits} bits' for bits in sorted(split['bits'])]
    printed.append(f'{split["split"]}: {", ".join(parts)}')
  printed += [f'Note: {line}' for line in warnings(found)]
  return printed


# The page --------------------------------------------------------------------


def _numbers(found):
  rows = []
  for split in found['splits']:
    seen = f'{split["seen"]:,} headers, {split["decoded"]:,} decoded'
    bits = ', '.join(
      f'{n:,} of {b} bits' for b, n in sorted(split['bits'].items())
    )
    rows.append([
      escape(split['split']), f'{split["images"]:,}',
      f'{split["classes"]:,}' if split['classes'] else 'no labels',
      escape(_range(split['sides'])) if split['sides'] else '-', bits or '-',
      f'{len(split["bad"]):,}', seen,
    ])  # fmt: skip
  head = ['split', 'images', 'classes', 'sizes', 'depth', 'damaged', 'read']
  return scrolled(table(head, rows, 'numbers'), 'The splits in numbers')


def _classes(found, sheets, sheet):
  parts, i = [], 0
  for name, images in found['by_class']:
    tiles = []
    for image in images:
      label = f'{name}, image {len(tiles) + 1}'.strip(', ')
      broken = '<span>cannot be decoded</span>' if image is None else ''
      tiles.append(f'<li>{sheets.tile(sheet, i, label, 64)}{broken}</li>')
      i += 1
    title = f'<h3>{escape(name)}</h3>' if name else ''
    parts.append(f'<div>{title}<ul class="row">{"".join(tiles)}</ul></div>')
  return f'<div class="byclass">{"".join(parts)}</div>'


def _pair(pair, k, sheets, originals, views):
  side = 96
  rectangles = ''.join(
    f'<rect class="box b{i}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" '
    f'height="{h:.1f}"/>'
    for i, (x, y, w, h) in enumerate(boxes_on_tile(pair, side))
  )
  overlay = (
    f'<svg class="over" viewBox="0 0 {side} {side}" aria-hidden="true">'
    f'{rectangles}</svg>'
  )
  size = f'{pair["size"][1]} x {pair["size"][0]} px'
  cards = [
    f'<li class="original">{sheets.tile(originals, k, pair["name"], 120)}'
    f'{overlay}<span>{escape(pair["name"])}, {size}</span></li>'
  ]
  for i in (0, 1):
    text = caption(pair, i)
    colours = _colours(pair['numbers'][i]) or 'colours as they are'
    cards.append(
      f'<li>{sheets.tile(views, 2 * k + i, f"view {i + 1}", 120)}'
      f'<span><b class="b{i}">view {i + 1}</b>: {escape(text)}</span>'
      f'<span>{escape(colours)}</span></li>'
    )
  return f'<ul class="made">{"".join(cards)}</ul>'


def _counts(found):
  parts = []
  for split in found['splits']:
    counts = split['counts']
    if not counts:
      continue
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    rows = ordered[:_BARS]
    note = ''
    if len(ordered) > _BARS:
      note = f'The {_BARS} largest of {len(ordered):,} classes.'
    parts.append(
      maps.bars(f'Images of each class: {split["split"]}', rows, note)
    )
  return f'<div class="beside">{"".join(parts)}</div>' if parts else ''


def _sizes(found):
  drawn = []
  for split in found['splits']:
    areas = [min(sides) for sides in split['sides']]
    if len({*areas}) < 2:
      continue
    low, high = min(areas), max(areas)
    edges = [low + (high - low) * i / 24 for i in range(25)]
    counts = [0] * 24
    for side in areas:
      counts[min(23, int(24 * (side - low) / (high - low)))] += 1
    drawn.append(
      charts.histograms(
        f'Shorter side: {split["split"]}',
        [(split['split'], counts)],
        edges,
        'pixels',
      )  # fmt: skip
    )
  return f'<div class="grid">{"".join(drawn)}</div>' if drawn else ''


def _named(rows, more):
  items = ''.join(f'<li>{row}</li>' for row in rows[:_NAMED])
  left = len(rows) - _NAMED
  items += f'<li>and {number(left)} more</li>' if left > 0 else ''
  return f'<p>{escape(more)}</p><ul class="bad">{items}</ul>' if rows else ''


def _problems(found):
  parts = []
  for split in found['splits']:
    rows = [
      f'<code>{escape(name)}</code> {escape(why)}' for name, why in split['bad']
    ]
    parts.append(_named(rows, f'Damaged images of {split["split"]}:'))
    rows = [
      ' = '.join(f'<code>{escape(name)}</code>' for name in names)
      for names in split['repeated'] or ()
    ]
    parts.append(_named(rows, f'More than once in {split["split"]}:'))
  duplicates = found['duplicates']
  if duplicates:
    rows = [
      ' = '.join(f'<code>{escape(name)}</code>' for name in pair)
      for pair in duplicates['pairs']
    ]
    parts.append(_named(rows, 'In both splits:'))
    none = '' if rows else 'No image is in both splits: '
    parts.append(f'<p>{none}{escape(duplicates["how"])}.</p>')
  if not any(split['bad'] for split in found['splits']):
    parts.append('<p>No damaged image was found.</p>')
  return ''.join(parts)


def body(found, sheets, numbers):
  """The sections: (id, short name, title, what they say, HTML)."""
  yield 'numbers', 'Numbers', 'The splits', '', _numbers(found)
  yield (
    'images', 'Images', 'Images by class',
    'Of the training split, at equal distances, whole.',
    _classes(found, sheets, numbers[0]),
  )  # fmt: skip
  if found['views']:
    pairs = ''.join(
      _pair(pair, k, sheets, *numbers[1:])
      for k, pair in enumerate(found['views'])
    )
    yield (
      'views', 'Views', 'What the network will see',
      'Two crops of an image, with what was drawn for each: by the settings '
      'of this call, in the order flip, colours, gray, blur, solarize.',
      f'<div class="allmade">{pairs}</div>',
    )  # fmt: skip
  yield 'counts', 'Classes', 'Class counts', '', _counts(found)
  yield 'sizes', 'Sizes', 'Sizes', '', _sizes(found)
  yield (
    'problems',
    'Problems',
    'What is damaged or twice there',
    '',
    (_problems(found)),
  )


def page_title(found):
  return f'Preview of {found["dataset"]}'


def page_header(found):
  """The title, and what to know first."""
  read = 'All images were decoded.' if found['full'] else (
    'Of a sample; --preview=full reads and decodes everything.'
  )  # fmt: skip
  name = os.path.basename(found['dataset'].rstrip('/')) or found['dataset']
  return (
    f'<header><p class="kind">Preview of a data set</p><h1>{escape(name)}</h1>'
    f'<p>{read}</p><p class="folder"><code>{escape(found["dataset"])}</code>'
    f'</p></header>{notes(warnings(found))}'
  )


def document(found, sheets, numbers):
  """What preview.collect gave, its sheets and their numbers -> the page."""
  parts = [part for part in body(found, sheets, numbers) if part[-1]]
  text = page_header(found) + ''.join(
    page.section(i, title, html, says) for i, _, title, says, html in parts
  )
  nav = [(i, short) for i, short, *_ in parts]
  return page.document(page_title(found), text, sheets.css(), nav)
