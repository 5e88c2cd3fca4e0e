"""Numbers against closed forms and loops; words for each failure."""

import math
import re

import numpy as np
import pytest

import oracles
from cvr.configs import checks, config
from cvr.configs.methods import KINDS
from cvr.numerics import distributions
from cvr.training import health
from small_data import METHOD_SETTINGS

RNG = np.random.default_rng(0)


def names(prefix, *more):
  return {f'{prefix}/{name}' for name in more}


INFORMATION = names(
  'information', 'entropy', 'reconstruction', 'er_bound', 'infonce_bound',
  'residual',
)  # fmt: skip
HEALTH = names(
  'health', 'feature_std', 'effective_rank', 'alignment', 'uniformity'
)


def test_orthonormal_rows():
  z = np.eye(16)
  other = np.roll(z, 1, axis=0)
  found = health.health_of(z, z, z)
  # One place of a row is 1: its variance is 1/16 - 1/16^2, of 1/16 at most.
  assert found['health/feature_std'] == pytest.approx(math.sqrt(1 - 1 / 16))
  # All directions but the one of the mean.
  assert found['health/effective_rank'] == pytest.approx(15)
  assert found['health/alignment'] == 0
  assert found['health/uniformity'] == pytest.approx(-4)  # |z_i - z_j|^2 = 2
  assert health.alignment(z, other) == pytest.approx(2)


@pytest.mark.parametrize('rounding, dim', [(0.0, 16), (3e-8, 16), (0.0, 4096)])
def test_collapsed_rows(rounding, dim):
  point = oracles.unit_rows(RNG, 1, dim)
  z = np.repeat(point, 32, 0) + rounding * RNG.normal(size=(32, dim))
  found = health.measure(z.reshape(16, 2, dim), z.reshape(16, 2, dim))
  assert found.keys() == INFORMATION | HEALTH
  assert found['health/feature_std'] == pytest.approx(0, abs=1e-6)
  assert found['health/effective_rank'] == 0
  assert found['health/alignment'] == pytest.approx(0, abs=1e-6)
  assert found['health/uniformity'] == pytest.approx(0, abs=1e-6)
  peak = oracles.log_vmf(point[0], point[0], 10.0)
  assert found['information/entropy'] == pytest.approx(-peak, abs=1e-6)
  assert found['information/reconstruction'] == pytest.approx(-peak, abs=1e-6)
  assert found['information/er_bound'] == pytest.approx(0, abs=1e-6)
  assert found['information/infonce_bound'] == pytest.approx(0, abs=1e-6)


def test_rows_all_over_the_sphere():
  dim = 64
  z1, z2 = (oracles.unit_rows(RNG, 1500, dim) for _ in range(2))
  found = health.measure(np.stack([z1, z2], 1), np.stack([z1, z2], 1))
  assert found['health/feature_std'] == pytest.approx(1, abs=0.01)
  # E exp(-2 (2 - 2 u)) for u of two independent points.
  area = distributions.log_sphere_area(dim)
  uniform = -4 - distributions.vmf_log_normalizer(dim, 4.0) - area
  assert found['health/uniformity'] == pytest.approx(uniform, abs=0.003)
  assert found['health/alignment'] == pytest.approx(2, abs=0.02)
  # Views that have nothing to do with each other: no more than log n of both.
  assert found['information/entropy'] == pytest.approx(area, abs=0.1)
  assert found['information/infonce_bound'] < 0


@pytest.mark.parametrize('rows, dim', [(40, 12), (12, 40)])
@pytest.mark.parametrize('rank', [1, 3, 7])
def test_a_covariance_of_rank_r(rows, dim, rank):
  left = RNG.normal(size=(rows, rank))
  left, _ = np.linalg.qr(left - left.mean(0))
  right, _ = np.linalg.qr(RNG.normal(size=(dim, rank)))
  h = left @ right.T + RNG.normal(size=dim)  # An offset is no direction.
  assert health.effective_rank(h) == pytest.approx(rank)
  assert health.effective_rank(1e-3 * h) == pytest.approx(rank)
  unequal = (left * np.arange(1, rank + 1)) @ right.T
  expected = oracles.effective_rank(unequal)
  assert 1 <= expected < rank or rank == 1
  assert health.effective_rank(unequal) == pytest.approx(expected)


