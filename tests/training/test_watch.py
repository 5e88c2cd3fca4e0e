"""The held-out pairs, and what is made of them for every method."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from cvr import methods
from cvr.configs.config import Config
from cvr.data import sources
from cvr.training import health, watch
from cvr.training.monitor import Monitor
from small_data import METHOD_SETTINGS, encoded, plan_of, write

pytestmark = pytest.mark.usefixtures('glance')

ROWS = 6
NAMES = {
  *('information/entropy', 'information/reconstruction'),
  *('information/er_bound', 'information/infonce_bound'),
  *('information/residual', 'health/feature_std', 'health/effective_rank'),
  *('health/alignment', 'health/uniformity'),
}


def tiny(loss='contrastive', **changes):
  settings = {
    'pretrain_loss': loss,
    'image_size': 16,
    'resnet_depth': 18,
    'proj_head_hidden_dim': 16,
    'proj_out_dim': 8,
    'train_batch_size': 8,
    'kappa_e': 64.0,
    'use_blur': False,
  }
  return Config(**settings | METHOD_SETTINGS.get(loss, {}) | changes)


def make(cfg, strategy=None):
  """A method whose last batch norms do not hide what is before them."""
  strategy = strategy or tf.distribute.get_strategy()
  keras.utils.set_random_seed(0)
  rng = np.random.default_rng(0)
  with strategy.scope():
    method = methods.make_method(plan_of(cfg, 10, 2, examples=22))
    for v in method.trainable_variables:
      v.assign_add(0.1 * rng.normal(size=v.shape).astype(np.float32))
  return method


def some_views(rows=ROWS):
  rng = np.random.default_rng(1)
  return [rng.random((rows, 16, 16, 3), np.float32) for _ in range(2)]


def look(method, views=None, rows=ROWS, strategy=None):
  strategy = strategy or tf.distribute.get_strategy()
  return watch.make_look(strategy, method, views or some_views(), rows)


def views_of(folder, **changes):
  cfg = tiny(dataset=f'folder:{folder}', **changes)
  return watch.held_out(plan_of(cfg), sources.describe(cfg.dataset))


def test_the_pairs_depend_on_the_images_alone(folder):
  """Another run, or the same one resumed, sees the same."""
  views, split = views_of(folder)
  assert split == 'validation'
  assert [view.shape for view in views] == [(7, 16, 16, 3)] * 2
  again, _ = views_of(folder, seed=5, train_batch_size=2, pretrain_loss='byol')
  np.testing.assert_array_equal(views, again)
  # Two views of the same images: of one colour each, but for the jitter.
  assert not np.array_equal(*views)
  fewer, _ = views_of(folder, health_pairs=4)
  assert fewer[0].shape[0] == 4


def test_without_an_evaluation_split_training_images_do(tmp_path):
  for i in range(5):
    image = np.full([8, 8, 3], 40 * i, np.uint8)
    write(f'{tmp_path}/{i}.png', tf.io.encode_png(image).numpy())
  write(f'{tmp_path}/broken.png', b'\x89PNG and nothing else')
  views, split = views_of(tmp_path, no_augmentation=True)
  assert split == 'train'
  # What cannot be decoded is left out, and not another image instead.
  colours = sorted(views[0].mean((1, 2, 3)))
  assert len(colours) == 5 and min(np.diff(colours)) > 0.1


def test_a_split_without_two_good_images_is_not_watched(tmp_path):
  for split in ('train', 'validation'):
    write(f'{tmp_path}/{split}/x/a.png', b'\x89PNG and nothing else')
    write(f'{tmp_path}/{split}/x/b.png', encoded(9))
  cfg = tiny(dataset=f'folder:{tmp_path}', no_augmentation=True)
  said = io.StringIO()
  monitor = Monitor(str(tmp_path), stream=said)
  info = sources.describe(cfg.dataset)
  watching = watch.make_watch(plan_of(cfg), None, make(cfg), info, monitor)
  assert watching(10, {}) == ({}, (), False)
  assert 'No watched images' in said.getvalue()


def test_looks_at_the_same_images_and_changes_nothing():
  method = make(tiny('byol'))
  before = [v.numpy() for v in method.variables]
  see = look(method)
  first = see()
  for v, old in zip(method.variables, before, strict=True):
    np.testing.assert_array_equal(v, old)
  kernel = method.encoder.trainable_variables[0]
  kernel.assign_add(0.1 * tf.ones_like(kernel))
  assert see() != first
  kernel.assign(before[0])
  assert see() == first


@pytest.mark.parametrize('head', ['nonlinear', 'none'])
def test_what_is_measured_are_embeddings_at_evaluation(head, tiny_encoder):
  """Without a head the representation is the projection."""
  method, views = make(tiny(proj_head_mode=head)), some_views()
  both = [method.embed(view) for view in views]
  h, z = (
    np.stack([e[name].numpy().astype(np.float64) for e in both], 1)
    for name in ('representation', 'projection')
  )
  assert look(method)() == pytest.approx(health.measure(h, z), rel=1e-4)


@pytest.mark.parametrize('loss', ['contrastive_ceb', 'byol_ceb'])
def test_slices_and_replicas_see_what_one_sees(loss, two_replicas):
  whole = look(make(tiny(loss)))()
  sliced = look(make(tiny(loss)), rows=4)()
  assert sliced == pytest.approx(whole, rel=1e-5)
  replicated = make(tiny(loss), two_replicas)
  found = look(replicated, strategy=two_replicas)()
  assert found == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize('loss', methods.METHODS)
def test_every_method_is_watched(loss, tmp_path, folder):
  """By the same numbers, from the watch to the file."""
  cfg = tiny(loss, dataset=f'folder:{folder}', no_augmentation=True)
  info = sources.describe(cfg.dataset)
  said = io.StringIO()
  monitor = Monitor(str(tmp_path / 'run'), stream=said)
  strategy = tf.distribute.get_strategy()
  watching = watch.make_watch(plan_of(cfg), strategy, make(cfg), info, monitor)
  assert 'pairs of views' not in said.getvalue()
  monitor.summary(10, watching(10, {}).metrics)
  assert '7 pairs of views' in said.getvalue()
  row = json.loads((tmp_path / 'run' / 'metrics.jsonl').read_text())
  assert NAMES <= row.keys()
  assert all(np.isfinite(row[name]) for name in NAMES)
  # Without augmentation both views are one.
  assert row['health/alignment'] == pytest.approx(0, abs=1e-5)
  assigns = 'information/assignment_entropy' in row
  discrete = ('swav', 'deepcluster', 'dino', 'er_dino', 'entrec_disc')
  assert assigns == (loss in discrete)


@pytest.mark.parametrize(
  'loss, double',
  [
    ('contrastive', True),
    ('contrastive', False),
    ('contrastive_ceb', True),
    ('contrastive_ceb', False),
    ('cmc', True),
    ('moco', True),
  ],
)
def test_where_all_images_look_alike_the_loss_is_that_of_chance(loss, double):
  cfg = tiny(loss, double_batch_trick=double, ceb_sampling=False)
  method = make(cfg)
  at = tf.constant(3, tf.int64)
  # One row for all, after the network: batch norm would enlarge the rounding
  # by which equal images differ in it.
  embeddings = tf.nest.map_structure(
    lambda rows: tf.repeat(rows[:1], tf.shape(rows)[0], 0),
    method.encode(some_views(8)[:1] * 2, at),
  )
  if loss == 'moco':
    key = embeddings['key'][:1]
    method.queue.assign(tf.repeat(key, cfg.queue_size, 0))
  metrics = method.objective(embeddings, at).metrics
  ((name, value),) = method.chance().items()
  assert float(metrics[name]) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
  'loss, changes',
  [
    ('contrastive_ceb', {}),
    ('contrastive_ceb', {'ceb_distribution': 'gaussian', 'sigma_b': 1.5}),
    ('byol_ceb', {'backward_view': 'same'}),
    ('byol_ceb', {'backward_view': 'other'}),
    ('byol_ceb', {'ceb_distribution': 'gaussian', 'gaussian_scale': 'learned'}),
  ],
)
def test_the_rate_is_the_mean_of_what_a_step_samples(loss, changes):
  method, views = make(tiny(loss, **changes)), some_views()
  found = method.rate([method.embed(view) for view in views], views)
  assert found.shape == (ROWS,)
  embeddings = method.encode(views, tf.constant(0, tf.int64), training=False)

  @tf.function(autograph=False)
  def sampled(step):
    """The rates of both directions by the objective, z drawn anew."""
    rows = dict(embeddings)
    if loss == 'byol_ceb':
      width = method.ceb.noise_dim
      rows['z'] = [
        method.ceb.sample(mu, method.noise(step, salt, ROWS, width))
        for salt, mu in enumerate(rows['mu'])
      ]
    metrics = method.objective(rows, step).metrics
    return (metrics['i_xzx_y'] + metrics['i_yzy_x']) / 2

  draws = np.array([sampled(tf.constant(s, tf.int64)) for s in range(400)])
  error = draws.std() / np.sqrt(len(draws))
  assert float(tf.reduce_mean(found)) == pytest.approx(
    draws.mean(), abs=4 * error
  )


@pytest.mark.parametrize('loss', ['swav', 'deepcluster', 'dino'])
def test_where_all_prototypes_are_alike_the_loss_is_that_of_chance(loss):
  method = make(tiny(loss))
  for part in {
    'swav': lambda: [method.prototypes.kernel],
    'dino': lambda: [
      method.prototypes.kernel,
      method.target_prototypes.kernel,
    ],
    'deepcluster': lambda: [method.centroids],
  }[loss]():
    part.assign(tf.ones_like(part))
  at = tf.constant(3, tf.int64)
  rows = method.encode(some_views(8), at) | {
    'index': tf.range(8, dtype=at.dtype)
  }
  metrics = method.objective(rows, at).metrics
  assert len(method.chance()) == (2 if loss == 'dino' else 1)
  for name, value in method.chance().items():
    assert float(metrics[name]) == pytest.approx(value, rel=1e-5)


def softmax(scores):
  exps = np.exp(scores - scores.max(-1, keepdims=True))
  return exps / exps.sum(-1, keepdims=True)


@pytest.mark.parametrize('loss', ['swav', 'deepcluster', 'dino', 'entrec_disc'])
def test_probabilities_are_those_that_the_objective_compares(loss):
  method, (view, other) = make(tiny(loss)), some_views()
  embedded = method.encode([view, other], tf.constant(0, tf.int64), False)
  tau = method.cfg.temperature
  if loss == 'deepcluster':
    z, c = embedded['projection'][0].numpy(), method.centroids.numpy()
    expected = softmax(np.stack([z @ head.T for head in c], 1) / tau)
    assert expected.shape == (ROWS, 3, 4)
  elif loss == 'entrec_disc':
    expected = np.exp(embedded['projection'][0])
  else:
    name = {'swav': 'scores', 'dino': 'student'}[loss]
    expected = softmax(embedded[name][0].numpy() / tau)
  found = method.probabilities(method.embed(view)['projection'])
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_run_settles_later_where_prototypes_stand_still_or_a_queue_fills(
  folder, tmp_path, monkeypatch
):
  settled = []
  monkeypatch.setattr(
    health, 'Reporter', lambda *args: settled.append(args[-1])
  )
  for loss, changes in (
    ('contrastive', {}),
    ('swav', {'freeze_prototypes_steps': 140}),
    ('moco', {'queue_size': 1600}),
  ):
    cfg = tiny(
      loss, dataset=f'folder:{folder}', no_augmentation=True, **changes
    )
    quiet = Monitor(str(tmp_path), stream=io.StringIO())
    info = sources.describe(cfg.dataset)
    strategy = tf.distribute.get_strategy()
    watch.make_watch(plan_of(cfg, warmup=3), strategy, make(cfg), info, quiet)
  assert settled == [100, 140, 200]


def test_assignments_of_a_method_that_has_them():
  """Their entropy is that of the mean over all rows of both views."""
  method = make(tiny())
  method.probabilities = lambda z: tf.nn.softmax(z[:, None, :] * [[1.0], [9.0]])
  found = look(method, rows=4)()
  rows = [
    method.probabilities(method.embed(v)['projection']) for v in some_views()
  ]
  mean = np.mean(np.concatenate(rows), 0, dtype=np.float64)
  entropy = np.mean(-np.sum(mean * np.log(mean), -1))
  assert mean.shape == (2, 8)
  assert found['information/assignment_entropy'] == pytest.approx(entropy)


def test_who_is_watched(folder, tmp_path):
  cfg = tiny(dataset=f'folder:{folder}')
  info = sources.describe(cfg.dataset)

  def watching(chief=True, **changes):
    quiet = Monitor(str(tmp_path), chief, io.StringIO())
    changed = tiny(dataset=cfg.dataset, **changes)
    return watch.make_watch(plan_of(changed), None, None, info, quiet)

  for nothing in ({'health_pairs': 0}, {'train_summary_steps': 0}):
    assert watching(**nothing) is None
  assert watching(train_mode='finetune') is None
  # The other workers neither read images nor look.
  assert watching(chief=False)(10, {}) == ({}, (), False)


@pytest.mark.parametrize('images', [True, False])
def test_tensorboard_sees_what_is_watched(folder, tmp_path, images):
  cfg = tiny(
    dataset=f'folder:{folder}', no_augmentation=True, summary_images=images
  )
  monitor = Monitor(str(tmp_path), stream=io.StringIO())
  seen = []
  monitor.show = lambda *args: seen.append(args)
  info = sources.describe(cfg.dataset)
  strategy = tf.distribute.get_strategy()
  watching = watch.make_watch(plan_of(cfg), strategy, make(cfg), info, monitor)
  numbers = [watching(step, {}).metrics for step in (10, 20)]
  if not images:
    assert not seen
    return
  (first, pictures, values), (second, no_pictures, _) = seen
  assert (first, second, no_pictures) == (10, 20, {})
  (pairs,) = pictures.values()
  assert pairs.shape == (7, cfg.image_size, 2 * cfg.image_size, 3)
  assert pairs.min() >= 0 and pairs.max() <= 1
  # The value of the pixels is the index, without the normalisation.
  colours = np.sort(np.median(pairs, (1, 2, 3))) * 255
  np.testing.assert_allclose(colours, np.arange(7), atol=1)
  same, other, spectrum = values.values()
  # Without augmentation both views are one.
  assert same == pytest.approx(1, abs=1e-5) and other.shape == (42,)
  rank = health.rank_of(10**spectrum)
  assert rank == pytest.approx(numbers[0]['health/effective_rank'], rel=1e-6)


def test_rows_that_are_no_numbers_have_no_histograms():
  rows = np.ones([4, 2, 3])
  rows[2, 1, 0] = np.nan
  assert health.distributions_of(rows, np.ones([4, 2, 3])) == {}
