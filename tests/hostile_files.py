"""Files that somebody made to do harm: variants of good ones, by rules.

Each function takes a random.Random, so that a seed is a file. Nothing here is
read by code under test's own writers: headers, sizes and checksums are made by
hand, and the checksums are right.
"""

import copy
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2

# What a value of JSON is replaced by.
CONTROL = '\x1b]0;title\x07\x1b[2J\u202e\r\n## x'
VALUES = [
  *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, 1e-320, 2**31, 2**63),
  *(10**30, -(10**30), 10**400, float('nan'), float('inf'), -float('inf')),
  *('', 'x', '1', 'nan', CONTROL, 'x' * 100_000, '\0', '\udcff', '../../x'),
  *('/etc/passwd', '/dev/zero', [], {}, [[]], {'': None}, [None], [1, 'a']),
  *([float('nan')], {CONTROL: CONTROL}, {'x': 10**30}, ['x'] * 10_000),
]


class Payload:
  """Unpickled it makes a file, which must never be there."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (self.path, 'w')


# Any bytes --------------------------------------------------------------------


def cut_or_flipped(content, random):
  """Bytes -> some of them, or with others among them."""
  at = random.randrange(len(content) + 1)
  some = bytes(random.randrange(256) for _ in range(random.choice((1, 4, 40))))
  return random.choice([
    b'',
    content[:at],
    content[at:],
    content[:at] + some + content[at + len(some) :],
    content[:at] + some + content[at:],
    content[:at] + b'\xff' * 8 + content[at + 8 :],
    content[:at] + b'\0' * 64 + content[at + 64 :],
    content + content,
    some,
  ])  # fmt: skip


def put(path, content, random):
  """Writes bytes, or what may lie at a path in their place; -> path."""
  kind = random.randrange(40)
  if kind == 0:
    os.makedirs(path)
  elif kind == 1:
    os.symlink(os.path.basename(path), path)
  elif kind == 2:
    os.symlink('/nowhere/at/all', path)
  elif kind == 3:
    os.mkfifo(path)
  elif kind == 4:
    os.symlink('/dev/zero', path)
  else:
    with open(path, 'wb') as file:
      file.write(content)
  return path


# JSON -------------------------------------------------------------------------


def _places(value, place=()):
  """The places in a value of JSON, the outermost first."""
  yield place
  pairs = ()
  if isinstance(value, dict):
    pairs = value.items()
  elif isinstance(value, list):
    pairs = enumerate(value[:50])
  for key, part in pairs:
    yield from _places(part, (*place, key))


def altered(value, random, times=1):
  """A value of JSON with another one at some of its places."""
  value = copy.deepcopy(value)
  for _ in range(times):
    # Outer places are few, and matter most.
    places = [
      p for p in _places(value) if len(p) <= random.choice((1, 2, 3, 9))
    ]
    place, new = random.choice(places), random.choice(VALUES)
    if not place:
      if random.random() < 0.1:
        return new
      continue
    *outer, last = place
    inner = value
    for key in outer:
      inner = inner[key]
    if random.random() < 0.2:
      del inner[last]
    elif random.random() < 0.1 and isinstance(inner, dict):
      inner[random.choice(['', CONTROL, 'x' * 1000, '__class__'])] = new
    else:
      inner[last] = copy.deepcopy(new)
  return value


def json_text(value, random):
  """A value -> bytes of JSON, or nearly."""
  kind = random.randrange(12)
  if kind == 0:
    return b'[' * 100_000 + b']' * 100_000
  if kind == 1:
    return b'{"a":' * 50_000
  if kind == 2:
    return b'9' * 100_000
  if kind == 3:
    return cut_or_flipped(json.dumps(value).encode(), random)
  if kind == 4:
    return json.dumps(value).encode('utf-16')
  return json.dumps(altered(value, random, random.randint(1, 3))).encode()


# NumPy ------------------------------------------------------------------------


def npy(array, random, payload):
  """An array -> bytes of NPY, whose header may lie."""
  kind = random.randrange(12)
  if kind == 0:
    content = io.BytesIO()
    objects = np.array([Payload(payload)], object)
    np.save(content, objects, allow_pickle=True)
    return content.getvalue()
  if kind == 1:
    return pickle.dumps(Payload(payload))
  if kind == 2:
    n = array.shape[0] if array.ndim else 1
    array = random.choice([
      array.ravel()[:0], np.full(array.shape, np.nan, np.float32),
      np.zeros([2, 2, 2]), np.array(['\x1b[2J'] * n), np.array([-1] * n),
      np.array([2**63] * n, np.uint64), np.zeros(n, [('a', 'i4'), ('b', 'U3')]),
      np.zeros(n, 'M8[s]'), np.zeros(n, complex), np.full(n, np.inf),
      np.array([b'x'] * n),
    ])  # fmt: skip
  content = io.BytesIO()
  np.save(content, array)
  content = content.getvalue()
  if kind > 6:
    return content
  header = np.lib.format.header_data_from_array_1_0(array)
  if kind in (3, 4):
    header['shape'] = random.choice([
      (10**12,), (10**6, 10**6), (2**62, 4), (-1,), (2**63,), (10**30,), (0, 5),
      (True,), (1.5,), (), ('a',), (10**400,), tuple([1] * 40), (2**32, 2**32),
    ])  # fmt: skip
  if kind == 5:
    header['descr'] = random.choice([
      '|O', 'V0', '|S0', '<U1000000000', 'x', '', '<i3', [('a', '|O')], 3, None,
      '<M8[s]', [('a', '<f4', (10**9,))], [CONTROL], '<f2', '>U5', CONTROL,
    ])  # fmt: skip
  if kind == 6:
    header[random.choice(['shape', 'fortran_order', 'x', ''])] = random.choice(
      [3, None, 'x', (1, 2), [1], {}]
    )
  text = repr(header).encode(errors='backslashreplace')
  text += b' ' * (-(len(text) + 11) % 64) + b'\n'
  first = content.index(b'\n') + 1
  return content[:8] + struct.pack('<H', len(text)) + text + content[first:]


def npz(arrays, random, payload):
  """{key: array} -> bytes of NPZ, of which one member is hostile."""
  content, chosen = io.BytesIO(), random.choice([*arrays])
  way = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
  kind = random.randrange(8)
  with zipfile.ZipFile(content, 'w', way) as archive:
    for key, array in arrays.items():
      good = io.BytesIO()
      np.save(good, array)
      data, name = good.getvalue(), f'{key}.npy'
      if key == chosen:
        data = npy(array, random, payload)
        if kind == 0:
          name = random.choice(['../../x.npy', '\x1b[2J.npy', '.npy', ' ', 'x'])
        if kind == 1:
          archive.writestr(name, data)
        if kind == 2:
          data = cut_or_flipped(data, random)
        if kind == 3:
          continue
      archive.writestr(name, data)
    if kind == 4:
      archive.writestr('bomb.npy', bytes(50_000_000), zipfile.ZIP_DEFLATED)
  data = content.getvalue()
  if kind == 5:
    return cut_or_flipped(data, random)
  if kind == 6:
    # Sizes in the directory at the end, that of the file last.
    at = data.index(b'PK\x01\x02') + random.choice((8, 10, 16, 20, 24, 42))
    return data[:at] + random.choice([b'\xff' * 4, b'\0' * 4]) + data[at + 4 :]
  return data


# Archives ---------------------------------------------------------------------


def tar(files, random):
  """{name: bytes} -> bytes of a tar file, perhaps compressed."""
  content = io.BytesIO()
  way = random.choice(['w', 'w:gz', 'w:gz', 'w:bz2', 'w:xz'])
  form = random.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
  with tarfile.open(fileobj=content, mode=way, format=form) as archive:
    for name, data in files.items():
      entry = tarfile.TarInfo(name)
      kind = random.randrange(10)
      if kind == 0:
        entry.name = random.choice([
          f'../{name}', f'/tmp/{name}', f'a/../../{name}', f'{CONTROL}{name}',
          'x' * 5000 + name, f'./{name}', f'C:\\{name}', f'a/{name}', '.', '',
        ])  # fmt: skip
      if kind == 1:
        entry.type = random.choice([
          tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
          tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b'Z',
        ])  # fmt: skip
        entry.linkname = random.choice(['/etc/passwd', '..', name, ''])
      if kind == 2:
        entry.pax_headers = {
          random.choice([
            'GNU.sparse.map', 'GNU.sparse.size', 'GNU.sparse.realsize', 'size',
            'GNU.sparse.major', 'path', 'mtime', 'uid', 'linkpath', 'charset',
            'GNU.sparse.name', 'hdrcharset', 'GNU.sparse.numblocks',
          ]): random.choice([
            'nan', '', '-1', '9' * 30, '1e400', '0,1,2', 'inf', CONTROL, '../x',
            'BINARY', '1', '9' * 5000,
          ])
        }  # fmt: skip
      entry.size = len(data)
      archive.addfile(entry, io.BytesIO(data))
      if kind == 3:
        archive.addfile(entry, io.BytesIO(data))
      if kind == 4:
        archive.fileobj.write(bytes(512 * random.randrange(5)))
  data = content.getvalue()
  if way == 'w' and random.randrange(3) == 0:
    # A size, with the checksum of its header.
    block = bytearray(data[:512])
    block[124:136] = random.choice([b'77777777777\0', b'\x80' + b'\xff' * 11])
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block) + data[512:]
  return cut_or_flipped(data, random) if random.randrange(4) == 0 else data


# TensorFlow's bundles ---------------------------------------------------------


def _crc_table():
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    yield byte


_CRC = tuple(_crc_table())


def masked_crc(data):
  """CRC-32C as TensorFlow stores it."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(number):
  out = bytearray()
  while number > 127:
    out.append(number & 127 | 128)
    number >>= 7
  return bytes(out + bytes([number]))


