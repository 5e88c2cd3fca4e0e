"""Loads and writes checkpoints in the layout of the first paper's release.

Tensors are read by name and written both by name and by object.
"""

from typing import NamedTuple

import tensorflow as tf

from cvr.checkpoints.released_layout import Mismatch, variables
from cvr.checkpoints.released_settings import (
  VALUE,
  is_finetuned,
  shapes_in,
  step,
)
from lars_optimizer import LARS


class Report(NamedTuple):
  """Which tensors of a file were read into the variables of a model."""

  matched: int
  left_over: list

  def describe(self):
    def some(names):
      shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
      return f'{len(names)} ({shown})' if names else '0'

    slots = sum('/.OPTIMIZER_SLOT/' in name for name in self.left_over)
    rest = [n for n in self.left_over if '/.OPTIMIZER_SLOT/' not in n]
    momentum = f' and {slots} of momentum' if slots else ''
    return (
      f'{self.matched} tensors matched, missing 0, left over {some(rest)}'
      f'{momentum}'
    )


def _slot(name, finetuned):
  optimizer = 'finetune_optimizer' if finetuned else 'optimizer'
  return f'{name}/.OPTIMIZER_SLOT/{optimizer}/Momentum'


def _bare(optimizer):
  """The optimizer itself, without the loss scaling of fp16 around it."""
  return getattr(optimizer, 'inner_optimizer', optimizer)


def _momentum(optimizer, variable):
  """The momentum of a variable in LARS, or None."""
  try:
    return optimizer.get_slot(variable, 'Momentum')
  except (KeyError, AttributeError):  # Not trained, or not by LARS.
    return None


def _wanted(parts, optimizer, shapes, resuming):
  """{name: variable} of the parts and of LARS, if there is one."""
  wanted = variables(parts)
  if optimizer is None:
    return wanted
  finetuned = is_finetuned(shapes)
  for name, variable in variables(parts).items():
    momentum, saved = _momentum(optimizer, variable), _slot(name, finetuned)
    # Finetuning wrote momentum only for the variables it trained.
    needed = resuming or not finetuned or saved in shapes
    if momentum is not None and needed:
      wanted[saved] = momentum
  return wanted


def load(path, parts, optimizer=None, resuming=False):
  """Reads parts (of released_layout.parts_of), momentum and step -> Report.

  resuming: every variable that the optimizer trains needs its momentum.
  Nothing is assigned unless all tensors are there and fit.
  """
  shapes, optimizer = shapes_in(path), _bare(optimizer)
  wanted = _wanted(parts, optimizer, shapes, resuming)
  missing = [
    f'{name} {wanted[name].shape.as_list()}'
    for name in sorted(wanted.keys() - shapes.keys())
  ]
  reshaped = [
    f'{name} {list(shapes[name])} for {variable.shape.as_list()}'
    for name, variable in wanted.items()
    if name in shapes and shapes[name] != tuple(variable.shape.as_list())
  ]
  if missing or reshaped:
    raise Mismatch(
      '; '.join(
        f'{len(names)} tensors {what}, first {", ".join(names[:10])}'
        for what, names in (
          ('missing', missing),
          ('of another shape', reshaped),
        )
        if names
      )
    )
  reader = tf.train.load_checkpoint(path)
  values = {name: reader.get_tensor(name + VALUE) for name in wanted}
  for name, value in values.items():
    wanted[name].assign(value)
  read = set(wanted)
  if optimizer is not None:
    optimizer.iterations.assign(step(path))
    read |= {'global_step', 'finetune_global_step'}
  return Report(len(wanted), sorted(shapes.keys() - read))


def _tree(flat):
  """{'a/b': x} -> nested plain containers whose attributes are a and b."""
  children = {}
  for name, value in flat.items():
    head, _, rest = name.partition('/')
    children.setdefault(head, {})[rest] = value
  return tf.train.Checkpoint(
    **{
      head: below[''] if '' in below else _tree(below)
      for head, below in children.items()
    }
  )


def _with_momentum(parts, optimizer, finetuned, like):
  """A LARS with the momentum that the file `like` has, or with all of it.

  The optimizer's other slots are zeros, of variables that were not trained.
  """
  shapes, lars = shapes_in(like) if like else None, LARS(0.0)
  for name, variable in variables(parts).items():
    momentum = _momentum(optimizer, variable)
    kept = shapes is None or _slot(name, finetuned) in shapes
    if momentum is not None and kept:
      lars.add_slot(variable, 'Momentum').assign(momentum)
  lars.iterations = optimizer.iterations
  return lars


def write(path, parts, optimizer, save_counter=1, finetuned=False, like=None):
  """Writes the parts, momentum and step as the published code does.

  It can be read by name and by object: containers have the published
  attributes. finetuned: with the names that finetuning uses, and momentum for
  the variables that have it in the file `like`, if one is given.
  """
  for layer in parts.values():
    if any(type(m).__name__ == 'SqueezeExcite' for m in layer.submodules):
      raise Mismatch('squeeze-and-excitation has no place in this layout')
  bare = _bare(optimizer)
  if finetuned or bare is not optimizer:  # It would bring the loss scale.
    bare = _with_momentum(parts, bare, finetuned, like)
  root = tf.Module()
  root.model = _tree(variables(parts)).model
  # Before the optimizer: its counter is stored under the shorter name.
  if finetuned:
    root.finetune_global_step = bare.iterations
    root.finetune_optimizer = bare
  else:
    root.global_step = bare.iterations
    root.optimizer = bare
  root.save_counter = tf.Variable(save_counter, dtype=tf.int64)
  tf.train.Checkpoint(root=root).write(path)
