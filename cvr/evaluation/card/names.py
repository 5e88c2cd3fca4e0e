"""What the rows of a card are called for readers, and which come first."""

import re

_FIXED = {
  'linear/online': 'probe of the run',
  'linear/online_5': 'probe of the run, top-5',
  'linear/sgd_simclr': 'linear, SGD (SimCLR)',
  'linear/sgd_byol': 'linear, SGD (BYOL)',
  'linear/lbfgs': 'linear, L-BFGS',
  'compression/residual_information/projections': 'I(X;Z|Y) above its floor',
  'compression/residual_information/method': 'I(X;Z|Y) of the method',
  'compression/relevant_information': 'I(Y;Z)',
  'compression/feature_std': 'spread of projections',
  'compression/effective_rank': 'effective rank',
  'compression/alignment': 'distance of two views',
  'compression/uniformity': 'uniformity',
  'robustness/mce': 'mean corruption error',
}
_HEADS = {
  'online': 'probe of the run',
  'sgd_byol': 'linear, SGD (BYOL)',
  'sgd_simclr': 'linear, SGD (SimCLR)',
  'lbfgs': 'linear, L-BFGS',
}
# The neighbours that papers report, of all that are on a card.
_NEIGHBOURS = r'k20_t0\.07'
_SUITES = {
  'linear': 'linear classifiers',
  'knn': 'nearest neighbours',
  'semi': 'few labels',
  'transfer': 'other data sets',
  'transfer_finetune': 'other data sets, finetuned',
  'robustness': 'robustness',
  'compression': 'compression',
}


def suite(name):
  """A suite for readers."""
  return _SUITES.get(name, spaced(name))


def spaced(name):
  """'gaussian_noise' -> 'gaussian noise'."""
  return name.replace('_', ' ')


def head(name):
  """The classifier that a curve or a row is of."""
  return _HEADS.get(name, spaced(name))


def of_row(row):
  """A row of a card -> what it measures, in some words."""
  suite, name = row['suite'], row['name']
  fixed = _FIXED.get(f'{suite}/{name}')
  if fixed:
    return fixed
  found = re.fullmatch(r'k(\d+)_t([\d.]+)', name)
  if found:
    return f'{found[1]} neighbours, temperature {found[2]}'
  found = re.fullmatch(r'(\d+)_numbers_of_(\d+)_bits', name)
  if found:
    return f'{found[1]} numbers of {found[2]} bits'
  found = re.fullmatch(r'(\d+)pct_(\w+)', name)
  if found:
    return f'{found[1]}% of the labels, {spaced(found[2])}'
  found = re.fullmatch(r'lipschitz_(max|mean)/(\w+)', name)
  if found:
    which = 'largest' if found[1] == 'max' else 'mean'
    return f'{which} change per change of the image, {spaced(found[2])}'
  if is_untrained(row):
    return 'untrained encoder, ' + of_row(row | {'name': name[10:]})
  first, _, last = name.rpartition('/')
  if first:
    first = {'corrupted': 'all corruptions'}.get(first, spaced(first))
    return f'{first}: {head(last)}'
  return spaced(name)


def of_panel(name):
  """The title of a curve's panel."""
  found = re.fullmatch(r'lipschitz_(max|mean)/(\w+)', name)
  if found:
    return (
      f'how far the {spaced(found[2])} moves\nbetween two views of an image'
    )
  if name == 'linear classification':
    return 'linear classification\nfrom fewer bits'
  return spaced(name)


def is_untrained(row):
  """Whether a row is of the encoder as it was before training."""
  return row['name'].startswith('untrained/')


def is_headline(row):
  """Whether a row says on its own what the encoder is worth."""
  suite, name = row['suite'], row['name']
  if suite == 'knn':
    return bool(re.fullmatch(_NEIGHBOURS, name))
  if suite == 'robustness':
    return name.partition('/')[0] in ('mean', 'corrupted')
  return suite in ('linear', 'semi') and row['metric'] == 'top_1'
