"""The index of a checkpoint: TensorFlow's own are read, each lie is refused.

The forged ones have correct checksums: hostile_files computes them, too.
"""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

import hostile_files
from cvr.checkpoints import bundle

# Of two kinds of numbers, a scalar, texts of several lengths.
TENSORS = {
  'pair': np.array([1.5, 2.5], np.float32),
  'scalar': np.int64(7),
  'text': np.array([b'ab', b'']),
  'square': np.arange(9, dtype=np.float32).reshape(3, 3),
}


@pytest.fixture
def path(tmp_path):
  prefix = str(tmp_path / 'ckpt-1')
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=[*TENSORS],
    shape_and_slices=[''] * len(TENSORS),
    tensors=[tf.constant(x) for x in TENSORS.values()],
  )
  return prefix


def test_what_tensorflow_wrote_is_read(path):
  found = bundle.reader(path)
  for name, value in TENSORS.items():
    np.testing.assert_array_equal(found.get_tensor(name), value)
  data = os.path.getsize(f'{path}.data-00000-of-00001')
  assert bundle.size_of_data(path) == data


def test_an_index_of_many_blocks_and_long_names(tmp_path):
  """Names share beginnings, numbers take several bytes, blocks are many."""
  names = [f'{"layer" * 30}/{i:04d}' for i in range(600)]
  tensors = [tf.fill([1 + i % 300], i) for i in range(600)]
  prefix = str(tmp_path / 'ckpt-1')
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=names,
    shape_and_slices=[''] * 600,
    tensors=tensors,
  )
  found = bundle.reader(prefix)
  assert found.get_variable_to_shape_map().keys() == {*names}
  data = os.path.getsize(f'{prefix}.data-00000-of-00001')
  assert bundle.size_of_data(prefix) == data


def test_data_in_two_files(tmp_path):
  halves = []
  for i in range(2):
    halves.append(str(tmp_path / f'half{i}'))
    tf.raw_ops.SaveV2(
      prefix=halves[i],
      tensor_names=[f'x{i}'],
      shape_and_slices=[''],
      tensors=[tf.fill([4 + i], float(i))],
    )
  path = str(tmp_path / 'ckpt-1')
  tf.raw_ops.MergeV2Checkpoints(
    checkpoint_prefixes=halves, destination_prefix=path
  )
  found = bundle.reader(path)
  np.testing.assert_array_equal(found.get_tensor('x1'), np.ones(5))
  assert bundle.size_of_data(path) == 4 * (4 + 5)
  os.remove(f'{path}.data-00001-of-00002')
  with pytest.raises(tf.errors.NotFoundError):
    bundle.reader(path)


def forged(path, change):
  """Writes the index again after change({name: entry}, header)."""
  index = pathlib.Path(f'{path}.index')
  pairs = hostile_files.pairs_of(index.read_bytes())
  parse = tensor_bundle_pb2.BundleEntryProto.FromString
  header = tensor_bundle_pb2.BundleHeaderProto.FromString(pairs.pop(b''))
  entries = {name.decode(): parse(value) for name, value in pairs.items()}
  change(entries, header)
  pairs = {n.encode(): e.SerializeToString() for n, e in entries.items()}
  pairs[b''] = header.SerializeToString()
  index.write_bytes(hostile_files.table(pairs))


def test_an_index_that_is_only_written_again_is_read(path):
  forged(path, lambda entries, header: None)
  assert bundle.reader(path).get_tensor('scalar') == 7


def of(name, **values):
  """A change of the fields of an entry."""

  def change(entries, header):
    del header
    for field, value in values.items():
      setattr(entries[name], field, value)

  return change


def shape(name, *sides, **values):
  def change(entries, header):
    of(name, **values)(entries, header)
    del entries[name].shape.dim[:]
    for side in sides:
      entries[name].shape.dim.add().size = side

  return change


def header(**values):
  def change(entries, header):
    del entries
    for field, value in values.items():
      setattr(header, field, value)

  return change


def unknown_rank(entries, header):
  del header
  entries['pair'].shape.unknown_rank = True


def slices(entries, header):
  del header
  entries['pair'].slices.add().extent.add().length = 1


def upon_each_other(entries, header):
  """Each alone is in the file."""
  del header
  for name in 'abc':
    entries[name] = entries['square']


