"""ResNet: shapes by rule, arithmetic by numpy, statistics over replicas."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import resnet

BLOCKS = {
  18: [2, 2, 2, 2],
  34: [3, 4, 6, 3],
  50: [3, 4, 6, 3],
  101: [3, 4, 23, 3],
  152: [3, 8, 36, 3],
  200: [3, 24, 36, 3],
}
# Trainable, without a classifier: torchvision's documented totals less fc.
TRAINABLE = {
  18: 11_176_512,
  34: 21_284_672,
  50: 23_508_032,
  101: 42_500_160,
  152: 58_143_808,
}


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def bfloat16():
  keras.mixed_precision.set_global_policy('mixed_bfloat16')
  yield
  keras.mixed_precision.set_global_policy('float32')


def conv_norm_rule(size, inputs, outputs):
  names = ('gamma', 'beta', 'moving_mean', 'moving_variance')
  rule = Counter({('kernel', (size, size, inputs, outputs)): 1})
  return rule + Counter({(name, (outputs,)): 1 for name in names})


def block_rule(depth, inputs, filters, sk_ratio, shortcut):
  """-> (the variables of a first block, of the others, output width)."""
  if depth < 50:
    tail = conv_norm_rule(3, filters, filters)
    out = filters
    first, other = (conv_norm_rule(3, i, filters) for i in (inputs, filters))
  else:
    out = 4 * filters
    tail = conv_norm_rule(1, filters, out)
    if sk_ratio:
      hidden = max(int(filters * sk_ratio), 32)
      tail += conv_norm_rule(3, filters, 2 * filters)
      tail += conv_norm_rule(1, filters, hidden)
      tail += Counter({('kernel', (1, 1, hidden, 2 * filters)): 1})
    else:
      tail += conv_norm_rule(3, filters, filters)
    first, other = (conv_norm_rule(1, i, filters) for i in (inputs, out))
  if inputs != out or shortcut == 'published':
    first += conv_norm_rule(1, inputs, out)
  return first + tail, other + tail, out


def rule(depth, width=1, sk_ratio=0.0, shortcut='published'):
  """The multiset of (name, shape) of a ResNet's variables."""
  base = 64 * width
  if sk_ratio:
    stem = [(3, 3, base // 2), (3, base // 2, base // 2), (3, base // 2, base)]
  else:
    stem = [(7, 3, base)]
  total = sum((conv_norm_rule(*conv) for conv in stem), Counter())
  inputs = base
  for i, count in enumerate(BLOCKS[depth]):
    first, other, inputs = block_rule(
      depth, inputs, base << i, sk_ratio, shortcut
    )
    total += first
    for _ in range(count - 1):
      total += other
  return total


def trainable_count(variables):
  return sum(
    count * int(np.prod(shape))
    for (name, shape), count in variables.items()
    if not name.startswith('moving')
  )


def shapes(variables):
  return Counter(
    (v.name.split('/')[-1].split(':')[0], tuple(v.shape)) for v in variables
  )


# In a graph, variables have shapes and take no memory.
@pytest.mark.parametrize(
  'depth, width, sk_ratio, shortcut',
  [
    (depth, width, sk_ratio, 'published')
    for depth, width, sk_ratio in [(18, 1, 0.0), (34, 1, 0.0), (50, 1, 0.0)]
    + [(50, 2, 0.0), (50, 4, 0.0), (101, 1, 0.0), (152, 1, 0.0), (200, 2, 0.0)]
    + [(50, 1, 0.0625), (50, 2, 0.0625)]
  ]
  + [(depth, 1, 0.0, 'torchvision') for depth in (18, 34, 50)],
)
def test_variables_follow_the_rules(depth, width, sk_ratio, shortcut):
  with tf.Graph().as_default():
    net = resnet.ResNet(depth, width, sk_ratio=sk_ratio, shortcut=shortcut)
    call = tf.autograph.experimental.do_not_convert(net)
    h = call(tf.zeros([1, 32, 32, 3]))
  expected = rule(depth, width, sk_ratio, shortcut)
  assert shapes(net.variables) == expected
  trainable = sum(int(np.prod(v.shape)) for v in net.trainable_variables)
  assert trainable == trainable_count(expected)
  assert h.shape == [1, net.representation_dim]
  assert net.representation_dim == (512 if depth < 50 else 2048) * width


@pytest.mark.parametrize('depth', TRAINABLE)
def test_known_totals(depth):
  """The published code has one more projection in ResNet-18 and -34."""
  plain = trainable_count(rule(depth, shortcut='torchvision'))
  assert plain == TRAINABLE[depth]
  more = 64 * 64 + 2 * 64 if depth < 50 else 0
  assert trainable_count(rule(depth)) == plain + more


def test_known_totals_of_variants():
  millions = [round(trainable_count(rule(50, w)) / 1e6) for w in (1, 2, 4)]
  assert millions == [24, 94, 375]  # as SimCLR's paper prints them
  assert trainable_count(rule(50, sk_ratio=0.0625)) == 35_215_584
  assert rule(50).total() == 265
  assert rule(50, sk_ratio=0.0625).total() == 371


@pytest.mark.parametrize(
  'kind, selective, size',
  [
    ('imagenet', False, 8),
    ('imagenet', True, 8),
    ('small', False, 8),
    ('small', True, 8),
    ('cifar', False, 31),
    ('cifar', True, 31),
  ],
)
def test_stem_shapes(kind, selective, size):
  stem = resnet.Stem(kind, 4, selective, resnet.BatchNorm)
  assert stem(tf.zeros([1, 31, 31, 3])).shape == [1, size, size, 4]
  kernels = [tuple(c.conv.kernel.shape) for c in stem.convs]
  if kind != 'imagenet':
    assert kernels == [(3, 3, 3, 4)]
  elif selective:
    assert kernels == [(3, 3, 3, 2), (3, 3, 2, 2), (3, 3, 2, 4)]
  else:
    assert kernels == [(7, 7, 3, 4)]


def convolve(x, kernel, stride):
  """Pads (k - 1) // 2 before and the rest after, then runs VALID."""
  k = kernel.shape[0]
  before = (k - 1) // 2
  pad = (before, k - 1 - before)
  x = np.pad(np.float64(x), [(0, 0), pad, pad, (0, 0)])
  rows, columns = (range(0, x.shape[axis] - k + 1, stride) for axis in (1, 2))
  out = [
    [np.tensordot(x[:, i : i + k, j : j + k], kernel, 3) for j in columns]
    for i in rows
  ]
  return np.stack(out, 0).swapaxes(0, 2).swapaxes(1, 2)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('kernel_size', [1, 3, 7])
@pytest.mark.parametrize('height, width', [(8, 5), (1, 2)])
def test_convolution(rng, kernel_size, stride, height, width):
  x = rng.normal(size=[2, height, width, 3]).astype('float32')
  conv = resnet.Conv(4, kernel_size, stride)
  y = conv(x)
  assert y.shape == [2, -(-height // stride), -(-width // stride), 4]
  expected = convolve(x, conv.kernel.numpy(), stride)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  if stride == 1:
    same = tf.nn.conv2d(x, conv.kernel, 1, 'SAME')
    np.testing.assert_allclose(y, same, rtol=1e-5, atol=1e-5)


def test_average_pool():
  x = np.arange(12.0, dtype='float32').reshape(1, 3, 4, 1)
  # The last row of three meets the padding, which counts as zeros.
  strided = [[2.5, 4.5], [(8 + 9) / 4, (10 + 11) / 4]]
  np.testing.assert_allclose(resnet.average_pool(x, 2)[0, ..., 0], strided)
  # Without a stride, means are over what is there.
  one = resnet.average_pool(x, 1)[0, ..., 0]
  np.testing.assert_allclose(one[0], [2.5, 3.5, 4.5, 5])
  np.testing.assert_allclose(one[2], [8.5, 9.5, 10.5, 11])


def softmax(x, axis):
  e = np.exp(x - x.max(axis, keepdims=True))
  return e / e.sum(axis, keepdims=True)


def test_selective_kernel_against_numpy(rng):
  x = rng.normal(size=[2, 5, 5, 3]).astype('float32')
  layer = resnet.SelectiveKernel(4, 2, 0.5, resnet.BatchNorm)
  y = layer(x)
  both = layer.both(x).numpy().astype('float64')
  assert both.shape == (2, 3, 3, 8) and layer.squeeze.conv.filters == 32
  first, second = both[..., :4], both[..., 4:]
  pooled = (first + second).mean((1, 2))
  hidden = pooled @ layer.squeeze.conv.kernel.numpy()[0, 0] / np.sqrt(1 + 1e-5)
  mix = np.maximum(hidden, 0) @ layer.mix.kernel.numpy()[0, 0]
  weights = softmax(mix.reshape(2, 2, 4), 1)[:, :, None, None]
  expected = first * weights[:, 0] + second * weights[:, 1]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_squeeze_excite_against_numpy(rng):
  x = rng.normal(size=[2, 3, 3, 4]).astype('float32')
  layer = resnet.SqueezeExcite(2, 4)
  layer(x)
  for v in layer.trainable_variables:
    v.assign(rng.normal(size=v.shape))
  w1, b1, w2, b2 = (v.numpy() for v in layer.trainable_variables)
  hidden = np.maximum(np.float64(x).mean((1, 2)) @ w1 + b1, 0)
  gate = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
  expected = x * gate[:, None, None]
  np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
  block = resnet.Block(8, 32, 1, True, 0.0, 0.0625, resnet.BatchNorm)
  block(tf.zeros([1, 4, 4, 16]))
  assert block.branch[-1].squeeze.units == 1
  assert block.branch[-1].excite.units == 32


@pytest.mark.parametrize('sk_ratio, se_ratio', [(0, 0), (0.0625, 0.25)])
@pytest.mark.parametrize('out', [4, 16])
def test_a_block_starts_as_its_shortcut(rng, out, sk_ratio, se_ratio):
  x = rng.normal(size=[2, 6, 6, 8]).astype('float32')
  block = resnet.Block(4, out, 2, True, sk_ratio, se_ratio, resnet.BatchNorm)
  y = block(x, training=True)
  pooled = resnet.average_pool(x, 2) if sk_ratio else x
  shortcut = block.shortcut(pooled, training=True)
  assert y.shape == [2, 3, 3, out]
  np.testing.assert_array_equal(y, tf.nn.relu(shortcut))
  starts = [c.norm.gamma.numpy() for c in block.branch if hasattr(c, 'norm')]
  assert all((g == 1).all() for g in starts[:-1]) and not starts[-1].any()


def test_the_stride_of_a_bottleneck_is_on_its_3x3():
  block = resnet.Block(4, 16, 2, True, 0.0, 0.0, resnet.BatchNorm)
  convs = [(c.conv.kernel_size, c.conv.stride) for c in block.branch]
  assert convs == [(1, 1), (3, 2), (1, 1)]
  basic = resnet.Block(4, 4, 2, True, 0.0, 0.0, resnet.BatchNorm)
  convs = [(c.conv.kernel_size, c.conv.stride) for c in basic.branch]
  assert convs == [(3, 2), (3, 1)]


def test_kernels_start_apart_and_scaled():
  net = resnet.ResNet(18)
  net(tf.zeros([1, 32, 32, 3]))
  kernels = [v.numpy() for v in net.trainable_variables if v.shape.rank == 4]
  first_values = {k.flat[0] for k in kernels}
  assert len(first_values) == len(kernels) == 21
  big = [k for k in kernels if k.size > 1e6]
  assert len(big) == 4
  for k in big:  # variance 1 / fan-in, of a normal cut at two deviations
    deviation = np.sqrt(k[..., 0].size)
    assert abs(k.std() * deviation - 1) < 5e-3
    assert 2.2 < np.abs(k).max() * deviation < 2.274


def normalize(x, gamma, beta, epsilon=1e-5):
  """-> (y, mean, biased variance) in float64."""
  x = np.float64(x)
  axes = tuple(range(x.ndim - 1))
  mean, variance = x.mean(axes), x.var(axes)
  return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta, mean, variance


def set_random(layer, rng):
  """Builds the layer's variables to something less special than 0 and 1."""
  for v in layer.variables:
    v.assign(rng.uniform(0.5, 2.0, size=v.shape))


@pytest.mark.parametrize('center, scale', [(True, True), (False, False)])
@pytest.mark.parametrize('shape', [[6, 3], [2, 4, 5, 3], [5, 1, 1, 3]])
@pytest.mark.parametrize('jit', [False, True])
def test_batch_norm_against_numpy(rng, shape, center, scale, jit):
  x = (3 + 2 * rng.normal(size=shape)).astype('float32')
  layer = resnet.BatchNorm(decay=0.7, center=center, scale=scale)
  layer(x)
  set_random(layer, rng)
  assert len(layer.trainable_variables) == center + scale
  gamma = layer.gamma.numpy() if scale else 1
  beta = layer.beta.numpy() if center else 0
  old_mean = layer.moving_mean.numpy()
  old_variance = layer.moving_variance.numpy()
  call = tf.function(layer, jit_compile=jit)

  y = call(x, training=False)
  known = (x - old_mean) / np.sqrt(old_variance + 1e-5) * gamma + beta
  np.testing.assert_allclose(y, known, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(layer.moving_mean, old_mean)

  y = call(x, training=True)
  expected, mean, variance = normalize(x, gamma, beta)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    layer.moving_mean, 0.7 * old_mean + 0.3 * mean, rtol=1e-6
  )
  np.testing.assert_allclose(
    layer.moving_variance, 0.7 * old_variance + 0.3 * variance, rtol=1e-5
  )


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('shape', [[1, 3], [1, 1, 1, 3]])
def test_batch_norm_of_one_value(shape, jit):
  layer = resnet.BatchNorm()
  x = tf.reshape([1.0, -2.0, 30.0], shape)
  layer(x)
  layer.beta.assign([1.0, 2.0, 3.0])

  @tf.function(jit_compile=jit)
  def step(x):
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = layer(x, training=True)
    return y, tape.gradient(y, x)

  y, gradient = step(x)
  np.testing.assert_allclose(tf.reshape(y, [3]), [1, 2, 3], atol=1e-5)
  np.testing.assert_allclose(gradient, tf.zeros(shape), atol=1e-6)
  np.testing.assert_allclose(layer.moving_variance, [0.9] * 3, rtol=1e-6)


def plain_gradients(x, gamma, beta, weights):
  """d sum(weights * y) by automatic differentiation of plain float64 maths."""
  x, gamma, beta, weights = map(np.float64, (x, gamma, beta, weights))
  x, gamma, beta = map(tf.constant, (x, gamma, beta))
  with tf.GradientTape() as tape:
    tape.watch([x, gamma, beta])
    mean, variance = tf.nn.moments(x, list(range(x.shape.rank - 1)))
    y = (x - mean) * tf.math.rsqrt(variance + 1e-5) * gamma + beta
    loss = tf.reduce_sum(weights * y)
  return [g.numpy() for g in tape.gradient(loss, [x, gamma, beta])]


@pytest.mark.parametrize('shape', [[6, 3], [2, 4, 5, 3]])
def test_batch_norm_gradients(rng, shape):
  x = rng.normal(1, 2, size=shape).astype('float32')
  weights = rng.normal(size=shape).astype('float32')
  layer = resnet.BatchNorm()
  layer(x)
  set_random(layer, rng)
  x = tf.constant(x)
  with tf.GradientTape() as tape:
    tape.watch(x)
    loss = tf.reduce_sum(weights * layer(x, training=True))
  actual = tape.gradient(loss, [x, layer.gamma, layer.beta])
  expected = plain_gradients(x, layer.gamma, layer.beta, weights)
  for f, e in zip(actual, expected, strict=True):
    np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5)


def run_replicas(strategy, layer, x, weights):
  """-> per-replica ys and gradients of sum(weights * y), x and weights cut."""
  halves = [np.split(v, 2) for v in (x, weights)]
  x, weights = (
    strategy.experimental_distribute_values_from_function(
      lambda c, h=h: tf.constant(h[c.replica_id_in_sync_group])
    )
    for h in halves
  )

  def step(x, weights):
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = layer(x, training=True)
      loss = tf.reduce_sum(weights * tf.cast(y, tf.float32))
    return [y, *tape.gradient(loss, [x, layer.gamma, layer.beta])]

  outputs = tf.function(lambda x, w: strategy.run(step, args=(x, w)))(
    x, weights
  )
  return [
    [part.numpy() for part in strategy.experimental_local_results(o)]
    for o in outputs
  ]


@pytest.mark.parametrize('shape', [[6, 3], [4, 2, 3, 3]])
def test_batch_norm_on_two_replicas_is_one_big_batch(rng, shape, two_replicas):
  x = rng.normal(1, 2, size=shape).astype('float32')
  x[: shape[0] // 2] += 1  # the halves have statistics of their own
  weights = rng.normal(size=shape).astype('float32')
  with two_replicas.scope():
    layer = resnet.BatchNorm()
    layer(x)
    set_random(layer, rng)
  old_mean = layer.moving_mean.numpy()
  old_variance = layer.moving_variance.numpy()
  y, dx, dgamma, dbeta = run_replicas(two_replicas, layer, x, weights)
  expected, mean, variance = normalize(
    x, layer.gamma.numpy(), layer.beta.numpy()
  )
  gradients = plain_gradients(x, layer.gamma, layer.beta, weights)
  close = {'rtol': 1e-4, 'atol': 1e-5}
  np.testing.assert_allclose(np.concatenate(y), expected, **close)
  np.testing.assert_allclose(np.concatenate(dx), gradients[0], **close)
  np.testing.assert_allclose(sum(dgamma), gradients[1], **close)
  np.testing.assert_allclose(sum(dbeta), gradients[2], **close)
  for local in layer.moving_mean.values:
    np.testing.assert_allclose(local, 0.9 * old_mean + 0.1 * mean, rtol=1e-5)
  for local in layer.moving_variance.values:
    np.testing.assert_allclose(
      local, 0.9 * old_variance + 0.1 * variance, rtol=1e-5
    )


def test_batch_norm_without_sync_sees_its_own_replica(rng, two_replicas):
  x = rng.normal(size=[8, 3]).astype('float32')
  with two_replicas.scope():
    layer = resnet.BatchNorm(sync=False)
    layer(x)
  y = run_replicas(two_replicas, layer, x, x)[0]
  for part, actual, moving in zip(
    np.split(x, 2), y, layer.moving_variance.values, strict=True
  ):
    expected, _, variance = normalize(part, 1, 0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moving, 0.9 + 0.1 * variance, rtol=1e-5)


def test_constant_channels_on_two_replicas(two_replicas):
  # E[x^2] - E[x]^2 of a constant rounds to either side of 0.
  x = np.full([6, 500], np.linspace(1, 1000, 500), 'float32')
  with two_replicas.scope():
    layer = resnet.BatchNorm(decay=0.0)
    layer(x)
  y = run_replicas(two_replicas, layer, x, x)[0]
  assert np.isfinite(y).all()
  assert layer.moving_variance.numpy().min() >= 0


@pytest.mark.parametrize('replicas', [1, 2])
def test_bfloat16_keeps_float32_statistics(rng, bfloat16, replicas, request):
  x = rng.normal(5, 0.1, size=[64, 3]).astype('float32')
  x = tf.cast(tf.cast(x, tf.bfloat16), tf.float32).numpy()  # exactly
  if replicas == 2:
    strategy = request.getfixturevalue('two_replicas')
  else:
    strategy = tf.distribute.get_strategy()
  with strategy.scope():
    layer = resnet.BatchNorm(decay=0.0)
    layer(x)
  gamma = rng.uniform(1, 2, 3).astype('float32')
  layer.gamma.assign(gamma)
  if replicas == 2:
    y = np.concatenate(run_replicas(strategy, layer, x, x)[0])
  else:
    y = layer(x, training=True).numpy()
  assert y.dtype == tf.bfloat16.as_numpy_dtype
  assert all(v.dtype == tf.float32 for v in layer.variables)
  expected, mean, variance = normalize(x, gamma, 0)
  rounded = tf.cast(expected, tf.bfloat16).numpy().astype('float32')
  # One unit in the last of a bfloat16's 8 binary digits, not several.
  np.testing.assert_allclose(
    y.astype('float32'), rounded, rtol=2**-7, atol=2**-9
  )
  np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5)
  np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-3)


def small_resnet(depth=18, **options):
  """A network of the real structure, an eighth as wide."""
  net = resnet.ResNet(depth, 1 / 8, stem='cifar', **options)
  net(tf.zeros([1, 8, 8, 3]))
  return net


def test_representation_is_the_mean_over_pixels(rng):
  net = small_resnet(50, sk_ratio=0.0625, se_ratio=0.25)
  x = rng.normal(size=[2, 8, 8, 3]).astype('float32')
  y = x
  for stage in net.stages:
    y = stage(y)
  assert y.shape == [2, 1, 1, 256] and len(net.stages) == 5
  np.testing.assert_allclose(net(x), tf.reduce_mean(y, [1, 2]), rtol=1e-6)
  assert [len(g.blocks) for g in net.stages[1:]] == [3, 4, 6, 3]


@pytest.mark.parametrize('frozen', range(6))
def test_frozen_stages(rng, frozen):
  net = small_resnet()
  x = rng.normal(size=[4, 8, 8, 3]).astype('float32')
  before = [[v.numpy() for v in s.non_trainable_variables] for s in net.stages]
  with tf.GradientTape() as tape:
    h = net(x, training=True, frozen=frozen)
    loss = tf.reduce_sum(h * h)
  gradients = tape.gradient(loss, [s.trainable_variables for s in net.stages])
  for i, stage in enumerate(net.stages):
    moved = [
      not np.array_equal(old, new)
      for old, new in zip(before[i], stage.non_trainable_variables, strict=True)
    ]
    assert moved == [i >= frozen] * len(moved)
    assert all((g is None) == (i < frozen) for g in gradients[i])
  if frozen == 5:
    np.testing.assert_array_equal(h, net(x))


def assert_close(actual, expected, tolerance):
  """Within tolerance of the largest value."""
  scale = np.abs(expected).max()
  assert scale > 0
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def test_compiled_equals_uncompiled(rng):
  net = small_resnet(sk_ratio=0.0625, se_ratio=0.25)
  for v in net.variables:  # no gamma at 0: every layer matters
    if v.shape.rank == 1:
      v.assign(rng.uniform(0.5, 1.5, size=v.shape))
  x = tf.constant(rng.normal(size=[16, 8, 8, 3]), tf.float32)
  start = [v.numpy() for v in net.non_trainable_variables]
  results = []
  for call in (net, tf.function(net, jit_compile=True, autograph=False)):
    for v, value in zip(net.non_trainable_variables, start, strict=True):
      v.assign(value)
    h = call(x, training=True)
    moving = (tf.identity(v) for v in net.non_trainable_variables)
    results.append([h, *moving])
  for eager, compiled in zip(*results, strict=True):
    assert_close(compiled, eager, 1e-4)


# Block by block: over a whole network some unit is so close to ReLU's kink
# that rounding decides on its gradient.
@pytest.mark.parametrize('out, sk_ratio', [(4, 0), (16, 0), (16, 0.0625)])
def test_compiled_gradients_equal_uncompiled_ones(rng, out, sk_ratio):
  block = resnet.Block(4, out, 2, True, sk_ratio, 0.25, resnet.BatchNorm)
  x = tf.constant(rng.normal(size=[8, 6, 6, 8]), tf.float32)
  block(x)
  for v in block.variables:
    v.assign(rng.uniform(0.5, 1.5, size=v.shape))
    if v.shape.rank > 1:
      v.assign(rng.normal(size=v.shape) / np.sqrt(np.prod(v.shape[:-1])))
  weights = rng.normal(size=[8, 3, 3, out]).astype('float32')

  def step(x):
    with tf.GradientTape() as tape:
      tape.watch(x)
      loss = tf.reduce_sum(weights * block(x, training=True))
    return tape.gradient(loss, [x, *block.trainable_variables])

  compiled = tf.function(step, jit_compile=True, autograph=False)
  for c, e in zip(compiled(x), step(x), strict=True):
    assert_close(c, e, 1e-4)


def test_resnet_in_bfloat16(rng, bfloat16):
  net = small_resnet(50, sk_ratio=0.0625, se_ratio=0.25)
  assert {v.dtype for v in net.variables} == {tf.float32}
  x = rng.normal(size=[4, 8, 8, 3]).astype('float32')
  with tf.GradientTape() as tape:
    h = net(x, training=True)
    loss = tf.reduce_mean(tf.square(h))
  gradients = tape.gradient(loss, net.trainable_variables)
  assert h.dtype == tf.float32 and np.isfinite(h).all()
  assert net.stages[0](x).dtype == tf.bfloat16
  assert all(g.dtype == tf.float32 for g in gradients)
  assert all(np.isfinite(g).all() for g in gradients)
