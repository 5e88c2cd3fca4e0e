"""Measures of stochastic latents: forests on bits, capacity, uncertainty.

From arrays with one row per image to dicts that json can write. A report has
the parts 'forest', 'capacity', 'uncertainty' and 'corrupted'; latents without
bits leave out the first two.
"""

import importlib

import numpy as np

from cvr.training import progress

# The number of bits that suffices for CIFAR-10 on the StochCon poster.
_FEW = 11
# Distinct for readers with and without colour vision (Okabe and Ito).
_BLUE, _RED, _GREEN = '#0072B2', '#D55E00', '#009E73'


class Missing(ImportError):
  """An optional package, and how to get it."""


def _needs(module, extra):
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise Missing(
      f"this needs {module} ({error}): pip install -e '.[{extra}]'"
    ) from error


def check_packages(forest):
  """Raises Missing before any work is done."""
  if forest:
    _needs('sklearn.ensemble', 'quickstart')
  _needs('matplotlib.figure', 'plot')


# Forests on bits -------------------------------------------------------------


def counts(k):
  """Numbers of bits to keep, of k: 1 to 11, then powers of two, then all."""
  powers = [2**i for i in range(4, k.bit_length())]
  return sorted({*range(1, min(k, _FEW) + 1), *powers, k})


def fitted(bits, labels, seed=0, trees=100):
  """[n, k], [n] -> scikit-learn's random forest."""
  ensemble = _needs('sklearn.ensemble', 'quickstart')
  forest = ensemble.RandomForestClassifier(trees, random_state=seed, n_jobs=-1)
  forest.fit(bits, labels)
  # Threads add votes in any order, which may change the winner of a near tie.
  return forest.set_params(n_jobs=1)


def ranking(bits, labels, seed=0, trees=100):
  """[n, k], [n] -> [k]: bits by their importance in a forest, best first."""
  importance = fitted(bits, labels, seed, trees).feature_importances_
  return np.argsort(-importance, kind='stable')


def forest_curve(train, test, counts, seed=0, trees=100):
  """Scores of forests on the best bits of train, for each of the counts.

  train, test: (bits [n, k], labels [n]). -> [{'bits', 'macro_f1', 'accuracy'}]
  on test. Macro-F1 is the mean over classes that are in test or predicted.
  """
  metrics = _needs('sklearn.metrics', 'quickstart')
  order = ranking(*train, seed, trees)
  curve = []
  for count in progress.over(counts, 'Forests', len(counts), 'sizes'):
    # In their original order: with all bits it is the forest that ranked them.
    best = np.sort(order[:count])
    forest = fitted(train[0][:, best], train[1], seed, trees)
    predicted = forest.predict(test[0][:, best])
    f1 = metrics.f1_score(test[1], predicted, average='macro')
    accuracy = np.mean(predicted == test[1])
    curve.append(
      {'bits': int(count), 'macro_f1': float(f1), 'accuracy': float(accuracy)}
    )
  return curve


# Capacity --------------------------------------------------------------------


def _surprise(p):
  """-p log2 p; 0 at 0 and at rounding errors below 0."""
  return -p * np.log2(p, out=np.zeros_like(p), where=p > 0)


def mutual_information(bits):
  """[n, k] -> [k, k] in bits, of the bits' frequencies; diagonal: entropies.

  For independent bits it is 1 / (2 n ln 2) on average, not 0.
  """
  # Sums of ones are exact in float32 up to 2^24 images.
  ones = bits.astype(np.float32)
  both = (ones.T @ ones).astype(np.float64) / len(bits)
  p = np.diag(both)
  first, second = p[:, None], p[None, :]
  joint = (both, first - both, second - both, 1 - first - second + both)
  joint = sum(map(_surprise, joint))
  alone = _surprise(p) + _surprise(1 - p)
  return np.maximum(alone[:, None] + alone[None, :] - joint, 0)


