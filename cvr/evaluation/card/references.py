"""Numbers of the papers and of their code's pages, shown beside a card's.

Percent of images, top-1 except for _PER_CLASS. Numbers that could not be read
in a paper, its slides or its code are left out.
"""

_TABLE = "CVR's README, newest table"
_FIRST = "CVR's README, first table"
_SLIDES = "CVR's slides"
_BYOL = "BYOL's paper"
_ENTREC = "EntRec's paper"
_POSTER = "StochCon's poster"

# ImageNet, a linear head on frozen features, trained after the encoder (B).
_FROZEN = {
  'contrastive': [
    ('R50', 70.8, _TABLE), ('R50 2x', 74.6, _TABLE),
    ('R50', 69.3, "SimCLR's paper"), ('R50, 400 epochs', 69.5, _ENTREC),
    ('R50', 71.34, _POSTER),
  ],
  'contrastive_ceb': [('R50', 71.7, _TABLE), ('R50 2x', 75.0, _TABLE)],
  'byol': [
    ('R50', 74.3, _TABLE), ('R50 2x', 77.2, _TABLE),
    ('R50', 74.3, _BYOL), ('R50 2x', 77.4, _BYOL), ('R200 2x', 79.6, _BYOL),
    ('R50, 300 epochs', 72.5, _BYOL), ('R50, 400 epochs', 68.3, _ENTREC),
  ],
  'byol_ceb': [
    ('R50', 75.8, _TABLE), ('R50 2x', 78.9, _TABLE), ('R101', 77.8, _TABLE),
    ('R152', 78.7, _TABLE), ('R50, 1500 epochs', 76.0, _TABLE),
  ],
  'cmc': [('R50, 400 epochs', 69.1, _ENTREC)],
  'dino': [
    ('R50', 75.3, "DINO's code"), ('R50, 400 epochs', 71.6, _ENTREC),
  ],
  'entrec_cont': [('R50, 400 epochs', 69.7, _ENTREC)],
  'entrec_disc': [('R50, 400 epochs', 66.9, _ENTREC)],
  'moco': [
    ('R50, 200 epochs', 67.5, "MoCo's code"),
    ('R50, 800 epochs', 71.1, "MoCo's code"),
  ],
  'simsiam': [('R50, 100 epochs', 68.1, "SimSiam's code")],
  'stochcon_bernoulli': [('R50', 67.00, _POSTER)],
}  # fmt: skip

# ImageNet, the linear head that was trained along with the encoder (A).
_ONLINE = {
  'contrastive': [('R50', 71.1, _FIRST), ('R50 2x', 74.6, _FIRST)],
  'contrastive_ceb': [('R50', 71.8, _FIRST), ('R50 2x', 74.7, _FIRST)],
  'byol': [('R50', 74.4, _FIRST), ('R50 2x', 77.3, _FIRST)],
  'byol_ceb': [
    ('R50', 75.9, _FIRST), ('R50 2x', 79.1, _FIRST), ('R101', 78.0, _FIRST),
    ('R152', 78.8, _FIRST), ('R50, 1500 epochs', 76.0, _FIRST),
  ],
}  # fmt: skip

_CIFAR = {
  'stochcon_bernoulli': [('R50', 91.96, _POSTER)],
  'stochcon_gaussian': [('R50', 92.40, _POSTER)],
  'contrastive': [('R50', 91.35, _POSTER)],
}

# ImageNet, the encoder trained further on a part of the labels.
_SEMI = {
  'contrastive': {'1pct': 48.3, '10pct': 65.6},
  'byol': {'1pct': 53.2, '10pct': 68.8},
}

_ROBUSTNESS_SETS = """imagenet_a imagenet_c imagenet_r imagenet_v2 imagenet_vid
  youtube_bb objectnet"""
