"""Losses: fixture numbers, dumb-loop oracles, closed forms, gradients."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

import objectives
import oracles
from cvr.numerics import clustering, distributions

KAPPA_E, KAPPA_B = 1024.0, 10.0


def float32(*arrays):
  return [tf.constant(a, tf.float32) for a in arrays]


def vmf_scores(kappa):
  return functools.partial(distributions.vmf_scores, kappa=kappa)


def nt_xent(h1, h2, temperature, double=True):
  scores = vmf_scores(1.0 / temperature)
  first = objectives.contrast(scores, h1, h2, h1 if double else None)
  second = objectives.contrast(scores, h2, h1, h2 if double else None)
  return [tf.reduce_mean(c.cross_entropy) for c in (first, second)]


def vmf_terms(kappa_e=KAPPA_E, kappa_b=KAPPA_B):
  return {
    'log_e': functools.partial(distributions.vmf_log_prob, kappa=kappa_e),
    'log_b': functools.partial(distributions.vmf_log_prob, kappa=kappa_b),
    'scores': vmf_scores(kappa_b),
  }


def c_simclr(h1, h2, z1, z2, beta, terms=None, double=True):
  terms = terms or vmf_terms()
  first = objectives.ceb_contrastive(
    z1, h1, h2, h2, h1 if double else None, beta=beta, **terms
  )
  second = objectives.ceb_contrastive(
    z2, h2, h1, h1, h2 if double else None, beta=beta, **terms
  )
  return tf.reduce_mean(first.loss + second.loss), first, second


# Computed with 60 digits from oracles.fixture.
NT_XENT = {
  (16, 0.1): (2.043334072186, 2.033377576793),
  (256, 0.1): (1.923174995689, 1.921007393994),
}
NT_XENT_SUM = {
  (16, 0.1): 4.076711648978,
  (256, 0.1): 3.844182389683,
  (16, 0.5): 3.907478689142,
  (256, 0.5): 3.881460135735,
}
C_SIMCLR = {
  (16, 1.0): 84.916194899288,
  (256, 1.0): 626.188625960551,
  (16, 0.0): 0.184891350868,
  (256, 0.0): -0.047637908428,
}
RATE = {16: 42.365651774210, 256: 313.118131934489}
RELEVANT = {
  16: (-0.097423923130, -0.087467427737),
  256: (0.022735153367, 0.024902755061),
}
DISTANCE = {16: 2.016515386060, 256: 1.991075151004}
DINO = {16: 10.966834463673, 256: 14.011660024109}
SWAV = {16: 1.625826660413, 256: 1.615691793125}


@pytest.mark.parametrize(
  'dim, total', [(16, 0.026386018236), (256, 5.644990640187)]
)
def test_the_fixture_is_the_one_of_the_numbers(dim, total):
  assert oracles.fixture(dim)[2].sum() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize('dim, temperature', list(NT_XENT_SUM))
def test_nt_xent_of_the_fixture(dim, temperature):
  h1, h2, _ = oracles.fixture(dim)
  expected = NT_XENT_SUM[dim, temperature]
  actual = nt_xent(*float32(h1, h2), temperature)
  assert float(actual[0] + actual[1]) == pytest.approx(expected, rel=1e-5)
  if (dim, temperature) in NT_XENT:
    np.testing.assert_allclose(actual, NT_XENT[dim, temperature], rtol=1e-5)
  assert sum(oracles.nt_xent(h1, h2, temperature)) == pytest.approx(
    expected, abs=1e-9
  )


@pytest.mark.parametrize('dim, beta', list(C_SIMCLR))
def test_c_simclr_of_the_fixture(dim, beta):
  """In float32 to 1e-5 of the NT-Xent value, though L itself is 626."""
  h1, h2 = float32(*oracles.fixture(dim)[:2])
  loss, first, second = c_simclr(h1, h2, h1, h2, beta)
  tolerance = 1e-5 * NT_XENT_SUM[dim, 0.1]
  assert float(loss) == pytest.approx(C_SIMCLR[dim, beta], abs=tolerance)
  rates = [tf.reduce_mean(d.rate) for d in (first, second)]
  np.testing.assert_allclose(rates, RATE[dim], atol=tolerance)
  relevant = [tf.reduce_mean(d.relevant) for d in (first, second)]
  np.testing.assert_allclose(relevant, RELEVANT[dim], atol=tolerance)


def test_byol_distance_of_the_fixture():
  for dim, expected in DISTANCE.items():
    h1, h2 = float32(*oracles.fixture(dim)[:2])
    # Lengths do not matter: the distance normalises.
    rows = objectives.normalized_distance(3.0 * h1, 0.5 * h2)
    assert float(tf.reduce_mean(rows)) == pytest.approx(expected, rel=1e-6)


def test_collinear_embeddings_give_log_of_the_candidates():
  same = tf.math.l2_normalize(tf.ones([5, 8]), -1)
  for actual in nt_xent(same, same, 0.1):
    assert float(actual) == pytest.approx(math.log(9), rel=1e-6)
  for actual in nt_xent(same, same, 0.1, double=False):
    assert float(actual) == pytest.approx(math.log(5), rel=1e-6)


@pytest.mark.parametrize('double', [True, False])
@pytest.mark.parametrize('beta', [0.0, 0.3])
@pytest.mark.parametrize('family', ['vmf', 'gaussian'])
def test_ceb_matches_the_transcription(family, beta, double):
  rng = np.random.default_rng(3)
  h1, h2, z1, z2 = (oracles.unit_rows(rng, 6, 5) for _ in range(4))
  if family == 'vmf':
    terms = vmf_terms(50.0, 7.0)
    log_e = functools.partial(oracles.log_vmf, kappa=50.0)
    log_b = functools.partial(oracles.log_vmf, kappa=7.0)
  else:
    terms = {
      'log_e': functools.partial(distributions.gaussian_log_prob, sigma=0.3),
      'log_b': functools.partial(distributions.gaussian_log_prob, sigma=0.8),
      'scores': functools.partial(distributions.gaussian_scores, sigma=0.8),
    }
    log_e = functools.partial(oracles.log_gaussian, sigma=0.3)
    log_b = functools.partial(oracles.log_gaussian, sigma=0.8)
  expected, parts = oracles.c_simclr(h1, h2, z1, z2, log_e, log_b, beta, double)
  loss, first, second = c_simclr(*float32(h1, h2, z1, z2), beta, terms, double)
  assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-5)
  actual = {
    'rate1': first.rate,
    'rate2': second.rate,
    'relevant1': first.relevant,
    'relevant2': second.relevant,
  }
  for name, value in actual.items():
    assert float(tf.reduce_mean(value)) == pytest.approx(
      parts[name], rel=1e-5, abs=1e-5
    )


def test_beta_zero_and_the_mean_is_nt_xent():
  """C-SimCLR's limit: InfoNCE at temperature 1 / kappa_b, less a constant."""
  rng = np.random.default_rng(1)
  h1, h2 = float32(oracles.unit_rows(rng, 8, 16), oracles.unit_rows(rng, 8, 16))
  loss, _, _ = c_simclr(h1, h2, h1, h2, 0.0)
  expected = sum(map(float, nt_xent(h1, h2, 1 / KAPPA_B)))
  assert float(loss) == pytest.approx(expected - 2 * math.log(15), abs=1e-5)


