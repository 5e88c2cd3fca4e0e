"""Linear heads against loops in float64, conditions of optima, known data."""

import json
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from cvr.data import subsets
from cvr.evaluation.heads import linear, optimum


def random(seed=0):
  return np.random.default_rng(seed)


def noisy(n=120, dim=6, classes=4, seed=0, sizes=None):
  """Features that tell something of the labels, not all; float64."""
  labels = random(seed).choice(classes, n, p=sizes)
  labels[:classes] = np.arange(classes)
  centres = random(99).normal(size=[classes, dim])
  return centres[labels] + random(seed + 1).normal(size=[n, dim]), labels


def separable(n, classes=5, seed=0):
  """A corner of a simplex for each class, and little noise."""
  labels = np.arange(n) % classes
  noise = random(seed).normal(scale=0.02, size=[n, 12])
  return (np.eye(classes, 12)[labels] + noise).astype(np.float32), labels


def unrelated(n, seed=0):
  """Labels of 5 classes that features cannot tell, but can learn by heart."""
  features = random(seed).normal(size=[n, 800]).astype(np.float32)
  return features, random(seed + 50).integers(5, size=n)


def assert_chance(value, n):
  assert abs(value - 1 / 5) < 5 * math.sqrt(1 / 5 * 4 / 5 / n)


def accuracy(head, features, labels):
  return np.mean(np.argmax(features @ head.kernel + head.bias, 1) == labels)


# What a head says ------------------------------------------------------------


def some_head(classes=5, dim=3):
  return linear.Head(
    random(2).normal(size=[dim, classes]), random(3).normal(size=classes)
  )


def loop_ranking(head, x, mask):
  """Classes that may be said, likeliest first."""
  logits = [
    sum(x[d] * head.kernel[d, c] for d in range(len(x))) + head.bias[c]
    for c in range(len(head.bias))
  ]
  classes = [c for c in range(len(logits)) if mask[c] and logits[c] > -math.inf]
  return sorted(classes, key=lambda c: -logits[c])


@pytest.mark.parametrize('chunk', [1, 7, 8192])
def test_answers_are_those_of_a_loop(monkeypatch, chunk):
  monkeypatch.setattr(linear, '_CHUNK', chunk)
  head, features = some_head(), random(4).normal(size=[40, 3])
  head.bias[3] = -np.inf
  everything = np.ones(5, bool)
  for mask in (None, everything, np.array([1, 0, 1, 1, 0], bool)):
    may = everything if mask is None else mask
    ranked = [loop_ranking(head, x, may) for x in features]
    said = linear.predict(head, features, mask)
    assert said.tolist() == [r[0] for r in ranked]


def test_a_mask_changes_answers_and_keeps_them_in_it():
  head, features = some_head(), random(4).normal(size=[40, 3])
  free = linear.predict(head, features)
  mask = np.arange(5) != free[0]
  masked = linear.predict(head, features, mask)
  changed = free == free[0]
  assert (masked != free[0]).all()
  assert (masked[~changed] == free[~changed]).all()
  # Where nothing is known of any class that may be said, it is one of them.
  head.bias[2:4] = -np.inf
  only = np.isin(np.arange(5), [2, 3])
  assert {*linear.predict(head, features, only)} == {2}


def test_of_equal_logits_the_first_class():
  head = linear.Head(np.zeros([3, 4]), np.zeros(4))
  assert linear.predict(head, np.ones([4, 3])).tolist() == [0, 0, 0, 0]


def test_no_images_have_no_answers():
  empty = np.zeros([0, 3])
  assert linear.predict(some_head(), empty).shape == (0,)


def test_scores_and_their_mean_over_classes():
  labels = np.array([0, 0, 0, 4, 4, 2])
  right = linear.scores([0, 0, 1, 4, 2, 2], labels)
  assert right.tolist() == [1, 1, 0, 1, 0, 1] and right.dtype == np.float32
  wanted = (2 / 3 + 1 / 2 + 1) / 3
  assert linear.METRICS['mean_per_class'](right, labels) == pytest.approx(
    wanted
  )


# SGD -------------------------------------------------------------------------


