"""What heads and neighbours on cached features cost: seconds, of CPU and not.

Features like a ResNet-50's after its last ReLU: not negative, of many classes
that overlap. path: 45 values of l2, each from the head before; cold: some of
them from zeros, beside the same ones warm.

python -m benchmarks.probes
"""

import argparse
import time

import numpy as np

from benchmarks import timing
from evaluation import knn, linear

_EVERY = 4  # Of the values of l2, those that also start cold.


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
  """-> (what run() gives, its seconds, those of all processors)."""
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
  """Rows of the path, and of cold against warm starts of every 4th value."""
  (head, facts), *cost = timed(
    lambda: linear.logistic_path(train, validation, 'top_1', classes)
  )
  total = sum(facts['iterations'])
  notes = f'{total} iterations, {facts["not_converged"]} not converged'
  yield _row('l2 path of 45', *cost, f'{notes}, {_top_1(head, test)}')
  zeros = linear.Head(*(np.zeros_like(part) for part in head))
  spent = {'warm': [], 'cold': []}
  for name, each in spent.items():
    head = zeros
    for i, l2 in enumerate(facts['grid']['l2']):
      if name == 'cold' and i % _EVERY:
        continue
      start = head if name == 'warm' else zeros
      (head, how), *cost = timed(
        lambda l2=l2, start=start: linear._solve(*train, l2, start)
      )
      if i % _EVERY == 0:
        each.append((*cost, how['iterations']))
    seconds, cpu, iterations = np.sum(each, axis=0)
    notes = f'{len(each)} values, {iterations:.0f} iterations'
    yield _row(f'{name} starts', seconds, cpu, notes)


def rows(images, dim, classes):
  train, test = features(images, dim, classes), features(2000, dim, classes, 1)
  cut = images * 9 // 10
  sets = [
    (train[0][part], train[1][part]) for part in np.split(range(images), [cut])
  ]
  yield from path_rows(*sets, test, classes)
  for name, protocol in linear.PROTOCOLS.items():
    (head, facts), *cost = timed(
      lambda p=protocol: linear.sgd_probe(p, train[:1], train[1], classes, 0)
    )
    notes = f'{facts["steps"]} steps of {facts["batch"]}, {_top_1(head, test)}'
    yield _row(name, *cost, notes)
  found, *cost = timed(lambda: knn.predictions(*train, test[0], classes))
  best = max(np.mean(said == test[1]) for said in found.values())
  notes = f'{len(test[1])} queries, {len(found)} settings, best {best:.3f}'
  yield _row('kNN', *cost, notes)


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--images', type=int, default=10_000)
  parser.add_argument('--dim', type=int, default=2048)
  parser.add_argument('--classes', type=int, default=100)
  parser.add_argument('--out', default='runs/benchmarks')
  args = parser.parse_args(argv)
  found = list(rows(args.images, args.dim, args.classes))
  timing.report('probes', found, args.out)


if __name__ == '__main__':
  main()