PLAIN, SHAPE = 'is no plain tensor', 'has no shape'
ELSEWHERE, MISSING = 'a file that is not announced', 'is not in its file'


@pytest.mark.parametrize(
  'change, says',
  [
    (header(num_shards=0), 'announces 0 files of data'),
    (header(num_shards=-1), 'announces -1 files of data'),
    (header(num_shards=10_001), 'announces 10001 files of data'),
    (header(endianness=1), 'announces 1 files of data'),
    (of('pair', dtype=21), PLAIN),  # variant
    (of('pair', dtype=20), PLAIN),  # resource
    (of('pair', dtype=11), PLAIN),  # qint8
    (of('pair', dtype=101), PLAIN),  # a reference
    (of('pair', dtype=99), PLAIN),  # nothing
    (slices, PLAIN),
    (unknown_rank, SHAPE),
    (shape('pair', *[1] * 32, 2), SHAPE),
    (shape('pair', -1), SHAPE),
    (shape('pair', -2, -1), SHAPE),
    (of('pair', shard_id=-1), ELSEWHERE),
    (of('pair', shard_id=1), ELSEWHERE),
    (shape('pair', 3), MISSING),
    # A part of what is there would be read in silence.
    (shape('pair', 1), MISSING),
    (shape('pair', 1 << 40), MISSING),
    (shape('text', 1 << 40), MISSING),
    (of('pair', offset=-1), MISSING),
    (of('pair', offset=10**6), MISSING),
    (of('text', size=10**6), MISSING),
    (upon_each_other, 'tensors lie upon each other'),
  ],
)
def test_lies_are_refused(path, change, says):
  forged(path, change)
  with pytest.raises(bundle.Forged, match=says):
    bundle.reader(path)


def test_as_many_sides_as_may_be(path):
  forged(path, shape('pair', *[1] * 31, 2))
  assert bundle.reader(path).get_tensor('pair').shape == (1,) * 31 + (2,)


def table_with(footer=None, block=None):
  """The bytes of a table whose end, or whose first block, is replaced."""
  content = hostile_files.table({b'': b'x'})
  if block is not None:
    content = block + content[len(block) :]
  return content[:-48] + footer if footer is not None else content


@pytest.mark.parametrize(
  'content, says',
  [
    (b'', 'cut, or no index'),
    (table_with()[:-1], 'cut, or no index'),
    (table_with()[-47:], 'cut, or no index'),
    (b'x' * 100, 'cut, or no index'),
    (hostile_files.table({b'a': b''}), 'that of no checkpoint'),
    (hostile_files.table({b'': b'\xff'}), 'is damaged'),
    (hostile_files.table({b'': b'', b'\xff': b''}), '.'),
    # A number that never ends, where the first handle begins.
    (table_with(b'\xff' * 40 + table_with()[-8:]), 'number in its index is to'),
    (table_with(bytes(40) + table_with()[-8:]), 'block of its index is not'),
    (table_with(block=b'\0\0\0' + b'\xff\xff\x7f'), 'is not there'),
  ],
)
def test_tables_that_are_none(path, content, says):
  pathlib.Path(f'{path}.index').write_bytes(content)
  with pytest.raises(bundle.Forged, match=says):
    bundle.size_of_data(path)


def test_an_index_that_is_too_large_is_not_read(path, monkeypatch):
  size = os.path.getsize(f'{path}.index')
  monkeypatch.setattr(bundle, '_MOST_BYTES', size)
  bundle.reader(path)
  monkeypatch.setattr(bundle, '_MOST_BYTES', size - 1)
  with pytest.raises(bundle.Forged, match='too large'):
    bundle.reader(path)


def test_names_that_share_a_long_one_do_not_fill_the_memory(path, monkeypatch):
  """Small in the file, each name is long once it is put together."""
  pairs = {b'x' * 4000 + str(i).encode(): b'' for i in range(10, 90)}
  pairs[b''] = b''
  content = hostile_files.table(pairs, sharing=True)
  assert len(content) < 10_000
  monkeypatch.setattr(bundle, '_MOST_BYTES', 4000 * 80 - 1)
  pathlib.Path(f'{path}.index').write_bytes(content)
  with pytest.raises(bundle.Forged, match='too large'):
    bundle.size_of_data(path)
