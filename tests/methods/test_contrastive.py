"""CMC and MoCo: their losses, the queue, the twin, what each network learns."""

import numpy as np
import pytest
import tensorflow as tf

import model
import oracles
from cvr import methods
from cvr.methods import towers
from small_data import plan_of
from tiny_methods import BATCH, make, make_batch, tiny

pytestmark = pytest.mark.usefixtures('tiny_encoder')
AT = tf.constant(3, tf.int64)


def float32(*arrays):
  return [tf.constant(a, tf.float32) for a in arrays]


# CMC --------------------------------------------------------------------------


def test_cmc_takes_its_negatives_from_the_other_network_alone():
  rng = np.random.default_rng(0)
  h1, h2 = (oracles.unit_rows(rng, BATCH, 8) for _ in range(2))
  method = methods.METHODS['cmc'](plan_of(tiny('cmc', temperature=0.07)))
  embeddings = {'projection': float32(h1, h2), 'probed': tf.zeros([BATCH, 2])}
  output = method.objective(embeddings, AT)

  def similarity(a, b):
    return a @ b / 0.07

  expected = [
    oracles.cross_entropies(similarity, a, b).mean()
    for a, b in ((h1, h2), (h2, h1))
  ]
  assert float(output.loss) == pytest.approx(sum(expected), rel=1e-5)
  assert output.features.shape == (BATCH, 2)


@pytest.mark.parametrize(
  'pair, sees', [('lab_l,lab_ab', False), ('rgb,rgb', True)]
)
def test_parts_are_of_one_view_and_whole_images_of_two(pair, sees):
  method = make(tiny('cmc', view_pairs=pair))
  batch = make_batch(np.random.default_rng(1))
  first, second = batch['views']
  found = [
    method.encode((first, other), AT)['projection'] for other in (second, first)
  ]
  np.testing.assert_array_equal(found[0][0], found[1][0])
  assert np.array_equal(found[0][1], found[1][1]) != sees


def test_half_of_what_is_embedded_is_of_each_network():
  """And finetuning finds the networks without the method."""
  settings = {'view_pairs': 'rgb,ycbcr_y', 'ft_proj_selector': 1}
  method = make(tiny('cmc', **settings))
  tuned = make(
    tiny(
      train_mode='finetune', checkpoint='a', fine_tune_after_block=3, **settings
    )
  )
  assert isinstance(tuned, methods.Finetune)
  for a, b in zip(
    method.encoder.variables + method.projector.variables,
    tuned.encoder.variables + tuned.projector.variables,
    strict=True,
  ):
    b.assign(a)
  (view, _) = make_batch(np.random.default_rng(2))['views']
  embedded = tuned.embed(view)
  for k, part in enumerate(method.encoder.parts):
    tower = method.encoder.towers[k]
    plain = view * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    h = tower(towers.PARTS[part](plain))
    layers = method.projector.heads[k](h)
    for found, expected in zip(embedded['layers'], layers, strict=True):
      half = tf.split(found, 2, -1)[k]
      np.testing.assert_allclose(half, expected, rtol=1e-3, atol=1e-4)
  trained = [v for layer in tuned.trained() for v in layer.trainable_variables]
  expected = [
    v
    for tower, head in zip(
      tuned.encoder.towers, tuned.projector.heads, strict=True
    )
    for layer in (tower.stages[4], head.layers_out[0])
    for v in layer.trainable_variables
  ]
  assert {v.ref() for v in trained} == {v.ref() for v in expected}
  # Their types are known to whoever decays them.
  groups = model.variable_groups(*tuned.trained())
  assert len(groups.kernels + groups.norms + groups.biases) == len(expected)


# MoCo -------------------------------------------------------------------------


@pytest.fixture
def moco():
  """-> a method whose queue has three batches' keys."""
  return lambda **more: make(tiny('moco', queue_size=3 * BATCH, **more))


