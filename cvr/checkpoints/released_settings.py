"""The settings of a released model, read off its tensors' names and shapes."""

import re
from typing import NamedTuple

import numpy as np

import resnet
from cvr.checkpoints import bundle
from cvr.checkpoints.released_layout import PARTS, Mismatch
from resnet import BLOCKS

VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'


def is_finetuned(shapes):
  """Whether finetuning wrote it: step and optimizer have names of their own."""
  slots = '/.OPTIMIZER_SLOT/finetune_optimizer/'
  return any(n == 'finetune_global_step' or slots in n for n in shapes)


def shapes_in(path):
  """{name: shape} of the tensors in a checkpoint."""
  reader = bundle.reader(path)
  return {
    name.removesuffix(VALUE): tuple(shape)
    for name, shape in reader.get_variable_to_shape_map().items()
    if name.endswith(VALUE)
  }


def recognised(path):
  """Whether a checkpoint has this layout."""
  return any(name.startswith('model/_resnet/') for name in shapes_in(path))


def _count(shapes, pattern):
  """How many items are numbered where the pattern has its group.

  Numbers without a gap: no file can ask for more items than it has tensors.
  """
  matches = (re.match(pattern, name) for name in shapes)
  numbers = {match[1]: match[0] for match in matches if match}
  gap = {*numbers} - {str(i) for i in range(len(numbers))}
  if gap:
    raise Mismatch(f'{numbers[min(gap)]}... has no number before it')
  return len(numbers)


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
  if not depths or width % resnet.WIDTH:
    raise Mismatch(
      f'its backbone has blocks {blocks} of width {width}, which is not a '
      f'ResNet of depth {", ".join(map(str, BLOCKS))}'
    )
  squeeze = shapes.get(f'{groups}/3/layers/0/{branch}/3/conv2d_0/kernel')
  settings = {
    'channels': stem[2],
    'resnet_depth': depths[0],
    'width_multiplier': width // resnet.WIDTH,
    # The smallest width of a squeeze is 32, which hides smaller ratios.
    'sk_ratio': max(squeeze[-1] / (8 * width), 0.0625) if squeeze else 0.0,
    'se_ratio': 0.0,
  }
  if not bottleneck:
    projects = f'{first}/shortcut_layers/0/conv2d/kernel' in shapes
    settings['shortcut'] = 'published' if projects else 'torchvision'
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


def _family(shapes):
  def has(part):
    return any(name.startswith(f'{PARTS[part]}/') for name in shapes)

  if has('backward_encoder'):
    return ('byol_ceb',)
  # Within the first family nothing in a file tells one from the other.
  return ('byol',) if has('predictor') else ('contrastive', 'contrastive_ceb')


class Inferred(NamedTuple):
  """What the names and shapes of a checkpoint say of its model."""

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
    channels = '' if s['channels'] == 3 else f', --channels={s["channels"]}'
    text = (
      f'{kind}, ResNet-{s["resnet_depth"]} {s["width_multiplier"]}x'
      f'{selective}{channels}, '
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
  shapes = shapes_in(path)
  settings = _infer_resnet(shapes)
  head, widths = _infer_projector(shapes)
  settings |= head
  predictor = f'{PARTS["predictor"]}/linear_layers/0'
  settings['projector_mid_bn'] = f'{predictor}/dense/bias' not in shapes
  kernel = shapes.get(f'{PARTS["probe"]}/dense/kernel')
  if kernel:
    bottleneck = BLOCKS[settings['resnet_depth']][0]
    # Each of the four groups is twice as wide as the one before.
    h = 8 * resnet.WIDTH * settings['width_multiplier']
    h *= 4 if bottleneck else 1
    layers = {width: i for i, width in enumerate(widths, 1)}
    layers |= {widths[-1]: -1} if widths else {}
    layers |= {h: 0}
    if kernel[0] not in layers:
      raise Mismatch(
        f'its probe reads {kernel[0]} numbers, but no layer has this width '
        f'({", ".join(map(str, layers))})'
      )
    settings['ft_proj_selector'] = layers[kernel[0]]
  return Inferred(
    settings,
    _family(shapes),
    kernel[-1] if kernel else 0,
    step(path),
    is_finetuned(shapes),
  )


def counter(path, *names, default=0):
  """The first of some scalars that a checkpoint has."""
  reader = bundle.reader(path)
  for name in names:
    if reader.has_tensor(name + VALUE):
      value = np.asarray(reader.get_tensor(name + VALUE))
      if value.ndim or value.dtype.kind not in 'iu' or value < 0:
        raise Mismatch(f'{name} is no number of steps')
      return int(value)
  return default


def step(path):
  """The step that a checkpoint was written at; 0 when it does not say."""
  return counter(path, 'global_step', 'finetune_global_step')
