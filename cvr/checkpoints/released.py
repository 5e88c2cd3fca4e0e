"""The layout of the checkpoints that were released with the first paper.

They are TensorFlow's object-based checkpoints, so the names of their tensors
follow from the attributes of the published classes. Here those names meet our
variables, both ways; tensors are read by name, no class of theirs is needed.
"""

import re
from typing import NamedTuple

import tensorflow as tf

from lars_optimizer import LARS
from resnet import BLOCKS

_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'
# What a state is made of -> where it lies.
PARTS = {
  'encoder': 'model/_resnet',
  'target_encoder': 'model/_target_resnet',
  'projector': 'model/_projection_head',
  'target_projector': 'model/_target_head',
  'predictor': 'model/_projector',
  'backward_encoder': 'model/_target_projector',
  'probe': 'model/supervised_head/linear_layer',
}


class Mismatch(ValueError):
  """Why tensors cannot be loaded: their names, their shapes."""


# Our variables under their names ------------------------------------------


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
    raise Mismatch('this layout is of one network, and the encoder is two')
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


# What a file says of the model in it ---------------------------------------


def _finetuned(shapes):
  """Whether finetuning wrote it: it calls step and optimizer otherwise."""
  slots = '/.OPTIMIZER_SLOT/finetune_optimizer/'
  return any(n == 'finetune_global_step' or slots in n for n in shapes)


def _shapes(path):
  reader = tf.train.load_checkpoint(path)
  return {
    name.removesuffix(_VALUE): tuple(shape)
    for name, shape in reader.get_variable_to_shape_map().items()
    if name.endswith(_VALUE)
  }


def recognised(path):
  """Whether a checkpoint has this layout."""
  return any(name.startswith('model/_resnet/') for name in _shapes(path))


def _count(shapes, pattern):
  """How many numbers stand where the pattern has its group: 1 + the last."""
  found = (re.match(pattern, name) for name in shapes)
  return 1 + max((int(match[1]) for match in found if match), default=-1)


def _shape(shapes, name):
  if name not in shapes:
    raise Mismatch(f'{name} is missing')
  return shapes[name]


def _infer_resnet(shapes):
  root = PARTS['encoder']
  groups = f'{root}/block_groups'
  blocks = tuple(
    _count(shapes, rf'{groups}/{g}/layers/(\d+)/') for g in range(4)
  )
  first = f'{groups}/0/layers/0'
  bottleneck = any(
    name.startswith(f'{first}/conv_relu_dropblock_layers/') for name in shapes
  )
  depths = [d for d, plan in BLOCKS.items() if plan == (bottleneck, blocks)]
  branch = 'conv_relu_dropblock_layers' if bottleneck else 'conv2d_bn_layers'
  width = _shape(shapes, f'{first}/{branch}/0/conv2d/kernel')[-1]
  stem = _shape(shapes, f'{root}/initial_conv_relu_max_pool/0/conv2d/kernel')
  if not depths or width % 64:
    raise Mismatch(
      f'its backbone has blocks {blocks} of width {width}, which is no ResNet '
      f'of depth {", ".join(map(str, BLOCKS))}'
    )
  squeeze = shapes.get(f'{groups}/3/layers/0/{branch}/3/conv2d_0/kernel')
  settings = {
    'resnet_depth': depths[0],
    'width_multiplier': width // 64,
    # The smallest width of a squeeze is 32, which hides smaller ratios.
    'sk_ratio': max(squeeze[-1] / (8 * width), 0.0625) if squeeze else 0.0,
    'se_ratio': 0.0,
  }
  selective = squeeze is not None
  # Three 3x3 are the large stem, one is for small images.
  large = stem[0] == 7 or selective
  return settings | {'stem': 'imagenet' if large else 'cifar'}


def _infer_projector(shapes):
  """-> (settings, the widths of the layers after the representation)."""
  layers = f'{PARTS["projector"]}/linear_layers'
  count = _count(shapes, rf'{layers}/(\d+)/')
  if not count:
    return {'proj_head_mode': 'none'}, []
  kernels = [f'{layers}/{i}/dense/kernel' for i in range(count)]
  widths = [_shape(shapes, name)[-1] for name in kernels]
  settings = {
    'proj_head_mode': 'linear' if count == 1 else 'nonlinear',
    'proj_out_dim': widths[-1],
    'proj_head_output_bn': f'{layers}/{count - 1}/bn_relu/bn/gamma' in shapes,
  }
  if count > 1:
    settings |= {'num_proj_layers': count, 'proj_head_hidden_dim': widths[0]}
  return settings, widths


