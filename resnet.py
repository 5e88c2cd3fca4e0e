"""ResNet v1 (He et al., 2016) with synchronised batch normalisation.

Optionally wider, with selective kernels (Li et al., 2019) and the ResNet-D
stem and shortcuts that go with them, with squeeze-and-excitation (Hu et al.,
2018), and with stems for small images.
"""

import contextlib
import functools
import threading

import tensorflow as tf
import tf_keras as keras

from cvr.numerics import replicas, sums

# Depth -> (bottleneck blocks?, blocks in each of the four groups).
BLOCKS = {
  18: (False, (2, 2, 2, 2)),
  34: (False, (3, 4, 6, 3)),
  50: (True, (3, 4, 6, 3)),
  101: (True, (3, 4, 23, 3)),
  152: (True, (3, 8, 36, 3)),
  200: (True, (3, 24, 36, 3)),
}
WIDTH = 64  # The filters of the first group, for width 1.


def global_mean(x, keepdims=False):
  """[B, H, W, C] -> the float32 mean over H and W."""
  return tf.reduce_mean(tf.cast(x, tf.float32), [1, 2], keepdims)


# Replicas are traced in threads that take turns.
_tracing = threading.local()


@contextlib.contextmanager
def still_statistics():
  """Batch norm in here uses the batch's statistics, and moves no averages."""
  _tracing.still = True
  try:
    yield
  finally:
    _tracing.still = False


class BatchNorm(keras.layers.Layer):
  """Batch normalisation over all but the last axis, in float32.

  sync: batch statistics over all replicas, by one sum per layer. The variance,
  the moving one too, is the biased one (1/N) on any number of replicas.
  """

  def __init__(
    self,
    decay=0.9,
    epsilon=1e-5,
    center=True,
    scale=True,
    gamma_init='ones',
    sync=True,
    dtype=None,
  ):
    super().__init__(dtype=dtype)
    self.decay = decay
    self.epsilon = epsilon
    self.center = center
    self.scale = scale
    self.gamma_init = gamma_init
    self.sync = sync

  def build(self, shape):
    # Never cast to the compute dtype: statistics need float32's precision.
    add = functools.partial(
      self.add_weight,
      shape=shape[-1:],
      dtype=tf.float32,
      experimental_autocast=False,
    )
    self.gamma = self.beta = None
    if self.scale:
      self.gamma = add('gamma', initializer=self.gamma_init)
    if self.center:
      self.beta = add('beta', initializer='zeros')
    statistic = functools.partial(
      add,
      trainable=False,
      synchronization=tf.VariableSynchronization.ON_READ,
      aggregation=tf.VariableAggregation.MEAN,
    )
    self.moving_mean = statistic('moving_mean', initializer='zeros')
    self.moving_variance = statistic('moving_variance', initializer='ones')
    super().build(shape)

  def call(self, x, training=False):
    """[..., C] -> the same shape and dtype."""
    if not training:
      return self._fused(x, [self.moving_mean, self.moving_variance])[0]
    if self.sync and replicas.num_replicas() > 1:
      y, mean, variance = self._across_replicas(x)
    else:
      y, mean, variance = self._fused(x)
      # The op reports the unbiased variance, times N / (N - 1).
      count = _count(x)
      variance *= (count - 1.0) / count
    if not getattr(_tracing, 'still', False):
      self._move(self.moving_mean, mean)
      self._move(self.moving_variance, variance)
    return y

  def _move(self, moving, new):
    moving.assign(moving * self.decay + new * (1.0 - self.decay))

  def _gamma_beta(self, channels):
    return (
      tf.ones([channels]) if self.gamma is None else self.gamma,
      tf.zeros([channels]) if self.beta is None else self.beta,
    )

  def _fused(self, x, statistics=None):
    """-> (y, mean, variance), of the batch where no statistics are given."""
    channels = x.shape[-1]
    gamma, beta = self._gamma_beta(channels)
    known = [tf.convert_to_tensor(s) for s in statistics or ()]
    mean, variance = known or [tf.zeros([0])] * 2
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
      x=x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, channels]),
      scale=gamma,
      offset=beta,
      mean=mean,
      variance=variance,
      epsilon=self.epsilon,
      is_training=statistics is None,
    )
    y = y if x.shape.rank == 4 else tf.reshape(y, tf.shape(x))
    return y, mean, variance

  def _across_replicas(self, x):
    """-> (y, mean, variance) of the global batch."""
    x32, first, second = sums.branches(tf.cast(x, tf.float32), 3)
    axes = list(range(x.shape.rank - 1))
    total = replicas.cross_replica_sum(
      tf.concat(
        [
          tf.reduce_sum(first, axes),
          tf.reduce_sum(tf.square(second), axes),
          [_count(x)],
        ],
        0,
      )
    )
    mean, square = tf.split(total[:-1] / total[-1], 2)
    # Rounding can leave a constant channel with a variance below 0.
    variance = tf.maximum(square - tf.square(mean), 0.0)
    gamma, beta = self._gamma_beta(x.shape[-1])
    y = tf.nn.batch_normalization(
      x32, mean, variance, beta, gamma, self.epsilon
    )
    return tf.cast(y, x.dtype), mean, variance


