"""The suite of compression: what latents keep, and how smooth the encoder is.

On pairs of views of the evaluation split, augmented as in pretraining; and
linear classification from fewer bits of the representation.
"""

import functools

import numpy as np
import tensorflow as tf

from cvr.configs import derived
from cvr.configs.settings import show
from cvr.evaluation.features import Look
from cvr.evaluation.heads import linear
from cvr.evaluation.suites import compression
from cvr.evaluation.suites.accuracy import fitted_rows, lbfgs_head
from cvr.evaluation.suites.subject import (
  Missing,
  Number,
  accuracy,
  no_numbers,
  splits_of,
)
from cvr.numerics import distributions, information
from cvr.training import health, watch

_PAIRS, _TOGETHER = 1024, 64
_KAPPAS = [2.0**k for k in range(-1, 9)]


def _embedded(method, x, y):
  """Two views -> what is measured of them, in inference mode."""
  both = [method.embed(view) for view in (x, y)]
  found = {
    'h': tf.stack([e['representation'] for e in both], 1),
    'z': tf.stack([e['projection'] for e in both], 1),
    'pixels': tf.norm(tf.reshape(x - y, [tf.shape(x)[0], -1]), axis=1),
  }
  if hasattr(method, 'rate'):
    found['rate'] = method.rate(both, (x, y))
  if hasattr(method, 'forward_mean'):
    means = [method.forward_mean(e['projection']) for e in both]
    found['mu_e'] = tf.stack(means, 1)
  return {name: tf.cast(rows, tf.float32) for name, rows in found.items()}


def _pairs(subject, info):
  """{name: float64 [n, ...]} of pairs of views of a split."""
  subject.say(f'Pairs of views of {info.name}, {info.split}')
  views = watch.two_views(derived.augmentation(subject.cfg), info, _PAIRS)
  strategy, method = subject.strategy, subject.state.method

  @tf.function
  def run(*views):
    found = strategy.run(_embedded, args=(method, *views))
    # Each replica sees all of them.
    return tf.nest.map_structure(
      lambda rows: strategy.experimental_local_results(rows)[0], found
    )

  parts = [
    run(*(tf.constant(view[i : i + _TOGETHER]) for view in views))
    for i in range(0, len(views[0]), _TOGETHER)
  ]
  found = {
    name: np.concatenate([part[name] for part in parts]).astype(np.float64)
    for name in parts[0]
  }
  if not all(np.isfinite(rows).all() for rows in found.values()):
    raise no_numbers(f'pairs of views of {info.name}, {info.split}')
  return found


def _unit(z):
  return z / np.linalg.norm(z, axis=-1, keepdims=True)


def _floor(cfg, dim):
  """What views that agree have of the method's rate; None of learned scales."""
  if cfg.ceb_distribution == 'vmf':
    return distributions.vmf_kl(dim, cfg.kappa_e, cfg.kappa_b, 1.0)
  if cfg.gaussian_scale == 'learned':
    return None
  ratio = cfg.sigma_e / cfg.sigma_b
  return dim * ((ratio**2 - 1) / 2 - np.log(ratio))


def _residual(number, name, rate, own):
  """I(X;Z|Y) in nats."""
  found = compression.rate_summary(rate)
  value = found.pop('mean')
  return number(f'residual_information/{name}', 'nats', own, value, **found)


def _relevant(mu):
  """Unit rows [n, 2, d] -> (InfoNCE in nats, the concentration, of n / 2).

  A lower bound on I(Y;Z) at any concentration: the best one of half of the
  pairs is taken for the other half.
  """

  def bound(rows, kappa):
    z1, z2 = (tf.constant(rows[:, view]) for view in (0, 1))
    kernel = information.vmf_kernel(rows.shape[-1], kappa)
    return float(information.bounds(kernel, z1, z2, z1, z2)['infonce_bound'])

  chosen = max(_KAPPAS, key=lambda kappa: bound(mu[::2], kappa))
  return bound(mu[1::2], chosen), chosen


def _informations(number, cfg, pairs):
  """I(X;Z|Y) the same way for every method; the method's own; and I(Y;Z).

  The first two less what views that agree have.
  """
  mu = _unit(pairs['z'])
  dim, cosine = mu.shape[-1], np.sum(mu[:, 0] * mu[:, 1], -1)
  kappas = health.NOISE_KAPPA, health.KAPPA
  rate = distributions.vmf_kl(dim, *kappas, cosine)
  floor = distributions.vmf_kl(dim, *kappas, 1.0)
  of = 'vMF of concentrations {:g} and {:g} around both projections'
  own = {'of': of.format(*kappas), 'floor_taken_off': floor}
  own['layer'] = 'projection'
  yield _residual(number, 'projections', rate - floor, own)
  if 'rate' in pairs:
    own = {'of': f'e and b of the method, {cfg.ceb_distribution}'}
    own['layer'] = 'e and b'
    if cfg.pretrain_loss == 'byol_ceb':
      own['of'] += f', --backward_view={cfg.backward_view}'
    own['floor_taken_off'] = _floor(cfg, dim)
    rate = pairs['rate'] - (own['floor_taken_off'] or 0)
    yield _residual(number, 'method', rate, own)
  value, kappa = _relevant(mu)
  half = len(mu) // 2
  yield number(
    'relevant_information', 'nats',
    {'of': 'projections, InfoNCE of half of the pairs',
     'layer': 'projection',
     'concentration': kappa, 'chosen_on': 'the other half',
     'at_most': float(np.log(half)), 'pairs': half},
    value=value,
  )  # fmt: skip