def _sharing(bits, labels):
  """Bits [n, k], labels [n] -> codes [n] as integers, shared [codes].

  shared: whether images of several classes have a code.
  """
  packed = np.packbits(bits, axis=1)
  rows = packed.view(f'V{packed.shape[1]}').ravel()
  codes = np.unique(rows, return_inverse=True)[1]
  with_class = np.unique(np.stack([codes, labels]), axis=1)
  return codes, np.bincount(with_class[0]) > 1


def capacity(bits, labels):
  """Entropies and codes of bits [n, k], labels [n] -> a flat dict, in bits."""
  n, k = bits.shape
  shared = mutual_information(bits)
  entropies = np.diag(shared)
  pairs = shared[~np.eye(k, dtype=bool)]
  codes, several = _sharing(bits, labels)
  ones = bits.sum(0, dtype=np.int64)
  return {
    'images': n,
    'bits': k,
    'share_of_ones': float(ones.sum() / bits.size),
    'smallest_share_in_a_bit': float(ones.min() / n),
    'largest_share_in_a_bit': float(ones.max() / n),
    'entropy_per_bit': float(entropies.mean()),
    'constant_bits': int(np.sum((ones == 0) | (ones == n))),
    'mean_mutual_information': float(pairs.mean()) if k > 1 else None,
    'max_mutual_information': float(pairs.max()) if k > 1 else None,
    'unique_codes': len(several),
    'codes_of_several_classes': int(several.sum()),
    'share_of_images_with_such_codes': float(several[codes].mean()),
  }


# Uncertainty -----------------------------------------------------------------


def auroc(positive, negative):
  """[n], [m] -> how often a positive's score is higher; a tie counts half.

  None where either is empty.
  """
  if np.isnan(positive).any() or np.isnan(negative).any():
    raise ValueError('a score is NaN, which ranks nothing')
  if not len(positive) or not len(negative):
    return None
  negative = np.sort(negative)
  below = np.searchsorted(negative, positive, 'left')
  not_above = np.searchsorted(negative, positive, 'right')
  return float(np.mean(below + not_above) / 2 / len(negative))


def _risk(score, wrong, rows):
  """Share of errors among the `rows` lowest scores.

  score [n], wrong [n] bool, rows: numbers in (0, n]. For equal scores it is the
  mean over all of their orders.
  """
  _, level, sizes = np.unique(score, return_inverse=True, return_counts=True)
  ends = np.append(0, np.cumsum(sizes))
  errors = np.append(0, np.cumsum(np.bincount(level, wrong)))
  return np.interp(rows, ends, errors) / rows


def uncertainty(score, wrong):
  """How well scores [n] rank errors [n] bool -> a dict.

  aurc: the risk averaged over coverages 1/n to 1; aurc_best: of the ideal
  ranking; aurc_random: of a random one, the error rate. curve: [[coverage,
  risk]], images of the lowest scores first.
  """
  n = len(wrong)
  wrong = wrong.astype(bool)
  rows = np.arange(1, n + 1)
  coverages = np.arange(1, 21) / 20
  risks = _risk(score, wrong, coverages * n)
  return {
    'auroc': auroc(score[wrong], score[~wrong]),
    'aurc': float(_risk(score, wrong, rows).mean()),
    'aurc_best': float(_risk(wrong, wrong, rows).mean()),
    'aurc_random': float(wrong.mean()),
    'curve': np.stack([coverages, risks], 1).tolist(),
  }


def rises(clean, corrupted):
  """Scores of clean and corrupted images, [n], {name: [n]} -> {name: a dict}.

  rose: the share of images whose score is higher than when clean.
  """
  return {
    name: {
      'mean': float(np.mean(scores)),
      'clean_mean': float(np.mean(clean)),
      'rose': float(np.mean(scores > clean)),
      'auroc': auroc(scores, clean),
    }
    for name, scores in corrupted.items()
  }


# For readers -----------------------------------------------------------------


