"""The views of an image: two global crops, and local ones."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import data_util
from cvr.configs import derived
from cvr.configs.config import Config
from cvr.data import augmentation, batches, sources
from cvr.numerics import randomness
from cvr.training import train
from small_data import take_local_crops, write


@pytest.fixture(autouse=True)
def multi_crop(monkeypatch):
  """SimCLR may take local crops."""
  take_local_crops(monkeypatch, 'contrastive')


# Below 20 px a blur has one tap.
SMALL = {'image_size': 32, 'local_size': 20}
# Jitter takes most of the compile time, and test_data_util tests it.
STILL = {'color_jitter_probability': 0.0}


def recipe_of(**changes):
  return derived.augmentation(Config(**SMALL | changes))


def make_image(height=40, width=52, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, [height, width, 3], dtype=np.uint8)


def make_batch(sizes, batch=16, seed=0):
  """A batch as per_image makes it, of noise."""
  rng = np.random.default_rng(seed)
  shape = [batch, len(sizes), len(data_util.DRAWS)]
  return {
    'views': tuple(
      tf.constant(rng.integers(0, 256, [batch, s, s, 3], dtype=np.uint8))
      for s in sizes
    ),
    'draws': tf.constant(rng.random(shape, np.float32)),
  }


# Crops.


@pytest.mark.parametrize('changes', [
  {},
  {'no_augmentation': True},
  {'clip_by_value_after_resizing': False},
])  # fmt: skip
@pytest.mark.parametrize('local', [0, 3])
def test_two_views_are_what_they_are_without_local_ones(changes, local):
  """Bit for bit, from the same random numbers."""
  image, seed = make_image(), tf.constant([3, 11], tf.int64)
  recipe = recipe_of(local_crops=local, **changes)
  made = augmentation.per_image(recipe, 2 + local)(image, seed)
  draws = randomness.uniform([2, len(data_util.DRAWS)], seed)
  np.testing.assert_array_equal(made['draws'][:2], draws)
  boxes = data_util.crop_boxes(image.shape, draws, 0.08, 'logarithmic')
  for view, box in zip(made['views'][:2], boxes, strict=True):
    if changes.get('no_augmentation'):
      levels = data_util.whole_image(image, 32) * 255.0
    else:
      levels = data_util.crop(image.astype(np.float32), box, 32)
    unclipped = 'clip_by_value_after_resizing' in changes
    expected = levels / 255.0 if unclipped else data_util.to_bytes(levels)
    np.testing.assert_array_equal(view, expected)


def sides_of(view):
  """A crop of a ramp, levels [s, s, 3] -> its (height, width) in pixels."""
  size = view.shape[0]
  # Far from the border, where a bicubic resize keeps a line straight.
  low, high = size // 3, 2 * size // 3
  inner = 255 * view[low : high + 1, low : high + 1]
  rows = (inner[-1, :, 0] - inner[0, :, 0]).mean()
  columns = (inner[:, -1, 1] - inner[:, 0, 1]).mean()
  return size / (high - low) * rows, size / (high - low) * columns


@pytest.mark.parametrize('side, local', [(200, 48), (32, 36)])
def test_areas_and_places_of_crops_are_in_their_ranges(side, local):
  """Measured on crops of an image whose colours are its pixel coordinates."""
  recipe = recipe_of(
    local_crops=2,
    local_size=local,
    area_range_lower_bound=0.3,
    area_range_upper_bound=0.5,
    clip_by_value_after_resizing=False,
  )
  ramp = np.stack([*np.indices([side, side]), np.zeros([side, side])], -1)
  augment = tf.function(augmentation.per_image(recipe, 4))
  seeds = tf.constant([[7, i] for i in range(100)], tf.int64)
  made = [augment(ramp.astype(np.uint8), seed) for seed in seeds]
  bounds = [(0.3, 0.5)] * 2 + [(0.05, 0.14)] * 2
  centres = []
  for k, (low, high) in enumerate(bounds):
    views = [f['views'][k].numpy() for f in made]
    assert views[0].shape == ((32, 32, 3) if k < 2 else (local, local, 3))
    sides = np.array([sides_of(view) for view in views])
    # A side is rounded to pixels.
    slack = (sides.sum(1) / 2 + 0.5) / side**2
    areas = sides.prod(1) / side**2
    assert (areas > low - slack).all() and (areas < high + slack).all()
    inside = np.clip((areas - low) / (high - low), 0, 1)
    # The mean of 100 uniform numbers deviates by 0.029.
    assert abs(inside.mean() - 0.5) < 0.12
    aspects = np.log(sides[:, 1] / sides[:, 0])
    assert np.abs(aspects).max() < np.log(4 / 3) + 2 / sides.min()
    middle = views[0].shape[0] // 2
    centres.append([view[middle, middle, :2] for view in views])
  # The positions of an image's views are independent.
  centres = np.reshape(np.transpose(centres, [0, 2, 1]), [8, 100])
  assert np.abs(np.corrcoef(centres) - np.eye(8)).max() < 0.45


def boxes_of_uniform(shape, count, **changes):
  """Crops of an image, one of each of `count` seeds: int [count, 4]."""
  recipe = recipe_of(train_mode='finetune', bbox_sampling='uniform', **changes)
  window = augmentation.window(recipe, 1)
  draw = tf.function(lambda seeds: tf.map_fn(
    lambda seed: tf.stack(window(tf.constant(shape), seed)), seeds, tf.int32
  ))  # fmt: skip
  return draw(tf.constant([[7, i] for i in range(count)], tf.int64)).numpy()


def boxes_of_tensorflow(shape, count, low):
  """The same of the op that SimCLR's code calls, with its arguments."""

  def one(seed):
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
      tf.constant(shape), tf.constant([[[0.0, 0.0, 1.0, 1.0]]]), seed,
      min_object_covered=0.1, aspect_ratio_range=(3 / 4, 4 / 3),
      area_range=(low, 1.0), max_attempts=100,
      use_image_if_no_bounding_boxes=True,
    )  # fmt: skip
    return tf.concat([begin[:2], size[:2]], 0)

  draw = tf.function(lambda seeds: tf.map_fn(one, seeds, tf.int32))
  return draw(tf.constant([[i, 3] for i in range(count)])).numpy()