def test_loops_agree():
  z1, z2 = (oracles.unit_rows(RNG, 9, 5) for _ in range(2))
  assert health.uniformity(z1) == pytest.approx(oracles.uniformity(z1))
  assert health.alignment(z1, z2) == pytest.approx(
    np.mean([np.linalg.norm(a - b) ** 2 for a, b in zip(z1, z2, strict=True)])
  )
  h = RNG.normal(size=(9, 5)) * [1, 2, 3, 4, 5]
  assert health.effective_rank(h) == pytest.approx(oracles.effective_rank(h))


def test_the_residual_is_of_von_mises_fisher_encoders_or_the_methods_own():
  z1 = np.eye(16)[:4]
  z2 = 0.6 * z1 + 0.8 * np.eye(16)[8:12]
  rate = distributions.vmf_kl(16, 1024.0, 10.0, 0.6)
  found = health.information_of(z1, z2)
  assert found['information/residual'] == pytest.approx(rate)
  own = health.information_of(z1, z2, rate=np.arange(4.0))
  assert own['information/residual'] == 1.5
  rest = INFORMATION - {'information/residual'}
  assert {n: own[n] for n in rest} == {n: found[n] for n in rest}


def test_the_entropy_of_assignments_is_a_mean_over_heads():
  z = np.eye(8)
  means = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
  found = health.information_of(z, z, probabilities=means)
  name = 'information/assignment_entropy'
  assert found[name] == pytest.approx(math.log(2) / 2)
  assert found.keys() == INFORMATION | {name}


def test_lengths_do_not_matter_and_zero_stays_zero():
  h = RNG.normal(size=(6, 2, 7))
  lengths = RNG.uniform(0.1, 10, size=(6, 2, 1))
  assert health.measure(h, lengths * h) == pytest.approx(health.measure(h, h))
  found = health.measure(0 * h, 0 * h)
  assert found['health/feature_std'] == 0
  assert found['health/effective_rank'] == 0


# A run in order, the quickstart at its end and BYOL: nothing is said of it.
SETTINGS = checks.in_use(config.Config(pretrain_loss='byol', precision='bf16'))
CHANCE = {'contrast_loss': 2 * math.log(511), 'teacher_entropy': math.log(4096)}
FINE = {
  'total_loss': 24.6,
  'contrast_loss': 8.76,
  'health/feature_std': 0.744,
  'health/effective_rank': 17.3,
  'information/assignment_entropy': 5.0,
  'teacher_entropy': 6.0,
}
TROUBLES = {
  'collapse': {'health/feature_std': 0.032},
  'flat': {'health/effective_rank': 1.5},
  'stuck': {'contrast_loss': 12.40},
  'teacher': {'teacher_entropy': 8.31},
  'prototypes': {'information/assignment_entropy': 0.3},
  'nonfinite': {'health/nonfinite_rows': 0.25},
}


def test_assignments_of_a_steps_own_rows_may_collapse_too():
  (line,) = said({'prototype_entropy': 0.0}).values()
  assert 'one prototype (prototype_entropy 0.000 nats)' in line
  assert said({'prototype_entropy': 1.0}) == {}


def said(numbers, **settings):
  return health.advice(FINE | numbers, SETTINGS | settings, CHANCE)


def test_nothing_is_said_of_a_run_in_order():
  assert said({}) == {}
  assert health.advice({'total_loss': 3.0}, SETTINGS, CHANCE) == {}


@pytest.mark.parametrize('kind', TROUBLES)
def test_each_trouble_is_named_with_its_number_and_what_to_turn(kind):
  (name, value), *_ = TROUBLES[kind].items()
  ((found, line),) = said(TROUBLES[kind]).items()
  assert found == kind
  assert 'Change one at a time: --' in line
  assert f'{value:.0%}' in line if kind == 'nonfinite' else name in line
  assert '--learning_rate lower' in line and '--warmup_epochs longer' in line
  assert '--precision=fp32' in line
  assert '\n' not in line
  assert '--precision' not in said(TROUBLES[kind], precision='fp32')[kind]


def advice(kind, **changes):
  """The flags that a run with these settings is told to turn."""
  settings = checks.in_use(config.Config(**changes))
  (line,) = health.advice(FINE | TROUBLES[kind], settings, CHANCE).values()
  return set(re.findall(r'--(\w+)', line))


