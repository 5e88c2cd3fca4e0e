"""Schedules against the published numbers."""

import numpy as np
import pytest

import schedules


@pytest.mark.parametrize(
  'base, expected',
  [
    (0.99, [0.99, 0.991464, 0.995, 0.998536, 1.0]),
    (0.996, [0.996, 0.996586, 0.998, 0.999414, 1.0]),
  ],
)
def test_ema_ramp_at_the_quarters(base, expected):
  ramp = schedules.ema_ramp(base, 1000)
  found = [float(ramp(step)) for step in (0, 250, 500, 750, 1000)]
  np.testing.assert_allclose(found, expected, atol=6e-7)


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
