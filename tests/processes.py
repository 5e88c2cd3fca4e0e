"""Processes of their own, forked from one that has imported TensorFlow and not
used it: the twentieth costs next to nothing.
"""

import contextlib
import multiprocessing
import os
import signal
import sys

import tiny_run
from cvr.training import loop

FORK = multiprocessing.get_context('forkserver')
FORK.set_forkserver_preload(
  ['cvr.training.train', 'cvr.evaluation.online', 'run', 'tiny_methods']
)


class Child:
  """A process of its own, and a line to it."""

  def __init__(self, target, *args):
    self.line, theirs = FORK.Pipe()
    self.process = FORK.Process(target=target, args=(theirs, *args))
    self.process.start()
    theirs.close()

  def kill(self):
    os.kill(self.process.pid, signal.SIGKILL)
    self.process.join()

  def told(self):
    """Yields what it tells, until it is gone."""
    with contextlib.suppress(EOFError, ConnectionResetError):
      while True:
        yield self.line.recv()

  def let_go_on(self, steps):
    """Gives leave this many times, or to the end -> whether it still runs."""
    for count, _ in enumerate(self.told(), 1):
      if count > steps:
        return True
      with contextlib.suppress(BrokenPipeError):  # It had leave, and is done.
        self.line.send('go on')
    self.process.join()
    return False


def log_to(path):
  """What this process prints goes into a file."""
  for number in (1, 2):
    os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)


def training(line, argv, log):
  """tiny_run, which tells after each chunk of steps and waits for leave."""
  log_to(log)
  make_loop = loop.make_loop

  def telling(*args, **settings):
    steps = make_loop(*args, **settings)

    def one(iterator, n):
      metrics = steps(iterator, n)
      line.send(n)
      line.recv()
      return metrics

    return one

  loop.make_loop = telling
  os.environ['TINY_ENCODER'] = 'glance'
  sys.argv = argv
  sys.exit(tiny_run.main())


def worker(line, argv, log, environment):
  """One of several processes of a run."""
  del line
  log_to(log)
  os.environ.update(environment, TINY_ENCODER='glance')
  sys.argv = ['run.py', *argv]
  sys.exit(tiny_run.main())