def test_advice_is_for_what_the_run_has():
  assert 'ema_alpha' not in advice('collapse')
  assert 'ema_alpha' in advice('collapse', pretrain_loss='byol')
  assert 'ceb_beta' in advice('collapse', pretrain_loss='contrastive_ceb')
  assert 'train_batch_size' in advice('collapse')
  simclr = advice('stuck')
  assert 'temperature' in simclr and 'ceb_beta' not in simclr
  ceb = advice('stuck', pretrain_loss='contrastive_ceb')
  assert 'ceb_beta' in ceb and 'temperature' not in ceb
  assert 'clip_norm' in advice('nonfinite')
  # A value that the run has is no advice.
  assert (
    '--centring=true'
    in said(TROUBLES['prototypes'], centring=False)['prototypes']
  )
  for settings in ({}, {'centring': True}):
    line = said(TROUBLES['prototypes'], **settings)['prototypes']
    assert 'centring' not in line
  # DINO centres unless told not to, ER-DINO the other way round.
  assert 'centring' not in advice('prototypes', pretrain_loss='dino')
  assert 'centring' in advice('prototypes', pretrain_loss='er_dino')
  assert 'centre_momentum' in advice('teacher', pretrain_loss='dino')
  assert 'centre_momentum' not in advice('teacher', pretrain_loss='er_dino')


@pytest.mark.parametrize('kind', TROUBLES)
@pytest.mark.parametrize('method', KINDS)
def test_every_flag_that_is_named_exists(kind, method):
  settings = METHOD_SETTINGS.get(method, {})
  found = advice(kind, pretrain_loss=method, **settings)
  assert found <= config.FIELDS.keys() and len(found) >= 3
  (line,) = health.advice(FINE | TROUBLES[kind], {}, CHANCE).values()
  assert '--' not in line


def told(warmup=0):
  """Summaries at steps 10, 20, ... -> the lines that each of them gets."""
  memory = health.Reporter(SETTINGS, CHANCE, warmup)
  steps = iter(range(10, 1000, 10))
  return memory, lambda numbers: memory.lines(next(steps), FINE | numbers)


def test_a_trouble_is_told_once_and_again_when_it_came_back():
  memory, tell = told()
  bad = TROUBLES['collapse']
  assert tell(bad) == [] and not memory.collapsed()
  (line,) = tell(bad)
  assert line.startswith('Health at step 20: collapse') and memory.collapsed()
  assert tell(bad) == [] and memory.collapsed()
  # Another one has its own turn.
  assert tell(bad | TROUBLES['stuck']) == []
  assert len(tell(bad | TROUBLES['stuck'])) == 1
  assert tell({}) == [] and not memory.collapsed()
  assert tell(bad) == [] and len(tell(bad)) == 1


def test_one_summary_alone_is_a_run_that_passes_through():
  memory, tell = told()
  for numbers in [TROUBLES['stuck'], {}] * 3:
    assert tell(numbers) == []


@pytest.mark.parametrize('kind', TROUBLES)
def test_nothing_need_be_learned_while_a_run_warms_up(kind):
  """But a collapse is one at any time."""
  memory, tell = told(warmup=40)
  later = kind in ('stuck', 'teacher', 'flat')
  lines = [tell(TROUBLES[kind]) for _ in range(6)]
  assert [len(x) for x in lines] == [0, 0, 0, 0, 0, 1] if later else [0, 1]


@pytest.mark.parametrize(
  'spread, rank', [(0.273, 2.98), (0.283, 2.21), (0.101, 2.06), (0.104, 1.97)]
)
def test_an_untrained_network_has_not_collapsed(spread, rank):
  """ResNet-50 on photographs; ResNet-18 on gray digits, not augmented."""
  memory, tell = told(warmup=40)
  numbers = {'health/feature_std': spread, 'health/effective_rank': rank}
  assert [tell(numbers) for _ in range(4)] == [[]] * 4
  assert not memory.collapsed()


@pytest.mark.parametrize('kind', TROUBLES)
def test_what_ends_a_run(kind):
  memory, tell = told()
  tell(TROUBLES[kind])
  tell(TROUBLES[kind])
  assert memory.collapsed() == (kind in ('collapse', 'prototypes'))