@pytest.mark.parametrize('height, width, low', [
  (32, 32, 0.08), (224, 224, 0.08), (40, 120, 0.08), (120, 40, 0.08),
  (32, 32, 0.3), (9, 9, 0.08),
])  # fmt: skip
def test_uniform_crops_have_the_distribution_of_simclrs(height, width, low):
  """Oracle: tf.image.stateless_sample_distorted_bounding_box itself."""
  shape, count = [height, width, 3], 6000
  ours = boxes_of_uniform(shape, count, area_range_lower_bound=low)
  theirs = boxes_of_tensorflow(shape, count, low)

  def facts(boxes):
    top, left, h, w = np.float64(boxes).T
    return {
      'area': h * w, 'aspect': w / h, 'height': h, 'width': w, 'top': top,
      'left': left, 'row': (top + h / 2) / height, 'column': left + w / 2,
    }  # fmt: skip

  ours, theirs = facts(ours), facts(theirs)
  for name, values in ours.items():
    p = stats.ks_2samp(values, theirs[name]).pvalue
    assert p > 1e-3, (name, p, values.mean(), theirs[name].mean())
  # A test of ties, of which the above knows little: the share of full sides.
  for name, side in (('height', height), ('width', width)):
    shares = [np.mean(x[name] == side) for x in (ours, theirs)]
    assert abs(shares[0] - shares[1]) < 5 * np.sqrt(
      2 * max(*shares, 1 / count) / count
    )


def test_where_no_crop_fits_the_whole_image_is_taken():
  """Of 4 x 400 pixels none of 3:4 to 4:3 has a tenth of the image."""
  for boxes in (
    boxes_of_uniform([4, 400, 3], 50),
    boxes_of_tensorflow([4, 400, 3], 50, 0.08),
  ):
    np.testing.assert_array_equal(boxes, [[0, 0, 4, 400]] * 50)


