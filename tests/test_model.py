"""Heads: variables as in the released checkpoints, values against numpy."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import model
import oracles
import resnet


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def policy(request):
  keras.mixed_precision.set_global_policy(request.param)
  yield request.param
  keras.mixed_precision.set_global_policy('float32')


def names_and_shapes(variables):
  return sorted(
    (v.name.split('/')[-1].split(':')[0], *v.shape) for v in variables
  )


def norm_rule(width, center=True):
  names = ['gamma', 'moving_mean', 'moving_variance'] + ['beta'] * center
  return [(name, width) for name in names]


@pytest.mark.parametrize('inputs', [2048, 256])  # projector, predictor
def test_released_mlp(inputs):
  mlp = model.MLP(2, 4096, 256)
  mlp(tf.zeros([1, inputs]))
  kernels = [('kernel', inputs, 4096), ('kernel', 4096, 256)]
  expected = sorted(kernels + norm_rule(4096))
  assert names_and_shapes(mlp.variables) == expected
  assert mlp.out_dim == 256


def test_released_stochastic_head():
  head = model.StochasticHead(4096, 256)
  head(tf.zeros([1, 256]))
  kernels = [('kernel', 256, 4096), ('kernel', 4096, 256), ('kernel', 256, 256)]
  expected = sorted(kernels + norm_rule(4096))
  assert names_and_shapes(head.variables) == expected
  trainable = sum(int(np.prod(v.shape)) for v in head.trainable_variables)
  assert trainable == 2 * 256 * 4096 + 256 * 256 + 2 * 4096


@pytest.mark.parametrize('num_layers', [0, 1, 2, 3])
@pytest.mark.parametrize('mid_bn', [True, False])
@pytest.mark.parametrize('output_bn', [True, False])
def test_mlp_variables(num_layers, mid_bn, output_bn):
  mlp = model.MLP(num_layers, 5, 4, output_bn=output_bn, mid_bn=mid_bn)
  x = tf.ones([2, 3])
  outputs = mlp(x)
  widths = [3] + [5] * (num_layers - 1) + [4] * (num_layers > 0)
  assert [o.shape[1] for o in outputs] == widths
  assert len(mlp.layers_out) == num_layers
  expected = [('kernel', *w) for w in zip(widths, widths[1:], strict=False)]
  for _ in range(num_layers - 1):
    expected += norm_rule(5) if mid_bn else [('bias', 5)]
  if num_layers > 0 and output_bn:
    expected += norm_rule(4, center=False)
  assert names_and_shapes(mlp.variables) == sorted(expected)


def normalize(x, gamma=1, beta=0):
  return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * gamma + beta


@pytest.mark.parametrize('jit', [False, True])
def test_mlp_values(rng, jit):
  x = rng.normal(size=[8, 3]).astype('float32')
  mlp = model.MLP(2, 5, 4, output_bn=True)
  mlp(x)
  for v in mlp.trainable_variables:
    v.assign(rng.normal(size=v.shape))
  w1, gamma, beta, w2, last_gamma = (
    v.numpy().astype('float64') for v in mlp.trainable_variables
  )
  hidden = np.maximum(normalize(x @ w1, gamma, beta), 0)
  out = normalize(hidden @ w2, last_gamma)  # no ReLU at the end
  actual = tf.function(mlp, jit_compile=jit)(x, training=True)
  assert out.min() < 0
  for f, e in zip(actual, [x, hidden, out], strict=True):
    np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5)


def test_mlp_without_normalisation(rng):
  x = rng.normal(size=[8, 3]).astype('float32')
  mlp = model.MLP(2, 5, 4, mid_bn=False)
  mlp(x)
  for v in mlp.trainable_variables:
    v.assign(rng.normal(size=v.shape))
  w1, bias, w2 = (v.numpy() for v in mlp.trainable_variables)
  hidden = np.maximum(x @ w1 + bias, 0)
  for training in (False, True):
    actual = mlp(x, training=training)
    np.testing.assert_allclose(actual[1], hidden, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(actual[2], hidden @ w2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('jit', [False, True])
def test_mlp_with_gelu(rng, jit):
  """DINO's: the exact one, x Phi(x), in the hidden layers alone."""
  x = rng.normal(size=[8, 3]).astype('float32')
  mlp = model.MLP(3, 5, 4, mid_bn=False, activation='gelu')
  mlp(x)
  for v in mlp.trainable_variables:
    v.assign(rng.normal(size=v.shape))
  w1, b1, w2, b2, w3 = (v.numpy() for v in mlp.trainable_variables)
  phi = np.vectorize(lambda t: (1 + math.erf(t / math.sqrt(2))) / 2)
  first = (x @ w1 + b1) * phi(x @ w1 + b1)
  second = (first @ w2 + b2) * phi(first @ w2 + b2)
  actual = tf.function(mlp, jit_compile=jit)(x, training=True)
  for f, e in zip(actual, [x, first, second, second @ w3], strict=True):
    np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5)


