"""Step, input and start-up beside other libraries, in turns.

  python -m benchmarks.beside --peers=.venv-peers/bin/python

scripts/benchmark.sh makes that environment. Steps: SimCLR with a ResNet as
torchvision has it, heads of 2048 and 128, LARS, views that are ready; ours also
trains a linear probe of 1,000 classes and skips steps that are not finite.
Inputs: two random crops of each JPEG, bicubic, to bytes. Starts: from the
command to the end of the first step; ours is C-SimCLR with its images, a
checkpoint and records, theirs SimCLR on noise. Without --peers only our own
rows are measured.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from benchmarks import turns

MODELS = {'R18 32px b64': (18, 32, 64), 'R50 224px b16': (50, 224, 16)}
_SECONDS = 2.0  # of a turn of an input, after as many to get going


def our_step(depth, size, batch, precision):
  """{name: a step}."""
  from cvr.startup import quiet_start

  quiet_start()
  import dataclasses

  from benchmarks import step
  from cvr.training import start

  cfg = step.make_config('contrastive', depth, size, batch, precision)
  cfg = dataclasses.replace(cfg, shortcut='torchvision')
  start.set_numerics(cfg)
  run, _, _ = step.whole_step(cfg)
  views = step.make_batch(cfg, augmented=False)

  def once():
    run(views)

  return {'ours': once}


def our_input(folder):
  """{name: images per second, measured anew at every call}."""
  from cvr.startup import quiet_start

  quiet_start()
  from benchmarks import pipeline

  found = pipeline.datasets(pathlib.Path(folder), 224)

  def rate(dataset):
    return pipeline.rates({'it': dataset}, _SECONDS, 1)['it']

  return {
    f'ours, {name}': lambda dataset=found[name]: rate(dataset)
    for name in ('decode', 'device', 'host')
  }


def first_step(command, folder):
  """-> (seconds until a line tells of the first step, peak MB at the end)."""
  shutil.rmtree(folder, ignore_errors=True)
  began, seconds = time.perf_counter(), None
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  for line in process.stdout:
    if seconds is None and 'step 1/' in line:
      seconds = time.perf_counter() - began
  _, status, usage = os.wait4(process.pid, 0)
  if status or seconds is None:
    raise RuntimeError(f'{command} did not end well.')
  return seconds, usage.ru_maxrss / 1024


def row(case, answers, reference, unit, best=min):
  most, median = turns.best_and_median(answers, best)
  ratio = most / reference if best is max else reference / most
  return {
    'case': case,
    f'best {unit}': f'{most:,.3g}' if most < 100 else f'{most:,.0f}',
    f'median {unit}': f'{median:,.3g}' if median < 100 else f'{median:,.0f}',
    'speed of it / ours': f'{ratio:.2f}',
  }


def compare_steps(model, precision, peers, rounds):
  sizes = [*map(str, MODELS[model]), precision]
  commands = [[sys.executable, '-m', 'benchmarks.beside', '--step', *sizes]]
  if peers:
    commands.append(
      [peers, '-m', 'benchmarks.beside_lightly', '--step', *sizes]
    )
  found = turns.in_turns(commands, rounds)
  ours = min(found['ours'])
  rows = [row(name, times, ours, 's') for name, times in found.items()]
  return [{'model': f'{model} {precision}'} | r for r in rows]


def compare_inputs(peers, rounds):
  from benchmarks import pipeline

  with tempfile.TemporaryDirectory() as folder:
    pipeline.make_images(pathlib.Path(folder), 224)
    commands = [[sys.executable, '-m', 'benchmarks.beside', '--input', folder]]
    if peers:
      commands.append([peers, '-m', 'benchmarks.beside_input', folder])
    found = turns.in_turns(commands, rounds)
  ours = max(found['ours, device'])
  return [
    row(name, rates, ours, 'images/s', max) for name, rates in found.items()
  ]


def compare_starts(peers, rounds):
  with tempfile.TemporaryDirectory() as folder:
    run = os.path.join(folder, 'run')
    commands = {
      'ours': [
        sys.executable, 'run.py', '--preset=quickstart', '--mode=train',
        '--train_steps=1', '--health_pairs=0', '--report=false',
        f'--model_dir={run}',
      ],
    }  # fmt: skip
    if peers:
      commands['lightly'] = [
        peers,
        '-m',
        'benchmarks.beside_lightly',
        '--start',
      ]
    found = {name: [] for name in commands}
    for _ in range(rounds):
      for name, command in commands.items():
        found[name].append(first_step(command, run))
  ours = min(seconds for seconds, _ in found['ours'])
  return [
    row(name, [seconds for seconds, _ in ends], ours, 's')
    | {'peak MB': f'{max(memory for _, memory in ends):,.0f}'}
    for name, ends in found.items()
  ]


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--peers', default='', help='a Python that has them')
  parser.add_argument('--precisions', default='fp32')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', default='runs/benchmarks')
  parser.add_argument('--step', nargs=4, help='to serve: our step')
  parser.add_argument('--input', help='to serve: our input of a folder')
  args = parser.parse_args(argv)
  if args.step:
    *sizes, precision = args.step
    return turns.serve(our_step(*map(int, sizes), precision))
  if args.input:
    return turns.serve(our_input(args.input))

  from cvr.startup import quiet_start

  quiet_start()
  from benchmarks import timing

  def steps():
    return [
      line
      for model in MODELS
      for precision in args.precisions.split(',')
      for line in compare_steps(model, precision, args.peers, args.rounds)
    ]

  for name, measure in {
    'beside_step': steps,
    'beside_input': lambda: compare_inputs(args.peers, args.rounds),
    'beside_start': lambda: compare_starts(args.peers, args.rounds),
  }.items():
    timing.report(name, measure(), args.out)
    print(flush=True)
  return None


if __name__ == '__main__':
  main()
