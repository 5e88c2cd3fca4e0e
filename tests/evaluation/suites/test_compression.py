"""The compression suite on pairs of views of which all is known."""

import types

import numpy as np
import pytest
import tensorflow as tf

from cvr.configs.config import Config
from cvr.data import sources
from cvr.evaluation.heads import fitted
from cvr.evaluation.subject import splits_of
from cvr.evaluation.suites import compression
from cvr.evaluation.suites import linear as linear_suite
from known_features import Encoder

pytestmark = pytest.mark.usefixtures('quick_heads')


D, N = 256, 40
# Spec constants at d = 256, kappa_e 1024, kappa_b 10: KL of equal means, and
# kappa_b A(kappa_e).
FLOOR, SLOPE = 184.684083, 8.83157127


def make_pairs(cosines, pixels, scale=3.0):
  """Projections of given cosines, of any length; representations like them."""
  random = np.random.default_rng(0)
  a = random.normal(size=[len(cosines), D])
  a /= np.linalg.norm(a, axis=1, keepdims=True)
  b = random.normal(size=a.shape)
  b -= np.sum(a * b, 1, keepdims=True) * a
  b /= np.linalg.norm(b, axis=1, keepdims=True)
  c = np.asarray(cosines)[:, None]
  z = scale * np.stack([a, c * a + np.sqrt(1 - c**2) * b], 1)
  return {'z': z, 'h': 7 * z, 'pixels': np.asarray(pixels, float)}


def number(name, metric, own, value, low=None, high=None, curve=None, **_):
  return types.SimpleNamespace(
    name=name, metric=metric, own=own, value=value, low=low, high=high,
    curve=curve,
  )  # fmt: skip


def named(numbers):
  return {n.name: n for n in numbers}


CEB = {'pretrain_loss': 'contrastive_ceb', 'kappa_e': 1024.0, 'kappa_b': 10.0}
COSINES = np.linspace(-0.5, 0.99, N)


def test_embeddings_that_are_no_numbers_are_told(monkeypatch):
  broken = np.ones([4, 2, 8], np.float32)
  broken[2, 0, 3] = np.nan
  monkeypatch.setattr(compression, '_embedded', lambda *_: {'z': broken})
  views = np.zeros([4, 8, 8, 3], np.float32)
  monkeypatch.setattr(compression.watch, 'two_views', lambda *_: (views, views))
  subject = types.SimpleNamespace(
    say=print, cfg=Config(), strategy=tf.distribute.get_strategy(),
    state=types.SimpleNamespace(method=None),
  )  # fmt: skip
  info = types.SimpleNamespace(name='a', split='b')
  with pytest.raises(
    sources.DataError, match='views of a, b: .*NaN or infinite'
  ):
    compression._pairs(subject, info)


def test_rate_and_its_floor():
  pairs = make_pairs(COSINES, np.ones(N))
  plain = named(compression._informations(number, Config(), pairs))
  expected = SLOPE * np.mean(1 - COSINES)
  found = plain['residual_information/projections']
  assert found.value == pytest.approx(expected, rel=1e-8)
  half = 1.96 * SLOPE * np.std(COSINES, ddof=1) / np.sqrt(N)
  assert found.high - found.low == pytest.approx(2 * half, rel=1e-8)
  assert 'residual_information/method' not in plain
  # The method's own is what the method says, with the floor beside it.
  own = named(
    compression._informations(
      number, Config(**CEB), pairs | {'rate': np.full(N, 190.0)}
    )
  )['residual_information/method']
  assert own.value == pytest.approx(190 - FLOOR, abs=1e-6)
  assert own.own['floor_taken_off'] == pytest.approx(FLOOR, rel=1e-8)
  # Of equal views nothing is left, whatever their length.
  same = named(
    compression._informations(number, Config(), make_pairs([1.0] * N, [1]))
  )
  assert same['residual_information/projections'].value == pytest.approx(0)


def infonce(z, kappa):
  """Two views of unit rows [n, 2, d], by loops."""
  total = 0
  for x, y in ((0, 1), (1, 0)):
    for i in range(len(z)):
      scores = [kappa * z[i, x] @ row[y] for row in z]
      total += scores[i] - np.log(np.mean(np.exp(scores)))
  return total / (2 * len(z))


