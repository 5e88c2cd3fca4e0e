"""Runs with a stochastic latent, and the features of one."""

import pathlib

import numpy as np
import tensorflow as tf

import run
from small_data import SMALL, make_folder
from test_run import QUICK

DIM = 12


def call(*more):
  return run.main(['run.py', '--use_tpu=false', *more])


def trained(root, kind, *more):
  """A run of two steps on 22 images -> its folder, and that of the images."""
  images = make_folder(f'{root}/images')
  # Images that differ, and their bits with them: batch norm has the statistics
  # of the last step.
  for i, path in enumerate(sorted(pathlib.Path(images).glob('*/*/*'))):
    noise = np.random.default_rng(i).integers(0, 256, [24, 24, 3])
    noise = np.where(
      np.arange(24)[:, None, None] < 3 * (i % 8), 255 - 9 * i, noise
    )
    path.write_bytes(tf.io.encode_png(noise.astype(np.uint8)).numpy())
  settings = SMALL | {'pretrain_loss': kind, 'latent_dim': DIM}
  flags = [f'--{k}={v}' for k, v in settings.items()]
  flags += [*QUICK, '--mode=train', f'--dataset=folder:{images}']
  flags += ['--train_steps=2', '--warmup_epochs=0', *more]
  flags += ['--batch_norm_decay=0']
  assert call(*flags, f'--model_dir={root}/run') == 0
  return f'{root}/run', images


def extracted(model_dir, path, *more):
  flags = ['--mode=extract_features', f'--model_dir={model_dir}']
  assert call(*flags, f'--output={path}', '--eval_batch_size=4', *more) == 0
  with np.load(path) as file:
    return dict(file)