def _shown(value):
  if value is None:
    return '-'
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _markdown(head, rows):
  rows = [head, ['---'] * len(head), *rows]
  return [f'| {" | ".join(map(_shown, row))} |' for row in rows] + ['']


def table(report):
  """report -> lines of Markdown, a table for each of its parts."""
  lines = []
  if 'forest' in report:
    names = ('bits', 'macro_f1', 'accuracy')
    rows = [[row[name] for name in names] for row in report['forest']]
    lines += _markdown(['bits', 'macro-F1', 'accuracy'], rows)
  for part in ('capacity', 'uncertainty'):
    numbers = [
      [name.replace('_', ' '), value]
      for name, value in report.get(part, {}).items()
      if name != 'curve'
    ]
    if numbers:
      lines += _markdown([part, ''], numbers)
  if 'corrupted' in report:
    names = ('mean', 'clean_mean', 'rose', 'auroc')
    rows = [
      [corruption, *[row[name] for name in names]]
      for corruption, row in report['corrupted'].items()
    ]
    head = ['corruption', 'mean', 'clean mean', 'rose', 'AUROC']
    lines += _markdown(head, rows)
  return lines


def _draw_forest(axes, report):
  curve = report['forest']
  points = np.array([[row['bits'], row['macro_f1']] for row in curve])
  axes.semilogx(*points.T, base=2, color=_BLUE, marker='.', label='best bits')
  bits, f1 = points[-1]
  axes.axhline(
    f1, color='0.5', linestyle='--', label=f'all {bits:.0f}: {f1:.3f}'
  )
  for bits, f1 in points[points[:, 0] == _FEW]:
    axes.plot(
      bits, f1, color=_RED, marker='o', markersize=9, linestyle='none',
      label=f'{_FEW} bits: {f1:.3f}',
    )  # fmt: skip
  axes.xaxis.set_major_formatter('{x:.0f}')
  axes.set(
    xlabel='bits kept, by importance on train', ylabel='macro-F1 on test',
    title='Random forests: how few bits tell the classes?', ylim=(0, 1.02),
  )  # fmt: skip


def _draw_risk(axes, report):
  measured = report['uncertainty']
  error = measured['aurc_random']
  coverage = np.linspace(0.01, 1, 100)
  best = np.maximum(coverage - (1 - error), 0) / coverage
  axes.axhline(
    error, color='0.5', linestyle='--', label=f'random: AURC {error:.3f}'
  )
  axes.plot(
    *np.array(measured['curve']).T, color=_BLUE, marker='.',
    label=f'scores: {measured["aurc"]:.3f}',
  )  # fmt: skip
  axes.plot(
    coverage, best, color=_GREEN, label=f'best: {measured["aurc_best"]:.3f}'
  )
  axes.set(
    xlabel='coverage: share of images kept, most certain first',
    ylabel='risk: share of errors among them', xlim=(0, 1.02),
    title='Is the probe wrong where the latent is uncertain?\n'
    f'AUROC {_shown(measured["auroc"])}, 0.5 by chance',
  )  # fmt: skip
  axes.set_ylim(bottom=0)


def draw(report, path):
  """Draws the report's forest and risk as PNG; nothing if it has neither.

  path: its name, or a file that is open for writing.
  """
  panels = {'forest': _draw_forest, 'uncertainty': _draw_risk}
  panels = [panel for part, panel in panels.items() if part in report]
  if not panels:
    return
  # Not pyplot, which needs a display and keeps figures open.
  figure = _needs('matplotlib.figure', 'plot').Figure(
    figsize=(5.5 * len(panels), 5), layout='constrained'
  )
  row = figure.subplots(1, len(panels), squeeze=False)[0]
  for panel, axes in zip(panels, row, strict=True):
    panel(axes, report)
    # Below the axes, clear of the curves.
    axes.legend(
      frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.13), ncols=3
    )
  if 'dataset' in report:
    figure.suptitle(f'The latent on {report["dataset"]}, {report["split"]}')
  figure.savefig(path, dpi=150, format='png')
