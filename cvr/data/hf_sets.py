"""--dataset=hf:NAME_OR_PATH: data sets of the Hugging Face library `datasets`.

A folder that save_to_disk wrote, another folder that the library can load, or a
name on its hub. The library is optional: pip install -e '.[hf]'.
"""

import functools
import logging
import os
import re

from cvr.configs import places
from cvr.configs.settings import show
from cvr.data import class_labels, splits
from cvr.data.dataset_info import DOWNLOAD_LIMIT, DataError, DatasetInfo

LABELS = ('label', 'labels', 'class')  # Columns, where none has class names.
_NAME = r'[\w.-]+(/[\w.-]+)?(:[\w.-]+)?'

log = logging.getLogger(__name__)


def _library(name):
  try:
    import datasets
  except ImportError:
    raise DataError(
      f"--dataset={name}: needs the library datasets: pip install -e '.[hf]'"
    ) from None
  if int(datasets.__version__.partition('.')[0]) < 4:
    raise DataError(
      f'--dataset={name}: needs version 4 of the library datasets, because '
      "older ones run code from the data set: pip install -e '.[hf]'"
    )
  return datasets


def _of_hub(name, path, download):
  """Loads what is no folder of save_to_disk, and downloads it if need be."""
  library = _library(name)
  path, _, config = (path, '', '') if os.path.isdir(path) else (
    path.partition(':'))  # fmt: skip
  builder = library.load_dataset_builder(path, config or None)
  size = builder.info.download_size
  is_there = os.path.isdir(path) or os.path.exists(builder.cache_dir)
  if not is_there and not download and (size or 0) > DOWNLOAD_LIMIT:
    raise DataError(
      f'--dataset={name}: would be a download of {size / 1e9:.1f} GB. Add '
      '--download.'
    )
  return library.load_dataset(path, config or None)


def _loaded(name, path, download):
  """-> {split: datasets.Dataset}."""
  library = _library(name)
  is_folder = os.path.isdir(path)
  if not is_folder and not re.fullmatch(_NAME, path, re.ASCII):
    raise DataError(
      f'--dataset={name}: neither a folder nor a name on the hub such as '
      'OWNER/NAME or OWNER/NAME:CONFIG.'
    )
  written = ('state.json', 'dataset_dict.json')
  try:
    if is_folder and {*written} & {*os.listdir(path)}:
      data = library.load_from_disk(path)
    else:
      data = _of_hub(name, path, download)
  except DataError:
    raise
  except Exception as error:  # The library raises whatever a file leads to.
    reason = str(error).strip().partition('\n')[0] or type(error).__name__
    raise DataError(
      f'--dataset={name}: cannot be loaded: {show(reason[:300])}'
    ) from error
  if isinstance(data, library.Dataset):
    data = {str(data.split or 'train'): data}
  return {split: rows.with_format(None) for split, rows in data.items()}


def _column(name, purpose, found):
  if len(found) > 1:
    log.warning('%s: %s are columns of %s; using %s', name,
                ' and '.join(map(show, found)), purpose, found[0])  # fmt: skip
  return found[0] if found else None


def _image_column(name, features):
  library = _library(name)
  found = [k for k, v in features.items() if isinstance(v, library.Image)]
  if not found:
    raise DataError(
      f'--dataset={name}: no column of images, only: '
      f'{", ".join(map(show, features))}.'
    )
  return _column(name, 'images', found)


def _label_column(name, features, label):
  """The column of labels; None: there is none."""
  if label == places.NO_LABEL:
    return None
  if label:
    if label not in features:
      raise DataError(
        f'--dataset={name}: no column {show(label)!r}, only: '
        f'{", ".join(map(show, features))}.'
      )
    return label
  kind = _library(name).ClassLabel
  found = [k for k, v in features.items() if isinstance(v, kind)]
  return _column(name, 'labels', found or [k for k in features if k in LABELS])


def _numbered(name, data, split, label):
  """-> the names of the classes, the class of each example of a split."""
  column = _label_column(name, data[split].features, label)
  if column is None:
    return (), (-1,) * len(data[split])
  feature = data[split].features[column]
  names = getattr(feature, 'names', None)
  kind = getattr(feature, 'dtype', '')
  if not re.fullmatch(r'u?int\d+|bool|(large_)?string', kind):
    raise DataError(
      f'--dataset={name}: the column {show(column)!r} is {show(feature)}; '
      f'labels are integers or texts. Without labels: #{places.NO_LABEL}.'
    )

  def values(of):
    rows = data[of][column] if of in data else []
    return [int(row) if isinstance(row, bool) else row for row in rows]

  known, labels = class_labels.numbered(
    name,
    values(split),
    [len(names) - 1] if names else values('train') or values(split),
    lambda i: f'{split}/{i}',
  )
  return tuple(names) if names and known else known, labels


def _caches(library):
  """Where the library puts files that it downloads."""
  import huggingface_hub

  hub = huggingface_hub.constants.HF_HUB_CACHE
  return str(library.config.HF_DATASETS_CACHE), hub


def _file(path, roots):
  """The content of a file that a row names, which has to be in a root."""
  real = os.path.realpath(path)
  roots = [os.path.realpath(root) for root in roots]
  if not any(os.path.commonpath([real, root]) == root for root in roots):
    raise ValueError(f'{show(path)} is outside of {roots[0]}')
  with open(real, 'rb') as file:
    return file.read()


def _read(images, roots, path):
  """'.../SPLIT/ROW' -> the bytes of an image; b'': there is none."""
  _, split, row = path.rsplit('/', 2)
  (image,) = images[split][int(row)].values()
  if not image:
    return b''
  if image['bytes'] is None and image['path']:
    return _file(image['path'], roots)
  return image['bytes'] or b''


def describe(name, place, split, download, **_):
  """Finds the examples of a split -> DatasetInfo."""
  library = _library(name)
  data = _loaded(name, place.path, download)
  split = splits.choose(name, split, [*data])
  column = _image_column(name, data[split].features)
  if not len(data[split]):
    raise DataError(f'--dataset={name}: the split {split} is empty.')
  images = {
    of: rows.select_columns([column]).cast_column(
      column, library.Image(decode=False)
    )
    for of, rows in data.items()
    if column in rows.features
  }
  classes, labels = _numbered(name, data, split, place.label)
  return DatasetInfo(
    name,
    split,
    len(labels),
    classes,
    tuple(f'{place.path}/{split}/{i}' for i in range(len(labels))),
    labels,
    read=functools.partial(_read, images, (place.path, *_caches(library))),
    files=tuple(file['filename'] for file in data[split].cache_files),
    folder=place.path,
  )
