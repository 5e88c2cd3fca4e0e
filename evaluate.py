"""Evaluation: the stored probe on every image once, and following a run.

Knows a method only by what embed() names; never trains anything.
"""

import time

import numpy as np
import tensorflow as tf

import checkpoints
import config
import data
import data_sources
import data_util
import objectives

_POLL_SECONDS = 5.0


def prepared(batch, mean_std):
  """A batch's images as the encoder was trained to see them."""
  (images,) = batch['views']
  return data_util.normalize(images) if mean_std else images


def make_eval_step(method, probe, mean_std):
  """-> eval_step(batch) -> this replica's sums: images, bad, top-1, top-5."""

  def eval_step(batch):
    images = prepared(batch, mean_std)
    logits = probe(method.probed(method.embed(images)))
    mask, labels = batch['mask'], batch['label']
    sums = [mask, tf.cast(batch['bad'], tf.float32)]
    for k in (1, min(5, logits.shape[-1])):
      hit = tf.math.in_top_k(labels, logits, k)
      sums.append(mask * tf.cast(hit, tf.float32))
    return tf.stack([tf.reduce_sum(x) for x in sums])

  return eval_step


def batches(info, image_size, batch_size):
  """-> a function of an input context, as a strategy wants it."""

  def preprocess(image):
    return data_util.eval_image(image, image_size)

  def of_context(context):
    return data.eval_batches(
      info,
      preprocess,
      global_batch=batch_size,
      per_replica_batch=batch_size // context.num_replicas_in_sync,
      num_hosts=context.num_input_pipelines,
      host=context.input_pipeline_id,
    )

  return of_context


def make_evaluator(cfg, strategy, state, info):
  """-> evaluate() -> metrics of the whole split; compiled once."""
  recipe = config.augmentation(cfg)
  step = make_eval_step(state.method, state.probe, recipe.mean_std)

  @tf.function
  def run(batch):
    sums = strategy.run(step, args=(batch,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

  def evaluate():
    sums = np.zeros(4)
    source = batches(info, cfg.image_size, cfg.eval_batch_size)
    for batch in strategy.distribute_datasets_from_function(source):
      sums += run(batch).numpy()
    images, bad, top_1, top_5 = sums
    if images + bad != info.num_examples or not images:
      raise data_sources.DataError(
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


def _report(cfg, monitor, step, metrics):
  """result.json, result_<step>.json, TensorBoard and a line."""
  result = metrics | {'global_step': float(step)}
  monitor.write_json('result.json', result)
  monitor.write_json(f'result_{step}.json', result)
  monitor.summary(step, metrics)
  monitor.say(
    f'step {step}: top-1 {100 * metrics["eval/label_top_1_accuracy"]:.2f}%  '
    f'top-5 {100 * metrics["eval/label_top_5_accuracy"]:.2f}%  '
    f'({cfg.dataset}, {cfg.eval_split})'
  )
  return result


def evaluate_state(cfg, strategy, state, step, monitor):
  """Evaluates the state as it is: after training, in the same process."""
  info = data_sources.describe(cfg.dataset, cfg.data_dir, cfg.eval_split)
  evaluator = make_evaluator(cfg, strategy, state, info)
  return _report(cfg, monitor, step, evaluator())


def follow(cfg, strategy, state, total, monitor, wait=time.sleep):
  """Evaluates every checkpoint of a model_dir until the last step is done.

  wait is called between two looks while training goes on elsewhere.
  """
  info = data_sources.describe(cfg.dataset, cfg.data_dir, cfg.eval_split)
  evaluator = make_evaluator(cfg, strategy, state, info)
  if not state.probe:
    raise config.ConfigError(
      '--mode=eval reports the accuracy of the linear probe, and this run has '
      'none: its data has no labels, or --lineareval_while_pretraining=false.'
    )
  items = {'method': state.method, 'probe': state.probe}
  done, result = -1, None
  while done < total:
    new = [s for s in checkpoints.steps(cfg.model_dir) if s > done]
    if not new:
      monitor.say(f'Waiting for a checkpoint after step {done} ...')
      while not new:
        wait(_POLL_SECONDS)
        new = [s for s in checkpoints.steps(cfg.model_dir) if s > done]
    step = new[-1]
    try:
      checkpoints.load_parts(checkpoints.prefix(cfg.model_dir, step), **items)
    except checkpoints.CheckpointError:
      if step in checkpoints.steps(cfg.model_dir):
        raise
      monitor.say(f'ckpt-{step} was deleted while it was read; going on')
      continue
    result = _report(cfg, monitor, step, evaluator())
    done = step
  return result


def extract(layer, source, mean_std):
  """Features of a data set -> (features [n, d], labels [n]), in its order.

  layer: images -> features [b, d]; source: eval batches of one device.
  """

  @tf.function
  def run(batch):
    return layer(prepared(batch, mean_std))

  features, labels = [], []
  for batch in source:
    keep = batch['mask'].numpy() > 0
    features.append(run(batch).numpy()[keep])
    labels.append(batch['label'].numpy()[keep])
  return np.concatenate(features), np.concatenate(labels)


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
