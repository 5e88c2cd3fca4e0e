"""The checkpoint that is evaluated, the rows it gives, and Numbers of them."""

import contextlib
from typing import NamedTuple

import numpy as np

from cvr.configs import config, derived
from cvr.configs.settings import of_the_encoder, show
from cvr.data import batches, decoding, sources
from cvr.evaluation import features, statistics, store

# To be raised when rows that are in stores already would come out differently.
_VERSION = 2
_FORWARD = ('stem', 'view_pairs', 'ft_proj_selector', 'probe_latent')


class Missing(NamedTuple):
  """A number that could not be measured, and why."""

  suite: str
  name: str
  why: str


class Number(NamedTuple):
  """A number of the card. scores, ids: of each image, where it is a mean."""

  suite: str
  name: str
  dataset: str
  split: str
  metric: str
  value: float
  protocol: dict
  low: float | None = None
  high: float | None = None
  images: int | None = None
  curve: dict | None = None
  scores: np.ndarray | None = None
  labels: np.ndarray | None = None
  ids: np.ndarray | None = None

  def row(self):
    """Its row in card.json."""
    arrays = ('scores', 'labels', 'ids', 'curve')
    row = {k: v for k, v in self._asdict().items() if k not in arrays}
    return row | ({'curve': self.curve} if self.curve else {})


class Subject(NamedTuple):
  """The checkpoint that is evaluated, and the store of what is made of it."""

  cfg: config.Config
  strategy: object
  state: object
  path: str
  model: str  # the fingerprint of the checkpoint
  read: object  # of features.make_read
  store: store.Store
  say: object
  # Of its probe, in order; () where the checkpoint does not tell.
  class_names: tuple = ()
  again: object = None  # () -> the State that a run begins with

  def untrained(self):
    """The same network before training; None where that is not known."""
    if not self.again or self.cfg.train_mode == 'finetune':
      return None
    state, built = self.again(), of_the_encoder(config.to_dict(self.cfg))
    built |= {name: getattr(self.cfg, name) for name in ('seed', 'dataset')}
    return self._replace(
      state=state,
      model=f'untrained {store.digest(built)}',
      read=features.make_read(self.cfg, self.strategy, state),
    )

  def describe(self, dataset, split):
    return sources.describe(
      dataset,
      self.cfg.data_dir,
      split,
      self.cfg.download,
      **derived.pixels(self.cfg),
    )

  def facts(self, **more):
    """What everything in the store depends on, and `more`."""
    return {
      'version': _VERSION,
      'model': self.model,
      'image_size': self.cfg.image_size,
      'normalized': derived.augmentation(self.cfg).mean_std,
      'precision': self.cfg.precision,
      # The weights alone do not determine these parts of the network.
      'forward': [getattr(self.cfg, name) for name in _FORWARD],
    } | more

  @property
  def central(self):
    """The Look at images that are neither corrupted nor cropped at random."""
    return features.central(self.cfg)

  def rows(self, info, look=None, logits=False):
    """Rows of a split: representation, labels, ids, and logits on demand.

    Only of images that can be decoded. look: by itself central.
    """
    look = look or self.central
    facts = self.facts(
      images=sources.fingerprint(info), look=look.facts(), logits=logits
    )
    names = ('representation', 'labels', 'ids')
    names += ('logits',) if logits else ()
    rows = self.store.rows(facts, lambda: self._read_rows(info, look, names))
    good = rows['labels'] >= 0  # What cannot be decoded has the label -1.
    if not good.any():
      raise sources.DataError(
        f'{features.title(info, look)}: no image that can be decoded has a '
        'label.'
      )
    rows = {k: v[good] for k, v in rows.items()} if not good.all() else rows
    if not np.isfinite(rows['representation']).all():
      raise features.not_finite(features.title(info, look))
    return rows

  def _read_rows(self, info, look, names):
    """Yields {name: rows} of a split, in pieces."""
    # Corruptions take 75 passes. Logits in float16 could change their maximum.
    half = ('representation',) if look.corruption else ()
    name = features.title(info, look)
    self.say(f'Features of {info.num_examples:,} images of {name}')
    done, bad = 0, []
    for piece in self.read(info, look):
      done += len(piece['labels'])
      bad += piece['ids'][piece['labels'] < 0].tolist()
      yield {
        k: piece[k].astype(np.float16) if k in half else piece[k] for k in names
      }
    if done != info.num_examples:
      raise sources.DataError(
        f'--dataset={info.name}: {done} images of {info.split} read, '
        f'{info.num_examples} expected. Is a file of the data set missing?'
      )
    if bad:
      names = ', '.join(map(show, bad[:5])) + (', ...' if bad[5:] else '')
      why = decoding.cannot(info.channels)
      self.say(f'{len(bad):,} of them {why}, left out: {names}')

  def protocol(self, look=None, **more):
    """How a number was made: what all have in common, and `more`."""
    look = look or self.central
    normalisation = 'none'
    if derived.augmentation(self.cfg).mean_std:
      normalisation = 'ImageNet mean and deviation'
      normalisation += ', over its colours' if self.cfg.channels != 3 else ''
    crop = f'central, {look.crop:g} of the shorter side'
    dim = self.state.method.encoder.representation_dim
    return {
      'crop': f'{crop}, {self.cfg.image_size} px',
      'bn': 'moving statistics',
      'layer': f'representation ({dim})',
      'normalisation': normalisation,
      'class_mask': None,
      'seed': self.cfg.seed,
      'checkpoint': self.model,
    } | more

  def probe_protocol(self):
    """What the protocol of the stored probe's numbers has beside the rest."""
    finetuned = self.cfg.train_mode == 'finetune'
    trained = 'finetuned' if finetuned else 'beside the pretraining (A)'
    layer = {0: 'representation'}.get(
      self.cfg.ft_proj_selector,
      f'projection head, layer {self.cfg.ft_proj_selector}',
    )
    layer = 'latent' if self.cfg.probe_latent else layer
    order = 'of the run' if self.class_names else 'assumed, none is stored'
    return {'trained': trained, 'layer': layer, 'order_of_classes': order}

  def probe_problem(self, names):
    """'' or why the stored probe's classes are not those of these names."""
    probe, own = self.state.probe, self.class_names
    if not probe:
      return 'the checkpoint has no probe'
    if probe.dense.units != len(names) or (own and tuple(own) != tuple(names)):
      return 'the probe of the checkpoint has other classes'
    return ''


