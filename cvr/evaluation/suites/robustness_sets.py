"""Sets that test robustness: names, class masks, mCE, lists of video frames.

A list file gives the ImageNet classes that are right for each image beside it,
and groups of images: the form of ObjectNet and of frames of videos.
"""

import csv
import os
import re
from typing import NamedTuple

import numpy as np

from cvr.configs.variants import ALEXNET_ERRORS, SETS, SEVERITIES

# ImageNet-C ------------------------------------------------------------------


def corrupted(dataset='imagenet2012_corrupted'):
  """-> {(corruption, severity): (data set, split)}, all 75.

  dataset: TFDS' name, or 'folder:PATH' as ImageNet-C is published:
  PATH/<corruption>/<severity>/<class>.
  """
  tfds = SETS['imagenet_c']
  if dataset.startswith('folder:'):
    folder = dataset.rstrip('/')
    return {(c, s): (f'{folder}/{c}', str(s)) for c, s in _settings()}
  return {(c, s): (f'{dataset}/{c}_{s}', tfds.split) for c, s in _settings()}


def _settings():
  return [(c, s) for c in ALEXNET_ERRORS for s in SEVERITIES]


def _accuracies(acc):
  """{(corruption, severity): number or [n]} -> [15, 5] or [15, 5, n]."""
  missing = [f'{c}_{s}' for c, s in _settings() if (c, s) not in acc]
  if missing:
    raise ValueError(
      f'{len(missing)} of 75 corruptions are missing ({missing[0]}, ...); the '
      'mean is defined over all of them'
    )
  extra = [key for key in acc if key not in _settings()]
  if extra:
    raise ValueError(f'{extra[0]} is not one of the 75 corruptions')
  values = np.array([acc[key] for key in _settings()], np.float64)
  if not np.all((values >= 0) & (values <= 1)):
    raise ValueError('an accuracy is not in [0, 1]')
  return values.reshape(len(ALEXNET_ERRORS), len(SEVERITIES), *values.shape[1:])


def mean_accuracy(acc):
  """{(corruption, severity): accuracy} -> the mean over all 75.

  Of each image's right or wrong [n]: [n].
  """
  return _accuracies(acc).mean((0, 1))


def mce(acc):
  """{(corruption, severity): accuracy} -> the mean corruption error.

  Per corruption the mean error over severities, divided by AlexNet's; then the
  mean over corruptions in percent, as in papers: AlexNet has 100. For each
  image's right or wrong [n]: [n], whose mean is the mCE. Meaningful on the
  validation images of ImageNet only.
  """
  errors = 1 - _accuracies(acc).mean(1)
  alexnet = np.array(list(ALEXNET_ERRORS.values()))
  ratios = errors / alexnet.reshape(-1, *[1] * (errors.ndim - 1))
  return 100 * ratios.mean(0)


# Class masks -----------------------------------------------------------------


def relabelled(labels, names, trained):
  """Labels [n] of a set -> the classifier's labels, int64 [n].

  A folder counts only the classes it has. names, trained: class names of both
  in order of their labels. Names that the classifier does not know are its
  labels if they are numbers.
  """
  labels = np.asarray(labels)
  if np.any(labels < 0):
    raise ValueError('images without a label: put them into class folders')
  place = {name: label for label, name in enumerate(trained)}
  unknown = [name for name in names if name not in place]
  if unknown:
    numbers = [str(label) for label in range(len(trained))]
    place = {number: int(number) for number in numbers}
    if not set(names) <= set(numbers):
      raise ValueError(
        f'class {unknown[0][:60]!r} is none of the {len(trained)} classes that '
        f'the classifier knows ({trained[0]}, ...)'
      )
  return np.array([place[name] for name in names], np.int64)[labels]


def mask_of(labels, num_classes):
  """-> bool [num_classes]: the classes that occur.

  labels: [n], or the several right classes of each image.
  """
  several = [np.atleast_1d(np.asarray(row)) for row in labels]
  if not several:
    raise ValueError('no labels: which classes occur is not known')
  classes = np.concatenate(several)
  outside = classes[(classes < 0) | (classes >= num_classes)]
  if outside.size:
    raise ValueError(
      f'label {outside[0]} is none of the {num_classes} classes that the '
      'classifier knows'
    )
  mask = np.zeros(num_classes, bool)
  mask[classes] = True
  return mask


def described(mask):
  """-> such as '200 of 1000 classes', or 'all 1000 classes'."""
  inside, every = int(np.sum(mask)), len(mask)
  if inside == every:
    return f'all {every} classes'
  return f'{inside} of {every} classes'


def check_classes(name, mask):
  """'' or a note where the number of classes is not the published one."""
  published, count = SETS[name].classes, int(np.sum(mask))
  if published in (0, count):
    return ''
  return (
    f'{name}: {count} classes occur, not {published} as in the published set'
  )