def _bound(cfg, pairs):
  """The ratios that the rate alone gives, and what they are; or None.

  Where e and b are one map of each view: C-SimCLR with fixed scales.
  """
  fixed = cfg.ceb_distribution == 'vmf' or cfg.gaussian_scale == 'fixed'
  if cfg.pretrain_loss != 'contrastive_ceb' or not fixed:
    return None
  dim = pairs['z'].shape[-1]
  if cfg.ceb_distribution == 'gaussian':
    sigmas = cfg.sigma_e, cfg.sigma_b
    return compression.lipschitz_gaussian(
      pairs['rate'], dim, *sigmas, pairs['pixels']
    )
  # Anew in float64: of hundreds of nats float32 keeps no small differences.
  mu = _unit(pairs['z'])
  kappas = cfg.kappa_e, cfg.kappa_b
  rate = distributions.vmf_kl(dim, *kappas, np.sum(mu[:, 0] * mu[:, 1], -1))
  return compression.lipschitz_vmf(rate, dim, *kappas, pairs['pixels'])


def _lipschitz(number, cfg, pairs):
  """Lower bounds on the Lipschitz constant: of the rate, and measured."""
  found = {
    'representation': compression.lipschitz_direct(
      pairs['h'][:, 0], pairs['h'][:, 1], pairs['pixels'], True
    ),
    'projection': compression.lipschitz_direct(
      pairs['z'][:, 0], pairs['z'][:, 1], pairs['pixels'], True
    ),
  }
  if 'mu_e' in pairs:
    found['mu_e'] = compression.lipschitz_direct(
      pairs['mu_e'][:, 0], pairs['mu_e'][:, 1], pairs['pixels'], True
    )
  of_rate = _bound(cfg, pairs)
  if of_rate is not None:
    found['rate'] = of_rate
  for name, ratios in found.items():
    told = compression.summary(ratios)
    histogram = told.pop('histogram')
    if histogram is None:
      why = 'all pairs of views are the same image twice'
      yield Missing('compression', f'lipschitz/{name}', why)
      continue
    own = {'of': f'{name}, unit rows' if name != 'rate' else 'I(X;Z|Y)'} | told
    if name != 'representation':
      own['layer'] = 'mean of e' if name == 'mu_e' else 'projection'
    curve = {
      'x': histogram['edges'],
      'y': histogram['counts'],
      'x_label': '|r(x) - r(y)| / |x - y|',
      'y_label': 'pairs of views',
    }
    for which in ('max', 'mean'):
      yield number(
        f'lipschitz_{which}/{name}', 'ratio', own, value=told[which],
        curve=curve if which == 'max' else None,
      )  # fmt: skip


def _bits(subject, splits):
  """Linear classification from fewer dimensions and bits of each."""
  head, found = lbfgs_head(subject, splits)
  del head
  train, test = fitted_rows(subject, splits.train), splits.tested(subject)
  subject.say('Linear classification from fewer bits')

  def fit(features, labels):
    head = linear.logistic(
      features, labels, found['chosen']['l2'], splits.classes
    )
    return functools.partial(linear.predict, head)

  rows = compression.bits_curve(
    (train['representation'], train['labels']),
    (test['representation'], test['labels']),
    fit,
  )
  protocol = subject.protocol(
    Look(), compressed='first principal components, each in 2^bits cells',
    train_split=splits.train.split, train_images=len(train['labels']),
    chosen=found['chosen'],
  )  # fmt: skip
  for row in rows:
    same = [r for r in rows if r['dims'] == row['dims']]
    name = f'{row["dims"]}_numbers_of_{row["bits"]}_bits'
    number = accuracy(
      'compression', name, splits.test, test, row['scores'], protocol
    )
    # One curve for each number of dimensions.
    yield number._replace(
      curve={
        'x': [r['bits_per_image'] for r in same],
        'y': [r['accuracy'] for r in same],
        'x_label': 'bits an image',
        'y_label': 'top-1',
        'panel': 'linear classification',
        'line': f'{row["dims"]} numbers',
      }
      if row is same[0]
      else None
    )


def suite(subject):
  """Rate, relevant information, Lipschitz bounds, bits against accuracy."""
  cfg, splits = subject.cfg, splits_of(subject)
  if cfg.train_mode == 'finetune':
    yield Missing('compression', '', 'this model was finetuned')
    return
  pairs = _pairs(subject, splits.test)
  images = len(pairs['z'])
  views = f'{show(cfg.batch_image_augmentation_type)}, two views'

  def number(name, metric, own, value, low=None, high=None, curve=None, **_):
    # Pairs of views are the same whatever the seed.
    own = {'crop': views, 'seed': 0} | own
    protocol = subject.protocol(Look()) | own
    return Number(
      'compression', name, splits.test.name, splits.test.split, metric,
      float(value), protocol, low, high, images, curve,
    )  # fmt: skip

  yield from _informations(number, cfg, pairs)
  yield from _lipschitz(number, cfg, pairs)
  yield from _bits(subject, splits)
