"""--mode=eval: accuracy of the stored probe, once or following a run."""

import time

import numpy as np
import tensorflow as tf

import objectives
from cvr.checkpoints import files, pretrained
from cvr.configs import config, derived
from cvr.data import sources
from cvr.evaluation import features

_POLL_SECONDS = 5.0


def make_eval_step(method, probe, mean_std):
  """-> eval_step(batch) -> this replica's sums: images, bad, top-1, top-5."""

  def eval_step(batch):
    images = features.prepared(batch, mean_std)
    logits = probe(method.probed(method.embed(images)))
    mask, labels = batch['mask'], batch['label']
    sums = [mask, tf.cast(batch['bad'], tf.float32)]
    for k in (1, min(5, logits.shape[-1])):
      hit = tf.math.in_top_k(labels, logits, k)
      sums.append(mask * tf.cast(hit, tf.float32))
    return tf.stack([tf.reduce_sum(x) for x in sums])

  return eval_step


def make_evaluator(cfg, strategy, state, info):
  """-> evaluate() -> metrics of the whole split; compiled once."""
  recipe = derived.augmentation(cfg)
  step = make_eval_step(state.method, state.probe, recipe.mean_std)

  @tf.function
  def run(batch):
    sums = strategy.run(step, args=(batch,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

  def evaluate():
    sums = np.zeros(4)
    source = features.eval_input(
      info, cfg.image_size, cfg.eval_batch_size, features.central(cfg)
    )
    with sources.explained(info):
      for batch in strategy.distribute_datasets_from_function(source):
        sums += run(batch).numpy()
    images, bad, top_1, top_5 = sums
    if images + bad != info.num_examples or not images:
      raise sources.DataError(
        f'--eval_split={cfg.eval_split}: {images:.0f} images read, '
        f'{info.num_examples} expected. Is a file of the data set missing?'
      )
    kernel = state.probe.trainable_variables[:1]
    penalty = cfg.weight_decay * objectives.l2_loss(kernel)
    return {
      'eval/label_top_1_accuracy': float(top_1 / images),
      'eval/label_top_5_accuracy': float(top_5 / images),
      'eval/regularization_loss': float(penalty),
      'eval/images': float(images),
      'eval/bad_images': float(bad),
    }

  return evaluate


def _report(info, monitor, step, metrics):
  """result.json, result_<step>.json, TensorBoard and a line."""
  result = metrics | {'global_step': float(step)}
  monitor.write_json('result.json', result)
  monitor.write_json(f'result_{step}.json', result)
  monitor.summary(step, metrics)
  monitor.say(
    f'step {step}: top-1 {100 * metrics["eval/label_top_1_accuracy"]:.2f}%  '
    f'top-5 {100 * metrics["eval/label_top_5_accuracy"]:.2f}%  '
    f'({info.name}, {info.split})'
  )
  if metrics['eval/bad_images']:
    monitor.say(
      f'{metrics["eval/bad_images"]:,.0f} images of {info.split} cannot be '
      'decoded and are left out'
    )
  return result


def evaluate_state(cfg, strategy, state, step, monitor):
  """Evaluates a state in memory: after training, in the same process."""
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.eval_split, bits=derived.bits(cfg)
  )
  if not state.probe:
    raise config.ConfigError(
      '--mode=eval reports the accuracy of a linear probe, and this checkpoint '
      'has none. Train one: --train_mode=finetune --fine_tune_after_block=4.'
    )
  classes = state.probe.dense.units
  if classes != len(info.class_names):
    raise config.ConfigError(
      f'--dataset={cfg.dataset} has {len(info.class_names)} classes, the probe '
      f'of this checkpoint {classes}. Name the data set it was trained on, or '
      'train a new probe: --train_mode=finetune --fine_tune_after_block=4.'
    )
  evaluator = make_evaluator(cfg, strategy, state, info)
  return _report(info, monitor, step, evaluator())


def follow(cfg, strategy, state, total, monitor, wait=time.sleep):
  """Evaluates every checkpoint of a model_dir until the last step is done.

  wait(seconds) is called between two looks while another process trains.
  """
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.eval_split, bits=derived.bits(cfg)
  )
  evaluator = make_evaluator(cfg, strategy, state, info)
  if not state.probe:
    raise config.ConfigError(
      '--mode=eval reports the accuracy of the linear probe, and this run has '
      'none: its data has no labels, or --lineareval_while_pretraining=false.'
    )
  done, result = -1, None
  while done < total:
    new = [s for s in files.steps(cfg.model_dir) if s > done]
    if not new:
      monitor.say(f'Waiting for a checkpoint after step {done} ...')
      while not new:
        wait(_POLL_SECONDS)
        new = [s for s in files.steps(cfg.model_dir) if s > done]
    *older, step = new
    if older:
      monitor.say(f'Steps {older} are skipped: {step} is newer')
    try:
      path = files.prefix(cfg.model_dir, step)
      pretrained.load(path, [], state.method, state.probe)
    except files.CheckpointError:
      if step in files.steps(cfg.model_dir):
        raise
      monitor.say(f'ckpt-{step} was deleted while it was read; going on')
      continue
    result = _report(info, monitor, step, evaluator())
    done = step
  return result


def extract(layer, source, mean_std):
  """Features of a data set -> (features [n, d], labels [n]), in its order.

  layer: images -> features [b, d]; source: eval batches of one device.
  """

  @tf.function
  def run(batch):
    return layer(features.prepared(batch, mean_std))

  rows, labels = [], []
  for batch in source:
    keep = batch['mask'].numpy() > 0
    rows.append(run(batch).numpy()[keep])
    labels.append(batch['label'].numpy()[keep])
  return np.concatenate(rows), np.concatenate(labels)


def logistic_probe(train, test):
  """Accuracy on test of a logistic regression fitted on train.

  train, test: (features, labels). Features are standardised by train's
  statistics; L-BFGS to convergence, with a little l2.
  """
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  probe = make_pipeline(
    StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)
  )
  return probe.fit(*train).score(*test)
