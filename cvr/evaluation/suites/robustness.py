"""The suite `robustness`: heads on images unlike those of the training.

Two heads on the representation: the stored probe (online), and frozen SGD with
BYOL's protocol. Each corruption of the images counts as a data set.
"""

import dataclasses
import os

import numpy as np

from cvr.configs import derived, variants
from cvr.data import sources
from cvr.evaluation.corruptions import corruptions
from cvr.evaluation.heads import fitted, linear
from cvr.evaluation.subject import Missing, accuracy, splits_of
from cvr.evaluation.suites import robustness_sets

_FROZEN = 'sgd_byol'


def _heads(subject, splits):
  """{name: (a function rows, mask -> classes, its part of a protocol)}."""
  head, facts = fitted.sgd_head(subject, splits, _FROZEN)

  def frozen(rows, mask):
    features = rows['representation'].astype(np.float32)
    return linear.predict(head, features, mask)

  def online(rows, mask):
    all_classes = np.ones(splits.classes, bool)
    return robustness_sets.predicted(
      rows['logits'], all_classes if mask is None else mask
    )

  heads = {_FROZEN: (frozen, {'head': _FROZEN} | facts)}
  if not subject.probe_problem(splits.train.class_names):
    heads['online'] = (online, subject.probe_protocol())
  return heads


def _corrupted(subject, info, heads, name):
  """Right or wrong under a corruption: {head: bool [severities, n]}, rows."""
  right = {head: [] for head in heads}
  scale = derived.corrupt_scale(subject.cfg)
  for severity in variants.SEVERITIES:
    look = subject.central._replace(
      corruption=name, severity=severity, scale=scale
    )
    rows = subject.rows(info, look, logits=bool(subject.state.probe))
    for head, (predict, _) in heads.items():
      right[head].append(predict(rows, None) == rows['labels'])
  return {head: np.array(rows) for head, rows in right.items()}, rows


def _corrupted_protocol(subject, own):
  return subject.protocol(
    **own,
    severities='1 to 5, the mean',
    corrupt_scale=derived.corrupt_scale(subject.cfg),
    corruptions_version=corruptions.VERSION,
  )


def _corruptions(subject, splits, heads):
  """Each corruption over its severities, and all of them."""
  names = derived.corruptions(subject.cfg)
  means = {head: [] for head in heads}
  for name in names:
    right, rows = _corrupted(subject, splits.test, heads, name)
    for head, by_severity in right.items():
      means[head].append(by_severity.mean(0))
      # One protocol for all corruptions of a head: the name tells which.
      protocol = _corrupted_protocol(subject, heads[head][1])
      number = accuracy(
        'robustness', f'{name}/{head}', splits.test, rows, means[head][-1],
        protocol,
      )  # fmt: skip
      yield number._replace(
        curve={
          'x': list(variants.SEVERITIES),
          'y': by_severity.mean(1).tolist(),
          'x_label': 'severity',
          'y_label': 'top-1',
          'panel': name,
          'line': head,
        }
      )
  for head, scores in means.items():
    if len(names) == len(variants.ALEXNET_ERRORS):
      protocol = _corrupted_protocol(subject, heads[head][1])
      mean = np.mean(scores, 0)
      yield accuracy(
        'robustness', f'corrupted/{head}', splits.test, rows, mean, protocol
      )


def _list_of(subject, name, place, classes):
  """A folder with a list.csv -> (DatasetInfo of its images, Frames)."""
  folder = os.path.expanduser(place.removeprefix('folder:'))
  try:
    frames = robustness_sets.read_list(
      os.path.join(folder, 'list.csv'), classes
    )
  except robustness_sets.ListError as error:
    raise sources.DataError(str(error)) from error
  info = sources.DatasetInfo(
    name,
    'list.csv',
    len(frames.paths),
    tuple(map(str, range(classes))),
    paths=tuple(os.path.join(folder, path) for path in frames.paths),
    labels=tuple(right[0] for right in frames.classes),
    folder=folder,
    **derived.pixels(subject.cfg),
  )
  return info, frames


