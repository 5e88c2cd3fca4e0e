"""--dataset=folder:PATH: a folder per class, or images without labels.

Images are regular files, and links to such, wherever these lie. A folder is
read once, however many links lead to it.
"""

import functools
import logging
import os
import re

from cvr.configs import places
from cvr.configs.settings import show
from cvr.data import splits, tiff
from cvr.data.dataset_info import DataError, DatasetInfo, readable

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')

log = logging.getLogger(__name__)


class _Split:
  """The image files of one split, and what is said of the others."""

  def __init__(self, name, split, suffixes):
    self.name, self.split, self.suffixes = name, split, suffixes
    self.walk = places.Walk()
    self.path_of = {}  # (device, inode) -> the path of a file.
    self._odd, self._same = [], []

  def images(self, folder):
    """The paths of the images below a folder, in order."""
    found = []
    for device, entry in self.walk.files(folder):
      if not entry.name.lower().endswith(self.suffixes):
        continue
      if entry.is_file(follow_symlinks=False):
        found.append((entry.path, (device, entry.inode())))
      elif why := places.no_file(entry.path):
        self._odd.append(f'{show(entry.path)} ({why})')
      else:
        # Only what a link leads to has to be looked up.
        found.append((entry.path, places.identity(entry.path)))
    found.sort()
    for path, file in found:
      if self.path_of.setdefault(file, path) != path:
        self._same.append(f'{show(path)} and {show(self.path_of[file])}')
    return [path for path, _ in found]

  def say(self):
    """Warns of what was passed over, and of what is there twice."""
    again = [*map(show, self.walk.again)]
    for found, what in (
      (self._odd, 'passed over, as no regular files'),
      (again, 'passed over, links to folders that were read already'),
      (self._same, 'images that are the same file as another one'),
    ):
      if found:
        some = f'{len(found):,} {what}: {found[0]}'
        more = ', ...' if found[1:] else ''
        _say_once(f'{self.name}, {self.split}: {some}{more}')


@functools.lru_cache(maxsize=1000)
def _say_once(line):
  log.warning('%s', line)


def _files(folder, suffixes):
  """Paths of the files below a folder that are called like images."""
  for _, entry in places.Walk().files(folder):
    if entry.name.lower().endswith(suffixes):
      yield entry.path


def _suffixes(folder):
  """Those of the images to read: TIFF only where there is nothing else.

  So a folder in which TIFF files were passed over is what it was.
  """
  others = next(_files(folder, IMAGE_SUFFIXES), None)
  first = next(_files(folder, tiff.SUFFIXES), None) if not others else None
  return tiff.SUFFIXES if first else IMAGE_SUFFIXES


def _patterns(suffixes):
  return ', '.join(f'*{suffix}' for suffix in suffixes)


def _subfolders(folder):
  return [e.name for e in places.listed(folder) if places.is_folder(e)]


def _loose(folder, suffixes):
  """The names of images in a folder, not below it."""
  return [
    e.name
    for e in places.listed(folder)
    if e.name.lower().endswith(suffixes) and not places.is_folder(e)
  ]


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
  each = all(_loose(os.path.join(root, n), suffixes) for n in names)
  loose = _loose(root, suffixes)
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


def _check_classes(name, folder, classes):
  """Refuses names that are no text, and one folder under two names."""
  known = {}
  for path in (os.path.join(folder, c) for c in classes):
    if not os.path.isdir(path):
      continue  # A split may lack a class.
    if not places.is_text(path):
      raise DataError(
        f'--dataset={name}: the name of the class folder {show(path)} is not '
        'UTF-8. Rename it.'
      )
    other = known.setdefault(places.identity(path), path)
    if other != path:
      raise DataError(
        f'--dataset={name}: {show(path)} and {show(other)} are one folder, and '
        'would be two classes. Remove one of them, or the link.'
      )
  return known


def _labelled_images(name, folder, subfolders, train, classes, found):
  """-> the class names of the train split, paths, labels.

  found: the _Split that they are noted in.
  """
  classes = classes or subfolders
  unknown = [c for c in subfolders if c not in classes]
  if unknown:
    raise DataError(
      f'--dataset={name}: {show(os.path.join(folder, unknown[0]))} is a class '
      f'that {train} does not have. Rename it or add it there.'
    )
  folders = _check_classes(name, folder, classes)
  # No link of one class leads to another, or to all of them.
  found.walk.seen |= {places.identity(folder), *folders}
  paths, labels = [], []
  for label, class_name in enumerate(classes):
    own = os.path.join(folder, class_name)
    images = []
    if class_name in subfolders:
      found.walk.seen.remove(places.identity(own))
      images = found.images(own)
    if not images and folder == train:
      raise DataError(
        f'--dataset={name}: class folder {show(own)} holds no image '
        f'({_patterns(found.suffixes)}). Fill or remove it.'
      )
    paths += images
    labels += [label] * len(images)
  return classes, paths, labels


def _say_shared(found, folder, other):
  """Warns of files that are in the training and in another split, by links."""
  files = _Split(found.name, other, found.suffixes)
  files.images(os.path.join(folder, other))
  both = found.path_of.keys() & files.path_of.keys()
  if both:
    first = min(found.path_of[file] for file in both)
    _say_once(
      f'{found.name}: {len(both):,} images of {found.split} are files of '
      f'{other}, too: {show(first)}{", ..." if len(both) > 1 else ""}'
    )


def describe(name, place, split, **_):
  """Finds the images and the classes of a split -> DatasetInfo."""
  with readable(name):
    return _described(name, place.path, split)


def _described(name, root, split):
  split, folder, train, known = _split_folder(name, root, split)
  suffixes = _suffixes(folder)
  loose = _loose(folder, suffixes)
  classes = known if folder == root else _subfolders(folder)
  if loose and classes:
    raise DataError(
      f'--dataset={name}: {folder} holds both class folders '
      f'({show(classes[0])}, ...) and images ({show(loose[0])}, ...). Move the '
      'images into class folders, or the folders away.'
    )
  found = _Split(name, split, suffixes)
  if not classes:
    paths = found.images(folder)
    labels = [-1] * len(paths)
  else:
    classes, paths, labels = _labelled_images(
      name, folder, classes, train, known, found
    )
  found.say()
  if not paths:
    raise DataError(
      f'--dataset={name}: no image ({_patterns(suffixes)}) below {folder}.'
    )
  other = splits.found(_subfolders(root))
  if folder == train and other and other not in classes:
    _say_shared(found, root, other)
  return DatasetInfo(
    name,
    split,
    len(paths),
    tuple(classes),
    tuple(paths),
    tuple(labels),
    folder=folder,
  )
