"""Checkpoints in the released layout, made without the code under test.

But for build(), which makes our models for them.
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras

import model
import released_names
import resnet
from cvr import methods
from cvr.checkpoints import released_layout, released_settings
from cvr.configs.config import Config
from lars_optimizer import LARS
from released_names import SLOT, SUFFIX
from small_data import plan_of

# With shorten() a checkpoint of every kind of name, in a moment.
SMALL = dict(depth=18, stem='cifar', hidden=32, out=16, probe=(16, 10))


def narrow(patch):
  """Networks an eighth as wide, in files and in ours."""
  for module in (released_names, resnet):
    patch.setattr(module, 'WIDTH', 8)


def shorten(patch):
  """Narrow, and a ResNet-18 with one block in each group."""
  narrow(patch)
  patch.setitem(released_names.BLOCKS, 18, (1, (1, 1, 1, 1)))
  patch.setitem(resnet.BLOCKS, 18, (False, (1, 1, 1, 1)))


def values(shapes, seed=0):
  """Numbers for which no layer's output vanishes or explodes."""
  rng = np.random.default_rng(seed)
  tensors = {}
  for name, shape in shapes.items():
    if name in ('global_step', 'save_counter'):
      tensors[name] = np.int64(rng.integers(1, 1000))
    elif name.endswith(('gamma', 'moving_variance')):
      tensors[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    else:
      scale = np.float32(1 / np.sqrt(max(1, np.prod(shape[:-1]))))
      tensors[name] = scale * rng.standard_normal(shape, np.float32)
  return tensors


def write(path, tensors):
  """Tensor by tensor, without any class or object graph."""
  tf.raw_ops.SaveV2(
    prefix=str(path),
    tensor_names=[name + SUFFIX for name in tensors],
    shape_and_slices=[''] * len(tensors),
    tensors=list(tensors.values()),
  )
  return str(path)


def read(path):
  reader = tf.train.load_checkpoint(path)
  return {
    name.removesuffix(SUFFIX): reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if name.endswith(SUFFIX)
  }


def _bn(t, path, x):
  gamma, beta, mean, variance = (
    t[f'{path}/bn/{name}']
    for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')
  )
  return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta


def _conv(t, path, x, stride=1):
  kernel = t[f'{path}/kernel']
  before = (kernel.shape[0] - 1) // 2
  pad = [before, kernel.shape[0] - 1 - before]
  x = tf.pad(x, [[0, 0], pad, pad, [0, 0]])
  return tf.nn.conv2d(x, kernel, stride, 'VALID')


def _selective(t, path, x, stride):
  x = _conv(t, f'{path}/conv2d_fixed_padding/conv2d', x, stride)
  x = tf.nn.relu(_bn(t, f'{path}/batch_norm_relu', x))
  a, b = tf.split(x, 2, -1)
  pooled = tf.reduce_mean(a + b, [1, 2], keepdims=True)
  mixed = _conv(t, f'{path}/conv2d_0', pooled)
  mixed = tf.nn.relu(_bn(t, f'{path}/batch_norm_relu_1', mixed))
  mixed = _conv(t, f'{path}/conv2d_1', mixed)
  gate = tf.sigmoid(tf.subtract(*tf.split(mixed, 2, -1)))
  return a * gate + b * (1 - gate)


def _shortcut(t, path, x, stride):
  places = [('shortcut_layers', 0)]
  places += [('projection_layers', index) for index in range(3)]
  for layers, index in places:
    conv = f'{path}/{layers}/{index}/conv2d'
    if f'{conv}/kernel' in t:
      if index == 2:  # Padding, then a mean over 2x2.
        x = tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])
        x = tf.nn.avg_pool2d(x, 2, 2, 'VALID')
      elif index == 1:
        x = tf.nn.avg_pool2d(x, 2, 1, 'SAME')
      x = _conv(t, conv, x, 1 if index else stride)
      return _bn(t, f'{path}/{layers}/{index + 1}', x)
  return x


def _block(t, path, x, stride):
  layers, plan, strided = f'{path}/conv2d_bn_layers', [0, 2], 0
  if f'{layers}/0/conv2d/kernel' not in t:
    layers, strided = f'{path}/conv_relu_dropblock_layers', 3
    selective = f'{layers}/3/conv2d_0/kernel' in t
    plan = [0, 3, 5] if selective else [0, 3, 6]
  y = x
  for i in plan:
    here = stride if i == strided else 1
    if i == 3 and selective:
      y = _selective(t, f'{layers}/3', y, here)
      continue
    y = _bn(t, f'{layers}/{i + 1}', _conv(t, f'{layers}/{i}/conv2d', y, here))
    y = y if i == plan[-1] else tf.nn.relu(y)
  return tf.nn.relu(_shortcut(t, path, x, stride) + y)


def features(t, images, root='model/_resnet'):
  initial = f'{root}/initial_conv_relu_max_pool'
  places = [(0, 2)]
  if f'{initial}/4/conv2d/kernel' in t:
    places = [(0, 1), (2, 3), (4, 6)]
  large = t[f'{initial}/0/conv2d/kernel'].shape[0] == 7 or len(places) == 3
  x = images
  for conv, norm in places:
    stride = 2 if large and conv == 0 else 1
    x = _conv(t, f'{initial}/{conv}/conv2d', x, stride)
    x = tf.nn.relu(_bn(t, f'{initial}/{norm}', x))
  if large:
    x = tf.nn.max_pool2d(x, 3, 2, 'SAME')
  for group in range(4):
    i = 0
    while any(f'/block_groups/{group}/layers/{i}/' in n for n in t):
      path = f'{root}/block_groups/{group}/layers/{i}'
      x = _block(t, path, x, 2 if group and not i else 1)
      i += 1
  return tf.reduce_mean(x, [1, 2])


def finetuned(tensors, trained):
  """The tensors as finetuning writes them: momentum of what it trained."""
  renamed = {}
  for name, value in tensors.items():
    if name.endswith(SLOT):
      if not name.startswith(trained):
        continue
      name = name.replace('/optimizer/', '/finetune_optimizer/')
    renamed[name.replace('global_step', 'finetune_global_step')] = value
  return renamed


def build(path, image_size=32):
  """Our method and probe for what is inferred of a file."""
  inferred = released_settings.infer(path)
  cfg = Config(
    **inferred.settings,
    pretrain_loss=inferred.methods[0],
    image_size=image_size,
  )
  method = methods.make_method(plan_of(cfg, 10, 0))
  probe = None
  if inferred.num_classes:
    probe = model.Classifier(inferred.num_classes)
    probe(method.probed(method.embed(tf.zeros([1, image_size, image_size, 3]))))
  return method, probe, released_layout.parts_of(method, probe)


def lars(trained):
  rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
  optimizer = LARS(rate, weight_decay=0.0, decayed=[])
  optimizer._create_all_weights(trained)
  return optimizer
