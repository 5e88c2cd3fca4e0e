"""Gradients of a batch in one go, or in chunks where it does not fit.

encode(i, part) maps rows of a batch to named embeddings [n, ...]; loss(
embeddings, batch) gives a scalar, its metrics, and tensors [n, ...] that are
carried on. All return a Result.
"""

from typing import NamedTuple

import tensorflow as tf

from cvr.numerics import replicas
from cvr.numerics.sums import total as total_of
from resnet import still_statistics

_none = tf.UnconnectedGradients.ZERO


class Result(NamedTuple):
  """What a batch gives; carry: rows, of all its chunks."""

  metrics: dict
  carry: dict
  gradients: list  # one per variable


def at_once(encode, loss, batch, variables):
  """One forward and one backward pass."""
  with tf.GradientTape() as tape:
    total, metrics, carry = loss(encode(0, batch), batch)
  return Result(metrics, carry, tape.gradient(total, variables))


def _cut(batch, chunks):
  """-> part(i) of a batch whose tensors are all [rows, ...]."""
  stacked = tf.nest.map_structure(
    lambda x: tf.reshape(x, [chunks, -1, *x.shape[1:]]), batch
  )
  return lambda i: tf.nest.map_structure(lambda x: x[i], stacked)


def _arrays(first, chunks):
  """For the rows of all chunks; first: those of chunk 0, any structure."""
  return [
    tf.TensorArray(x.dtype, chunks, element_shape=x.shape).write(0, x)
    for x in tf.nest.flatten(first)
  ]


def _write(arrays, i, chunk):
  flat = tf.nest.flatten(chunk)
  return [a.write(i, x) for a, x in zip(arrays, flat, strict=True)]


def _joined(arrays, first, chunks):
  """Full arrays -> the structure of the first chunk with the rows of all."""
  rows = [a.concat() for a in arrays]
  for x, chunk in zip(rows, tf.nest.flatten(first), strict=True):
    x.set_shape([chunks * chunk.shape[0], *chunk.shape[1:]])
  return tf.nest.pack_sequence_as(first, rows)


def accumulated(encode, loss, batch, variables, chunks):
  """The mean over chunks of what at_once() gives: each has a loss of its own.

  What is carried on has the rows of all chunks.
  """
  part = _cut(batch, chunks)

  def of_chunk(i):
    with tf.GradientTape() as tape:
      total, metrics, carry = loss(encode(i, part(i)), part(i))
    gradients = tape.gradient(total, variables, unconnected_gradients=_none)
    return (metrics, gradients), carry

  def add(i, state):
    sums, arrays = state
    values, carry = of_chunk(i)
    sums = tf.nest.map_structure(tf.add, sums, values)
    return sums, _write(arrays, i, carry)

  sums, first = of_chunk(0)
  state = sums, _arrays(first, chunks)
  sums, arrays = replicas.repeat(1, chunks, add, state)
  metrics, gradients = tf.nest.map_structure(lambda x: x / chunks, sums)
  return Result(metrics, _joined(arrays, first, chunks), gradients)


def embed_all(encode, batch, chunks):
  """Embeddings of all chunks as [rows, ...]: forward passes that keep nothing
  and leave the moving averages alone.
  """
  part = _cut(batch, chunks)
  with still_statistics():
    first = encode(0, part(0))
    arrays = replicas.repeat(
      1,
      chunks,
      lambda i, arrays: _write(arrays, i, encode(i, part(i))),
      _arrays(first, chunks),
    )
  return _joined(arrays, first, chunks)


def cached(encode, loss, batch, variables, chunks):
  """What at_once() gives, in the memory of one chunk (Gao et al., 2021).

  All embeddings first; then the loss of them all, and its gradient by each;
  then each chunk once more, with that gradient. Exact where encode treats the
  rows of a chunk alone: batch normalisation takes its statistics of a chunk.
  """
  embeddings = embed_all(encode, batch, chunks)
  flat = tf.nest.flatten(embeddings)
  with tf.GradientTape() as tape:
    tape.watch(flat)
    total, metrics, carry = loss(embeddings, batch)
  by_rows, direct = tape.gradient(total, [flat, variables])
  # What a loss does not pull at (the probe's features) needs no second pass.
  used = [k for k, gradient in enumerate(by_rows) if gradient is not None]
  part = _cut([batch, [by_rows[k] for k in used]], chunks)

  def add(i, sums):
    rows, pulls = part(i)
    with tf.GradientTape() as tape:
      flat = tf.nest.flatten(encode(i, rows))
      pulled = total_of(
        [tf.reduce_sum(flat[k] * g) for k, g in zip(used, pulls, strict=True)]
      )
    new = tape.gradient(pulled, variables, unconnected_gradients=_none)
    return [a + g for a, g in zip(sums, new, strict=True)]

  start = [
    tf.zeros_like(v) if g is None else g
    for v, g in zip(variables, direct, strict=True)
  ]
  gradients = replicas.repeat(0, chunks, add, start)
  return Result(metrics, carry, gradients)
