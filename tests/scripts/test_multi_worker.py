"""scripts/multi_worker.py: who is lost, and when a run starts again."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

SCRIPTS = os.path.join(pathlib.Path(__file__).parents[2], 'scripts')
sys.path.insert(0, SCRIPTS)
multi_worker = __import__('multi_worker')
sys.path.remove(SCRIPTS)

# A worker of the tests: does what its index and the attempt say.
PROGRAM = """
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ['TF_CONFIG'])
index, count = config['task']['index'], len(config['cluster']['worker'])
logs = pathlib.Path(os.environ['LOGS'])
attempt = len(list(logs.glob(f'was{index}-*')))
print('attempt', attempt, 'of worker', index, flush=True)
(logs / f'was{index}-{attempt}').touch()
# All are there before one may end, and the others be ended.
while not all((logs / f'was{i}-{attempt}').exists() for i in range(count)):
  time.sleep(0.01)
exec(sys.argv[1])
"""
WAIT = 'time.sleep(600)'


@pytest.fixture
def supervised(tmp_path, monkeypatch):
  """supervised(code, ...) -> (status, attempts of each worker)."""
  program = tmp_path / 'program.py'
  program.write_text(PROGRAM)
  monkeypatch.setenv('PROGRAM', str(program))
  monkeypatch.setenv('LOGS', str(tmp_path))
  monkeypatch.setattr(multi_worker, '_GRACE', 0)
  handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

  def run(code, restarts=0, silence=0):
    status = multi_worker.supervise(2, [code], restarts, silence, tmp_path)
    return status, [len(list(tmp_path.glob(f'was{i}-*'))) for i in range(2)]

  yield run
  for number, handler in handlers.items():
    signal.signal(number, handler)


@pytest.mark.parametrize('status', [0, 2, 3, 143])
def test_what_is_final_is_not_repeated(supervised, status):
  code = f'{WAIT} if index else sys.exit({status})'
  assert supervised(code, restarts=3) == (status, [1, 1])


def test_a_killed_worker_starts_all_again(supervised, capfd):
  code = f"""
if index and not attempt:
  os.kill(os.getpid(), signal.SIGKILL)
if index or not attempt:
  {WAIT}
"""
  assert supervised(code, restarts=2) == (0, [2, 2])
  out = capfd.readouterr().out
  assert 'worker 1 ended with status -9' in out and '(1 of 2)' in out
  # What the chief says is passed on.
  assert 'attempt 0 of worker 0' in out and 'attempt 1 of worker 0' in out


def test_restarts_have_an_end(supervised):
  assert supervised('sys.exit(75)', restarts=2) == (75, [3, 3])
  # Without the option nothing starts again.


def test_without_restarts_the_status_is_the_chiefs(supervised):
  assert supervised('sys.exit(75 if index else 1)') == (1, [1, 1])


def test_a_frozen_chief_is_noticed(supervised, capfd):
  """Every worker stops for good in the first attempt."""
  code = (
    'os.kill(os.getpid(), signal.SIGSTOP) if not attempt else '
    f'{WAIT} if index else sys.exit(0)'
  )
  assert supervised(code, restarts=1, silence=4) == (0, [2, 2])
  assert 'nothing was heard from the chief for 4 s' in capfd.readouterr().out


def test_a_signal_stops_all_and_is_final(tmp_path):
  program = tmp_path / 'program.py'
  code = """
def stop(number, frame):
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print('ready', index, flush=True)
signal.pause()
"""
  program.write_text(PROGRAM)
  process = subprocess.Popen(
    [sys.executable, f'{SCRIPTS}/multi_worker.py', '--restart=3', '1', code],
    env=os.environ | {'PROGRAM': str(program), 'LOGS': str(tmp_path)},
    stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  while process.stdout.readline().strip() != 'ready 0':
    pass
  process.send_signal(signal.SIGTERM)
  assert process.wait(60) == 143
  assert len(list(tmp_path.glob('was0-*'))) == 1


@pytest.mark.parametrize('words', [[], ['two'], ['0'], ['--restart=x', '2']])
def test_a_call_that_says_nothing_is_refused(words, capsys):
  assert multi_worker.main(words) == 2
  assert 'multi_worker.py' in capsys.readouterr().err
