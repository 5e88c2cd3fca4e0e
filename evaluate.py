"""Evaluation: the stored probe on every image once, and following a run.

Knows a method only by what embed() names; never trains anything.
"""

import io
import os
import time

import numpy as np
import tensorflow as tf

import checkpoint_files
import config
import data
import data_sources
import data_util
import objectives
import pretrained

_POLL_SECONDS = 5.0
_SHARD = 20_000  # Examples in a file of features.


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
    with data_sources.explained(info):
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
  done, result = -1, None
  while done < total:
    new = [s for s in checkpoint_files.steps(cfg.model_dir) if s > done]
    if not new:
      monitor.say(f'Waiting for a checkpoint after step {done} ...')
      while not new:
        wait(_POLL_SECONDS)
        new = [s for s in checkpoint_files.steps(cfg.model_dir) if s > done]
    *older, step = new
    if older:
      monitor.say(f'Steps {older} are skipped: {step} is newer')
    try:
      path = checkpoint_files.prefix(cfg.model_dir, step)
      pretrained.load(path, [], state.method, state.probe)
    except checkpoint_files.CheckpointError:
      if step in checkpoint_files.steps(cfg.model_dir):
        raise
      monitor.say(f'ckpt-{step} was deleted while it was read; going on')
      continue
    result = _report(cfg, monitor, step, evaluator())
    done = step
  return result


def make_embed_step(method, probe, mean_std):
  """-> step(batch) -> a flat dict of this replica's rows."""

  def step(batch):
    embedded = method.embed(prepared(batch, mean_std))
    out = {name: embedded[name] for name in ('representation', 'projection')}
    if hasattr(method, 'predict_mean'):
      out['prediction'] = method.predict_mean(embedded['projection'])
    if probe:
      out['logits'] = probe(method.probed(embedded))
    out = {name: tf.cast(value, tf.float32) for name, value in out.items()}
    return out | {name: batch[name] for name in ('label', 'index', 'mask')}

  return step


def embeddings(cfg, strategy, state, info):
  """Yields {name: rows} of a split, batch by batch, in its order.

  Every example once; what cannot be decoded has NaN in place of features.
  """
  step = make_embed_step(
    state.method, state.probe, config.augmentation(cfg).mean_std
  )

  @tf.function
  def run(batch):
    return strategy.run(step, args=(batch,))

  source = batches(info, cfg.image_size, cfg.eval_batch_size)

  def numbers(value):
    parts = strategy.experimental_local_results(value)
    return np.concatenate([part.numpy() for part in parts])

  with data_sources.explained(info):
    for batch in strategy.distribute_datasets_from_function(source):
      rows = {name: numbers(value) for name, value in run(batch).items()}
      yield _in_order(info, rows)


def _in_order(info, rows):
  """The rows of a batch without padding, and what cannot be decoded as NaN."""
  index, seen = rows.pop('index'), rows.pop('mask') > 0
  for name, value in rows.items():
    value[~seen] = -1 if name == 'label' else np.nan
  keep = np.argsort(index, kind='stable')[np.sum(index < 0) :]
  labels = rows.pop('label')[keep]
  ids = np.array([data_sources.example_id(info, i) for i in index[keep]])
  rows = {name: value[keep] for name, value in rows.items()}
  return rows | {'labels': labels, 'ids': ids}


def _save_npz(path, pieces):
  """Writes arrays so that readers see a whole file or none."""
  arrays = {k: np.concatenate([p[k] for p in pieces]) for k in pieces[0]}
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  tf.io.gfile.makedirs(os.path.dirname(path) or '.')
  with tf.io.gfile.GFile(f'{path}.new', 'wb') as file:
    file.write(buffer.getvalue())
  tf.io.gfile.rename(f'{path}.new', path, overwrite=True)


def extract_features(cfg, strategy, state, say):
  """Writes the embeddings of --eval_split to --output."""
  info = data_sources.describe(cfg.dataset, cfg.data_dir, cfg.eval_split)
  single = cfg.output.endswith('.npz')
  first = cfg.output if single else _shard(cfg.output, 0)
  if not single and tf.io.gfile.exists(first):
    # Of a larger set some would stay among the new ones.
    raise config.ConfigError(
      f'--output={cfg.output} holds features already; name another folder.'
    )
  done, bad, held, shards = 0, 0, [], 0
  for piece in embeddings(cfg, strategy, state, info):
    held.append(piece)
    done += len(piece['labels'])
    bad += int(np.isnan(piece['representation'][:, 0]).sum())
    if not single and sum(len(p['labels']) for p in held) >= _SHARD:
      _save_npz(_shard(cfg.output, shards), held)
      held, shards = [], shards + 1
  if done != info.num_examples:
    raise data_sources.DataError(
      f'--eval_split={cfg.eval_split}: {done} examples read, '
      f'{info.num_examples} expected. Is a file of the data set missing?'
    )
  if held:
    _save_npz(cfg.output if single else _shard(cfg.output, shards), held)
  say(f'{done:,} examples of {info.name}, {info.split}, in {cfg.output}')
  if bad:
    say(f'{bad:,} of them cannot be decoded: NaN, and the label -1')


def _shard(folder, number):
  return os.path.join(folder, f'features-{number:05d}.npz')


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
