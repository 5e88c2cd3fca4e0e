"""Random numbers: the same compiled and not, and distributed as they say."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from cvr.numerics import randomness


@pytest.mark.parametrize('shape', [[7], [8, 9], [33, 257]])
@pytest.mark.parametrize('draw', [randomness.uniform, randomness.normal])
def test_compiled_is_the_same_with_a_seed_known_at_run_time(draw, shape):
  def of_step(step):
    seed = randomness.fold_in(tf.stack([3, step]), step)
    return tf.stack([draw(shape, s) for s in randomness.split_seed(seed, 2)])

  step = tf.constant(5)
  plain = tf.function(of_step)(step)
  compiled = tf.function(of_step, jit_compile=True)(step)
  np.testing.assert_allclose(plain, compiled, atol=4e-6)
  assert not np.allclose(plain[0], plain[1])
  assert not np.allclose(plain, tf.function(of_step)(step + 1))


def test_distributions():
  u = randomness.uniform([50_000], [1, 2], -1.0, 3.0).numpy()
  assert stats.kstest(u, 'uniform', args=(-1, 4)).pvalue > 1e-3
  z = randomness.normal([50_000], [1, 2]).numpy()
  assert stats.kstest(z, 'norm').pvalue > 1e-3
  assert np.isfinite(randomness.normal([2**20], [0, 0])).all()


def test_the_two_normals_of_a_pair_are_independent():
  first, second = randomness.normal([2, 50_000], [1, 2]).numpy()
  for x, y in ((first, second), (first**2, second**2)):
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(50_000)
  assert randomness.normal([3, 5], [1, 2]).shape == [3, 5]  # an odd number


@pytest.mark.parametrize('compiled', [False, True])
def test_a_longer_draw_begins_with_the_shorter(compiled):
  def draws(rows):
    draw = tf.function(
      lambda seed: randomness.uniform([rows, 18], seed), jit_compile=compiled
    )
    return [draw(tf.constant(seed)) for seed in ([0, 0], [5, 2**30 + 3])]

  longest = draws(18)
  for rows in (1, 2, 8):
    for short, long in zip(draws(rows), longest, strict=True):
      np.testing.assert_array_equal(short, long[:rows])
