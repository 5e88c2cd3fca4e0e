"""What tests train with: methods in small, and a folder of images in which the
value of the pixels is the index.
"""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from cvr.configs import methods
from cvr.configs.plan import make_plan
from cvr.numerics import replicas

_DINO = {'proj_head_hidden': 'gelu', 'num_prototypes': 12}
# pretrain_loss -> what it needs beside the smallest of settings.
METHOD_SETTINGS = {
  'cmc': {'view_pairs': 'lab_l,lab_ab'},
  # More than a dozen steps on one batch fill: its own rows would repel it.
  'moco': {'queue_size': 1024},
  'dino': _DINO,
  'er_dino': _DINO,
  'simsiam': {'proj_head_output_bn': True, 'predictor_hidden_dim': 4},
  'swav': {'num_prototypes': 5, 'queue_size': 4},
  'deepcluster': {'num_prototypes': 4, 'num_heads': 3},
  'stochcon_bernoulli': {'latent_dim': 6},
  'stochcon_gaussian': {'latent_dim': 6},
}

# The smallest of settings.
SMALL = {
  'image_size': 16,
  'resnet_depth': 18,
  'proj_head_hidden_dim': 16,
  'proj_out_dim': 8,
  'train_batch_size': 4,
}


def plan_of(cfg, total=100, warmup=0, classes=3, examples=None):
  """The Plan of a run of `total` steps, whatever its data set."""
  plan = make_plan(cfg, examples, classes, replicas.num_replicas())
  return dataclasses.replace(plan, total=total, warmup=warmup)


def take_local_crops(monkeypatch, name):
  """Lets a method have local crops which has no use for them."""
  kind = methods.KINDS[name]._replace(crops=True)
  monkeypatch.setitem(methods.KINDS, name, kind)


CLASSES = ('bird', 'cat', 'dog')


def encoded(value, kind=tf.io.encode_png, side=6):
  image = np.full([side, side + 2, 3], value, np.uint8)
  image[0, 0] = 255 - value
  return kind(image).numpy()


def write(path, content):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, 'wb') as file:
    file.write(content)


def make_folder(root):
  """22 training images, pixel value = index, and 7 in val."""
  value = 0
  for name, count in zip(CLASSES, (5, 9, 8), strict=True):
    for i in range(count):
      write(f'{root}/train/{name}/{i}.png', encoded(value))
      value += 1
  for i, name in enumerate(('dog', 'cat', 'cat', 'dog', 'dog', 'cat', 'cat')):
    write(f'{root}/val/{name}/{i}.JPG', encoded(i, tf.io.encode_jpeg))
  return str(root)
