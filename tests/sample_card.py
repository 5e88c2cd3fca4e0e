"""A card as an evaluation writes it, of made-up scores."""

import numpy as np

from cvr.evaluation import statistics
from cvr.evaluation.card import schema

IMAGES = 2000
CORRUPTIONS = """gaussian_noise shot_noise impulse_noise defocus_blur glass_blur
  motion_blur zoom_blur snow frost fog brightness contrast elastic_transform
  pixelate jpeg_compression""".split()
TRANSFER = {
  'food101': ('top_1', 0.725), 'cifar10': ('top_1', 0.911),
  'cifar100': ('top_1', 0.744), 'flowers': ('mean_per_class', 0.884),
  'pets': ('mean_per_class', 0.835), 'cars': ('top_1', 0.497),
  'caltech101': ('mean_per_class', 0.895), 'dtd': ('top_1', 0.725),
  'sun397': ('top_1', 0.618), 'aircraft': ('mean_per_class', 0.516),
}  # fmt: skip
GRID = np.logspace(-6, 5, 45).tolist()


class Sample:
  """Collects rows and scores; `skill` moves all accuracies."""

  def __init__(self, seed=0, skill=0.0, images=IMAGES):
    self.random = np.random.default_rng(seed)
    self.skill, self.images = skill, images
    self.rows, self.scores = [], {}

  def right(self, share):
    # The same images are hard whatever the checkpoint.
    hard = np.random.default_rng(1).random(self.images)
    noise = 0.1 * self.random.normal(size=self.images)
    return (hard + noise < share + self.skill).astype(np.float32)

  def add(self, suite, name, dataset, share, metric='top_1', **more):
    row = {
      'suite': suite, 'name': name, 'dataset': dataset, 'split': 'test',
      'metric': metric, 'protocol': {'crop': 'centre 224 of 256', 'bn':
      'moving statistics', 'layer': 'representation', 'seed': 0},
    }  # fmt: skip
    row['protocol'] |= more.pop('protocol', {})
    scores = more.pop('scores', self.right(share))
    ids = np.array([f'{dataset}-{i:05d}' for i in range(self.images)])
    labels = np.arange(self.images) % 10
    self.scores[schema.key(row)] = scores
    self.scores[f'ids/{dataset}/test'] = ids
    self.scores[f'labels/{dataset}/test'] = labels
    by_class = labels if metric == 'mean_per_class' else None
    self.rows.append(row | statistics.interval(scores, by_class) | more)

  def plain(self, suite, name, metric, value, curve=None):
    row = {
      'suite': suite, 'name': name, 'dataset': 'imagenet2012',
      'split': 'test', 'metric': metric, 'value': value, 'low': None,
      'high': None, 'images': self.images, 'protocol': {'pairs': 20_000},
    }  # fmt: skip
    self.rows.append(row | ({'curve': curve} if curve else {}))


def _compression(sample):
  def curve(x, y, x_label, y_label):
    return {'x': x, 'y': y, 'x_label': x_label, 'y_label': y_label}

  bits = [2**i for i in range(5, 17)]
  sample.plain('compression', 'rate', 'nats', 4.31, curve(
    [1.2, 2.5, 4.3, 6.0, 9.4], [0.6, 0.71, 0.743, 0.75, 0.74],
    'I(X;Z|Y), nats', 'accuracy'))  # fmt: skip
  counts, edges = np.histogram(sample.random.gamma(9, 0.1, 20_000), 40)
  sample.plain('compression', 'lipschitz_mean', 'ratio', 0.9, curve(
    edges.tolist(), counts.tolist(), 'lower bound of K', 'pairs'))  # fmt: skip
  sample.plain('compression', 'quantised', 'top_1', 0.731, curve(
    bits, [0.75 - 2 / i for i in bits], 'bits per image', 'accuracy'
  ))  # fmt: skip
  sample.plain('compression', 'pca', 'top_1', 0.74, curve(
    bits[:7], [0.75 - 4 / i for i in bits[:7]], 'dimensions', 'accuracy'
  ))  # fmt: skip


def make(seed=0, skill=0.0, method='byol_ceb', images=IMAGES):
  """-> card, scores: all suites, about fifty rows."""
  sample = Sample(seed, skill, images)
  main = 'imagenet2012'
  sample.add('linear', 'online', main, 0.74)
  for name, rates in (('sgd_simclr', [1.6]), ('sgd_byol', [0.4, 0.3, 0.2])):
    protocol = {'grid': {'learning_rate': rates}}
    protocol['chosen'] = {'learning_rate': rates[0]}
    sample.add('linear', name, main, 0.75, protocol=protocol)
  for k in (10, 20, 100, 200):
    sample.add('knn', f'k{k}_t0.07', main, 0.65 - k / 4000)
  sample.add('semi', '1pct_simclr', main, 0.53)
  sample.add('semi', '10pct_simclr', main, 0.69)
  for dataset, (metric, share) in TRANSFER.items():
    protocol = {'crop': 'centre 224 of 224', 'grid': {'l2': GRID}}
    protocol['chosen'] = {'l2': float(sample.random.choice(GRID))}
    sample.add('transfer', 'logistic', dataset, share, metric,
               protocol=protocol)  # fmt: skip
  sample.add('robustness', 'imagenet_a', 'imagenet_a', 0.02,
             protocol={'class_mask': list(range(0, 1000, 5))})  # fmt: skip
  sample.add('robustness', 'imagenet_v2', 'imagenet_v2', 0.64)
  for i, name in enumerate(CORRUPTIONS):
    levels = [0.7 - 0.02 * (1 + i % 5) * level for level in range(1, 6)]
    sample.add('robustness', name, main, float(np.mean(levels)), curve={
      'x': [1, 2, 3, 4, 5], 'y': levels, 'x_label': 'severity',
      'y_label': 'accuracy'})  # fmt: skip
  mean = np.mean([sample.right(0.45) for _ in range(75)], 0)
  sample.add('robustness', 'mean', main, 0.45, scores=mean)
  sample.plain('robustness', 'mce', 'mce', 0.78)
  _compression(sample)
  made = {
    'version': schema.VERSION,
    'checkpoint': {
      'path': f'runs/{method}/ckpt-100', 'hash': f'{seed:08x}', 'step': 100,
      'epochs': 7.8125, 'method': method,
      'settings': {
        'dataset': main, 'resnet_depth': 50, 'train_batch_size': 256,
      },
    },
    'created': '2025-01-31T12:00:00+00:00',
    'versions': {'tensorflow': '2.17.0', 'numpy': '1.26.4'},
    'numbers': sample.rows,
    'missing': [{'suite': 'transfer', 'name': 'birdsnap', 'why':
                 'TFDS has no Birdsnap: --transfer=birdsnap=folder:PATH'}],
  }  # fmt: skip
  return made, sample.scores