def _number(data, at):
  """A varint -> (its value, where the next begins)."""
  value = shift = 0
  while True:
    byte = data[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at


def _block(pairs, sharing=False):
  """Sorted (key, value) -> a block of a table.

  sharing: a key is what it has in common with the one before, and the rest.
  """
  body, starts, before = bytearray(), [], b''
  for key, value in pairs:
    same = len(os.path.commonprefix([before, key])) if sharing else 0
    if not same:
      starts.append(len(body))
    body += _varint(same) + _varint(len(key) - same) + _varint(len(value))
    body += key[same:] + value
    before = key
  starts = starts or [0]
  body += struct.pack(f'<{len(starts) + 1}I', *starts, len(starts))
  return bytes(body)


def table(pairs, sharing=False):
  """{key: value} of bytes -> a table as TensorFlow's, with right checksums."""
  out = bytearray()

  def add(block):
    handle = _varint(len(out)) + _varint(len(block))
    out.extend(block + b'\0')
    out.extend(struct.pack('<I', masked_crc(block + b'\0')))
    return handle

  data = add(_block(sorted(pairs.items()), sharing))
  other = add(_block([]))
  index = add(_block([(max(pairs, default=b'') + b'\xff', data)]))
  return bytes(
    out
    + (other + index).ljust(40, b'\0')
    + struct.pack('<Q', 0xDB4775248B80FB57)
  )


def pairs_of(content):
  """The bytes of a table -> {key: value}."""

  def block(handle):
    at, i = _number(handle, 0)
    size, _ = _number(handle, i)
    data, pairs, key, i = content[at : at + size], {}, b'', 0
    end = size - 4 * struct.unpack('<I', data[-4:])[0] - 4
    while i < end:
      shared, i = _number(data, i)
      own, i = _number(data, i)
      length, i = _number(data, i)
      key = key[:shared] + data[i : i + own]
      pairs[key] = data[i + own : i + own + length]
      i += own + length
    return pairs

  footer = content[-48:]
  _, i = _number(footer, 0)
  _, i = _number(footer, i)
  return {
    key: value
    for handle in block(footer[i:]).values()
    for key, value in block(handle).items()
  }


_TYPES = (0, 1, 2, 7, 9, 10, 20, 21, 23, 101, 99, 2**31 - 1)
_NUMBERS = (0, -1, 1, 3, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1)


def _altered_shape(shape, random):
  kind = random.randrange(3)
  if kind == 0:
    shape.unknown_rank = True
  elif kind == 1:
    for _ in range(random.choice((1, 2, 300))):
      shape.dim.add().size = random.choice((1, 2, 0, -1, 2**31))
  else:
    side = shape.dim[0] if shape.dim else shape.dim.add()
    side.size = random.choice(_NUMBERS)


def _altered_entry(value, random):
  try:
    entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
  except DecodeError:  # It was altered before.
    return value
  kind = random.randrange(8)
  if kind == 0:
    entry.dtype = random.choice(_TYPES)
  elif kind < 4:
    _altered_shape(entry.shape, random)
  elif kind == 4:
    entry.offset = random.choice(_NUMBERS)
  elif kind == 5:
    entry.size = random.choice(_NUMBERS)
  elif kind == 6:
    entry.shard_id = random.choice((-1, 1, 99999, 2**31 - 1))
  else:
    extent = entry.slices.add().extent.add()
    extent.start = random.choice(_NUMBERS)
    extent.length = random.choice(_NUMBERS)
  return entry.SerializeToString()


def _altered_header(value, random):
  header = tensor_bundle_pb2.BundleHeaderProto.FromString(value)
  change = random.randrange(4)
  if change == 0:
    header.num_shards = random.choice((0, -1, 2, 2**31 - 1))
  elif change == 1:
    header.endianness = random.choice((1, 7))
  elif change == 2:
    header.version.min_consumer = 10**9
  else:
    header.version.producer = -1
  return header.SerializeToString()


def bundle_index(content, random):
  """The bytes of an .index -> others, with right checksums."""
  if random.randrange(6) == 0:
    return cut_or_flipped(content, random)
  pairs = pairs_of(content)
  names = [name for name in pairs if name]
  for _ in range(random.choice((1, 1, 5))):
    name, kind = random.choice(names), random.randrange(12)
    if kind < 7:
      pairs[name] = _altered_entry(pairs[name], random)
    elif kind == 7:
      pairs.pop(name)
      names = [name for name in pairs if name]
    elif kind == 8:
      new = random.choice([
        CONTROL.encode(), b'\xff\xfe', b'x' * 100_000, name + b'/x', b'\0',
        name.replace(b'0', b'9' * 30), name.replace(b'/', b'//'),
      ])  # fmt: skip
      pairs[new] = pairs[name]
    elif kind == 9:
      pairs[name] = cut_or_flipped(pairs[name], random)
    elif kind == 10:
      pairs[b''] = _altered_header(pairs.get(b'', b''), random)
    else:
      pairs.pop(b'', None)
  return table(pairs)
