"""Runs of the program in small, and whether two left the same."""

import glob
import os
import pathlib

import numpy as np
import tensorflow as tf


def make_images(root):
  """Two classes of 20 px noise around two colours, as JPEG files."""
  rng = np.random.default_rng(0)
  for split, count in (('train', 12), ('val', 5)):
    for k, name in enumerate(('dark', 'light')):
      (root / split / name).mkdir(parents=True)
      for i in range(count):
        noise = rng.integers(0, 100, (20, 24, 3)) + 150 * k
        data = tf.io.encode_jpeg(noise.astype(np.uint8)).numpy()
        (root / split / name / f'{i}.jpg').write_bytes(data)
  return root


def flags(images, model_dir, *more):
  return [
    'run.py',
    f'--dataset=folder:{images}',
    f'--model_dir={model_dir}',
    '--use_tpu=false',
    '--resnet_depth=18',
    '--image_size=16',
    '--train_batch_size=8',
    '--eval_batch_size=4',
    '--train_steps=6',
    '--checkpoint_steps=2',
    '--train_summary_steps=3',
    '--proj_head_hidden_dim=16',
    '--proj_out_dim=8',
    '--warmup_epochs=0',
    '--health_pairs=0',  # It takes long to trace.
    *more,
  ]


def events(folder):
  """(tag, step) -> value of every scalar in a directory's event files."""
  found = {}
  for path in glob.glob(os.path.join(folder, 'events.*')):
    for event in tf.compat.v1.train.summary_iterator(path):
      for value in event.summary.value:
        if value.metadata.plugin_data.plugin_name != 'scalars':
          continue
        found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
  return found


RECORD = 'record/.ATTRIBUTES/py_state'


def tensors(path):
  """Every tensor of a checkpoint, by name."""
  reader = tf.train.load_checkpoint(path)
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    # The record names the folder of its run.
    if name not in ('_CHECKPOINTABLE_OBJECT_GRAPH', RECORD)
  }


def assert_same_bits(first, second):
  a, b = tensors(first), tensors(second)
  assert a.keys() == b.keys() and len(a) > 20
  for name, value in a.items():
    np.testing.assert_array_equal(value, b[name], err_msg=name)


ROOT = str(pathlib.Path(__file__).parents[1])
# They take long to trace, and not every test is about them.
QUICK = ('--no_augmentation', '--use_blur=false')
WATCH = '--health_pairs=512'
C_BYOL = ('--pretrain_loss=byol_ceb', '--ceb_beta=1', '--kappa_e=64')
