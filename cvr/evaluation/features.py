"""Embeddings of a data set by a trained encoder: rows, and files of them."""

import functools
import io
import os
import zipfile
from typing import NamedTuple

import numpy as np
import tensorflow as tf

import data_util
from cvr.checkpoints.files import write_atomically
from cvr.configs import config, derived
from cvr.data import batches, decoding, sources
from cvr.evaluation.corruptions import corruptions
from cvr.numerics import randomness
from cvr.training import progress

_SHARD = 20_000  # Examples in a file of features.
_KEPT_BYTES = 2**29  # Of images that are corrupted in many ways.


class Look(NamedTuple):
  """How the images of a split are preprocessed for the encoder.

  crop: the share of the shorter side that the central crop keeps. random: above
  0 it numbers the draw of random crops and flips, as for training a linear
  classifier. corruption: one of evaluation.corruptions, applied to the crop.
  """

  crop: float
  random: int = 0
  corruption: str = ''
  severity: int = 0
  scale: str = ''  # of the corruption: one of corruptions.SCALES

  def facts(self):
    """What rows in a store depend on."""
    values = self._asdict()
    scale = values.pop('scale')
    corrupted = {'scale': scale, 'corruptions': corruptions.VERSION}
    return values | (corrupted if self.corruption else {})


def central(cfg):
  """-> the Look of the evaluation."""
  return Look(derived.eval_crop(cfg))


def title(info, look):
  """A split and the Look at it, for messages."""
  name = f'{info.name}, {info.split}'
  if look.corruption:
    return f'{name}: {look.corruption} {look.severity}'
  return f'{name}: random crops, {look.random}' if look.random else name


# What to do where a network gives features that are not finite.
_BROKEN_NETWORK = (
  'Use a checkpoint from before the loss became NaN, or --precision=fp32 if it '
  'was trained in half precision.'
)


def prepared(batch, mean_std):
  """A batch's images, normalised if the encoder was trained on such."""
  (images,) = batch['views']
  return data_util.normalize(images) if mean_std else images


def _random_crop(image, seed, size):
  """A crop of 8% to all of an image, flipped or not: [size, size, C]."""
  draws = randomness.uniform([1, len(data_util.DRAWS)], seed)
  (box,) = data_util.crop_boxes(tf.shape(image), draws, 0.08, 'logarithmic')
  image = tf.image.convert_image_dtype(image, tf.float32)
  crop = data_util.clip(data_util.crop(image, box, size))
  flip = data_util.named(draws)['flip'][0] < 0.5
  return tf.where(flip, tf.reverse(crop, [1]), crop)


def _check_room(info, image_size, rows):
  """Refuses batches of which this machine cannot hold two: one is made while
  the other is used.
  """
  room = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  size = 2 * rows * image_size**2 * info.channels * tf.float32.size
  if size > room:
    raise config.ConfigError(
      f'Two batches of {rows} images of {image_size} px take {size / 1e9:,.0f} '
      f'GB, and this machine has {room / 1e9:,.0f} GB. Lower --eval_batch_size '
      'or --image_size.'
    )


