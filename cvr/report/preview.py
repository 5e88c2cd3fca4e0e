"""--mode=preview: what a data set holds, before anything is trained on it.

A sample is read by default: headers tell sizes, and a file of no bytes, or that
cannot be decoded, is named. --preview=full decodes everything.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import os

import numpy as np
import tensorflow as tf

from cvr.checkpoints.files import write_atomically
from cvr.configs import derived
from cvr.data import augmentation, decoding, reading, sources, splits
from cvr.numerics import randomness
from cvr.report import (
  collect_images,
  measures,
  neighbours,
  png,
  preview_page,
)
from cvr.report.tiles import Sheets
from cvr.training import progress

SAMPLE = 2000
_PIXELS = 100_000_000  # What a sample decodes at most.
_CLASSES, _EACH, _PAIRS = 12, 8, 6
_TILE = 96
_THREADS = 16
_HEAD = 65536  # Bytes that tell most files of one size apart.
_COMPARED = 2000  # Files of one size that a sample hashes.
_NAMED = 20


def _splits(cfg, say):
  """-> the DatasetInfos of the training split and of that to evaluate on."""
  pixels = derived.pixels(cfg)
  names = [cfg.train_split, cfg.eval_split]
  found = []
  for name in dict.fromkeys(names):
    try:
      found.append(
        sources.describe(
          cfg.dataset, cfg.data_dir, name, cfg.download, **pixels
        )
      )
    except splits.NoEvaluation as error:
      say(f'Note: {error}')
  return found


# What is in the files --------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _sizes(paths):
  """The bytes of local files, a tuple; -1 where one cannot be asked."""

  def size(path):
    try:
      return os.stat(path).st_size
    except OSError:
      return -1

  parts = [paths[i : i + 2048] for i in range(0, len(paths), 2048)]
  # A task for each file would take longer than the file.
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    sizes = pool.map(lambda part: [size(path) for path in part], parts)
    return np.array([one for part in sizes for one in part])


def _has_files(info):
  """Whether its examples are local files of their own."""
  return bool(info.paths) and not info.read and '://' not in info.paths[0]


class Examined:
  """What was seen of a split's images, one by one."""

  def __init__(self):
    self.sides, self.bits, self.bad, self.digests = [], {}, [], {}
    self.decoded = self.seen = 0

  def look(self, name, data, pixels, decode, digest):
    """Takes the header of an image, decodes it, or notes why it cannot."""
    self.seen += 1
    if digest:
      key = hashlib.sha256(data).digest()
      self.digests.setdefault(key, []).append(name)
    if not data:
      self.bad.append((name, 'holds no bytes'))
      return 0
    try:
      high, wide, bits = decoding.header_of(data)
      if decode:
        decoding.decode(data, **pixels)
        self.decoded += 1
    except (tf.errors.OpError, ValueError):
      self.bad.append((name, decoding.cannot(pixels['channels'])))
      return 0
    self.sides.append((high, wide))
    self.bits[bits] = self.bits.get(bits, 0) + 1
    return high * wide


def _examine(info, full):
  """Headers of a sample, of which as many are decoded as takes some seconds."""
  few = info if full else sources.a_few(info, SAMPLE)
  found, pixels = Examined(), 0
  with tf.device('CPU:0'), sources.explained(info):
    data = _bytes_of(few)
    title = f'{info.name}, {info.split}'
    for i, one in enumerate(
      progress.over(data, title, few.num_examples, 'images')
    ):
      decode = full or pixels < _PIXELS
      name = sources.example_id(few, i)
      pixels += found.look(name, one, info.pixels, decode, full)
  return found


def _bytes_of(info):
  """The bytes of every image of a split, in order; of files that cannot be
  read, none.
  """
  if not _has_files(info):
    for data, _ in reading.in_order(info):
      yield data.numpy()
    return
  if reading.in_python(info):
    read = reading.in_python(info)
  else:
    read = _read
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    for start in range(0, len(info.paths), 256):
      yield from pool.map(_quietly(read), info.paths[start : start + 256])


def _read(path):
  with open(path, 'rb') as file:
    return file.read()


def _quietly(read):
  def attempt(path):
    with contextlib.suppress(OSError, ValueError, tf.errors.OpError):
      return read(path)
    return b''

  return attempt


# Duplicates ------------------------------------------------------------------


def _digest(path, most=None):
  try:
    with open(path, 'rb') as file:
      return hashlib.sha256(file.read(most)).digest()
  except OSError:
    return path.encode()


