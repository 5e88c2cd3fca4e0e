"""The rate and the beta of C-SimCLR in small, chosen on validation patches.

bash scripts/choose_small.sh

Trains C-SimCLR as scripts/families.py does at every learning rate, then at
every beta with the best rate, and measures a logistic probe on the validation
patches of the built-in photographs. No test patch is looked at. Of the betas it
takes the largest that is within one standard error of the best: the most
compression whose cost cannot be seen. What is done is not done again: remove
runs/choose/NAME to repeat a run. The table goes to the screen and to
runs/choose/table.md.
"""

import json
import os

import families  # Puts the project on the path.
import quickstart_table
from cvr.startup import quiet_start, stops_in_a_line

if __name__ == '__main__':
  stops_in_a_line()
quiet_start()

from cvr.data.photo_patches import PER_CLASS, PHOTOGRAPHS
from cvr.evaluation.card import page

ROOT = os.path.join('runs', 'choose')
RATES = (0.5, 1.0, 2.0)
BETAS = (0.03, 0.1, 0.3)
START = 0.1  # The beta of the runs over rates.
IMAGES = len(PHOTOGRAPHS) * PER_CLASS['validation']


def measured(rate, beta):
  """Trains and measures a run, unless that is done -> validation top-1."""
  folder = os.path.join(ROOT, f'rate_{rate:g}_beta_{beta:g}')
  path = os.path.join(folder, 'choose.json')
  if not os.path.exists(path):
    print(f'\nlearning rate {rate:g}, beta {beta:g}', flush=True)
    method = {'pretrain_loss': 'contrastive_ceb', 'eval_split': 'validation'}
    own = {'learning_rate': rate, 'ceb_beta': beta}
    families.train(folder, families.METHODS['contrastive_ceb'] | method | own)
    _, _, (accuracy,) = quickstart_table.measure(folder, ends=(-1,))
    with open(path, 'w') as file:
      json.dump(accuracy, file)
  with open(path) as file:
    return json.load(file)


def largest(by_beta, images):
  """The largest beta within one standard error of the best accuracy."""
  best = max(by_beta.values())
  error = (best * (1 - best) / images) ** 0.5
  return max(beta for beta, found in by_beta.items() if found >= best - error)


def main():
  by_rate = {rate: measured(rate, START) for rate in RATES}
  rate = max(by_rate, key=by_rate.get)
  by_beta = {beta: measured(rate, beta) for beta in BETAS}
  rows = [(r, START, by_rate[r]) for r in RATES]
  rows += [(rate, b, by_beta[b]) for b in BETAS if b != START]
  lines = page.table(
    ['learning rate', 'beta', 'validation top-1, %'],
    [[f'{r:g}', f'{b:g}', f'{100 * accuracy:.1f}'] for r, b, accuracy in rows],
  )
  with open(os.path.join(ROOT, 'table.md'), 'w') as file:
    file.write('\n'.join(lines) + '\n')
  print('\n' + '\n'.join(lines))
  print(f'learning rate {rate:g}, beta {largest(by_beta, IMAGES):g}')


if __name__ == '__main__':
  main()
