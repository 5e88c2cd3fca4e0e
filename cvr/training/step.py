"""The train step, and what it trains."""

import functools
from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

import model
import objectives
from cvr import methods
from cvr.data import augmentation
from cvr.methods.skeletons import Method
from cvr.numerics import replicas
from cvr.training import big_batches, optimizers, skips


class State(NamedTuple):
  """What trains: a checkpoint holds exactly this."""

  method: Method
  probe: model.Classifier | None
  optimizer: keras.optimizers.Optimizer

  def items(self):
    """The trackables of a checkpoint; a run without labels has no probe."""
    return {k: v for k, v in self._asdict().items() if v is not None}


def make_state(plan):
  """Builds method, probe and optimizer. Call it inside the scope."""
  cfg = plan.cfg
  keras.utils.set_random_seed(cfg.seed)
  method = methods.make_method(plan)
  probe = make_probe(cfg, method, plan.classes)
  optimizer = optimizers.make_optimizer(
    cfg,
    optimizers.make_groups(method, probe),
    optimizers.learning_rate(plan),
    optimizers.weight_decay(plan),
  )
  if cfg.precision == 'fp16':
    # Gradients below 6e-8 would be 0: they are taken of a larger loss.
    optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
  return State(method, probe, optimizer)


def make_probe(cfg, method, classes):
  """The linear probe; None without labels, or where none is to be trained."""
  wanted = cfg.lineareval_while_pretraining or cfg.train_mode == 'finetune'
  if not classes or not wanted:
    return None
  probe = model.Classifier(classes, zero_init=cfg.zero_init_logits_layer)
  probe(tf.zeros([1, method.probed_dim]))  # Its variables.
  return probe


def _make_gradients(plan):
  """The function of big_batches that a step takes its gradients by."""
  if plan.cfg.grad_cache_chunk:
    return functools.partial(big_batches.cached, chunks=plan.chunks)
  if plan.chunks > 1:
    return functools.partial(big_batches.accumulated, chunks=plan.chunks)
  return big_batches.at_once


def _make_loss(state, step):
  """-> loss(embeddings, batch) -> (this replica's share, metrics, carry)."""
  method, probe, _ = state
  plan = method.plan

  def loss(embeddings, batch):
    index = {'index': batch.get('index')}  # Benchmarks have none.
    own, metrics, features, carry = method.objective(embeddings | index, step)
    total = own
    if probe:
      labels = tf.tile(
        batch['label'], [features.shape[0] // batch['label'].shape[0]]
      )
      probe_loss, probe_acc = objectives.classification(
        probe(features), labels, plan.cfg.use_binary_cross_entropy
      )
      total += probe_loss
      metrics |= {'supervised_loss': probe_loss, 'supervised_acc': probe_acc}
    metrics |= {'total_loss': total}
    # The one place where the number of replicas enters a loss.
    return total / plan.replicas, metrics, carry

  return loss


def make_encode(method, step):
  """-> encode(i, chunk i of a batch) -> the embeddings of its views."""
  plan = method.plan

  def encode(i, chunk):
    views = augmentation.per_batch(plan.recipe, chunk)['views']
    # No two chunks of a run get the same noise.
    return method.encode(views, step * plan.chunks + tf.cast(i, step.dtype))

  return encode


def make_train_step(state, schedule, skipped=None):
  """-> train_step(batch) -> this replica's metrics, a flat dict.

  schedule: step -> learning rate, as the optimizer has it. A step whose loss or
  gradient is not finite counts and changes nothing; `skipped`, the Skips, notes
  it.
  """
  method, _, optimizer = state
  plan = method.plan
  statistics = skips.changed_by_forward_pass(method)
  changing = skips.changed_by_update(state)
  groups = optimizers.make_groups(*state[:2])
  gradients_of = _make_gradients(plan)
  decays = optimizers.weight_decay(plan)

  def train_step(batch):
    step = tf.identity(optimizer.iterations)
    before = [tf.identity(v) for v in statistics]
    scale, unscale = optimizers.scaling(optimizer)
    metrics, carry, gradients = gradients_of(
      make_encode(method, step),
      scale(_make_loss(state, step)),
      batch,
      groups.trained,
    )
    gradients = replicas.cross_replica_sum(unscale(gradients))
    decay = decays(step)
    penalty = optimizers.penalty(plan.cfg, groups, decay)
    gradients = optimizers.with_penalty(plan.cfg, groups, decay, gradients)
    norm = tf.linalg.global_norm(gradients)
    if plan.cfg.clip_norm:
      gradients, _ = tf.clip_by_global_norm(gradients, plan.cfg.clip_norm, norm)
    rate = schedule(step)
    gradients = optimizers.steadied(
      plan.peak_rate, method, rate, gradients, groups.trained
    )

    def change():
      optimizers.update(
        optimizer, gradients, groups.trained, optimizers.held(method, step)
      )
      method.after_update(step, carry)

    scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
    good = skips.is_good(metrics['total_loss'], norm, scaled)
    replicas.when(good, change, changing)
    replicas.put_back(~good, statistics, before)
    optimizer.iterations.assign(step + 1)
    if skipped:
      skipped.note(good, step, batch.get('index'))
    bad = tf.reduce_sum(tf.cast(batch['bad'], tf.float32))
    metrics |= {
      'total_loss': metrics['total_loss'] + penalty,
      'weight_decay': penalty,
      'learning_rate': rate,
      'grad_norm': norm,
      'weight_norm': tf.linalg.global_norm(groups.trained),
      'bad_images': plan.replicas * bad,
    }
    # What was not finite would hide the other steps of a mean.
    metrics = {
      k: tf.where(good, v, tf.zeros_like(v)) for k, v in metrics.items()
    }
    return metrics | {'skipped_steps': 1.0 - tf.cast(good, tf.float32)}

  return train_step
