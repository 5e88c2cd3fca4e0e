"""Runs that wrote checkpoints, and ways to damage them."""

import pathlib

import numpy as np
import tensorflow as tf
import tf_keras as keras

from cvr.checkpoints.saving import Checkpoints


class Net(tf.Module):
  """Square layers in a list: the same shapes at any depth."""

  def __init__(self, depth=3, width=4):
    super().__init__()
    self.layers = [
      tf.Variable(np.full([width, width], 1.0 + i), dtype=tf.float32)
      for i in range(depth)
    ]


class State:
  """A net and its optimizer; step() moves weights, slots and counter."""

  def __init__(self, depth=3, width=4, optimizer=None):
    self.net = Net(depth, width)
    legacy = keras.optimizers.legacy
    self.optimizer = optimizer or legacy.SGD(0.1, momentum=0.9)
    self.optimizer._create_all_weights(self.net.layers)
    self.items = {'method': self.net, 'optimizer': self.optimizer}

  def step(self):
    gradients = [0.5 * v + 0.1 for v in self.net.layers]
    pairs = zip(gradients, self.net.layers, strict=True)
    self.optimizer.apply_gradients(pairs)

  def values(self):
    return [v.numpy() for v in (*self.net.layers, *self.optimizer.variables())]

  def store(self, directory, **options):
    return Checkpoints(str(directory), **options, **self.items)


def assert_same(actual, expected):
  assert len(actual) == len(expected)
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(a, b)


def files_in(directory, pattern='*'):
  """Name -> content of the files in a directory."""
  paths = pathlib.Path(directory).glob(pattern)
  return {p.name: p.read_bytes() for p in paths if p.is_file()}


def saved_run(directory, steps=(10, 20), **options):
  """Saves a moving state at these steps -> {step: its values}."""
  state, values = State(), {}
  store = state.store(directory, **options)
  for step in steps:
    state.step()
    store.save(step)
    values[step] = state.values()
  return values


def restore(directory, state=None):
  """-> (step restored, the lines printed, the state)."""
  state, lines = state or State(), []
  return state.store(directory).restore_latest(lines.append), lines, state


def cut(keep):
  return lambda content: content[: int(len(content) * keep)]


def flip(place):
  def damage(content):
    content = bytearray(content)
    content[int(len(content) * place)] ^= 1
    return bytes(content)

  return damage


DATA, INDEX = 'ckpt-{}.data-00000-of-00001', 'ckpt-{}.index'


DAMAGES = {
  'data cut in half': (DATA, cut(0.5)),
  'data one byte short': (DATA, lambda content: content[:-1]),
  'data empty': (DATA, cut(0)),
  'data missing': (DATA, None),
  'data bit, early': (DATA, flip(0.1)),
  'data bit, middle': (DATA, flip(0.5)),
  'data bit, last': (DATA, flip(0.9999)),
  'index cut in half': (INDEX, cut(0.5)),
  'index one byte short': (INDEX, lambda content: content[:-1]),
  'index empty': (INDEX, cut(0)),
  'index bit, middle': (INDEX, flip(0.5)),
}


def damage(directory, step, kind):
  name, change = DAMAGES[kind]
  path = pathlib.Path(directory) / name.format(step)
  if change:
    path.write_bytes(change(path.read_bytes()))
  else:
    path.unlink()


def parts_run(directory, depth=3):
  """A checkpoint of a method of two nets, a probe and an optimizer."""
  method = tf.train.Checkpoint(encoder=Net(depth), projector=Net(2))
  probe, optimizer = Net(1), keras.optimizers.legacy.SGD(0.1, momentum=0.9)
  optimizer._create_all_weights(method.encoder.layers)
  for i, part in enumerate((method.encoder, method.projector, probe)):
    for v in part.layers:
      v.assign_add(10.0 * (i + 1) * tf.ones_like(v))
  items = {'method': method, 'probe': probe, 'optimizer': optimizer}
  return Checkpoints(str(directory), **items).save(7), items


def layers(net):
  return [v.numpy() for v in net.layers]