def _frames(subject, name, place, splits, heads):
  """Images of a list file: anchors, and anchors with their neighbours."""
  info, frames = _list_of(subject, name, place, splits.classes)
  rows = subject.rows(info, logits=bool(subject.state.probe))
  if len(rows['ids']) < len(frames.paths):
    raise sources.DataError(
      f'{name}: {len(frames.paths) - len(rows["ids"])} images of '
      f'{place}/list.csv cannot be decoded. Replace them or take them out.'
    )
  mask = robustness_sets.mask_of(frames.classes, splits.classes)
  for head, (predict, own) in heads.items():
    scores = robustness_sets.frame_scores(predict(rows, mask), frames)
    alone = len(frames.anchors) == len(frames.paths)
    for kind in ('anchor',) if alone else ('anchor', 'pm_k'):
      protocol = subject.protocol(
        **own, class_mask=robustness_sets.described(mask), kind=kind
      )
      at = {k: rows[k][frames.anchors] for k in ('labels', 'ids')}
      label = head if alone else f'{kind}/{head}'
      yield accuracy(
        'robustness', f'{name}/{label}', info, at, scores[kind], protocol
      )


def _relabelled(name, rows, info, splits):
  """Labels of a set as the classifier has them, by the classes' names."""
  try:
    return robustness_sets.relabelled(
      rows['labels'], info.class_names, splits.train.class_names
    )
  except ValueError as error:
    raise sources.DataError(f'{name}: {error}') from error


def _images(subject, name, place, split, splits, heads):
  """A set of labelled images: each head, among the classes that occur."""
  info = subject.describe(place, split)
  rows = subject.rows(info, logits=bool(subject.state.probe))
  labels = _relabelled(name, rows, info, splits)
  mask = robustness_sets.mask_of(labels, splits.classes)
  for head, (predict, own) in heads.items():
    protocol = subject.protocol(
      **own,
      place=place,
      class_mask=robustness_sets.described(mask),
      note=robustness_sets.check_classes(name, mask),
    )
    right = predict(rows, mask) == labels
    # Under the name of the table, wherever it lies.
    info = dataclasses.replace(info, name=name)
    yield accuracy('robustness', f'{name}/{head}', info, rows, right, protocol)


def _published_corruptions(subject, name, place, splits, heads):
  """ImageNet-C as it is published: mean accuracy, and mCE against AlexNet."""
  crop = 0.875 if name == variants.RECROPPED else 1.0
  look = subject.central._replace(crop=crop)
  right, first_labels = {head: {} for head in heads}, None
  for key, (dataset, split) in robustness_sets.corrupted(place).items():
    info = subject.describe(dataset, split)
    rows = subject.rows(info, look, logits=bool(subject.state.probe))
    labels = _relabelled(name, rows, info, splits)
    first_labels = rows['labels'] if first_labels is None else first_labels
    if not np.array_equal(rows['labels'], first_labels):
      raise sources.DataError(
        f'{name}: {dataset}, {split} has other images than the first of '
        'its 75 sets, or some of its images cannot be decoded.'
      )
    for head, (predict, _) in heads.items():
      right[head][key] = (predict(rows, None) == labels).astype(np.float32)
  every = dataclasses.replace(info, name=name, split='all 75')
  for head, by_set in right.items():
    protocol = subject.protocol(look, **heads[head][1])
    mean = robustness_sets.mean_accuracy(by_set)
    yield accuracy(
      'robustness', f'mean_accuracy/{head}', every, rows, mean, protocol
    )
    yield accuracy(
      'robustness', f'mce/{head}', every, rows,
      robustness_sets.mce(by_set), protocol, 'mce',
    )  # fmt: skip


def _published(subject, splits, heads):
  for name, place in derived.robustness_places(subject.cfg).items():
    row = variants.SETS[name]
    place = place or row.dataset
    try:
      if not place:
        raise sources.DataError(
          f'{name} is not in TFDS: put list.csv beside its images and give '
          f'their folder: --robustness_sets={name}=folder:PATH'
        )
      if name in ('imagenet_c', variants.RECROPPED):
        yield from _published_corruptions(subject, name, place, splits, heads)
      elif row.dataset:
        yield from _images(subject, name, place, row.split, splits, heads)
      else:
        yield from _frames(subject, name, place, splits, heads)
    except sources.DataError as error:
      yield Missing('robustness', name, str(error))


def suite(subject):
  """Published sets, and corruptions of the evaluation split."""
  splits = splits_of(subject)
  if not subject.cfg.corrupt and not derived.robustness_places(subject.cfg):
    why = (
      'nothing to measure: --corrupt=all corrupts the evaluation split, '
      '--robustness_sets names variants of ImageNet'
    )
    if subject.cfg.channels != 3:
      channels = f'--channels={subject.cfg.channels}'
      why = f'corruptions need RGB images, but this network has {channels}'
    yield Missing('robustness', '', why)
    return
  heads = _heads(subject, splits)
  yield from _corruptions(subject, splits, heads)
  yield from _published(subject, splits, heads)
