"""Tests of the distributions against mpmath, closed forms and quadrature."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf

from cvr.numerics import distributions

KAPPAS = (1e-3, 1.0, 10.0, 100.0, 1024.0, 16384.0, 1e6)

# One row a dimension, one column a kappa of KAPPAS. Made with mpmath, dps 60:
# v = d / 2 - 1
# v * log(k) - d / 2 * log(2 * pi) - log(besseli(v, k, maxterms=10**7))
# fmt: off
LOG_NORMALIZERS = {
  3: (-2.531024413636, -2.69246360854, -9.535291971354, -97.23270688042,
    -1018.906405261, -16376.13381654, -999988.0223665),
  4: (-2.982607077259, -3.105106145328, -9.263372873929, -95.84529140442,
    -1016.359241501, -16372.20070192, -999982.0335494),
  5: (-3.270289124711, -3.368901313379, -8.965223433692, -94.45536342499,
    -1013.811833482, -16368.26757204, -999976.044732),
  16: (-1.32582493754, -1.35702087765, -4.057299047268, -79.00042240439,
    -985.7742242034, -16325.00213626, -999910.1677244),
  64: (40.76772001776, 40.75990845007, 39.99544582191, -8.040765439175,
    -863.0824561339, -16136.18590032, -999622.7040646),
  255: (342.4841628023, 342.4822020349, 342.28823367, 324.1345684097,
    -369.3060929584, -15384.50634564, -998478.8325456),
  256: (344.3348756521, 344.3329225438, 344.1397107151, 326.0486721899,
    -366.6975331054, -15380.56938572, -998472.8436654),
  1000: (2032.057760256, 2032.057260257, 2032.007762751, 2027.082385058,
    1639.635592542, -12447.2428166, -994017.0475705),
  2048: (4898.383862654, 4898.383618514, 4898.359448882, 4895.945354764,
    4666.958080749, -8301.033095435, -987740.3688568),
  8192: (25280.82353506, 25280.82347402, 25280.81743155, 25280.21322895,
    25217.31329846, 16341.1040557, -950937.2175305),
}
# fmt: on

# d, kappa, log I_{d/2-1}, log C_d, A_d, entropy (mpmath, dps 60).
VMF_TABLE = (
  (256, 1, -579.5811870442, 344.3329225438, 0.00390619085918, -344.3368287347),
  (256, 10, -286.9596684053, 344.1397107151, 0.0390035344582, -344.5297460597),
  (256, 100, 23.55967693016, 326.0486721899, 0.344539325158, -360.5026047058),
  (256, 1024, 1011.746187916, -366.6975331054, 0.883157127143, -537.6553650893),
  (
    256,
    16384,
    16377.73680826,
    -15380.56938572,
    0.992248061099,
    -876.4228473155,
  ),
  (128, 10, -99.22526750664, 126.6639961151, 0.0776609763821, -127.4406058789),
  (128, 1024, 1017.67712452, -698.6185330179, 0.939880785237, -263.8193910649),
  (512, 10, -751.2077957423, 867.870465455, 0.019523834023, -868.0657037952),
  (64, 10, -27.4273740642, 39.99544582191, 0.152711904197, -41.52256486389),
  (
    1000,
    10,
    -1801.956334552,
    2032.007762751,
    0.00999900219476,
    -2032.107752773,
  ),
  (3, 10, 7.929768918237, -9.535291971354, 0.900000004122, 0.5352919301311),
)

# d, kappa, A_d (mpmath, dps 60: a ratio of two besseli).
MEAN_LENGTHS = (
  (4, 1000000, 0.999998500000375),
  (16, 0.001, 6.24999997829861e-5),
  (17, 300, 0.973645437669035),
  (255, 100, 0.345604612248418),
  (2048, 0.001, 4.88281249999884e-7),
  (2048, 16384, 0.939478051589602),
  (8192, 2, 0.000244140610451638),
  (8192, 1000000, 0.99591288448561),
)


def random_unit(rng, *shape):
  x = rng.normal(size=shape)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sample_gap(mu, kappa, noise):
  """A sample and its 1 - mu.z, without the cancellation."""
  z = distributions.vmf_sample(mu, kappa, noise).numpy()
  return z, np.sum((z.astype(np.float64) - np.float64(mu)) ** 2, -1) / 2


@pytest.mark.parametrize('dim', LOG_NORMALIZERS)
def test_log_normalizer_equals_mpmath(dim):
  for kappa, expected in zip(KAPPAS, LOG_NORMALIZERS[dim], strict=True):
    error = distributions.vmf_log_normalizer(dim, kappa) - expected
    assert abs(error) < 1e-12 * max(1, abs(expected)), kappa


@pytest.mark.parametrize('row', VMF_TABLE, ids=lambda r: f'{r[0]}-{r[1]}')
def test_table_of_constants(row):
  dim, kappa, log_i, log_normalizer, mean_length, entropy = row
  computed = (
    distributions.log_bessel_i(dim / 2 - 1, kappa),
    distributions.vmf_log_normalizer(dim, kappa),
    distributions.vmf_mean_length(dim, kappa),
    distributions.vmf_entropy(dim, kappa),
  )
  expected = (log_i, log_normalizer, mean_length, entropy)
  np.testing.assert_allclose(computed, expected, rtol=1e-11)


def test_log_bessel_i_equals_scipy_where_scipy_holds():
  for order in (0, 0.5, 1, 7.5, 31, 63, 63.5, 64, 80):
    for x in (1.0, 17.0, 90.0, 300.0, 600.0):
      expected = math.log(scipy.special.ive(order, x)) + x
      computed = distributions.log_bessel_i(order, x)
      assert computed == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_mean_length_equals_mpmath():
  for dim, kappa, expected in MEAN_LENGTHS:
    computed = distributions.vmf_mean_length(dim, kappa)
    assert computed == pytest.approx(expected, rel=1e-13)


def test_mean_length_on_the_ordinary_sphere():
  for kappa in (0.1, 1.0, 30.0, 1024.0):
    expected = 1 / math.tanh(kappa) - 1 / kappa
    computed = distributions.vmf_mean_length(3, kappa)
    assert computed == pytest.approx(expected, rel=1e-12)
  # That difference cancels for a small concentration; its series does not.
  expected = 1e-3 / 3 - 1e-9 / 45 + 2e-15 / 945
  computed = distributions.vmf_mean_length(3, 1e-3)
  assert computed == pytest.approx(expected, rel=1e-13)


def test_log_sphere_area():
  areas = {
    3: 2.53102424697,
    64: -40.7677200256,
    256: -344.334875654,
    1000: -2032.05776026,
    2048: -4898.38386265,
  }
  for dim, expected in areas.items():
    assert distributions.log_sphere_area(dim) == pytest.approx(expected)
    # A von Mises-Fisher without concentration is uniform.
    uniform = -distributions.vmf_log_normalizer(dim, 1e-9)
    assert uniform == pytest.approx(expected)


@pytest.mark.parametrize(
  'kappa_e, expected',
  [
    (1024, (184.684083103, 185.56724023, 189.099868738, 193.515654374)),
    (16384, (522.360655989, 523.352904051, 527.321896295, 532.2831366)),
  ],
)
def test_kl_of_known_values(kappa_e, expected):
  cosines = np.array([1, 0.9, 0.5, 0])
  computed = distributions.vmf_kl(256, kappa_e, 10, cosines)
  np.testing.assert_allclose(computed, expected, rtol=1e-11)
  in_graph = distributions.vmf_kl(256, kappa_e, 10, tf.constant(cosines))
  np.testing.assert_allclose(in_graph, expected, rtol=1e-11)


def test_kl_vanishes_and_reaches_the_uniform():
  assert distributions.vmf_kl(256, 10, 10, 1) == pytest.approx(0, abs=1e-10)
  known = {10: 0.194870405705, 1024: 193.320489435, 16384: 532.087971662}
  for kappa, expected in known.items():
    area = distributions.log_sphere_area(256)
    below = area - distributions.vmf_entropy(256, kappa)
    assert below == pytest.approx(expected, abs=1e-8)
    assert distributions.vmf_kl(256, kappa, 1e-9, 1) == pytest.approx(below)


@pytest.mark.parametrize('kappa', [0.5, 10.0, 1024.0])
def test_density_integrates_to_one_over_the_sphere(kappa):
  nodes, weights = np.polynomial.legendre.leggauss(200)
  angles = np.arange(64) * 2 * np.pi / 64
  w, phi = (x.ravel() for x in np.meshgrid(nodes, angles))
  r = np.sqrt(1 - w * w)
  z = np.stack([r * np.cos(phi), r * np.sin(phi), w], -1)
  mu = np.array([[0.6, 0.0, 0.8]]) if kappa < 100 else np.array([[0, 0, 1.0]])
  p = np.exp(distributions.vmf_log_prob(z, mu, kappa).numpy())
  total = np.sum(p * np.tile(weights, 64)) * 2 * np.pi / 64
  assert total == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize('kappa', [10.0, 1024.0, 16384.0])
def test_log_prob_in_float32_keeps_its_digits(kappa):
  rng = np.random.default_rng(0)
  mu = random_unit(rng, 512, 256).astype(np.float32)
  noise = rng.normal(size=(512, 257)).astype(np.float32)
  z = distributions.vmf_sample(mu, kappa, noise)
  log_prob = distributions.vmf_log_prob(z, mu, kappa)
  assert log_prob.dtype == tf.float32
  z64, mu64 = (
    x / np.linalg.norm(x, axis=-1, keepdims=True)
    for x in (z.numpy().astype(np.float64), mu.astype(np.float64))
  )
  exact = distributions.vmf_log_normalizer(256, kappa)
  exact += kappa * np.sum(z64 * mu64, -1)
  # kappa mu.z + logC, rounded at 16384, would be off by up to 4e-3.
  np.testing.assert_allclose(log_prob, exact, rtol=0, atol=3e-4)


@pytest.mark.parametrize('kappa', [10.0, 1024.0, 16384.0])
@pytest.mark.parametrize('dim', [3, 16, 256, 2048])
def test_moments_of_samples(dim, kappa):
  count = 2000 if dim > 1000 else 20000
  rng = np.random.default_rng(dim)
  mu = random_unit(rng, 1, dim).astype(np.float32)
  noise = rng.normal(size=(count, dim + 1)).astype(np.float32)
  # One quantile a stratum: far less noisy than independent draws.
  levels = (rng.permutation(count) + 0.5) / count
  noise[:, 0] = scipy.stats.norm.ppf(levels)
  z, gap = sample_gap(np.repeat(mu, count, 0), kappa, noise)
  np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, atol=1e-6)

  mean = distributions.vmf_mean_length(dim, kappa)
  variance = 1 - mean**2 - (dim - 1) * mean / kappa
  sd = math.sqrt(variance)
  assert abs(np.mean(gap) - (1 - mean)) < 2e-3 * sd
  assert np.var(gap) == pytest.approx(variance, rel=5e-3)
  # The mean vector is A mu: its length, and nothing across.
  across = np.mean(z, 0) - np.mean(1 - gap) * mu[0]
  spread = math.sqrt((1 - mean**2) / count)
  assert np.linalg.norm(across) < spread * (1 + 4.5 / math.sqrt(dim - 1))


def test_known_spreads_of_w():
  # kappa: mean and standard deviation of w that rejection sampling gives.
  known = {
    10: (0.0390, 0.0624),
    1024: (0.88316, 0.01034),
    16384: (0.992248, 0.000685),
  }
  rng = np.random.default_rng(1)
  mu = random_unit(rng, 5000, 256).astype(np.float32)
  for kappa, (mean, sd) in known.items():
    noise = rng.normal(size=(5000, 257)).astype(np.float32)
    _, gap = sample_gap(mu, kappa, noise)
    assert np.mean(1 - gap) == pytest.approx(mean, abs=4.5 * sd / 5000**0.5)
    assert np.std(gap) == pytest.approx(sd, rel=4.5 / 10000**0.5)


@pytest.mark.parametrize('dim, kappa', [(4, 2.0), (16, 10.0), (256, 1024.0)])
def test_w_follows_its_distribution_function(dim, kappa):
  rng = np.random.default_rng(2)
  mu = random_unit(rng, 8000, dim).astype(np.float32)
  noise = rng.normal(size=(8000, dim + 1)).astype(np.float32)
  _, gap = sample_gap(mu, kappa, noise)
  w = np.linspace(-1, 1, 400001)
  with np.errstate(divide='ignore'):
    log_density = kappa * w + (dim - 3) / 2 * np.log1p(-w * w)
  cdf = scipy.integrate.cumulative_trapezoid(
    np.exp(log_density - np.max(log_density)), w, initial=0
  )
  cdf /= cdf[-1]
  result = scipy.stats.kstest(1 - gap, lambda x: np.interp(x, w, cdf))
  assert result.pvalue > 1e-3


@pytest.mark.parametrize('kappa', [0.1, 10.0, 1024.0, 1e6])
def test_quantiles_are_exact_far_into_both_tails(kappa):
  # On the ordinary sphere w has the distribution function of an exponential
  # that is cut at -1.
  t = np.linspace(-6.4, 6.4, 999)
  noise = np.concatenate([t[:, None], np.ones((999, 3))], -1)
  mu = np.repeat([[0.6, 0.0, 0.8]], 999, 0)
  _, gap = sample_gap(mu, kappa, noise)
  below, above = scipy.stats.norm.cdf(-t), scipy.stats.norm.cdf(t)
  cut = -np.expm1(-2 * kappa)
  expected = np.where(
    below < 0.5,
    -np.log1p(-below * cut),
    -np.log(above * cut + np.exp(-2 * kappa)),
  )
  # Linear interpolation leaves step^2 t^2 / 8, 5e-5 at the ends.
  np.testing.assert_allclose(gap, expected / kappa, rtol=1e-4)


@pytest.mark.parametrize('dim', [3, 5, 256, 8192])
def test_quantiles_without_concentration_are_those_of_beta(dim):
  t = np.linspace(-6.4, 6.4, 33)
  noise = np.concatenate([t[:, None], np.ones((33, dim))], -1)
  mu = np.tile(np.eye(1, dim), (33, 1))
  _, gap = sample_gap(mu, 1e-9, noise)
  beta = scipy.stats.beta((dim - 1) / 2, (dim - 1) / 2)
  expected = np.where(
    t > 0, beta.ppf(scipy.stats.norm.cdf(-t)), beta.isf(scipy.stats.norm.cdf(t))
  )
  np.testing.assert_allclose(gap, 2 * expected, rtol=1e-4)


def test_noise_beyond_the_table_is_clipped():
  t = np.array([-40.0, -6.5, 6.5, 40.0])
  noise = np.concatenate([t[:, None], np.ones((4, 16))], -1).astype(np.float32)
  mu = np.tile(np.eye(1, 16, 3), (4, 1)).astype(np.float32)
  _, gap = sample_gap(mu, 1024.0, noise)
  np.testing.assert_array_equal(gap[[0, 3]], gap[[1, 2]])


def test_tangents_are_uniform_and_independent_of_w():
  count, dim = 40000, 4
  rng = np.random.default_rng(3)
  mu = random_unit(rng, 1, dim)
  noise = rng.normal(size=(count, dim + 1))
  z, gap = sample_gap(np.repeat(mu, count, 0), 10.0, noise)
  tangent = z - (1 - gap)[:, None] * mu
  tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
  np.testing.assert_allclose(tangent @ mu[0], 0, atol=1e-10)
  error = 4.5 / math.sqrt(count)
  np.testing.assert_allclose(np.mean(tangent, 0), 0, atol=error)
  isotropic = (np.eye(dim) - mu.T @ mu) / (dim - 1)
  covariance = tangent.T @ tangent / count
  np.testing.assert_allclose(covariance, isotropic, atol=error / 2)
  standard = (gap - np.mean(gap)) / np.std(gap)
  np.testing.assert_allclose(standard @ tangent / count, 0, atol=error)


@pytest.mark.parametrize('kappa', [10.0, 16384.0])
def test_poles_and_degenerate_noise_stay_finite(kappa):
  dim = 16
  rng = np.random.default_rng(4)
  axis = np.eye(1, dim)
  mu = tf.constant(np.concatenate([axis, -axis, axis, axis]), tf.float32)
  noise = rng.normal(size=(4, dim + 1))
  noise[2, 1:] = 0  # no tangent direction at all
  noise[3, 1:] = 3 * axis  # normal to the tangent space
  with tf.GradientTape() as tape:
    tape.watch(mu)
    z = distributions.vmf_sample(mu, kappa, noise)
    total = tf.reduce_sum(z * tf.range(float(dim)))
  assert np.all(np.isfinite(z)) and np.all(
    np.isfinite(tape.gradient(total, mu))
  )
  np.testing.assert_allclose(np.linalg.norm(z[:2], axis=-1), 1, atol=1e-6)
  _, gap = sample_gap(mu.numpy(), kappa, noise)
  # w depends on the first column alone, not on where mu lies.
  _, elsewhere = sample_gap(random_unit(rng, 4, dim), kappa, noise)
  np.testing.assert_allclose(gap[:2], elsewhere[:2], rtol=1e-3)


@pytest.mark.parametrize('dim, kappa', [(3, 10.0), (16, 10.0), (16, 1024.0)])
def test_gradient_of_samples_equals_finite_differences(dim, kappa):
  rng = np.random.default_rng(5)
  mu = np.concatenate([random_unit(rng, 3, dim), np.eye(1, dim)])
  noise, weight = rng.normal(size=(4, dim + 1)), rng.normal(size=(4, dim))

  def value(x):
    unit = tf.math.l2_normalize(x, -1)
    z = distributions.vmf_sample(unit, kappa, noise)
    return tf.reduce_sum(z * weight)

  x = tf.constant(2 * mu)
  with tf.GradientTape() as tape:
    tape.watch(x)
    total = value(x)
  expected = np.zeros_like(mu)
  for index in np.ndindex(*mu.shape):
    step = np.zeros_like(mu)
    step[index] = 1e-5
    expected[index] = (value(x + step) - value(x - step)) / 2e-5
  np.testing.assert_allclose(tape.gradient(total, x), expected, atol=1e-7)


def test_log_prob_of_own_sample_has_no_gradient():
  rng = np.random.default_rng(6)
  h = tf.constant(3 * rng.normal(size=(8, 16)))
  noise = rng.normal(size=(8, 17))
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(h)
    mu = tf.math.l2_normalize(h, -1)
    z = distributions.vmf_sample(mu, 1024.0, noise)
    moving = distributions.vmf_log_prob(z, mu, 1024.0)
    held = distributions.vmf_log_prob(tf.stop_gradient(z), mu, 1024.0)
  np.testing.assert_allclose(tape.gradient(moving, h), 0, atol=1e-9)
  assert np.max(np.abs(tape.gradient(held, h))) > 1


def test_gradient_of_log_prob_is_that_of_the_inner_product():
  rng = np.random.default_rng(7)
  z = tf.constant(random_unit(rng, 4, 16))
  h = tf.constant(rng.normal(size=(4, 16)))
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(h)
    mu = tf.math.l2_normalize(h, -1)
    log_prob = distributions.vmf_log_prob(z, mu, 10.0)
    inner = 10 * tf.reduce_sum(z * mu, -1)
  np.testing.assert_allclose(
    tape.gradient(log_prob, h), tape.gradient(inner, h), atol=1e-12
  )


@pytest.mark.parametrize('kappa_e', [1024.0, 16384.0])
def test_rate_of_samples_equals_kl(kappa_e):
  count, dim = 4000, 256
  rng = np.random.default_rng(8)
  mu = random_unit(rng, count, dim)
  other = random_unit(rng, count, dim)
  other -= np.sum(other * mu, -1, keepdims=True) * mu
  other /= np.linalg.norm(other, axis=-1, keepdims=True)
  other = 0.5 * mu + math.sqrt(0.75) * other
  mu, other = mu.astype(np.float32), other.astype(np.float32)
  noise = rng.normal(size=(count, dim + 1)).astype(np.float32)
  z = distributions.vmf_sample(mu, kappa_e, noise)
  rate = distributions.vmf_log_prob(z, mu, kappa_e)
  rate = (rate - distributions.vmf_log_prob(z, other, 10.0)).numpy()
  expected = distributions.vmf_kl(dim, kappa_e, 10.0, 0.5)
  error = np.std(rate) / math.sqrt(count)
  assert error < 0.2
  assert abs(np.mean(rate) - expected) < 4.5 * error


def gradients_of_everything(mu, noise):
  """Samples, densities and a gradient, of both distributions."""
  with tf.GradientTape() as tape:
    tape.watch(mu)
    z = distributions.vmf_sample(mu, 1024.0, noise)
    log_prob = distributions.vmf_log_prob(z, mu[::-1], 10.0)
    latent = distributions.gaussian_sample(mu, 0.5, noise[:, 1:])
    gaussian = distributions.gaussian_log_prob(latent, mu[::-1], 2.0)
    kl = distributions.gaussian_kl(mu, 0.5, mu[::-1], 2.0)
    total = tf.reduce_sum(log_prob + gaussian + kl)
  return z, log_prob, gaussian, kl, tape.gradient(total, mu)


def test_compiled_equals_uncompiled():
  rng = np.random.default_rng(9)
  mu = tf.constant(random_unit(rng, 64, 32), tf.float32)
  noise = rng.normal(size=(64, 33))
  noise[:4, 0] = [-9, -6.5, 6.5, 9]
  noise = tf.constant(noise, tf.float32)
  compiled = tf.function(gradients_of_everything, jit_compile=True)
  for got, expected in zip(
    compiled(mu, noise), gradients_of_everything(mu, noise), strict=True
  ):
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


def test_low_precision_is_computed_in_float32():
  rng = np.random.default_rng(10)
  mu = tf.constant(random_unit(rng, 4, 16), tf.bfloat16)
  noise = tf.constant(rng.normal(size=(4, 17)), tf.bfloat16)
  wide_mu, wide_noise = tf.cast(mu, tf.float32), tf.cast(noise, tf.float32)

  def results(mu, noise):
    z = distributions.vmf_sample(mu, 10.0, noise)
    return (
      z,
      distributions.vmf_log_prob(mu, mu[::-1], 10.0),
      distributions.gaussian_sample(mu, 0.5, noise[:, 1:]),
      distributions.gaussian_log_prob(noise[:, 1:], mu, 0.5),
      distributions.gaussian_kl(mu, 0.5, mu[::-1], 1.0),
    )

  for narrow, wide in zip(
    results(mu, noise), results(wide_mu, wide_noise), strict=True
  ):
    assert narrow.dtype == tf.float32
    np.testing.assert_array_equal(narrow, wide)


def test_gaussian_log_prob_equals_scipy():
  rng = np.random.default_rng(11)
  z, mu = rng.normal(size=(2, 5, 7))
  for sigma in (
    0.7,
    rng.uniform(0.5, 2, size=7),
    rng.uniform(0.5, 2, size=(5, 7)),
  ):
    expected = np.sum(scipy.stats.norm.logpdf(z, mu, sigma), -1)
    computed = distributions.gaussian_log_prob(z, mu, sigma)
    np.testing.assert_allclose(computed, expected, rtol=1e-12)


def test_gaussian_kl_closed_forms():
  mu_e, mu_b = np.random.default_rng(12).normal(size=(2, 4, 6))
  unit = distributions.gaussian_kl(mu_e, 1.0, mu_b, 1.0)
  np.testing.assert_allclose(unit, np.sum((mu_e - mu_b) ** 2, -1) / 2)
  same = distributions.gaussian_kl(mu_e, 0.3, mu_e, 0.3)
  np.testing.assert_allclose(same, 0, atol=1e-12)
  wider = distributions.gaussian_kl(mu_e, 1.0, mu_e, 2.0)
  np.testing.assert_allclose(wider, 6 * (1 / 8 - 1 / 2 + math.log(2)))


def test_gaussian_rate_of_samples_equals_kl():
  rng = np.random.default_rng(13)
  count, dim = 20000, 8
  mu_e, mu_b = rng.normal(size=(2, 1, dim))
  sigma_e, sigma_b = rng.uniform(0.5, 2, size=(2, dim))
  noise = rng.normal(size=(count, dim))
  z = distributions.gaussian_sample(mu_e, sigma_e, noise)
  np.testing.assert_allclose(z, mu_e + sigma_e * noise)
  rate = distributions.gaussian_log_prob(z, mu_e, sigma_e)
  rate = (rate - distributions.gaussian_log_prob(z, mu_b, sigma_b)).numpy()
  expected = distributions.gaussian_kl(mu_e, sigma_e, mu_b, sigma_b).numpy()
  error = 4.5 * np.std(rate) / math.sqrt(count)
  np.testing.assert_allclose(expected, np.mean(rate), rtol=0, atol=error)


def test_gaussian_samples_carry_gradients_to_mean_and_scale():
  rng = np.random.default_rng(14)
  mu, sigma = tf.constant(rng.normal(size=(3, 5))), tf.ones([5], tf.float64)
  noise, weight = rng.normal(size=(2, 3, 5))
  with tf.GradientTape() as tape:
    tape.watch([mu, sigma])
    z = distributions.gaussian_sample(mu, sigma, noise)
    total = tf.reduce_sum(z * weight)
  to_mu, to_sigma = tape.gradient(total, [mu, sigma])
  np.testing.assert_allclose(to_mu, weight)
  np.testing.assert_allclose(to_sigma, np.sum(weight * noise, 0))


def test_gaussian_scores_equal_scipy_up_to_a_constant_of_the_row():
  """Means of very different lengths: |mean|^2 decides among them."""
  rng = np.random.default_rng(11)
  z = rng.normal(size=(4, 3))
  means = rng.normal(size=(6, 3)) * np.array([0.1, 1, 2, 4, 8, 16])[:, None]
  for sigma in (1.5, np.array([0.5, 1.0, 3.0])):
    log_p = np.array([
      [scipy.stats.norm.logpdf(row, mean, sigma).sum() for mean in means]
      for row in z
    ])  # fmt: skip
    found = distributions.gaussian_scores(*map(tf.constant, (z, means)), sigma)
    constant = found.numpy() - log_p
    np.testing.assert_allclose(
      constant, np.broadcast_to(constant[0, 0], constant.shape), atol=1e-9
    )


@pytest.mark.parametrize('kappa', [0.7, 10.0, 300.0])
def test_vmf_scores_equal_scipy_up_to_a_constant(kappa):
  rng = np.random.default_rng(12)
  z, means = random_unit(rng, 4, 3), random_unit(rng, 5, 3)
  log_p = np.array([
    scipy.stats.vonmises_fisher(mean, kappa).logpdf(z) for mean in means
  ]).T  # fmt: skip
  found = distributions.vmf_scores(*map(tf.constant, (z, means)), kappa)
  constant = found.numpy() - log_p
  np.testing.assert_allclose(constant, constant[0, 0], atol=1e-9)


def test_logistic_noise_is_the_quantile_of_the_uniform():
  u = np.array([2**-24, 0.1, 0.5, 0.9, 1 - 2**-24])
  found = distributions.logistic(tf.constant(u, tf.float32))
  expected = scipy.stats.logistic.ppf(u.astype(np.float32).astype(np.float64))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  # Half of the smallest step stands for 0.
  least = float(distributions.logistic(tf.constant(0.0)))
  assert least == pytest.approx(scipy.stats.logistic.ppf(2**-25), rel=1e-6)
