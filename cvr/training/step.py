"""The train step, what it trains, and where a run begins."""

import dataclasses
import functools
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

import model
import objectives
from cvr import methods
from cvr.checkpoints import files, pretrained, saving
from cvr.configs import checks, derived
from cvr.data import augmentation, batches, service, sources
from cvr.methods import skeletons
from cvr.numerics import replicas
from cvr.training import big_batches, loop, optimizers, watch
from cvr.training.monitor import Monitor


class State(NamedTuple):
  """What trains: a checkpoint holds exactly this."""

  method: skeletons.Method
  probe: model.Classifier | None
  optimizer: keras.optimizers.Optimizer

  def items(self):
    """The trackables of a checkpoint; a run without labels has no probe."""
    return {k: v for k, v in self._asdict().items() if v is not None}


def make_state(cfg, num_classes, warmup, total, num_examples=None):
  """Builds method, probe and optimizer. Call it inside the scope."""
  keras.utils.set_random_seed(cfg.seed)
  method = methods.make_method(cfg, warmup, total, num_examples)
  probe = make_probe(cfg, method, num_classes)
  optimizer = optimizers.make_optimizer(
    cfg,
    optimizers.make_groups(method, probe),
    optimizers.learning_rate(cfg, warmup, total),
    optimizers.weight_decay(cfg, total),
  )
  if cfg.precision == 'fp16':
    # Gradients below 6e-8 would be 0: they are taken of a larger loss.
    optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
  return State(method, probe, optimizer)


def make_probe(cfg, method, num_classes):
  """The linear probe, or None without labels or without the wish."""
  wanted = cfg.lineareval_while_pretraining or cfg.train_mode == 'finetune'
  if not num_classes or not wanted:
    return None
  probe = model.Classifier(num_classes, zero_init=cfg.zero_init_logits_layer)
  images = tf.zeros([1, cfg.image_size, cfg.image_size, 3])
  probe(method.probed(method.embed(images)))
  return probe


def _gradients(cfg):
  """-> the way of big_batches to a step's gradients, and its chunks."""
  chunks = derived.chunks(cfg, replicas.num_replicas())
  if cfg.grad_cache_chunk:
    return functools.partial(big_batches.cached, chunks=chunks), chunks
  if chunks > 1:
    return functools.partial(big_batches.accumulated, chunks=chunks), chunks
  return big_batches.whole, 1


