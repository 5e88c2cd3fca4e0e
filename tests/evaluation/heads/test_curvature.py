"""Roots, Hessians and their inverses against loops and numpy in float64."""

import numpy as np
import pytest

from cvr.evaluation.heads import curvature, optimum


def random(seed=0):
  return np.random.default_rng(seed)


def softmax(logits):
  p = np.exp(logits - logits.max(1, keepdims=True))
  return p / p.sum(1, keepdims=True)


def problem(n=120, r=12, classes=4, seed=0, certain=1.0):
  """Rows with long axes last, a constant at their end; p; float64."""
  rows = random(seed).normal(size=[n, r]) * np.geomspace(0.1, 3, r)
  rows[:, -1] = 1
  p = softmax(certain * random(seed + 1).normal(size=[n, classes]))
  return rows, p


def full(rows, p):
  """The losses' Hessian [C, r, C, r], image by image."""
  spread = [np.diag(q) - np.outer(q, q) for q in p]
  return sum(
    np.einsum('a,cd,b->cadb', x, s, x)
    for x, s in zip(rows, spread, strict=True)
  )


@pytest.mark.parametrize('n', [0, 1, 5, 64, 65, 130, 259])
def test_roots_are_lower_and_those_of_the_inverse(n):
  half = random().normal(size=[3, n, n])
  matrices = half @ np.swapaxes(half, 1, 2) + np.eye(n)
  roots = curvature.root(matrices)
  np.testing.assert_allclose(np.triu(roots, 1), 0, atol=1e-14)
  unit = np.swapaxes(roots, 1, 2) @ roots @ matrices
  np.testing.assert_allclose(unit, np.broadcast_to(np.eye(n), unit.shape),
                             atol=1e-8)  # fmt: skip


@pytest.mark.parametrize('chunk', [7, 4096])
def test_hessians_are_those_of_a_loop(monkeypatch, chunk):
  monkeypatch.setattr(curvature, '_CHUNK', chunk)
  rows, p = problem()
  wanted = full(rows, p)
  single = rows.astype(np.float32), p.astype(np.float32)
  found = curvature.of_all_classes(*single)
  np.testing.assert_allclose(found, wanted, atol=1e-6 * wanted.max())
  each = curvature.of_each_class(single[0], single[1] * (1 - single[1]))
  own = [wanted[c, :, c] for c in range(4)]
  np.testing.assert_allclose(each, own, atol=1e-6 * wanted.max())


def test_nothing_is_lost_where_a_class_is_certain():
  """1 - p is below what float32 can tell from 1."""
  rows, p = problem(classes=3)
  p[:] = 1e-9, 1 - 3e-9, 2e-9
  single = rows.astype(np.float32), p.astype(np.float32)
  found = curvature.of_all_classes(*single)
  np.testing.assert_allclose(
    found, full(rows, p), rtol=1e-4, atol=1e-14
  )  # fmt: skip


def made(rows, p, l2):
  penalty = np.full([rows.shape[1], 1], l2)
  penalty[-1] = 0
  return curvature.Curvature(rows.astype(np.float32), p, penalty), penalty


def centred(x):
  return x - x.mean(1, keepdims=True)


def product(hessian, penalty, weights):
  """weights [r, C] -> [r, C]."""
  moved = np.einsum('cadb,bd->ac', hessian, weights)
  return moved + penalty * weights


def inverse_of(matrix, gradient):
  """[C, r, C, r], [r, C]: the least squares' solution."""
  size = gradient.size
  solution = np.linalg.lstsq(
    matrix.reshape(size, size), gradient.T.ravel(), rcond=1e-12
  )[0]
  return solution.reshape(gradient.T.shape).T


def test_where_all_axes_are_long_the_inverse_is_exact():
  rows, p = problem()
  curved, penalty = made(rows, p, 0.01)
  weights = centred(random(3).normal(size=[12, 4]))
  gradient = product(full(rows, p), penalty, weights)
  np.testing.assert_allclose(
    curved.nearly_inverse(gradient.astype(np.float32)), weights, atol=2e-3
  )
  decrement = np.sum(gradient * weights)
  assert curved.size(gradient) == pytest.approx(decrement**0.5, rel=1e-3)


def parts(hessian, penalty, exact, width):
  """Blocks that are inverted: all classes, each class, the diagonal."""
  r, classes = hessian.shape[1], hessian.shape[0]
  kept = np.zeros_like(hessian)
  kept[:, r - exact :, :, r - exact :] = hessian[:, r - exact :, :, r - exact :]
  between = slice(r - width, r - exact)
  for c in range(classes):
    kept[c, between, c, between] = hessian[c, between, c, between]
    for a in range(r - width):
      kept[c, a, c, a] = hessian[c, a, c, a]
    for a in range(r):
      kept[c, a, c, a] += penalty[a, 0]
  return kept


