"""--format=released: a checkpoint in the layout of the published code."""

import os

from cvr.checkpoints import released, released_layout
from cvr.checkpoints.files import CheckpointError


def _check(model):
  methods = released_layout.METHODS
  for method in set(model.checkpoint.methods) - set(methods):
    raise CheckpointError(
      f'--format=released: this layout is for {", ".join(methods)}, but this '
      f'checkpoint is of {method}. Use saved_model, safetensors, onnx or keras '
      'for its encoder.'
    )
  method = model.state.method
  if getattr(method, 'ceb', None) and method.ceb.variables:
    raise CheckpointError(
      '--format=released: this layout cannot hold learned deviations.'
    )


def write(folder, model):
  """-> (path, the network read back from it)."""
  _check(model)
  state, checkpoint = model.state, model.checkpoint
  path = os.path.join(folder, f'ckpt-{checkpoint.step}')
  released.write(
    path,
    released_layout.parts_of(state.method, state.probe),
    state.optimizer,
    checkpoint.save_counter,
    finetuned=checkpoint.finetuned,
    like=checkpoint.path if checkpoint.released else None,
  )

  state = model.again()
  released.load(path, released_layout.parts_of(state.method, state.probe))
  return path, model.network_of(state)