def _count(x):
  """Values per channel, as a float32 scalar."""
  return tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)


class Conv(keras.layers.Layer):
  """A convolution without bias; odd kernels, padded symmetrically.

  With stride 1 that is SAME. With stride 2 it is not: SAME would put the odd
  row of padding at the end, and the published weights expect it at the start.
  """

  def __init__(self, filters, kernel_size, stride=1):
    super().__init__()
    self.filters = filters
    self.kernel_size = kernel_size
    self.stride = stride

  def build(self, shape):
    size = self.kernel_size
    self.kernel = self.add_weight(
      'kernel',
      [size, size, shape[-1], self.filters],
      initializer=keras.initializers.VarianceScaling(),
    )
    super().build(shape)

  def call(self, x):
    """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters]."""
    if self.stride == 1:
      return tf.nn.conv2d(x, self.kernel, 1, 'SAME')
    # Not the op's own explicit padding, for which the CPU has no fast kernel:
    # the whole step would be ten times slower.
    before = (self.kernel_size - 1) // 2
    pad = [before, self.kernel_size - 1 - before]
    x = tf.pad(x, [[0, 0], pad, pad, [0, 0]])
    return tf.nn.conv2d(x, self.kernel, self.stride, 'VALID')


class ConvNorm(keras.layers.Layer):
  """Convolution, batch normalisation and, unless it ends a branch, ReLU."""

  def __init__(self, conv, norm, relu=True):
    super().__init__()
    self.conv = conv
    self.norm = norm
    self.relu = relu

  def call(self, x, training=False):
    x = self.norm(self.conv(x), training=training)
    return tf.nn.relu(x) if self.relu else x


class SelectiveKernel(keras.layers.Layer):
  """A 3x3 convolution; two halves of its filters are weighted per image."""

  def __init__(self, filters, stride, ratio, norm):
    super().__init__()
    hidden = max(int(filters * ratio), 32)
    self.both = ConvNorm(Conv(2 * filters, 3, stride), norm())
    self.squeeze = ConvNorm(Conv(hidden, 1), norm())
    self.mix = Conv(2 * filters, 1)

  def call(self, x, training=False):
    halves = tf.stack(tf.split(self.both(x, training=training), 2, -1))
    pooled = global_mean(tf.reduce_sum(halves, 0), keepdims=True)
    mix = self.mix(self.squeeze(pooled, training=training))
    weights = tf.nn.softmax(tf.stack(tf.split(mix, 2, -1)), 0)
    return tf.reduce_sum(halves * weights, 0)


class SqueezeExcite(keras.layers.Layer):
  """Scales each channel by a gate in (0, 1) computed from all pixels."""

  def __init__(self, hidden, channels):
    super().__init__()
    self.squeeze, self.excite = (
      keras.layers.Dense(
        units,
        activation,
        kernel_initializer=keras.initializers.VarianceScaling(),
      )
      for units, activation in ((hidden, 'relu'), (channels, 'sigmoid'))
    )

  def call(self, x, training=False):
    del training
    gate = self.excite(self.squeeze(global_mean(x)))
    return x * gate[:, None, None]


class Block(keras.layers.Layer):
  """ReLU(shortcut + branch), the branch starting at zero.

  filters: the base width; a block with more outputs is a bottleneck.
  project: a shortcut with weights. With selective kernels
  it averages, as in ResNet-D, the pixels that a strided convolution would skip.
  """

  def __init__(self, filters, out, stride, project, sk_ratio, se_ratio, norm):
    super().__init__()
    self.stride = stride
    self.averages = sk_ratio > 0
    self.shortcut = None
    if project:
      conv = Conv(out, 1, 1 if self.averages else stride)
      self.shortcut = ConvNorm(conv, norm(), relu=False)
    last = norm(gamma_init='zeros')
    if out == filters:
      self.branch = [
        ConvNorm(Conv(filters, 3, stride), norm()),
        ConvNorm(Conv(out, 3), last, relu=False),
      ]
    else:
      self.branch = [
        ConvNorm(Conv(filters, 1), norm()),
        SelectiveKernel(filters, stride, sk_ratio, norm)
        if sk_ratio > 0
        else ConvNorm(Conv(filters, 3, stride), norm()),
        ConvNorm(Conv(out, 1), last, relu=False),
      ]
    if se_ratio > 0:
      self.branch.append(SqueezeExcite(max(1, int(filters * se_ratio)), out))

  def call(self, x, training=False):
    shortcut = x
    if self.shortcut:
      pooled = average_pool(x, self.stride) if self.averages else x
      shortcut = self.shortcut(pooled, training=training)
    for layer in self.branch:
      x = layer(x, training=training)
    return tf.nn.relu(shortcut + x)