def _gradients(function, *arrays):
  tensors = float32(*arrays)
  with tf.GradientTape() as tape:
    tape.watch(tensors)
    loss = function(*tensors)
  return [g.numpy() for g in tape.gradient(loss, tensors)]


def check_gradients(function, oracle, arrays):
  """In all arrays: found in float32, expected in float64."""
  for k, gradient in enumerate(_gradients(function, *arrays)):

    def at(x, k=k):
      return oracle(*[x if j == k else a for j, a in enumerate(arrays)])

    expected = oracles.finite_difference(at, arrays[k])
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(gradient, expected, atol=2e-5, rtol=2e-5)


def test_gradients_match_finite_differences_of_the_transcription():
  """No stop-gradient anywhere: h1, h2, z1 and z2 all get theirs."""
  rng = np.random.default_rng(2)
  arrays = [oracles.unit_rows(rng, 3, 4) for _ in range(4)]

  def log_prob(kappa, normalizer):
    # A polynomial extension off the sphere, the one the code uses.
    return lambda z, mu: normalizer - kappa * np.sum((z - mu) ** 2) / 2

  def oracle(*a):
    log_e, log_b = log_prob(20.0, 1.0), log_prob(4.0, 2.0)
    loss = 0.0
    for z, mu, other in ((a[2], a[0], a[1]), (a[3], a[1], a[0])):
      rate = np.mean(
        [log_e(z[i], mu[i]) - log_b(z[i], other[i]) for i in range(3)]
      )
      entropies = oracles.cross_entropies(
        lambda x, y: 4.0 * x @ y, z, other, mu
      )
      loss += 0.7 * rate + entropies.mean()
    return loss

  check_gradients(
    lambda *a: c_simclr(*a, 0.7, vmf_terms(20.0, 4.0))[0], oracle, arrays
  )


