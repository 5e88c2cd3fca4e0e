"""The index of a checkpoint, checked before TensorFlow's reader gets it.

TensorFlow believes what an index announces: a negative side of a tensor ends
the process without a word to Python, a large one allocates it. Checksums do not
help, since whoever forges an index computes them as well. So every number in it
has to fit what lies on the disk.
"""

import math
import os
import struct

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2
from tensorflow.core.protobuf.trackable_object_graph_pb2 import (
  TrackableObjectGraph,
)

from cvr.configs import places

_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MOST_BYTES = 1 << 26  # Of an index; that of the largest model has 1 MB.
_REFERENCES = 100  # Numbers of types above it are those of references.
_MOST_SHARDS, _MOST_SIDES = 10_000, 32


class Forged(ValueError):
  """Why an index is none that TensorFlow has written."""


# The table ------------------------------------------------------------------


def _number(data, at):
  """A number of seven bits a byte -> (its value, where the next begins)."""
  value = 0
  for shift in range(0, 64, 7):
    byte = data[at]
    value |= (byte & 127) << shift
    at += 1
    if byte < 128:
      return value, at
  raise Forged('a number in its index is too long')


def _block(data, handle):
  """The (key, value) pairs of the block that a handle leads to."""
  first, at = _number(handle, 0)
  size, _ = _number(handle, at)
  # A byte that says how it is compressed, and a checksum, come after it.
  if size < 4 or first + size + 5 > len(data) or data[first + size]:
    raise Forged('a block of its index is not there')
  block = data[first : first + size]
  (restarts,) = struct.unpack('<I', block[-4:])
  end = size - 4 * restarts - 4
  pairs, whole, key, at = [], {0}, b'', 0
  while at < end:
    begin = at
    shared, at = _number(block, at)
    own, at = _number(block, at)
    length, at = _number(block, at)
    if shared > len(key) or at + own + length > end:
      raise Forged('a name in its index is not there')
    key, at = key[:shared] + block[at : at + own], at + own
    pairs.append((key, block[at : at + length]))
    at += length
    if not shared:
      whole.add(begin)
  # TensorFlow begins at these, and must not see other pairs there.
  starts = block[max(end, 0) : -4]
  if end < 0 or not whole.issuperset(struct.unpack(f'<{restarts}I', starts)):
    raise Forged('a block of its index is damaged')
  return pairs


def _pairs(data):
  """The bytes of a table -> {key: value}."""
  footer = data[-_FOOTER:]
  if len(footer) < _FOOTER or struct.unpack('<Q', footer[-8:])[0] != _MAGIC:
    raise Forged('its index is cut, or no index of a checkpoint')
  _, at = _number(footer, 0)  # A block that nobody uses.
  _, at = _number(footer, at)
  pairs, size = {}, 0
  for _, handle in _block(data, footer[at:]):
    block = _block(data, handle)
    # Many handles may lead to one block, and names share their beginnings.
    size += sum(len(key) + len(value) for key, value in block)
    if size > _MOST_BYTES:
      raise Forged('its index is too large')
    pairs |= block
  return pairs


# What it announces ------------------------------------------------------------


def _shards(path, header):
  """The sizes of the data files; those that are missing have none."""
  if not 0 < header.num_shards <= _MOST_SHARDS or header.endianness:
    raise Forged(f'its index announces {header.num_shards} files of data')
  sizes = []
  for i in range(header.num_shards):
    file = f'{path}.data-{i:05d}-of-{header.num_shards:05d}'
    check_file(file)
    sizes.append(tf.io.gfile.stat(file).length)
  return sizes


def _check_entry(name, entry, sizes):
  """Raises Forged if a tensor is not what its file can hold."""
  try:
    dtype = tf.dtypes.as_dtype(entry.dtype)
  except TypeError:
    dtype = tf.variant
  sides = [dim.size for dim in entry.shape.dim]
  # Those of variant are objects of programs, parts are not written any more.
  odd = dtype in (tf.variant, tf.resource) or dtype.is_quantized
  if odd or dtype.as_datatype_enum > _REFERENCES or entry.slices:
    raise Forged(f'{name} is no plain tensor')
  if entry.shape.unknown_rank or len(sides) > _MOST_SIDES or min([0, *sides]):
    raise Forged(f'{name} has no shape')
  if not 0 <= entry.shard_id < len(sizes):
    raise Forged(f'{name} is in a file that is not announced')
  # A text takes a byte for its length at least.
  least = math.prod(sides) * (1 if dtype == tf.string else dtype.size)
  there = sizes[entry.shard_id]
  fits = least <= entry.size if dtype == tf.string else least == entry.size
  if not fits or not 0 <= entry.offset <= there - entry.size:
    raise Forged(
      f'{name} of shape {sides} is not in its file, which has {there:,} bytes'
    )


def check_file(path):
  """Raises an error for what waits for ever or has no end when it is read."""
  if why := places.endless(path):
    raise Forged(f'{os.path.basename(path)} is {why}')


def _entries(path):
  """What the index of a checkpoint announces -> (header, {name: entry})."""
  index = f'{path}.index'
  check_file(index)
  if tf.io.gfile.stat(index).length > _MOST_BYTES:
    raise Forged('its index is too large')
  with tf.io.gfile.GFile(index, 'rb') as file:
    data = file.read()
  try:
    pairs = _pairs(data)
    header = pairs.pop(b'', None)
    if header is None:
      raise Forged('its index is that of no checkpoint')
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(header)
    parse = tensor_bundle_pb2.BundleEntryProto.FromString
    return header, {name.decode(): parse(e) for name, e in pairs.items()}
  except (IndexError, struct.error, DecodeError, UnicodeDecodeError) as error:
    raise Forged('its index is damaged') from error


def size_of_data(path):
  """How many bytes of data files the index of a checkpoint announces."""
  ends = {}
  for entry in _entries(path)[1].values():
    end = entry.offset + entry.size
    ends[entry.shard_id] = max(ends.get(entry.shard_id, 0), end)
  return sum(ends.values())


def _check(path):
  header, entries = _entries(path)
  sizes = _shards(path, header)
  read = [0] * len(sizes)
  for name, entry in entries.items():
    _check_entry(name, entry, sizes)
    read[entry.shard_id] += entry.size
  if any(r > size for r, size in zip(read, sizes, strict=True)):
    raise Forged('tensors lie upon each other')


def _check_graph(opened):
  """Raises Forged if the objects of a checkpoint are not all there.

  TensorFlow restores by this graph, and looks for what it names.
  """
  names = opened.get_variable_to_shape_map()
  if _GRAPH not in names:
    return
  text = opened.get_tensor(_GRAPH)
  try:
    nodes = TrackableObjectGraph.FromString(text).nodes
  except (DecodeError, TypeError) as error:
    raise Forged('its graph of objects is damaged') from error
  for node in nodes:
    slots = node.slot_variables
    numbers = [child.node_id for child in node.children]
    numbers += [slot.original_variable_node_id for slot in slots]
    numbers += [slot.slot_variable_node_id for slot in slots]
    keys = {value.checkpoint_key for value in node.attributes}
    if not all(0 <= n < len(nodes) for n in numbers) or not keys <= {*names}:
      raise Forged('its graph of objects names what is not there')


def reader(path):
  """TensorFlow's reader of a checkpoint: the one way to open one.

  Raises one of files.DAMAGE.
  """
  _check(path)
  opened = tf.train.load_checkpoint(path)
  _check_graph(opened)
  return opened
