"""SwAV and DeepCluster-v2: losses, queue, memory, clusters, replicas, resuming.

tests/test_methods.py has their gradients, and whole steps.
"""

import numpy as np
import pytest
import tensorflow as tf

import oracles
from cvr import methods
from cvr.configs.config import ConfigError
from cvr.methods import skeletons
from cvr.numerics import clustering
from on_replicas import on_replicas
from small_data import plan_of
from tiny_methods import SIZE, make, tiny

pytestmark = pytest.mark.usefixtures('tiny_encoder')
DIM = 8


def unit(rng, *shape):
  x = rng.normal(size=(*shape, DIM))
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def embeddings_of(method, crops, index=None):
  """What encode() gives of crops whose embeddings are these."""
  z = [tf.cast(crop, tf.float32) for crop in crops]
  found = {'projection': z, 'probed': z[:2]}
  if index is not None:
    return found | {'index': tf.cast(index, tf.int64)}
  return found | {'scores': [method.prototypes(x) for x in z]}


def with_queue(queue, **changes):
  """A SwAV whose queue is full at step 2, and its prototypes [K, d]."""
  changes = {'queue_size': len(queue), 'train_batch_size': 4} | changes
  method = make(tiny('swav', **changes))
  method.queue.assign(queue)
  return method, method.prototypes.vectors().numpy().T.astype(np.float64)


def objective(method, crops, step=2, index=None):
  found = embeddings_of(method, crops, index)
  return method.objective(found, tf.constant(step, tf.int64))


@pytest.mark.parametrize('crops, rows', [(2, 7), (4, 7), (2, 0)])
def test_swav_matches_the_transcription(crops, rows):
  """Until the queue is full its rows take no part in the balance."""
  rng = np.random.default_rng(crops)
  queue, z = unit(rng, rows, 2), [unit(rng, 4) for _ in range(crops)]
  method, prototypes = with_queue(queue, sinkhorn_epsilon=0.2)
  for step, kept in ((2, queue), (1, queue[:0])):
    found = objective(method, z, step)
    loss, codes = oracles.swav(z, prototypes, kept, 0.2, 3, 0.1)
    assert float(found.loss) == pytest.approx(loss, rel=1e-5)
    taken = np.concatenate(codes).argmax(1)
    p = np.bincount(taken) / len(taken)
    entropy = -sum(x * np.log(x) for x in p if x)
    assert float(found.metrics['prototypes_used']) == len({*taken})
    measured = float(found.metrics['prototype_entropy'])
    assert measured == pytest.approx(entropy, abs=1e-6)
    np.testing.assert_allclose(found.features, np.concatenate(z[:2]), rtol=1e-6)


def test_gradients_of_swav():
  """To embeddings and prototypes; none through the codes."""
  rng = np.random.default_rng(5)
  queue, z = unit(rng, 4, 2), [unit(rng, 4) for _ in range(3)]
  method, prototypes = with_queue(queue)
  _, codes = oracles.swav(z, prototypes, queue, 0.05, 3, 0.1)

  def loss(crops, kernel):
    c = kernel / np.linalg.norm(kernel, axis=0)
    logits = [x @ c / 0.1 for x in crops]
    return oracles.cross_entropy_across_views(codes, logits)

  rows = tf.constant(np.stack(z), tf.float32)
  kernel = method.prototypes.kernel
  with tf.GradientTape() as tape:
    tape.watch(rows)
    total = objective(method, tf.unstack(rows)).loss
  found = tape.gradient(total, [rows, kernel])
  start = kernel.numpy().astype(np.float64)
  expected = [
    oracles.finite_difference(lambda x: loss(x, start), np.stack(z)),
    oracles.finite_difference(lambda x: loss(z, x), start),
  ]
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('size', [3, 10])
def test_the_queue_has_the_newest_rows(size):
  """A batch may be more than it holds."""
  method, _ = with_queue(np.zeros([size, 2, DIM]))
  past = np.zeros([0, 2, DIM])
  for step in range(4):
    z = [unit(np.random.default_rng(10 * step + i), 4) for i in range(2)]
    method.after_update(step, objective(method, z, step).carry)
    past = np.concatenate([np.stack(z, 1), past])
    kept = past[:size]
    np.testing.assert_allclose(method.queue[: len(kept)], kept, rtol=1e-6)
    assert not np.any(method.queue[len(kept) :])