def _make_loss(cfg, state, groups, step):
  """-> loss(embeddings, batch) -> (this replica's share, metrics, carry)."""
  method, probe, _ = state
  decay = optimizers.weight_decay(cfg, method.steps[1])

  def loss(embeddings, batch):
    index = {'index': batch.get('index')}  # Benchmarks have none.
    own, metrics, features, carry = method.objective(embeddings | index, step)
    penalty = optimizers.penalty(cfg, groups, decay(step))
    total = own + penalty
    if probe:
      labels = tf.tile(
        batch['label'], [features.shape[0] // batch['label'].shape[0]]
      )
      probe_loss, probe_acc = objectives.classification(
        probe(features), labels, cfg.use_binary_cross_entropy
      )
      total += probe_loss
      metrics |= {'supervised_loss': probe_loss, 'supervised_acc': probe_acc}
    metrics |= {'total_loss': total, 'weight_decay': penalty}
    # The one place where the number of replicas enters a loss.
    return total / replicas.num_replicas(), metrics, carry

  return loss


def _make_encode(cfg, method, step, chunks):
  """-> encode(i, part of a batch) -> embeddings of its views, finished."""
  recipe = derived.augmentation(cfg)

  def encode(i, part):
    views = augmentation.per_batch(recipe, part)['views']
    # No two chunks of a run get the same noise.
    return method.encode(views, step * chunks + tf.cast(i, step.dtype))

  return encode


def make_train_step(cfg, state, schedule):
  """-> train_step(batch) -> this replica's metrics, a flat dict."""
  method, _, optimizer = state
  groups = optimizers.make_groups(*state[:2])
  count = replicas.num_replicas()
  gradients_of, chunks = _gradients(cfg)

  def train_step(batch):
    step = tf.identity(optimizer.iterations)
    scale, unscale = optimizers.scaling(optimizer)
    metrics, carry, gradients = gradients_of(
      _make_encode(cfg, method, step, chunks),
      scale(_make_loss(cfg, state, groups, step)),
      batch,
      groups.trained,
    )
    gradients = replicas.cross_replica_sum(unscale(gradients))
    norm = tf.linalg.global_norm(gradients)
    if cfg.clip_norm:
      gradients, _ = tf.clip_by_global_norm(gradients, cfg.clip_norm, norm)
    rate = schedule(step)
    gradients = optimizers.steadied(
      cfg, method, rate, gradients, groups.trained
    )
    optimizers.update(
      optimizer, gradients, groups.trained, optimizers.held(method, step)
    )
    method.after_update(step, carry)
    return metrics | {
      'learning_rate': rate,
      'grad_norm': norm,
      'weight_norm': tf.linalg.global_norm(groups.trained),
      'bad_images': count * tf.reduce_sum(tf.cast(batch['bad'], tf.float32)),
    }

  return train_step


def _resume(cfg, store, state, say):
  """-> the step of the newest good checkpoint, restored; None without one."""
  found = files.steps(cfg.model_dir)
  if cfg.fresh_start or cfg.resume == 'never':
    if found and cfg.resume == 'never' and not cfg.fresh_start:
      raise files.CheckpointError(
        f'--resume=never, but {cfg.model_dir} holds checkpoints up to step '
        f'{found[-1]}. Name another --model_dir, or resume.'
      )
    # Not listed again: another worker may not see the new names yet.
    store.retire(found, say)
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


def _any_optimizer(cfg):
  """For whoever trains none: LAMB, for one, is not always there."""
  return dataclasses.replace(
    cfg, optimizer='lars', constant_predictor_rate=False
  )


def rebuild(cfg, strategy, num_examples=None):
  """-> (a state to restore into, the last step), for an evaluator.

  num_examples: those that the run was trained on, where that is known.
  """
  info = sources.describe(cfg.dataset, cfg.data_dir, cfg.train_split)
  num_examples = num_examples or info.num_examples
  total = derived.train_steps(cfg, num_examples)
  cfg, classes = _any_optimizer(cfg), len(info.class_names)
  with strategy.scope():
    return make_state(cfg, classes, 0, total, num_examples), total


def untrained(cfg, strategy, found, optimizing=False):
  """A State that a pretrained.Found fits into."""
  if not optimizing:
    cfg = _any_optimizer(cfg)
  num_examples = found.record.get('num_examples')
  with strategy.scope():
    return make_state(cfg, found.num_classes, 0, 1, num_examples)


def load_whole(cfg, strategy, found, optimizing, say):
  """A pretrained.Found -> its State; momentum and step too where it matters."""
  state = untrained(cfg, strategy, found, optimizing)
  say(
    pretrained.load(
      found.path,
      [],
      state.method,
      state.probe,
      state.optimizer if optimizing else None,
    )
  )
  return state


def make_input(cfg, info, strategy, start, per_image=None):
  """The distributed batches from a step on; per_image: not the run's own."""
  views = derived.num_views(cfg)
  recipe = derived.augmentation(cfg)
  on_host = cfg.augment_on == 'host'

  def source(context):
    return batches.train_batches(
      info,
      per_image or augmentation.per_image(recipe, views),
      global_batch=cfg.train_batch_size,
      per_replica_batch=cfg.train_batch_size // context.num_replicas_in_sync,
      seed=cfg.seed,
      start_step=start,
      num_hosts=context.num_input_pipelines,
      host=context.input_pipeline_id,
      shuffle_buffer=cfg.shuffle_buffer,
      cache=cfg.cache_dataset,
      window=None if per_image else augmentation.window(recipe, views),
      finish=functools.partial(augmentation.per_batch, recipe)
      if on_host
      else None,
      share=service.shared(cfg.data_service) if cfg.data_service else None,
    )

  return iter(strategy.distribute_datasets_from_function(source))


def describe(cfg):
  """The training split, checked for what could fail hours later."""
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.train_split, download=cfg.download
  )
  if cfg.train_share < 1:
    info = batches.share_of(info, cfg.train_share, cfg.seed)
  sources.check_batch(info, cfg.train_batch_size)
  if cfg.mode == 'train_then_eval' and info.class_names:
    sources.describe(cfg.dataset, cfg.data_dir, cfg.eval_split)
  if cfg.data_service:
    service.check(cfg.data_service)
  return info


