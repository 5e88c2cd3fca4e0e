"""Entropy and reconstruction: fixture numbers, loops, limits, gradients."""

import functools
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import objectives
import oracles
from cvr.numerics import distributions, information, replicas

PLUG_IN = information.plug_in(tf.identity)

# Computed with 60 digits from oracles.fixture's h1 and h2. (dim, kappa):
# Joe's entropy of h1, the plug-in one, Joe's leaving one out, reconstruction.
SPHERE = {
  (16, 10): (-4.556545537656, -4.556545538347, 4.055468006777, 4.139875977566),
  (256, 10): (
    -352.753555446661,
    -352.753555446667,
    -344.160653305194,
    -344.184334960119,
  ),
  (16, 1024): (-36.839481435524, None, None, 994.230101865881),
  (256, 1024): (-655.916172533488, None, None, 362.128010419331),
}
# Of softmax(raw h / 0.1): H(mean p1) with log(p + 1e-7) and the symmetric
# cross entropy without.
DISCRETE = {16: (2.275543218014, 11.519277), 256: (4.877741567652, 14.534658)}


def tensors(*arrays, dtype=tf.float32):
  return [tf.constant(a, dtype) for a in arrays]


def vmf(kappa):
  """The oracle's log density of a vMF."""
  return functools.partial(oracles.log_vmf, kappa=kappa)


def log_probabilities(logits, dtype=tf.float32):
  return tf.nn.log_softmax(tf.constant(logits, dtype))


def batch_mean(log_p):
  return tf.reduce_mean(tf.exp(log_p), 0)


def er_discrete(log_p1, log_p2, mean=batch_mean):
  return information.er_discrete_symmetric(
    log_p1, log_p2, mean(log_p1), mean(log_p2)
  )


@pytest.mark.parametrize('dtype, digits', [('float32', 3e-7), ('float64', 0)])
@pytest.mark.parametrize('dim, kappa', list(SPHERE))
def test_the_sphere_of_the_fixture(dim, kappa, dtype, digits):
  """In float32 the values are right to what float32 can hold."""
  h1, h2 = tensors(*oracles.fixture(dim)[:2], dtype=dtype)
  kernel = information.vmf_kernel(dim, kappa)
  entropy = functools.partial(information.entropy, kernel, h1, h1)
  actual = (
    entropy(),
    entropy(estimator=PLUG_IN),
    entropy(leave_one_out=True),
    tf.reduce_mean(information.reconstruction(kernel, h1, h2)),
  )
  for value, expected in zip(actual, SPHERE[dim, kappa], strict=True):
    assert value.dtype == dtype
    if expected is not None:
      assert float(value) == pytest.approx(expected, rel=digits, abs=2e-11)


@pytest.mark.parametrize('dim', list(DISCRETE))
def test_the_discrete_rows_of_the_fixture(dim):
  logits = oracles.fixture(dim)[2] / 0.1
  released, cross_entropy = DISCRETE[dim]
  log_p = log_probabilities(logits, 'float64')
  actual = er_discrete(log_p[:4], log_p[4:])
  assert float(actual.reconstruction) == pytest.approx(cross_entropy, abs=5e-7)
  mean = oracles.softmax_rows(logits[:4]).mean(0)
  # What 1e-7 inside a logarithm is worth.
  assert -mean @ np.log(mean + 1e-7) == pytest.approx(released, abs=1e-11)
  exact = oracles.discrete_entropy(mean)
  assert exact > released + 1e-6
  entropy = information.discrete_entropy(batch_mean(log_p[:4]))
  assert float(entropy) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize('seed', [0, 1])
def test_the_published_example(seed):
  """1000 rows of 1000 dimensions, whose published value is -249.308."""
  rng = np.random.default_rng(seed)
  (z,) = tensors(oracles.unit_rows(rng, 1000, 1000))
  actual = information.entropy(information.vmf_kernel(1000, 10.0), z, z)
  assert float(actual) == pytest.approx(-2035.1466, abs=1e-3)


def test_uniform_rows_have_the_entropy_of_the_sphere():
  """Unless each row's own kernel counts: then 3.6 nats are missing."""
  (z,) = tensors(oracles.unit_rows(np.random.default_rng(0), 512, 256))
  kernel = information.vmf_kernel(256, 10.0)
  exact = distributions.log_sphere_area(256)
  actual = information.entropy(kernel, z, z, leave_one_out=True)
  # The standard deviation over seeds is 0.002.
  assert float(actual) == pytest.approx(exact, abs=6e-3)
  assert float(information.entropy(kernel, z, z)) == pytest.approx(
    -347.929, abs=2e-3
  )