def predicted(logits, mask):
  """Likeliest class within the mask, [n, C], bool [C] -> int64 [n].

  -1, which is never right, where a logit is NaN.
  """
  inside = np.flatnonzero(mask)
  logits = np.asarray(logits)[:, inside]
  best = inside[np.argmax(logits, 1)]
  return np.where(np.isnan(logits).any(1), -1, best)


# List files ------------------------------------------------------------------


class ListError(ValueError):
  """What is wrong with a list file, and what to do: one line."""


class Frames(NamedTuple):
  """Images [n] of a list file, in groups [g] with an anchor each."""

  paths: tuple[str, ...]  # relative to the list's folder
  classes: tuple[tuple[int, ...], ...]  # the right ones of each image
  groups: np.ndarray  # int64 [n]: the group of an image
  anchors: np.ndarray  # int64 [g]: each group's first image


_COLUMNS = ('path', 'classes', 'group')


def _path(text, folder):
  """The normalised path of an existing file inside of the folder."""
  path = os.path.normpath(text) if text else '..'
  if os.path.isabs(path) or path.split(os.sep)[0] in ('..', '.'):
    raise ListError(
      f'path {text[:60]!r} is not inside of {folder}; write it relative to the '
      "list's folder"
    )
  if not os.path.isfile(os.path.join(folder, path)):
    raise ListError(
      f'there is no file {path[:200]!r} in {folder}; add it or take the row out'
    )
  return path


def _classes(text, num_classes):
  """'7 12' -> (7, 12)."""
  words = text.split()
  # At most 9 digits: Python's int() raises its own error for thousands.
  good = [w for w in words if re.fullmatch('[0-9]{1,9}', w)]
  if len(good) < len(words) or not words:
    raise ListError(
      f'classes {text[:60]!r} are not ImageNet class indices separated by '
      "spaces, such as '7 12'"
    )
  classes = sorted({int(w) for w in words})
  if classes[-1] >= num_classes:
    raise ListError(
      f'class {classes[-1]} is none of the {num_classes} classes that the '
      'classifier knows; indices begin with 0'
    )
  return tuple(classes)


def _row(row, folder, num_classes):
  if None in row or None in row.values():
    raise ListError(
      'another number of values than columns; quote paths with commas'
    )
  path, classes, group = (row[column].strip() for column in _COLUMNS)
  return _path(path, folder), _classes(classes, num_classes), group


def _rows(file, folder, num_classes):
  """Yields (line, path, classes, group), each path once."""
  reader = csv.DictReader(file, skipinitialspace=True, strict=True)
  lacking = [c for c in _COLUMNS if c not in (reader.fieldnames or ())]
  if lacking:
    raise ListError(
      f'no column {", ".join(lacking)}; the first line is {",".join(_COLUMNS)}'
    )
  lines = {}
  for row in reader:
    line = reader.line_num
    try:
      path, classes, group = _row(row, folder, num_classes)
      if path in lines:
        raise ListError(
          f'path {path[:200]!r} is already in line {lines[path]}; list an '
          'image once; for a second group list a link to it'
        )
    except ListError as error:
      raise ListError(f'line {line}: {error}') from None
    lines[path] = line
    yield line, path, classes, group


def read_list(path, num_classes):
  """A list file -> Frames; its paths are relative to its own folder.

  CSV with the columns path, classes (indices of the right ones, separated by
  spaces) and group (any word). The first row of a group is its anchor; a row
  without a group is a group of its own.
  """
  paths, classes, groups, anchors, numbers = [], [], [], [], {}
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      for row in _rows(file, os.path.dirname(path) or '.', num_classes):
        line, image, right, group = row
        key = group or line
        if key not in numbers:
          numbers[key] = len(anchors)
          anchors.append(len(paths))
        paths.append(image)
        classes.append(right)
        groups.append(numbers[key])
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    reason = getattr(error, 'strerror', None) or error
    raise ListError(f'{path}: {reason}; it must be CSV in UTF-8') from None
  except ListError as error:
    raise ListError(f'{path}: {error}') from None
  if not paths:
    raise ListError(
      f'{path}: no images; after the first row, each image needs a row'
    )
  anchors, groups = np.array(anchors, np.int64), np.array(groups, np.int64)
  return Frames(tuple(paths), tuple(classes), groups, anchors)


def frame_scores(predicted, frames):
  """Classes [n] as predicted of each image -> {'anchor', 'pm_k'}, float32 [g].

  anchor: 1 where the group's anchor is right. pm_k: 1 where all of its frames
  are right, the worst of the anchor and its neighbours. A frame is right where
  the prediction, the likeliest class within the mask of all frames' classes, is
  one of its classes.
  """
  pairs = zip(predicted, frames.classes, strict=True)
  right = np.array([guess in classes for guess, classes in pairs], np.float32)
  worst = np.ones(len(frames.anchors), np.float32)
  np.minimum.at(worst, frames.groups, right)
  return {'anchor': right[frames.anchors], 'pm_k': worst}
