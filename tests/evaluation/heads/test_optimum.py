"""Fits of logistic regression against optima by other ways, at every l2."""

import functools
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cvr.evaluation.heads import curvature, linear


def like_relu(n, dim, classes, seed):
  """Features without negative numbers, of classes that overlap."""
  rng = np.random.default_rng(seed)
  labels = np.append(np.arange(classes), rng.integers(classes, size=n))[:n]
  centres = 0.5 * np.random.default_rng(99).normal(size=[classes, dim])
  rows = centres[labels] + rng.normal(size=[n, dim]) + 0.3
  return np.maximum(rows, 0).astype(np.float32), labels


def path_heads(monkeypatch, train, validation, classes):
  """What logistic_path measures on validation: a head for each l2."""
  heads, measured = [], linear._measured

  def spied(metric, head, *rows):
    heads.append(head)
    return measured(metric, head, *rows)

  monkeypatch.setattr(linear, '_measured', spied)
  facts = linear.logistic_path(train, validation, 'top_1', classes, False)[1]
  assert facts['not_converged'] == 0 and len(heads) == 45
  return heads, facts


def centred(x):
  return x - x.mean(-1, keepdims=True)


# Labels that a linear head can tell without error, and that it cannot; more
# dimensions than images; two classes.
CASES = {
  'more dimensions': (150, 300, 5),
  'separable': (200, 40, 4),
  'overlapping': (400, 12, 3),
  'two classes': (200, 20, 2),
}


@functools.cache
def scikit_learns(case, seed):
  """Predictions for unseen images at every l2, strongest first."""
  n, dim, classes = CASES[case]
  train = like_relu(n, dim, classes, seed)
  unseen = like_relu(2000, dim, classes, seed + 50)
  wanted = []
  for l2 in linear.L2_GRID:
    # It fits one vector for two classes, with half of the penalty.
    penalty = l2 / 2 if classes == 2 else l2
    model = LogisticRegression(
      C=1 / penalty, tol=1e-10, max_iter=100_000, solver='newton-cg'
    )
    with warnings.catch_warnings():
      # At the limit of rounding its line search gives up.
      warnings.simplefilter('ignore')
      model.fit(train[0].astype(np.float64), train[1])
    wanted.append(model.predict(unseen[0].astype(np.float64)))
  return train, unseen, wanted


# All of the Hessian is inverted; a part, and its diagonal.
@pytest.mark.parametrize('side', [1536, 24])
@pytest.mark.parametrize('seed', [0, 1])
@pytest.mark.parametrize('case', CASES)
def test_predictions_are_scikit_learns_at_every_penalty(
  monkeypatch, case, seed, side
):
  monkeypatch.setattr(curvature, '_SIDE', side)
  train, unseen, wanted = scikit_learns(case, seed)
  heads, _ = path_heads(monkeypatch, train, unseen, CASES[case][-1])
  for l2, head, predicted in zip(linear.L2_GRID, heads, wanted, strict=True):
    mine = linear.predict(head, unseen[0])
    np.testing.assert_array_equal(mine, predicted, err_msg=f'{l2:g}')


def newton(features, labels, classes, l2, start):
  """Every second derivative in a matrix, solved in float64."""
  n, dim = features.shape
  x = np.pad(features.astype(np.float64), [[0, 0], [0, 1]], constant_values=1)
  one_hot, weights = np.eye(classes)[labels], start.copy()
  penalty = np.append(np.full(dim, l2), 0)[:, None]
  for _ in range(200):
    logits = x @ weights
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    gradient = x.T @ (p - one_hot) + penalty * weights
    spread = p[:, :, None] * (np.eye(classes) - p[:, None])
    hessian = np.einsum('ia,ib,icd->acbd', x, x, spread, optimize=True)
    hessian = hessian.reshape(2 * [(dim + 1) * classes])
    hessian += np.diag(np.repeat(penalty[:, 0], classes))
    step = np.linalg.lstsq(hessian, gradient.ravel(), rcond=1e-14)[0]
    step = step.reshape(weights.shape)
    weights -= step * min(1, 2 / np.abs(x @ step).max())
    if np.abs(step).max() < 1e-11 * np.abs(weights).max():
      break
  return weights


def test_kernels_are_those_of_a_full_newton_method(monkeypatch):
  train = like_relu(80, 8, 3, 3)
  heads, facts = path_heads(monkeypatch, train, train, 3)
  weights = np.zeros([9, 3])
  for l2, head in zip(facts['grid']['l2'], heads, strict=True):
    weights = newton(*train, 3, l2, weights)
    wanted = centred(weights)
    size = np.abs(wanted).max()
    np.testing.assert_allclose(
      centred(head.kernel), wanted[:-1], atol=3e-6 * size
    )
    np.testing.assert_allclose(centred(head.bias), wanted[-1], atol=3e-6 * size)


def test_the_start_does_not_matter(monkeypatch):
  """A fit from zeros at the weakest penalty is the path's last."""
  train = like_relu(150, 60, 5, 4)
  heads, facts = path_heads(monkeypatch, train, train, 5)
  for at in (0, 20, 44):
    cold = linear.logistic(*train, facts['grid']['l2'][at], 5)
    size = np.abs(cold.kernel).max()
    np.testing.assert_allclose(heads[at].kernel, cold.kernel, atol=1e-5 * size)


def test_features_that_are_all_the_same_give_the_shares_of_classes():
  labels = np.repeat([0, 1, 2], [10, 20, 70])
  head = linear.logistic(np.full([100, 4], 3.0), labels, 1.0, 3)
  assert not head.kernel.any()
  shares = np.exp(head.bias) / np.exp(head.bias).sum()
  np.testing.assert_allclose(shares, [0.1, 0.2, 0.7], rtol=1e-6)