def eval_input(info, image_size, batch_size, look):
  """-> a function of an input context, as a strategy wants it.

  Of images that are not corrupted.
  """

  def preprocess(image, index):
    if look.random:
      seed = tf.stack([tf.constant(look.random, tf.int64), index])
      return _random_crop(image, seed, image_size)
    return data_util.eval_image(image, image_size, look.crop)

  def of_context(context):
    # No more padding than replicas need.
    replicas = context.num_replicas_in_sync
    all_images = -(-info.num_examples // replicas) * replicas
    rows = batches.HostBatch.of(context, min(batch_size, all_images))
    _check_room(info, image_size, rows.size)
    return batches.eval_batches(info, preprocess, rows)

  return of_context


def _corrupted_input(of_context, look):
  """The same, each image corrupted as the Look says."""

  def corrupted(batch):
    (images,) = batch['views']
    images = corruptions.corrupt(
      look.corruption,
      look.severity,
      images,
      batch['index'],
      scale=look.scale or 'imagenet_c',
    )
    return batch | {'views': (images,)}

  # Nothing here needs AutoGraph; without it tracing is much quicker.
  @tf.autograph.experimental.do_not_convert
  def of_corrupted(context):
    # On the host: accelerators cannot write JPEGs, and results stay the same.
    dataset = of_context(context)
    dataset = dataset.map(
      corrupted, batches.calls_at_once(), deterministic=True
    )
    return dataset.prefetch(tf.data.AUTOTUNE)

  return of_corrupted


def make_source(image_size, batch_size):
  """-> source(info, look): eval_input, or that of corrupted images.

  One corruption after the other is made of the same images: these are decoded
  once and kept, if there is room for them.
  """

  @functools.lru_cache(maxsize=1)
  def clean(info, look):
    of_context = eval_input(info, image_size, batch_size, look)
    numbers = info.num_examples * image_size**2 * info.channels
    few = numbers * tf.float32.size <= _KEPT_BYTES
    built = {}

    def of_context_once(context):
      part = context.input_pipeline_id
      if part not in built:
        dataset = of_context(context)
        built[part] = dataset.cache() if few else dataset
      return built[part]

    return of_context_once

  def source(info, look):
    if not look.corruption:
      return eval_input(info, image_size, batch_size, look)
    plain = look._replace(corruption='', severity=0, scale='')
    return _corrupted_input(clean(info, plain), look)

  return source


def _small(images, most):
  """Images [b, S, S, C] in [0, 1] -> uint8, of sides of at most `most`."""
  factor = -(-images.shape[1] // most)
  images = tf.cast(images, tf.float32)
  if factor > 1:  # Means, which every device can compute.
    images = tf.nn.avg_pool2d(images, factor, factor, 'VALID')
  return data_util.to_bytes(images * 255.0)


def make_embed_step(method, probe, mean_std, thumbnail=0):
  """-> step(batch) -> a flat dict of this replica's rows.

  thumbnail: above 0, also the images themselves, in small, with sides of at
  most so many pixels.
  """

  def step(batch):
    embedded = method.embed(prepared(batch, mean_std))
    out = {name: embedded[name] for name in ('representation', 'projection')}
    if hasattr(method, 'predict_mean'):
      out['prediction'] = method.predict_mean(embedded['projection'])
    if probe:
      out['logits'] = probe(method.probed(embedded))
    if hasattr(method, 'latent'):
      out |= method.latent.describe(embedded['phi'])
    out = {
      name: value if value.dtype == tf.bool else tf.cast(value, tf.float32)
      for name, value in out.items()
    }
    if thumbnail:
      out['thumbnail'] = _small(batch['views'][0], thumbnail)
    return out | {name: batch[name] for name in ('label', 'index', 'mask')}

  return step


def make_read(cfg, strategy, state, thumbnail=0):
  """-> read(info, look) -> {name: rows} of a split, batch by batch, in order.

  look: by itself central. thumbnail: as in make_embed_step.

  Every example once. Images that cannot be decoded have NaN for features, all
  bits 0, and are False in 'decoded': a broken network gives NaN, too. Bits are
  packed (np.packbits). The network is compiled once for all splits.
  """
  mean_std = derived.augmentation(cfg).mean_std
  step = make_embed_step(state.method, state.probe, mean_std, thumbnail)
  source = make_source(cfg.image_size, cfg.eval_batch_size)

  @tf.function(autograph=False)
  def embed(batch):
    return strategy.run(step, args=(batch,))

  def numbers(value):
    parts = strategy.experimental_local_results(value)
    return np.concatenate([part.numpy() for part in parts])

  def read(info, look=None):
    look = look or central(cfg)
    job = progress.Job(title(info, look), info.num_examples, 'images')
    with sources.explained(info), job:
      for batch in strategy.distribute_datasets_from_function(
        source(info, look)
      ):
        rows = {name: numbers(value) for name, value in embed(batch).items()}
        rows = _in_order(info, rows)
        yield rows
        job.advance(len(rows['labels']))

  return read


def read_all(read, info, look=None):
  """All rows of a split: {name: [n, ...]}."""
  return joined(list(read(info, look)))


def _in_order(info, rows):
  """The rows of a batch without padding; those not decoded are set to NaN."""
  index, decoded = rows.pop('index'), rows.pop('mask') > 0
  for name, value in rows.items():
    empty = {'label': -1, 'latent_bits': False, 'thumbnail': 0}
    value[~decoded] = empty.get(name, np.nan)
  keep = np.argsort(index, kind='stable')[np.sum(index < 0) :]
  labels = rows.pop('label')[keep]
  rows['decoded'] = decoded
  ids = np.array([sources.example_id(info, i) for i in index[keep]])
  rows = {name: value[keep] for name, value in rows.items()}
  if 'latent_bits' in rows:
    rows['latent_bits'] = np.packbits(rows['latent_bits'], axis=1)
  return rows | {'labels': labels, 'ids': ids}


def not_finite(where):
  """The error for features that are NaN or infinite."""
  return sources.DataError(
    f'{where}: the features of some images are NaN or infinite, so no result '
    f'would mean anything. {_BROKEN_NETWORK}'
  )


def only_decoded(rows, where):
  """The rows of images that can be decoded, which have to be finite."""
  rows = dict(rows)
  decoded = rows.pop('decoded')
  rows = {name: value[decoded] for name, value in rows.items()}
  if not all(
    np.isfinite(value).all()
    for value in rows.values()
    if value.dtype.kind == 'f'
  ):
    raise not_finite(where)
  return rows


def joined(pieces):
  """What read() yields -> {name: all rows}."""
  return {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}


def unit(rows):
  """[..., d] -> rows of length 1; zeros stay zeros."""
  lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
  if not np.isfinite(lengths).all():
    raise ValueError('a feature is not finite, and is near to nothing')
  return rows / np.maximum(lengths, np.finfo(rows.dtype).tiny)


def save_npz(path, arrays):
  """Writes arrays so that readers see the old file or the new one."""
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  tf.io.gfile.makedirs(os.path.dirname(path) or '.')
  write_atomically(path, buffer.getvalue())


def extract_features(cfg, strategy, state, say):
  """Writes the embeddings of --eval_split to --output."""
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.eval_split, **derived.pixels(cfg)
  )
  single = cfg.output.endswith('.npz')
  first = os.path.join(cfg.output, 'features-00000.npz')
  if not single and tf.io.gfile.exists(first):
    # Files of a larger set would remain among the new ones.
    raise config.ConfigError(
      f'--output={cfg.output} already holds features; name another folder.'
    )
  done, bad, broken, pieces, paths = 0, 0, 0, [], []

  def save():
    name = f'features-{len(paths):05d}.npz'
    paths.append(cfg.output if single else os.path.join(cfg.output, name))
    save_npz(paths[-1], joined(pieces))
    pieces.clear()

  for piece in make_read(cfg, strategy, state)(info):
    decoded = piece.pop('decoded')
    pieces.append(piece)
    done += len(decoded)
    bad += int((~decoded).sum())
    finite = np.isfinite(piece['representation']).all(1)
    broken += int((decoded & ~finite).sum())
    if not single and sum(len(p['labels']) for p in pieces) >= _SHARD:
      save()
  if done != info.num_examples:
    raise sources.DataError(
      f'--eval_split={cfg.eval_split}: {done} examples read, '
      f'{info.num_examples} expected. Is a file of the data set missing?'
    )
  if pieces:
    save()
  say(f'{done:,} examples of {info.name}, {info.split}, in {cfg.output}')
  if bad:
    why = decoding.cannot(cfg.channels)
    say(f'{bad:,} of them {why}: their features are NaN, their label is -1')
  if broken:
    say(
      f'{broken:,} of them can be decoded, but the network gives NaN or '
      f'infinite features for them. {_BROKEN_NETWORK}'
    )
  if 'latent_bits' in piece:
    dim = state.method.latent.dim
    pixels = cfg.image_size**2 * cfg.channels
    say(bits_on_disk(dim, pixels, done, paths))


def bits_on_disk(dim, pixels, images, paths):
  """A line: the size of packed bits per image, and in the files.

  pixels: values of an image.
  """
  stored = 0
  for path in paths:
    with tf.io.gfile.GFile(path, 'rb') as file, zipfile.ZipFile(file) as arrays:
      stored += arrays.getinfo('latent_bits.npy').file_size
  return (
    f'{dim:,} bits an image: {8 * pixels / dim:.1f} x smaller than its 8-bit '
    f'pixels ({pixels:,} bytes). latent_bits takes {stored:,} bytes on disk, '
    f'{images * pixels / stored:.1f} x less than those of {images:,} images'
  )
