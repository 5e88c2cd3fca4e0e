"""ER as the objective: values, limits, and where its gradients go."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import oracles
from tiny_methods import BATCH, make, make_batch, tiny

pytestmark = pytest.mark.usefixtures('tiny_encoder')

DIM, KAPPA = 8, 6.0
AT = tf.constant(0, tf.int64)
VMF = functools.partial(oracles.log_vmf, kappa=KAPPA)


def generalized_gaussian(alpha):
  width = np.sqrt(2 / KAPPA)
  return functools.partial(
    oracles.log_generalized_gaussian, scale=width, alpha=alpha
  )


def tensors(*arrays):
  return [tf.constant(a, tf.float32) for a in arrays]


def make_er(loss, **changes):
  return make(tiny(loss, er_kappa=KAPPA, **changes))


def objective(method, **embeddings):
  """The objective on tensors; what the probe reads does not matter."""
  probed = embeddings.get('projection') or embeddings['prediction']
  return method.objective(embeddings | {'probed': probed[0]}, AT)


@pytest.fixture
def views():
  rng = np.random.default_rng(1)
  z1 = oracles.unit_rows(rng, 6, DIM)
  return z1, oracles.unit_rows(rng, 6, DIM) * 0.3 + z1


def unit(x):
  return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize('plug_in', [False, True])
@pytest.mark.parametrize('leave_one_out', [False, True])
def test_er_simclr_is_the_papers_bound(views, plug_in, leave_one_out):
  z1, z2 = map(unit, views)
  method = make_er(
    'er_simclr',
    er_estimator='plug_in' if plug_in else 'joe',
    er_leave_one_out=leave_one_out,
  )
  found = objective(method, projection=tensors(z1, z2))
  how = {'plug_in': plug_in, 'leave_one_out': leave_one_out}
  assert float(found.loss) == pytest.approx(
    oracles.er(z1, z2, VMF, **how), abs=1e-5
  )
  h = np.mean([oracles.kde_entropy(z, VMF, **how) for z in (z1, z2)])
  rec = -np.mean([VMF(a, b) for a, b in zip(z1, z2, strict=True)])
  metrics = {k: float(v) for k, v in found.metrics.items()}
  assert metrics == pytest.approx(
    {'er_entropy': h, 'er_reconstruction': rec, 'er_bound': h - rec}, abs=1e-5
  )


@pytest.mark.parametrize('alpha', [1.0, 2.0, 3.0])
def test_entrec_cont_is_equation_4(views, alpha):
  z1, z2 = map(unit, views)
  method = make_er('entrec_cont', er_alpha=alpha)
  found = objective(method, projection=tensors(z1, z2))
  h = [oracles.kde_entropy(z, generalized_gaussian(2.0)) for z in (z1, z2)]
  log_q = generalized_gaussian(alpha)
  rec = -np.mean([log_q(a, b) for a, b in zip(z1, z2, strict=True)])
  assert float(found.loss) == pytest.approx(rec - np.mean(h), abs=1e-5)


def test_entrec_cont_of_exponent_2_is_er_simclr_by_joe(views):
  z = tensors(*map(unit, views))

  def loss_and_gradients(method):
    with tf.GradientTape() as tape:
      tape.watch(z)
      found = objective(method, projection=z)
    return found.loss, tape.gradient(found.loss, z)

  ours = loss_and_gradients(make_er('entrec_cont'))
  theirs = loss_and_gradients(make_er('er_simclr', er_estimator='joe'))
  # The normalisers of space and sphere differ; each cancels in its own loss.
  np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
  for a, b in zip(ours[1], theirs[1], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(a).max() > 0.01


def test_entrec_disc_is_equation_7():
  rng = np.random.default_rng(2)
  logits = rng.normal(size=(2, 6, DIM))
  method = make_er('entrec_disc')
  embeddings = [method.location(x) for x in tensors(*logits)]
  found = objective(method, projection=embeddings)
  assert float(found.loss) == pytest.approx(
    oracles.entrec_discrete(*logits), abs=1e-5
  )


def byol_tensors(views):
  rng = np.random.default_rng(3)
  predictions, targets = rng.normal(size=(2, 2, 6, DIM))
  return {
    'projection': tensors(*(3 * v for v in views)),
    'prediction': tensors(*predictions),
    'target': tensors(*targets),
  }


@pytest.mark.parametrize('of', ['projection', 'prediction'])
@pytest.mark.parametrize('estimator', ['joe', 'plug_in'])
def test_er_byol_is_reconstruction_of_the_twin_less_entropy(
  views, of, estimator
):
  method = make_er('er_byol', er_entropy_of=of, er_estimator=estimator)
  embeddings = byol_tensors(views)
  found = objective(method, **embeddings)
  rows = {k: [unit(x.numpy()) for x in v] for k, v in embeddings.items()}
  rec = -np.mean(
    [
      VMF(y, p)
      for view in (0, 1)
      for p, y in zip(
        rows['prediction'][view], rows['target'][1 - view], strict=True
      )
    ]
  )
  plug_in = estimator == 'plug_in'
  h = np.mean([oracles.kde_entropy(z, VMF, plug_in) for z in rows[of]])
  assert float(found.loss) == pytest.approx(rec - h, abs=1e-5)
  # Reconstruction is affine in BYOL's loss.
  distance = oracles.byol(*rows['prediction'], *rows['target'], 1.0)
  (p, _), (_, y) = rows['prediction'], rows['target']
  first = np.mean(2 - 2 * np.sum(np.array(p) * np.array(y), 1))
  assert float(found.metrics['byol_loss']) == pytest.approx(first, rel=1e-5)
  peak = VMF(np.eye(DIM)[0], np.eye(DIM)[0])
  assert rec == pytest.approx(KAPPA / 4 * distance - peak, abs=1e-6)


@pytest.mark.parametrize('of', ['projection', 'prediction'])
def test_the_entropy_of_er_byol_pulls_at_the_online_rows_alone(views, of):
  method = make_er('er_byol', er_entropy_of=of)
  embeddings = byol_tensors(views)
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(embeddings)
    metrics = objective(method, **embeddings).metrics
  for name in ('projection', 'prediction'):
    pulls = [tape.gradient(metrics['er_entropy'], x) for x in embeddings[name]]
    for pull in pulls:
      assert (pull is not None) == (name == of)
      assert pull is None or np.abs(pull).max() > 1e-3
  # In the method the twin's rows come without gradient; nothing else stops.
  batch = make_batch(np.random.default_rng(4), 4)
  twins = method.target_encoder.trainable_variables
  twins += method.target_projector.trainable_variables
  with tf.GradientTape() as tape:
    loss = method.objective(method.encode(batch['views'], AT), AT).loss
  assert all(g is None for g in tape.gradient(loss, twins))


@pytest.mark.parametrize('local', [0, 1])
def test_er_dino_is_dino_without_a_centre_less_the_students_entropy(local):
  rng = np.random.default_rng(6)
  student, teacher = (
    rng.normal(size=(2 + local, 6, 12)),
    rng.normal(size=(2, 6, 12)),
  )
  method = make_er('er_dino', temperature=0.5, teacher_temperature=0.2)
  found = method.objective(
    {
      'student': tensors(*student),
      'teacher': tensors(*teacher),
      'probed': tf.zeros([6, 1]),
    },
    AT,
  )
  rec = oracles.dino(student, teacher, np.zeros(12), 0.5, 0.2)
  h = np.mean(
    [
      oracles.discrete_entropy(oracles.softmax_rows(s / 0.5).mean(0))
      for s in student[:2]
    ]
  )
  metrics = {k: float(v) for k, v in found.metrics.items()}
  assert float(found.loss) == pytest.approx(rec - h, abs=1e-5)
  assert metrics['er_entropy'] == pytest.approx(h, abs=1e-5)
  assert metrics['dino_loss'] == pytest.approx(rec, abs=1e-5)
  # The centre stays where it is, but for those who ask for it.
  for asked, moves in ((None, False), (True, True)):
    method = make_er('er_dino', centring=asked)
    method.after_update(AT, {'logits': tf.ones([1, 12])})
    assert bool(np.any(method.centre.numpy())) == moves


def test_collapsed_rows_lose_all_that_entropy_can_lose():
  """-(logC + kappa) exactly, where a batch of B could win log B."""
  one = np.repeat(oracles.unit_rows(np.random.default_rng(5), 1, DIM), BATCH, 0)
  method = make_er('er_simclr')
  metrics = objective(method, projection=tensors(one, one)).metrics
  peak = VMF(one[0], one[0])
  assert float(metrics['er_entropy']) == pytest.approx(-peak, abs=1e-5)
  assert float(metrics['er_bound']) == pytest.approx(0, abs=1e-5)
