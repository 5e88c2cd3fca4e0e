"""The augmentation of a recipe (derived.augmentation), in its two parts.

per_image runs in the input pipeline, per_batch in the train step or, with
--augment_on=host, in the pipeline too.
"""

import tensorflow as tf

import data_util
from cvr.numerics import randomness

# Folded into the seed of an image, for the stream of the tries of its crops.
_TRIES = 1


def _draws(views, seed):
  # Philox is a counter: with more views the first ones keep their numbers.
  return randomness.uniform([views, len(data_util.DRAWS)], seed)


def _boxes(recipe, shape, draws, seed):
  views = draws.shape[0]
  if recipe.tries:
    # A stream of its own, so that `draws` are the same with and without tries.
    shape_of_tries = [views, recipe.tries, 2]
    return data_util.distorted_boxes(
      shape,
      randomness.uniform(shape_of_tries, randomness.fold_in(seed, _TRIES)),
      draws[:, 2:4],
      recipe.area_lower[:views],
      recipe.area_upper[:views],
      recipe.covered[:views],
    )
  return data_util.crop_boxes(
    shape,
    draws,
    recipe.area_lower[:views],
    recipe.sampling,
    recipe.area_upper[:views],
  )


def boxes(recipe, shape, seed, views):
  """The crops that per_image takes of an image: [views] of (top, left, h, w).

  The whole image where none is cropped at random.
  """
  if not recipe.random_crop:
    return [(0, 0, shape[0], shape[1])] * views
  return _boxes(recipe, shape, _draws(views, seed), seed)


def decisions(recipe, i, draws):
  """What per_batch does to view i: {name: [B]}, of draws [B, DRAWS].

  0 where something is left out; brightness is added or multiplied, as the
  recipe has it.
  """
  u = data_util.named(draws)
  on = u['jitter'] < recipe.jitter_prob
  strengths = (
    recipe.brightness,
    recipe.contrast,
    recipe.saturation,
    recipe.hue,
  )
  (multiplied, added), contrast, saturation, hue = data_util.jitter_numbers(
    u, on, strengths, recipe.brightness_fn
  )
  low, high = data_util.SIGMA_RANGE
  adds = recipe.brightness_fn == 'simclrv1'
  return {
    'flip': u['flip'] < (0.5 if recipe.random_crop else 0.0),
    'brightness': added if adds else multiplied,
    'contrast': contrast,
    'saturation': saturation,
    'hue': hue,
    'gray': u['gray'] < recipe.gray_prob,
    'blur': tf.where(
      u['blur'] < recipe.blur[i], low + u['sigma'] * (high - low), 0.0
    ),
    'solarize': u['solarize'] < recipe.solarize[i],
  }


def window(recipe, views):
  """-> function (shape, seed) -> the crop; None unless there is exactly one."""
  if views > 1 or not recipe.random_crop:
    return None
  return lambda shape, seed: _boxes(recipe, shape, _draws(1, seed), seed)[0]


def per_image(recipe, views):
  """-> augment(image, seed) -> {'views': crops, 'draws': for per_batch}.

  The image is already cut to its window, if it has one. Crops are bytes, unless
  the image has 16 bits, or the recipe keeps values beyond [0, 1], which bicubic
  resizing produces.

  views: how many; the first ones of the recipe.
  """
  sizes = recipe.size[:views]

  def boxes_of(image, draws, seed):
    shape = tf.shape(image)
    if window(recipe, views):
      return [[0, 0, shape[0], shape[1]]]
    return _boxes(recipe, shape, draws, seed)

  def packed(levels, deep):
    if deep:
      return data_util.clip(levels / 255.0)
    return data_util.to_bytes(levels)

  def augment(image, seed):
    draws = _draws(views, seed)
    # Bytes would lose what 16 bits have more.
    deep = image.dtype == tf.uint16
    if not recipe.random_crop:
      show = data_util.whole_image if recipe.whole else data_util.eval_image
      made = {
        size: packed(show(image, size) * 255.0, deep)
        for size in sorted(set(sizes))
      }
      return {'views': tuple(made[size] for size in sizes), 'draws': draws}
    boxes = boxes_of(image, draws, seed)
    # Once, not per crop: the crops of two views cover an image's area.
    image = tf.cast(image, tf.float32)
    image = image / 257.0 if deep else image
    crops = [
      data_util.crop(image, box, size)
      for box, size in zip(boxes, sizes, strict=True)
    ]
    if recipe.clip_after_resize:
      views_made = tuple(packed(crop, deep) for crop in crops)
      return {'views': views_made, 'draws': draws}
    return {'views': tuple(crop / 255.0 for crop in crops), 'draws': draws}

  return augment


def _finished(recipe, i, crops, draws):
  """Crops [B, H, W, C] and draws [B, DRAWS] -> view i of the recipe."""
  return data_util.augment_batch(
    crops,
    draws,
    strengths=(
      recipe.brightness,
      recipe.contrast,
      recipe.saturation,
      recipe.hue,
    ),
    brightness_fn=recipe.brightness_fn,
    jitter_prob=recipe.jitter_prob,
    gray_prob=recipe.gray_prob,
    clip_after_gray=recipe.clip_after_gray,
    blur_prob=recipe.blur[i],
    solarize_prob=recipe.solarize[i],
    mean_std=recipe.mean_std,
    flip_prob=0.5 if recipe.random_crop else 0.0,
  )


def per_batch(recipe, batch):
  """A batch of per_image -> the same with finished views, without draws.

  A batch without draws was finished in the input pipeline.
  """
  if 'draws' not in batch:
    return batch
  draws = tf.unstack(batch['draws'], axis=1)
  views = [
    _finished(recipe, i, *pair)
    for i, pair in enumerate(zip(batch['views'], draws, strict=True))
  ]
  rest = {name: value for name, value in batch.items() if name != 'draws'}
  return rest | {'views': tuple(views)}
