"""Does compression help? SimCLR and BYOL against their compressive twins.

python scripts/reproduce_small.py
"""

import os

import families

ROOT = os.path.join('runs', 'reproduce')
SEEDS = (0, 1, 2)
PAIRS = {'contrastive': 'contrastive_ceb', 'byol': 'byol_ceb'}
# Half as long again as scripts/families.py, whose settings these are.
STEPS = 240


def folder(method, seed):
  return os.path.join(ROOT, f'{method}_{seed}')


def main():
  for seed in SEEDS:
    for method in (m for pair in PAIRS.items() for m in pair):
      settings = families.METHODS[method] | {
        'pretrain_loss': method,
        'train_steps': STEPS,
        'seed': seed,
        'checkpoint_steps': STEPS,
      }
      families.train(folder(method, seed), settings)


if __name__ == '__main__':
  main()
