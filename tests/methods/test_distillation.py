"""DINO and SimSiam: losses, centre, twins, crops, what is frozen or steady."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

import oracles
from cvr.methods import distillation
from cvr.numerics import schedules
from cvr.training import optimizers
from cvr.training.step import make_state, make_train_step
from small_data import plan_of
from tiny_methods import (
  BATCH,
  assert_same,
  make,
  make_batch,
  step_weights,
  tiny,
)

pytestmark = pytest.mark.usefixtures('tiny_encoder')
K = 12  # As METHOD_SETTINGS has it.


def compiled_step(state, schedule):
  step = make_train_step(state, schedule)
  return tf.function(step, autograph=False)


def values(*layers):
  return [v.numpy() for layer in layers for v in layer.trainable_variables]


def add_local_crops(batch, rng, count=2, size=12):
  rows = batch['label'].shape[0]
  local = rng.random((count, rows, size, size, 3)).astype(np.float32)
  return batch | {'views': (*batch['views'], *map(tf.constant, local))}


# DINO.


def random_logits(rng, crops, rows=4):
  """What encode() gives: cosines, of whose means the centre is one."""
  student = [rng.uniform(-1, 1, (rows, K)) for _ in range(crops)]
  teacher = [rng.uniform(-1, 1, (rows, K)) + 0.3 for _ in range(2)]
  return student, teacher


def embeddings_of(student, teacher):
  def floats(arrays):
    return [tf.constant(a, tf.float32) for a in arrays]

  probed = tf.zeros([len(student[0]), 3])
  return {
    'student': floats(student),
    'teacher': floats(teacher),
    'probed': probed,
  }


@pytest.mark.parametrize('centring', [True, False])
def test_dino_is_the_papers_over_steps(centring):
  """Each loss with the centre of the steps before; local crops too."""
  rng = np.random.default_rng(0)
  method = make(tiny('dino', centring=centring, temperature=0.2))
  centre = np.zeros(K)
  for step in range(4):
    student, teacher = random_logits(rng, crops=2 + step)
    output = method.objective(embeddings_of(student, teacher), step)
    expected = oracles.dino(student, teacher, centre, 0.2, 0.04)
    assert float(output.loss) == pytest.approx(expected, rel=1e-5)
    p = [oracles.softmax_rows((t - centre) / 0.04) for t in teacher]
    q = [oracles.softmax_rows(s / 0.2) for s in student]
    entropy = np.mean([-np.sum(x * np.log(x), 1) for x in p])
    kl = np.mean([
      np.sum(p[i] * np.log(p[i] / q[j]), 1)
      for i in range(2)
      for j in range(len(q))
      if i != j
    ])  # fmt: skip
    metrics = {k: float(v) for k, v in output.metrics.items()}
    assert metrics['teacher_entropy'] == pytest.approx(entropy, rel=1e-5)
    assert metrics['teacher_student_kl'] == pytest.approx(kl, rel=1e-5)
    # In two chunks: what is carried has a row of each.
    parts = [output.carry['logits'] - 0.5, output.carry['logits'] + 0.5]
    method.after_update(step, {'logits': tf.concat(parts, 0)})
    if centring:
      centre = 0.9 * centre + 0.1 * np.concatenate(teacher).mean(0)
    np.testing.assert_allclose(method.centre, centre, rtol=1e-5, atol=1e-7)
  assert bool(np.any(centre)) == centring


def test_the_centre_is_of_all_replicas(two_replicas):
  with two_replicas.scope():
    method = make(tiny('dino', centre_momentum=0.25))
  rows = np.random.default_rng(1).normal(size=(2, 1, K)).astype(np.float32)
  parts = two_replicas.experimental_distribute_values_from_function(
    lambda context: tf.constant(rows[context.replica_id_in_sync_group])
  )

  @tf.function(autograph=False)
  def run(parts):
    two_replicas.run(lambda x: method.after_update(0, {'logits': x}), (parts,))

  run(parts)
  for copy in method.centre.values:
    np.testing.assert_allclose(copy, 0.75 * rows.mean((0, 1)), rtol=1e-5)


def test_the_teachers_temperature_rises_in_epochs():
  changes = {'teacher_temperature': 0.07, 'teacher_temperature_start': 0.05}
  cfg = tiny('dino', teacher_temperature_warmup_epochs=2.5, **changes)
  # 2.5 epochs of 32 images by eights are 10 steps.
  schedule = distillation.DINO(plan_of(cfg, examples=32)).teacher_temperature
  found = [float(schedule(step)) for step in (0, 5, 10, 50)]
  assert found == pytest.approx([0.05, 0.06, 0.07, 0.07])
  schedule = distillation.DINO(plan_of(tiny('dino', **changes), examples=32))
  assert float(schedule.teacher_temperature(0)) == pytest.approx(0.07)


def test_all_crops_for_the_student_and_global_ones_for_its_copy():
  """Without batch statistics every row is on its own."""
  rng = np.random.default_rng(2)
  method = make(tiny('dino'))
  views = add_local_crops(make_batch(rng, 3), rng, 3)['views']
  at = tf.constant(0, tf.int64)
  found = method.encode(views, at, training=False)
  kernel = method.prototypes.kernel.numpy().astype(float)
  assert len(found['student']) == 5
  for view, logits in zip(views, found['student'], strict=True):
    z = method.embed(view)['projection'].numpy().astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosines = z @ (kernel / np.linalg.norm(kernel, axis=0))
    np.testing.assert_allclose(logits, cosines, atol=1e-5)
  # The twin begins as a copy: not at random, unlike BYOL's.
  assert len(found['teacher']) == 2
  for student, teacher in zip(
    found['student'][:2], found['teacher'], strict=True
  ):
    np.testing.assert_array_equal(student, teacher)
  representation = method.embed(views[0])['representation']
  np.testing.assert_allclose(found['probed'], representation, atol=1e-5)
  # In training the crops of one size are one batch.
  together = method.encode(views, at)['student'][1]
  h = method.encoder(tf.concat(views[:2], 0), training=True)
  z = tf.math.l2_normalize(method.projector(h, training=True)[-1], -1)
  np.testing.assert_allclose(together, method.prototypes(z)[3:], atol=1e-5)


def test_dinos_twins_move_by_ema_and_prototypes_when_they_may(glance):
  """The last layer keeps its bits for two steps, under decay and AdamW."""
  cfg = tiny(
    'dino', freeze_prototypes_steps=2, optimizer='adamw', weight_decay=0.1,
    clip_norm=3.0,
  )  # fmt: skip
  state = make_state(plan_of(cfg, 100))
  method = state.method
  step = compiled_step(state, schedules.warmup_cosine(0.1, 0, 100))
  batch = make_batch(np.random.default_rng(3))
  first = method.prototypes.kernel.numpy()
  for number in range(3):
    before = values(*method.twins()[1])
    student = values(method.projector)
    step(batch)
    decay = 1 - (1 - 0.9) * (math.cos(math.pi * number / 100) + 1) / 2
    online, target = map(lambda layers: values(*layers), method.twins())
    for old, new, source in zip(before, target, online, strict=True):
      expected = decay * old + (1 - decay) * source
      np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-7)
    for pair in zip(student, values(method.projector), strict=True):
      assert not np.array_equal(*pair)
    assert np.array_equal(method.prototypes.kernel, first) == (number < 2)
  twin = method.target_prototypes.kernel.numpy()
  assert not np.array_equal(twin, first)


def test_a_step_of_many_crops_on_two_replicas_is_that_of_one(
  two_replicas, glance
):
  rng = np.random.default_rng(4)
  batch = add_local_crops(make_batch(rng), rng)
  cfg = tiny('dino', local_crops=2, local_size=12, clip_norm=3.0)
  one = step_weights(cfg, batch)
  two = step_weights(cfg, batch, strategy=two_replicas)
  assert_same(one, two, 2e-4)


# SimSiam.


def test_simsiam_is_the_papers_and_stops_at_the_projections():
  rng = np.random.default_rng(6)
  method = make(tiny('simsiam'))
  p1, p2, z1, z2 = rng.normal(size=(4, BATCH, 8))
  tensors = [tf.constant(x, tf.float32) for x in (p1, p2, z1, z2)]
  with tf.GradientTape() as tape:
    tape.watch(tensors)
    embeddings = {
      'prediction': tensors[:2],
      'projection': tensors[2:],
      'probed': tensors[2],
    }
    output = method.objective(embeddings, 0)
  assert float(output.loss) == pytest.approx(
    oracles.simsiam(p1, p2, z1, z2), abs=1e-6
  )
  found = tape.gradient(output.loss, tensors)
  assert found[2:] == [None, None]
  for at, p in enumerate((p1, p2)):
    difference = oracles.finite_difference(
      lambda x, at=at: oracles.simsiam(*[p1, p2][:at], x, *[p1, p2][at + 1 :],
                                       z1, z2), p,
    )  # fmt: skip
    np.testing.assert_allclose(found[at], difference, atol=1e-6)
  z = np.concatenate([z1, z2])
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  spread = math.sqrt(8) * np.std(z, axis=0).mean()
  assert float(output.metrics['output_std']) == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize('loss', ['byol', 'simsiam'])
def test_the_prediction_of_an_evaluation_is_the_last_layers(loss):
  method = make(tiny(loss))
  views = make_batch(np.random.default_rng(8))['views']
  trained = method.encode(views, tf.constant(0, tf.int64), training=False)
  for z, prediction in zip(
    trained['projection'], trained['prediction'], strict=True
  ):
    np.testing.assert_allclose(method.predict_mean(z), prediction, atol=1e-5)


@pytest.mark.parametrize('order', ['same', 'other'])
def test_the_rate_of_c_byol_is_the_mean_of_both_directions(order):
  method = make(tiny('byol_ceb', backward_view=order))
  views = make_batch(np.random.default_rng(9))['views']
  out = method.encode(views, tf.constant(0, tf.int64), training=False)
  mu, b = (np.array(out[name], np.float64) for name in ('mu', 'backward'))
  rate = method.rate([method.embed(view) for view in views], views)
  kappas = method.ceb.kappa_e, method.ceb.kappa_b
  own = b if order == 'same' else b[::-1]
  expected = sum(map(functools.partial(vmf_kl, kappas), mu, own)) / 2
  np.testing.assert_allclose(rate, expected, rtol=1e-4, atol=1e-4)


def vmf_kl(kappas, mu_e, mu_b):
  """KL(e || b) [B] by scipy's Bessel functions."""
  d = mu_e.shape[1]
  log_i = [np.log(special.ive(d / 2 - 1, k)) + k for k in kappas]
  (ke, kb), (log_ie, log_ib) = kappas, log_i
  length = special.ive(d / 2, ke) / special.ive(d / 2 - 1, ke)
  peaks = (d / 2 - 1) * math.log(ke / kb) - log_ie + log_ib
  return peaks + length * (ke - kb * (mu_e * mu_b).sum(1))


