"""--mode=search: the images of a data set that are nearest to one, by bits."""

import os
import re
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf

import data_util
from cvr.checkpoints import pretrained
from cvr.checkpoints.files import write_atomically
from cvr.configs import config, derived, places
from cvr.data import decoding, sources, tiff
from cvr.evaluation import features
from cvr.evaluation.search import hamming

# Recall is measured among at most so many images, whose floats fit in memory.
_MEASURED, _QUERIES = 50_000, 1000


def _facts(cfg, info, checkpoint):
  """What an index depends on: another model or data set needs another one."""
  return sources.fingerprint(info) | {
    'model': pretrained.fingerprint(checkpoint.path),
    'image_size': cfg.image_size,
    'normalized': derived.augmentation(cfg).mean_std,
    'crop': derived.eval_crop(cfg),
  }


def _load(path, facts, say):
  """The index in a file, if it is of this model and data set, else None."""
  if tf.io.gfile.isdir(path):
    raise config.ConfigError(f'--output={path}: a folder; name a file in it.')
  if not tf.io.gfile.exists(path):
    return None
  if why := places.endless(path):
    raise config.ConfigError(f'--output={path}: it is {why}; name a file.')
  with tf.io.gfile.GFile(path, 'rb') as file:
    data = file.read()
  try:
    index = hamming.from_bytes(data)
  except ValueError as error:
    raise config.ConfigError(
      f'{path} is not an index of codes, or it is damaged ({error}). Name '
      'another --output, or move it away to make a new one.'
    ) from error
  # What an index had before --eval_crop existed.
  stored = {'crop': 0.875} | index.facts
  if {k: stored.get(k) for k in facts} == facts:
    return index
  say(f'{path} is of another model or data set: making a new one')
  return None


def _save(path, index):
  tf.io.gfile.makedirs(os.path.dirname(path) or '.')
  write_atomically(path, hamming.to_bytes(index))


def _make(cfg, strategy, state, info, facts):
  """Embeds a split -> its Index, with its recall among the facts."""
  every = -(-info.num_examples // _MEASURED)
  kept, floats, count = [], [], 0
  for piece in features.make_read(cfg, strategy, state)(info):
    rows = features.only_decoded(piece, f'{info.name}, {info.split}')
    # Every `every`-th of the rows of the index.
    floats.append(rows['representation'][-count % every :: every])
    count += len(rows['labels'])
    kept.append({k: rows[k] for k in ('latent_bits', 'ids', 'labels')})
  rows = features.joined(kept)
  floats = np.concatenate(floats)
  index = hamming.make_index(
    rows['latent_bits'],
    state.method.latent.dim,
    rows['ids'],
    rows['labels'],
    {},
  )
  k = min(cfg.neighbors, len(floats) - 1)
  if k > 0:
    part = index._replace(words=np.ascontiguousarray(index.words[:, ::every]))
    recall = hamming.recall(part, floats, k, _QUERIES, seed=0)
    facts = facts | {
      'recall': recall,
      'recall_at': k,
      'recall_among': len(floats),
    }
  return index._replace(facts=facts)


def _read(path, channels):
  """A file -> its image's bytes, as of a folder's files."""
  if tiff.is_tiff(path):
    tiff.check(f'--query={path}', path, channels)
    return tiff.encoded(path, channels)
  with tf.io.gfile.GFile(path, 'rb') as file:
    return file.read()


class Found(NamedTuple):
  """What a search has found, for pictures of it."""

  query: str
  image: bytes
  info: sources.DatasetInfo
  rows: list  # (bits that differ, id, class or ''), the nearest first
  about: str  # the index, in a line


def _embed(cfg, state, path):
  """An image's file -> its packed bits [1, bytes], and the file's bytes."""
  try:
    data = _read(path, cfg.channels)
    has = decoding.channels_of(data)
    why = decoding.misfit(has, cfg.channels) if has else ''
    if why:
      raise config.ConfigError(f'--query={path}: {why}.')
    image = decoding.decode(data, **derived.pixels(cfg))
  except tf.errors.OpError as error:
    reason = str(error).partition('\n')[0][:200]
    raise config.ConfigError(
      f'--query={path} cannot be read ({reason}). Supported: JPEG, PNG, GIF, '
      'BMP and TIFF.'
    ) from error
  shown = data_util.eval_image(image, cfg.image_size, derived.eval_crop(cfg))
  batch = {'views': (shown[None],)}
  mean_std = derived.augmentation(cfg).mean_std
  embedded = state.method.embed(features.prepared(batch, mean_std))
  bits = state.method.latent.bits(embedded['phi'])
  return np.packbits(bits, axis=1), data


def index_path(cfg, folder):
  """Where the index of a data set lies in a folder."""
  name = re.sub(r'[^\w.-]+', '_', f'index-{cfg.dataset}-{cfg.eval_split}')
  return os.path.join(folder, f'{name}.npz')


def search(cfg, strategy, state, checkpoint, path, say):
  """Prints the nearest images of --eval_split to --query -> Found.

  path: the index; it is made if it is missing, or of other codes.
  """
  query, image = _embed(cfg, state, cfg.query)
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.eval_split, **derived.pixels(cfg)
  )
  facts = _facts(cfg, info, checkpoint)
  index = _load(path, facts, say)
  if index is None:
    say(f'Making {path}: {info.num_examples:,} images of {info.name} ...')
    index = _make(cfg, strategy, state, info, facts)
    _save(path, index)
  say(description(index))
  start = time.perf_counter()
  count = min(cfg.neighbors, len(index.labels))
  distances, rows = hamming.nearest(index, query, count)
  took = 1000 * (time.perf_counter() - start)
  say(f'Nearest to {cfg.query} ({took:.1f} ms):')
  found = []
  for distance, row in zip(distances[0], rows[0], strict=True):
    label = index.labels[row]
    name = info.class_names[label] if info.class_names else ''
    say(f'  {distance:5d} bits  {index.ids[row]}  {name}'.rstrip())
    found.append((int(distance), str(index.ids[row]), name))
  return Found(cfg.query, image, info, found, description(index))


def description(index):
  """What an index holds, in one line."""
  line = f'{len(index.labels):,} codes of {index.bits:,} bits'
  line += f', {index.words.nbytes:,} bytes'
  if 'recall' in index.facts:
    line += (
      f'; of the {index.facts["recall_at"]} nearest by cosine of the '
      f'representation they find {100 * index.facts["recall"]:.1f}% (among '
      f'{index.facts["recall_among"]:,} images)'
    )
  return line
