"""Neighbours against a loop over pairs, and data whose answer is known."""

import math

import numpy as np
import pytest

from cvr.evaluation.heads import knn


def random(seed=0):
  return np.random.default_rng(seed)


def loop(train, labels, query, classes, k, temperature):
  """The class of the most votes among the k images of the largest cosine."""

  def cosine(x, y):
    return x @ y / math.sqrt(x @ x) / math.sqrt(y @ y)

  cosines = [cosine(query, x) for x in train]
  nearest = sorted(range(len(train)), key=lambda i: (-cosines[i], i))[:k]
  votes = [0.0] * classes
  for i in nearest:
    votes[labels[i]] += math.exp(cosines[i] / temperature)
  return votes.index(max(votes))


def noisy(n, seed=0, classes=5, dim=6):
  """Non-negative features of any length that tell something of the labels."""
  labels = random(seed).integers(classes, size=n)
  centres = random(99).normal(size=[classes, dim])
  features = centres[labels] + random(seed + 1).normal(size=[n, dim])
  lengths = random(seed + 2).uniform(0.1, 10, size=[n, 1])
  return np.maximum(features + 0.5, 0.01) * lengths, labels


@pytest.mark.parametrize('queries_at_a_time', [1, 7, 256])
def test_votes_are_those_of_a_loop(monkeypatch, queries_at_a_time):
  monkeypatch.setattr(knn, '_QUERIES', queries_at_a_time)
  train, labels = noisy(300)
  queries, _ = noisy(60, seed=5)
  # A low temperature hears few of the neighbours, a high one counts heads.
  temperatures = (0.01, 0.07, 100.0)
  found = knn.predictions(train, labels, queries, 5, (1, 20, 200), temperatures)
  assert len(found) == 9
  for (k, temperature), said in found.items():
    wanted = [loop(train, labels, q, 5, k, temperature) for q in queries]
    assert said.tolist() == wanted
  assert len({tuple(said) for said in found.values()}) >= 4


def test_the_papers_settings():
  train, labels = noisy(250)
  found = knn.predictions(train, labels, train[:9], 5)
  assert sorted(found) == [
    (k, t) for k in (10, 20, 100, 200) for t in (0.07, 0.1)
  ]


def test_k_is_at_most_the_number_of_images_and_says_so():
  train, labels = noisy(15)
  queries, _ = noisy(20, seed=5)
  found = knn.predictions(train, labels, queries, 5, temperatures=(0.1,))
  assert sorted(found) == [(10, 0.1), (15, 0.1)]
  wanted = [loop(train, labels, q, 5, 15, 0.1) for q in queries]
  assert found[15, 0.1].tolist() == wanted


def test_an_image_is_nearest_to_itself():
  train, labels = noisy(200)
  labels = random().permutation(labels)
  found = knn.predictions(train, labels, 3 * train, 5, (1, 50), (0.07,))
  assert found[1, 0.07].tolist() == labels.tolist()
  assert found[50, 0.07].tolist() != labels.tolist()


def test_copies_have_a_vote_each():
  """Query on the x axis; one image there, three of class 1 nearby."""
  train = np.array([[1, 0], [1, 0.3], [1, 0.3], [1, 0.3], [0, 1]])
  labels, query = np.array([0, 1, 1, 1, 2]), np.array([[2.0, 0]])
  found = knn.predictions(train, labels, query, 3, (1, 3, 5), (0.01, 0.1))
  # exp((1 - cos) / T) is 1.53 and 68: two copies outvote the image or not.
  assert {key: said.tolist() for key, said in found.items()} == {
    (1, 0.01): [0],
    (1, 0.1): [0],
    (3, 0.01): [0],
    (3, 0.1): [1],
    (5, 0.01): [0],
    (5, 0.1): [1],
  }


def test_of_equally_near_images_the_first_and_of_equal_votes_the_first():
  train = np.eye(4)[[0, 1, 1, 1, 1]]
  query = np.eye(4)[[1]]
  labels = np.array([4, 3, 2, 1, 0])
  found = knn.predictions(train, labels, query, 5, (1, 2, 4), (0.1,))
  assert [said.tolist() for said in found.values()] == [[3], [2], [0]]


def test_images_without_any_feature_are_near_to_nothing():
  train, labels = np.eye(3), np.arange(3)
  found = knn.predictions(train, labels, np.zeros([1, 3]), 3, (3,), (0.1,))
  assert found[3, 0.1].tolist() == [0]


def test_data_whose_answer_is_known():
  labels, asked = np.arange(500) % 5, np.arange(1000) % 5

  def features(labels, seed):
    noise = random(seed).normal(scale=0.1, size=[len(labels), 8])
    return np.eye(5, 8)[labels] + noise

  train, queries = features(labels, 0), features(asked, 1)
  for said in knn.predictions(train, labels, queries, 5).values():
    assert (said == asked).all()
  permuted = random(2).permutation(labels)
  wanted = random(3).permutation(asked)
  bound = 5 * math.sqrt(0.2 * 0.8 / 1000)
  for said in knn.predictions(train, permuted, queries, 5).values():
    assert abs(np.mean(said == wanted) - 0.2) < bound


@pytest.mark.parametrize('label', [-1, 5])
def test_labels_outside_of_the_classes_are_refused(label):
  train, labels = noisy(10)
  labels[3] = label
  with pytest.raises(ValueError, match=f'{label}'):
    knn.predictions(train, labels, train, 5)


def test_features_that_are_not_finite_are_refused():
  train, labels = noisy(10)
  broken = train.copy()
  broken[2, 1] = np.nan
  for of in ((broken, train), (train, broken)):
    with pytest.raises(ValueError, match='not finite'):
      knn.predictions(of[0], labels, of[1], 5)
