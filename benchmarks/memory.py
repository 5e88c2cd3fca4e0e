"""Memory of a step as the batch grows, with and without a gradient cache.

  python -m benchmarks.memory

Each row is a process of its own; what it used most is what the kernel says,
less what it used before its first step.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys

from cvr.startup import quiet_start

quiet_start()


def measure(batch, chunk, size, depth):
  """Prints the megabytes that two steps need beyond the model."""

  from benchmarks import step

  cfg = step.make_config('contrastive', depth, size, batch, 'fp32')
  cfg = dataclasses.replace(cfg, grad_cache_chunk=chunk)
  train_step, *_ = step.whole_step(cfg)
  data = step.make_batch(cfg, augmented=True)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for _ in range(2):
    train_step(data)
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  images = sum(v.numpy().nbytes for v in data['views']) / 2**20
  print(f'MB {(after - before) / 1024:.0f} {images:.0f}')


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--batches', default='256,1024,4096')
  parser.add_argument('--whole', default='256,1024', help='without a cache')
  parser.add_argument('--chunk', type=int, default=128)
  parser.add_argument('--image_size', type=int, default=32)
  parser.add_argument('--resnet_depth', type=int, default=18)
  parser.add_argument('--out', default='runs/benchmarks')
  parser.add_argument('--one', help='internal: BATCH,CHUNK of this process')
  args = parser.parse_args(argv)
  if args.one:
    batch, chunk = map(int, args.one.split(','))
    return measure(batch, chunk, args.image_size, args.resnet_depth)
  rows = []
  plan = [(int(b), 0) for b in args.whole.split(',')]
  plan += [(int(b), args.chunk) for b in args.batches.split(',')]
  for batch, chunk in plan:
    command = [sys.executable, '-m', 'benchmarks.memory', *sys.argv[1:]]
    done = subprocess.run(
      [*command, f'--one={batch},{chunk}'],
      capture_output=True,
      text=True,
      check=True,
    )
    used, images = done.stdout.split('MB ')[1].split()
    rows.append(
      {
        'batch': batch,
        'chunk': chunk or 'all',
        'MB of a step': used,
        'MB of images': images,
        # Of one direction of the loss, which has several such.
        'MB of a matrix of logits': f'{4 * batch * 2 * batch / 2**20:.1f}',
      }
    )
  from benchmarks import timing

  return timing.report('memory', rows, args.out)


if __name__ == '__main__':
  main()
