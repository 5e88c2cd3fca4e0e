"""A description of a checkpoint for users."""

import textwrap

import numpy as np

from cvr.checkpoints import bundle, pretrained
from cvr.checkpoints.files import plain
from cvr.configs import config
from cvr.configs.settings import show

_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'
# Lines on the parts of a checkpoint; ours have fewer than 20.
_PARTS = 100


def _parts(path):
  """{part: (tensors, numbers)} of a checkpoint; slots are one part."""
  shapes = bundle.reader(path).get_variable_to_shape_map()
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


def _training(record):
  """The lines about how it was trained, from config.json."""
  try:
    classes = record['class_names']
    argv = plain(' '.join(record['argv']), 2000)
    git = plain(record['git'] or 'no git')
    version = plain(record['versions']['tensorflow'])
    settings = [
      plain(f'--{name}={show(value)}')
      for name, value in record['config'].items()
      if value != config.FIELDS[name].default
    ]
    shown = ', '.join(plain(name, 50) for name in classes[:5])
  except (LookupError, TypeError):
    return ['training      config.json beside it was not written by a run']
  shown += ', ...' if len(classes) > 5 else ''
  return [
    f'classes       {len(classes)}: {shown}',
    f'command       {argv}',
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
    channels = '' if s['channels'] == 3 else f', --channels={s["channels"]}'
    lines.append(
      f'backbone      ResNet-{s["resnet_depth"]} {s["width_multiplier"]}x, '
      f'{s["stem"]} stem{channels}'
    )
  lines.append(f'probe         {checkpoint.num_classes or "no"} classes')
  lines += _training(checkpoint.record) if checkpoint.record else []
  lines.append('')
  parts = sorted(_parts(checkpoint.path).items())
  for part, (tensors, numbers) in parts[:_PARTS]:
    lines.append(
      f'{plain(part):32} {tensors:5d} tensors {numbers:14,d} numbers'
    )
  if len(parts) > _PARTS:
    lines.append(f'... and {len(parts) - _PARTS:,} more parts')
  return '\n'.join(lines)
