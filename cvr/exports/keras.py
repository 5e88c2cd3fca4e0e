"""--format=keras: the same network made of Keras' own layers.

A file that needs no code of ours. Keras is the one that TensorFlow installs, 3
from TensorFlow 2.16 on: our own layers are of tf-keras, whose files Keras 3
does not read.
"""

import os

import keras
import numpy as np
from keras import layers

import data_util
import resnet
from cvr.checkpoints.files import CheckpointError


def _with(layer, x, *weights):
  """Calls a new layer, then gives it its weights."""
  y = layer(x)
  layer.set_weights([np.asarray(w) for w in weights])
  return y


def _conv(x, conv, kernel=None):
  """A resnet.Conv, or one like it with another kernel."""
  kernel = conv.kernel.numpy() if kernel is None else kernel
  strided = conv.stride > 1
  if strided and conv.kernel_size > 1:
    before = (conv.kernel_size - 1) // 2
    pad = (before, conv.kernel_size - 1 - before)
    x = layers.ZeroPadding2D((pad, pad))(x)
  layer = layers.Conv2D(
    kernel.shape[-1],
    conv.kernel_size,
    conv.stride,
    'valid' if strided else 'same',
    use_bias=False,
  )
  return _with(layer, x, kernel)


def _norm(x, norm, part=slice(None)):
  """A BatchNorm, or some of its channels."""
  variables = [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
  layer = layers.BatchNormalization(
    momentum=norm.decay,
    epsilon=norm.epsilon,
    scale=norm.scale,
    center=norm.center,
  )
  weights = [v.numpy()[part] for v in variables if v is not None]
  return _with(layer, x, *weights)


def _conv_norm(x, layer):
  x = _norm(_conv(x, layer.conv), layer.norm)
  return layers.ReLU()(x) if layer.relu else x


def _selective(x, layer):
  """The softmax over two halves, as a sigmoid of their difference."""
  filters = layer.mix.filters // 2
  kernel = layer.both.conv.kernel.numpy()
  halves = []
  for part in (slice(filters), slice(filters, None)):
    half = _conv(x, layer.both.conv, kernel[..., part])
    halves.append(layers.ReLU()(_norm(half, layer.both.norm, part)))
  pooled = layers.GlobalAveragePooling2D(keepdims=True)(layers.Add()(halves))
  squeezed = _conv_norm(pooled, layer.squeeze)
  first, second = np.split(layer.mix.kernel.numpy(), 2, -1)
  gates = [
    layers.Activation('sigmoid')(_conv(squeezed, layer.mix, kernel))
    for kernel in (first - second, second - first)
  ]
  gated = [layers.Multiply()(pair) for pair in zip(halves, gates, strict=True)]
  return layers.Add()(gated)


def _squeeze_excite(x, layer):
  gate = layers.GlobalAveragePooling2D()(x)
  for dense in (layer.squeeze, layer.excite):
    keras_dense = layers.Dense(dense.units, dense.activation.__name__)
    gate = _with(keras_dense, gate, dense.kernel, dense.bias)
  return layers.Multiply()([x, layers.Reshape((1, 1, -1))(gate)])


def _average_pool(x, stride):
  if stride == 1:
    return layers.AveragePooling2D(2, 1, 'same')(x)
  x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
  return layers.AveragePooling2D(2, stride, 'valid')(x)


_LAYERS = {
  resnet.ConvNorm: _conv_norm,
  resnet.SelectiveKernel: _selective,
  resnet.SqueezeExcite: _squeeze_excite,
}


def _block(x, block):
  shortcut = x
  if block.shortcut:
    pooled = _average_pool(x, block.stride) if block.averages else x
    shortcut = _conv_norm(pooled, block.shortcut)
  for layer in block.branch:
    x = _LAYERS[type(layer)](x, layer)
  return layers.ReLU()(layers.Add()([shortcut, x]))


def _dense(x, dense, name=None):
  layer = layers.Dense(dense.units, use_bias=dense.use_bias, name=name)
  return _with(layer, x, *dense.weights)


def _linear(x, layer):
  x = _dense(x, layer.dense)
  if layer.norm is not None:
    x = _norm(x, layer.norm)
  return layers.Activation(layer.activation)(x) if layer.activation else x


def _build(method, probe, mean_std, channels):
  """-> a Keras model, images in [0, 1] -> a dict of endpoints."""
  images = x = keras.Input([None, None, channels], name='images')
  if mean_std:
    mean, std = map(np.array, data_util.mean_and_std(channels))
    offset = -mean / std
    x = layers.Rescaling((1 / std).tolist(), offset.tolist())(x)
  stem, *groups = method.encoder.stages
  for conv in stem.convs:
    x = _conv_norm(x, conv)
  if stem.pool:
    x = layers.MaxPooling2D(3, 2, 'same')(x)
  for group in groups:
    for block in group.blocks:
      x = _block(x, block)
  x = layers.GlobalAveragePooling2D(name='final_avg_pool')(x)
  heads = [x]
  for layer in method.projector.layers_out:
    heads.append(_linear(heads[-1], layer))
  outputs = {'final_avg_pool': x, 'proj_head_output': heads[-1]}
  if probe:
    probed = method.probed({'layers': heads})
    outputs['logits_sup'] = _dense(probed, probe.dense, 'logits_sup')
  return keras.Model(images, outputs)


def write(folder, model):
  """-> (path, the network read back from it)."""
  method, probe = model.state.method, model.state.probe
  if probe and method.probes_latent:
    raise CheckpointError(
      '--format=keras cannot hold the latent that this probe reads. Use '
      'saved_model or onnx.'
    )
  if keras.__version__ < '3':
    raise CheckpointError(
      '--format=keras needs Keras 3, which comes with TensorFlow 2.16 or newer'
    )
  path = os.path.join(folder, 'model.keras')
  _build(method, probe, model.mean_std, model.channels).save(path)
  return path, keras.models.load_model(path)