def test_byol_gradient_is_tangential_and_right():
  rng = np.random.default_rng(4)
  p, y = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))

  def loss(p, y):
    return tf.reduce_mean(objectives.normalized_distance(p, y))

  actual = _gradients(loss, p, y)[0]
  zero = np.ones_like(p)
  expected = oracles.finite_difference(
    lambda x: oracles.byol(x, zero, zero, y, 1.0), p
  )
  np.testing.assert_allclose(actual, expected, atol=1e-6)
  np.testing.assert_allclose((actual * p).sum(1), 0, atol=1e-6)


def test_accuracy_and_entropy_of_the_contrast():
  scores = vmf_scores(1.0)
  z = tf.eye(4) * 50.0
  actual = objectives.contrast(scores, z, tf.eye(4))
  assert float(actual.accuracy) == 1.0
  assert float(actual.entropy) == pytest.approx(0.0, abs=1e-5)
  flat = objectives.contrast(scores, tf.zeros([4, 4]), tf.eye(4), tf.eye(4))
  assert float(flat.entropy) == pytest.approx(math.log(7), rel=1e-6)
  wrong = objectives.contrast(scores, tf.roll(z, 1, 0), tf.eye(4))
  assert float(wrong.accuracy) == 0.0


def test_local_rows_of_global_keys():
  """Rows 4..7 of eight keys: what the second of two replicas computes."""
  rng = np.random.default_rng(5)
  h1, h2 = float32(oracles.unit_rows(rng, 8, 6), oracles.unit_rows(rng, 8, 6))
  scores = vmf_scores(10.0)
  whole = objectives.contrast(scores, h1, h2, h1).cross_entropy
  part = objectives.contrast(scores, h1[4:], h2, h1, offset=4).cross_entropy
  np.testing.assert_allclose(part, whole[4:], rtol=1e-6)


def queue_loss(z, positive, queue):
  actual = objectives.queue_contrast(vmf_scores(5.0), z, positive, queue)
  return tf.reduce_mean(actual.cross_entropy)


def queue_oracle(*arrays):
  return oracles.queue_cross_entropies(lambda a, b: 5.0 * a @ b, *arrays).mean()


def test_queue_contrast_matches_the_transcription():
  rng = np.random.default_rng(6)
  z, positive, queue = (oracles.unit_rows(rng, n, 5) for n in (3, 3, 7))
  actual = queue_loss(*float32(z, positive, queue))
  expected = queue_oracle(z, positive, queue)
  assert float(actual) == pytest.approx(expected, rel=1e-5)
  check_gradients(queue_loss, queue_oracle, [z, positive, queue])


def test_a_queue_of_the_other_keys_is_one_way_info_nce():
  rng = np.random.default_rng(7)
  z, keys = float32(oracles.unit_rows(rng, 6, 4), oracles.unit_rows(rng, 6, 4))
  scores = vmf_scores(10.0)
  whole = objectives.contrast(scores, z, keys)
  actual = [
    objectives.queue_contrast(
      scores,
      z[i : i + 1],
      keys[i : i + 1],
      tf.concat([keys[:i], keys[i + 1 :]], 0),
    )
    for i in range(6)
  ]
  entropies = [float(one.cross_entropy[0]) for one in actual]
  np.testing.assert_allclose(entropies, whole.cross_entropy, rtol=1e-5)
  for name in ('accuracy', 'entropy'):
    mean = np.mean([float(getattr(one, name)) for one in actual])
    assert mean == pytest.approx(float(getattr(whole, name)), rel=1e-5)
  assert {one.candidates for one in actual} == {whole.candidates}


