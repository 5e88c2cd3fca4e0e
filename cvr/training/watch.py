"""What a run looks at beside its steps: the same images at every summary.

It does not depend on the method, and changes nothing of a run.
"""

import contextlib
import functools

import numpy as np
import tensorflow as tf

import data_util
from cvr.configs import checks, derived
from cvr.data import augmentation, batches, sources
from cvr.training import health, loop

# Images whose views are finished together: that takes room for several copies.
_TOGETHER = 64
# Pairs that TensorBoard shows.
_SHOWN = 8
# Steps in which a run may stay at chance, warm-up or not: CMC did for 24.
_BEGINNING = 100


def two_views(recipe, info, count):
  """-> two views [n, H, W, C] of `count` images of a split, on the host."""
  info = sources.a_few(info, count)
  size = info.num_examples
  with sources.explained(info):
    dataset = batches.train_batches(
      info,
      augmentation.per_image(recipe, 2),
      batches.HostBatch(size, size),
      seed=0,  # Not the run's: all runs see the same.
      shuffle_buffer=1,
    )
    batch = next(iter(dataset))
  parts = []
  for i in range(0, size, _TOGETHER):
    part = tf.nest.map_structure(lambda x, i=i: x[i : i + _TOGETHER], batch)
    parts.append(augmentation.per_batch(recipe, part)['views'])
  good = batch['bad'].numpy() == 0
  return [np.concatenate(parts)[good] for parts in zip(*parts, strict=True)]


def held_out(plan, info):
  """-> two views [n, H, W, C] of the same images, and which split has them.

  The evaluation split, so that no step sees them; where it cannot be read, the
  training split. They depend on the data, the augmentation and n alone.
  """
  cfg = plan.cfg
  with contextlib.suppress(sources.DataError):
    held = sources.describe(
      cfg.dataset, cfg.data_dir, cfg.eval_split, **derived.pixels(cfg)
    )
    return two_views(plan.recipe, held, cfg.health_pairs), held.split
  return two_views(plan.recipe, info, cfg.health_pairs), info.split


def embedded(method, views, more):
  """Two views [n, H, W, C] -> {name: float32 rows}, in evaluation mode.

  h [n, 2, D], z [n, 2, d], and rate [n] of methods that have one. more: a
  function of both views' embeddings -> {name: rows} to add.
  """
  both = [method.embed(view) for view in views]
  rows = {
    'h': tf.stack([e['representation'] for e in both], 1),
    'z': tf.stack([e['projection'] for e in both], 1),
  }
  if hasattr(method, 'rate'):
    rows['rate'] = method.rate(both, views)
  rows |= more(both)
  return {name: tf.cast(x, tf.float32) for name, x in rows.items()}


def make_rows(strategy, embed, views, together):
  """-> rows() -> {name: float64} of embed(*views), `together` at a time.

  In a replica's own context, where reading a variable asks no other one: a
  worker may look while the others wait at their next step.
  """

  @tf.function(autograph=False)
  def run(*views):
    # Each replica embeds all of them.
    made = strategy.run(embed, args=views)
    return tf.nest.map_structure(
      lambda x: strategy.experimental_local_results(x)[0], made
    )

  def rows():
    parts = [
      run(*(tf.constant(view[i : i + together]) for view in views))
      for i in range(0, len(views[0]), together)
    ]
    return {
      name: np.concatenate([part[name] for part in parts]).astype(np.float64)
      for name in parts[0]
    }

  return rows


def make_look(strategy, method, views, together):
  """-> look(also) -> the numbers of health, of views `together` at a time."""

  def probabilities(both):
    if not hasattr(method, 'probabilities'):
      return {}
    rows = [method.probabilities(e['projection']) for e in both]
    # There may be very many of them: only their sum leaves the device.
    return {'probabilities': tf.reduce_sum(tf.concat(rows, 0), 0)[None]}

  rows_of = make_rows(
    strategy,
    lambda *views: embedded(method, views, probabilities),
    views,
    together,
  )

  def look(also=None):
    """also: called with the rows, h and z."""
    rows = rows_of()
    if also:
      also(rows['h'], rows['z'])
    if 'probabilities' in rows:
      images = 2 * len(views[0])
      rows['probabilities'] = rows['probabilities'].sum(0) / images
    return health.measure(**rows)

  return look


def _settled(plan):
  """The step from which a run should show that it learns.

  Nothing need be learned while prototypes stand still or a queue is full of
  noise.
  """
  cfg = plan.cfg
  fills = cfg.queue_size // cfg.train_batch_size
  return max(_BEGINNING, plan.warmup, cfg.freeze_prototypes_steps, fills)


def _beside(recipe, views):
  """Some pairs of views in [0, 1], each as one picture: [n, H, 2 W, 3]."""
  pair = [view[:_SHOWN] for view in views]
  if recipe.mean_std:
    pair = [data_util.denormalize(view) for view in pair]
  both = np.clip(np.concatenate(pair, 2), 0, 1)
  if both.shape[-1] in (1, 3):
    return both
  return both[..., :3] if both.shape[-1] > 3 else both[..., :1]


def _make_shown(recipe, views, monitor):
  """-> shown(step, h, z): gives TensorBoard histograms, and once the views."""
  left = [{'views/two_of_an_image': _beside(recipe, views)}]

  def shown(step, h, z):
    images = left.pop() if left else {}
    monitor.show(step, images, health.distributions_of(h, z))

  return shown


def _open(plan, strategy, method, info, monitor):
  """-> (look, what TensorBoard gets or None); None without enough images."""
  views, split = held_out(plan, info)
  if len(views[0]) < 2:
    monitor.say(
      f'No watched images: {info.name}, {split} has fewer than two good ones'
    )
    return None
  monitor.say(
    f'Watching {len(views[0])} pairs of views of {info.name}, {split}'
  )
  # No more than a step takes, which also needs room for its gradients.
  look = make_look(strategy, method, views, plan.rows // plan.chunks)
  wanted = plan.cfg.summary_images
  return look, _make_shown(plan.recipe, views, monitor) if wanted else None


def make_watch(plan, strategy, method, info, monitor):
  """-> watch(step, metrics) -> loop.Observation, or None where none is wanted.

  The chief alone looks. The images are read at the first summary: the first
  step does not wait for them.
  """
  cfg = plan.cfg
  wanted = cfg.health_pairs and cfg.train_summary_steps
  if not wanted or cfg.train_mode == 'finetune':
    return None
  if not monitor.chief:
    return lambda step, metrics: loop.Observation()
  opened = functools.cache(
    functools.partial(_open, plan, strategy, method, info, monitor)
  )
  reports = health.Reporter(checks.in_use(cfg), method.chance(), _settled(plan))

  def watch(step, metrics):
    eyes = opened()
    if not eyes:
      return loop.Observation()
    look, shown = eyes
    numbers = look(functools.partial(shown, step) if shown else None)
    lines = reports.lines(step, metrics | numbers)
    collapsed = cfg.stop_on_collapse and reports.collapsed()
    return loop.Observation(numbers, lines, collapsed)

  return watch
