"""--dataset=folder:PATH: a folder per class, or images without labels."""

import os
import re

from cvr.data import splits, tiff
from cvr.data.dataset_info import DataError, DatasetInfo

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')


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


def _holds_images(folder, suffixes):
  """Whether a folder has images in it, not only below it."""
  with os.scandir(folder) as entries:
    return any(e.name.lower().endswith(suffixes) for e in entries)


def _check_root(name, root, split):
  if '://' in root or not os.path.isdir(root):
    raise DataError(
      f'--dataset={name}: there is no folder {root} on this machine. Give one '
      'that holds train/<class>/*.jpg, or images alone.'
    )
  if not re.fullmatch(r'\w+', split):
    raise DataError(
      f'--dataset={name}: split {split!r} (--train_split, --eval_split): a '
      'folder supports only whole splits, such as train or validation.'
    )


def _class_folders(root, names):
  """The class folders in a root that has no train folder.

  All of its folders but those of the other splits, if there are at least two,
  each holds images and the root itself none.
  """
  suffixes = (*IMAGE_SUFFIXES, *tiff.SUFFIXES)
  names = [n for n in names if n not in splits.EVALUATION]
  each = all(_holds_images(os.path.join(root, n), suffixes) for n in names)
  loose = _holds_images(root, suffixes)
  return names if len(names) > 1 and each and not loose else []


def _split_folder(name, root, split):
  """-> the split's name, its folder, that of train, the classes of train.

  That of train is the root if it holds class folders, or images alone.
  """
  _check_root(name, root, split)
  names = _subfolders(root)
  train = os.path.join(root, 'train')
  if 'train' in names:
    classes = _subfolders(train)
  else:
    classes = _class_folders(root, names)
    names = [n for n in names if n not in classes]
    if classes or not {*splits.EVALUATION} & {*names}:
      train, names = root, ['train', *names]
  chosen = splits.choose(name, split, names)
  folder = train if chosen == 'train' else os.path.join(root, chosen)
  # Cards of folders have always called val what was asked for.
  return split if chosen == 'val' else chosen, folder, train, classes


def _labelled_images(name, folder, subfolders, train, classes, suffixes):
  """-> the class names of the train split, paths, labels."""
  classes = classes or subfolders
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


def describe(name, place, split, **_):
  """Finds the images and the classes of a split -> DatasetInfo."""
  root = place.path
  split, folder, train, known = _split_folder(name, root, split)
  suffixes = _suffixes(folder)
  with os.scandir(folder) as entries:
    loose = sorted(e.name for e in entries if e.name.lower().endswith(suffixes))
  classes = known if folder == root else _subfolders(folder)
  if loose and classes:
    raise DataError(
      f'--dataset={name}: {folder} holds both class folders '
      f'({classes[0]}, ...) and images ({loose[0]}, ...). Move the images '
      'into class folders, or the folders away.'
    )
  if not classes:
    paths = sorted(_walk(folder, suffixes))
    labels = [-1] * len(paths)
  else:
    classes, paths, labels = _labelled_images(
      name, folder, classes, train, known, suffixes
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