def test_tries_leave_all_other_numbers_of_a_view_as_they_are():
  image, seed = make_image(), tf.constant([3, 11], tf.int64)
  made = {
    changes.get('bbox_tries'): augmentation.per_image(
      recipe_of(local_crops=2, **changes), 4
    )(image, seed)
    for changes in (
      {},
      {'bbox_sampling': 'uniform', 'bbox_tries': 100},
      {'bbox_sampling': 'uniform', 'bbox_tries': 0},
    )
  }
  for tries in (100, 0):
    np.testing.assert_array_equal(made[tries]['draws'], made[None]['draws'])
  # Without tries, the boxes of before they existed.
  draws = made[0]['draws'][:2]
  boxes = data_util.crop_boxes(image.shape, draws, 0.08, 'uniform')
  for view, box in zip(made[0]['views'][:2], boxes, strict=True):
    levels = data_util.crop(image.astype(np.float32), box, 32)
    np.testing.assert_array_equal(view, data_util.to_bytes(levels))
  # More views change nothing about the first ones.
  recipe = recipe_of(bbox_sampling='uniform')
  both = augmentation.per_image(recipe, 2)(image, seed)
  for a, b in zip(both['views'], made[100]['views'], strict=False):
    np.testing.assert_array_equal(a, b)


def test_uniform_local_crops_are_as_small_as_local_area_says():
  recipe = recipe_of(
    local_crops=3, bbox_sampling='uniform', local_area='0.05,0.08'
  )
  draws = randomness.uniform([5, len(data_util.DRAWS)], [1, 2])
  for i in range(20):
    boxes = augmentation._boxes(recipe, [100, 100], draws, [5, i])
    areas = [int(h * w) / 1e4 for _, _, h, w in boxes]
    assert min(areas[:2]) >= 0.1 and max(areas[2:]) <= 0.08
    assert min(areas[2:]) >= 0.05


def test_uniform_crops_compile():
  draw = tf.function(
    lambda tries, corner: data_util.distorted_boxes(
      [40, 120], tries, corner, (0.08,) * 64, (1.0,) * 64, (0.1,) * 64
    ),
    jit_compile=True,
  )
  rng = np.random.default_rng(0)
  tries = rng.random([64, 100, 2], np.float32)
  corner = rng.random([64, 2], np.float32)
  np.testing.assert_array_equal(
    draw(tries, corner), draw.python_function(tries, corner)
  )


def test_views_of_an_image_get_independent_numbers():
  seeds = tf.constant([[7, i] for i in range(2000)], tf.int64)
  draw = tf.function(lambda seeds: tf.map_fn(
    lambda seed: augmentation._draws(8, seed), seeds, tf.float32
  ))  # fmt: skip
  draws = draw(seeds).numpy().reshape(2000, -1)
  correlations = np.corrcoef(draws.T) - np.eye(draws.shape[1])
  # 10,296 pairs, each of deviation 1 / sqrt(2000).
  assert np.abs(correlations).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize('view, parts', [
  ('whole', ((0, 48), (0, 64))),
  # 87.5% of the shorter side, 42 pixels.
  ('central', ((3, 45), (11, 53))),
])  # fmt: skip
def test_without_augmentation_views_are_the_image_resized(view, parts):
  """Oracle: of a ramp, every cubic resize is the ramp, but near the border."""
  changes = {} if view == 'whole' else {'plain_view': view}
  recipe = recipe_of(local_crops=2, no_augmentation=True, **changes)
  ramp = np.stack([*np.indices([48, 64]), np.zeros([48, 64])], -1)
  made = augmentation.per_image(recipe, 4)(3 * ramp.astype(np.uint8), [1, 2])
  for crop, size in zip(made['views'], (32, 32, 20, 20), strict=True):
    assert crop.shape == (size, size, 3)
    at = np.arange(3, size - 3) + 0.5
    rows, columns = (
      3 * (low + at * (high - low) / size - 0.5) for low, high in parts
    )
    inner = np.float64(crop)[3:-3, 3:-3]
    assert np.abs(inner[..., 0] - rows[:, None]).max() < 0.51
    assert np.abs(inner[..., 1] - columns).max() < 0.51


def test_one_view_is_the_first():
  image, seed = make_image(), tf.constant([3, 11], tf.int64)
  tuned = recipe_of(train_mode='finetune', local_crops=3)
  window = augmentation.window(tuned, 1)(image.shape, seed)
  top, left, height, width = window.numpy()
  (view,) = augmentation.per_image(tuned, 1)(
    image[top : top + height, left : left + width], seed
  )['views']
  both = augmentation.per_image(recipe_of(), 2)(image, seed)['views']
  np.testing.assert_array_equal(view, both[0])
  assert augmentation.window(recipe_of(), 2) is None