def average_pool(x, stride):
  """2x2 means: ResNet-D's way to stride on a shortcut."""
  if stride == 1:
    return tf.nn.avg_pool2d(x, 2, 1, 'SAME')
  x = tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])
  return tf.nn.avg_pool2d(x, 2, stride, 'VALID')


class Stem(keras.layers.Layer):
  """The layers before the blocks, by the size of the images.

  imagenet: 7x7 stride 2 (three 3x3 with selective kernels) and a max pool;
  cifar: 3x3 stride 1; small: 3x3 stride 2 and a max pool.
  """

  def __init__(self, kind, filters, selective, norm):
    super().__init__()
    half = filters // 2
    convs = {
      'imagenet': [(half, 3, 2), (half, 3, 1), (filters, 3, 1)]
      if selective
      else [(filters, 7, 2)],
      'cifar': [(filters, 3, 1)],
      'small': [(filters, 3, 2)],
    }[kind]
    self.convs = [ConvNorm(Conv(*conv), norm()) for conv in convs]
    self.pool = kind != 'cifar'

  def endpoints(self, x, training=False):
    """The last convolution before its norm, and the output of the stem."""
    *before, last = self.convs
    for conv in before:
      x = conv(x, training=training)
    convolved = last.conv(x)
    x = tf.nn.relu(last.norm(convolved, training=training))
    if self.pool:
      x = tf.nn.max_pool2d(x, 3, 2, 'SAME')
    return {'initial_conv': convolved, 'initial_max_pool': x}

  def call(self, x, training=False):
    return self.endpoints(x, training)['initial_max_pool']


class Group(keras.layers.Layer):
  """Blocks of one width; the first one takes the stride."""

  def __init__(self, blocks):
    super().__init__()
    self.blocks = blocks

  def call(self, x, training=False):
    for block in self.blocks:
      x = block(x, training=training)
    return x


class ResNet(keras.layers.Layer):
  """Images -> representations; .stages are the stem and four groups."""

  def __init__(
    self,
    depth,
    width=1,
    stem='imagenet',
    sk_ratio=0.0,
    se_ratio=0.0,
    bn_decay=0.9,
    sync_bn=True,
    shortcut='published',
  ):
    """shortcut: where a block has one with weights. 'published': the first of
    every group. 'torchvision': only where shapes change, which is not so in
    the first group of ResNet-18 and -34.
    """
    super().__init__()
    bottleneck, counts = BLOCKS[depth]
    norm = functools.partial(BatchNorm, bn_decay, sync=sync_bn)
    base = int(WIDTH * width)
    self.stages = [Stem(stem, base, sk_ratio > 0, norm)]
    channels = base
    for i, count in enumerate(counts):
      filters = base * 2**i
      out = 4 * filters if bottleneck else filters
      blocks = []
      for j in range(count):
        stride = 2 if i > 0 and j == 0 else 1
        changes = channels != out or stride > 1
        project = j == 0 and (changes or shortcut == 'published')
        blocks.append(
          Block(filters, out, stride, project, sk_ratio, se_ratio, norm)
        )
      self.stages.append(Group(blocks))
      channels = out
    self.representation_dim = channels

  def call(self, x, training=False, frozen=0):
    """[B, H, W, C] -> [B, representation_dim] in float32.

    frozen: how many of the five stages run in evaluation mode, behind a
    stop-gradient.
    """
    for i, stage in enumerate(self.stages):
      x = stage(x, training=training and i >= frozen)
      if i == frozen - 1:
        x = tf.stop_gradient(x)
    return global_mean(x)

  def endpoints(self, x, training=False):
    """The result of call() and what precedes it, by the published names."""
    stem, *groups = self.stages
    outputs = stem.endpoints(x, training)
    x = outputs['initial_max_pool']
    for i, group in enumerate(groups, 1):
      x = outputs[f'block_group{i}'] = group(x, training=training)
    return outputs | {'final_avg_pool': global_mean(x)}