@pytest.mark.parametrize('estimator', [information.joe, PLUG_IN])
@pytest.mark.parametrize('leave_one_out', [False, True])
@pytest.mark.parametrize('dim, kappa', [(16, 10), (256, 10), (256, 1024)])
def test_collapse_leaves_the_kernels_peak(dim, kappa, leave_one_out, estimator):
  rng = np.random.default_rng(1)
  (z,) = tensors(np.repeat(oracles.unit_rows(rng, 1, dim), 32, 0))
  kernel = information.vmf_kernel(dim, kappa)
  how = {'leave_one_out': leave_one_out, 'estimator': estimator}
  actual = information.er(kernel, z, z, z, z, **how)
  peak = distributions.vmf_log_normalizer(dim, kappa) + kappa
  rounding = kappa * 2e-7
  assert float(actual.entropy) == pytest.approx(-peak, rel=1e-7, abs=rounding)
  assert float(actual.reconstruction) == pytest.approx(-peak, rel=1e-7)
  assert float(actual.loss) == pytest.approx(0.0, abs=rounding)


# Kernel, its oracle.
KERNELS = {
  'vmf': (information.vmf_kernel(5, 7.0), vmf(7.0)),
  'gaussian': (
    information.gaussian_kernel(5, 0.6 * math.sqrt(2)),
    functools.partial(oracles.log_gaussian, sigma=0.6),
  ),
  'laplace': (
    information.gaussian_kernel(5, 0.5, 1.0),
    functools.partial(oracles.log_generalized_gaussian, scale=0.5, alpha=1.0),
  ),
  'flat top': (
    information.gaussian_kernel(5, 0.9, 3.5),
    functools.partial(oracles.log_generalized_gaussian, scale=0.9, alpha=3.5),
  ),
}


@pytest.mark.parametrize('leave_one_out', [False, True])
@pytest.mark.parametrize('plug_in', [False, True])
@pytest.mark.parametrize('name', list(KERNELS))
def test_entropy_and_er_match_the_transcription(name, plug_in, leave_one_out):
  kernel, log_kernel = KERNELS[name]
  rng = np.random.default_rng(3)
  z1, z2 = (oracles.unit_rows(rng, 4, 5) for _ in range(2))
  how = {'plug_in': plug_in, 'leave_one_out': leave_one_out}
  h = [oracles.kde_entropy(z, log_kernel, **how) for z in (z1, z2)]
  loss = oracles.er(z1, z2, log_kernel, **how)
  a, b = tensors(z1, z2)
  actual = information.er_symmetric(
    kernel,
    a,
    b,
    a,
    b,
    leave_one_out=leave_one_out,
    estimator=PLUG_IN if plug_in else information.joe,
  )
  assert float(actual.entropy) == pytest.approx(np.mean(h), abs=2e-6)
  assert float(actual.loss) == pytest.approx(loss, abs=2e-6)
  difference = actual.reconstruction - actual.entropy
  assert float(difference) == pytest.approx(loss, abs=2e-6)


@pytest.mark.parametrize(
  'dim, kappa', [(16, 10.0), (256, 10.0), (1000, 1024.0)]
)
def test_the_normalizer_cancels(dim, kappa):
  """ER is alignment and uniformity: no nat of logC, in float32, is left."""
  h1, h2, _ = oracles.fixture(dim)

  def uniformity(z):
    scores = kappa * z @ z.T
    top = scores.max(1)
    return np.mean(top + np.log(np.mean(np.exp(scores - top[:, None]), 1)))

  expected = (uniformity(h1) + uniformity(h2)) / 2
  expected -= kappa * np.mean(np.sum(h1 * h2, 1))
  a, b = tensors(h1, h2)
  kernel = information.vmf_kernel(dim, kappa)
  actual = information.er_symmetric(kernel, a, b, a, b)
  assert float(actual.loss) == pytest.approx(expected, rel=1e-6)


def test_two_kernels_keep_their_own_normalizers():
  """The concentrations of the two terms may differ."""
  rng = np.random.default_rng(4)
  z, p, y = (oracles.unit_rows(rng, 6, 16) for _ in range(3))
  spread, near = (information.vmf_kernel(16, kappa) for kappa in (5.0, 20.0))
  a, b, c = tensors(z, p, y)
  actual = information.er(spread, a, a, b, c, reconstruction_kernel=near)
  h = oracles.kde_entropy(z, vmf(5.0))
  rec = -np.mean([vmf(20.0)(*pair) for pair in zip(y, p, strict=True)])
  assert float(actual.entropy) == pytest.approx(h, rel=1e-6)
  assert float(actual.reconstruction) == pytest.approx(rec, rel=1e-6)
  assert float(actual.loss) == pytest.approx(rec - h, rel=1e-6)


