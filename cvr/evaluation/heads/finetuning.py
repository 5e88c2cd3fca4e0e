"""Whole networks trained on labels, for semi-supervised and transfer learning.

A trial is an ordinary finetuning run in a folder of its own, where it resumes.
When it is done its predictions are stored and the folder is removed.
"""

import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cvr.configs import config
from cvr.configs.settings import of_one_call, of_the_encoder, sections
from cvr.data import batches, sources
from cvr.evaluation import features, store
from cvr.evaluation.heads import linear
from cvr.training import loop, train
from cvr.training.monitor import Monitor

# What all protocols share: Nesterov SGD on crops and flips, a cosine, no
# warm-up, every layer from the start. Everything else has its default: of the
# pretraining's settings only those of the encoder and of the machine are kept.
_COMMON = {
  'mode': 'train',
  'train_mode': 'finetune',
  'optimizer': 'momentum',
  'learning_rate_scaling': 'linear',
  'learning_rate_schedule': 'cosine',
  'warmup_epochs': 0.0,
  'weight_decay': 0.0,
  # Its workers do not keep the order of examples.
  'data_service': '',
  'train_share': 1.0,
  'keep_checkpoint_max': 1,
}
_SURROUNDINGS = (
  *sections()['Hardware'],
  *sections()['Data'],
  *sections()['Numbers and chance'],
  *sections()['Checkpoints and summaries'],
  # The method decides which latents an encoder has.
  *('pretrain_loss', 'augment_on', 'eval_batch_size'),
)
# Settings that do not change what a trial learns.
_OF_THE_CALL = (
  *of_one_call(),
  *('data_dir', 'dataset', 'train_split', 'eval_split', 'eval_batch_size'),
)


_FEWEST_STEPS = 3  # In an epoch, whatever the protocol's batch.


