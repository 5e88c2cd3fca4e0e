"""A trained model, rebuilt to be read: evaluated, exported, embedded with."""

import dataclasses
import types
from typing import NamedTuple

import tensorflow as tf

from cvr.checkpoints import bundle, files, pretrained
from cvr.configs import checks, config, derived
from cvr.configs.plan import make_plan
from cvr.data import sources
from cvr.methods import skeletons
from cvr.training.step import make_state

_MODEST = 2**29  # Bytes that a tensor may have whatever a checkpoint holds.


def check_sizes(cfg, path):
  """Refuses settings that ask for tensors larger than a whole checkpoint.

  Before they are made: a config.json may come from anybody.
  """
  most = max(bundle.size_of_data(path), _MODEST)
  for name, numbers in derived.head_sizes(cfg).items():
    if 4 * numbers > most:
      value = getattr(cfg, name)
      raise files.CheckpointError(
        f'{path} is too small for --{name}={value}, which config.json or a '
        f'flag gives: it would need {4 * numbers / 1e9:,.1f} GB. Give '
        'the value that it was trained with.'
      )


def _check_newest(cfg):
  """check_sizes of the newest checkpoint, if there is one that can be read.

  One that is damaged, or deleted just now, is told when it is to be evaluated.
  """
  for step in files.steps(cfg.model_dir)[-1:]:
    try:
      check_sizes(cfg, files.prefix(cfg.model_dir, step))
    except files.CheckpointError:
      raise
    except files.DAMAGE:
      pass


def identify(cfg):
  """What --checkpoint, or else the newest one in --model_dir, is."""
  if not cfg.checkpoint and not pretrained.there_is_one(cfg.model_dir):
    raise config.ConfigError(
      f'--model_dir={cfg.model_dir}: there is no config.json of a run and no '
      'checkpoint. Start the training first, or name its folder.'
    )
  return pretrained.identify(cfg.checkpoint or cfg.model_dir)


def _any_optimizer(cfg):
  """For a model that is not trained: LAMB, for one, is not always there."""
  return dataclasses.replace(
    cfg, optimizer='lars', constant_predictor_rate=False
  )


def rebuild(cfg, strategy, num_examples=None):
  """-> (a state to restore into, the last step), for an evaluator.

  num_examples: those that the run was trained on, where that is known.
  """
  _check_newest(cfg)
  info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.train_split, **derived.pixels(cfg)
  )
  plan = make_plan(
    _any_optimizer(cfg),
    num_examples or info.num_examples,
    len(info.class_names),
    strategy.num_replicas_in_sync,
  )
  with strategy.scope():
    return make_state(plan), plan.total


def untrained(cfg, strategy, checkpoint, optimizing=False):
  """A State that a pretrained.Checkpoint fits into."""
  check_sizes(cfg, checkpoint.path)
  if not optimizing:
    cfg = _any_optimizer(cfg)
  plan = make_plan(
    cfg,
    checkpoint.record.get('num_examples'),
    checkpoint.num_classes,
    strategy.num_replicas_in_sync,
  )
  with strategy.scope():
    return make_state(plan)


def load(cfg, strategy, checkpoint, say):
  """A pretrained.Checkpoint -> its State.

  With the optimizer's momentum and step for an export that holds them.
  """
  optimizing = cfg.mode == 'export' and cfg.format == 'released'
  state = untrained(cfg, strategy, checkpoint, optimizing)
  say(
    pretrained.load(
      checkpoint.path,
      [],
      state.method,
      state.probe,
      state.optimizer if optimizing else None,
    )
  )
  return state


class Backbone(NamedTuple):
  """An encoder without its heads, and which images it expects."""

  network: object  # images -> representations
  mean_std: bool  # whether these are normalised
  image_size: int
  channels: int  # of an image
  crop: float  # the share of the shorter side that evaluation keeps
  class_names: tuple  # of the run; () where the checkpoint does not tell


def load_backbone(path):
  """What a path holds, as --checkpoint has it -> Backbone.

  Devices, precision, seeds and logs stay as they are: the process is not ours.
  """
  checks.check_place('checkpoint', path)
  checkpoint = pretrained.identify(path)
  if not checkpoint.settings:
    raise files.CheckpointError(
      f'{checkpoint.path} does not describe its network. Put the config.json '
      'of its run beside it.'
    )
  settings = {'pretrain_loss': checkpoint.methods[0]} | checkpoint.settings
  cfg = config.from_dict(settings)
  check_sizes(cfg, checkpoint.path)
  plan = make_plan(cfg, None, checkpoint.num_classes, replicas=1)
  network, _ = skeletons.make_body(plan)
  # Its variables, whose shapes do not depend on the size of images.
  size = min(cfg.image_size, 64)
  network(tf.zeros([1, size, size, cfg.channels]))
  owner = types.SimpleNamespace(encoder=network)
  pretrained.load(checkpoint.path, ['encoder'], owner)
  return Backbone(
    network,
    plan.recipe.mean_std,
    cfg.image_size,
    cfg.channels,
    derived.eval_crop(cfg),
    tuple(checkpoint.record.get('class_names') or ()),
  )
