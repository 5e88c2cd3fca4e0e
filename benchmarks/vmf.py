"""Our sampler of von Mises-Fisher against tensorflow-probability's.

pip install tensorflow-probability tf-keras
python -m benchmarks.vmf
"""

import argparse
import sys

import run

run.quiet_start()

import tensorflow as tf  # noqa: E402

import distributions  # noqa: E402
from benchmarks import timing  # noqa: E402


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--dim', type=int, default=256)
  parser.add_argument('--batch', type=int, default=4096)
  parser.add_argument('--kappas', default='1024,16384')
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  try:
    import tensorflow_probability as tfp
  except ImportError:
    sys.exit('benchmarks.vmf: pip install tensorflow-probability')
  mu = tf.math.l2_normalize(tf.random.normal([args.batch, args.dim]), -1)
  rows = []
  for kappa in map(float, args.kappas.split(',')):

    @tf.function(autograph=False)
    def ours(mu, kappa=kappa):
      noise = tf.random.normal([args.batch, args.dim + 1])
      z = distributions.vmf_sample(mu, kappa, noise)
      return z, distributions.vmf_log_prob(z, mu, kappa)

    @tf.function
    def theirs(mu, kappa=kappa):
      law = tfp.distributions.VonMisesFisher(mu, kappa)
      z = law.sample()
      return z, law.log_prob(z)

    found = timing.best(
      {
        'ours': lambda f=ours: f(mu)[1].numpy(),
        'tfp': lambda f=theirs: f(mu)[1].numpy(),
      }
    )
    rows.append(
      {
        'dim': args.dim,
        'batch': args.batch,
        'kappa': f'{kappa:g}',
        'ours ms': f'{1e3 * found["ours"]:.1f}',
        'tfp ms': f'{1e3 * found["tfp"]:.1f}',
        'tfp/ours': f'{found["tfp"] / found["ours"]:.1f}',
      }
    )
  timing.report('vmf', rows, args.out)


if __name__ == '__main__':
  main()
