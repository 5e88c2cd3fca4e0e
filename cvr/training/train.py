"""A run: what it trains on, where it begins, and its way to the last step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from cvr.checkpoints import files, pretrained, saving
from cvr.configs import checks, derived
from cvr.configs.plan import Plan, make_plan
from cvr.data import augmentation, batches, reading, service, sources, splits
from cvr.data.dataset_info import DatasetInfo
from cvr.methods import skeletons
from cvr.numerics import replicas
from cvr.training import (
  bad_images,
  big_batches,
  loop,
  optimizers,
  profiling,
  skips,
  watch,
)
from cvr.training.monitor import Monitor
from cvr.training.step import State, make_encode, make_state, make_train_step

# How often a run goes back to a checkpoint before it ends.
_RETURNS = 3


def _resume(cfg, store, state, say):
  """-> the step of the newest good checkpoint, restored; None without one."""
  steps = files.steps(cfg.model_dir)
  if cfg.fresh_start or cfg.resume == 'never':
    if steps and cfg.resume == 'never' and not cfg.fresh_start:
      raise files.CheckpointError(
        f'--resume=never, but {cfg.model_dir} holds checkpoints up to step '
        f'{steps[-1]}. Name another --model_dir, or resume.'
      )
    # Not listed again: another worker may not see the new names yet.
    store.retire(steps, say)
    start = None
  else:
    start = store.restore_latest(say)
  if start is not None:
    say(f'Resuming from step {start} of {cfg.model_dir}')
    return start
  if cfg.resume == 'must':
    raise files.CheckpointError(
      f'--resume=must, but there is no checkpoint in {cfg.model_dir}.'
    )
  if cfg.checkpoint:
    load_pretrained(cfg, state, say)
  return None


def load_pretrained(cfg, state, say):
  """Loads --checkpoint: encoder and projector, the probe when wanted."""
  names = ['encoder']
  if cfg.ft_proj_selector != 0 or cfg.train_mode == 'pretrain':
    names.append('projector')
  if cfg.probe_latent and cfg.train_mode == 'finetune':
    names.append('latent')
  if not cfg.reinit_logits_layer and state.probe:
    names.append('probe')
  path = pretrained.locate(cfg.checkpoint)
  say(pretrained.load(path, names, state.method, state.probe))
  state.method.begin()


def make_input(plan, info, strategy, start, per_image=None, bad=None):
  """The distributed batches from a step on.

  per_image: makes something else of an image than the run's own views. bad: the
  BadImages that notes what is read.
  """
  cfg, recipe = plan.cfg, plan.recipe
  finish = functools.partial(augmentation.per_batch, recipe)

  def of_host(context):
    return batches.train_batches(
      info,
      per_image or augmentation.per_image(recipe, plan.views),
      batches.HostBatch.of(context, cfg.train_batch_size),
      seed=cfg.seed,
      start_step=start,
      shuffle_buffer=cfg.shuffle_buffer,
      cache=cfg.cache_dataset,
      window=None if per_image else augmentation.window(recipe, plan.views),
      finish=finish if cfg.augment_on == 'host' else None,
      share=service.shared(cfg.data_service) if cfg.data_service else None,
      note=bad.note_of(context) if bad else None,
    )

  return iter(strategy.distribute_datasets_from_function(of_host))


def describe(cfg, say=print):
  """The training split, checked for what could fail hours later."""
  pixels = derived.pixels(cfg)
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.train_split, cfg.download, **pixels
  )
  if cfg.bit_depth == 'auto':
    with sources.explained(info):
      bits, line = batches.depth_of(info)
    info = dataclasses.replace(info, bits=bits)
    if line:
      say(line)
  if cfg.train_share < 1:
    info = batches.share_of(info, cfg.train_share, cfg.seed)
  sources.check_batch(info, cfg.train_batch_size)
  if cfg.mode == 'train_then_eval' and info.class_names:
    try:
      sources.describe(cfg.dataset, cfg.data_dir, cfg.eval_split, **pixels)
    except splits.NoEvaluation as error:
      say(f'Note: {error} The evaluation after the training is skipped.')
  if cfg.data_service:
    if reading.in_python(info):
      raise sources.DataError(
        f'--dataset={cfg.dataset}: only this process can read this kind of '
        'data. Drop --data_service, or convert the data to a folder of PNG or '
        'JPEG files.'
      )
    service.check(cfg.data_service)
  return info


def plan_of(cfg, strategy, info):
  """The Plan of a training on a described split."""
  return make_plan(
    cfg,
    info.num_examples,
    len(info.class_names),
    strategy.num_replicas_in_sync,
  )


def build(plan, strategy, say=print):
  """-> (the train step, the State that it trains, the Skips that it notes)."""
  cfg = plan.cfg
  with strategy.scope():
    state = make_state(plan)
    rows = cfg.train_batch_size // plan.replicas
    skipped = skips.Skips(rows, cfg.max_bad_steps, say)
    step = make_train_step(state, optimizers.learning_rate(plan), skipped)
  return step, state, skipped


def first_pass(strategy, info, method):
  """Shows observe() every training example; nothing else moves by it."""
  plan = method.plan

  def look(batch):
    encode = make_encode(method, tf.constant(0, tf.int64))
    embeddings = big_batches.embed_all(encode, batch, plan.chunks)
    method.observe(embeddings | {'index': batch['index']})
    return {'rows': tf.size(batch['index'])}

  look_at = loop.make_loop(strategy, look, plan.cfg.jit_compile, clocks=False)
  source = make_input(plan, info, strategy, 0)
  hosts, batch = replicas.num_hosts(strategy), plan.cfg.train_batch_size
  # The last ones are filled up with what the next epoch begins with.
  for _ in range(batches.steps_of_all(info, batch, hosts)):
    look_at(source, 1)


def _on_epoch(strategy, method):
  """What loop.fit calls when an epoch begins; None for most methods."""
  if type(method).on_epoch is skeletons.Method.on_epoch:
    return None

  @tf.function(autograph=False)
  def begin(epoch):
    strategy.run(method.on_epoch, args=(epoch,))

  return lambda epoch: begin(tf.constant(epoch, tf.int64))


def _make_store(plan, strategy, state, record):
  return saving.Checkpoints(
    plan.cfg.model_dir,
    plan.cfg.keep_checkpoint_max,
    replicas.is_chief(strategy),
    alone=replicas.num_workers(strategy) == 1,
    record=saving.Record(record),
    **state.items(),
  )


def train(cfg, strategy, info, record, monitor: Monitor):
  """Trains a run to its last step, from wherever its model_dir stands.

  record: what to leave in config.json, once nothing refuses to begin.
  """
  plan = plan_of(cfg, strategy, info)
  for line in checks.warnings(cfg, plan.total, plan.warmup):
    monitor.say(f'Note: {line}')
  step, state, skipped = build(plan, strategy, monitor.say)
  store = _make_store(plan, strategy, state, record)
  store.check_room()
  restored = _resume(cfg, store, state, monitor.say)
  monitor.write_json('config.json', record)
  monitor.write_json('flags.json', record['config'])
  monitor.say(
    f'{info.name}: {info.num_examples:,} examples, {plan.classes} classes; '
    f'{plan.total:,} steps of {cfg.train_batch_size}, warm-up {plan.warmup:,}'
  )
  if restored is None and state.method.needs_first_pass:
    monitor.say('One pass over the data before step 0 ...')
    with sources.explained(info):
      first_pass(strategy, info, state.method)
  if not restored:
    store.save(0)
  if (restored or 0) < plan.total:
    with sources.explained(info):
      run = _Run(
        plan,
        strategy,
        info,
        state,
        loop.make_loop(
          strategy, step, cfg.jit_compile, clocks=not cfg.deterministic
        ),
        store,
        skipped,
        monitor,
        watch.make_watch(plan, strategy, state.method, info, monitor),
      )
      _with_returns(run, restored or 0)
  return state, plan.total


class _Run(NamedTuple):
  """What takes part in the steps."""

  plan: Plan
  strategy: tf.distribute.Strategy
  info: DatasetInfo
  state: State
  steps: Callable
  store: saving.Checkpoints
  skipped: skips.Skips
  monitor: Monitor
  watch: Callable | None


def _save(store, say, step, needed):
  try:
    store.save(step, needed, say)
  except saving.NotFinite as error:
    raise loop.Diverged(str(error)) from error


def _with_returns(run, start):
  """The steps from start on, and again from a checkpoint where they diverge."""
  for attempt in range(1, _RETURNS + 2):
    try:
      return _fit(run, start)
    except loop.Diverged as error:
      if attempt > _RETURNS:
        raise loop.NonFinite(
          f'{error}, after {_RETURNS} returns to a checkpoint. Lower '
          '--learning_rate (for small batches --learning_rate_scaling=sqrt), '
          'lengthen --warmup_epochs, set --clip_norm, or use --precision=fp32. '
          'The checkpoints are from before.'
        ) from error
      start = run.store.restore_latest(run.monitor.say)
      run.monitor.say(
        f'Warning: {error}. Back to the checkpoint of step {start}: return '
        f'{attempt} of {_RETURNS}.'
      )


def _fit(run, start):
  """The steps from start to the last one."""
  cfg, info, monitor = run.plan.cfg, run.info, run.monitor
  span = loop.Span(
    start,
    run.plan.total,
    batch=cfg.train_batch_size,
    summary_every=cfg.train_summary_steps,
    save_every=run.plan.checkpoint_every,
    epoch=info.num_examples,
  )
  waits = service.watched(cfg.data_service, monitor.say)
  host_means = replicas.host_means(run.strategy)
  bad = bad_images.BadImages(
    info, cfg.image_size, monitor, host_means, start > 0, cfg.max_bad_images
  )
  trace = profiling.traced(derived.profile_steps(cfg), monitor)
  with bad.ends_the_run(), waits, trace as at:
    iterator = make_input(run.plan, info, run.strategy, start, bad=bad)
    hooks = loop.Hooks(
      save=functools.partial(_save, run.store, monitor.say),
      skipped=functools.partial(run.skipped.look, run.strategy),
      monitor=monitor,
      host_means=host_means,
      watch=run.watch,
      on_epoch=_on_epoch(run.strategy, run.state.method),
      after_epoch=bad.after_epoch,
      at=at,
    )
    loop.fit(run.steps, iterator, span, hooks)
