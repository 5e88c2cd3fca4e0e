"""A trained model, written for others to use."""

import os

import released


def _released(folder, state, found):
  """A checkpoint in the layout of the published code."""
  path = os.path.join(folder, f'ckpt-{found.step}')
  released.write(
    path,
    released.parts_of(state.method, state.probe),
    state.optimizer,
    found.save_counter,
  )
  return path


FORMATS = {'released': _released}


def export(kind, folder, state, found, say):
  """Writes a state in one of the FORMATS into a folder."""
  path = FORMATS[kind](folder, state, found)
  say(f'{found.path} -> {path}')
