"""The suite `compression`: what latents keep, and how smooth the encoder is.

On pairs of views of the evaluation split, augmented as in pretraining; and
linear classification from fewer bits of the representation.
"""

import functools

import numpy as np
import tensorflow as tf

from cvr.configs import derived
from cvr.configs.settings import show
from cvr.evaluation import statistics
from cvr.evaluation.features import not_finite, unit
from cvr.evaluation.heads import fitted, linear
from cvr.evaluation.measures import bits, lipschitz
from cvr.evaluation.subject import (
  Missing,
  NoLabels,
  Number,
  accuracy,
  images_of,
  splits_of,
)
from cvr.numerics import distributions, information
from cvr.training import health, watch

_PAIRS, _TOGETHER = 1024, 64
# Of what the watch reports, the units.
_HEALTH = {
  'feature_std': 'ratio',
  'effective_rank': 'directions',
  'alignment': 'squared distance',
  'uniformity': 'nats',
}
_KAPPAS = [2.0**k for k in range(-1, 9)]


def _embedded(method, x, y):
  """Two views -> {name: rows}, in evaluation mode."""

  def more(both):
    rows = {'pixels': tf.norm(tf.reshape(x - y, [tf.shape(x)[0], -1]), axis=1)}
    if hasattr(method, 'forward_mean'):
      means = [method.forward_mean(e['projection']) for e in both]
      rows['mu_e'] = tf.stack(means, 1)
    return rows

  return watch.embedded(method, (x, y), more)


def _pairs(subject, info):
  """{name: float64 [n, ...]} of pairs of views of a split."""
  subject.say(f'Pairs of views of {info.name}, {info.split}')
  recipe = derived.augmentation(subject.cfg)
  views = watch.two_views(recipe, info, _PAIRS)
  embed = functools.partial(_embedded, subject.state.method)
  pairs = watch.make_rows(subject.strategy, embed, views, _TOGETHER)()
  if not all(np.isfinite(rows).all() for rows in pairs.values()):
    raise not_finite(f'pairs of views of {info.name}, {info.split}')
  return pairs


# Rates and information -------------------------------------------------------


def floor(cfg, dim):
  """The method's rate of views that agree; None where scales are learned."""
  if cfg.ceb_distribution == 'vmf':
    return distributions.vmf_kl(dim, cfg.kappa_e, cfg.kappa_b, 1.0)
  if cfg.gaussian_scale == 'learned':
    return None
  ratio = cfg.sigma_e / cfg.sigma_b
  return dim * ((ratio**2 - 1) / 2 - np.log(ratio))


def _residual(number, name, rate, own):
  """I(X;Z|Y) in nats."""
  name = f'residual_information/{name}'
  return number(name, 'nats', own, **statistics.normal_interval(rate))


def _relevant(mu):
  """Unit rows [n, 2, d] -> (InfoNCE in nats, the concentration, of n / 2).

  A lower bound on I(Y;Z) at any concentration: it is chosen on one half of the
  pairs, and the bound is that of the other half.
  """

  def bound(rows, kappa):
    z1, z2 = (tf.constant(rows[:, view]) for view in (0, 1))
    kernel = information.vmf_kernel(rows.shape[-1], kappa)
    return float(information.bounds(kernel, z1, z2, z1, z2)['infonce_bound'])

  chosen = max(_KAPPAS, key=lambda kappa: bound(mu[::2], kappa))
  return bound(mu[1::2], chosen), chosen


def _informations(number, cfg, pairs):
  """I(X;Z|Y) the same way for every method; the method's own; and I(Y;Z).

  The first two are above their value for views that agree.
  """
  mu = unit(pairs['z'])
  dim, cosine = mu.shape[-1], np.sum(mu[:, 0] * mu[:, 1], -1)
  kappas = health.NOISE_KAPPA, health.KAPPA
  rate = distributions.vmf_kl(dim, *kappas, cosine)
  least = distributions.vmf_kl(dim, *kappas, 1.0)
  of = 'vMF of concentrations {:g} and {:g} around both projections'
  own = {'of': of.format(*kappas), 'floor_taken_off': least}
  own['layer'] = 'projection'
  yield _residual(number, 'projections', rate - least, own)
  if 'rate' in pairs:
    own = {'of': f'e and b of the method, {cfg.ceb_distribution}'}
    own['layer'] = 'e and b'
    if cfg.pretrain_loss == 'byol_ceb':
      own['of'] += f', --backward_view={cfg.backward_view}'
    own['floor_taken_off'] = floor(cfg, dim)
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


# Lipschitz bounds ------------------------------------------------------------


def _ratios_of_rate(cfg, pairs):
  """The ratios that the rate alone gives; None where it gives none.

  It does where e and b are one map of each view: C-SimCLR with fixed scales.
  """
  fixed = cfg.ceb_distribution == 'vmf' or cfg.gaussian_scale == 'fixed'
  if cfg.pretrain_loss != 'contrastive_ceb' or not fixed:
    return None
  dim = pairs['z'].shape[-1]
  if cfg.ceb_distribution == 'gaussian':
    sigmas = cfg.sigma_e, cfg.sigma_b
    return lipschitz.of_gaussian(pairs['rate'], dim, *sigmas, pairs['pixels'])
  # Computed again in float64: float32 loses small differences of hundreds of
  # nats.
  mu = unit(pairs['z'])
  kappas = cfg.kappa_e, cfg.kappa_b
  rate = distributions.vmf_kl(dim, *kappas, np.sum(mu[:, 0] * mu[:, 1], -1))
  return lipschitz.of_vmf(rate, dim, *kappas, pairs['pixels'])


