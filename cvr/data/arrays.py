"""--dataset=npz:FILE and npy:FILE: images in NumPy's arrays.

Arrays are memory mapped, unless they are compressed. Nothing is unpickled, and
nothing is allocated before the size that a header announces is known to be
there.
"""

import functools
import math
import os
import struct
import zipfile

import numpy as np

from cvr.configs import places
from cvr.configs.settings import show
from cvr.data import class_labels, decoding, splits
from cvr.data.dataset_info import DataError, DatasetInfo, check_file

_COMPRESSION = 1032  # Deflate makes nothing smaller by more than that.


class _Unusable(ValueError):
  """Why an array cannot be used."""


# Files.


def _header(file):
  """-> (shape, order, dtype) of the array that begins here."""
  if np.lib.format.read_magic(file) != (1, 0):
    raise _Unusable('it has neither numbers nor texts')
  shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
  if dtype.hasobject:
    raise _Unusable('it holds Python objects (pickles), which are never read')
  if not dtype.itemsize or any(side < 0 for side in shape):
    raise _Unusable('its header is damaged')
  return shape, 'F' if fortran else 'C', dtype


def _check_size(shape, dtype, there):
  announced = math.prod(shape) * dtype.itemsize
  if announced > there:
    raise _Unusable(
      f'its header states {announced:,} bytes, but it has {there:,}'
    )
  return announced


def _mapped(path, first, size):
  """The array in bytes [first, first + size) of a file, memory mapped."""
  with open(path, 'rb') as file:
    file.seek(first)
    shape, order, dtype = _header(file)
    begin = file.tell()
  there = min(first + size, os.path.getsize(path)) - begin
  if not _check_size(shape, dtype, there):
    return np.zeros(shape, dtype)
  return np.memmap(path, dtype, 'r', begin, shape, order)


def _first_byte(path, member):
  """Where the content of a member of a ZIP file begins."""
  with open(path, 'rb') as file:
    file.seek(member.header_offset)
    lengths = struct.unpack('<26x2H', file.read(30))
  return member.header_offset + 30 + sum(lengths)


def _memory():
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def _decompressed(archive, member):
  with archive.open(member) as file:
    shape, order, dtype = _header(file)
    there = member.file_size - file.tell()
    there = min(there, _COMPRESSION * member.compress_size)
    announced = _check_size(shape, dtype, there)
    if announced > _memory():
      raise _Unusable(
        f'it is compressed and takes {announced:,} bytes of memory: store it '
        'with np.savez'
      )
    content = file.read(announced)
    file.read(1)  # At the end the checksum is compared.
  return np.ndarray(shape, dtype, content, order=order)


