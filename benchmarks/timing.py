"""Times of alternatives, in turns: machines change speed by the minute."""

import json
import pathlib
import platform
import time

import tensorflow as tf


def best(cases, rounds=5, repeats=2):
  """{name: function} -> {name: seconds of its fastest call}.

  Every case runs in every round. The fastest call is the one that other
  programs disturbed least.
  """
  for run in cases.values():
    for _ in range(2):
      run()
  found = dict.fromkeys(cases, float('inf'))
  for _ in range(rounds):
    for name, run in cases.items():
      for _ in range(repeats):
        began = time.perf_counter()
        run()
        found[name] = min(found[name], time.perf_counter() - began)
  return found


def matmul(dtype, size=2048):
  """-> (a large product to be timed, its floating point operations)."""
  a, b = (tf.cast(tf.random.normal([size, size]), dtype) for _ in range(2))
  product = tf.function(lambda a, b: tf.matmul(a, b), autograph=False)
  return lambda: product(a, b).numpy(), 2 * size**3


def report(name, rows, folder):
  """Prints rows (dicts of the same keys) as a table and writes them as JSON."""
  columns = list(rows[0])
  lines = [columns] + [[str(row[c]) for c in columns] for row in rows]
  widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
  for line in lines:
    cells = [cell.rjust(w) for cell, w in zip(line, widths, strict=True)]
    print('  '.join(cells))
  where = pathlib.Path(folder)
  where.mkdir(parents=True, exist_ok=True)
  facts = {
    'benchmark': name,
    'date': time.strftime('%Y-%m-%d'),
    'machine': f'{platform.machine()}, {_processor()}',
    'tensorflow': tf.__version__,
    'rows': rows,
  }
  (where / f'{name}.json').write_text(json.dumps(facts, indent=1) + '\n')


def _processor():
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text()
  except OSError:
    return platform.processor()
  names = [
    line.partition(':')[2].strip()
    for line in text.splitlines()
    if 'model name' in line
  ]
  return f'{len(names)} x {names[0]}' if names else platform.processor()
