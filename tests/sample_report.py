"""What collect gives for a run, made up: all parts of a page."""

import numpy as np

from cvr.report import measures
from cvr.report.tiles import Sheet

NAMES = ['bird', 'cat <b>', 'dog']


def sheet(count, side=32):
  """A Sheet whose picture is no picture: pages do not look at it."""
  return Sheet(b'\xff\xd8 no picture', min(count, 60), count, side, side)


def images(count=30, classes=3, bits=False, labels=True):
  """The pictures of a run: plain data."""
  random = np.random.default_rng(0)
  rows = random.normal(size=[count, 8])
  points, shares = measures.pca(rows)
  owner = (np.arange(count) % classes).tolist()
  near = {'cosine': [[[1, 2], [3, 4]], [[0.9, 0.8], [0.7, 0.65]]]}
  near |= {'bits': [[[2, 1], [4, 3]], [[3, 5], [2, 7]]]} if bits else {}
  names = (NAMES * classes)[:classes]
  counts, edges = measures.histogram({'same': [0.9, 0.8], 'other': [0.1]}, 8)
  found = {
    'dataset': 'folder:/x', 'split': 'val', 'count': count, 'of': 2 * count,
    'bad': 1, 'class_names': names if labels else [],
    'labels': owner if labels else [-1] * count,
    'names': [f'image<{i}>.png' for i in range(count)], 'side': 32,
    'maps': {'PCA': {'x': points[:, 0].tolist(), 'y': points[:, 1].tolist(),
                     'shares': shares.tolist()}},
    'sheet': sheet(count), 'neighbours': {'queries': [0, 5], 'by': near},
    'verdict': None, 'large': [[0, 1, 2, 3, 4, 5], sheet(6)],
    'spectrum': [0.7, 0.2, 0.1], 'rank': 2.2, 'width': 8,
    'pairs': {'sheet': sheet(4), 'cosines': [0.9, 0.8], 'means': [0.85, 0.1],
              'histogram': [counts, edges], 'count': 2, 'residual_floor': 1.0},
  }  # fmt: skip
  if labels:
    accuracy = {'value': 0.75, 'low': 0.6, 'high': 0.9, 'images': count}
    found['same_class'], found['chance'] = accuracy, 1 / 3
    found['verdict'] = {
      'accuracy': accuracy, 'classes': [0, 1, 2],
      'matrix': [[8, 2, 0], [1, 9, 0], [0, 0, 10]],
      'errors': [{'image': 4, 'predicted': 0, 'probability': 0.875}],
    }  # fmt: skip
  return found


def metrics(steps=5):
  """Summaries, one value of which is no number."""
  at = [10 * i for i in range(1, steps + 1)]
  values = [float(i) for i in range(steps)]
  broken = [float('nan'), *values[1:]]
  return {
    'train/total_loss': (at, broken),
    'train/supervised_acc': (at, [v / 10 for v in values]),
    'train/made_up_metric': (at, values),
    'information/entropy': (at, values),
    'information/reconstruction': (at, [-v for v in values]),
    'information/residual': (at, [v + 2 for v in values]),
  }


def card_row(suite='linear', name='lbfgs', value=0.5):
  return {
    'suite': suite, 'name': name, 'dataset': 'd', 'split': 'test',
    'metric': 'top_1', 'value': value, 'low': value - 0.1, 'high': value + 0.1,
    'images': 100,
  }  # fmt: skip


def run(name='a', **changes):
  """A whole run, with parts of it replaced."""
  found = {
    'name': name, 'folder': f'/runs/{name}', 'title': 'C-SimCLR',
    'settings': {'resnet_depth': '18', 'image_size': '32', 'seed': '0',
                 'dataset': 'folder:/x', 'train_batch_size': '8'},
    'preset': 'quickstart', 'changed': {'seed': ('3', '0')},
    'examples': 80, 'classes': 3, 'environment': {'python': '3.11'},
    'metrics': metrics(), 'result': {}, 'step': 50,
    'bad_images': {'count': 1, 'rows': [('x.jpg', 'cannot be decoded')]},
    'card': {'numbers': [card_row()], 'step': 50, 'created': None},
    'images': images(), 'notes': [], 'written': '2026-12-01 02:00',
  }  # fmt: skip
  return found | changes