# Batches of views.


def test_each_view_is_finished_by_its_own_numbers():
  """Shares of blurred and of solarised views, measured on the images."""
  recipe = dataclasses.replace(
    recipe_of(
      local_crops=2,
      blur_probability='1,0.1,0.6',
      solarize_probability='0,0.2,0.7',
      color_jitter_probability=0.0,
      grayscale_probability=0.0,
    ),
    mean_std=False,
  )
  batch, rows = make_batch(recipe.size, 400), 400
  # Constant along rows, so that flips change nothing.
  views = [
    np.repeat(view[:, :, :1], view.shape[2], 2) for view in batch['views']
  ]
  sharp = dataclasses.replace(recipe, blur=(0.0,) * 4)
  plain = dataclasses.replace(recipe, solarize=(0.0,) * 4)
  for changed, shares in (
    (plain, recipe.blur),
    (sharp, recipe.solarize),
  ):
    done = augmentation.per_batch(changed, batch | {'views': views})['views']
    for view, image, share in zip(done, views, shares, strict=True):
      moved = np.abs(view - image / 255.0).max((1, 2, 3)) > 1e-3
      slack = 4 * np.sqrt(rows * share * (1 - share))
      # Of sigma below 0.27 a blur moves less than a level.
      blurred = 0.9 if changed is plain else 1.0
      assert blurred * rows * share - slack <= moved.sum()
      assert moved.sum() <= rows * share + slack


def test_local_views_change_nothing_about_the_global_ones():
  recipe = recipe_of(local_crops=3)
  batch = make_batch(recipe.size)
  two = {'views': batch['views'][:2], 'draws': batch['draws'][:, :2]}
  both = augmentation.per_batch(recipe_of(), two)['views']
  more = augmentation.per_batch(recipe, batch)
  assert 'draws' not in more and len(more['views']) == 5
  for a, b in zip(both, more['views'], strict=False):
    np.testing.assert_array_equal(a, b)


def test_a_local_view_is_finished_as_a_global_one_would_be():
  """With one size and one recipe, the draws alone decide."""
  changes = {'blur_probability': '0.5,0.5', 'solarize_probability': '0,0'}
  batch = make_batch([20] * 4)
  recipe = recipe_of(local_crops=2, image_size=20, **changes)
  done = augmentation.per_batch(recipe, batch)['views']
  turned = augmentation.per_batch(
    recipe,
    {'views': batch['views'][::-1], 'draws': batch['draws'][:, ::-1]},
  )['views']
  for a, b in zip(done, turned[::-1], strict=True):
    np.testing.assert_array_equal(a, b)