def _lipschitz(number, cfg, pairs):
  """Lower bounds on the Lipschitz constant: of the rate, and measured."""
  embeddings = {'representation': 'h', 'projection': 'z', 'mu_e': 'mu_e'}
  ratios_of = {
    name: lipschitz.of_embeddings(
      *np.moveaxis(unit(pairs[key]), 1, 0), pairs['pixels']
    )
    for name, key in embeddings.items()
    if key in pairs
  }
  of_rate = _ratios_of_rate(cfg, pairs)
  if of_rate is not None:
    ratios_of['rate'] = of_rate
  for name, ratios in ratios_of.items():
    summary = lipschitz.summary(ratios)
    histogram = summary.pop('histogram')
    if histogram is None:
      why = 'all pairs of views are the same image twice'
      yield Missing('compression', f'lipschitz/{name}', why)
      continue
    own = {'of': f'{name}, unit rows' if name != 'rate' else 'I(X;Z|Y)'}
    own |= summary
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
        f'lipschitz_{which}/{name}', 'ratio', own, value=summary[which],
        curve=curve if which == 'max' else None,
      )  # fmt: skip


# Health ----------------------------------------------------------------------


def _health(number, pairs):
  """How the rows are spread, as the watch of a training reports it."""
  z1, z2 = np.moveaxis(unit(pairs['z']), 1, 0)
  rows = pairs['h'].reshape(-1, pairs['h'].shape[-1])
  for name, value in health.health_of(rows, z1, z2).items():
    name = name.removeprefix('health/')
    of = 'representation' if name == 'effective_rank' else 'projection'
    own = {'of': f'{of}s of both views', 'layer': of}
    yield number(name, _HEALTH[name], own, value=value)


# Fewer bits ------------------------------------------------------------------


def _bits(subject, splits):
  """Linear classification from fewer dimensions and bits of each."""
  whole, facts = fitted.lbfgs_head(subject, splits)
  train = fitted.lbfgs_rows(subject, splits.train)
  test = splits.test_rows(subject)
  subject.say('Linear classification from fewer bits')

  def fit(features, labels):
    l2 = facts['chosen']['l2']
    head = linear.logistic(features, labels, l2, splits.classes)
    return functools.partial(linear.predict, head)

  rows = bits.curve(
    (train['representation'], train['labels']),
    (test['representation'], test['labels']),
    fit,
    # The row linear/lbfgs is of the same head.
    uncompressed=functools.partial(linear.predict, whole),
  )
  protocol = subject.protocol(
    compressed='first principal components, each in 2^bits cells',
    train_split=splits.train.split, train_images=len(train['labels']),
    chosen=facts['chosen'], solver=facts['solver'],
  )  # fmt: skip
  for row in rows:
    same_dims = [r for r in rows if r['dims'] == row['dims']]
    name = f'{row["dims"]}_numbers_of_{row["bits"]}_bits'
    number = accuracy(
      'compression', name, splits.test, test, row['scores'], protocol
    )
    # One curve for each number of dimensions.
    first = row is same_dims[0]
    yield number._replace(curve=_bits_curve(same_dims) if first else None)


def _bits_curve(rows):
  return {
    'x': [r['bits_per_image'] for r in rows],
    'y': [r['accuracy'] for r in rows],
    'x_label': 'bits an image',
    'y_label': 'top-1',
    'panel': 'linear classification',
    'line': f'{rows[0]["dims"]} numbers',
  }


def suite(subject):
  """Rate, relevant information, Lipschitz bounds, bits against accuracy.

  Only the last needs labels.
  """
  cfg = subject.cfg
  try:
    splits, unlabelled = splits_of(subject), ''
    info = splits.test
  except NoLabels as error:
    info, unlabelled = images_of(subject), str(error)
  if cfg.train_mode == 'finetune':
    yield Missing('compression', '', 'this model was finetuned')
    return
  pairs = _pairs(subject, info)
  images = len(pairs['z'])  # Pairs of views; some rows use fewer.
  views = f'{show(cfg.batch_image_augmentation_type)}, two views'

  def number(name, metric, own, value, low=None, high=None, curve=None, **_):
    # Pairs of views do not depend on the seed.
    own = {'crop': views, 'seed': 0} | own
    protocol = subject.protocol() | own
    used = own.get('pairs', images)
    return Number(
      'compression', name, info.name, info.split, metric,
      float(value), protocol, low, high, used, curve,
    )  # fmt: skip

  yield from _informations(number, cfg, pairs)
  yield from _lipschitz(number, cfg, pairs)
  yield from _health(number, pairs)
  if unlabelled:
    yield Missing('compression', 'accuracy from fewer bits', unlabelled)
  else:
    yield from _bits(subject, splits)