def test_reconstruction_is_affine_in_byols_loss():
  h1, h2 = tensors(*oracles.fixture(256)[:2])
  distance = objectives.normalized_distance(h1, h2)
  for kappa in (4.0, 10.0):
    actual = information.reconstruction(
      information.vmf_kernel(256, kappa), h1, h2
    )
    peak = distributions.vmf_log_normalizer(256, kappa) + kappa
    np.testing.assert_allclose(actual, kappa / 2 * distance - peak, rtol=1e-7)


@pytest.mark.parametrize('dim', [1, 2, 16, 511])
def test_alpha_2_is_the_isotropic_gaussian(dim):
  z, mu = np.random.default_rng(5).normal(size=(2, 6, dim))
  for sigma in (0.3, 1.0, 4.0):
    kernel = information.gaussian_kernel(dim, sigma * math.sqrt(2))
    actual = information.reconstruction(
      kernel, *tensors(mu, z, dtype='float64')
    )
    expected = -distributions.gaussian_log_prob(z, mu, sigma)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('alpha', [0.7, 1.0, 2.0, 3.0])
@pytest.mark.parametrize('dim', [2, 3, 40])
def test_generalized_gaussians_have_mass_one(dim, alpha):
  z, mu = np.random.default_rng(6).normal(size=(2, dim))
  kernel = information.gaussian_kernel(dim, 1.3, alpha)
  actual = information.reconstruction(
    kernel, *tensors(mu[None], z[None], dtype='float64')
  )
  expected = -oracles.log_generalized_gaussian(z, mu, 1.3, alpha)
  assert float(actual[0]) == pytest.approx(expected, rel=1e-12)


def test_on_the_line_it_is_scipys():
  z = np.linspace(-3, 3, 7)[:, None]
  for alpha in (0.5, 1.0, 4.0):
    kernel = information.gaussian_kernel(1, 1.7, alpha)
    actual = information.reconstruction(
      kernel, *tensors(np.zeros_like(z), z, dtype='float64')
    )
    expected = -scipy.stats.gennorm.logpdf(z[:, 0], alpha, scale=1.7)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def gradients(function, *inputs):
  inputs = [tf.convert_to_tensor(x) for x in inputs]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    value = function(*inputs)
  return value, tape.gradient(value, inputs)


@pytest.mark.parametrize('leave_one_out', [False, True])
@pytest.mark.parametrize('plug_in', [False, True])
@pytest.mark.parametrize('alpha', [None, 1.0, 2.0, 3.5])
def test_gradients_of_er(alpha, plug_in, leave_one_out):
  """Through rows, keys and the plug-in's weights, on the sphere (None) or off
  it."""
  rng = np.random.default_rng(7)
  h1, h2 = rng.normal(size=(2, 4, 3))
  if alpha is None:
    kernel = information.vmf_kernel(3, 6.0)
    place = functools.partial(tf.math.l2_normalize, axis=-1)

    def at(x):
      return x / np.linalg.norm(x, axis=1, keepdims=True)

    def log_kernel(z, mu):
      return 6.0 * z @ mu
  else:
    kernel = information.gaussian_kernel(3, 1.2, alpha)
    place = tf.identity

    def at(x):
      return x

    def log_kernel(z, mu):
      return -((np.linalg.norm(z - mu) / 1.2) ** alpha)

  def loss(h1, h2):
    z1, z2 = place(h1), place(h2)
    return information.er_symmetric(
      kernel,
      z1,
      z2,
      z1,
      z2,
      leave_one_out=leave_one_out,
      estimator=PLUG_IN if plug_in else information.joe,
    ).loss

  def oracle(h1, h2):
    how = {'plug_in': plug_in, 'leave_one_out': leave_one_out}
    return oracles.er(at(h1), at(h2), log_kernel, **how)

  _, actual = gradients(loss, h1, h2)
  expected = [
    oracles.finite_difference(lambda x: oracle(x, h2), h1),
    oracles.finite_difference(lambda x: oracle(h1, x), h2),
  ]
  for gradient, numeric in zip(actual, expected, strict=True):
    assert np.abs(numeric).max() > 1e-2
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)