def _load(path, key):
  """An array of an NPZ file, or, without a key, that of an NPY file."""
  if not key:
    return _mapped(path, 0, os.path.getsize(path))
  with zipfile.ZipFile(path) as archive:
    member = archive.getinfo(f'{key}.npy')
    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
      return _mapped(path, _first_byte(path, member), member.file_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
      return _decompressed(archive, member)
    raise _Unusable('it is compressed or encrypted, but not as in np.savez')


@functools.lru_cache(maxsize=16)
def _opened(path, key, stamp):
  del stamp
  return _load(path, key)


def _array(path, key):
  status = os.stat(path)
  return _opened(path, key, (status.st_size, status.st_mtime_ns))


def _called(name, file, key):
  return f'--dataset={name}: {show(key) if key else "the array"} of {file}'


def _found(name, file, key):
  """An array, or a DataError that says what is wrong with it."""
  where = _called(name, file, key)
  check_file(name, file)
  try:
    return _array(file, key)
  except _Unusable as error:
    raise DataError(f'{where}: {error}.') from error
  except Exception as error:  # NumPy raises whatever a file leads to.
    reason = str(error).partition('\n')[0]
    raise DataError(f'{where} is damaged: {show(reason)}.') from error


# What is in them.


def _keys(name, file):
  """The names of the arrays in an NPZ file."""
  check_file(name, file)
  try:
    with zipfile.ZipFile(file) as archive:
      members = archive.namelist()
  except Exception as error:  # The directory at its end may be anything.
    raise DataError(
      f'--dataset={name}: {file} is not an NPZ file: {show(error)}.'
    ) from error
  return [m.removesuffix('.npy') for m in members if m.endswith('.npy')]


def _splits_of(name, file):
  """{split: the key of its images} in an NPZ file."""
  keys = _keys(name, file)
  found = {'train': 'images'} if 'images' in keys else {}
  found |= {
    key.removesuffix('_images'): key for key in keys if key.endswith('_images')
  }
  if not found:
    raise DataError(
      f'--dataset={name}: {file} has neither an array images nor one such as '
      f'train_images. It has: {", ".join(map(show, keys)) or "none"}.'
    )
  return found


def _label_key(name, file, images, label):
  """The key of the labels that belong to an array of images; '' for none."""
  if not images or label == places.NO_LABEL:
    return ''
  keys = _keys(name, file)
  wanted = images.removesuffix('images') + (label or 'labels')
  if label and wanted not in keys:
    raise DataError(
      f'--dataset={name}: {file} has no array {show(wanted)}. It has: '
      f'{", ".join(map(show, keys))}.'
    )
  return wanted if wanted in keys else ''


def _check_images(name, file, key, images):
  where = _called(name, file, key)
  shape, dtype = images.shape, images.dtype
  if dtype.kind != 'u' or dtype.itemsize > 2:
    raise DataError(f'{where} is {dtype}; images are uint8 or uint16.')
  if len(shape) not in (3, 4):
    raise DataError(
      f'{where} has shape {list(shape)}; images are [n, height, width] or '
      '[n, height, width, channels].'
    )
  if not all(shape) or math.prod(shape[1:3]) > decoding.MAX_PIXELS:
    why = 'there is no image' if not all(shape) else 'images are too large'
    raise DataError(f'{where} has shape {list(shape)}: {why}.')


def _labels(name, file, images, label):
  """-> the key of the labels of an array of images or '', what it holds."""
  key = _label_key(name, file, images, label)
  if not key:
    return '', None
  labels = _found(name, file, key)
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]  # As in MedMNIST.
  if labels.ndim != 1 or labels.dtype.kind not in 'iubU':
    raise DataError(
      f'{_called(name, file, key)} is {labels.dtype} of shape '
      f'{list(labels.shape)}; labels are one integer or text for each image. '
      f'Without labels: #{places.NO_LABEL}.'
    )
  return key, (labels + 0 if labels.dtype.kind == 'b' else labels).tolist()


def _arrays(name, place, split):
  """-> the split that is meant, file and key of its images, those of train's.

  Those of train are None if there are none.
  """
  file = train = place.path
  alone = place.kind == 'npy' or place.has_file_per_split
  if alone:
    split, file, train = splits.choose_file(name, place, split, os.path.exists)
  if place.kind == 'npy':
    return split, (file, ''), None
  keys = _splits_of(name, file)
  # In a file of its own a split is called images.
  own = splits.choose(name, 'train' if alone else split, [*keys])
  train_key = _splits_of(name, train).get('train')
  return (
    split if alone else own,
    (file, keys[own]),
    (train, train_key) if train_key else None,
  )


def _numbered(name, place, own, train, count):
  """-> the names of the classes, the class of each of `count` images."""
  key, values = _labels(name, *own, place.label)
  if values is None:
    return (), (-1,) * count
  if len(values) != count:
    raise DataError(
      f'{_called(name, own[0], key)} has {len(values):,} labels for {count:,} '
      'images.'
    )
  of_train = _labels(name, *train, place.label)[1] if train else None
  return class_labels.numbered(
    name, values, of_train or values, lambda i: f'{key}[{i}] of {own[0]}'
  )


def read(path):
  """'FILE/KEY/ROW', a NUL and the length of FILE -> bytes to decode."""
  path, length = path.split('\0')
  key, _, row = path[int(length) + 1 :].rpartition('/')
  image = _array(path[: int(length)], key)[int(row)]
  image = np.array(image, image.dtype.newbyteorder('='))
  return decoding.encode(image if image.ndim == 3 else image[..., None])


def describe(name, place, split, **_):
  """Finds the images and the labels of a split -> DatasetInfo."""
  split, own, train = _arrays(name, place, split)
  images, (file, key) = _found(name, *own), own
  _check_images(name, file, key, images)
  classes, labels = _numbered(name, place, own, train, len(images))
  inside = f'{file}/{key}' if key else file
  return DatasetInfo(
    name,
    split,
    len(images),
    classes,
    tuple(f'{inside}/{i}\0{len(file)}' for i in range(len(images))),
    labels,
    read=read,
    files=(file,),
    folder=os.path.dirname(os.path.abspath(file)),
  )