def simsiam(p1, p2, z1, z2):
  return tf.reduce_mean(objectives.simsiam((p1, p2), (z1, z2)))


def test_simsiam_is_a_mean_of_negative_cosines():
  rng = np.random.default_rng(8)
  p1, p2, z1, z2 = (rng.normal(size=(4, 5)) for _ in range(4))
  loss = float(simsiam(*float32(p1, p2, z1, z2)))
  assert loss == pytest.approx(oracles.simsiam(p1, p2, z1, z2), abs=1e-6)
  byol = oracles.byol(p1, p2, z1, z2, 1.0)
  assert loss == pytest.approx(byol / 4 - 1, abs=1e-6)
  best = objectives.simsiam(float32(p1, p2), float32(3 * p2, 0.1 * p1))
  np.testing.assert_allclose(best, -1, atol=1e-6)


def test_simsiam_gradients_stop_at_the_projections():
  rng = np.random.default_rng(9)
  arrays = [rng.normal(size=(3, 4)) for _ in range(4)]
  projections = float32(*arrays[2:])
  check_gradients(
    lambda p1, p2: simsiam(p1, p2, *projections),
    lambda p1, p2: oracles.simsiam(p1, p2, *arrays[2:]),
    arrays[:2],
  )
  with tf.GradientTape() as tape:
    tape.watch(projections)
    loss = simsiam(*float32(*arrays[:2]), *projections)
  assert tape.gradient(loss, projections) == [None, None]


@pytest.mark.parametrize('dim', list(DINO))
def test_dino_of_the_fixture(dim):
  """The raw rows 4-7 teach 0-3, without a centre: one pair of views."""
  h = float32(oracles.fixture(dim)[2])[0]
  # Of the views that the student has, the teacher's own does not count.
  actual = objectives.dino_cross_entropy(
    [tf.zeros([4, dim]), h[:4]], [h[4:]], tf.zeros([dim]), 0.1, 0.04
  )
  assert float(tf.reduce_mean(actual)) == pytest.approx(DINO[dim], rel=1e-5)


@pytest.mark.parametrize('dim', list(SWAV))
def test_swav_of_the_fixture(dim):
  """The codes of h1 (columns first, rows last) as h2 predicts them."""
  h1, h2, _ = oracles.fixture(dim)
  prototypes = oracles.fixture_prototypes(dim)
  s1, s2 = float32(h1 @ prototypes.T, h2 @ prototypes.T)
  codes = clustering.sinkhorn(s1, 0.05, 3)
  actual = objectives.swav_cross_entropy([codes], [s1, s2], 0.1)
  assert float(tf.reduce_mean(actual)) == pytest.approx(SWAV[dim], rel=1e-5)
  expected = oracles.cross_entropy_across_views(
    [oracles.sinkhorn(h1 @ prototypes.T, 0.05, 3)],
    [h1 @ prototypes.T / 0.1, h2 @ prototypes.T / 0.1],
  )
  assert expected == pytest.approx(SWAV[dim], abs=1e-11)


@pytest.mark.parametrize('crops', [2, 5])
def test_dino_matches_the_transcription(crops):
  rng = np.random.default_rng(crops)
  student = [rng.normal(size=(3, 4)) for _ in range(crops)]
  teacher = [rng.normal(size=(3, 4)) for _ in range(2)]
  centre, temperatures = rng.normal(size=4), (0.7, 0.4)
  constants = float32(*teacher, centre)

  def loss(*student):
    *teacher, centre = constants
    return tf.reduce_mean(
      objectives.dino_cross_entropy(student, teacher, centre, *temperatures)
    )

  def oracle(*student):
    return oracles.dino(student, teacher, centre, *temperatures)

  actual = float(loss(*float32(*student)))
  assert actual == pytest.approx(oracle(*student), rel=1e-5)
  check_gradients(loss, oracle, student)
  with tf.GradientTape() as tape:
    tape.watch(constants)
    value = loss(*float32(*student))
  assert tape.gradient(value, constants) == [None] * 3