def test_compiled_views_are_the_same():
  recipe = recipe_of(local_crops=1, **STILL)
  batch = make_batch(recipe.size)
  finish = functools.partial(augmentation.per_batch, recipe)
  compiled = tf.function(finish, jit_compile=True, autograph=False)
  for a, b in zip(
    finish(batch)['views'], compiled(batch)['views'], strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


# The input of a run.


@pytest.fixture
def pictures(tmp_path):
  """16 images of several shapes, most of them larger than the crops."""
  for i in range(16):
    image = make_image(30 + 3 * i, 60 - 2 * i, seed=i)
    write(f'{tmp_path}/train/{i % 2}/{i}.png', tf.io.encode_png(image).numpy())
  return f'folder:{tmp_path}'


RUN = {'train_batch_size': 8, 'local_crops': 1, 'seed': 4} | SMALL | STILL


def inputs(pictures, strategy, **changes):
  """Two global batches: rows joined over the replicas, views finished."""
  cfg = Config(dataset=pictures, **RUN | changes)
  info = sources.describe(cfg.dataset)
  finish = functools.partial(augmentation.per_batch, derived.augmentation(cfg))
  plan, joined = train.plan_of(cfg, strategy, info), []
  dataset = train.make_input(plan, info, strategy, 0)
  for _ in range(2):
    done = strategy.run(finish, args=(next(dataset),))
    parts = tf.nest.map_structure(strategy.experimental_local_results, done)
    joined.append({
      'views': [np.concatenate(view) for view in parts['views']],
      'index': np.concatenate(parts['index']),
    })  # fmt: skip
  return joined


def assert_close(made, expected):
  for a, b in zip(made, expected, strict=True):
    np.testing.assert_array_equal(a['index'], b['index'])
    for one, other in zip(a['views'], b['views'], strict=True):
      np.testing.assert_allclose(one, other, atol=1e-5)


def test_host_device_and_two_replicas_agree(pictures, two_replicas):
  one = tf.distribute.get_strategy()
  expected = inputs(pictures, one)
  sizes = [view.shape[1:] for view in expected[0]['views']]
  assert sizes == [(32, 32, 3)] * 2 + [(20, 20, 3)]
  assert_close(inputs(pictures, one, augment_on='host'), expected)
  assert_close(inputs(pictures, two_replicas), expected)


def test_the_white_of_16_bits_is_1():
  image = np.full([40, 40, 3], 65_000, np.uint16)
  seed = tf.constant([3, 11], tf.int64)
  views = augmentation.per_image(recipe_of(), 2)(image, seed)['views']
  for view in views:
    np.testing.assert_allclose(view, 65_000 / 65_535, atol=1e-6)


def test_batches_have_static_shapes_and_travel_as_bytes(pictures):
  info, recipe = sources.describe(pictures), recipe_of(local_crops=1)

  def spec(recipe, finish=None):
    return batches.train_batches(
      info,
      augmentation.per_image(recipe, 3),
      batches.HostBatch(8, 8),
      seed=0,
      finish=finish,
    ).element_spec

  sizes = [[8, 32, 32, 3]] * 2 + [[8, 20, 20, 3]]
  sent = spec(recipe)
  assert [view.shape for view in sent['views']] == sizes
  assert {view.dtype for view in sent['views']} == {tf.uint8}
  assert sent['draws'].shape == [8, 3, len(data_util.DRAWS)]
  done = spec(recipe, functools.partial(augmentation.per_batch, recipe))
  assert [view.shape for view in done['views']] == sizes
  assert {view.dtype for view in done['views']} == {tf.float32}
  assert 'draws' not in done
  kept = spec(dataclasses.replace(recipe, clip_after_resize=False))
  assert {view.dtype for view in kept['views']} == {tf.float32}


def test_blurs_are_as_published():
  """Half of them, with sigma uniform between 0.1 and 2 (SimCLR, appendix A)."""
  draws = np.random.default_rng(0).random([2000, len(data_util.DRAWS)])
  recipe = dataclasses.replace(recipe_of(), blur=(0.5, 0.5))
  draws = tf.constant(draws, tf.float32)
  sigma = augmentation.decisions(recipe, 0, draws)['blur'].numpy()
  blurred = sigma[sigma > 0]
  assert stats.binomtest(len(blurred), 2000).pvalue > 1e-4
  assert stats.kstest(blurred, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4


def test_half_of_the_views_are_flipped():
  recipe = dataclasses.replace(
    recipe_of(grayscale_probability=0.0, **STILL),
    blur=(0.0, 0.0), solarize=(0.0, 0.0), mean_std=False,
  )  # fmt: skip
  batch = make_batch((8, 8), batch=400)
  views = augmentation.per_batch(recipe, batch)['views']
  for view, before in zip(views, batch['views'], strict=True):
    pixels = before.numpy() / 255
    flipped = [
      np.allclose(image, plain[:, ::-1], atol=1e-4)
      for image, plain in zip(view.numpy(), pixels, strict=True)
    ]
    assert stats.binomtest(sum(flipped), 400).pvalue > 1e-4
    same = np.array(flipped)[:, None, None, None]
    plain = np.where(same, pixels[:, :, ::-1], pixels)
    np.testing.assert_allclose(view, plain, atol=1e-4)


@pytest.mark.parametrize('mode', ['pretrain', 'finetune'])
def test_without_random_crops_nothing_is_flipped(mode):
  """The views are the bytes that came, normalised, in every draw."""
  recipe = recipe_of(no_augmentation=True, train_mode=mode)
  views = 2 if mode == 'pretrain' else 1
  batch = make_batch((32,) * views, batch=64)
  made = augmentation.per_batch(recipe, batch)['views']
  for view, before in zip(made, batch['views'], strict=True):
    pixels = before.numpy() / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(view, (pixels - mean) / std, atol=1e-4)
