"""Ctrl-C in programs that start others: a line, and time for the other one."""

import gc
import os
import signal
import subprocess
import sys

import pytest
from tensorflow.python.util import _pywrap_util_port

from cvr import startup
from small_runs import ROOT

# Waits for a signal, and then for a line, as a run does for its checkpoint. The
# signal is held back, so that it cannot come between 'ready' and the wait.
_CHILD = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print('ready', flush=True)
signal.sigwait({signal.SIGINT})
sys.stdin.readline()
print('saved', flush=True)
sys.exit(143)
"""
_PARENT = f"""
import sys
from cvr import startup
startup.stops_in_a_line()
startup.call(sys.executable, '-c', {_CHILD!r})
"""


def test_ctrl_c_reaches_both_and_the_other_is_waited_for():
  process = subprocess.Popen(
    [sys.executable, '-c', _PARENT], cwd=ROOT, text=True,
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    start_new_session=True,
  )  # fmt: skip
  assert process.stdout.readline() == 'ready\n'
  # As a terminal does it.
  os.killpg(process.pid, signal.SIGINT)
  # subprocess.run would have killed it after a quarter of this.
  with pytest.raises(subprocess.TimeoutExpired):
    process.wait(1)
  out, err = process.communicate('\n', timeout=60)
  assert out == 'saved\n'
  assert err == '\n-c: stopped. The same command resumes.\n'
  assert process.returncode == -signal.SIGINT


_EARLY = """
import os, runpy, signal, sys

class Interrupted:
  def find_spec(self, name, *rest):
    if name == MODULE:
      os.kill(os.getpid(), signal.SIGNAL)

sys.meta_path.insert(0, Interrupted())
sys.argv = ['run.py', '--preset=quickstart', '--model_dir=FOLDER']
runpy.run_path('run.py', run_name='__main__')
"""


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
@pytest.mark.parametrize('module', ['cvr.checkpoints', 'tensorflow.python.ops'])
def test_a_signal_while_modules_are_imported(tmp_path, name, module):
  code = _EARLY.replace('MODULE', repr(module)).replace('SIGNAL', name)
  folder = tmp_path / 'run'
  done = subprocess.run(
    [sys.executable, '-c', code.replace('FOLDER', str(folder))],
    cwd=ROOT, capture_output=True, text=True, timeout=120,
  )  # fmt: skip
  assert done.returncode == 143
  assert len(done.stderr.split('\n')) <= 3 and 'run.py: stopped' in done.stderr
  assert not folder.exists()


@pytest.mark.parametrize('status', [0, 3])
def test_the_status_of_the_other_program(status):
  code = f'import sys; sys.exit({status})'
  assert startup.call(sys.executable, '-c', code) == status


def test_other_errors_are_shown_as_they_are(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'excepthook', sys.excepthook)
  startup.stops_in_a_line('over.')
  error = ValueError('a bug')
  sys.excepthook(ValueError, error, None)
  assert 'ValueError: a bug' in capsys.readouterr().err
  sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
  assert capsys.readouterr().err.endswith(': over.\n')


def test_the_reason_is_not_what_tensorflow_adds_to_every_reason():
  """As the chief had it when another worker was stopped with SIGSTOP."""
  text = (
    'Graph execution error:\n\nDetected at node CollectiveReduceV2\n'
    'Collective ops is aborted by: /job:worker/task:1 does not answer\n'
    'The error could be from a previous operation. Restart your program to '
    'reset.\n\t [[{{node CollectiveReduceV2}}]] [Op:__inference_loop_5]'
  )
  line = 'Collective ops is aborted by: /job:worker/task:1 does not answer'
  assert startup.reason(ValueError(text)) == line


def _chosen(monkeypatch, machine, **environment):
  """TF_ENABLE_ONEDNN_OPTS after a start that has not imported TensorFlow."""
  monkeypatch.setattr(startup.platform, 'machine', lambda: machine)
  monkeypatch.delitem(sys.modules, 'tensorflow', raising=False)
  # Where it is '0' nothing is imported: TensorFlow may do so once only.
  chosen = {'TF_CPP_MIN_LOG_LEVEL': '0'} | environment
  monkeypatch.setattr(os, 'environ', chosen)
  startup.quiet_start()
  return chosen.get('TF_ENABLE_ONEDNN_OPTS')


@pytest.mark.parametrize('machine', ['x86_64', 'AMD64'])
def test_onednn_is_on_for_all_intel_and_amd(monkeypatch, machine):
  assert _chosen(monkeypatch, machine) == '1'


def test_onednn_stays_as_it_was_set_and_on_other_machines(monkeypatch):
  assert _chosen(monkeypatch, 'aarch64') is None
  off = {'TF_ENABLE_ONEDNN_OPTS': '0'}
  assert _chosen(monkeypatch, 'x86_64', **off) == '0'


def test_garbage_is_looked_for_again():
  """The import of TensorFlow is quicker without."""
  assert gc.isenabled()  # conftest.py has started as programs do.
  gc.disable()
  try:
    startup.quiet_start()
    assert not gc.isenabled()  # As the caller had it.
  finally:
    gc.enable()


def test_tensorflow_computes_with_onednn():
  """TensorFlow itself tells: this process began with quiet_start."""
  if startup.platform.machine() not in ('x86_64', 'AMD64'):
    pytest.skip('only for Intel and AMD processors')
  wanted = os.environ['TF_ENABLE_ONEDNN_OPTS']
  assert _pywrap_util_port.IsMklEnabled() == (wanted == '1')