def swav_loss(codes):
  return lambda *scores: tf.reduce_mean(
    objectives.swav_cross_entropy(codes, scores, 0.3)
  )


def test_swav_matches_the_transcription():
  rng = np.random.default_rng(10)
  scores = [rng.normal(size=(3, 4)) for _ in range(4)]
  codes = [rng.dirichlet(np.ones(4), size=3) for _ in range(2)]
  loss = swav_loss(float32(*codes))

  def oracle(*scores):
    return oracles.cross_entropy_across_views(codes, [s / 0.3 for s in scores])

  actual = float(loss(*float32(*scores)))
  assert actual == pytest.approx(oracle(*scores), rel=1e-5)
  check_gradients(loss, oracle, scores)


def test_codes_get_no_gradient():
  """Not even where they are a function of the scores, as SwAV's are."""
  rng = np.random.default_rng(11)
  scores = [rng.normal(size=(3, 4)) for _ in range(2)]
  codes = [clustering.sinkhorn(s, 0.5, 3) for s in float32(*scores)]
  actual = _gradients(
    lambda *s: swav_loss([clustering.sinkhorn(x, 0.5, 3) for x in s])(*s),
    *scores,
  )
  expected = _gradients(swav_loss(codes), *scores)
  for f, e in zip(actual, expected, strict=True):
    np.testing.assert_allclose(f, e, atol=1e-7)


def test_hard_codes_make_a_classification():
  rng = np.random.default_rng(12)
  labels = tf.constant([2, 0, 3])
  scores = float32(*(rng.normal(size=(3, 4)) for _ in range(2)))
  codes = tf.one_hot(labels, 4)
  actual = objectives.swav_cross_entropy([codes], scores, 0.1)
  expected, _ = objectives.classification(scores[1] / 0.1, labels)
  assert float(tf.reduce_mean(actual)) == pytest.approx(float(expected))


def test_where_all_is_equal_dino_is_the_log_of_the_outputs():
  same = [tf.ones([2, 7])] * 2
  actual = objectives.dino_cross_entropy(same, same, tf.ones([7]), 0.1, 0.04)
  np.testing.assert_allclose(actual, math.log(7), rtol=1e-6)


VIEWS = {
  'queue_contrast': lambda a, b, c: queue_loss(a, b, c),
  'simsiam': lambda a, b, c: simsiam(a, b, c, a),
  'dino': lambda a, b, c: tf.reduce_mean(
    objectives.dino_cross_entropy([a, b, c], [c, a], b[0], 0.1, 0.04)
  ),
  'swav': lambda a, b, c: swav_loss([tf.nn.softmax(c), tf.nn.softmax(a)])(
    a, b, c
  ),
}


@pytest.mark.parametrize('name', list(VIEWS))
def test_compiled_losses_equal_the_eager_ones(name):
  rng = np.random.default_rng(13)
  views = float32(*(rng.normal(size=(4, 6)) for _ in range(3)))

  def run(*views):
    with tf.GradientTape() as tape:
      tape.watch(views)
      loss = VIEWS[name](*views)
    return loss, tape.gradient(loss, views[0])

  eager, compiled = run(*views), tf.function(run, jit_compile=True)(*views)
  for e, c in zip(eager, compiled, strict=True):
    np.testing.assert_allclose(c, e, rtol=1e-5, atol=1e-6)


def test_classification_against_the_definition():
  logits = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
  labels = tf.constant([0, 2])
  loss, accuracy = objectives.classification(float32(logits)[0], labels)
  expected = -np.mean(
    [
      oracles.log_softmax_at(logits[0], 0),
      oracles.log_softmax_at(logits[1], 2),
    ]
  )
  assert float(loss) == pytest.approx(expected, rel=1e-6)
  assert float(accuracy) == 0.5
  binary, _ = objectives.classification(float32(logits)[0], labels, True)
  signs = np.array([[1, -1, -1], [-1, -1, 1]])
  expected = np.mean(np.log1p(np.exp(-signs * logits)).sum(1))
  assert float(binary) == pytest.approx(expected, rel=1e-6)


def test_l2_loss_is_half_the_squares():
  actual = objectives.l2_loss([tf.constant([1.0, 2.0]), tf.constant([[3.0]])])
  assert float(actual) == 7.0
