"""TIFF files -> what decoding.encode makes, by tifffile, which is optional.

TensorFlow reads no TIFF. What goes on is a PNG, or an array of more channels
than a PNG has, so that nothing else of the input knows the format. It takes
Python, and so cannot be done by the workers of the data service.
"""

import contextlib

import numpy as np

from cvr.data.dataset_info import DataError
from cvr.data.decoding import CONVERTED, MAX_PIXELS, encode, misfit

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


def _image(path, channels):
  """-> [H, W, channels of the file], of its own type.

  Of the first page; of all gray ones where there is one for each channel.
  """
  with _library().TiffFile(path) as file:
    page = file.pages[0]
    pixels = page.imagelength * page.imagewidth
    if pixels * max(1, page.samplesperpixel / 4) > MAX_PIXELS:
      raise _Unusable('it is too large')
    if page.photometric not in _COLOURS:
      raise _Unusable(f'its colours are {page.photometric.name}')
    if page.axes not in ('YX', 'YXS', 'SYX'):
      raise _Unusable(f'its axes are {page.axes}')
    stacked = channels not in CONVERTED and page.axes == 'YX'
    if stacked and len(file.pages) == channels:
      return np.stack([page.asarray() for page in file.pages], -1)
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


def _converted(path, channels):
  """A file -> uint8 or uint16 [H, W, C]; raises _Unusable and others."""
  image = _integers(_image(path, channels))
  why = misfit(image.shape[-1], channels)
  if why:
    raise _Unusable(why)
  return image


def encoded(path, channels=3):
  """A file's path -> its image's bytes; b'' if it cannot be decoded."""
  try:
    image = _converted(path, channels)
  except Exception:  # tifffile raises whatever a damaged file leads to.
    return b''
  return encode(image)


def read(path, channels=3):
  """The path of a TIFF or of any other image -> bytes to decode."""
  if is_tiff(path):
    return encoded(path, channels)
  with contextlib.suppress(OSError), open(path, 'rb') as file:
    return file.read()
  return b''


def is_tiff(path):
  return path.lower().endswith(SUFFIXES)


def holds_floats(path):
  """Whether a file has floats, whose white is 1; False where it is damaged."""
  try:
    return _image(path, channels=3).dtype.kind == 'f'
  except Exception:
    return False


def check(given, path, channels=3):
  """DataError where no image like this one, the first, can be read.

  given: what a message begins with, such as '--dataset=folder:PATH'.
  """
  if not _library():
    raise DataError(
      f"{given}: TIFF files need tifffile: pip install -e '.[tiff]'"
    )
  try:
    _converted(path, channels)
  except Exception as error:
    # A damaged file is one of those that are replaced and listed.
    if isinstance(error, _Unusable) or 'imagecodecs' in str(error):
      raise DataError(f'{given}: {path}: {error}.') from error
