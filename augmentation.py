"""A recipe of config.augmentation -> what happens to images, in two places."""

import tensorflow as tf

import data_util
import distributed
import randomness


def per_image(recipe, views):
  """-> augment(image, seed) -> views: what happens to one decoded image."""
  if not recipe.random_crop:
    return lambda image, seed: (
      (data_util.eval_image(image, recipe.image_size),) * views
    )

  def augment(image, seed):
    return tuple(
      data_util.augment_view(
        image,
        randomness.fold_in(seed, i),
        size=recipe.image_size,
        area_lower=recipe.area_lower,
        sampling=recipe.sampling,
        brightness=recipe.brightness,
        contrast=recipe.contrast,
        saturation=recipe.saturation,
        hue=recipe.hue,
        brightness_fn=recipe.brightness_fn,
        jitter_prob=recipe.jitter_prob,
        gray_prob=recipe.gray_prob,
        clip_after_resize=recipe.clip_after_resize,
        clip_after_gray=recipe.clip_after_gray,
      )
      for i in range(views)
    )

  return augment


def per_batch(recipe, seed, global_batch, views, step):
  """Blur, solarize and normalise a batch of views, inside of the step."""
  return tuple(
    data_util.augment_batch(
      view,
      tf.stack([seed * 1013 + 97 + i, tf.cast(step, tf.int32)]),
      blur_prob=recipe.blur[i],
      solarize_prob=recipe.solarize[i],
      mean_std=recipe.mean_std,
      global_batch=global_batch,
      rows=distributed.local_rows,
    )
    for i, view in enumerate(views)
  )