def test_the_papers_protocols():
  simclr, byol = (linear.PROTOCOLS[f'sgd_{p}'] for p in ('simclr', 'byol'))
  assert simclr.learning_rates == pytest.approx((0.1 * 4096 / 256,))
  assert (simclr.batch, simclr.epochs) == (4096, 90)
  assert byol.learning_rates == (0.4, 0.3, 0.2, 0.1, 0.05)
  assert (byol.batch, byol.epochs) == (1024, 80)


def loop_sgd(passes, labels, classes, batch, epochs, seed, rows, rate):
  """Nesterov's momentum in float64, image by image and class by class."""
  dim = passes[0].shape[1]
  weights, velocity = np.zeros((2, dim + 1, classes))
  in_epoch, t = len(rows) // batch, 0
  for epoch in range(epochs):
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    for i in range(in_epoch):
      gradient = np.zeros_like(weights)
      for image in order[i * batch : (i + 1) * batch]:
        x = np.append(passes[epoch % len(passes)][image], 1)
        odds = np.exp([x @ weights[:, c] for c in range(classes)])
        for c in range(classes):
          slope = odds[c] / odds.sum() - (labels[image] == c)
          gradient[:, c] += slope * x / batch
      now = rate * (1 + math.cos(math.pi * t / (epochs * in_epoch))) / 2
      velocity = 0.9 * velocity + gradient
      weights = weights - now * (gradient + 0.9 * velocity)
      t += 1
  return linear.Head(weights[:-1], weights[-1])


def test_the_heads_of_all_rates_are_those_of_a_loop():
  first, labels = noisy(53, 5, 3)
  passes = [first, first + random(7).normal(size=first.shape)]
  rows = np.setdiff1d(np.arange(53), [0, 4, 50])
  rates = [0.02, 0.3, 1.0]
  where = (passes, labels, 3, 8, 3, 11, rows)
  heads = linear._fit(*where, rates)
  for head, rate in zip(heads, rates, strict=True):
    wanted = loop_sgd(*where, rate)
    np.testing.assert_allclose(head.kernel, wanted.kernel, atol=1e-5)
    np.testing.assert_allclose(head.bias, wanted.bias, atol=1e-5)
  (alone,) = linear._fit(*where, rates[1:2])
  np.testing.assert_allclose(heads[1].kernel, alone.kernel, atol=1e-6)
  (other,) = linear._fit([first], *where[1:], rates[1:2])
  assert np.abs(alone.kernel - other.kernel).max() > 1e-2


@pytest.fixture
def fits(monkeypatch):
  """What sgd_probe fits: [(rows, rates, heads)], sweep before refit."""
  made, fit = [], linear._fit

  def spied(*args):
    made.append((*args[-2:], fit(*args)))
    return made[-1][-1]

  monkeypatch.setattr(linear, '_fit', spied)
  return made


SWEEP = linear.Protocol((0.5, 0.05, 0.0005), batch=16, epochs=4)


def test_the_rate_is_chosen_on_held_out_images_then_all_are_fitted(fits):
  features, labels = noisy(300, seed=4)
  features = (features + 1).astype(np.float32)
  head, facts = linear.sgd_probe(SWEEP, [features], labels, 4, seed=5)
  rest, held = subsets.held_out(labels, 30, 5)
  values = [
    accuracy(loop_sgd([features], labels, 4, 16, 4, 5, rest, rate), *one)
    for one in [(features[held], labels[held])]
    for rate in SWEEP.learning_rates
  ]
  assert len({*values}) == 3 and np.argmax(values) == 1
  assert facts['validation_accuracy'] == pytest.approx(values)
  best = SWEEP.learning_rates[np.argmax(values)]
  assert facts['chosen'] == {'learning_rate': best}
  wanted = loop_sgd([features], labels, 4, 16, 4, 5, np.arange(300), best)
  np.testing.assert_allclose(head.kernel, wanted.kernel, atol=1e-4)
  assert [len(rows) for rows, _, _ in fits] == [270, 300]
  assert facts['held_out'] == 30 and facts['images'] == 300
  assert facts['steps'] == 4 * 18
  assert json.loads(json.dumps(facts)) == facts


def assert_same(heads, others):
  for head, other in zip(heads, others, strict=True):
    np.testing.assert_array_equal(head.kernel, other.kernel)
    np.testing.assert_array_equal(head.bias, other.bias)


