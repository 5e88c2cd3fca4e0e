"""Does compression help? SimCLR and BYOL against their compressive twins.

python scripts/reproduce_small.py

Trains each of the four with three seeds on the built-in photographs, makes
their evaluation cards, and compares each pair seed by seed and image by image.
What is done already is not done again: remove runs/reproduce/NAME to repeat a
run. The tables go to the screen and to runs/reproduce/results.md.
"""

import os
import sys

import numpy as np

import families  # Puts the project on the path.
from cvr.startup import call, quiet_start, stops_in_a_line

if __name__ == '__main__':
  stops_in_a_line()
quiet_start()

from cvr.evaluation import statistics
from cvr.evaluation.card import files, page, schema

ROOT = os.path.join('runs', 'reproduce')
SEEDS = (0, 1, 2)
PAIRS = {'contrastive': 'contrastive_ceb', 'byol': 'byol_ceb'}
# Half as long again as scripts/families.py, whose settings these are.
STEPS = 240
_FLAGS = (
  *('--mode=evaluate', '--suite=linear,knn,robustness,compression'),
  *('--corrupt=all', '--use_tpu=false'),
)
_SPLIT = 'photo_patches/32px:2.0.0/test'
# What is compared: the key of a card's number -> its name for readers.
NUMBERS = {
  f'linear/online/{_SPLIT}': 'linear, online probe (A), %',
  f'linear/sgd_simclr/{_SPLIT}': "linear, frozen, SimCLR's SGD (B), %",
  f'linear/sgd_byol/{_SPLIT}': "linear, frozen, BYOL's SGD (B), %",
  f'linear/lbfgs/{_SPLIT}': 'linear, frozen, logistic regression, %',
  f'knn/k20_t0.07/{_SPLIT}': 'kNN, k 20, temperature 0.07, %',
  f'robustness/corrupted/sgd_byol/{_SPLIT}': '15 corruptions, BYOL\'s SGD, %',
  f'robustness/corrupted/online/{_SPLIT}': '15 corruptions, online probe, %',
  f'compression/residual_information/projections/{_SPLIT}': (
    'I(X;Z|Y) above its floor, nats'
  ),
  f'compression/relevant_information/{_SPLIT}': 'I(Y;Z), InfoNCE, nats',
  f'compression/lipschitz_mean/representation/{_SPLIT}': (
    'Lipschitz ratio of h, mean, x 1000'
  ),
  f'compression/lipschitz_max/representation/{_SPLIT}': (
    'Lipschitz ratio of h, largest, x 1000'
  ),
  f'compression/lipschitz_mean/projection/{_SPLIT}': (
    'Lipschitz ratio of the projection, mean, x 1000'
  ),
}  # fmt: skip


def folder(method, seed):
  return os.path.join(ROOT, f'{method}_{seed}')


def settings(method, seed):
  """The flags of a run, beside those of scripts/families.py."""
  # LARS makes up for the scale of a loss, but not for batch norm: both of a
  # pair have the same.
  twin = families.METHODS[PAIRS.get(method, method)]
  same = {k: v for k, v in twin.items() if k == 'byol_loss_weight'}
  return (
    families.METHODS[method]
    | same
    | {
      'pretrain_loss': method,
      'train_steps': STEPS,
      'seed': seed,
      'checkpoint_steps': STEPS,
    }
  )


def evaluate(model_dir):
  """-> a run's card and its scores, made where they are not."""
  path = os.path.join(model_dir, 'eval', 'card.json')
  try:
    found, scores = files.read(path)
  except schema.CardError:
    found = {'numbers': []}
  # A card is written after every suite: it may lack the last ones.
  if not {*NUMBERS} <= {schema.key(row) for row in found['numbers']}:
    flags = [*_FLAGS, f'--model_dir={model_dir}']
    if call(sys.executable, 'run.py', *flags):
      sys.exit(f'{model_dir}: see above. The same command resumes.')
    found, scores = files.read(path)
  return {schema.key(row): row for row in found['numbers']}, scores


def _unit(row):
  """What a number is multiplied with for readers."""
  if row['metric'] in schema.SHARES:
    return 100
  return 1000 if row['metric'] == 'ratio' else 1


def _of_seeds(found):
  return f'{found["mean"]:.2f} ± {found["sd"]:.2f}'


def _interval(found, unit=1):
  if found['low'] is None:
    return ''
  low, high = (unit * found[end] for end in ('low', 'high'))
  return f'{low:+.2f} to {high:+.2f}, p = {found["p_value"]:.2g}'


def _by_image(key, plain, compressive):
  """The difference of scores, each image's mean over seeds, in percent."""
  pairs = [
    np.mean([scores[key] for _, scores in cards], 0)
    for cards in (plain, compressive)
    if all(key in scores for _, scores in cards)
  ]
  if len(pairs) < 2:
    return ''
  rows, scores = plain[0]
  clusters = None
  if rows[key].get('protocol', {}).get('interval_over'):
    # All patches of a class are of one photograph.
    images = '/'.join(rows[key][part] for part in ('dataset', 'split'))
    clusters = scores[f'labels/{images}']
  return _interval(statistics.paired(*pairs, clusters=clusters), 100)


def comparison(plain, compressive):
  """Cards of both, a list over seeds each -> rows of a table."""
  rows = []
  for key, name in NUMBERS.items():
    unit = _unit(plain[0][0][key])
    values = [
      [unit * numbers[key]['value'] for numbers, _ in cards]
      for cards in (plain, compressive)
    ]
    apart = statistics.paired_over_seeds(*values)
    rows.append([
      name,
      *(_of_seeds(statistics.over_seeds(of)) for of in values),
      f'{apart["mean"]:+.2f}', _interval(apart),
      _by_image(key, plain, compressive),
    ])  # fmt: skip
  return rows


def tables(cards):
  """{(method, seed): its card} -> lines of Markdown."""
  lines = []
  for plain, compressive in PAIRS.items():
    rows = comparison(
      *([cards[m, seed] for seed in SEEDS] for m in (plain, compressive))
    )
    head = ['', plain, compressive, 'difference']
    head += ['95% interval over seeds', '95% interval over images']
    lines += page.table(head, rows)
  return lines


def main():
  cards = {}
  for seed in SEEDS:
    for method in (m for pair in PAIRS.items() for m in pair):
      print(f'\n{method}, seed {seed}', flush=True)
      model_dir = folder(method, seed)
      families.train(model_dir, settings(method, seed))
      cards[method, seed] = evaluate(model_dir)
  lines = tables(cards)
  with open(os.path.join(ROOT, 'results.md'), 'w') as file:
    file.write('\n'.join(lines))
  print('\n' + '\n'.join(lines))


if __name__ == '__main__':
  main()
