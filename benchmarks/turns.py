"""Alternatives that live in processes of their own, asked in turns.

They may need different environments, so nothing is imported here.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time


def serve(cases):
  """Calls the cases {name: function} that its input names, one per line.

  It answers with what a case returns, or with the seconds that it took.
  """
  for run in cases.values():
    for _ in range(2):  # The first calls are slower.
      run()
  print(json.dumps(list(cases)), flush=True)
  for line in sys.stdin:
    began = time.perf_counter()
    found = cases[line.strip()]()
    seconds = time.perf_counter() - began
    print(json.dumps(seconds if found is None else found), flush=True)


class Worker:
  """A process that serves."""

  def __init__(self, command):
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    self.names = self._answer()

  def _answer(self):
    line = self._process.stdout.readline()
    if not line:
      raise RuntimeError(f'{self._process.args} ended: see above.')
    return json.loads(line)

  def ask(self, name):
    with contextlib.suppress(BrokenPipeError):  # It has no answer then.
      self._process.stdin.write(name + '\n')
      self._process.stdin.flush()
    return self._answer()

  def close(self):
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()


def in_turns(commands, rounds):
  """Every case of every command once per round -> {name: its answers}."""
  workers = []
  try:
    for command in commands:
      workers.append(Worker(command))
    found = {name: [] for worker in workers for name in worker.names}
    for _ in range(rounds):
      for worker in workers:
        for name in worker.names:
          found[name].append(worker.ask(name))
    return found
  finally:
    for worker in workers:
      worker.close()


def best_and_median(answers, best=min):
  return best(answers), statistics.median(answers)
