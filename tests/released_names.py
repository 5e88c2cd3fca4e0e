"""The tensors of released checkpoints, by rule: names, shapes, slots.

Shares no code with cvr.checkpoints. DIGESTS are of the whole lists of four real
files, and hold the rules to them.
"""

import hashlib

BLOCKS = {
  18: (1, (2, 2, 2, 2)),
  34: (1, (3, 4, 6, 3)),
  50: (4, (3, 4, 6, 3)),
  101: (4, (3, 4, 23, 3)),
  152: (4, (3, 8, 36, 3)),
  200: (4, (3, 24, 36, 3)),
}
WIDTH = 64
SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
SLOT = '/.OPTIMIZER_SLOT/optimizer/Momentum'


def bn(path, size, center=True):
  names = ['gamma', 'moving_mean', 'moving_variance'] + ['beta'] * center
  return {f'{path}/bn/{name}': (size,) for name in names}


def resnet(root, depth, width, sk, stem):
  expansion, counts = BLOCKS[depth]
  base = WIDTH * width
  out = {}
  initial = f'{root}/initial_conv_relu_max_pool'
  if sk:
    plan = [(0, 1, 3, base // 2), (2, 3, base // 2, base // 2)]
    plan.append((4, 6, base // 2, base))
    for conv, norm, before, after in plan:
      out[f'{initial}/{conv}/conv2d/kernel'] = (3, 3, before, after)
      out |= bn(f'{initial}/{norm}', after)
  else:
    size = 7 if stem == 'imagenet' else 3
    out[f'{initial}/0/conv2d/kernel'] = (size, size, 3, base)
    out |= bn(f'{initial}/2', base)
  channels = base
  for group, count in enumerate(counts):
    filters = base * 2**group
    last = expansion * filters
    for i in range(count):
      block = f'{root}/block_groups/{group}/layers/{i}'
      strided = group > 0 and i == 0
      # The first block of every group, also where the width stays.
      if i == 0:
        name = 'projection' if expansion == 4 else 'shortcut'
        at = (2 if strided else 1) if sk else 0
        layers = f'{block}/{name}_layers'
        out[f'{layers}/{at}/conv2d/kernel'] = (1, 1, channels, last)
        out |= bn(f'{layers}/{at + 1}', last)
      if expansion == 1:
        layers = f'{block}/conv2d_bn_layers'
        out[f'{layers}/0/conv2d/kernel'] = (3, 3, channels, filters)
        out[f'{layers}/2/conv2d/kernel'] = (3, 3, filters, filters)
        out |= bn(f'{layers}/1', filters) | bn(f'{layers}/3', filters)
      else:
        layers = f'{block}/conv_relu_dropblock_layers'
        out[f'{layers}/0/conv2d/kernel'] = (1, 1, channels, filters)
        out |= bn(f'{layers}/1', filters)
        end = 5 if sk else 6
        if sk:
          hidden = max(int(filters * sk), 32)
          at = f'{layers}/3'
          out |= {
            f'{at}/conv2d_fixed_padding/conv2d/kernel': (
              3, 3, filters, 2 * filters,
            ),
            f'{at}/conv2d_0/kernel': (1, 1, filters, hidden),
            f'{at}/conv2d_1/kernel': (1, 1, hidden, 2 * filters),
          }  # fmt: skip
          out |= bn(f'{at}/batch_norm_relu', 2 * filters)
          out |= bn(f'{at}/batch_norm_relu_1', hidden)
        else:
          out[f'{layers}/3/conv2d/kernel'] = (3, 3, filters, filters)
          out |= bn(f'{layers}/4', filters)
        out[f'{layers}/{end}/conv2d/kernel'] = (1, 1, filters, last)
        out |= bn(f'{layers}/{end + 1}', last)
      channels = last
  return out


def mlp(root, before, hidden, after, last=1):
  layers = f'{root}/linear_layers'
  return {
    f'{layers}/0/dense/kernel': (before, hidden),
    f'{layers}/{last}/dense/kernel': (hidden, after),
  } | bn(f'{layers}/0/bn_relu', hidden)


def tensors(
  family,
  depth=50,
  width=1,
  sk=0.0,
  stem='imagenet',
  hidden=4096,
  out=256,
  probe=(256, 1000),
):
  """{name: shape} of a checkpoint; family: simclr, byol or cbyol."""
  h = 8 * WIDTH * width * BLOCKS[depth][0]
  online = resnet('model/_resnet', depth, width, sk, stem)
  online |= mlp('model/_projection_head', h, hidden, out)
  still = {}
  if family != 'simclr':
    still |= resnet('model/_target_resnet', depth, width, sk, stem)
    still |= mlp('model/_target_head', h, hidden, out)
  if family == 'byol':
    online |= mlp('model/_projector', out, hidden, out)
  if family == 'cbyol':
    online |= mlp('model/_projector', out, hidden, out, last=2)
    online['model/_projector/linear_layers/3/dense/kernel'] = (out, out)
    online |= mlp('model/_target_projector', out, hidden, out)
  if probe:
    head = 'model/supervised_head/linear_layer/dense'
    online |= {f'{head}/kernel': probe, f'{head}/bias': probe[1:]}
  slots = {
    name + SLOT: shape
    for name, shape in online.items()
    if 'moving_' not in name
  }
  counters = {'global_step': (), 'save_counter': ()}
  return online | still | slots | counters


def digest(shapes):
  lines = sorted(f'{name}{SUFFIX} {shape}' for name, shape in shapes.items())
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16]