def test_simsiams_views_are_batches_of_their_own():
  method = make(tiny('simsiam'))
  views = make_batch(np.random.default_rng(7))['views']
  found = method.encode(views, 0)
  for view, z, p in zip(
    views, found['projection'], found['prediction'], strict=True
  ):
    expected = method.embed(view, training=True)['projection']
    np.testing.assert_allclose(z, expected, atol=1e-5)
    expected = method.predictor(z, training=True)[-1]
    np.testing.assert_allclose(p, expected, atol=1e-5)


def test_spread_of_what_is_one_and_of_what_is_everywhere():
  everywhere = np.concatenate([np.eye(5), -3 * np.eye(5)]).astype(np.float32)
  assert float(distillation.spread(everywhere)) == pytest.approx(1, rel=1e-5)
  same = np.tile(np.float32([[0.3, -0.2, 0.9]]), (7, 1))
  assert float(distillation.spread(same)) == pytest.approx(0, abs=1e-6)


def test_the_predictors_rate_stays_while_the_others_falls(glance):
  """Two steps beside a run whose rates are all constant, from its weights."""
  batch = make_batch(np.random.default_rng(8))
  runs = []
  for kind in ('cosine', 'constant'):
    cfg = tiny(
      'simsiam', weight_decay=1e-2, learning_rate_schedule=kind,
      constant_predictor_rate=kind == 'cosine',
    )  # fmt: skip
    state = make_state(plan_of(cfg, 100))
    state.optimizer.iterations.assign(80)
    step = compiled_step(state, optimizers.learning_rate(plan_of(cfg)))
    runs.append((state.method, step))
  (falls, step), (stays, other) = runs
  # The last BN of a block starts at gamma 0, which hides what is before it.
  for v in falls.trainable_variables:
    v.assign_add(0.01 * tf.random.normal(v.shape))
  for _ in range(2):
    for a, b in zip(falls.variables, stays.variables, strict=True):
      b.assign(a)
    before = values(falls.predictor, falls.encoder)
    step(batch)
    other(batch)
    found = values(falls.predictor, falls.encoder)
    expected = values(stays.predictor, stays.encoder)
    count = len(values(falls.predictor))
    for i, (old, a, b) in enumerate(zip(before, found, expected, strict=True)):
      assert not np.array_equal(old, a)
      if i < count:
        np.testing.assert_allclose(a - old, b - old, rtol=1e-3, atol=1e-7)
      else:
        assert np.linalg.norm(a - old) < 0.2 * np.linalg.norm(b - old)