def _alike(first, second, most):
  """Files of two lists with the same bytes -> pairs, how many were compared.

  By size, then by their beginning, then whole. most: files of a list that are
  looked into, those of the rarest sizes first; None: all.
  """
  sizes = [_sizes(paths) for paths in (first, second)]
  shared, counts = np.unique(
    np.concatenate([np.unique(s) for s in sizes]), return_counts=True
  )
  wanted = {*shared[counts > 1].tolist()} - {-1, 0}
  kept = []
  for paths, of in zip((first, second), sizes, strict=True):
    frequency = dict(zip(*np.unique(of, return_counts=True), strict=True))
    rows = [i for i in range(len(paths)) if of[i] in wanted]
    rows.sort(key=lambda i, of=of, f=frequency: f[of[i]])
    kept.append([(of[i], paths[i]) for i in rows[:most]])
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:

    def keyed(rows):
      heads = pool.map(lambda row: _digest(row[1], _HEAD), rows)
      by_key = {}
      for (size, path), head in zip(rows, heads, strict=True):
        by_key.setdefault((size, head), []).append(path)
      return by_key

    a, b = map(keyed, kept)
    pairs = [
      (x, y)
      for key in a.keys() & b.keys()
      for x in a[key][:1]
      for y in b[key]
      if key[0] <= _HEAD or _digest(x) == _digest(y)
    ]
  return sorted(pairs), min(map(len, kept))


def _duplicates(infos, examined, full):
  """Images that are in both splits: {'pairs', 'how'}; None for one split."""
  if len(infos) < 2:
    return None
  if full:
    first, second = (found.digests for found in examined)
    same = first.keys() & second.keys()
    pairs = [(first[k][0], name) for k in same for name in second[k]]
    return {'pairs': sorted(pairs), 'how': 'all images were compared'}
  if all(map(_has_files, infos)):
    pairs, compared = _alike(infos[0].paths, infos[1].paths, _COMPARED)
    names = [
      tuple(
        os.path.relpath(path, info.folder)
        for path, info in zip(pair, infos, strict=True)
      )
      for pair in pairs
    ]
    how = f'of files of equal size {compared:,} were compared'
    if compared == _COMPARED:
      how += ', --preview=full compares all'
    return {'pairs': names, 'how': how}
  return {'pairs': [], 'how': 'not compared; --preview=full does'}


# Pictures --------------------------------------------------------------------


