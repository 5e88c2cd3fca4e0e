"""Seconds of heads and neighbours on cached features: wall clock and CPU.

Features like a ResNet-50's after its last ReLU: not negative, of many classes
that overlap. path: 45 values of l2, each from the head before, and the refit;
cold: every eighth of these values from zeros.

python -m benchmarks.probes
"""

import argparse
import time

from cvr.startup import quiet_start

quiet_start()

import numpy as np

from benchmarks import timing
from cvr.evaluation.heads import knn, linear

_EVERY = 8  # Of the values of l2, those that also start cold.


def features(images, dim, classes, seed=0):
  """-> ([images, dim] float32 >= 0, labels [images]), about half of it 0."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(classes, size=images)
  latent = 0.35 * np.random.default_rng(99).normal(size=[classes, 64])
  latent = latent[labels] + rng.normal(size=[images, 64])
  mixed = latent @ np.random.default_rng(98).normal(size=[64, dim]) / 8
  mixed += 0.3 * rng.normal(size=[images, dim])
  return np.maximum(mixed, 0).astype(np.float32), labels


def timed(run):
  """-> (the result of run(), its seconds, the CPU seconds)."""
  began, worked = time.perf_counter(), time.process_time()
  made = run()
  return made, time.perf_counter() - began, time.process_time() - worked


def _row(what, seconds, cpu, notes):
  return {
    'what': what,
    'seconds': f'{seconds:.1f}',
    'CPU seconds': f'{cpu:.1f}',
    'notes': notes,
  }


def _top_1(head, test):
  right = linear.scores(linear.predict(head, test[0]), test[1])
  return f'top-1 {right.mean():.3f}'


def path_rows(train, validation, test, classes):
  """Rows of the path, and of cold starts beside the path's at these values."""
  (head, facts), *cost = timed(
    lambda: linear.logistic_path(train, validation, 'top_1', classes)
  )
  warm = facts['iterations']
  notes = f'{sum(warm)} iterations, {facts["not_converged"]} not converged'
  yield _row('path', *cost, f'{notes}, {_top_1(head, test)}')
  zeros = linear.Head(*(np.zeros_like(part) for part in head))
  values = facts['grid']['l2'][::_EVERY]
  made, *cost = timed(
    lambda: [linear._solve(*train, l2, zeros)[1] for l2 in values]
  )
  cold = sum(how['iterations'] for how in made)
  notes = f'{cold} iterations for {len(values)} values, in the path'
  yield _row('cold', *cost, f'{notes} {sum(warm[::_EVERY])}')


def sgd_row(name, train, test, classes):
  protocol = linear.PROTOCOLS[name]
  (head, facts), *cost = timed(
    lambda: linear.sgd_probe(protocol, train[:1], train[1], classes, 0)
  )
  notes = f'{facts["steps"]} steps of {facts["batch"]}, {_top_1(head, test)}'
  return _row(name, *cost, notes)


def knn_row(train, test, classes):
  predicted, *cost = timed(lambda: knn.predictions(*train, test[0], classes))
  best = max(np.mean(one == test[1]) for one in predicted.values())
  notes = f'{len(test[1])} queries, {len(predicted)} settings, best {best:.3f}'
  return _row('kNN', *cost, notes)


def rows(images, dim, classes):
  train, test = features(images, dim, classes), features(2000, dim, classes, 1)
  yield knn_row(train, test, classes)
  for name in linear.PROTOCOLS:
    yield sgd_row(name, train, test, classes)
  cut = images * 9 // 10
  parts = [[of[:cut] for of in train], [of[cut:] for of in train]]
  yield from path_rows(*parts, test, classes)


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--images', type=int, default=10_000)
  parser.add_argument('--dim', type=int, default=2048)
  parser.add_argument('--classes', type=int, default=100)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  made = []
  for row in rows(args.images, args.dim, args.classes):
    print(*row.values(), flush=True)
    made.append(row)
  timing.report('probes', made, args.out)


if __name__ == '__main__':
  main()
