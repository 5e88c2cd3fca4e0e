"""--format=safetensors: the backbone, and a probe on it, for PyTorch.

Under the names and in the layout of torchvision's ResNets; timm has the same.
Neither has selective kernels of this kind.
"""

import json
import os

import numpy as np
import safetensors.numpy

import data_util
from cvr.checkpoints.files import CheckpointError

_NORM = {
  'gamma': 'weight',
  'beta': 'bias',
  'moving_mean': 'running_mean',
  'moving_variance': 'running_var',
}


def _conv_norm(conv, norm, layer):
  yield f'{conv}.weight', layer.conv.kernel
  for ours, theirs in _NORM.items():
    yield f'{norm}.{theirs}', getattr(layer.norm, ours)


def _check_shape_changes(block):
  """torchvision has no projection where a block keeps its shape."""
  before, after = block.shortcut.conv.kernel.shape[-2:]
  if block.stride == 1 and before == after:
    raise CheckpointError(
      '--format=safetensors: torchvision has no names for the projection in '
      'the first group, which the published ResNet-18 and -34 have. Use '
      'saved_model, keras or onnx, or train with --shortcut=torchvision.'
    )


def _variables(encoder, probe=None):
  """{torchvision's name: our variable}; probe: the one on representations."""
  stem, *groups = encoder.stages
  plain = all(
    type(layer).__name__ == 'ConvNorm'
    for group in groups
    for block in group.blocks
    for layer in block.branch
  )
  if not plain:
    raise CheckpointError(
      '--format=safetensors: torchvision has no names for selective kernels '
      'and squeeze-and-excitation. Use saved_model, keras or onnx.'
    )
  variables = dict(_conv_norm('conv1', 'bn1', stem.convs[0]))
  for g, group in enumerate(groups, 1):
    for b, block in enumerate(group.blocks):
      path = f'layer{g}.{b}'
      for i, layer in enumerate(block.branch, 1):
        variables |= _conv_norm(f'{path}.conv{i}', f'{path}.bn{i}', layer)
      if block.shortcut:
        _check_shape_changes(block)
        down = f'{path}.downsample'
        variables |= _conv_norm(f'{down}.0', f'{down}.1', block.shortcut)
  if probe:
    variables |= {'fc.weight': probe.dense.kernel, 'fc.bias': probe.dense.bias}
  return variables


def _to_torch(value):
  """HWIO -> OIHW, [in, out] -> [out, in]; vectors as they are."""
  order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
  return (
    value if order is None else np.ascontiguousarray(value.transpose(order))
  )


def _from_torch(value):
  """OIHW -> HWIO, [out, in] -> [in, out]; vectors as they are."""
  order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim)
  return value if order is None else value.transpose(order)


def _state_dict(encoder, probe):
  """What torch's load_state_dict takes, as arrays."""
  tensors = {
    name: _to_torch(variable.numpy())
    for name, variable in _variables(encoder, probe).items()
  }
  batches = {
    name.replace('running_mean', 'num_batches_tracked'): np.array(0, np.int64)
    for name in tensors
    if name.endswith('running_mean')
  }
  return tensors | batches


def _parts(state):
  """-> (encoder, the probe if it reads the representation, else None)."""
  method, probe = state.method, state.probe
  layers = range(len(method.projector.layers_out) + 1)
  reads_h = probe and not method.probes_latent
  reads_h = reads_h and method.probed({'layers': layers}) == 0
  return method.encoder, probe if reads_h else None


def _metadata(model):
  """What a reader needs to know beside the tensors; values are text."""
  stem = model.state.method.encoder.stages[0]
  channels = model.channels
  mean, std = (0.0,) * channels, (1.0,) * channels
  if model.mean_std:
    mean, std = data_util.mean_and_std(channels)
  what = {1: 'gray', 3: 'RGB'}.get(channels, f'{channels} channels')
  return {
    'input': f'{what} in [0, 1], minus mean, divided by std',
    'mean': json.dumps(mean),
    'std': json.dumps(std),
    'stem_stride': str(stem.convs[0].conv.stride),
    'max_pool': json.dumps(stem.pool),
    'step': str(model.checkpoint.step),
  }


def write(folder, model):
  """-> (path, the network read back from it)."""
  depth = model.checkpoint.settings['resnet_depth']
  path = os.path.join(folder, f'resnet{depth}.safetensors')
  tensors = _state_dict(*_parts(model.state))
  with open(path, 'wb') as file:
    file.write(safetensors.numpy.save(tensors, _metadata(model)))

  state = model.again()
  encoder, probe = _parts(state)
  tensors = safetensors.numpy.load_file(path)
  for name, variable in _variables(encoder, probe).items():
    variable.assign(_from_torch(tensors[name]))
  network = model.network_of(state)
  kept = ['final_avg_pool', *(['logits_sup'] if probe else [])]
  return path, lambda images: {name: network(images)[name] for name in kept}