class Trial(NamedTuple):
  """One point of a grid. rate: for a batch of 256."""

  batch: int
  rate: float
  epochs: int = 1
  steps: int = 0  # Above 0 it takes precedence over epochs.
  decay: float = 0.0
  bn_decay: float | None = None  # None: as in the pretraining.

  def fitted(self, images, replicas=1):
    """The same with a batch that leaves at least three steps an epoch.

    SimCLR's protocol has three on 1% of ImageNet. The batch divides among the
    replicas; the rate is for a batch of 256, and scales with it.
    """
    batch = min(self.batch, max(images // _FEWEST_STEPS, replicas))
    batch = min(batch, images) // replicas * replicas
    if not batch:
      raise sources.DataError(
        f'{images} images are too few for {replicas} replicas.'
      )
    return self._replace(batch=batch)


def _per_256(rate, batch):
  return rate * 256 / batch


# Share of the labels -> SimCLR's trial (B.5), and BYOL's grid (C.1).
SEMI = {
  share: {
    'simclr': [Trial(4096, 0.05, simclr_epochs)],
    'byol': [
      Trial(1024, _per_256(rate, 1024), epochs)
      for epochs in (30, 50)
      for rate in (0.01, 0.02, 0.05, 0.1, 0.005)
    ],
  }
  for share, simclr_epochs in ((0.01, 60), (0.1, 30))
}


def transfer_grid(images, steps=20_000, batch=256):
  """SimCLR B.8.1, BYOL D.3: 7 rates by 8 weight decays, 20,000 steps.

  The optimizer multiplies a decay by the rate: it is given divided by the rate.
  """
  per_epoch = max(1, images // batch)
  return [
    Trial(
      batch,
      float(rate),
      steps=steps,
      decay=float(decay / rate),
      bn_decay=max(1 - 10 / per_epoch, 0.9),
    )
    for rate in np.logspace(-4, -1, 7)
    for decay in (*np.logspace(-6, -3, 7), 0.0)
  ]


def settings_of(cfg, trial, checkpoint, folder):
  """The Config of a trial; cfg: of the evaluation."""
  current = config.to_dict(cfg)
  around = {name: current[name] for name in _SURROUNDINGS}
  own = {
    'checkpoint': checkpoint,
    'model_dir': folder,
    'train_batch_size': trial.batch,
    'learning_rate': trial.rate,
    'weight_decay': trial.decay,
    'train_epochs': trial.epochs,
    'train_steps': trial.steps,
  }
  if trial.bn_decay is not None:
    own['batch_norm_decay'] = trial.bn_decay
  return config.from_dict(of_the_encoder(current) | around | _COMMON | own)


def _trained(cfg, strategy, info, say, title):
  """Starts or resumes a finetuning run and completes it -> State."""
  record = {
    'config': config.to_dict(cfg),
    'class_names': info.class_names,
    'num_examples': info.num_examples,
  }
  say(f'Training in {cfg.model_dir}')
  monitor = Monitor(cfg.model_dir, title=title)
  state, _ = train.train(cfg, strategy, info, record, monitor)
  return state


def _predicted(name, rows):
  """Rows of a split -> classes, labels and ids of the decodable images."""
  good = rows['labels'] >= 0
  return {
    name: rows['logits'][good].argmax(1),
    f'{name}_labels': rows['labels'][good],
    f'{name}_ids': rows['ids'][good],
  }


def _diverged(name, info):
  """The same for a network that diverged: no image has the class -1."""
  labels = batches.labels_of(info)
  ids = [sources.example_id(info, i) for i in range(len(labels))]
  return {
    name: np.full(len(labels), -1),
    f'{name}_labels': labels,
    f'{name}_ids': np.array(ids),
  }


def _merged(make, others):
  parts = [make(name, info) for name, info in others.items()]
  return {k: v for part in parts for k, v in part.items()}


def outcome(subject, trial, fitted, others, title=''):
  """Predictions of a trial: {name: classes, name_labels, name_ids: [n]}.

  fitted: the split to train on; others: {name: DatasetInfo} to predict on;
  title: of the progress line.
  Trained once, then read from the subject's store.
  """
  settings = config.to_dict(settings_of(subject.cfg, trial, '', ''))
  facts = subject.facts(
    finetuned={k: v for k, v in settings.items() if k not in _OF_THE_CALL},
    fitted=sources.fingerprint(fitted),
    others={k: sources.fingerprint(v) for k, v in others.items()},
  )
  folder = os.path.join(subject.store.folder, f'run-{store.digest(facts)}')

  def make():
    cfg = settings_of(subject.cfg, trial, subject.path, folder)
    try:
      state = _trained(cfg, subject.strategy, fitted, subject.say, title)
    except loop.NonFinite as error:
      subject.say(f'{error} It counts as wrong for every image.')
      yield _merged(_diverged, others)
      return
    read = features.make_read(cfg, subject.strategy, state)
    yield _merged(
      lambda name, info: _predicted(name, features.read_all(read, info)), others
    )

  rows = subject.store.rows(facts, make)
  if tf.io.gfile.exists(folder):
    tf.io.gfile.rmtree(folder)
  return rows


class Task(NamedTuple):
  """The DatasetInfos that a grid of trials needs, and its metric."""

  fitted: sources.DatasetInfo  # trials are trained on it
  held: sources.DatasetInfo  # the best trial is chosen on it
  refitted: sources.DatasetInfo  # the best one is trained on it in the end
  test: sources.DatasetInfo
  metric: str = 'top_1'

  def measure(self, predicted, labels):
    return linear.METRICS[self.metric](predicted == labels, labels)


def chosen(subject, grid, task):
  """The trial of a grid that is best on held-out images -> (trial, values).

  The first of equals. values: the metric of each trial.
  """
  if len(grid) == 1:
    return grid[0], []
  others = {'held': task.held}
  if task.refitted is task.fitted:
    others['test'] = task.test  # So that the best need not be trained again.
  values = []
  for number, trial in enumerate(grid, 1):
    title = f'trial {number}/{len(grid)}'
    rows = outcome(subject, trial, task.fitted, others, title)
    values.append(float(task.measure(rows['held'], rows['held_labels'])))
  return grid[values.index(max(values))], values


def tested(subject, grid, task):
  """The best trial of a grid on the test split -> (rows, correct [n], facts).

  facts: what the protocol of its Number has beside the subject's.
  """
  replicas = subject.strategy.num_replicas_in_sync
  grid = [trial.fitted(task.fitted.num_examples, replicas) for trial in grid]
  trial, values = chosen(subject, grid, task)
  others = {'test': task.test}
  if task.refitted is task.fitted:
    others = {'held': task.held} | others
  made = outcome(subject, trial, task.refitted, others)
  facts = {
    'layer': 'the whole network',
    'chosen': trial._asdict(),
    'grid': [one._asdict() for one in grid],
    'validation_accuracy': values,
    'train_crop': 'random crops and flips',
  }
  rows = {'labels': made['test_labels'], 'ids': made['test_ids']}
  return rows, made['test'] == made['test_labels'], facts
