"""A trained model, written for others to use.

Every export is read back and compared with its model before it is copied to
--output; the report of that is stored beside it.
"""

import importlib
import json
import os
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

import data_util
from cvr.checkpoints.files import CheckpointError

_WORSE = 1e-3  # The relative difference from which an export is refused.


def make_network(state, mean_std):
  """-> network(images in [0, 1], trainable) -> the published endpoints."""
  method, probe = state.method, state.probe

  def network(images, trainable=False):
    if mean_std:
      images = data_util.normalize(images)
    endpoints = method.encoder.endpoints(images, training=trainable)
    h = endpoints['final_avg_pool']
    heads = method.layers_of(h, trainable)
    endpoints |= {'proj_head_input': h, 'proj_head_output': heads['projection']}
    if probe:
      probed = method.probed(heads)
      endpoints['supervised_head_input'] = probed
      endpoints['logits_sup'] = probe(probed)
    return endpoints

  return network


class Trained(NamedTuple):
  """A model to export."""

  state: object  # method, probe, optimizer
  checkpoint: object  # the pretrained.Checkpoint it was loaded from
  mean_std: bool  # whether it was trained on normalised images
  image_size: int
  again: Callable  # -> a state of the same shapes with other numbers
  channels: int = 3  # of an image

  def network_of(self, state):
    """The network of its own state, or of one that was read back."""
    return make_network(state, self.mean_std)


class _Format(NamedTuple):
  """cvr/exports/<name>.py has write(folder, model) -> (path, network)."""

  packages: tuple = ()  # optional ones that it imports
  one_network: bool = False  # no names for the two encoders of CMC
  rgb: bool = False  # who reads it has RGB images alone


FORMATS = {
  'released': _Format(one_network=True, rgb=True),
  'saved_model': _Format(),
  'safetensors': _Format(('safetensors.numpy',), one_network=True),
  'onnx': _Format(('tf2onnx', 'onnxruntime')),
  'keras': _Format(one_network=True),
}


def _writer(kind, model):
  """The write() of a format, or an error that says what is missing."""
  packages, one_network, rgb = FORMATS[kind]
  if rgb and model.channels != 3:
    raise CheckpointError(
      f'--format={kind}: the published code has RGB images, but this network '
      f'has --channels={model.channels}. Use saved_model, safetensors, onnx or '
      'keras.'
    )
  if one_network and hasattr(model.state.method.encoder, 'towers'):
    raise CheckpointError(
      f'--format={kind}: this format holds one network, but this encoder has '
      'two. Use saved_model or onnx.'
    )
  for package in packages:
    try:
      importlib.import_module(package)
    except ImportError as error:
      raise CheckpointError(
        f'this --format needs {package} ({error}): pip install -e ".[export]"'
      ) from error
  return importlib.import_module(f'cvr.exports.{kind}').write


def _compare(images, ours, network):
  """-> {endpoint: its largest value, the largest absolute difference}."""
  theirs = {name: np.array(value) for name, value in network(images).items()}
  return {
    name: {
      'largest': float(np.max(np.abs(ours[name]))),
      'difference': float(np.max(np.abs(ours[name] - value))),
    }
    for name, value in theirs.items()
  }


def _relative(numbers):
  return numbers['difference'] / max(numbers['largest'], 1e-6)


def _copy(source, target):
  """Copies a folder's files into another one, which may be in a bucket."""
  for folder, _, files in os.walk(source):
    below = os.path.relpath(folder, source)
    place = target if below == '.' else os.path.join(target, below)
    tf.io.gfile.makedirs(place)
    # Sorted: the index of a checkpoint after its data.
    for name in sorted(files):
      tf.io.gfile.copy(
        os.path.join(folder, name), os.path.join(place, name), overwrite=True
      )


def export(kind, output, model, say):
  """Writes a Trained in one of the FORMATS, parity.npz and a report."""
  index = os.path.join(output, f'ckpt-{model.checkpoint.step}.index')
  if kind == 'released' and tf.io.gfile.exists(index):
    raise CheckpointError(f'{index} exists already: name another --output.')
  write, size = _writer(kind, model), model.image_size
  shape = [4, size, size, model.channels]
  images = tf.random.stateless_uniform(shape, [0, 0])
  ours = model.network_of(model.state)(images)
  ours = {name: value.numpy() for name, value in ours.items()}
  with tempfile.TemporaryDirectory() as folder:
    path, network = write(folder, model)
    endpoints = _compare(images, ours, network)
    # Not max(), which may pass over a NaN.
    worst = np.max([_relative(numbers) for numbers in endpoints.values()])
    name = os.path.basename(path)
    if not worst < _WORSE:
      raise AssertionError(
        f'{name} was read back and differs from the model: {endpoints}'
      )
    vectors = {name: value for name, value in ours.items() if value.ndim == 2}
    np.savez(
      os.path.join(folder, 'parity.npz'), images=images.numpy(), **vectors
    )
    source = model.checkpoint.path
    report = {'export': name, 'from': source, 'endpoints': endpoints}
    with open(os.path.join(folder, f'{kind}_parity.json'), 'w') as file:
      json.dump(report, file, indent=2)
    _copy(folder, output)
  say(
    f'{source} -> {os.path.join(output, name)}\n'
    f'Read back and compared: {len(endpoints)} endpoints differ by '
    f'{worst:.1e} or less of their largest value'
  )
