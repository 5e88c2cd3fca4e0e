"""A description of a checkpoint for users."""

import textwrap

import numpy as np
import tensorflow as tf

from cvr.checkpoints import pretrained
from cvr.configs import config
from cvr.configs.settings import show

_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'


def _parts(path):
  """{part: (tensors, numbers)} of a checkpoint; slots are one part."""
  shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
  parts = {}
  for name, shape in shapes.items():
    if not name.endswith(_VALUE):
      continue
    part = '/'.join(name.split('/')[:2])
    if '/.OPTIMIZER_SLOT/' in name:
      part = "optimizer's slots"
    elif part.endswith('.ATTRIBUTES'):
      part = part.partition('/')[0]
    tensors, numbers = parts.get(part, (0, 0))
    parts[part] = tensors + 1, numbers + int(np.prod(shape))
  return parts


def _plain(texts):
  """Without control characters, which a terminal would obey."""
  return [''.join(c if c.isprintable() else '?' for c in t) for t in texts]


def _training(record):
  """The lines about how it was trained, from config.json."""
  try:
    classes, argv = _plain(record['class_names']), _plain(record['argv'])
    (git,) = _plain([record['git'] or 'no git'])
    (version,) = _plain([record['versions']['tensorflow']])
    settings = _plain(
      f'--{name}={show(value)}'
      for name, value in record['config'].items()
      if value != config.FIELDS[name].default
    )
  except (LookupError, TypeError):
    return ['training      config.json beside it is not what a run writes']
  shown = ', '.join(classes[:5]) + (', ...' if len(classes) > 5 else '')
  return [
    f'classes       {len(classes)}: {shown}',
    f'command       {" ".join(argv)}',
    f'code          {git}, TensorFlow {version}',
    *textwrap.wrap(
      f'settings      {" ".join(settings)}',
      79,
      subsequent_indent=' ' * 14,
      break_long_words=False,
      break_on_hyphens=False,
    ),
  ]


def describe(path):
  """The report of --mode=inspect."""
  checkpoint = pretrained.identify(path)
  lines = [
    f'checkpoint    {checkpoint.path}',
    f'what          {checkpoint.describe()}',
  ]
  s = checkpoint.settings
  if s:
    lines.append(
      f'backbone      ResNet-{s["resnet_depth"]} {s["width_multiplier"]}x, '
      f'{s["stem"]} stem'
    )
  lines.append(f'probe         {checkpoint.num_classes or "no"} classes')
  lines += _training(checkpoint.record) if checkpoint.record else []
  lines.append('')
  for part, (tensors, numbers) in sorted(_parts(checkpoint.path).items()):
    (part,) = _plain([part])
    lines.append(f'{part:32} {tensors:5d} tensors {numbers:14,d} numbers')
  return '\n'.join(lines)