# The values of --pretrain_loss that there is a layout for.
METHODS = ('contrastive', 'contrastive_ceb', 'byol', 'byol_ceb')


def _family(shapes):
  def has(part):
    return any(name.startswith(f'{PARTS[part]}/') for name in shapes)

  if has('backward_encoder'):
    return ('byol_ceb',)
  # Within the first family nothing in a file tells one from the other.
  return ('byol',) if has('predictor') else ('contrastive', 'contrastive_ceb')


class Inferred(NamedTuple):
  """What the names and shapes of a checkpoint tell about its model."""

  settings: dict  # name of a setting -> value
  methods: tuple  # the values of --pretrain_loss that it may belong to
  num_classes: int  # 0 without a probe
  step: int
  finetuned: bool

  def describe(self):
    """One line for users."""
    s = self.settings
    kind = {'byol': 'BYOL', 'byol_ceb': 'C-BYOL'}.get(
      self.methods[0], 'SimCLR or C-SimCLR'
    )
    selective = f' SK {s["sk_ratio"]:g}' if s['sk_ratio'] else ''
    text = (
      f'{kind}, ResNet-{s["resnet_depth"]} {s["width_multiplier"]}x'
      f'{selective}, '
      f'{s["stem"]} stem, {s["proj_head_mode"]} projection'
    )
    if 'proj_out_dim' in s:
      hidden = s.get('proj_head_hidden_dim')
      text += f' by {hidden}' if hidden else ''
      text += f' to {s["proj_out_dim"]}'
    if self.num_classes:
      reads = s['ft_proj_selector']
      layer = {0: 'the representation', -1: 'the projection'}.get(
        reads, f'layer {reads} of the projection head'
      )
      text += f', probe of {self.num_classes} classes on {layer}'
    finetuned = ', finetuned' if self.finetuned else ''
    return f'{text}{finetuned}, step {self.step}'


def infer(path):
  """Reads the model off a released checkpoint -> Inferred."""
  shapes = _shapes(path)
  settings = _infer_resnet(shapes)
  head, widths = _infer_projector(shapes)
  settings |= head
  predictor = f'{PARTS["predictor"]}/linear_layers/0'
  settings['projector_mid_bn'] = f'{predictor}/dense/bias' not in shapes
  kernel = shapes.get(f'{PARTS["probe"]}/dense/kernel')
  if kernel:
    bottleneck = BLOCKS[settings['resnet_depth']][0]
    h = 512 * settings['width_multiplier'] * (4 if bottleneck else 1)
    layers = {width: i for i, width in enumerate(widths, 1)}
    layers |= {widths[-1]: -1} if widths else {}
    layers |= {h: 0}
    if kernel[0] not in layers:
      raise Mismatch(
        f'its probe reads {kernel[0]} numbers, but no layer has as many '
        f'({", ".join(map(str, layers))})'
      )
    settings['ft_proj_selector'] = layers[kernel[0]]
  return Inferred(
    settings,
    _family(shapes),
    kernel[-1] if kernel else 0,
    step(path),
    _finetuned(shapes),
  )


def counter(path, *names, default=0):
  """The first of some scalars that a checkpoint has."""
  reader = tf.train.load_checkpoint(path)
  for name in names:
    if reader.has_tensor(name + _VALUE):
      return int(reader.get_tensor(name + _VALUE))
  return default


def step(path):
  """The step that a checkpoint was written at; 0 when it does not say."""
  return counter(path, 'global_step', 'finetune_global_step')


# In and out ----------------------------------------------------------------


class Report(NamedTuple):
  """How the tensors of a file and the variables of a model met."""

  matched: int
  left_over: list

  def describe(self):
    def some(names):
      shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
      return f'{len(names)} ({shown})' if names else '0'

    slots = sum('/.OPTIMIZER_SLOT/' in name for name in self.left_over)
    rest = [n for n in self.left_over if '/.OPTIMIZER_SLOT/' not in n]
    momentum = f' and {slots} of momentum' if slots else ''
    return (
      f'{self.matched} tensors matched, missing 0, left over {some(rest)}'
      f'{momentum}'
    )


def _slot(name, finetuned):
  optimizer = 'finetune_optimizer' if finetuned else 'optimizer'
  return f'{name}/.OPTIMIZER_SLOT/{optimizer}/Momentum'