def build(cfg, strategy, info):
  """-> (the train step, the State that it trains)."""
  total = derived.train_steps(cfg, info.num_examples)
  warmup = derived.warmup_steps(cfg, info.num_examples)
  classes = len(info.class_names)
  with strategy.scope():
    state = make_state(cfg, classes, warmup, total, info.num_examples)
    schedule = optimizers.learning_rate(cfg, warmup, total)
    return make_train_step(cfg, state, schedule), state


def first_pass(cfg, strategy, info, method):
  """Shows observe() every training example; nothing else moves by it."""
  _, chunks = _gradients(cfg)

  def look(batch):
    encode = _make_encode(cfg, method, tf.constant(0, tf.int64), chunks)
    embeddings = big_batches.embed_all(encode, batch, chunks)
    method.observe(embeddings | {'index': batch['index']})
    return {'rows': tf.size(batch['index'])}

  look_at = loop.make_loop(strategy, look, cfg.jit_compile, clocks=False)
  source = make_input(cfg, info, strategy, 0)
  hosts = replicas.num_hosts(strategy)
  # The last ones are filled up with what the next epoch begins with.
  for _ in range(batches.steps_of_all(info, cfg.train_batch_size, hosts)):
    look_at(source, 1)


def _epochs(strategy, info, method):
  """What loop.fit does when an epoch begins; nothing for most methods."""
  if type(method).on_epoch is skeletons.Method.on_epoch:
    return None

  @tf.function(autograph=False)
  def begin(epoch):
    strategy.run(method.on_epoch, args=(epoch,))

  return info.num_examples, lambda epoch: begin(tf.constant(epoch, tf.int64))


def train(cfg, strategy, info, record, monitor: Monitor):
  """Trains a run to its last step, from wherever its model_dir stands.

  record: what to leave in config.json, once nothing refuses to begin.
  """
  total = derived.train_steps(cfg, info.num_examples)
  warmup = derived.warmup_steps(cfg, info.num_examples)
  for line in checks.warnings(cfg, info.num_examples):
    monitor.say(f'Note: {line}')
  step, state = build(cfg, strategy, info)
  steps = loop.make_loop(
    strategy, step, cfg.jit_compile, clocks=not cfg.deterministic
  )
  store = saving.Checkpoints(
    cfg.model_dir,
    cfg.keep_checkpoint_max,
    replicas.is_chief(strategy),
    alone=replicas.num_workers(strategy) == 1,
    record=saving.Record(record),
    **state.items(),
  )
  restored = _resume(cfg, store, state, monitor.say)
  start = restored or 0
  monitor.write_json('config.json', record)
  monitor.write_json('flags.json', record['config'])
  monitor.say(
    f'{info.name}: {info.num_examples:,} examples, '
    f'{len(info.class_names)} classes; {total:,} steps of '
    f'{cfg.train_batch_size}, warm-up {warmup:,}'
  )
  if restored is None and state.method.needs_first_pass:
    monitor.say('One pass over the data before step 0 ...')
    with sources.explained(info):
      first_pass(cfg, strategy, info, state.method)
  if start == 0:
    store.save(0)
  if start < total:
    waits = service.watched(cfg.data_service, monitor.say)
    with sources.explained(info), waits:
      loop.fit(
        steps,
        make_input(cfg, info, strategy, start),
        start=start,
        total=total,
        batch=cfg.train_batch_size,
        intervals=(
          cfg.train_summary_steps,
          derived.checkpoint_steps(cfg, info.num_examples),
        ),
        save=functools.partial(store.save, say=monitor.say),
        monitor=monitor,
        host_means=replicas.host_means(strategy),
        watch=watch.make_watch(
          cfg, strategy, state.method, info, warmup, monitor
        ),
        epochs=_epochs(strategy, info, state.method),
      )
  return state, total