def test_held_out_images_do_not_enter_the_sweep(fits):
  features, labels = noisy(200)
  linear.sgd_probe(SWEEP, [features], labels, 4, 0)
  held = subsets.held_out(labels, 20, 0)[1]
  poisoned = features.copy()
  poisoned[held] = 1e4
  linear.sgd_probe(SWEEP, [poisoned], labels, 4, 0)
  assert_same(fits[0][-1], fits[2][-1])
  assert np.abs(fits[1][-1][0].kernel - fits[3][-1][0].kernel).max() > 1
  poisoned[held] = np.nan
  with pytest.raises(ValueError, match='not finite'):
    linear.sgd_probe(SWEEP, [poisoned], labels, 4, 0)
  assert_same(fits[0][-1], fits[4][-1])


def test_held_out_labels_change_the_choice_alone(fits, monkeypatch):
  features, labels = noisy(300, seed=4)
  features = (features + 1).astype(np.float32)
  split = subsets.held_out(labels, 30, 5)
  # Else other labels would be another split.
  monkeypatch.setattr(subsets, 'held_out', lambda *_: split)
  _, right = linear.sgd_probe(SWEEP, [features], labels, 4, 5)
  weak = fits[0][-1][0]
  wrong = labels.copy()
  wrong[split[1]] = linear.predict(weak, features[split[1]])
  _, facts = linear.sgd_probe(SWEEP, [features], wrong, 4, 5)
  assert_same(fits[0][-1], fits[2][-1])
  assert facts['validation_accuracy'][0] == 1
  assert right['chosen'] != facts['chosen'] == {'learning_rate': 0.5}
  assert facts['learning_rate_used'] == fits[3][1][0]


