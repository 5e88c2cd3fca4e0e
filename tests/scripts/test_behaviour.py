"""What users see is what tests/golden says: scripts/behaviour.py records it."""

import os

import pytest
import tensorflow as tf

import behaviour
import recorded_names
from cvr.checkpoints import saving
from cvr.configs import command_line, help
from cvr.methods import METHODS
from cvr.training.step import make_state
from small_data import plan_of


def print_config(*arguments):
  argv = ['run.py', *arguments, '--print_config']
  return command_line.describe(command_line.parse(argv), argv) + '\n'


@pytest.fixture(scope='module')
def help_text():
  return help.whole() + '\n'


def recorded(name):
  path = behaviour.GOLDEN / name
  return path.read_text()


def test_the_help_is_the_recorded_one(help_text):
  assert help_text == recorded('help.txt')


def test_every_preset_is_the_recorded_one(help_text):
  names = behaviour.presets(help_text)
  assert len(names) > 40
  text = behaviour.configurations(print_config, names)
  assert text == recorded('configurations.txt')


@pytest.mark.parametrize('method', METHODS)
def test_tensors_have_the_recorded_names(method, tmp_path, glance):
  """Those of metrics are in tests/methods/test_methods.py."""
  (tmp_path / 'image.jpg').touch()  # An empty folder is refused.
  argv = ['run.py', *behaviour.training(method, tmp_path, tmp_path)]
  cfg = command_line.parse(argv)
  state = make_state(plan_of(cfg, behaviour.STEPS, examples=24))
  checkpoint = tf.train.Checkpoint(record=saving.Record({}), **state.items())
  path = checkpoint.write(f'{tmp_path}/ckpt')
  names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
  lines = behaviour.tensor_lines(names)
  assert {*lines} == recorded_names.tensors(method)


def test_an_encoder_is_one_line_among_the_names():
  tail = '/.ATTRIBUTES/VARIABLE_VALUE'
  names = [
    '_CHECKPOINTABLE_OBJECT_GRAPH',
    'method/target_encoder/stages/0/kernel' + tail,
    'method/encoder/stages/0/kernel' + tail,
    'method/encoder/stages/1/kernel' + tail,
    'method/encoder/a/b/.OPTIMIZER_SLOT/optimizer/m' + tail,
    'probe/dense/bias' + tail,
  ]
  assert sorted(behaviour.tensor_lines(names)) == [
    'method/encoder/*',
    'method/encoder/*/.OPTIMIZER_SLOT/optimizer/m',
    'method/target_encoder/*',
    'probe/dense/bias',
  ]


def test_a_difference_of_trees_is_found():
  ours = {'a': [1.0, 2.0], 'b': {'c': 'x', 'd': float('nan'), 'e': None}}
  assert behaviour._largest_difference(ours, ours) == 0
  theirs = {**ours, 'a': [1.0, 2.5]}
  assert behaviour._largest_difference(ours, theirs) == pytest.approx(0.2)
  for other in ({'a': [1.0, 2.0]}, {**ours, 'a': [1.0]}, {**ours, 'b': 'x'}):
    assert behaviour._largest_difference(ours, other) == float('inf')


def test_what_is_recorded_is_there():
  assert {*os.listdir(behaviour.GOLDEN)} == {
    'help.txt',
    'configurations.txt',
    'names.txt',
  }
