"""Our sampler of von Mises-Fisher against tensorflow-probability's.

Beside them what no sampler can beat: a random integer for each number.

pip install tensorflow-probability tf-keras
python -m benchmarks.vmf
"""

import argparse
import sys

from cvr.startup import quiet_start

quiet_start()

import tensorflow as tf

from benchmarks import timing
from cvr.numerics import (
  distributions,
  randomness,
)


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
  seed = tf.constant([1, 2])

  @tf.function(autograph=False)
  def bits(seed):
    """As many as there are numbers in the samples."""
    return tf.random.stateless_uniform(
      mu.shape, seed, None, None, tf.int32, alg='philox'
    )

  rows = []
  for kappa in map(float, args.kappas.split(',')):

    @tf.function(autograph=False)
    def ours(mu, seed, kappa=kappa):
      noise = randomness.normal([args.batch, args.dim + 1], seed)
      z = distributions.vmf_sample(mu, kappa, noise)
      return z, distributions.vmf_log_prob(z, mu, kappa)

    @tf.function
    def theirs(mu, kappa=kappa):
      law = tfp.distributions.VonMisesFisher(mu, kappa)
      z = law.sample()
      return z, law.log_prob(z)

    found = timing.best(
      {
        'bits': lambda: bits(seed).numpy(),
        'ours': lambda f=ours: f(mu, seed)[1].numpy(),
        'tfp': lambda f=theirs: f(mu)[1].numpy(),
      }
    )
    rows.append(
      {
        'dim': args.dim,
        'batch': args.batch,
        'kappa': f'{kappa:g}',
        'random bits ms': f'{1e3 * found["bits"]:.1f}',
        'ours ms': f'{1e3 * found["ours"]:.1f}',
        'tfp ms': f'{1e3 * found["tfp"]:.1f}',
        'tfp/ours': f'{found["tfp"] / found["ours"]:.1f}',
      }
    )
  timing.report('vmf', rows, args.out)


if __name__ == '__main__':
  main()
