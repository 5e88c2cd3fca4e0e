"""--dataset=folder:PATH: a folder per class, or images without labels."""

import logging
import os
import re

from cvr.data import tiff
from cvr.data.dataset_info import DataError, DatasetInfo

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')

log = logging.getLogger(__name__)


def _walk(folder, suffixes):
  for parent, folders, files in os.walk(folder, followlinks=True):
    folders[:] = [f for f in folders if not f.startswith('.')]
    for f in files:
      if f.lower().endswith(suffixes) and not f.startswith('.'):
        yield os.path.join(parent, f)


def _suffixes(folder):
  """Those of the images to read: TIFF only where there is nothing else.

  So a folder in which TIFF files were passed over is what it was.
  """
  others = next(_walk(folder, IMAGE_SUFFIXES), None)
  first = next(_walk(folder, tiff.SUFFIXES), None) if not others else None
  return tiff.SUFFIXES if first else IMAGE_SUFFIXES


def _patterns(suffixes):
  return ', '.join(f'*{suffix}' for suffix in suffixes)


def _subfolders(folder):
  with os.scandir(folder) as entries:
    return sorted(
      e.name for e in entries if e.is_dir() and not e.name.startswith('.')
    )


def _split_folder(name, root, split):
  """The folder that holds a split; the root itself when it is unlabelled."""
  if '://' in root or not os.path.isdir(root):
    raise DataError(
      f'--dataset={name}: there is no folder {root} on this machine. Give one '
      'that holds train/<class>/*.jpg, or images alone.'
    )
  if not re.fullmatch(r'\w+', split):
    raise DataError(
      f'--dataset={name}: split {split!r} (--train_split, --eval_split): a '
      'folder has whole splits only, such as train or validation.'
    )
  names = _subfolders(root)
  allowed = ('validation', 'val', 'test') if split == 'validation' else (split,)
  for name_of_split in allowed:
    if name_of_split in names:
      return os.path.join(root, name_of_split)
  splits = {'train', 'validation', 'val', 'test'} & set(names)
  if split == 'train' and not splits:
    return root
  raise DataError(
    f'--dataset={name}: split {split!r} (--train_split, --eval_split) needs a '
    f'folder {os.path.join(root, allowed[0])}; there is: '
    f'{", ".join(names) or "no folder"}.'
  )


def _labelled_images(name, root, folder, subfolders, suffixes):
  """-> the class names of the train split, paths, labels."""
  train = os.path.join(root, 'train')
  classes = (_subfolders(train) if os.path.isdir(train) else []) or subfolders
  unknown = [c for c in subfolders if c not in classes]
  if unknown:
    raise DataError(
      f'--dataset={name}: {os.path.join(folder, unknown[0])} is a class that '
      f'{train} does not have. Rename it or add it there.'
    )
  paths, labels = [], []
  for label, class_name in enumerate(classes):
    images = sorted(_walk(os.path.join(folder, class_name), suffixes))
    if not images and folder == train:
      raise DataError(
        f'--dataset={name}: class folder {os.path.join(folder, class_name)} '
        f'holds no image ({_patterns(suffixes)}). Fill or remove it.'
      )
    paths += images
    labels += [label] * len(images)
  return classes, paths, labels


def describe(name, root, split):
  """Finds the images and the classes of a split -> DatasetInfo."""
  folder = _split_folder(name, root, split)
  suffixes = _suffixes(folder)
  with os.scandir(folder) as entries:
    loose = sorted(e.name for e in entries if e.name.lower().endswith(suffixes))
  classes = [] if folder == root else _subfolders(folder)
  if loose and classes:
    raise DataError(
      f'--dataset={name}: {folder} holds both class folders '
      f'({classes[0]}, ...) and images ({loose[0]}, ...). Move the images '
      'into class folders, or the folders away.'
    )
  if not classes:
    paths = sorted(_walk(folder, suffixes))
    labels = [-1] * len(paths)
    log.warning('%s: %d images without labels', folder, len(paths))
  else:
    classes, paths, labels = _labelled_images(
      name, root, folder, classes, suffixes
    )
  if not paths:
    raise DataError(
      f'--dataset={name}: no image ({_patterns(suffixes)}) below {folder}.'
    )
  return DatasetInfo(
    name,
    split,
    len(paths),
    tuple(classes),
    tuple(paths),
    tuple(labels),
    folder=folder,
  )