def test_relevant_information_is_at_the_concentration_of_the_other_half():
  pairs = make_pairs(np.linspace(-0.4, 0.6, N), [1])
  found = named(compression._informations(number, Config(), pairs))
  found = found['relevant_information']
  z = pairs['z'] / 3
  best = max(compression._KAPPAS, key=lambda kappa: infonce(z[::2], kappa))
  assert compression._KAPPAS[0] < best < compression._KAPPAS[-1]
  assert found.own['concentration'] == best
  assert found.value == pytest.approx(infonce(z[1::2], best), rel=1e-9)
  # Views that are the same tell all that n / 2 pairs can.
  same = named(
    compression._informations(number, Config(), make_pairs([1.0] * N, [1]))
  )
  same = same['relevant_information']
  assert same.value == pytest.approx(np.log(N // 2), rel=1e-6)
  assert same.own['at_most'] == pytest.approx(np.log(N // 2))


@pytest.mark.parametrize('distribution', ['vmf', 'gaussian'])
def test_the_rate_gives_the_distance_of_views(distribution):
  pixels = np.linspace(1, 4, N)
  pairs = make_pairs(COSINES, pixels)
  cfg = Config(**CEB, ceb_distribution=distribution, sigma_e=0.5, sigma_b=2.0)
  apart = np.sqrt(2 * (1 - COSINES))
  if distribution == 'gaussian':
    # KL of N(mu, .25) and N(nu, 4), mu and nu as they are: of length 3.
    squares = (3 * apart) ** 2
    pairs['rate'] = D * ((1 / 16 - 1) / 2 + np.log(4)) + squares / 8
    apart = np.sqrt(squares)
  found = named(compression._lipschitz(number, cfg, pairs))
  ratios = apart / pixels
  assert found['lipschitz_max/rate'].value == pytest.approx(ratios.max())
  assert found['lipschitz_mean/rate'].value == pytest.approx(ratios.mean())
  unit = np.sqrt(2 * (1 - COSINES)) / pixels
  for of in ('representation', 'projection'):
    assert found[f'lipschitz_max/{of}'].value == pytest.approx(unit.max())
  assert sum(found['lipschitz_max/rate'].curve['y']) == N


@pytest.mark.parametrize(
  'settings',
  [
    {'pretrain_loss': 'byol_ceb'},  # e and b are different maps.
    {'pretrain_loss': 'contrastive'},
    CEB | {'ceb_distribution': 'gaussian', 'gaussian_scale': 'learned'},
  ],
)
def test_where_the_rate_is_no_distance(settings):
  pairs = make_pairs(COSINES, np.ones(N)) | {'rate': np.ones(N)}
  names = named(compression._lipschitz(number, Config(**settings), pairs))
  assert set(names) == {
    f'lipschitz_{which}/{of}'
    for which in ('max', 'mean')
    for of in ('representation', 'projection')
  }


def test_the_spread_of_rows_is_that_of_its_definition():
  pairs = make_pairs(COSINES, np.ones(N))
  made = named(compression._health(number, pairs))
  z1, z2 = np.moveaxis(pairs['z'], 1, 0) / 3
  # Wang and Isola (2020), one pair at a time.
  near = np.mean([np.sum((a - b) ** 2) for a, b in zip(z1, z2, strict=True)])
  assert made['alignment'].value == pytest.approx(near)
  spread = [
    np.log(np.mean([
      np.exp(-2 * np.sum((z[i] - z[j]) ** 2))
      for i in range(N) for j in range(N) if i != j
    ]))
    for z in (z1, z2)
  ]  # fmt: skip
  assert made['uniformity'].value == pytest.approx(np.mean(spread))
  # Roy and Vetterli (2007), of singular values.
  rows = pairs['h'].reshape(-1, D)
  values = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
  shares = values[values > 1e-12 * values.max()] / values.sum()
  rank = np.exp(-np.sum(shares * np.log(shares)))
  assert made['effective_rank'].value == pytest.approx(rank)
  assert made['effective_rank'].own['layer'] == 'representation'


def test_pairs_of_one_image_are_left_out_and_may_be_all():
  pixels = np.ones(N)
  pixels[0] = 0
  found = named(
    compression._lipschitz(number, Config(), make_pairs(COSINES, pixels))
  )
  row = found['lipschitz_max/projection']
  assert (row.own['pairs'], row.own['left_out']) == (N - 1, 1)
  none = list(
    compression._lipschitz(number, Config(), make_pairs(COSINES, [0.0] * N))
  )
  assert [type(n).__name__ for n in none] == ['Missing'] * 2


def test_rows_say_how_many_pairs_they_are_of(make_subject, monkeypatch):
  """Pairs of one image have no ratio, and InfoNCE is of half of the pairs."""
  pixels = np.ones(N)
  pixels[:2] = 0
  pairs = make_pairs(COSINES, pixels)
  monkeypatch.setattr(compression, '_pairs', lambda *_: pairs)
  monkeypatch.setattr(compression, '_bits', lambda *_: ())
  subject, _ = make_subject(Encoder(), train_mode='pretrain')
  found = named(compression.suite(subject))
  assert found['residual_information/projections'].images == N
  assert found['relevant_information'].images == N // 2
  for row in found.values():
    if row.name.startswith('lipschitz'):
      assert row.images == N - 2 == row.protocol['pairs']


def test_fewer_bits_are_fitted_on_the_images_of_lbfgs(
  make_subject, monkeypatch
):
  monkeypatch.setattr(fitted, '_MOST', 60)
  counts, real = [], compression.linear.logistic

  def logistic(features, labels, l2, classes):
    counts.append(len(labels))
    return real(features, labels, l2, classes)

  monkeypatch.setattr(compression.linear, 'logistic', logistic)
  subject, _ = make_subject(Encoder())
  found = [*compression._bits(subject, splits_of(subject))]
  names = [f'6_numbers_of_{bits}_bits' for bits in (32, 8, 4, 2, 1)]
  assert [n.name for n in found] == names
  # The head of 32 bits is that of linear/lbfgs.
  assert counts == [60] * 4
  assert all(n.value == 1.0 and n.images == 60 for n in found)
  assert all(n.protocol['train_images'] == 60 for n in found)
  assert found[0].curve['x'] == [6 * bits for bits in (32, 8, 4, 2, 1)]


def test_one_head_has_one_accuracy_on_a_card(make_subject):
  subject, lines = make_subject(Encoder(told=False))
  whole = next(n for n in linear_suite.suite(subject) if n.name == 'lbfgs')
  first = next(compression._bits(subject, splits_of(subject)))
  assert 0 < whole.value < 1
  np.testing.assert_array_equal(first.scores, whole.scores)
  fits = [line for line in lines if 'Logistic' in line]
  assert len(fits) == 1
  assert first.protocol['solver'] == whole.protocol['solver']


def test_heads_of_another_solver_are_not_taken_from_the_store(
  make_subject, monkeypatch
):
  subject, lines = make_subject(Encoder())
  for solver, fits in (('first', 1), ('first', 1), ('second', 2)):
    monkeypatch.setattr(compression.linear, 'SOLVER', solver)
    _, facts = fitted.lbfgs_head(subject, splits_of(subject))
    assert facts['solver'] == solver
    assert sum('Logistic' in line for line in lines) == fits


def test_a_finetuned_network_has_no_pairs(make_subject):
  subject, _ = make_subject(Encoder())
  (missing,) = compression.suite(subject)
  assert 'finetuned' in missing.why


def test_no_half_chooses_its_own_concentration():
  """Halves that want different ones: agreeing pairs, and hard ones."""
  cosines = np.stack([np.linspace(0.3, 0.6, N // 2)] * 2, 1)
  cosines[:, 1] -= 0.5
  pairs = make_pairs(cosines.ravel(), [1])
  z = pairs['z'] / 3
  kappas = [2.0**k for k in range(-1, 9)]
  first, second = (
    max(kappas, key=lambda kappa, half=half: infonce(half, kappa))
    for half in (z[::2], z[1::2])
  )
  assert first != second
  found = named(compression._informations(number, Config(), pairs))
  found = found['relevant_information']
  assert found.own['concentration'] == first
  assert found.value == pytest.approx(infonce(z[1::2], first), rel=1e-9)
