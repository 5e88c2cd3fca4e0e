"""A batch made by arithmetic alone: the same bits on every machine."""

import numpy as np


def bits(shape, seed):
  """Integer hashes of 0, 1, 2, ... as uint32; seed: a small integer."""
  x = np.arange(np.prod(shape), dtype=np.uint32)
  x += np.uint32(seed * 0x9E3779B9 % 2**32)
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    x ^= x >> np.uint32(shift)
    x *= np.uint32(factor)
  x ^= x >> np.uint32(16)
  return x.reshape(shape)


def uniform(shape, seed):
  """U[0, 1) of 24 bits, float32."""
  return (bits(shape, seed) >> np.uint32(8)).astype(np.float32) * 2.0**-24


def view(size, image_size, seed):
  """Images of 4 x 4 coloured squares, theirs in every view, under noise.

  Noise alone would do for the time, but not to compare numbers: pooled, all
  images would be the same, and batch norm would blow up the rounding.
  """
  squares = np.arange(image_size) * 4 // image_size
  coarse = uniform([size, 4, 4, 3], 0)[:, squares][:, :, squares]
  noise = uniform([size, image_size, image_size, 3], seed)
  image = np.float32(0.75) * coarse + np.float32(0.25) * noise
  return (image * np.float32(255)).astype(np.uint8)


def batch(size, image_size, classes, draws):
  """What a train step reads, as a dict; sorted, it is in XLA's order.

  draws: how many random numbers travel with a view.
  """
  return {
    'bad': np.zeros(size, np.int32),
    'draws': uniform([size, 2, draws], 4),
    'label': (bits([size], 1) % np.uint32(classes)).astype(np.int32),
    'views': (view(size, image_size, 2), view(size, image_size, 3)),
  }


def flat_batch(**made):
  """The same as a list: the first parameters of an exported step."""
  parts = batch(**made)
  return [parts['bad'], parts['draws'], parts['label'], *parts['views']]