def _chosen(info):
  """Some examples: {class's name, or '': indices}."""
  if not info.class_names or not info.paths:
    count = min(_EACH * 4, info.num_examples)
    few = [i * info.num_examples // count for i in range(count)]
    return {'': few}
  labels, chosen = np.array(info.labels), {}
  counts = np.bincount(labels[labels >= 0], minlength=len(info.class_names))
  there = np.flatnonzero(counts)
  step = max(1, -(-len(there) // _CLASSES))
  for k in there[::step]:
    rows = np.flatnonzero(labels == k)
    take = min(_EACH, len(rows))
    chosen[info.class_names[k]] = [
      int(rows[i * len(rows) // take]) for i in range(take)
    ]
  return chosen


def _records(info, count):
  """The first records of TFDS' files: (bytes, label), for what has no paths."""
  few = sources.a_few(info, count)
  return [(data.numpy(), int(label)) for data, label in reading.in_order(few)]


def _by_class(info):
  """-> [(class's name, thumbnails)], None for what cannot be decoded."""
  if info.paths:
    chosen = _chosen(info)
    wanted = [i for rows in chosen.values() for i in rows]
    data = iter(_bytes_of_rows(info, wanted))
    grouped = {
      name: [next(data) for _ in rows] for name, rows in chosen.items()
    }
  else:
    grouped = {}
    for one, label in _records(info, 64 * _EACH):
      name = info.class_names[label] if label >= 0 else ''
      grouped.setdefault(name, []).append(one)
    most = _EACH if info.class_names else 4 * _EACH
    names = [n for n in (info.class_names or ('',)) if n in grouped]
    grouped = {name: grouped[name][:most] for name in names[:_CLASSES]}
  return [
    (name, [_thumbnail(one, info) for one in images])
    for name, images in grouped.items()
  ]


def _bytes_of_rows(info, indices):
  read = reading.in_python(info) or _read
  if '://' in info.paths[0] and not reading.in_python(info):
    return neighbours.encoded(info, indices)
  return [_quietly(read)(info.paths[i]) for i in indices]


def _thumbnail(data, info):
  with contextlib.suppress(tf.errors.OpError, ValueError):
    return measures.as_rgb(neighbours.thumbnail(data, info.pixels, _TILE))
  return None


def _views(cfg, info):
  """Some images, the boxes of their two crops, the views and their numbers."""
  recipe = derived.augmentation(cfg)
  few = sources.a_few(info, 4 * _PAIRS)
  found, augment = [], augmentation.per_image(recipe, 2)
  numbered = [*enumerate(_bytes_of(few))]
  # From all classes; the others in case that these are damaged.
  for i, data in sorted(numbered, key=lambda item: item[0] % 4):
    if len(found) == _PAIRS:
      break
    with contextlib.suppress(tf.errors.OpError, ValueError):
      image = decoding.decode(data, **info.pixels)
      seed = randomness.split_seed([cfg.seed, i], 1)[0]
      found.append(_pair(recipe, augment, image, seed, data, info, few, i))
  return found


def _pair(recipe, augment, image, seed, data, info, few, i):
  shape = tf.shape(image)
  boxes = augmentation.boxes(recipe, shape, seed, 2)
  made = augment(image, tf.cast(seed, tf.int64))
  batch = {
    'views': tuple(view[None] for view in made['views']),
    'draws': made['draws'][None],
  }
  views = augmentation.per_batch(recipe, batch)['views']
  high, wide = (int(side) for side in shape[:2])
  return {
    'name': sources.example_id(few, i),
    'original': neighbours.thumbnail(data, info.pixels, _TILE),
    'size': (high, wide),
    'boxes': [[int(x) for x in box] for box in boxes],
    'views': [collect_images.as_bytes(v.numpy(), recipe)[0] for v in views],
    'numbers': [
      {
        name: values.numpy()[0].item()
        for name, values in augmentation.decisions(
          recipe, k, batch['draws'][:, k]
        ).items()
      }
      for k in (0, 1)
    ],
  }


# All of it -------------------------------------------------------------------


def _facts(info, found, full):
  """What is told of a split: plain data."""
  counts = None
  if info.class_names and info.paths:
    labels = np.array(info.labels)
    counted = np.bincount(labels[labels >= 0], minlength=len(info.class_names))
    counts = dict(zip(info.class_names, counted.tolist(), strict=True))
  bad = list(found.bad)
  if _has_files(info) and not full:
    named = {name for name, _ in bad}
    for i in np.flatnonzero(_sizes(info.paths) <= 0):
      name = sources.example_id(info, int(i))
      if name not in named:
        bad.append((name, 'holds no bytes'))
  repeated = [names for names in found.digests.values() if len(names) > 1]
  return {
    'split': info.split,
    'images': info.num_examples,
    'classes': len(info.class_names),
    'counts': counts,
    'seen': found.seen,
    'decoded': found.decoded,
    'sides': found.sides,
    'bits': found.bits,
    'bad': bad,
    'repeated': repeated if full else None,
  }


def collect(cfg, say):
  """What --mode=preview shows: plain data."""
  full = cfg.preview == 'full'
  infos = _splits(cfg, say)
  for info in infos:
    say(f'{info.name}, {info.split}: {info.num_examples:,} images')
  examined = [_examine(info, full) for info in infos]
  return {
    'dataset': cfg.dataset,
    'full': full,
    'splits': [
      _facts(info, found, full)
      for info, found in zip(infos, examined, strict=True)
    ],
    'duplicates': _duplicates(infos, examined, full),
    'by_class': _by_class(infos[0]),
    'views': _views(cfg, infos[0]),
    'image_size': cfg.image_size,
    'recipe': cfg.batch_image_augmentation_type,
  }


def _sheets(found):
  """-> Sheets, the numbers in it of the classes' images, originals, views."""
  sheets, empty = Sheets(), np.zeros([_TILE, _TILE, 3], np.uint8)
  images = [
    empty if image is None else image
    for _, row in found['by_class']
    for image in row
  ]
  numbers = [sheets.add(collect_images.sheet(np.stack(images)))]
  if found['views']:
    originals = np.stack(
      [measures.as_rgb(v['original']) for v in found['views']]
    )
    views = np.stack([view for v in found['views'] for view in v['views']])
    numbers.append(sheets.add(collect_images.sheet(originals)))
    numbers.append(sheets.add(collect_images.sheet(views)))
  return sheets, numbers


def _picture(found):
  """The contact sheet as a PNG; None without matplotlib."""
  rows, boxes = [], {}
  for name, images in found['by_class']:
    shown = [(image, '') for image in images if image is not None]
    for start in range(0, len(shown), _EACH):
      rows.append((name if not start else '', shown[start : start + _EACH]))
  for start in range(0, len(found['views']), 2):
    cells = []
    for pair in found['views'][start : start + 2]:
      boxes[len(rows), len(cells)] = preview_page.boxes_on_tile(pair, _TILE)
      cells.append((measures.as_rgb(pair['original']), 'crops'))
      cells += [
        (measures.as_rgb(view), preview_page.caption(pair, k))
        for k, view in enumerate(pair['views'])
      ]
    rows.append(('two views', cells))
  return png.contact_sheet(found['dataset'], rows, boxes)


def preview(cfg, say):
  """--mode=preview: writes preview.html and preview.png to a folder."""
  folder = cfg.output or cfg.model_dir
  found = collect(cfg, say)
  say('\n'.join(preview_page.lines(found)))
  tf.io.gfile.makedirs(folder)
  path = os.path.join(folder, 'preview.html')
  write_atomically(path, preview_page.document(found, *_sheets(found)))
  written = [path]
  picture = _picture(found)
  if picture:
    written.append(os.path.join(folder, 'preview.png'))
    write_atomically(written[-1], picture)
  say(f'Written: {", ".join(written)}')