def test_prototypes_keep_their_bits_until_they_may_move():
  method = make(tiny('swav', freeze_prototypes_steps=2))
  kernel = method.prototypes.kernel
  kernel.assign(1.7 * kernel)
  start = kernel.numpy()
  for step in range(2):
    method.after_update(tf.constant(step, tf.int64), {})
    np.testing.assert_array_equal(kernel, start)
  held = [
    [(layer, bool(stays)) for layer, stays in method.held(step)]
    for step in (1, 2)
  ]
  assert held == [[(method.prototypes, True)], [(method.prototypes, False)]]
  method.after_update(tf.constant(2, tf.int64), {})
  np.testing.assert_allclose(tf.norm(kernel, axis=0), 1, rtol=1e-6)
  np.testing.assert_allclose(
    kernel, start / np.linalg.norm(start, axis=0), rtol=1e-6
  )


def test_a_queue_on_two_replicas(two_replicas):
  """Each has its own half of the queue's rows, and no row comes twice."""
  rng = np.random.default_rng(6)
  queue = unit(rng, 6, 2).astype(np.float32)
  z = unit(rng, 2, 4).astype(np.float32)

  def made():
    return with_queue(queue)[0]

  alone = made()
  expected = objective(alone, z)
  alone.after_update(2, expected.carry)
  with two_replicas.scope():
    method = made()

  def step(crops):
    found = objective(method, tf.unstack(crops))
    method.after_update(2, found.carry)
    return found.loss, found.metrics['prototype_entropy']

  losses, entropies = on_replicas(two_replicas, step, [z[:, :2], z[:, 2:]])
  assert np.mean(losses) == pytest.approx(float(expected.loss), rel=1e-5)
  assert losses[0] != losses[1]
  np.testing.assert_allclose(
    entropies, float(expected.metrics['prototype_entropy']), rtol=1e-6
  )
  for copy in method.queue.values:
    np.testing.assert_array_equal(copy, alone.queue)


def test_crops_of_two_sizes_and_one_batch_for_the_projector():
  rng = np.random.default_rng(7)
  sizes = [SIZE, SIZE, 12, 12, 12]
  views = [
    tf.constant(rng.random((2, size, size, 3)), tf.float32) for size in sizes
  ]
  method = make(tiny('swav', local_crops=3, local_size=12))
  at = tf.constant(0, tf.int64)
  found = method.encode(views, at, training=False)
  assert len(found['projection']) == len(found['scores']) == 5
  for view, z, s in zip(
    views, found['projection'], found['scores'], strict=True
  ):
    projection = method.embed(view)['projection']
    expected = projection / tf.norm(projection, axis=1, keepdims=True)
    np.testing.assert_allclose(z, expected, atol=1e-5)
    cosines = tf.matmul(expected, method.prototypes.vectors())
    np.testing.assert_allclose(s, cosines, atol=1e-5)
  # The probe reads the global ones.
  assert [p.shape for p in found['probed']] == [(2, 64)] * 2
  norm = method.projector.layers_out[0].norm
  norm.moving_mean.assign(tf.zeros_like(norm.moving_mean))
  method.encode(views, at)
  h = skeletons.by_resolution(lambda x: method.encoder(x, training=True), views)
  mean = tf.reduce_mean(
    method.projector.layers_out[0].dense(tf.concat(h, 0)), 0
  )
  np.testing.assert_allclose(norm.moving_mean, 0.1 * mean, atol=1e-5)


def clusters_of(examples=12, **changes):
  """A DeepCluster of some examples with a memory -> (method, memory)."""
  memory = unit(np.random.default_rng(8), 2, examples).astype(np.float32)
  cfg = tiny('deepcluster', kmeans_iterations=3, **changes)
  method = methods.make_method(plan_of(cfg, 10, 0, examples=examples))
  for variable, rows in zip(method.memory, memory, strict=True):
    variable.assign(rows)
  return method, memory


