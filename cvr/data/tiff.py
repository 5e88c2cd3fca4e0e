"""TIFF files -> PNG bytes of 8 or 16 bits, by tifffile, which is optional.

TensorFlow reads no TIFF. What goes on is a PNG, so that nothing else of the
input knows the format. It takes Python, and so cannot be done by the workers of
the data service.
"""

import numpy as np
import tensorflow as tf

from cvr.data.dataset_info import DataError
from cvr.data.decoding import MAX_PIXELS

SUFFIXES = ('.tif', '.tiff')


# TIFF's numbers of gray, 0 is black, and RGB. Palettes, CMYK and others would
# be taken for these.
_COLOURS = (1, 2)


class _Unusable(ValueError):
  """Why an image cannot be used."""


def _library():
  try:
    import tifffile
  except ImportError:
    return None
  return tifffile


def _first_page(path):
  """-> [H, W, channels] of the first page, of its own type."""
  with _library().TiffFile(path) as file:
    page = file.pages[0]
    if page.imagelength * page.imagewidth > MAX_PIXELS:
      raise _Unusable('it is too large')
    if page.photometric not in _COLOURS:
      raise _Unusable(f'its colours are {page.photometric.name}')
    if page.axes not in ('YX', 'YXS', 'SYX'):
      raise _Unusable(f'its axes are {page.axes}')
    image = page.asarray()
  if page.axes == 'SYX':
    image = np.moveaxis(image, 0, -1)
  return image if image.ndim == 3 else image[..., None]


def _integers(image):
  """As uint8 or uint16; 1.0 of floats is 65535."""
  if image.dtype in (np.uint8, np.uint16):
    return image
  if image.dtype == bool:
    return image.astype(np.uint8) * 255
  if image.dtype.kind != 'f':
    raise _Unusable(f'its values are {image.dtype}')
  if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
    raise _Unusable('it has floats outside of 0 to 1')
  return np.rint(image.astype(np.float64) * 65535).astype(np.uint16)


def _converted(path):
  """A file -> an array that a PNG can hold; raises _Unusable and others."""
  image = _integers(_first_page(path))
  if image.shape[-1] > 4:
    raise _Unusable(f'it has {image.shape[-1]} channels; 1 to 4 can be read')
  return image


def as_png(path):
  """A file's path -> PNG bytes; b'' if it cannot be decoded."""
  try:
    image = _converted(path)
  except FileNotFoundError:
    raise
  except Exception:  # tifffile raises whatever a damaged file leads to.
    return b''
  return tf.io.encode_png(image, compression=0).numpy()


def read(path):
  """The path of a TIFF or of any other image -> bytes to decode."""
  if is_tiff(path):
    return as_png(path)
  with open(path, 'rb') as file:
    return file.read()


def is_tiff(path):
  return path.lower().endswith(SUFFIXES)


def holds_floats(path):
  """Whether a file has floats, whose white is 1; False where it is damaged."""
  try:
    return _first_page(path).dtype.kind == 'f'
  except Exception:
    return False


def check(name, path):
  """DataError where no image like this one, the first, can be read."""
  if not _library():
    raise DataError(
      f'--dataset={name}: TIFF files are read by tifffile: '
      "pip install -e '.[tiff]'"
    )
  try:
    _converted(path)
  except Exception as error:
    # A damaged file is one of those that are replaced and listed.
    if isinstance(error, _Unusable) or 'imagecodecs' in str(error):
      raise DataError(f'--dataset={name}: {path}: {error}.') from error
