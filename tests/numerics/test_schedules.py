"""Schedules against the published numbers."""

import numpy as np
import pytest
import tensorflow as tf

from cvr.numerics import schedules


@pytest.mark.parametrize(
  'base, expected',
  [
    (0.99, [0.99, 0.991464, 0.995, 0.998536, 1.0]),
    (0.996, [0.996, 0.996586, 0.998, 0.999414, 1.0]),
  ],
)
def test_ema_ramp_at_the_quarters(base, expected):
  ramp = schedules.ema_ramp(base, 1000)
  actual = [float(ramp(step)) for step in (0, 250, 500, 750, 1000)]
  np.testing.assert_allclose(actual, expected, atol=6e-7)


def test_an_ema_coefficient_may_stay_where_it_is():
  stays = schedules.ema_ramp(0.999, 1000, constant=True)
  assert {float(stays(step)) for step in (0, 500, 1000)} == {float(stays(0))}
  assert float(stays(0)) == pytest.approx(0.999, rel=1e-7)


def test_warmup_cosine_of_the_published_run():
  # ImageNet, batch 4096, 300 epochs at 0.3: peak 4.8 after 3127 steps.
  rate = schedules.warmup_cosine(4.8, 3127, 93836)
  assert float(rate(0)) == 0.0
  assert float(rate(3127)) == pytest.approx(4.8)
  assert float(rate(1000)) == pytest.approx(4.8 * 1000 / 3127, rel=1e-6)
  middle = 3127 + (93836 - 3127) / 2
  assert float(rate(middle)) == pytest.approx(2.4, rel=1e-5)
  assert float(rate(93836)) == pytest.approx(0.0, abs=1e-6)
  third = 3127 + (93836 - 3127) / 3
  assert float(rate(third)) == pytest.approx(4.8 * 0.75, rel=1e-5)


def test_warmup_cosine_edges():
  assert float(schedules.warmup_cosine(2.0, 0, 10)(0)) == 2.0
  constant = schedules.warmup_cosine(2.0, 4, 10, constant=True)
  assert [float(constant(s)) for s in (0, 2, 4, 9)] == [0.0, 1.0, 2.0, 2.0]
  # A warm-up longer than the run only ever climbs.
  long = schedules.warmup_cosine(2.0, 100, 10)
  assert float(long(10)) == pytest.approx(0.2)


TABLE = [
  # DINO's weight decay, at the quarters of a run.
  (schedules.cosine(0.04, 0.4, 1000), {
    0: 0.04, 250: 0.0927207794, 500: 0.22, 750: 0.3472792206, 1000: 0.4,
    2000: 0.4,
  }),
  # DINO's teacher temperature, over 300 steps.
  (schedules.linear(0.04, 0.07, 300), {
    0: 0.04, 100: 0.05, 150: 0.055, 299: 0.0699, 300: 0.07, 9999: 0.07,
  }),
  (schedules.linear(0.04, 0.07, 0), {0: 0.07, 1: 0.07}),
  # SwAV's learning rate at batch 4096: up from 0.3, down to 0.0048.
  (schedules.warmup_cosine(4.8, 3127, 125115, start=0.3, end=0.0048), {
    0: 0.3, 1000: 1.7390789895, 3127: 4.8, 43789 + 2 / 3: 3.6012, 64121: 2.4024,
    125115: 0.0048,
  }),
  # At batch 256: without warm-up.
  (schedules.warmup_cosine(0.6, 0, 1000, end=0.0006), {
    0: 0.6, 500: 0.3003, 1000: 0.0006,
  }),
]  # fmt: skip


@pytest.mark.parametrize('row', range(len(TABLE)))
def test_schedules_of_the_other_families(row):
  schedule, table = TABLE[row]
  actual = [float(schedule(step)) for step in table]
  np.testing.assert_allclose(actual, [*table.values()], rtol=1e-6)


@pytest.mark.parametrize('row', range(len(TABLE)))
def test_schedules_take_the_steps_of_a_compiled_program(row):
  schedule, table = TABLE[row]
  call = tf.function(schedule, jit_compile=True)
  for step in map(int, table):
    actual = call(tf.constant(step, tf.int64))
    assert actual.dtype == tf.float32
    assert float(actual) == pytest.approx(float(schedule(step)), rel=1e-6)


def test_beta_schedules():
  def values(kind):
    schedule = schedules.beta_schedule(kind, 0.5, 10, 100)
    return [float(schedule(s)) for s in (0, 5, 10, 50, 100)]

  assert values('constant') == [0.5] * 5
  assert values('linear_warmup') == [0.0, 0.25, 0.5, 0.5, 0.5]
  expected = [
    0.5 * 0.5 * (1 - np.cos(np.pi * s / 100)) for s in (0, 5, 10, 50, 100)
  ]
  np.testing.assert_allclose(values('cosine'), expected, atol=1e-7)
  assert values('cosine')[0] == 0.0 and values('cosine')[-1] == 0.5