_ROBUSTNESS = {
  'contrastive': '1.3 35.0 18.3 57.7 63.8 57.3 18.7',
  'contrastive_ceb': '1.4 36.8 19.6 58.7 64.7 59.5 20.8',
  'byol': '1.6 42.7 24.4 62.1 67.9 60.7 23.4',
  'byol_ceb': '2.3 45.1 25.8 63.9 70.8 63.6 25.5',
}

_TRANSFER_SETS = """food101 cifar10 cifar100 flowers pets cars caltech101 dtd
  sun397 aircraft birdsnap"""
_TRANSFER = {
  'contrastive': '72.5 91.1 74.4 88.4 83.5 49.7 89.5 72.5 61.8 51.6 35.4',
  'contrastive_ceb': '73.0 91.6 75.2 89.0 84.0 52.7 91.2 73.0 62.3 53.5 38.2',
}
_PER_CLASS = {'flowers', 'pets', 'caltech101', 'aircraft'}

# TFDS names of the data sets in the papers' tables, with the same splits.
_SAME = {
  'oxford_flowers102': 'flowers',
  'oxford_iiit_pet': 'pets',
  'cars196': 'cars',
  'sun397/standard-part1-120k': 'sun397',
  'imagenet_v2/matched-frequency': 'imagenet_v2',
  'imagenet2012_corrupted': 'imagenet_c',
  'imagenet_c_recropped': 'imagenet_c',
}


def _columns(kind, sets, tables):
  """A line of values per method -> {(method, data set, kind): [reference]}."""
  return {
    (method, name, kind): [('', float(value), _SLIDES)]
    for method, values in tables.items()
    for name, value in zip(sets.split(), values.split(), strict=True)
  }


# (method, data set, kind of number) -> [(what, percent, source)].
REFERENCES = {
  **{(m, 'imagenet2012', 'linear'): rows for m, rows in _FROZEN.items()},
  **{(m, 'imagenet2012', 'online'): rows for m, rows in _ONLINE.items()},
  **{(m, 'cifar10', 'linear'): rows for m, rows in _CIFAR.items()},
  **{
    (method, 'imagenet2012', part): [('R50, finetuned', value, _BYOL)]
    for method, parts in _SEMI.items()
    for part, value in parts.items()
  },
  ('dino', 'imagenet2012', 'knn'): [('R50', 67.5, "DINO's code")],
  **_columns('robustness', _ROBUSTNESS_SETS, _ROBUSTNESS),
  **_columns('transfer', _TRANSFER_SETS, _TRANSFER),
}


def _kind(row, dataset):
  """Which of the papers' numbers a row's suite and name are, or None."""
  suite, name = row['suite'], row['name']
  if suite == 'linear' and name.startswith('online'):
    return 'online'
  if 'lbfgs' in name:
    return None  # No paper's protocol, but that of transfer.
  if suite == 'semi':
    return next((part for part in ('1pct', '10pct') if part in name), None)
  if suite == 'knn' and name != 'k20_t0.07':
    return None
  if suite == 'transfer' and 'finetune' in name:
    return None
  if suite == 'robustness' and 'pm_k' in name:
    return None  # The slides do not say; their values look like anchors'.
  # The papers' number is the mean over corruptions and severities.
  if dataset == 'imagenet_c' and not name.startswith('mean'):
    return None
  # It is of images that are cropped a second time, by robustness_metrics.
  crop = (row.get('protocol') or {}).get('crop', '')
  if dataset == 'imagenet_c' and str(crop).startswith('central, 1 '):
    return None
  return suite


def published(method, row):
  """A method's name and a card's row -> [(what, percent, source)] to compare.

  Of the same method, data set, metric, and kind of evaluation alone.
  """
  dataset = _SAME.get(row['dataset'], row['dataset'])
  # Images held out of the training data are not those of the papers.
  other = row['split'].startswith('train') or '[' in row['split']
  kind = None if other else _kind(row, dataset)
  per_class = kind == 'transfer' and dataset in _PER_CLASS
  if row['metric'] != ('mean_per_class' if per_class else 'top_1'):
    return []
  return REFERENCES.get((method, dataset, kind), [])
