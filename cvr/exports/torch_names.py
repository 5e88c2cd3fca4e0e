"""Our variables under the names and in the layout of torchvision's ResNets.

timm has the same names. Neither has selective kernels of this kind.
"""

import numpy as np

_NORM = {
  'gamma': 'weight',
  'beta': 'bias',
  'moving_mean': 'running_mean',
  'moving_variance': 'running_var',
}


class NoPlace(ValueError):
  """What these names have no place for."""


def _conv_norm(conv, norm, layer):
  yield f'{conv}.weight', layer.conv.kernel
  for ours, theirs in _NORM.items():
    yield f'{norm}.{theirs}', getattr(layer.norm, ours)


def variables(encoder, probe=None):
  """{torchvision's name: our variable}; probe: the one on representations."""
  stem, *groups = encoder.stages
  plain = all(
    type(layer).__name__ == 'ConvNorm'
    for group in groups
    for block in group.blocks
    for layer in block.branch
  )
  if not plain:
    raise NoPlace('selective kernels and squeeze-and-excitation')
  found = dict(_conv_norm('conv1', 'bn1', stem.convs[0]))
  for g, group in enumerate(groups, 1):
    for b, block in enumerate(group.blocks):
      path = f'layer{g}.{b}'
      for i, layer in enumerate(block.branch, 1):
        found |= _conv_norm(f'{path}.conv{i}', f'{path}.bn{i}', layer)
      if block.shortcut:
        down = f'{path}.downsample'
        found |= _conv_norm(f'{down}.0', f'{down}.1', block.shortcut)
  if probe:
    found |= {'fc.weight': probe.dense.kernel, 'fc.bias': probe.dense.bias}
  return found


def to_torch(value):
  """HWIO -> OIHW, [in, out] -> [out, in]; vectors as they are."""
  order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim)
  return (
    value if order is None else np.ascontiguousarray(value.transpose(order))
  )


def from_torch(value):
  """And back."""
  order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim)
  return value if order is None else value.transpose(order)


def state_dict(encoder, probe=None):
  """What torch's load_state_dict takes, as arrays."""
  tensors = {
    name: to_torch(variable.numpy())
    for name, variable in variables(encoder, probe).items()
  }
  batches = {
    name.replace('running_mean', 'num_batches_tracked'): np.array(0, np.int64)
    for name in tensors
    if name.endswith('running_mean')
  }
  return tensors | batches


def load(tensors, encoder, probe=None):
  """The way back, into our variables."""
  for name, variable in variables(encoder, probe).items():
    variable.assign(from_torch(tensors[name]))
