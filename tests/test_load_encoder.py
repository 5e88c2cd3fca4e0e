"""`from cvr import load_encoder` in a program and a folder of one's own."""

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

import cvr
from cvr import startup
from cvr.checkpoints import saving
from cvr.configs import config
from cvr.training.step import make_state
from small_data import SMALL, plan_of

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import json
import sys

import numpy as np
import tensorflow as tf
import tf_keras
from cvr import load_encoder

encoder = load_encoder(sys.argv[1])
images = np.random.default_rng(0).random([6, 16, 16, 3])
model = tf_keras.Sequential([encoder.layer, tf_keras.layers.Dense(3)])
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(tf_keras.optimizers.SGD(0.01), loss)
before = [v.numpy() for v in encoder.layer.weights]
losses = model.fit(images, np.arange(6) % 3, 2, verbose=0).history['loss']
moved = [(v.numpy() != w).any() for v, w in zip(encoder.layer.weights, before)]
with tf.GradientTape() as tape:
  loss = tf.reduce_sum(encoder(images) ** 2)
gradients = tape.gradient(loss, encoder.trainable_variables)

import checkpoints
import data

print(json.dumps({
  'losses': losses,
  'steps': int(model.optimizer.iterations),
  'still': len(moved) - int(sum(moved)),
  'gradients': [float(np.abs(g).max()) for g in gradients],
  'theirs': [checkpoints.__file__, data.__file__],
}))
"""


def alone(folder, code, *arguments):
  """Runs a script that lies in a folder -> the finished process."""
  script = folder / 'script.py'
  script.write_text(code)
  environment = os.environ | {
    'PYTHONPATH': str(ROOT),
    'TF_CPP_MIN_LOG_LEVEL': '3',
  }
  return subprocess.run(
    [sys.executable, str(script), *arguments],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
  )


@pytest.fixture
def desk(tmp_path):
  """A folder of somebody's own, with names that we have, too."""
  for name in ('data', 'checkpoints'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '__init__.py').touch()
  return tmp_path


def test_finetuning_in_a_folder_with_data_and_checkpoints(desk):
  # What a run leaves; nothing is replaced in the other process.
  cfg = config.Config(**SMALL)
  record = {'config': config.to_dict(cfg)}
  items = make_state(plan_of(cfg)).items()
  store = saving.Checkpoints(
    str(desk / 'run'), record=saving.Record(record), **items
  )
  done = alone(desk, PROGRAM, store.save(3))
  assert done.returncode == 0, done.stderr
  told = json.loads(done.stdout.splitlines()[-1])
  assert told['steps'] == 3 and np.isfinite(told['losses']).all()
  assert told['still'] == 0
  assert min(told['gradients']) > 0 and np.isfinite(told['gradients']).all()
  assert [os.path.dirname(path) for path in told['theirs']] == [
    str(desk / 'checkpoints'),
    str(desk / 'data'),
  ]


@pytest.mark.parametrize('name', ['model.py', 'resnet/__init__.py'])
def test_a_file_that_hides_one_of_ours_is_named(desk, name):
  path = desk / name
  path.parent.mkdir(exist_ok=True)
  path.write_text('raise SystemExit("it is a script")')
  done = alone(desk, 'from cvr import load_encoder')
  assert done.returncode == 1 and done.stdout == ''
  ours = name.partition('/')[0].removesuffix('.py')
  assert done.stderr.splitlines()[-1] == (
    f'ImportError: {path} hides the {ours}.py that cvr needs: rename it, or '
    'start Python in another folder.'
  )


def test_a_file_that_hides_one_of_ours_is_named_by_the_program(desk):
  (desk / 'model.py').write_text('raise SystemExit("it is a script")')
  code = "import sys, run; sys.exit(run.main(['run.py', '--print_config']))"
  done = alone(desk, code)
  assert done.returncode == 2 and done.stdout == ''
  assert done.stderr.startswith(
    f'run.py: {desk / "model.py"} hides the model.py'
  )
  assert done.stderr.count('\n') == 1


def test_a_module_that_hides_one_of_ours_and_is_there_already(monkeypatch):
  startup.check_front()
  other = types.ModuleType('objectives')
  other.__file__ = '/home/me/objectives.py'
  monkeypatch.setitem(sys.modules, 'objectives', other)
  with pytest.raises(ImportError, match='/home/me/objectives.py hides'):
    startup.check_front()


def test_the_package_imports_no_tensorflow(desk):
  code = """
import sys
import cvr
import cvr.configs.settings
assert 'tensorflow' not in sys.modules
"""
  done = alone(desk, code)
  assert done.returncode == 0, done.stderr


def test_other_attributes_are_none_of_ours():
  with pytest.raises(AttributeError, match="'cvr' has no attribute 'encode'"):
    cvr.encode  # noqa: B018