def test_moco_finds_the_key_of_its_other_view_in_the_queue(moco):
  rng = np.random.default_rng(3)
  method = moco(temperature=0.2)
  queue, query, key = (
    oracles.unit_rows(rng, rows, 8) for rows in (3 * BATCH, BATCH, BATCH)
  )
  method.queue.assign(queue)
  query_, key_ = float32(query, key)
  embeddings = {'query': query_, 'key': key_, 'probed': query_}
  output = method.objective(embeddings, AT)
  rows = oracles.queue_cross_entropies(
    lambda a, b: a @ b / 0.2, query, key, queue
  )
  assert float(output.loss) == pytest.approx(rows.mean(), rel=1e-5)
  np.testing.assert_array_equal(output.carry['key'], key_)


def test_chance_is_one_key_of_the_queue_and_its_own(moco):
  expected = np.log(3 * BATCH + 1)
  assert moco().chance() == {'contrast_loss': pytest.approx(expected)}


def test_query_and_key_are_of_one_view_each(moco):
  method = moco()
  first, second = make_batch(np.random.default_rng(4))['views']
  found = method.encode((first, second), AT)
  # The twin is a copy when it starts, and sees its batch as training does.
  query = method.encode((second, first), AT)['query']
  np.testing.assert_allclose(found['key'], query, atol=1e-5)
  assert not np.allclose(found['key'], found['query'], atol=1e-2)


def test_the_queue_begins_as_directions_of_the_seed(moco):
  queues = [moco(seed=seed).queue.numpy() for seed in (1, 1, 2)]
  np.testing.assert_allclose(np.linalg.norm(queues[0], axis=1), 1, rtol=1e-5)
  np.testing.assert_array_equal(queues[0], queues[1])
  assert not np.allclose(queues[0], queues[2], atol=0.1)


def test_the_queue_keeps_the_newest_keys_in_their_order(moco):
  method = moco()
  rng = np.random.default_rng(5)
  start = method.queue.numpy()
  keys = [oracles.unit_rows(rng, BATCH, 8) for _ in range(5)]
  contents = []
  for step, rows in enumerate(keys):
    method.after_update(tf.constant(step, tf.int64), {'key': float32(rows)[0]})
    contents.append(method.queue.numpy())

  def queue(*parts):
    return np.concatenate(parts).astype(np.float32)

  np.testing.assert_array_equal(contents[0], queue(keys[0], start[BATCH:]))
  np.testing.assert_array_equal(contents[2], queue(*keys[:3]))
  np.testing.assert_array_equal(contents[4], queue(keys[3], keys[4], keys[2]))


@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
def test_the_twin_of_moco_starts_as_a_copy_and_follows(moco, schedule):
  method = moco(ema_alpha=0.9, ema_schedule=schedule)
  online = [method.encoder, method.projector]
  twin = [method.target_encoder, method.target_projector]

  def weights(layers):
    return [v.numpy() for layer in layers for v in layer.trainable_variables]

  before = weights(online)
  for a, b in zip(before, weights(twin), strict=True):
    np.testing.assert_array_equal(a, b)
  for layer in online:
    for v in layer.trainable_variables:
      v.assign_add(tf.ones_like(v))
  # In the middle of ten steps the cosine has done half of its way to 1.
  decay = {'constant': 0.9, 'cosine': 0.95}[schedule]
  step = tf.constant(5, tf.int64)
  method.after_update(step, {'key': tf.zeros([BATCH, 8])})
  assert float(method.ema(step)) == pytest.approx(decay, rel=1e-6)
  for a, b in zip(before, weights(twin), strict=True):
    np.testing.assert_allclose(b, a + 1 - decay, rtol=1e-4, atol=1e-5)


def test_the_head_of_moco_has_biases_in_place_of_batch_norm(moco):
  method = moco(proj_head_hidden='relu')
  groups = model.variable_groups(method.projector)
  assert not groups.norms
  assert [v.shape for v in groups.biases] == [16]
