"""--mode=eval: accuracy of the stored probe, once or following a run."""

import time

import numpy as np
import tensorflow as tf

import objectives
from cvr.checkpoints import files, pretrained
from cvr.configs import config, derived
from cvr.data import decoding, sources
from cvr.evaluation import features, statistics
from cvr.evaluation.heads import linear
from cvr.numerics import replicas
from cvr.training import progress

_POLL_SECONDS = 5.0
_TOP = 5


def make_eval_step(method, probe, mean_std):
  """-> eval_step(batch) -> this replica's sums: bad images, then for each class
  its images, those that are right, and those whose label is among the first 5.
  """

  def eval_step(batch):
    images = features.prepared(batch, mean_std)
    logits = probe(method.probed(method.embed(images)))
    mask, labels = batch['mask'], batch['label']
    classes, counted = logits.shape[-1], [mask]
    for k in (1, min(_TOP, classes)):
      hit = tf.math.in_top_k(labels, logits, k)
      counted.append(mask * tf.cast(hit, tf.float32))
    sums = [tf.math.unsorted_segment_sum(x, labels, classes) for x in counted]
    bad = tf.reduce_sum(tf.cast(batch['bad'], tf.float32))
    return tf.concat([bad[None], *sums], 0)

  return eval_step


def make_evaluator(cfg, strategy, state, info):
  """-> evaluate() -> metrics of the whole split; compiled once."""
  recipe = derived.augmentation(cfg)
  step = make_eval_step(state.method, state.probe, recipe.mean_std)
  classes, chief = state.probe.dense.units, replicas.is_chief(strategy)

  @tf.function(autograph=False)
  def run(batch):
    sums = strategy.run(step, args=(batch,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

  def evaluate():
    sums = np.zeros(1 + 3 * classes)
    source = features.eval_input(
      info, cfg.image_size, cfg.eval_batch_size, features.central(cfg)
    )
    job = progress.Job(
      f'{info.name}, {info.split}', info.num_examples, 'images', chief
    )
    with sources.explained(info), job:
      for batch in strategy.distribute_datasets_from_function(source):
        new = run(batch).numpy()
        sums += new
        job.advance(int(new[: 1 + classes].sum()))
    bad, (images, *right) = sums[0], sums[1:].reshape(3, classes)
    _check_count(cfg, info, images.sum(), bad)
    kernel = state.probe.trainable_variables[:1]
    penalty = cfg.weight_decay * objectives.l2_loss(kernel)
    return accuracies(images, *right, bool(info.cluster)) | {
      'eval/regularization_loss': float(penalty),
      'eval/images': float(images.sum()),
      'eval/bad_images': float(bad),
    }

  return evaluate


def _check_count(cfg, info, images, bad):
  if images + bad != info.num_examples or not images:
    raise sources.DataError(
      f'--eval_split={cfg.eval_split}: {images:.0f} images read, '
      f'{info.num_examples} expected. Is a file of the data set missing?'
    )


def accuracies(images, top_1, top_5, clustered):
  """Counts of each class [C] -> metrics: top-1 and its interval, top-5.

  clustered: whether the images of a class are parts of one thing. Of five
  classes or fewer the label is always among the first 5.
  """
  each = [[right, n - right] for right, n in zip(top_1, images, strict=True)]
  scores = np.repeat([1.0, 0.0] * len(images), np.ravel(each).astype(int))
  classes = np.repeat(np.arange(len(images)), images.astype(int))
  found = statistics.interval(scores, clusters=classes if clustered else None)
  metrics = {'eval/label_top_1_accuracy': found['value']}
  if found['low'] is not None:
    metrics['eval/label_top_1_low'] = found['low']
    metrics['eval/label_top_1_high'] = found['high']
  if len(images) > _TOP:
    metrics['eval/label_top_5_accuracy'] = float(top_5.sum() / images.sum())
  return metrics


def _report(info, monitor, step, metrics):
  """result.json, result_<step>.json, TensorBoard and lines."""
  result = metrics | {'global_step': float(step)}
  monitor.write_json('result.json', result)
  monitor.write_json(f'result_{step}.json', result)
  monitor.summary(step, metrics)
  percent = {
    name.removeprefix('eval/label_'): f'{100 * value:.2f}%'
    for name, value in metrics.items()
    if name.startswith('eval/label_')
  }
  line = f'step {step}: top-1 {percent["top_1_accuracy"]}'
  if 'top_5_accuracy' in percent:
    line += f'  top-5 {percent["top_5_accuracy"]}'
  monitor.say(f'{line}  ({info.name}, {info.split})')
  if 'top_1_low' in percent:
    over = f'{metrics["eval/images"]:,.0f} images'
    over = f'{info.cluster}s' if info.cluster else over
    monitor.say(
      f'top-1 lies between {percent["top_1_low"]} and {percent["top_1_high"]}: '
      f'95% interval over {over}'
    )
  if metrics['eval/bad_images']:
    monitor.say(
      f'{metrics["eval/bad_images"]:,.0f} images of {info.split} '
      f'{decoding.cannot(info.channels)} and are left out'
    )
  return result


def evaluate_state(cfg, strategy, state, step, monitor):
  """Evaluates a state in memory: after training, in the same process."""
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.eval_split, **derived.pixels(cfg)
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
    cfg.dataset, cfg.data_dir, cfg.eval_split, **derived.pixels(cfg)
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
      monitor.say(f'ckpt-{step} was deleted while it was read; continuing')
      continue
    result = _report(info, monitor, step, evaluator())
    done = step
  return result


def extract(layer, source, mean_std):
  """Features of a data set -> (features [n, d], labels [n]), in its order.

  layer: images -> features [b, d]; source: eval batches of one device.
  """

  @tf.function(autograph=False)
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
  statistics; the objective is a sum of losses + 5 ||kernel||^2 (scikit-learn's
  C = 0.1).
  """
  (features, labels), (unseen, wanted) = train, test
  features = features.astype(np.float64)
  mean, deviation = features.mean(0), features.std(0)
  deviation[deviation == 0] = 1
  head = linear.logistic(
    (features - mean) / deviation, labels, 10.0, 1 + int(labels.max())
  )
  predicted = linear.predict(head, (unseen - mean) / deviation)
  return float(np.mean(predicted == wanted))