@pytest.mark.parametrize('name', linear.PROTOCOLS)
def test_a_small_set_has_a_smaller_batch_and_rate(name, fits):
  protocol = linear.PROTOCOLS[name]
  features, labels = separable(100)
  facts = linear.sgd_probe(protocol, [features] * 3, labels, 5, 0)[1]
  fewest = 100 if name == 'sgd_simclr' else 90
  assert facts['held_out'] == 100 - fewest
  assert facts['batch'] == fewest // 8
  assert facts['steps'] == protocol.epochs * (100 // (fewest // 8))
  scale = (fewest // 8) / protocol.batch
  assert fits[0][1] == pytest.approx(
    [rate * scale for rate in protocol.learning_rates]
  )
  chosen = facts['chosen']['learning_rate']
  assert facts['learning_rate_used'] == pytest.approx(chosen * scale)
  assert facts['passes'] == 3 and facts['grid_is_for_batch'] == protocol.batch


@pytest.mark.parametrize('name', linear.PROTOCOLS)
def test_sgd_on_data_whose_answer_is_known(name):
  protocol, (features, labels) = linear.PROTOCOLS[name], separable(400)
  head, facts = linear.sgd_probe(protocol, [features], labels, 5, seed=0)
  unseen, wanted = separable(1000, seed=1)
  assert (linear.predict(head, unseen) == wanted).all()
  assert {*facts['validation_accuracy']} <= {1.0}
  features, labels = unrelated(600)
  head, facts = linear.sgd_probe(protocol, [features], labels, 5, seed=0)
  assert (linear.predict(head, features) == labels).mean() > 0.9
  unseen, wanted = unrelated(1000, seed=1)
  assert_chance(np.mean(linear.predict(head, unseen) == wanted), 1000)
  for value in facts['validation_accuracy']:
    assert_chance(value, 60)


@pytest.mark.parametrize('label', [-1, 4])
def test_labels_outside_of_the_classes_are_refused(label):
  features, labels = noisy()
  labels = np.append(labels[1:], label)
  for probe in (
    lambda: linear.sgd_probe(SWEEP, [features], labels, 4, 0),
    lambda: linear.logistic_path(
      noisy(), (features, labels), 'top_1', num_classes=4
    ),
  ):
    with pytest.raises(ValueError, match=f'{label}'):
      probe()


# Logistic regression ---------------------------------------------------------


def objective(flat, features, labels, classes, l2):
  """Sum of losses + l2 / 2 ||kernel||^2 of classes, and its gradient."""
  weights = flat.reshape(-1, len(classes))
  x = np.pad(features, [[0, 0], [0, 1]], constant_values=1)
  logits = x @ weights
  wanted = (labels[:, None] == classes).astype(float)
  logs = logits - scipy.special.logsumexp(logits, 1, keepdims=True)
  penalised = np.pad(weights[:-1], [[0, 1], [0, 0]])
  value = -np.sum(wanted * logs) + l2 / 2 * np.sum(penalised**2)
  return value, (x.T @ (np.exp(logs) - wanted) + l2 * penalised).ravel()


def stacked(head, classes):
  return np.concatenate([head.kernel, head.bias[None]])[:, classes].ravel()


@pytest.mark.parametrize('classes', [[0, 1, 2, 3], [1, 4], [0, 2, 5]])
def test_the_path_ends_in_the_optimum(monkeypatch, classes):
  """Also of two classes, and with classes there are no images of."""
  # Penalties that are seen.
  monkeypatch.setattr(linear, 'L2_GRID', (30.0, 3.0))
  features, labels = noisy(150, classes=len(classes), seed=1)
  labels = np.array(classes)[labels]
  head, facts = linear.logistic_path(
    (features[:100], labels[:100]), (features[100:], labels[100:]), 'top_1', 6
  )
  assert facts['not_converged'] == 0 and facts['refit']['converged']
  l2 = facts['chosen']['l2']
  found = stacked(head, classes)
  where = (features, labels, np.array(classes), l2)
  assert np.abs(objective(found, *where)[1]).max() < 1e-5
  cold = scipy.optimize.minimize(
    objective, np.zeros_like(found), where, 'BFGS', True,
    options={'gtol': 1e-7},
  ).x  # fmt: skip
  cold = cold.reshape(-1, len(classes))
  kernel = head.kernel[:, classes]
  np.testing.assert_allclose(kernel, cold[:-1], atol=1e-5)
  assert np.abs(kernel).max() > 0.05
  # A bias is known up to what all have in common.
  bias = head.bias[classes]
  np.testing.assert_allclose(bias - bias[0], cold[-1] - cold[-1, 0], atol=1e-5)
  others = np.setdiff1d(np.arange(6), classes)
  assert (head.bias[others] == -np.inf).all()
  assert {*linear.predict(head, features)} <= {*classes}


@pytest.mark.parametrize('metric', ['top_1', 'mean_per_class'])
def test_the_path_is_that_of_cold_starts(metric):
  """Chosen on validation; the strongest of what is equally good."""
  sizes = [0.7, 0.1, 0.1, 0.1]
  train, validation = (noisy(80, seed=s, sizes=sizes) for s in (28, 58))
  head, facts = linear.logistic_path(train, validation, metric, 4)
  grid = facts['grid']['l2']
  assert grid == sorted(grid, reverse=True) and len(grid) == 45
  np.testing.assert_allclose(grid[::-1], np.geomspace(1e-6, 1e5, 45))
  values = []
  for l2 in grid:
    cold = linear.logistic(*train, l2, 4)
    right = linear.predict(cold, validation[0]) == validation[1]
    by_class = [np.mean(right[validation[1] == c]) for c in range(4)]
    values.append(np.mean(by_class if metric != 'top_1' else right))
  assert facts['validation_accuracy'] == pytest.approx(values, abs=1e-12)
  best = max(values)
  assert values.count(best) < 45 and values[0] < best
  assert facts['chosen'] == {'l2': grid[np.argmax(values)]}
  assert json.loads(json.dumps(facts)) == facts
  # The two metrics choose differently here.
  assert (grid[np.argmax(values)] > 1) == (metric == 'top_1')


def test_validation_chooses_and_enters_the_last_fit_alone(monkeypatch):
  made, path, solve = [], linear._path, linear._solve

  def spied_path(features, labels, classes):
    for l2, head, fit in path(features, labels, classes):
      made.append((len(labels), head))
      yield l2, head, fit

  def spied(features, labels, l2, start):
    head, fit = solve(features, labels, l2, start)
    made.append((len(labels), head))
    return head, fit

  monkeypatch.setattr(linear, '_path', spied_path)
  monkeypatch.setattr(linear, '_solve', spied)
  monkeypatch.setattr(linear, 'L2_GRID', (100.0, 1.0, 0.01))
  train, (features, labels) = noisy(seed=1), noisy(40, seed=2)
  linear.logistic_path(train, (features, labels), 'top_1', 4)
  wrong = random().permutation(labels)
  linear.logistic_path(train, (100 * features, wrong), 'top_1', 4)
  assert [n for n, _ in made] == 2 * [120, 120, 120, 160]
  assert_same([h for _, h in made[:3]], [h for _, h in made[4:7]])
  assert np.abs(made[3][-1].kernel - made[7][-1].kernel).max() > 0.01


def test_columns_stay_where_classes_are_missing(monkeypatch):
  """One in validation alone, one in train alone, some in neither."""
  monkeypatch.setattr(linear, 'L2_GRID', (1.0,))
  features, labels = separable(200)
  in_train, in_validation = labels != 1, labels != 3
  features = features.astype(np.float64)
  labels = np.where(labels == 4, 6, labels)
  head, facts = linear.logistic_path(
    (features[in_train], labels[in_train]),
    (features[in_validation], labels[in_validation]),
    'top_1',
    num_classes=7,
  )
  assert head.kernel.shape == (12, 7) and head.bias.shape == (7,)
  assert np.isfinite(head.bias).tolist() == [1, 1, 1, 1, 0, 0, 1]
  assert linear.predict(head, features).tolist() == labels.tolist()
  # What train does not have is never said before the last fit.
  assert max(facts['validation_accuracy']) == pytest.approx(3 / 4)


def test_a_single_class_is_all_that_is_said(monkeypatch):
  features, labels = separable(60)
  one = np.full(30, 2)
  head, facts = linear.logistic_path(
    (features[:30], one), (features[30:], one), 'top_1', 5
  )
  assert {*linear.predict(head, features)} == {2}
  assert facts['validation_accuracy'] == [1.0] * 45
  assert facts['chosen'] == {'l2': 1e5}
  # As a first guess, too.
  monkeypatch.setattr(linear, 'L2_GRID', (0.01,))
  head, facts = linear.logistic_path(
    (features[:30], one), (features[30:], labels[30:]), 'top_1', 5
  )
  assert {*linear.predict(head, features)} == {*range(5)}


def test_fits_that_do_not_converge_are_counted(monkeypatch):
  monkeypatch.setattr(optimum, 'MAX_ITERATIONS', 1)
  facts = linear.logistic_path(noisy(), noisy(seed=9), 'top_1', 4)[1]
  assert 0 < facts['not_converged'] <= 45
  assert max(facts['iterations']) == 1 and facts['max_iterations'] == 1
  assert not facts['refit']['converged']


def test_heads_are_float64_of_features_in_float32():
  sets = [(x.astype(np.float32), y) for x, y in (noisy(), noisy(seed=1))]
  head, facts = linear.logistic_path(*sets, 'top_1', 4)
  assert head.kernel.dtype == head.bias.dtype == np.float64
  double, same = linear.logistic_path(noisy(), noisy(seed=1), 'top_1', 4)
  assert same['chosen'] == facts['chosen']
  np.testing.assert_allclose(head.kernel, double.kernel, atol=2e-6)


def test_regression_on_data_whose_answer_is_known(monkeypatch):
  train, validation = separable(400), separable(100, seed=2)
  features, labels = separable(1000, seed=1)
  head, facts = linear.logistic_path(train, validation, 'top_1', 5)
  assert linear.scores(linear.predict(head, features), labels).mean() == 1
  assert max(facts['validation_accuracy']) == 1
  monkeypatch.setattr(linear, 'L2_GRID', (1.0, 1e-3))
  train, validation = unrelated(400), unrelated(200, seed=2)
  features, labels = unrelated(1000, seed=1)
  head, facts = linear.logistic_path(train, validation, 'top_1', 5)
  assert (linear.predict(head, train[0]) == train[1]).mean() > 0.9
  assert_chance(np.mean(linear.predict(head, features) == labels), 1000)
  for value in facts['validation_accuracy']:
    assert_chance(value, 200)
