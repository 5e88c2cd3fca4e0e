"""A trained model, written for others to use.

Every export is read back and compared with the model it came from before it is
put where it belongs; the report of that lies beside it.
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
from cvr.checkpoints import released
from cvr.checkpoints.files import CheckpointError
from cvr.exports import torch_names

_WORSE = 1e-3  # Relative difference from which an export is no copy.
_ANY_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, 'images')


class Trained(NamedTuple):
  """A model to export."""

  state: object  # method, probe, optimizer
  found: object  # the pretrained.Found it was loaded from
  mean_std: bool  # whether it was trained on normalised images
  image_size: int
  again: Callable  # -> a state like it with other numbers


def make_network(state, mean_std):
  """-> network(RGB images in [0, 1], trainable) -> the published endpoints."""
  method, probe = state.method, state.probe

  def network(images, trainable=False):
    if mean_std:
      images = data_util.normalize(images)
    found = method.encoder.endpoints(images, training=trainable)
    h = found['final_avg_pool']
    heads = method.layers_of(h, trainable)
    found |= {'proj_head_input': h, 'proj_head_output': heads['projection']}
    if probe:
      read = method.probed(heads)
      found |= {'supervised_head_input': read, 'logits_sup': probe(read)}
    return found

  return network


def _needs(module):
  """An optional package, or an error that says how to get it."""
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise CheckpointError(
      f'this --format needs {module} ({error}): pip install -e ".[export]"'
    ) from error


# The formats: each writes, then reads back what it wrote as a network ---------


def _released(folder, model):
  """A checkpoint in the layout of the published code."""
  path = os.path.join(folder, f'ckpt-{model.found.step}')
  state = model.state
  _one_network('released', model)
  for method in set(model.found.methods) - set(released.METHODS):
    raise CheckpointError(
      f'--format=released: that layout is of {", ".join(released.METHODS)}, '
      f'and this checkpoint of {method}. saved_model, safetensors, onnx and '
      'keras hold its encoder.'
    )
  if getattr(state.method, 'ceb', None) and state.method.ceb.variables:
    raise CheckpointError(
      '--format=released: that layout has no place for learned deviations.'
    )
  released.write(
    path,
    released.parts_of(state.method, state.probe),
    state.optimizer,
    model.found.save_counter,
    finetuned=model.found.finetuned,
    like=model.found.path if model.found.released else None,
  )

  state = model.again()
  released.load(path, released.parts_of(state.method, state.probe))
  return path, make_network(state, model.mean_std)


def _saved_model(folder, model):
  """A SavedModel that can be trained further, called as the published ones."""
  path = os.path.join(folder, 'saved_model')
  call = tf.function(make_network(model.state, model.mean_std))
  method, probe = model.state.method, model.state.probe
  layers = [method.encoder, method.projector, *([probe] if probe else [])]
  layers += [method.latent] if hasattr(method, 'latent') else []
  module = tf.train.Checkpoint()
  # Bare variables: our layers would bring Keras' way of saving along.
  module.variables = [v for layer in layers for v in layer.variables]
  module.trainable_variables = [
    v for layer in layers for v in layer.trainable_variables
  ]
  module.regularization_losses = []
  module.__call__ = call
  for arguments in ({}, {'trainable': False}, {'trainable': True}):
    call.get_concrete_function(_ANY_IMAGES, **arguments)

  @tf.function(input_signature=[_ANY_IMAGES])
  def serve(images):
    return call(images, trainable=False)

  tf.saved_model.save(module, path, {'serving_default': serve})
  return path, tf.saved_model.load(path)


def _one_network(kind, model):
  """Refuses the two of CMC, where others have names for one."""
  if hasattr(model.state.method.encoder, 'towers'):
    raise CheckpointError(
      f'--format={kind}: that has names for one network, and this encoder is '
      'two. saved_model and onnx hold them.'
    )


def _safetensors(folder, model):
  """The backbone, and a probe on it, for torchvision and timm."""
  _one_network('safetensors', model)
  numpy = _needs('safetensors.numpy')
  depth = model.found.settings['resnet_depth']
  path = os.path.join(folder, f'resnet{depth}.safetensors')

  def parts(state):
    method, probe = state.method, state.probe
    layers = range(len(method.projector.layers_out) + 1)
    reads_h = probe and not method.probes_latent
    reads_h = reads_h and method.probed({'layers': layers}) == 0
    return method.encoder, probe if reads_h else None

  try:
    tensors = torch_names.state_dict(*parts(model.state))
  except torch_names.NoPlace as error:
    raise CheckpointError(
      f'--format=safetensors: torchvision has no names for {error}. '
      'saved_model, keras and onnx hold them.'
    ) from error
  stem = model.state.method.encoder.stages[0]
  mean, std = (0.0,) * 3, (1.0,) * 3
  if model.mean_std:
    mean, std = data_util.IMAGENET_MEAN, data_util.IMAGENET_STD
  about = {
    'input': 'RGB in [0, 1], minus mean, divided by std',
    'mean': json.dumps(mean),
    'std': json.dumps(std),
    'stem_stride': str(stem.convs[0].conv.stride),
    'max_pool': json.dumps(stem.pool),
    'step': str(model.found.step),
  }
  with open(path, 'wb') as file:
    file.write(numpy.save(tensors, about))

  state = model.again()
  torch_names.load(numpy.load_file(path), *parts(state))
  network = make_network(state, model.mean_std)
  kept = ['final_avg_pool', *(['logits_sup'] if parts(state)[1] else [])]
  return path, lambda images: {k: network(images)[k] for k in kept}


def _onnx(folder, model):
  """An ONNX graph for evaluation: any number of images of any size."""
  tf2onnx, onnxruntime = _needs('tf2onnx'), _needs('onnxruntime')
  path = os.path.join(folder, 'model.onnx')
  call = tf.function(make_network(model.state, model.mean_std))
  tf2onnx.convert.from_function(
    call, input_signature=[_ANY_IMAGES], opset=17, output_path=path
  )
  session = onnxruntime.InferenceSession(path)
  names = [output.name for output in session.get_outputs()]

  def network(images):
    found = session.run(None, {'images': images.numpy()})
    return dict(zip(names, found, strict=True))

  return path, network


def _keras(folder, model):
  """A .keras file of Keras' own layers."""
  _one_network('keras', model)
  if model.state.probe and model.state.method.probes_latent:
    raise CheckpointError(
      '--format=keras has no place for the latent that this probe reads. '
      'saved_model and onnx hold it.'
    )
  import keras

  if keras.__version__ < '3':
    raise CheckpointError(
      '--format=keras needs Keras 3, which comes with TensorFlow 2.16 or newer'
    )
  from cvr.exports import keras_twin

  path = os.path.join(folder, 'model.keras')
  state = model.state
  keras_twin.build(state.method, state.probe, model.mean_std).save(path)
  return path, keras.models.load_model(path)