def test_initial_kernels():
  byol, simclr = (
    model.MLP(3, 256, 256, init=init) for init in ('byol', 'simclr')
  )
  for mlp in (byol, simclr):
    mlp(tf.zeros([1, 256]))
  kernels = [layer.dense.kernel.numpy() for layer in byol.layers_out]
  for k in kernels:  # variance 1 / fan-in, cut at two deviations
    assert abs(k.std() * 16 - 1) < 0.01
    assert np.abs(k).max() * 16 < 2.274
  normals = [layer.dense.kernel.numpy() for layer in simclr.layers_out]
  for k in normals:
    assert abs(k.std() * 100 - 1) < 0.01
    assert np.abs(k).max() > 0.03
  # Layers do not share their numbers.
  assert len({k.flat[0] for k in kernels + normals}) == 6


@pytest.mark.parametrize('jit', [False, True])
def test_stochastic_head(rng, jit):
  x = rng.normal(size=[6, 3]).astype('float32')
  noise = rng.normal(size=[6, 4]).astype('float32')
  head = model.StochasticHead(5, 4)
  head(x)
  mean = head.encoder(x)[-1].numpy()
  mu = mean / np.linalg.norm(mean, axis=1, keepdims=True)
  decoder = head.decoder.kernel.numpy()

  call = tf.function(
    lambda x, n: head(x, sample=lambda mu: mu + n), jit_compile=jit
  )
  actual = call(x, noise)
  np.testing.assert_allclose(actual['mu'], mu, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(actual['z'], mu + noise, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
    actual['prediction'], (mu + noise) @ decoder, rtol=1e-4, atol=1e-5
  )

  at_the_mean = head(x)
  np.testing.assert_array_equal(at_the_mean['z'], at_the_mean['mu'])
  np.testing.assert_allclose(
    at_the_mean['prediction'], mu @ decoder, rtol=1e-4, atol=1e-5
  )


def test_stochastic_head_of_a_gaussian(rng):
  x = rng.normal(size=[6, 3]).astype('float32')
  head = model.StochasticHead(5, 4, location=tf.identity)
  mu = head(x)['mu']
  np.testing.assert_array_equal(mu, head.encoder(x)[-1])
  assert np.ptp(np.linalg.norm(mu, axis=1)) > 1e-3


def test_classifier(rng):
  x = rng.normal(size=[4, 300]).astype('float32')
  probe = model.Classifier(100)
  logits = probe(x)
  kernel, bias = probe.trainable_variables
  assert kernel.shape == [300, 100] and bias.shape == [100]
  assert abs(kernel.numpy().std() * 100 - 1) < 0.02 and not bias.numpy().any()
  bias.assign(rng.normal(size=100))
  np.testing.assert_allclose(probe(x), logits + bias, rtol=1e-5, atol=1e-5)
  assert not model.Classifier(10, zero_init=True)(x).numpy().any()


def prototypes_at(kernel):
  """The layer with this kernel [D, K]."""
  layer = model.Prototypes(kernel.shape[1])
  layer(tf.zeros([1, kernel.shape[0]]))
  layer.kernel.assign(kernel)
  return layer


def scores_oracle(x, kernel):
  """Row times column over the column's length, one by one."""
  return np.array(
    [[row @ c / math.sqrt(sum(c * c)) for c in kernel.T] for row in x]
  )


@pytest.mark.parametrize('jit', [False, True])
def test_prototypes_are_unit_vectors(rng, jit):
  x, kernel = oracles.unit_rows(rng, 4, 6), 3 * rng.normal(size=[6, 5])
  layer = prototypes_at(kernel)
  weights = rng.normal(size=[4, 5])

  @tf.function(jit_compile=jit)
  def run(x):
    with tf.GradientTape() as tape:
      scores = layer(x)
      loss = tf.reduce_sum(scores * tf.cast(weights, tf.float32))
    return scores, tape.gradient(loss, layer.kernel)

  scores, gradient = run(tf.cast(x, tf.float32))
  np.testing.assert_allclose(scores, scores_oracle(x, kernel), atol=1e-6)
  expected = oracles.finite_difference(
    lambda k: (weights * scores_oracle(x, k)).sum(), kernel
  )
  np.testing.assert_allclose(gradient, expected, atol=1e-5)
  # As with weight normalisation of a fixed length: none along the vectors.
  along = (gradient.numpy() * kernel).sum(0)
  np.testing.assert_allclose(along, 0, atol=1e-5)


def test_prototypes_start_near_unit_length():
  layer = model.Prototypes(300)
  layer(tf.zeros([1, 256]))
  lengths = np.linalg.norm(layer.kernel, axis=0)
  assert abs(lengths.mean() - 1) < 0.01 and np.abs(lengths - 1).max() < 0.2


def test_normalised_prototypes_are_the_same(rng, two_replicas):
  kernel, x = rng.normal(size=[6, 5]), tf.ones([1, 6])
  with two_replicas.scope():
    layer = prototypes_at(kernel)
  scores = layer(x)

  @tf.function
  def run():
    two_replicas.run(layer.normalize)

  run()
  np.testing.assert_allclose(layer(x), scores, atol=1e-6)
  for local in layer.kernel.values:
    np.testing.assert_allclose(tf.norm(local, axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize('policy', ['mixed_bfloat16'], indirect=True)
def test_heads_in_bfloat16(rng, policy):
  x = tf.cast(rng.normal(size=[4, 8]), tf.float32)
  mlp = model.MLP(2, 5, 4)
  actual = mlp(x, training=True)
  # Rounded, what the images of a batch have in common would drown the rest.
  assert [f.dtype for f in actual[1:]] == [tf.float32] * 2
  assert model.MLP(0, 5, 4)(x)[0].dtype == tf.float32
  head = model.StochasticHead(5, 4)
  seen = head(x, training=True, sample=lambda mu: mu + 2.0**-12)
  assert {v.dtype for v in seen.values()} == {tf.float32}
  # A bfloat16 would lose so small a noise.
  exact = seen['z'].numpy() @ head.decoder.kernel.numpy()
  np.testing.assert_allclose(seen['prediction'], exact, rtol=1e-4, atol=1e-6)
  probe = model.Classifier(3)
  assert probe(x).dtype == tf.float32
  np.testing.assert_allclose(
    probe(x), x @ probe.dense.kernel.numpy(), rtol=1e-4, atol=1e-6
  )
  prototypes = prototypes_at(rng.normal(size=[8, 3]))
  unit = tf.math.l2_normalize(x, -1)
  assert prototypes(unit).dtype == tf.float32
  exact = scores_oracle(unit.numpy(), prototypes.kernel.numpy())
  np.testing.assert_allclose(prototypes(unit), exact, atol=1e-6)
  heads = (mlp, head, probe, prototypes)
  kinds = {v.dtype for part in heads for v in part.variables}
  assert kinds == {tf.float32}


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'], indirect=True)
def test_variable_groups(policy):
  net = resnet.ResNet(18, 1 / 8, stem='cifar', sk_ratio=0.1, se_ratio=0.25)
  mlp = model.MLP(2, 5, 4, output_bn=True)
  plain = model.MLP(2, 5, 4, mid_bn=False)
  probe = model.Classifier(3)
  prototypes = model.Prototypes(3)
  h = net(tf.zeros([1, 8, 8, 3]))
  for head in (mlp, plain, probe, prototypes):
    head(h)
  parts = (net, mlp, plain, probe, prototypes)
  groups = model.variable_groups(*parts)
  # 21 convolutions (one per block twice, a stem, four shortcuts) and two
  # kernels in each of 8 squeeze-excites; 2 in each head, 1 in the probe and
  # in the prototypes.
  assert len(groups.kernels) == 21 + 16 + 2 + 2 + 1 + 1
  assert len(groups.norms) == 2 * 21 + 2 + 1
  assert len(groups.biases) == 16 + 1 + 1
  assert all(v.shape.rank > 1 for v in groups.kernels)
  actual = [*groups.kernels, *groups.norms, *groups.biases]
  wanted = [v for part in parts for v in part.trainable_variables]
  assert {id(v) for v in actual} == {id(v) for v in wanted}
  # Given twice, once whole and once in part: still once.
  again = model.variable_groups(mlp, mlp, mlp.layers_out[0])
  assert [len(v) for v in vars(again).values()] == [2, 0, 3]
  empty = model.variable_groups()
  assert [*vars(empty).values()] == [[], [], []]


def test_variable_groups_asks_about_strangers():
  class Stranger(keras.layers.Layer):
    def build(self, shape):
      self.rows = self.add_weight('rows', [3, shape[-1]])
      self.scale = self.add_weight('scale', [3])

  stranger = Stranger()
  stranger.build([1, 2])
  with pytest.raises(ValueError, match='rows'):
    model.variable_groups(stranger)
  with pytest.raises(ValueError, match='no variables yet'):
    model.variable_groups(model.MLP(1, 2, 2))


def twins():
  """Two layers of each kind, their variables built."""
  layers = [[model.MLP(2, 5, 4), model.Classifier(3)] for _ in range(2)]
  for mlp, probe in layers:
    probe(mlp(tf.ones([2, 3]), training=True)[-1])
  return layers


def trainable(layers):
  return [v for layer in layers for v in layer.trainable_variables]


@pytest.mark.parametrize('jit', [False, True])
def test_update_ema(jit):
  online, target = twins()
  old = [v.numpy() for v in trainable(target)]
  fixed = [v.numpy() for v in trainable(online)]
  moving = [v.numpy() for v in target[0].non_trainable_variables]

  @tf.function(jit_compile=jit)
  def step(decay):
    model.update_ema(online, target, decay)

  step(tf.constant(0.75))
  actual = trainable(target)
  assert len(actual) == 6
  for f, t, o in zip(actual, old, fixed, strict=True):
    np.testing.assert_allclose(f, 0.75 * t + 0.25 * o, rtol=1e-5, atol=1e-7)
  for f, o in zip(trainable(online), fixed, strict=True):
    np.testing.assert_array_equal(f, o)
  for f, o in zip(target[0].non_trainable_variables, moving, strict=True):
    np.testing.assert_array_equal(f, o)
  step(tf.constant(1.0))
  kept = [f.numpy() for f in actual]
  step(tf.constant(0.0))
  assert any((f.numpy() != k).any() for f, k in zip(actual, kept, strict=True))
  for f, o in zip(actual, fixed, strict=True):
    np.testing.assert_array_equal(f, o)


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'], indirect=True)
def test_update_ema_on_two_replicas(policy, two_replicas):
  with two_replicas.scope():
    online, target = twins()
    decay = tf.Variable(0.5, trainable=False)
  old = [v.numpy() for v in trainable(target)]

  def update():
    model.update_ema(online, target, decay + 0.25)

  @tf.function
  def steps(count):
    for _ in tf.range(count):
      two_replicas.run(update)

  steps(2)
  for f, t, o in zip(trainable(target), old, trainable(online), strict=True):
    expected = 0.75**2 * t + (1 - 0.75**2) * o.numpy()
    for local in f.values:
      np.testing.assert_allclose(local, expected, rtol=1e-5, atol=1e-7)


def test_update_ema_wants_twins():
  online, target = twins()
  with pytest.raises(ValueError, match='twin'):
    model.update_ema(online, target[::-1], 0.5)
  with pytest.raises(ValueError):
    model.update_ema(online, target[:1], 0.5)