def _bare(optimizer):
  """The optimizer itself, without fp16's loss scale around it."""
  return getattr(optimizer, 'inner_optimizer', optimizer)


def _momentum(optimizer, variable):
  """LARS' slot of a variable; None where there is none."""
  try:
    return optimizer.get_slot(variable, 'Momentum')
  except (KeyError, AttributeError):  # Not trained, or not by LARS.
    return None


def _wanted(parts, optimizer, shapes, resuming):
  """{name: variable} of the parts and of LARS, if there is one."""
  wanted = variables(parts)
  if optimizer is None:
    return wanted
  finetuned = _finetuned(shapes)
  for name, variable in variables(parts).items():
    momentum, saved = _momentum(optimizer, variable), _slot(name, finetuned)
    # Finetuning wrote momentum for what it trained alone.
    needed = resuming or not finetuned or saved in shapes
    if momentum is not None and needed:
      wanted[saved] = momentum
  return wanted


def load(path, parts, optimizer=None, resuming=False):
  """Reads the parts (see parts_of), and momentum and step -> Report.

  resuming: all that the optimizer trains needs its momentum.
  Nothing is assigned unless all of it is there and fits.
  """
  shapes, optimizer = _shapes(path), _bare(optimizer)
  wanted = _wanted(parts, optimizer, shapes, resuming)
  gone = [
    f'{name} {wanted[name].shape.as_list()}'
    for name in sorted(wanted.keys() - shapes.keys())
  ]
  other = [
    f'{name} {list(shapes[name])} for {variable.shape.as_list()}'
    for name, variable in wanted.items()
    if name in shapes and shapes[name] != tuple(variable.shape.as_list())
  ]
  if gone or other:
    raise Mismatch(
      '; '.join(
        f'{len(names)} tensors {what}, first {", ".join(names[:10])}'
        for what, names in (('missing', gone), ('of another shape', other))
        if names
      )
    )
  reader = tf.train.load_checkpoint(path)
  values = {name: reader.get_tensor(name + _VALUE) for name in wanted}
  for name, value in values.items():
    wanted[name].assign(value)
  read = set(wanted)
  if optimizer is not None:
    optimizer.iterations.assign(step(path))
    read |= {'global_step', 'finetune_global_step'}
  return Report(len(wanted), sorted(shapes.keys() - read))


def _tree(flat):
  """{'a/b': x} -> nested plain containers whose attributes are a and b."""
  children = {}
  for name, value in flat.items():
    head, _, rest = name.partition('/')
    children.setdefault(head, {})[rest] = value
  return tf.train.Checkpoint(
    **{
      head: below[''] if '' in below else _tree(below)
      for head, below in children.items()
    }
  )


def _with_momentum(parts, optimizer, finetuned, like):
  """LARS with the momentum of what was trained: as in `like`, or all of it.

  Slots that the optimizer has beyond that would be zeros nobody trained.
  """
  shapes, held = _shapes(like) if like else None, LARS(0.0)
  for name, variable in variables(parts).items():
    momentum = _momentum(optimizer, variable)
    kept = shapes is None or _slot(name, finetuned) in shapes
    if momentum is not None and kept:
      held.add_slot(variable, 'Momentum').assign(momentum)
  held.iterations = optimizer.iterations
  return held


def write(path, parts, optimizer, save_counter=1, finetuned=False, like=None):
  """Writes the parts, momentum and step as the published code does.

  By name and by object: the containers have the published attributes.
  finetuned: under the names of finetuning, with momentum for the variables
  that have it in the file `like`, where one is given.
  """
  for layer in parts.values():
    if any(type(m).__name__ == 'SqueezeExcite' for m in layer.submodules):
      raise Mismatch('squeeze-and-excitation has no place in this layout')
  bare = _bare(optimizer)
  if finetuned or bare is not optimizer:  # Which tracks the loss scale too.
    bare = _with_momentum(parts, bare, finetuned, like)
  root = tf.Module()
  root.model = _tree(variables(parts)).model
  # Before the optimizer: its counter is stored under the shorter name.
  if finetuned:
    root.finetune_global_step = bare.iterations
    root.finetune_optimizer = bare
  else:
    root.global_step = bare.iterations
    root.optimizer = bare
  root.save_counter = tf.Variable(save_counter, dtype=tf.int64)
  tf.train.Checkpoint(root=root).write(path)
