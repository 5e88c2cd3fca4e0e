"""Loads and writes checkpoints in the layout of the first paper's release.

Tensors are read by name and written both by name and by object.
"""

from typing import NamedTuple

import tensorflow as tf

from cvr.checkpoints import bundle
from cvr.checkpoints.released_layout import (
  PARTS,
  TITLES,
  Mismatch,
  variables,
)
from cvr.checkpoints.released_settings import (
  VALUE,
  is_finetuned,
  shapes_in,
  step,
)
from lars_optimizer import LARS

_COUNTERS = ('global_step', 'finetune_global_step', 'save_counter')


class Report(NamedTuple):
  """Which tensors of a file were read into the variables of a model."""

  matched: int
  left_over: dict  # kind, in words -> names

  def describe(self):
    rest = ', '.join(
      f'{len(names)} of {kind}' for kind, names in self.left_over.items()
    )
    return f'{self.matched} tensors matched, missing 0, not read: {rest or 0}'


def _left_over(names, parts):
  """Names of tensors that were not read -> {kind: names}, and those of no kind.

  A kind is a part of the model that this call does not build, momentum, or a
  counter. What is left of a part that is built means another architecture.
  """
  kinds, strays = {}, []
  for name in sorted(names):
    part = next(
      (p for p, root in PARTS.items() if name.startswith(f'{root}/')), None
    )
    if '/.OPTIMIZER_SLOT/' in name:
      kind = 'momentum'
    elif name in _COUNTERS:
      kind = 'counters'
    elif part and part not in parts:
      kind = TITLES[part]
    else:
      strays.append(name)
      continue
    kinds.setdefault(kind, []).append(name)
  return kinds, strays


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
  read = set(wanted)
  if optimizer is not None:
    read |= {'global_step', 'finetune_global_step'}
  left_over, strays = _left_over(shapes.keys() - read, parts)
  problems = {
    'missing': missing,
    'of another shape': reshaped,
    'without a place in this model': strays,
  }
  if any(problems.values()):
    raise Mismatch(
      '; '.join(
        f'{len(names)} tensors {what}, first {", ".join(names[:10])}'
        for what, names in problems.items()
        if names
      )
    )
  reader = bundle.reader(path)
  values = {name: reader.get_tensor(name + VALUE) for name in wanted}
  for name, value in values.items():
    wanted[name].assign(value)
  if optimizer is not None:
    optimizer.iterations.assign(step(path))
  return Report(len(wanted), left_over)


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
