"""LARS: three steps of every variant against numpy, and its groups."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from lars_optimizer import LARS, lars_update, trust_ratio

DECAY, ETA, MOMENTUM = 0.1, 0.02, 0.9
RATES = [0.5, 0.3, 0.2]


def numpy_steps(weight, gradients, adapt, classic, nesterov, clip):
  """The published rule, written out."""
  velocity = np.zeros_like(weight)
  for rate, g in zip(RATES, gradients, strict=True):
    decayed = g + DECAY * weight if adapt else g

    def trust(x, weight=weight, rate=rate):
      norms = np.linalg.norm(weight), np.linalg.norm(x)
      if not adapt or min(norms) == 0:
        return 1.0
      ratio = ETA * norms[0] / norms[1]
      return min(ratio / rate, 1.0) if clip else ratio

    if classic:
      step = rate * trust(decayed) * decayed
      velocity = MOMENTUM * velocity + step
      update = MOMENTUM * velocity + step if nesterov else velocity
    else:
      velocity = MOMENTUM * velocity + decayed
      look = MOMENTUM * velocity + decayed if nesterov else velocity
      update = rate * trust(look) * look
    weight = weight - update
  return weight


@pytest.mark.parametrize(
  'classic, nesterov, clip', list(itertools.product([True, False], repeat=3))
)
def test_three_steps_match_numpy(classic, nesterov, clip):
  rng = np.random.default_rng(0)
  start = {'kernel': rng.normal(size=(3, 2)), 'bias': rng.normal(size=2)}
  variables = {k: tf.Variable(v, dtype=tf.float32) for k, v in start.items()}
  rates = tf.constant(RATES)
  step = tf.Variable(0)
  optimizer = LARS(
    lambda: tf.gather(rates, step),
    weight_decay=DECAY,
    decayed=[variables['kernel']],
    momentum=MOMENTUM,
    eta=ETA,
    classic=classic,
    nesterov=nesterov,
    clip=clip,
  )
  gradients = {k: rng.normal(size=(3, *v.shape)) for k, v in start.items()}
  for i in range(3):
    step.assign(i)
    optimizer.apply_gradients(
      [(tf.constant(gradients[k][i], tf.float32), variables[k]) for k in start]
    )
  for name, adapt in (('kernel', True), ('bias', False)):
    expected = numpy_steps(
      start[name], gradients[name], adapt, classic, nesterov, clip
    )
    np.testing.assert_allclose(variables[name].numpy(), expected, rtol=2e-6)


def test_weight_decay_may_follow_the_step():
  kernel = tf.Variable([[3.0, 4.0]])
  optimizer = LARS(
    1.0,
    weight_decay=lambda step: 0.1 * tf.cast(step, tf.float32),
    decayed=[kernel],
    momentum=0.0,
    eta=0.1,
  )
  w = np.array([[3.0, 4.0]])
  for decay in (0.0, 0.1, 0.2):
    optimizer.apply_gradients([(tf.constant([[1.0, 0.0]]), kernel)])
    g = [[1.0, 0.0]] + decay * w
    w = w - 0.1 * np.linalg.norm(w) / np.linalg.norm(g) * g
    np.testing.assert_allclose(kernel.numpy(), w, rtol=1e-6)


def test_trust_ratio_is_one_where_a_norm_is_zero():
  zero, one = tf.zeros([2]), tf.ones([2])
  assert float(trust_ratio(zero, one, 0.1)) == 1.0
  assert float(trust_ratio(one, zero, 0.1)) == 1.0
  assert float(trust_ratio(one, one, 0.1)) == pytest.approx(0.1)
  assert float(trust_ratio(zero, one, 0.1, clip_at=5.0)) == 1.0


def test_a_rate_of_zero_moves_nothing():
  for clip in (False, True):
    weight, _ = lars_update(
      tf.ones([3]), tf.ones([3]), tf.zeros([3]), learning_rate=0.0, clip=clip
    )
    np.testing.assert_array_equal(weight, np.ones(3))


def test_the_slot_is_named_momentum():
  variable = tf.Variable([1.0])
  optimizer = LARS(0.1, weight_decay=0.0, decayed=[variable])
  optimizer.apply_gradients([(tf.constant([1.0]), variable)])
  assert optimizer.get_slot_names() == ['Momentum']


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'])
def test_two_replicas_adapt_like_one(two_replicas, policy):
  def step_in(strategy):
    with strategy.scope():
      layer = keras.layers.Layer(dtype=keras.mixed_precision.Policy(policy))
      variable = layer.add_weight('kernel', [1, 2])
      variable.assign([[3.0, 4.0]])
      optimizer = LARS(1.0, weight_decay=0.1, decayed=[variable], eta=0.1)
      optimizer._create_all_weights([variable])

    @tf.function
    def run():
      strategy.run(
        lambda: optimizer.apply_gradients(
          [(tf.constant([[1.0, 0.0]]), variable)],
          experimental_aggregate_gradients=False,
        )
      )

    run()
    return variable.numpy()

  alone = step_in(tf.distribute.get_strategy())
  np.testing.assert_allclose(step_in(two_replicas), alone, rtol=1e-6)
  # g' = (1.3, .4), ||w|| = 5: the trust ratio shows.
  scale = 0.1 * 5 / np.hypot(1.3, 0.4)
  np.testing.assert_allclose(
    alone, [[3 - scale * 1.3, 4 - scale * 0.4]], rtol=1e-6
  )


@pytest.mark.parametrize(
  'classic, nesterov', list(itertools.product([True, False], repeat=2))
)
def test_a_trust_ratio_above_the_rate_is_clipped_to_sgd(classic, nesterov):
  """LARC: then a layer's step is that of SGD with momentum and decay."""
  rng = np.random.default_rng(3)
  w = rng.normal(size=(3, 2))
  kernel, rate = tf.Variable(w, dtype=tf.float32), 0.05
  optimizer = LARS(
    rate, weight_decay=DECAY, decayed=[kernel], momentum=MOMENTUM,
    eta=5.0, classic=classic, nesterov=nesterov, clip=True,
  )  # fmt: skip
  velocity = np.zeros_like(w)
  for _ in range(3):
    gradient = rng.normal(size=w.shape)
    optimizer.apply_gradients([(tf.constant(gradient, tf.float32), kernel)])
    g = gradient + DECAY * w
    assert 5 * np.linalg.norm(w) / np.linalg.norm(g) > rate
    # The rate is constant: inside of the momentum or outside is the same.
    velocity = MOMENTUM * velocity + g
    w = w - rate * (MOMENTUM * velocity + g if nesterov else velocity)
  np.testing.assert_allclose(kernel.numpy(), w, rtol=1e-5)
