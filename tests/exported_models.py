"""Trained models to export, and what they answer."""

import pathlib
import re

import numpy as np
import tensorflow as tf

import model
import resnet
from cvr import methods
from cvr.checkpoints import pretrained
from cvr.configs import config, derived
from cvr.exports import export
from cvr.methods import skeletons
from cvr.training.step import State
from small_data import plan_of

DOCS = pathlib.Path(__file__).parents[1] / 'docs' / 'export.md'


SIZE = 33  # Odd after the stem: every padding shows.


def randomise(module, seed=0):
  """Numbers with which no branch, no statistic and no bias is trivial."""
  rng = np.random.default_rng(seed)
  for variable in module.variables:
    noise = rng.uniform(0.5, 1.5, variable.shape)
    if 'gamma' in variable.name or 'variance' in variable.name:
      variable.assign(noise)
    elif variable.shape.rank == 1:
      variable.assign(noise - 1)


def trained(
  monkeypatch, layers=(), classes=3, depth=18, width=1 / 8, **changes
):
  """A Trained of a thin encoder with the given options."""
  options = {'stem': 'imagenet', 'sk_ratio': 0.0, 'se_ratio': 0.0}
  options |= dict(layers)

  def make(cfg):
    return resnet.ResNet(cfg.resnet_depth, width, **options)

  monkeypatch.setattr(skeletons, 'make_encoder', make)
  settings = {
    'image_size': SIZE,
    'resnet_depth': depth,
    'proj_head_hidden_dim': 12,
    'proj_out_dim': 6,
  }
  cfg = config.Config(**settings | changes)

  def state():
    method = methods.make_method(plan_of(cfg, 1, 0))
    probe = model.Classifier(classes) if classes else None
    if probe:
      probe(method.probed(method.embed(tf.zeros([1, SIZE, SIZE, 3]))))
      randomise(probe)
    return State(method, probe, None)

  first = state()
  randomise(first.method)
  found = pretrained.Found('a/ckpt-7', False, settings, (), classes, 7, {})
  recipe = derived.augmentation(cfg)
  return export.Trained(first, found, recipe.mean_std, SIZE, state)


def expected(exported, images):
  """By the ways of evaluate.py, not by those of export.py."""
  import data_util

  state = exported.state
  if exported.mean_std:
    images = data_util.normalize(images)
  embedded = state.method.embed(images)
  out = {
    'final_avg_pool': embedded['representation'],
    'proj_head_output': embedded['projection'],
  }
  if state.probe:
    out['logits_sup'] = state.probe(state.method.probed(embedded))
  return {name: value.numpy() for name, value in out.items()}


def pictures(rows=5, size=SIZE, seed=1):
  rng = np.random.default_rng(seed)
  return rng.random((rows, size, size, 3), np.float32)


def blocks(heading):
  """The Python of one chapter of docs/export.md."""
  chapter = (
    DOCS.read_text().partition(f'## {heading}\n')[2].partition('\n## ')[0]
  )
  return re.findall(r'```python\n(.*?)```', chapter, re.DOTALL)
