"""VICReg: its terms against loops, closed forms, and the whole objective.

test_methods.py has its gradients, its falling loss, two replicas and XLA.
"""

import numpy as np
import pytest
import tensorflow as tf

import objectives
from tiny_methods import make, make_batch, output_of, tiny


def loops(z1, z2):
  """The paper's equations 1 to 6 and algorithm 1 in float64, in loops."""
  n, d = z1.shape

  def covariance(z, j, k):
    mean_j, mean_k = sum(z[:, j]) / n, sum(z[:, k]) / n
    pairs = [(z[i, j] - mean_j) * (z[i, k] - mean_k) for i in range(n)]
    return sum(pairs) / (n - 1)

  def v(z):
    deviations = [np.sqrt(covariance(z, j, j) + 1e-4) for j in range(d)]
    return sum(max(0.0, 1.0 - s) for s in deviations) / d

  def c(z):
    pairs = [(j, k) for j in range(d) for k in range(d) if j != k]
    return sum(covariance(z, j, k) ** 2 for j, k in pairs) / d

  squares = [(z1[i, j] - z2[i, j]) ** 2 for i in range(n) for j in range(d)]
  s = sum(squares) / (n * d)
  return s, v(z1) + v(z2), c(z1) + c(z2)


def terms(z1, z2):
  z1, z2 = tf.constant(z1, tf.float32), tf.constant(z2, tf.float32)
  return [
    float(objectives.invariance(z1, z2)),
    float(objectives.variance_hinge(z1) + objectives.variance_hinge(z2)),
    float(
      objectives.covariance_penalty(z1) + objectives.covariance_penalty(z2)
    ),
  ]


@pytest.mark.parametrize('scale', [0.1, 0.7, 3.0])  # Below and above the hinge.
@pytest.mark.parametrize('n, d', [(2, 3), (7, 5), (4, 9)])
def test_terms_are_those_of_the_paper(n, d, scale):
  rng = np.random.default_rng(n + d)
  z1 = scale * rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2.0
  z2 = z1 + 0.3 * rng.normal(size=(n, d))
  np.testing.assert_allclose(terms(z1, z2), loops(z1, z2), rtol=2e-4, atol=1e-6)


def test_one_point_pays_the_whole_hinge_and_nothing_else():
  z = np.full([6, 4], 0.3)
  assert terms(z, z) == pytest.approx([0.0, 2 * (1 - 0.01), 0.0], abs=1e-6)


def test_orthogonal_dimensions_of_deviation_one_pay_nothing():
  # The columns of a Hadamard matrix but the constant one, 4 rows.
  columns = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
  z = columns * np.sqrt(3 / 4) * 1.01
  assert terms(z, z) == pytest.approx([0, 0, 0], abs=1e-6)
  # Twice the same dimension: two covariances of 1.01^2, over d = 2.
  z = z[:, [0, 0]]
  assert terms(z, z)[2] == pytest.approx(2 * 1.01**4, rel=1e-5)
  # A shift moves neither; the difference of the views is their shift.
  shifted = terms(z, z + 0.5)
  assert shifted == pytest.approx([0.25, 0, 2 * 1.01**4], abs=1e-5)


def test_the_loss_weighs_the_terms_and_the_expander_is_not_normalised(
  tiny_encoder,
):
  method = make(tiny('vicreg', num_proj_layers=3))
  batch = make_batch(np.random.default_rng(0))
  output = output_of(method, batch)
  embeddings = method.encode(batch['views'], tf.constant(3, tf.int64))
  z1, z2 = (np.float64(z) for z in embeddings['projection'])
  lengths = np.linalg.norm(z1, axis=1)
  assert lengths.std() > 1e-3  # On the sphere all would be one.
  s, v, c = loops(z1, z2)
  assert float(output.loss) == pytest.approx(25 * s + 25 * v + c, rel=1e-4)
  for name, value in (('invariance', s), ('variance', v), ('covariance', c)):
    found = float(output.metrics[f'vicreg_{name}'])
    assert found == pytest.approx(value, rel=1e-3, abs=1e-6)
