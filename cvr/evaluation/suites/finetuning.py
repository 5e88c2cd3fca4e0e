"""Trainings of a whole network on labels: semi-supervised, and transfer.

A trial is an ordinary finetuning run in a folder of its own: it resumes there,
and when it is done its predictions are kept and the folder goes.
"""

import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from cvr.configs import config
from cvr.configs.settings import of_one_call, of_the_encoder, sections
from cvr.data import batches, sources
from cvr.evaluation import features, store
from cvr.training import loop, train
from cvr.training.monitor import Monitor

# What all protocols share: Nesterov SGD on crops and flips, a cosine, no
# warm-up, every layer from the start. All else has its default: no setting of
# the pretraining comes in but those of the encoder, and of where this runs.
_COMMON = {
  'mode': 'train',
  'train_mode': 'finetune',
  'optimizer': 'momentum',
  'learning_rate_scaling': 'linear',
  'learning_rate_schedule': 'cosine',
  'warmup_epochs': 0.0,
  'weight_decay': 0.0,
  # Its workers promise no order of examples.
  'data_service': '',
  'train_share': 1.0,
  'keep_checkpoint_max': 1,
}
_SURROUNDINGS = (
  *sections()['Hardware'],
  *sections()['Data'],
  *sections()['Numbers and chance'],
  *sections()['Checkpoints and summaries'],
  # Its name says which latents an encoder has.
  *('pretrain_loss', 'augment_on', 'eval_batch_size'),
)
# Settings that change nothing of what a trial learns.
_OF_THE_CALL = (
  *of_one_call(),
  *('data_dir', 'dataset', 'train_split', 'eval_split', 'eval_batch_size'),
)


_FEWEST_STEPS = 3  # In an epoch, whatever the protocol's batch.


class Trial(NamedTuple):
  """One setting of a grid. rate: of a batch of 256."""

  batch: int
  rate: float
  epochs: int = 1
  steps: int = 0  # Above 0 it wins over epochs.
  decay: float = 0.0
  bn_decay: float | None = None  # None: as in the pretraining.

  def fitted(self, images, replicas=1):
    """The same with a batch that leaves three steps an epoch.

    As many has SimCLR's on 1% of ImageNet. All replicas get as many images. The
    rate is for a batch of 256, and goes along.
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

  A decay is given relative to the rate, by which the optimizer multiplies it.
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
  """The Config of a trial, of a cfg that reads the checkpoint."""
  now = config.to_dict(cfg)
  around = {name: now[name] for name in _SURROUNDINGS}
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
  return config.from_dict(of_the_encoder(now) | around | _COMMON | own)


def _trained(cfg, strategy, info, say):
  """Trains a finetuning run to its end, from wherever it stands -> State."""
  record = {
    'config': config.to_dict(cfg),
    'class_names': info.class_names,
    'num_examples': info.num_examples,
  }
  say(f'Training in {cfg.model_dir}')
  state, _ = train.train(cfg, strategy, info, record, Monitor(cfg.model_dir))
  return state


def _predicted(name, rows):
  """Rows of a split -> what is kept of those that can be decoded."""
  good = rows['labels'] >= 0
  return {
    name: rows['logits'][good].argmax(1),
    f'{name}_labels': rows['labels'][good],
    f'{name}_ids': rows['ids'][good],
  }


def _diverged(name, info):
  """The same of a network that is no more: no class is -1."""
  labels = batches.labels_of(info)
  ids = [sources.example_id(info, i) for i in range(len(labels))]
  return {
    name: np.full(len(labels), -1),
    f'{name}_labels': labels,
    f'{name}_ids': np.array(ids),
  }


def _merged(make, others):
  made = [make(name, info) for name, info in others.items()]
  return {k: v for found in made for k, v in found.items()}


def outcome(subject, trial, fitted, others):
  """A trial on other splits: {name: classes, name_labels, name_ids: [n]}.

  subject: of evaluation.subject; fitted: the split to train on; others: {name:
  DatasetInfo}. Made once.
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
      state = _trained(cfg, subject.strategy, fitted, subject.say)
    except loop.NonFinite as error:
      subject.say(f'{error} It counts as wrong everywhere.')
      yield _merged(_diverged, others)
      return
    read = features.make_read(cfg, subject.strategy, state)
    yield _merged(
      lambda name, info: _predicted(name, features.whole(read, info)), others
    )

  rows = subject.store.rows(facts, make)
  if tf.io.gfile.exists(folder):
    tf.io.gfile.rmtree(folder)
  return rows


def chosen(subject, grid, fitted, others, metric):
  """The trial of a grid that is best on others['held'] -> (trial, reached).

  Of equals the first. metric: (predicted, labels) -> a number. reached: that of
  each trial.
  """
  if len(grid) == 1:
    return grid[0], []
  reached = []
  for trial in grid:
    rows = outcome(subject, trial, fitted, others)
    reached.append(float(metric(rows['held'], rows['held_labels'])))
  return grid[reached.index(max(reached))], reached