def test_the_longest_axes_are_exact_the_next_by_class_then_the_diagonal(
  monkeypatch,
):
  monkeypatch.setattr(curvature, '_SIDE', 12)
  rows, p = problem()
  curved, penalty = made(rows, p, 0.01)
  # 12 // 4 axes of all classes, 12 / sqrt(4) of each class.
  assert curved.of_all.shape == (12, 12)
  assert curved.of_each.shape == (4, 6, 6)
  # On axes of its own, which are orthonormal and leave the constant alone.
  axes = curved.axes
  np.testing.assert_allclose(axes.T @ axes, np.eye(12), atol=1e-12)
  np.testing.assert_allclose(curved.rows, rows @ axes, atol=1e-5)
  weighed = rows[:, :-1] * (1 - np.sum(p**2, 1))[:, None]
  gram = axes[:-1, :-1].T @ rows[:, :-1].T @ weighed @ axes[:-1, :-1]
  assert (np.diff(np.diag(gram)) > 0).all()
  np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)
  kept = parts(full(rows @ axes, p), penalty, 3, 9)
  gradient = centred(random(4).normal(size=[12, 4]))
  # What all classes have in common is left out.
  found = curved.nearly_inverse(gradient.astype(np.float32))
  wanted = inverse_of(kept, gradient)
  np.testing.assert_allclose(found[:9], wanted[:9], rtol=1e-3)
  np.testing.assert_allclose(
    centred(found[9:]), centred(wanted[9:]), atol=1e-3 * np.abs(wanted).max()
  )
  weights = random(5).normal(size=[12, 4])
  np.testing.assert_allclose(curved.back(curved.along(weights)), weights)


def test_axes_less_curved_than_the_penalty_need_no_inverse():
  rows, p = problem()
  curved, _ = made(rows, p, 1e5)
  # The bias alone, which has no penalty.
  assert curved.of_all.shape == (4, 4) and curved.of_each.shape == (4, 0, 0)
  assert curved.axes is None


def test_more_classes_than_a_matrix_has_sides(monkeypatch):
  monkeypatch.setattr(curvature, '_SIDE', 3)
  rows, p = problem()
  curved, _ = made(rows, p, 0.01)
  assert curved.of_all.shape == (0, 0) and curved.of_each.shape == (4, 1, 1)
  gradient = random(4).normal(size=[12, 4]).astype(np.float32)
  assert np.sum(gradient * curved.nearly_inverse(gradient)) > 0


def test_a_block_that_rounding_made_indefinite_is_lifted():
  close = np.array([[1, 1 + 1e-5], [1 + 1e-5, 1]])
  with pytest.raises(np.linalg.LinAlgError):
    curvature.root(close)
  roots = curvature._inverse_roots(close, np.zeros(2))
  assert np.isfinite(roots).all()
  inverse = np.linalg.inv(close + 1e-4 * np.eye(2))
  np.testing.assert_allclose(roots.T @ roots, inverse, rtol=1e-2)
  with pytest.raises(np.linalg.LinAlgError):
    curvature._inverse_roots(-close, np.zeros(2))


def test_it_is_of_images_that_are_weighed_alike():
  rows, p = problem()
  curved, _ = made(rows, p, 1.0)
  assert curved.is_of(p)
  assert not curved.is_of(problem(certain=3.0)[1])
  slightly = softmax(np.log(p) + 0.02 * random(9).normal(size=p.shape))
  assert curved.is_of(slightly)


def test_single_leaves_no_denormal_numbers():
  found = curvature.single(np.array([1, 1e-19, 1e-21, 1e-40, 0.0]))
  assert found.dtype == np.float32
  assert found.tolist() == np.float32([1, 1e-19, 0, 0, 0]).tolist()


def products_of_a_path(monkeypatch):
  """Products with the Hessian for features of a few long axes."""
  rows = random(1).normal(size=[300, 40]) * np.geomspace(0.03, 10, 40)
  labels = np.argmax(
    rows[:, -5:] / np.geomspace(3, 10, 5) + random(2).normal(size=[300, 5]), 1
  )
  counted, make = [], optimum._product

  def counting(*args):
    product = make(*args)

    def count(weights):
      counted.append(1)
      return product(weights)

    return count

  with monkeypatch.context() as patch:
    patch.setattr(optimum, '_product', counting)
    fits = optimum.Problem(rows, labels)
    weights = fits.zero()
    for l2 in (10, 1, 0.1, 0.01):
      weights, fit = fits.solve(l2, weights)
      assert fit['converged']
  return len(counted)


def test_few_products_are_needed(monkeypatch):
  """Against the diagonal alone; a third of the axes are inverted."""
  monkeypatch.setattr(curvature, '_SIDE', 70)
  few = products_of_a_path(monkeypatch)
  monkeypatch.setattr(curvature, '_SIDE', 0)
  assert few < products_of_a_path(monkeypatch) / 3
