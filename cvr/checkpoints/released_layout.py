"""The tensor names of the checkpoints released with the first paper.

They are TensorFlow's object-based checkpoints: the names follow from the
attributes of the published classes, and lead here to our variables. No class of
theirs is needed.
"""

# The parts of a state -> the prefix of their tensors.
PARTS = {
  'encoder': 'model/_resnet',
  'target_encoder': 'model/_target_resnet',
  'projector': 'model/_projection_head',
  'target_projector': 'model/_target_head',
  'predictor': 'model/_projector',
  'backward_encoder': 'model/_target_projector',
  'probe': 'model/supervised_head/linear_layer',
}


# What users call them.
TITLES = {
  'encoder': 'the encoder',
  'target_encoder': 'the target network',
  'projector': 'the projection head',
  'target_projector': 'the target network',
  'predictor': 'the predictor',
  'backward_encoder': 'the backward encoder',
  'probe': 'the probe',
}
# The values of --pretrain_loss that this layout can hold.
METHODS = ('contrastive', 'contrastive_ceb', 'byol', 'byol_ceb')


class Mismatch(ValueError):
  """Why tensors cannot be loaded: their names, their shapes."""


def _norm(path, norm):
  for name in ('gamma', 'beta', 'moving_mean', 'moving_variance'):
    variable = getattr(norm, name)
    if variable is not None:
      yield f'{path}/{name}', variable


def _conv_norm(conv_path, norm_path, layer):
  yield f'{conv_path}/kernel', layer.conv.kernel
  yield from _norm(norm_path, layer.norm)


def _stem(path, stem):
  # Of one convolution, index 1 was an identity; of three, 5 was.
  places = [(0, 2)] if len(stem.convs) == 1 else [(0, 1), (2, 3), (4, 6)]
  for (conv, norm), layer in zip(places, stem.convs, strict=True):
    yield from _conv_norm(f'{path}/{conv}/conv2d', f'{path}/{norm}/bn', layer)


def _selective(path, layer):
  """A SelectiveKernel."""
  yield from _conv_norm(
    f'{path}/conv2d_fixed_padding/conv2d',
    f'{path}/batch_norm_relu/bn',
    layer.both,
  )
  yield from _conv_norm(
    f'{path}/conv2d_0', f'{path}/batch_norm_relu_1/bn', layer.squeeze
  )
  yield f'{path}/conv2d_1/kernel', layer.mix.kernel


def _block(path, block):
  bottleneck = len(block.branch) == 3
  if block.shortcut:
    # With selective kernels a padding, if it strides, and a pool come first.
    conv = (1 if block.stride == 1 else 2) if block.averages else 0
    name = 'projection_layers' if bottleneck else 'shortcut_layers'
    yield from _conv_norm(
      f'{path}/{name}/{conv}/conv2d',
      f'{path}/{name}/{conv + 1}/bn',
      block.shortcut,
    )
  name = 'conv_relu_dropblock_layers' if bottleneck else 'conv2d_bn_layers'
  index = 0
  for layer in block.branch:
    if block.averages and index == 3:
      yield from _selective(f'{path}/{name}/{index}', layer)
      index += 2
      continue
    yield from _conv_norm(
      f'{path}/{name}/{index}/conv2d', f'{path}/{name}/{index + 1}/bn', layer
    )
    # In a bottleneck a dropblock without variables follows.
    index += 3 if bottleneck else 2


def _resnet(path, encoder):
  if hasattr(encoder, 'towers'):
    raise Mismatch('this layout holds one network, but the encoder has two')
  stem, *groups = encoder.stages
  yield from _stem(f'{path}/initial_conv_relu_max_pool', stem)
  for g, group in enumerate(groups):
    for b, block in enumerate(group.blocks):
      yield from _block(f'{path}/block_groups/{g}/layers/{b}', block)


def _linear(path, layer):
  yield f'{path}/dense/kernel', layer.dense.kernel
  if layer.dense.use_bias:
    yield f'{path}/dense/bias', layer.dense.bias
  if layer.norm is not None:
    yield from _norm(f'{path}/bn_relu/bn', layer.norm)


def _mlp(path, mlp):
  for i, layer in enumerate(mlp.layers_out):
    yield from _linear(f'{path}/linear_layers/{i}', layer)


def _predictor(path, predictor):
  """BYOL's MLP, or C-BYOL's stochastic head: hidden, (nothing), mu, decoder."""
  if not hasattr(predictor, 'decoder'):
    yield from _mlp(path, predictor)
    return
  hidden, mu = predictor.encoder.layers_out
  yield from _linear(f'{path}/linear_layers/0', hidden)
  yield from _linear(f'{path}/linear_layers/2', mu)
  yield f'{path}/linear_layers/3/dense/kernel', predictor.decoder.kernel


def _probe(path, probe):
  yield f'{path}/dense/kernel', probe.dense.kernel
  yield f'{path}/dense/bias', probe.dense.bias


_WALK = {
  'encoder': _resnet,
  'target_encoder': _resnet,
  'projector': _mlp,
  'target_projector': _mlp,
  'predictor': _predictor,
  'backward_encoder': _mlp,
  'probe': _probe,
}


def parts_of(method, probe=None):
  """Name of PARTS -> the layer, of those that a method and its probe have."""
  layers = {name: getattr(method, name, None) for name in PARTS}
  layers['probe'] = probe
  return {name: layer for name, layer in layers.items() if layer is not None}


def variables(parts):
  """{released name: our variable} of some parts."""
  return {
    name: variable
    for part, layer in parts.items()
    for name, variable in _WALK[part](PARTS[part], layer)
  }
