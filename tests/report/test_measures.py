"""What a page shows of features, against scikit-learn and loops."""

import numpy as np
import pytest

from cvr.report import measures


@pytest.fixture
def rows():
  random = np.random.default_rng(0)
  return random.normal(size=[40, 6]) * [5, 3, 1, 1, 0.5, 0.1]


def test_pca_is_that_of_scikit_learn(rows):
  from sklearn.decomposition import PCA

  kept = PCA(2)
  wanted = kept.fit_transform(rows)
  points, shares = measures.pca(rows)
  np.testing.assert_allclose(np.abs(points), np.abs(wanted), rtol=1e-9)
  np.testing.assert_allclose(shares, kept.explained_variance_ratio_, rtol=1e-9)
  largest = np.abs(points).argmax(0)
  assert (points[largest, [0, 1]] > 0).all()


def test_pca_of_one_point_and_of_one_number():
  points, shares = measures.pca(np.ones([4, 3]))
  assert not points.any() and not shares.any()
  assert measures.pca(np.arange(4.0)[:, None])[0].shape == (4, 2)


def test_neighbours_are_the_nearest_and_not_the_query(rows):
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  cosines, near = measures.cosine_neighbours(unit, np.array([3, 17]), 4)
  for query, row, values in zip((3, 17), near, cosines, strict=True):
    others = [i for i in range(40) if i != query]
    wanted = sorted(others, key=lambda i: -unit[query] @ unit[i])[:4]
    assert [*row] == wanted
    np.testing.assert_allclose(values, unit[wanted] @ unit[query])


def test_queries_are_of_all_classes():
  labels = np.repeat([0, 1, 2, 3], 25)
  assert [*labels[measures.chosen_queries(labels, 4)]] == [0, 1, 2, 3]
  assert len(measures.chosen_queries(labels[:3], 12)) == 3


def test_confusions_and_the_hardest():
  labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
  matrix = measures.confusion(labels, predicted, 3)
  assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
  assert measures.most_confused(matrix, 2).tolist() == [0, 1]
  logits = np.array([[9.0, 0], [0, 1.0], [0, 5.0], [3.0, 0]])
  rows, wrong, sure = measures.hardest(logits, np.array([0, 0, 0, 1]), 2)
  assert rows.tolist() == [2, 3] and wrong.tolist() == [1, 0]
  assert sure == pytest.approx([1 / (1 + np.exp(-5)), 1 / (1 + np.exp(-3))])


@pytest.mark.parametrize('channels', [1, 2, 3, 5])
def test_a_sheet_has_its_images_in_order(channels):
  images = np.arange(5, dtype=np.uint8)[:, None, None, None]
  images = np.broadcast_to(images, [5, 6, 6, channels])
  picture = measures.cells(images, 3, 8)
  assert picture.shape == (16, 24, 3)
  tiles = picture.reshape(2, 8, 3, 8, 3).swapaxes(1, 2).reshape(6, 8, 8, 3)
  assert [*tiles[:, 4, 4, 0]] == [0, 1, 2, 3, 4, 255]
  assert [*tiles[:, 7, 7, 2]] == [0, 1, 2, 3, 4, 255]


def test_shrinking_takes_means():
  images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
  small = measures.shrunk(images, 2)
  assert small[0, 0, 0, 0] == round((0 + 1 + 4 + 5) / 4 + 0.01)
  assert measures.shrunk(images, 4) is images
