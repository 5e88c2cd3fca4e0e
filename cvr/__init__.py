"""Compressive visual representations: everything behind the front.

from cvr import load_encoder
"""


def __getattr__(name):
  # On demand: the package itself imports no TensorFlow.
  if name != 'load_encoder':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from cvr.startup import check_front

  check_front()
  from cvr.exports.encoder import load_encoder

  return load_encoder