def test_a_teachers_branch():
  """The student's spread and the prediction's error, each to its own."""
  rng = np.random.default_rng(8)
  z, p, y = (oracles.unit_rows(rng, 5, 4) for _ in range(3))
  kernel = information.vmf_kernel(4, 3.0)

  def loss(z, p, y):
    return information.er(kernel, z, z, p, tf.stop_gradient(y)).loss

  value, (for_z, for_p, for_y) = gradients(loss, z, p, y)
  h = oracles.kde_entropy(z, vmf(3.0))
  rec = -np.mean([vmf(3.0)(*pair) for pair in zip(y, p, strict=True)])
  assert float(value) == pytest.approx(rec - h, abs=1e-12)
  assert for_y is None
  np.testing.assert_allclose(for_p, 3.0 * (p - y) / 5, atol=1e-12)

  def entropy(z):
    return information.entropy(kernel, z, z)

  np.testing.assert_allclose(for_z, -gradients(entropy, z)[1][0], atol=1e-12)


@pytest.mark.parametrize('alpha', [0.5, 1.0, 2.0, 3.0])
def test_coincident_rows_have_finite_gradients(alpha):
  kernel = information.gaussian_kernel(4, 0.5, alpha)
  z = tf.constant(oracles.unit_rows(np.random.default_rng(9), 3, 4), tf.float32)
  z = tf.concat([z, z], 0)

  def loss(z):
    return information.er(kernel, z, z, z, z, leave_one_out=True).loss

  value, (actual,) = gradients(loss, z)
  assert np.isfinite(value) and np.isfinite(actual).all()


def test_discrete_entropy_is_exact():
  """Its greatest value is log d; certainty has none, and a gradient."""
  for dim in (2, 16, 4096):
    uniform = tf.fill([dim], tf.constant(1 / dim, tf.float64))
    actual = information.discrete_entropy(uniform)
    assert float(actual) == pytest.approx(math.log(dim), abs=1e-12)
  value, (gradient,) = gradients(information.discrete_entropy, tf.eye(3))
  np.testing.assert_array_equal(value, np.zeros(3))
  assert np.isfinite(gradient).all()
  p = oracles.softmax_rows(np.random.default_rng(10).normal(size=(5, 7)))
  np.testing.assert_allclose(
    information.discrete_entropy(p),
    [oracles.discrete_entropy(row) for row in p],
    rtol=1e-12,
  )


@pytest.mark.parametrize('scale', [1.0, 30.0])
def test_entrec_discrete_matches_the_transcription(scale):
  logits1, logits2 = scale * np.random.default_rng(11).normal(size=(2, 5, 6))
  expected = oracles.entrec_discrete(logits1, logits2)
  log_p1, log_p2 = map(log_probabilities, (logits1, logits2))
  actual = er_discrete(log_p1, log_p2)
  assert float(actual.loss) == pytest.approx(expected, rel=1e-6)
  difference = actual.reconstruction - actual.entropy
  assert float(difference) == pytest.approx(expected, rel=1e-6)


def test_gradients_of_entrec_discrete():
  logits1, logits2 = np.random.default_rng(12).normal(size=(2, 4, 3))

  def loss(*logits):
    return er_discrete(*map(tf.nn.log_softmax, logits)).loss

  _, actual = gradients(loss, logits1, logits2)
  expected = [
    oracles.finite_difference(
      lambda x: oracles.entrec_discrete(x, logits2), logits1
    ),
    oracles.finite_difference(
      lambda x: oracles.entrec_discrete(logits1, x), logits2
    ),
  ]
  for gradient, numeric in zip(actual, expected, strict=True):
    assert np.abs(numeric).max() > 1e-2
    np.testing.assert_allclose(gradient, numeric, atol=1e-9)


def test_entrec_discrete_is_least_for_sharp_balanced_equal_codes():
  """-log d: every class as often, all certain, and both views agreeing."""
  log_p = tf.nn.log_softmax(100.0 * tf.eye(6))
  actual = er_discrete(log_p, log_p)
  assert float(actual.loss) == pytest.approx(-math.log(6), rel=1e-6)
  collapsed = tf.nn.log_softmax(100.0 * tf.one_hot([2] * 6, 6))
  assert float(er_discrete(collapsed, collapsed).loss) == 0.0