def test_deepcluster_matches_the_transcription():
  rng = np.random.default_rng(9)
  method, _ = clusters_of()
  centroids, z = unit(rng, 3, 4), np.stack([unit(rng, 5) for _ in range(3)])
  assignments = rng.integers(0, 4, (12, 3))
  method.centroids.assign(centroids)
  method.assignments.assign(assignments)
  index = [7, 0, 11, 3, 7]

  def loss(crops):
    return oracles.deepcluster(crops, centroids, assignments[index], 0.1)

  rows = tf.constant(z, tf.float32)
  with tf.GradientTape() as tape:
    tape.watch(rows)
    found = objective(method, tf.unstack(rows), index=index)
  assert float(found.loss) == pytest.approx(loss(z), rel=1e-5)
  np.testing.assert_allclose(
    tape.gradient(found.loss, rows),
    oracles.finite_difference(loss, z),
    rtol=1e-3,
    atol=1e-5,
  )
  nearest = np.einsum('hkd,cbd->cbhk', centroids, z).argmax(-1)
  right = np.mean(nearest == assignments[index])
  assert float(found.metrics['cluster_acc']) == pytest.approx(right)
  np.testing.assert_array_equal(found.carry['index'], index)


def test_an_epoch_begins_with_clusters_of_both_memories():
  method, memory = clusters_of()
  seen = []
  for epoch in (0, 1):
    method.on_epoch(tf.constant(epoch, tf.int64))
    used, entropies = [], []
    for head, crop in enumerate([0, 1, 0]):
      start = clustering.random_rows(memory[crop], 4, [head + 1, epoch])
      seen.append(start.numpy())
      centroids, assigned, _ = oracles.spherical_kmeans(
        memory[crop].astype(np.float64), start.numpy(), 3
      )
      np.testing.assert_allclose(method.centroids[head], centroids, atol=1e-5)
      np.testing.assert_array_equal(method.assignments[:, head], assigned)
      p = np.bincount(assigned) / 12
      used.append(np.sum(p > 0))
      entropies.append(-sum(x * np.log(x) for x in p if x))
    expected = [np.mean(used), np.mean(entropies)]
    np.testing.assert_allclose(method.usage, expected, rtol=1e-6)
  # Every clustering begins with rows of its own.
  assert len({start.tobytes() for start in seen}) == 6


def test_the_memory_on_two_replicas(two_replicas):
  """Observed, carried, clustered: what one replica has, the same on both."""
  rng = np.random.default_rng(11)
  rows = unit(rng, 2, 4).astype(np.float32)
  index = [9, 2, 4, 0]
  found, _ = clusters_of()
  expected = found.memory[0].numpy(), found.memory[1].numpy()
  for memory, crop in zip(expected, rows, strict=True):
    memory[index] = crop
  with two_replicas.scope():
    method, _ = clusters_of()

  def step(part):
    where = tf.gather(index, tf.cast(part[0, :, -1], tf.int32))
    z = tf.unstack(part[..., :-1])
    method.observe({'projection': z, 'index': where})
    method.after_update(0, {'index': where, 'embeddings': tf.stack(z, 1)})
    method.on_epoch(tf.constant(1, tf.int64))
    return tf.constant(0)

  places = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None], (2, 4, 1))
  both = np.concatenate([rows, places], -1)
  on_replicas(two_replicas, step, [both[:, :2], both[:, 2:]])
  for memory, e in zip(method.memory, expected, strict=True):
    for copy in memory.values:
      np.testing.assert_array_equal(copy, e)
  for variable, e in zip(found.memory, expected, strict=True):
    variable.assign(e)
  found.on_epoch(tf.constant(1, tf.int64))
  for copy in method.assignments.values:
    np.testing.assert_array_equal(copy, found.assignments)
  np.testing.assert_array_equal(*method.centroids.values)
  np.testing.assert_allclose(
    method.centroids.values[0], found.centroids, atol=1e-6
  )
  np.testing.assert_allclose(method.usage, found.usage, rtol=1e-6)


def test_more_clusters_than_examples_are_refused():
  with pytest.raises(ConfigError, match='--num_prototypes=4: must not .* 3'):
    clusters_of(examples=3)
