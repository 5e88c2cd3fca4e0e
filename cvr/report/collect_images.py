"""One pass of a trained network over some images -> what a page shows of it.

Features, neighbours, similarities and augmented pairs come from the functions
that training and evaluation use.
"""

import numpy as np
import tensorflow as tf

import data_util
from cvr.configs import derived
from cvr.data import sources
from cvr.evaluation import features, statistics, subject
from cvr.evaluation.search import hamming
from cvr.evaluation.suites import compression
from cvr.numerics import distributions
from cvr.report import measures
from cvr.report.tiles import Sheet
from cvr.training import health, watch

MOST = 2000  # Images of a page.
_PAIRS, _SHOWN_PAIRS = 128, 12
_QUERIES, _NEIGHBOURS, _ERRORS = 12, 6, 12
_TILE, _MAP_TILE = 96, 40  # Sides at most.
_QUALITY = 80


def at_end(cfg, total):
  """How many images the report at the end of a run looks at.

  Each is seen once, forwards: at most a hundredth of what the run has cost, but
  for the smallest.
  """
  trained = total * cfg.train_batch_size
  return int(np.clip(trained // 50, 128, MOST // 2))


def sheet(images):
  """uint8 [n, s, s, C] -> a Sheet of them."""
  side = images.shape[1]
  cell = -(-side // 8) * 8
  columns = min(len(images), max(1, 1920 // cell))
  picture = measures.cells(images, columns, cell)
  data = tf.io.encode_jpeg(
    picture, quality=_QUALITY, chroma_downsampling=False, optimize_size=True
  )
  return Sheet(data.numpy(), columns, len(images), side, cell)


def _model(cfg, strategy, state, class_names, say):
  """The Subject of cvr/evaluation for a state in memory; it stores nothing."""
  return subject.Subject(
    cfg, strategy, state, '', '', None, None, say, tuple(class_names)
  )


def _rows(cfg, strategy, state, info):
  """Rows of the images that can be decoded, and how many cannot."""
  read = features.make_read(cfg, strategy, state, thumbnail=_TILE)
  rows = features.read_all(read, info)
  bad = int((~rows['decoded']).sum())
  return features.only_decoded(rows, f'{info.name}, {info.split}'), bad


def _maps(rows, extra):
  """{name: x, y and what is said of it}: PCA, and UMAP where it is wanted."""
  points, shares = measures.pca(rows['representation'])
  maps = {
    'PCA': {
      'x': points[:, 0].tolist(),
      'y': points[:, 1].tolist(),
      'shares': shares.tolist(),
    }
  }
  if extra:
    found = _umap(rows['representation'])
    if found is not None:
      maps['UMAP'] = {'x': found[:, 0].tolist(), 'y': found[:, 1].tolist()}
  return maps


def _umap(rows):
  """[n, D] -> [n, 2]; None where umap-learn is missing or there are too few."""
  try:
    import umap
  except ImportError:
    return None
  if len(rows) < 16:
    return None
  # A seed needs one thread, about which it warns otherwise.
  maker = umap.UMAP(metric='cosine', random_state=0, n_jobs=1)
  return maker.fit_transform(rows)


def _neighbours(rows, dim):
  """Queries, their nearest by cosine and, where there are bits, by these."""
  queries = measures.chosen_queries(rows['labels'], _QUERIES)
  k = min(_NEIGHBOURS, len(rows['labels']) - 1)
  cosines, near = measures.cosine_neighbours(
    features.unit(rows['representation']), queries, k
  )
  found = {'queries': queries.tolist(), 'by': {}}
  found['by']['cosine'] = [near.tolist(), np.round(cosines, 4).tolist()]
  if 'latent_bits' in rows:
    codes = rows['latent_bits']
    index = hamming.make_index(codes, dim, rows['ids'], rows['labels'], {})
    distances, near = hamming.nearest(index, codes[queries], k + 1)
    kept = [
      [(j, d) for j, d in zip(js, ds, strict=True) if j != query][:k]
      for query, js, ds in zip(queries, near, distances, strict=True)
    ]
    found['by']['bits'] = [
      [[int(pair[i]) for pair in row] for row in kept] for i in (0, 1)
    ]
  return found


def _verdict(rows, info, problem):
  """What the probe says of the images, where it knows their classes."""
  if problem or 'logits' not in rows or not info.class_names:
    return None
  labels, logits = rows['labels'], rows['logits']
  predicted, classes = logits.argmax(1), len(info.class_names)
  matrix = measures.confusion(labels, predicted, classes)
  shown = measures.most_confused(matrix)
  hard, wrong, sure = measures.hardest(logits, labels, _ERRORS)
  clusters = labels if info.cluster else None
  return {
    'accuracy': statistics.interval(predicted == labels, clusters=clusters),
    'classes': shown.tolist(),
    'matrix': matrix[np.ix_(shown, shown)].tolist(),
    'errors': [
      {'image': int(i), 'predicted': int(p), 'probability': float(s)}
      for i, p, s in zip(hard, wrong, sure, strict=True)
    ],
  }


def _pairs(cfg, strategy, state, info):
  """Two views of some images, as the network sees them, and what it makes of
  them: pictures, similarities, the spectrum is of the rows.
  """
  views = watch.two_views(state.method.plan.recipe, info, _PAIRS)
  if len(views[0]) < 2:
    return None

  def embed(*two):
    return watch.embedded(state.method, two, lambda both: {})

  rows = watch.make_rows(strategy, embed, views, 64)()
  z = rows['z']
  z = z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)
  if not np.isfinite(z).all():
    return None
  same, other = health.similarities(z[:, 0], z[:, 1])
  counts, edges = measures.histogram({
    'two views of one image': same,
    'views of two images': other,
  })  # fmt: skip
  shown = np.arange(min(_SHOWN_PAIRS, len(same))) * len(same)
  shown = shown // min(_SHOWN_PAIRS, len(same))
  tiles = [as_bytes(view[shown], derived.augmentation(cfg)) for view in views]
  return {
    'sheet': sheet(np.stack(tiles, 1).reshape(-1, *tiles[0].shape[1:])),
    'cosines': same[shown].tolist(),
    'histogram': [counts, edges],
    'means': [float(same.mean()), float(other.mean())],
    'count': len(same),
    'residual_floor': _floor(cfg, state.method, z.shape[-1]),
  }


def _floor(cfg, method, dim):
  """The residual information of views that agree; None where it is learned."""
  if hasattr(method, 'rate'):
    return compression.floor(cfg, dim)
  return distributions.vmf_kl(dim, health.NOISE_KAPPA, health.KAPPA, 1.0)


def as_bytes(view, recipe, most=_TILE):
  """A finished view [n, H, W, C] -> uint8, of at most so many pixels."""
  shown = data_util.denormalize(view) if recipe.mean_std else view
  shown = data_util.to_bytes(tf.cast(shown, tf.float32) * 255.0).numpy()
  return measures.shrunk(shown, most)


def images_of(cfg, strategy, state, class_names, count, say, extra=False):
  """What a page shows of a state in memory: plain data.

  count: of images. extra: whether to make what takes a while.
  """
  model = _model(cfg, strategy, state, class_names, say)
  whole = subject.images_of(model)
  info = sources.a_few(whole, count)
  rows, bad = _rows(cfg, strategy, state, info)
  labels, tiles = rows['labels'], rows['thumbnail']
  names, total = info.class_names, len(labels)
  if total < 2:
    raise sources.DataError(f'{info.name}, {info.split}: {total} good images')
  problem = model.probe_problem(names)
  latent = getattr(state.method, 'latent', None)
  neighbours = _neighbours(rows, getattr(latent, 'dim', 0))
  verdict = _verdict(rows, info, problem)
  large = _large(neighbours, verdict)
  shares = health.spectrum(rows['representation'].astype(np.float64))
  found = {
    'dataset': info.name,
    'split': info.split,
    'count': total,
    'of': whole.num_examples,
    'bad': bad,
    'class_names': list(names),
    'labels': labels.tolist() if names else [-1] * total,
    'names': [str(name) for name in rows['ids']],
    'side': int(tiles.shape[1]),
    'maps': _maps(rows, extra),
    'sheet': sheet(measures.shrunk(tiles, _MAP_TILE)),
    'neighbours': neighbours,
    'verdict': verdict,
    'large': [large, sheet(tiles[large])],
    'spectrum': shares[: min(shares.size, 256)].tolist(),
    'rank': health.rank_of(shares),
    'width': int(rows['representation'].shape[1]),
    'pairs': _pairs(cfg, strategy, state, info),
  }
  if extra:
    found['points'] = rows['representation'], tiles
  if names:
    same = measures.same_class_share(
      features.unit(rows['representation']), labels
    )
    clusters = labels if info.cluster else None
    found['same_class'] = statistics.interval(same, clusters=clusters)
    counts = np.bincount(labels, minlength=len(names))
    found['chance'] = float(np.sum((counts / total) ** 2))
  return found


def _large(neighbours, verdict):
  """The rows that are shown in large, each once."""
  wanted = {*neighbours['queries']}
  for near, _ in neighbours['by'].values():
    wanted |= {j for row in near for j in row}
  wanted |= (
    {error['image'] for error in verdict['errors']} if verdict else set()
  )
  return sorted(wanted)
