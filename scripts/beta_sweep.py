"""How much to compress? C-SimCLR in small over beta and kappa_e.

python scripts/beta_sweep.py

Trains a run for each value in SWEEP and makes its card; then compares them all,
with a plot of rate against accuracy (runs/sweep/comparison). What is done is
not done again: remove runs/sweep/NAME to repeat a run.
"""

import os
import sys

import families  # Puts the project on the path.
from cvr.startup import call, quiet_start, stops_in_a_line

if __name__ == '__main__':
  stops_in_a_line()
quiet_start()

from cvr.evaluation.card import comparison, files, schema

ROOT = os.path.join('runs', 'sweep')
BETAS = (0.0, 0.03, 0.1, 0.3, 1.0)
KAPPAS = (256.0, 1024.0, 16384.0)
# Beta at the published kappa_e, and kappa_e at the beta of short runs.
SWEEP = [(beta, 1024.0) for beta in BETAS]
SWEEP += [(0.1, kappa) for kappa in KAPPAS if kappa != 1024]


def folder(beta, kappa_e):
  return os.path.join(ROOT, f'beta_{beta:g}_kappa_{kappa_e:g}')


def settings(beta, kappa_e):
  """The flags of a run, beside those of scripts/families.py."""
  return families.METHODS['contrastive_ceb'] | {
    'pretrain_loss': 'contrastive_ceb',
    'ceb_beta': beta,
    'kappa_e': kappa_e,
  }


def run(*flags):
  if call(sys.executable, 'run.py', *flags):
    sys.exit('See above. The same command resumes.')


def measured(model_dir):
  """Whether a run's card has all, or only what came before an interruption."""
  try:
    found, _ = files.read(os.path.join(model_dir, 'eval'))
  except schema.CardError:
    return False
  (point,) = comparison.points([found])
  return all(point[name] for name in ('rate', 'relevant', 'accuracy'))


def main():
  for beta, kappa_e in SWEEP:
    print(f'\nbeta {beta:g}, kappa_e {kappa_e:g}', flush=True)
    model_dir = folder(beta, kappa_e)
    families.train(model_dir, settings(beta, kappa_e))
    if not measured(model_dir):
      run(
        *('--mode=evaluate', '--suite=linear,compression', '--use_tpu=false'),
        f'--model_dir={model_dir}',
      )
  cards = ','.join(
    os.path.join(folder(*values), 'eval', 'card.json') for values in SWEEP
  )
  run('--mode=compare', f'--cards={cards}', f'--output={ROOT}/comparison')


if __name__ == '__main__':
  main()
