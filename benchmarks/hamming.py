"""Codes per second of a search by Hamming distance, on one thread.

copy: copying the same words, the limit that memory sets to any pass over them.

python -m benchmarks.hamming
"""

import argparse

import numpy as np

from benchmarks import timing
from cvr.evaluation.search import hamming


def cases(bits, codes, queries):
  """{name: function}: a copy, a search for one query and for several."""
  rng = np.random.default_rng(0)
  words = rng.integers(0, 2**64, [bits // 64, codes], dtype=np.uint64)
  asked = rng.integers(0, 256, [queries, bits // 8], dtype=np.uint8)
  index = hamming.Index(words, bits, None, None, {})
  room = np.empty_like(words)

  def search(queries):
    return hamming.nearest(index, queries, 10, 'numpy')

  return {
    'copy': lambda: np.copyto(room, words),
    'one': lambda: search(asked[:1]),
    'several': lambda: search(asked),
  }


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--bits', default='64,128,512,2048')
  parser.add_argument('--codes', type=int, default=2**20)
  parser.add_argument('--queries', type=int, default=8)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  rows = []
  for bits in map(int, args.bits.split(',')):
    seconds = timing.best(cases(bits, args.codes, args.queries), rounds=10)
    size = args.codes * bits / 8e9
    several = seconds['several'] / args.queries
    rows.append(
      {
        'bits': bits,
        'codes': args.codes,
        'copy GB/s': f'{size / seconds["copy"]:.1f}',
        'one query GB/s': f'{size / seconds["one"]:.1f}',
        'codes/us': f'{args.codes / seconds["one"] / 1e6:.0f}',
        f'each of {args.queries} GB/s': f'{size / several:.1f}',
        f'codes/us, {args.queries}': f'{args.codes / several / 1e6:.0f}',
      }
    )
  timing.report('hamming', rows, args.out)


if __name__ == '__main__':
  main()
