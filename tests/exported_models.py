"""Trained models to export, and what they compute."""

import json
import pathlib
import re
import subprocess
import sys

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

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


SIZE = 33  # Odd after the stem: every padding shows.
# Backbones, heads and probes that differ in what is written.
KINDS = {
  'plain': {},
  'bottleneck': dict(depth=50, ft_proj_selector=-1, proj_head_output_bn=True),
  'selective': dict(depth=50, layers={'sk_ratio': 0.0625}),
  'squeeze': dict(layers={'se_ratio': 0.25, 'stem': 'small'}),
  'small images': dict(
    layers={'stem': 'cifar'},
    batch_image_augmentation_type='simclr',
    classes=0,
    channels=1,
  ),
  'five channels': dict(channels=5),
  'byol': dict(pretrain_loss='byol_ceb', proj_head_mode='linear'),
}


def shorten(monkeypatch):
  """Fewer blocks: both kinds of them, with and without a shortcut."""
  monkeypatch.setitem(resnet.BLOCKS, 18, (False, (1, 1, 1, 1)))
  monkeypatch.setitem(resnet.BLOCKS, 50, (True, (2, 1, 1, 1)))


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
  options['shortcut'] = 'torchvision'
  options |= dict(layers)

  def make(plan):
    del plan
    return resnet.ResNet(depth, width, **options)

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
      images = tf.zeros([1, SIZE, SIZE, cfg.channels])
      probe(method.probed(method.embed(images)))
      randomise(probe)
    return State(method, probe, None)

  first = state()
  randomise(first.method)
  checkpoint = pretrained.Checkpoint(
    'a/ckpt-7', False, settings, (), classes, 7, {}
  )
  recipe = derived.augmentation(cfg)
  return export.Trained(
    first, checkpoint, recipe.mean_std, SIZE, state, cfg.channels
  )


def expected(exported, images):
  """The outputs as evaluations compute them, not by export.py."""
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


def pictures(rows=5, size=SIZE, seed=1, channels=3):
  rng = np.random.default_rng(seed)
  return rng.random((rows, size, size, channels), np.float32)


def blocks(heading, page='export.md'):
  """The Python of one chapter of a page of docs/."""
  text = (DOCS / page).read_text()
  chapter = text.partition(f'## {heading}\n')[2].partition('\n## ')[0]
  return re.findall(r'```python\n(.*?)```', chapter, re.DOTALL)


def assert_same_model(written, network, kind, name):
  """A read-back network computes what the model does; so says the report."""
  # Another number of images of another size than those it was checked with.
  for size in (SIZE, 40):
    images = pictures(size=size, channels=written.model.channels)
    ours, theirs = expected(written.model, images), network(images)
    assert ours.keys() <= theirs.keys()
    for endpoint, value in ours.items():
      scale = np.abs(value).max()
      assert scale > 1e-3
      np.testing.assert_allclose(
        np.array(theirs[endpoint]) / scale,
        value / scale,
        atol=1e-5,
        err_msg=endpoint,
      )
  assert 'Read back and compared' in written.lines[0]
  report = json.loads((written.folder / f'{kind}_parity.json').read_text())
  assert report['export'] == name
  assert all(
    e['difference'] < 1e-5 * e['largest'] for e in report['endpoints'].values()
  )


def alone(folder, code):
  """Runs code where nothing of ours can be imported -> what it printed."""
  done = subprocess.run(
    [sys.executable, '-I', '-c', code],
    cwd=folder,
    capture_output=True,
    text=True,
    env={'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''},
  )
  assert done.returncode == 0, done.stderr
  return done.stdout, done.stderr


LOAD = 'import numpy as np\nimages = np.load("images.npy")\n'
SHOW = 'np.save("features.npy", np.array(features))\n'


def assert_documented_lines_give_our_features(written, heading, folder):
  """Runs a chapter of docs/export.md beside `exports`."""
  (folder / 'exports').symlink_to(written.folder)
  np.save(folder / 'images.npy', pictures())
  (code,) = blocks(heading)
  alone(folder, LOAD + code + SHOW)
  np.testing.assert_allclose(
    np.load(folder / 'features.npy'),
    expected(written.model, pictures())['final_avg_pool'],
    rtol=1e-4,
    atol=1e-5,
  )