FORMATS = {
  'released': _released,
  'saved_model': _saved_model,
  'safetensors': _safetensors,
  'onnx': _onnx,
  'keras': _keras,
}


# The report -------------------------------------------------------------------


def _compare(images, ours, network):
  """-> {endpoint: its largest value, the largest absolute difference}."""
  found = {name: np.array(value) for name, value in network(images).items()}
  return {
    name: {
      'largest': float(np.max(np.abs(ours[name]))),
      'difference': float(np.max(np.abs(ours[name] - value))),
    }
    for name, value in found.items()
  }


def _relative(numbers):
  return numbers['difference'] / max(numbers['largest'], 1e-6)


def _copy(source, target):
  """A folder's files into another one, which may be a bucket's."""
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
  index = os.path.join(output, f'ckpt-{model.found.step}.index')
  if kind == 'released' and tf.io.gfile.exists(index):
    raise CheckpointError(f'{index} is there already: name another --output.')
  size = model.image_size
  images = tf.random.stateless_uniform([4, size, size, 3], [0, 0])
  ours = make_network(model.state, model.mean_std)(images)
  ours = {name: value.numpy() for name, value in ours.items()}
  with tempfile.TemporaryDirectory() as folder:
    path, network = FORMATS[kind](folder, model)
    found = _compare(images, ours, network)
    # Not max(), which may pass over a NaN.
    worst = np.max([_relative(numbers) for numbers in found.values()])
    name = os.path.basename(path)
    if not worst < _WORSE:
      raise AssertionError(f'{name} read back is another model: {found}')
    vectors = {name: value for name, value in ours.items() if value.ndim == 2}
    np.savez(
      os.path.join(folder, 'parity.npz'), images=images.numpy(), **vectors
    )
    report = {'export': name, 'from': model.found.path, 'endpoints': found}
    with open(os.path.join(folder, f'{kind}_parity.json'), 'w') as file:
      json.dump(report, file, indent=2)
    _copy(folder, output)
  say(
    f'{model.found.path} -> {os.path.join(output, name)}\n'
    f'Read back and compared: {len(found)} endpoints differ by '
    f'{worst:.1e} or less of their largest value'
  )