def test_local_rows_of_global_keys():
  """Rows 3..5 of six: what the second of two replicas computes."""
  rng = np.random.default_rng(13)
  z1, z2 = tensors(*(oracles.unit_rows(rng, 6, 5) for _ in range(2)))
  kernel = information.vmf_kernel(5, 10.0)
  for leave_one_out in (False, True):
    whole, first, second = (
      information.er(
        kernel, a, z1, a, b, offset=offset, leave_one_out=leave_one_out
      )
      for a, b, offset in (
        (z1, z2, 0), (z1[:3], z2[:3], 0), (z1[3:], z2[3:], tf.constant(3)),
      )
    )  # fmt: skip
    parts = information.average(first, second)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_bounds_leave_each_row_out():
  rng = np.random.default_rng(14)
  z1, z2 = (oracles.unit_rows(rng, 6, 5) for _ in range(2))
  a, b = tensors(z1, z2)
  actual = information.bounds(information.vmf_kernel(5, 10.0), a, b, a, b)
  h = np.mean(
    [oracles.kde_entropy(z, vmf(10.0), leave_one_out=True) for z in (z1, z2)]
  )
  rec = -np.mean([vmf(10.0)(*pair) for pair in zip(z1, z2, strict=True)])
  scores = functools.partial(distributions.vmf_scores, kappa=10.0)
  contrast = [objectives.contrast(scores, *pair) for pair in ((a, b), (b, a))]
  cross_entropy = np.mean([c.cross_entropy for c in contrast])
  expected = {
    'entropy': h,
    'reconstruction': rec,
    'er_bound': h - rec,
    'infonce_bound': math.log(6) - cross_entropy,
  }
  assert {k: float(v) for k, v in actual.items()} == pytest.approx(
    expected, abs=2e-6
  )


def everything(h1, h2, logits1, logits2):
  """Every kind of loss and bound, of this replica's rows."""
  z1, z2 = tf.math.l2_normalize(h1, -1), tf.math.l2_normalize(h2, -1)
  keys1, keys2 = replicas.all_gather(z1), replicas.all_gather(z2)
  offset = replicas.replica_id() * z1.shape[0]
  rows = (z1, z2, keys1, keys2)
  vmf_kernel = information.vmf_kernel(z1.shape[1], 10.0)
  laplace = information.gaussian_kernel(z1.shape[1], 0.7, 1.0)
  plug_in = information.plug_in(replicas.all_gather)

  def mean(log_p):
    share = batch_mean(log_p) / replicas.num_replicas()
    return replicas.cross_replica_sum(share)

  joe = information.er_symmetric(vmf_kernel, *rows, offset=offset)
  weighted = information.er_symmetric(
    laplace, *rows, offset=offset, leave_one_out=True, estimator=plug_in
  )
  log_p = [tf.nn.log_softmax(x) for x in (logits1, logits2)]
  return information.bounds(vmf_kernel, *rows, offset) | {
    'joe': joe.loss,
    'plug_in': weighted.loss,
    'discrete': er_discrete(*log_p, mean).loss,
  }


def values_and_gradients(*inputs):
  """Every value, and the rows' gradients of a share of their weighted sum."""
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    values = everything(*inputs)
    # Unequal weights: no term undoes another one.
    total = tf.add_n([n * v for n, v in enumerate(values.values(), 1)])
    total /= replicas.num_replicas()
  return values, tape.gradient(total, inputs)


@pytest.fixture(scope='module')
def batch():
  rng = np.random.default_rng(15)
  shapes = [(8, 6)] * 2 + [(8, 5)] * 2
  return tensors(*(rng.normal(size=shape) for shape in shapes))


@pytest.fixture(scope='module')
def eager(batch):
  return values_and_gradients(*batch)


def assert_same(actual, expected):
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6),
    actual,
    expected,
  )


def test_two_replicas_equal_one(batch, eager, two_replicas):
  """The values' mean, and every row's gradient, are the whole batch's."""

  def part(context):
    r = context.replica_id_in_sync_group
    return [x[4 * r : 4 * r + 4] for x in batch]

  parts = two_replicas.experimental_distribute_values_from_function(part)

  @tf.function(autograph=False)
  def run(parts):
    def step(rows):
      return values_and_gradients(*rows)

    return two_replicas.run(step, args=(parts,))

  values, rows = tf.nest.map_structure(
    lambda x: [y.numpy() for y in x.values], run(parts)
  )
  values = {name: np.mean(value) for name, value in values.items()}
  assert_same((values, tuple(np.concatenate(pair) for pair in rows)), eager)


def test_compiled_equals_uncompiled(batch, eager):
  compiled = tf.function(values_and_gradients, jit_compile=True)
  assert_same(compiled(*batch), eager)
