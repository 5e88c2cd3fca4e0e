"""The same networks of tf_keras' own layers: what a step costs at least."""

import tf_keras as keras

from resnet import BLOCKS

layers = keras.layers


def _conv(x, filters, size, stride=1, relu=True):
  if stride > 1:
    before = (size - 1) // 2
    x = layers.ZeroPadding2D((before, size - 1 - before))(x)
  x = layers.Conv2D(
    filters,
    size,
    stride,
    padding='valid' if stride > 1 else 'same',
    use_bias=False,
  )(x)
  x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
  return layers.ReLU()(x) if relu else x


def _block(x, filters, out, stride, project):
  shortcut = _conv(x, out, 1, stride, relu=False) if project else x
  if out == filters:
    x = _conv(_conv(x, filters, 3, stride), out, 3, relu=False)
  else:
    x = _conv(_conv(x, filters, 1), filters, 3, stride)
    x = _conv(x, out, 1, relu=False)
  return layers.ReLU()(layers.Add()([x, shortcut]))


def encoder(depth, size, stem):
  """Images -> representations: a plain ResNet v1."""
  images = layers.Input([size, size, 3])
  if stem == 'imagenet':
    x = layers.MaxPooling2D(3, 2, 'same')(_conv(images, 64, 7, 2))
  else:
    x = _conv(images, 64, 3)
  bottleneck, counts = BLOCKS[depth]
  for i, count in enumerate(counts):
    out = 64 * 2**i * (4 if bottleneck else 1)
    for j in range(count):
      stride = 2 if i > 0 and j == 0 else 1
      project = j == 0  # As published, also where the shape stays.
      x = _block(x, 64 * 2**i, out, stride, project)
  return keras.Model(images, layers.GlobalAveragePooling2D()(x))


def mlp(inputs, hidden, out):
  """Two layers, batch normalisation and ReLU between them."""
  x = features = layers.Input([inputs])
  x = layers.Dense(hidden, use_bias=False)(x)
  x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))
  x = layers.Dense(out, use_bias=False)(x)
  return keras.Model(features, x)
