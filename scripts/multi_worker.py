"""One run as N worker processes here, which start again where one is lost.

python scripts/multi_worker.py [--restart=TIMES] [--silence=SECONDS] N FLAGS

See scripts/multi_worker.sh. The first worker is the chief and talks; the others
write into files in $LOGS. Each gets its own of the GPUs, of those in
CUDA_VISIBLE_DEVICES if that is set. They are stopped together, and the exit
status is the chief's. Needs no package beyond Python.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Done, a wrong flag, diverged, stopped by the user: starting again is no help.
FINAL = (0, 2, 3, 143)
_LOOK = 0.2  # Seconds between two looks at the workers.
_GRACE = 30  # Seconds in which workers end by themselves, once one has.


def addresses(count):
  """Free ports of this machine."""
  held = []  # Not where the system takes the near ends of connections from.
  while len(held) < count:
    with contextlib.suppress(OSError):
      at = '127.0.0.1', random.randrange(10000, 30000)
      held.append(socket.create_server(at))
  found = [f'127.0.0.1:{s.getsockname()[1]}' for s in held]
  for server in held:
    server.close()
  return found


def gpus():
  """The names of the GPUs that there are."""
  chosen = os.environ.get('CUDA_VISIBLE_DEVICES')
  if chosen is not None:
    return [name for name in chosen.split(',') if name]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(
    ['nvidia-smi', '-L'], capture_output=True, text=True, check=False
  ).stdout
  count = sum(line.startswith('GPU') for line in listed.splitlines())
  return [str(i) for i in range(count)]


class Workers:
  """The processes of one attempt; index 0 is the chief."""

  def __init__(self, count, flags, logs, heard):
    """heard: whether to listen for what the chief prints."""
    self.news = time.monotonic()  # when the chief printed last
    cluster, devices = {'worker': addresses(count)}, gpus()
    program = os.environ.get('PROGRAM', 'run.py')
    self.processes = []
    for index in reversed(range(count)):
      task = {'type': 'worker', 'index': index}
      more = {'TF_CONFIG': json.dumps({'cluster': cluster, 'task': task})}
      if devices:
        own = devices[index] if index < len(devices) else ''
        more['CUDA_VISIBLE_DEVICES'] = own
      with contextlib.ExitStack() as stack:
        log = None
        if index:
          name = logs / f'worker{index}.log'
          log = stack.enter_context(open(name, 'ab'))
        elif heard:
          log = subprocess.PIPE
        process = subprocess.Popen(
          [sys.executable, program, *flags],
          cwd=ROOT,
          env=os.environ | more,
          stdout=log,
          stderr=subprocess.STDOUT if log else None,
          start_new_session=True,
        )
      self.processes.insert(0, process)
    if heard:
      threading.Thread(target=self._listen, daemon=True).start()

  def _listen(self):
    for line in self.processes[0].stdout:
      self.news = time.monotonic()
      sys.stdout.buffer.write(line)
      sys.stdout.buffer.flush()

  def send(self, number):
    for process in self.processes:
      with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)

  def end(self):
    """Kills those that still run, frozen ones as well."""
    self.send(signal.SIGKILL)
    for process in self.processes:
      process.wait()

  def watch(self, silence):
    """Waits until all have ended or one is lost -> (status, why lost)."""
    ended = None
    while True:
      statuses = [process.poll() for process in self.processes]
      if statuses[0] in FINAL or None not in statuses:
        status = statuses[0]
        why = '' if status in FINAL else f'the chief ended with status {status}'
        return status, why
      gone = [i for i, status in enumerate(statuses) if status is not None]
      if gone and ended is None:
        ended = time.monotonic()
      if gone and time.monotonic() - ended > _GRACE:
        status = statuses[gone[0]]
        return status, f'worker {gone[0]} ended with status {status}'
      if silence and time.monotonic() - self.news > silence:
        return 75, f'nothing was heard from the chief for {silence:.0f} s'
      time.sleep(_LOOK)


def supervise(count, flags, restarts, silence, logs):
  """-> the exit status of the chief, after so many restarts at most."""
  stopped = []
  for attempt in range(restarts + 1):
    workers = Workers(count, flags, logs, heard=bool(restarts))

    def stop(number, frame, workers=workers):
      del number, frame
      stopped.append(True)
      # Before the step of the next checkpoint they agree on stopping.
      workers.send(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, stop)
    status, why = workers.watch(silence if restarts else 0)
    workers.end()
    if not why or stopped or status in FINAL:
      return status
    if attempt < restarts:
      print(
        f'{why}: all workers start again ({attempt + 1} of {restarts}).',
        flush=True,
      )
  return status


def main(words):
  options = {'restart': '0', 'silence': '900'}
  while words and words[0].startswith('--') and '=' in words[0]:
    name, _, value = words[0][2:].partition('=')
    if name not in options:
      break
    options[name] = value
    words = words[1:]
  try:
    restarts, silence = int(options['restart']), float(options['silence'])
    count = int(words[0])
    if count < 1 or restarts < 0:
      raise ValueError
  except (ValueError, IndexError):
    print(__doc__.split('\n\n')[1], file=sys.stderr)
    return 2
  logs = pathlib.Path(os.environ.get('LOGS') or tempfile.mkdtemp())
  logs.mkdir(parents=True, exist_ok=True)
  if count > 1:
    print(f'Workers 1 to {count - 1} write into {logs}', flush=True)
  status = supervise(count, words[1:], restarts, silence, logs)
  return status if status >= 0 else 128 - status


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
