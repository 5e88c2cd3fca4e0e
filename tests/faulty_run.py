"""tiny_run.py, to which something happens once.

FAULT='worker step signal marker' in the environment: the worker of that index
sends itself the signal after the first chunk of steps that reaches the step,
unless the file `marker` is there, which it makes first.
"""

import json
import os
import pathlib
import signal
import sys

import tiny_run


def install():
  from cvr.training import loop

  worker, step, name, marker = os.environ['FAULT'].split()
  task = json.loads(os.environ['TF_CONFIG'])['task']['index']
  make_loop, done = loop.make_loop, 0

  def failing(*args, **settings):
    steps = make_loop(*args, **settings)

    def one(iterator, n):
      nonlocal done
      metrics = steps(iterator, n)
      done += n
      if task == int(worker) and done >= int(step):
        if not os.path.exists(marker):
          pathlib.Path(marker).touch()
          os.kill(os.getpid(), getattr(signal, name))
      return metrics

    return one

  loop.make_loop = failing


if __name__ == '__main__':
  from cvr.startup import quiet_start

  quiet_start()
  install()
  sys.exit(tiny_run.main())
