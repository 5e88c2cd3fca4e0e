"""--mode=search in pictures: a page, a PNG, and files that can be opened."""

import os
import re

import numpy as np
import tensorflow as tf

import data_util
from cvr.checkpoints.files import write_atomically
from cvr.data import decoding, reading, sources
from cvr.report import collect_images, measures, page, png
from cvr.report.charts import escape
from cvr.report.tiles import Sheets

_SIDE = 128


def encoded(info, indices):
  """The bytes of some examples of a split, in the order of `indices`."""
  few = sources.kept(info, indices)
  with tf.device('CPU:0'), sources.explained(info):
    found = [data.numpy() for data, _ in reading.in_order(few)]
  place = {index: i for i, index in enumerate(sorted({*indices}))}
  return [found[place[index]] for index in indices]


def thumbnail(data, pixels, side=_SIDE):
  """An image's bytes -> all of it in a square, uint8 [side, side, C]."""
  image = decoding.decode(data, **pixels)
  high, wide = image.shape[:2]
  image = tf.image.convert_image_dtype(image, tf.float32)
  scale = side / max(high, wide)
  size = [max(1, round(high * scale)), max(1, round(wide * scale))]
  small = tf.image.resize(image, size, 'area')
  small = tf.image.resize_with_crop_or_pad(small, side, side)
  return data_util.to_bytes(small * 255.0).numpy()


def viewable(data, pixels):
  """-> (bytes that other programs open, the ending of such a file)."""
  for start, ending in ((b'\x89PNG', 'png'), (b'\xff\xd8', 'jpg'),
                        (b'GIF8', 'gif'), (b'BM', 'bmp')):  # fmt: skip
    if data.startswith(start):
      return data, ending
  image = decoding.decode(data, **pixels).numpy()
  image = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
  return tf.io.encode_png(measures.as_rgb(image)).numpy(), 'png'


def _files(folder, info, ids, images):
  """Writes images that are no files of their own -> the paths of all."""
  own = info.paths and not info.read
  if own:
    return [os.path.join(info.folder, name) for name in ids]
  tf.io.gfile.makedirs(folder)
  paths = []
  for rank, (name, data) in enumerate(zip(ids, images, strict=True), 1):
    content, ending = viewable(data, info.pixels)
    safe = re.sub(r'[^\w.-]+', '_', name)[-80:]
    paths.append(os.path.join(folder, f'{rank:03d}-{safe}.{ending}'))
    write_atomically(paths[-1], content)
  return paths


def body(query, rows, paths, sheets, sheet, about):
  """The HTML of what was found: rows (distance, id, class)."""
  cards = [
    f'<li>{sheets.tile(sheet, 0, "the query", _SIDE)}'
    f'<span>query</span><span><code>{escape(query)}</code></span></li>'
  ]
  for i, ((distance, name, owner), path) in enumerate(
    zip(rows, paths, strict=True), 1
  ):
    cards.append(
      f'<li>{sheets.tile(sheet, i, name, _SIDE)}'
      f'<span>{distance} bits {escape(owner)}</span>'
      f'<span><code>{escape(path)}</code></span></li>'
    )
  return (
    '<header><p class="kind">Nearest images by bits</p>'
    f'<h1>{escape(os.path.basename(query))}</h1><p>{escape(about)}</p></header>'
    f'<section id="found"><ul class="errors wide">{"".join(cards)}</ul>'
    '</section>'
  )


def write(found, folder, say):
  """What search found -> files in a folder: a page, and a PNG."""
  stem = re.sub(r'[^\w.-]+', '_', os.path.basename(found.query))
  base = os.path.join(folder, f'nearest-{os.path.splitext(stem)[0]}')
  ids = [name for _, name, _ in found.rows]
  place = {sources.example_id(found.info, i): i
           for i in range(found.info.num_examples)}  # fmt: skip
  images = encoded(found.info, [place[name] for name in ids])
  paths = _files(base, found.info, ids, images)
  pixels = found.info.pixels
  small = np.stack([thumbnail(d, pixels) for d in (found.image, *images)])
  sheets = Sheets()
  sheet = sheets.add(collect_images.sheet(small))
  text = body(found.query, found.rows, paths, sheets, sheet, found.about)
  text = page.document(f'Nearest to {found.query}', text, sheets.css())
  tf.io.gfile.makedirs(folder)
  write_atomically(f'{base}.html', text)
  written = [f'{base}.html']
  shown = [measures.as_rgb(image) for image in small]
  rows = [('query', [(shown[0], '')])]
  for start in range(0, len(ids), 5):
    part = found.rows[start : start + 5]
    cells = [
      (shown[1 + start + i], f'{distance} bits {owner}'.strip())
      for i, (distance, _, owner) in enumerate(part)
    ]
    rows.append((f'{start + 1} to {start + len(part)}', cells))
  picture = png.contact_sheet(f'Nearest to {found.query}', rows)
  if picture:
    write_atomically(f'{base}.png', picture)
    written.append(f'{base}.png')
  say(f'Pictures: {", ".join(written)}')
