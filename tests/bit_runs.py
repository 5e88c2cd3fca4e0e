"""Runs of two steps, made once for many tests, and the features of one."""

import functools
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import resnet
import run
import tiny_run
from cvr.methods import skeletons
from small_data import SMALL, make_folder
from small_runs import QUICK

DIM = 12


def call(*more):
  return run.main(['run.py', '--use_tpu=false', *more])


def make_images(root):
  """22 images that differ, and 7 to evaluate on -> their folder.

  So that their bits differ: batch norm has the statistics of the last step.
  """
  images = make_folder(f'{root}/images')
  for i, path in enumerate(sorted(pathlib.Path(images).glob('*/*/*'))):
    noise = np.random.default_rng(i).integers(0, 256, [24, 24, 3])
    noise = np.where(
      np.arange(24)[:, None, None] < 3 * (i % 8), 255 - 9 * i, noise
    )
    path.write_bytes(tf.io.encode_png(noise.astype(np.uint8)).numpy())
  return images


def trained(root, kind, *more):
  """A run of two steps -> its folder, and that of its images."""
  images = make_images(root)
  settings = SMALL | {'pretrain_loss': kind, 'latent_dim': DIM}
  flags = [f'--{k}={v}' for k, v in settings.items()]
  flags += [*QUICK, '--mode=train', f'--dataset=folder:{images}']
  flags += ['--train_steps=2', '--warmup_epochs=0', *more]
  flags += ['--batch_norm_decay=0', '--health_pairs=0']
  assert call(*flags, f'--model_dir={root}/run') == 0
  return f'{root}/run', images


class Runs:
  """Runs by method and flags, each trained at its first use."""

  def __init__(self, folder_of):
    self.train = functools.cache(
      lambda *flags: trained(folder_of(flags[0]), *flags)
    )

  def copy(self, root, kind, *more):
    """-> the folder of a copy of a run, which may change, and its images."""
    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patched:
      patched.setitem(resnet.BLOCKS, 18, tiny_run.BLOCKS)
      patched.setattr(skeletons, 'make_encoder', tiny_run.make_encoder)
      model_dir, images = self.train(kind, *more)
    shutil.copytree(model_dir, f'{root}/run')
    return f'{root}/run', images


def extracted(model_dir, path, *more):
  flags = ['--mode=extract_features', f'--model_dir={model_dir}']
  assert call(*flags, f'--output={path}', '--eval_batch_size=4', *more) == 0
  with np.load(path) as file:
    return dict(file)