def accuracy(suite, name, info, rows, scores, protocol, metric='top_1'):
  """The Number that is the mean of per-image scores of a split.

  Where all images of a class are of one cluster, such as a photograph, the
  interval is over these.
  """
  labels = rows['labels']
  per_class = labels if metric == 'mean_per_class' else None
  clusters = labels if info.cluster else None
  if info.cluster:
    protocol = protocol | {'interval_over': f'{info.cluster}s'}
  return Number(
    suite,
    name,
    info.name,
    info.split,
    metric,
    protocol=protocol,
    **statistics.interval(scores, per_class, clusters=clusters),
    scores=scores,
    labels=labels,
    ids=rows['ids'],
  )


class Splits(NamedTuple):
  """The training and evaluation splits of the main data set."""

  train: sources.DatasetInfo
  test: sources.DatasetInfo

  @property
  def classes(self):
    return len(self.train.class_names)

  def test_rows(self, subject):
    """Rows of the evaluation split; one pass serves all suites."""
    return subject.rows(self.test, logits=bool(subject.state.probe))


class NoLabels(config.ConfigError):
  """A suite needs labels, and a split has none."""


def _labelled(subject, split):
  dataset = subject.cfg.dataset
  info = subject.describe(dataset, split)
  if not info.class_names:
    raise NoLabels(
      f'--dataset={dataset}: {info.split} has no labels, which this needs.'
    )
  return info


def images_of(subject):
  """The evaluation split, labelled or not; without one, the training split."""
  cfg = subject.cfg
  with contextlib.suppress(sources.DataError):
    return subject.describe(cfg.dataset, cfg.eval_split)
  return subject.describe(cfg.dataset, cfg.train_split)


def splits_of(subject):
  """The Splits of --dataset; an error where numbers on them mean nothing."""
  cfg = subject.cfg
  train, test = (
    _labelled(subject, split) for split in (cfg.train_split, cfg.eval_split)
  )
  shared = sources.overlap(train, test)
  if shared:
    raise config.ConfigError(
      f'--eval_split={cfg.eval_split}: {shared:,} of its images are in '
      f'--train_split={cfg.train_split} too. Name splits without common images.'
    )
  if cfg.train_share < 1:
    train = batches.share_of(train, cfg.train_share, cfg.seed)
  return Splits(train, test)
