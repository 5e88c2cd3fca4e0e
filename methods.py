"""METHODS: what each way of learning does with a batch of views.

A method is a row of the table at the end: a small class that says how its
parts are wired, on one of two skeletons. Siamese: one encoder, the views
concatenated. Teacher: an online encoder and its EMA twin, view by view. What
train.py asks of a method:

  encode(views, step) -> named embeddings, a row for every pair of views
  objective(embeddings, step) -> Output(loss, metrics, features)
  trained() -> the layers that get gradients
  after_update(step): what moves without gradients (EMA twins, queues, centres)
  embed(images) -> {'representation', 'projection', 'layers'} at evaluation
  predict_mean(projection) -> the prediction, of methods that have one
  chance() -> {name of a metric: its value where nothing is told apart}
  rate(embedded, views) -> I(X;Z|Y) [b], of methods that have encoders e and b
  probabilities(projection) -> [b, ..., K], of methods that assign rows

Two calls for the loss, because whoever re-uses embeddings needs them apart.
"""

import functools
import math
from typing import NamedTuple

import tensorflow as tf

import config
import distributed
import distributions
import model
import objectives
import randomness
import schedules
from resnet import ResNet


class Output(NamedTuple):
  """loss: [] of the local rows; metrics: flat; features: for the probe."""

  loss: tf.Tensor
  metrics: dict
  features: tf.Tensor


def make_encoder(cfg):
  """The backbone that the configuration describes."""
  return ResNet(
    cfg.resnet_depth,
    cfg.width_multiplier,
    stem=config.stem(cfg),
    sk_ratio=cfg.sk_ratio,
    se_ratio=cfg.se_ratio,
    bn_decay=cfg.batch_norm_decay,
    sync_bn=cfg.global_bn,
  )


def make_projector(cfg):
  """The projection head: none, linear or an MLP."""
  layers = {'none': 0, 'linear': 1, 'nonlinear': cfg.num_proj_layers}
  return model.MLP(
    layers[cfg.proj_head_mode],
    cfg.proj_head_hidden_dim,
    cfg.proj_out_dim,
    output_bn=cfg.proj_head_output_bn,
    **_head_options(cfg),
  )


def _head_options(cfg):
  return {
    'init': cfg.mlp_init,
    'bn_decay': cfg.batch_norm_decay,
    'sync_bn': cfg.global_bn,
  }


def make_ceb(cfg, dim):
  """The distributions e(z|x) and b(z|y) of a CEB method."""
  if cfg.ceb_distribution == 'vmf':
    return model.VmfCeb(dim, cfg.kappa_e, cfg.kappa_b)
  learned = cfg.gaussian_scale == 'learned'
  return model.GaussianCeb(dim, cfg.sigma_e, cfg.sigma_b, learned)


class Method(tf.Module):
  """What all methods share: an encoder, a projector, a probe's layer."""

  def __init__(self, cfg, warmup_steps, total_steps):
    super().__init__()
    self.cfg = cfg
    self.steps = (warmup_steps, total_steps)
    self.encoder = make_encoder(cfg)
    self.projector = make_projector(cfg)
    self.make_heads(cfg)

  @property
  def projected_dim(self):
    """The width of the projection, which may be the representation itself."""
    if self.cfg.proj_head_mode == 'none':
      return self.encoder.representation_dim
    return self.cfg.proj_out_dim

  def make_heads(self, cfg):
    """Builds what the method has beyond encoder and projector."""

  def embed(self, images, training=False):
    """[b, H, W, 3] -> the representation and the projector's layers."""
    h = self.encoder(images, training=training)
    return self.layers_of(h, training)

  def layers_of(self, h, training):
    """h itself first: the projector saw it in its compute precision."""
    layers = [h, *self.projector(h, training=training)[1:]]
    return {'representation': h, 'projection': layers[-1], 'layers': layers}

  def probed(self, embedded):
    """The layer that the linear probe reads: 0 is the representation."""
    return embedded['layers'][self.cfg.ft_proj_selector]

  def trained(self):
    """The layers that get gradients, each once."""
    return [self.encoder, self.projector]

  def after_update(self, step):
    """Moves what gradients do not move; step is the one just taken."""

  def chance(self):
    """{metric: its value where no image is told from another}, in nats."""
    return {}

  def build(self, image_size):
    """Creates every variable, by one step on black images."""
    views = [tf.zeros([2, image_size, image_size, 3])] * 2
    self.encode(views, tf.constant(0, tf.int64), training=False)

  def noise(self, step, salt, rows, width):
    """[rows, width] standard normals for this replica's rows of a view."""
    seed = tf.stack([self.cfg.seed * 1009 + salt, tf.cast(step, tf.int32)])
    return distributed.local_rows(
      randomness.normal([rows * distributed.num_replicas(), width], seed)
    )


class Siamese(Method):
  """One encoder for all views, which it sees as one batch."""

  def encode(self, views, step, training=True):
    del step
    embedded = self.embed(tf.concat(views, 0), training)
    h1, h2 = tf.split(self.location(embedded['projection']), 2)
    # Each view's rows apart: what is cut into chunks stays in order.
    probed = tf.split(self.probed(embedded), 2)
    return {'projection': (h1, h2), 'probed': tuple(probed)}

  def features(self, embeddings):
    """What the probe reads, of both views, without gradient."""
    return tf.stop_gradient(tf.concat(embeddings['probed'], 0))

  def location(self, projection):
    """A projection -> where on the sphere (or in space) its view lies."""
    return tf.math.l2_normalize(projection, -1)

  def keys(self, h1, h2):
    """Every replica's rows of both views, and where the local ones begin."""
    offset = distributed.replica_id() * h1.shape[0]
    return distributed.all_gather(h1), distributed.all_gather(h2), offset


def _contrast_metrics(*directions):
  """The sum of cross entropies, the means of accuracy and entropy."""
  total = tf.add_n([tf.reduce_mean(d.cross_entropy) for d in directions])
  share = 1.0 / len(directions)
  return {
    'contrast_loss': total,
    'contrast_acc': share * tf.add_n([d.accuracy for d in directions]),
    'contrast_entropy': share * tf.add_n([d.entropy for d in directions]),
  }


def _chance(cfg):
  """Both directions' cross entropy where all candidates look alike."""
  batch = cfg.train_batch_size
  candidates = 2 * batch - 1 if cfg.double_batch_trick else batch
  return {'contrast_loss': 2 * math.log(candidates)}


class SimCLR(Siamese):
  """NT-Xent over both views' negatives, the two directions summed."""

  def chance(self):
    return _chance(self.cfg)

  def objective(self, embeddings, step):
    del step
    h1, h2 = embeddings['projection']
    keys1, keys2, offset = self.keys(h1, h2)
    scores = functools.partial(
      distributions.vmf_scores, kappa=1.0 / self.cfg.temperature
    )
    double = self.cfg.double_batch_trick
    found = [
      objectives.contrast(scores, h1, keys2, keys1 if double else None, offset),
      objectives.contrast(scores, h2, keys1, keys2 if double else None, offset),
    ]
    metrics = _contrast_metrics(*found)
    features = self.features(embeddings)
    return Output(metrics['contrast_loss'], metrics, features)


class CSimCLR(Siamese):
  """SimCLR with the conditional entropy bottleneck (CVR, spec of 1.3).

  e(z|x) and b(z|y) share their location, the projection: no new parameters
  (but the scales of a learned Gaussian).
  """

  def make_heads(self, cfg):
    self.ceb = make_ceb(cfg, self.projected_dim)
    self.beta = schedules.beta_schedule(
      cfg.beta_schedule, cfg.ceb_beta, *self.steps
    )

  def trained(self):
    return [*super().trained(), self.ceb]

  def location(self, projection):
    return self.ceb.location(projection)

  def chance(self):
    return _chance(self.cfg)

  def rate(self, embedded, views):
    """[b] I(X;Z|Y), the mean of both directions."""
    del views
    h1, h2 = (self.location(e['projection']) for e in embedded)
    return (self.ceb.rate(h1, h2) + self.ceb.rate(h2, h1)) / 2

  def sample(self, mu, step, salt):
    """z ~ e(z|x), or its mean when sampling is off."""
    if not self.cfg.ceb_sampling:
      return mu
    noise = self.noise(step, salt, mu.shape[0], self.ceb.noise_dim)
    return self.ceb.sample(mu, noise)

  def objective(self, embeddings, step):
    h1, h2 = embeddings['projection']
    keys1, keys2, offset = self.keys(h1, h2)
    beta, double = self.beta(step), self.cfg.double_batch_trick
    terms = {
      'log_e': self.ceb.log_e,
      'log_b': self.ceb.log_b,
      'scores': self.ceb.scores,
      'beta': beta,
      'offset': offset,
    }
    first = objectives.ceb_contrastive(
      self.sample(h1, step, 1),
      h1,
      h2,
      keys2,
      keys1 if double else None,
      **terms,
    )
    second = objectives.ceb_contrastive(
      self.sample(h2, step, 2),
      h2,
      h1,
      keys1,
      keys2 if double else None,
      **terms,
    )
    metrics = _contrast_metrics(first.contrast, second.contrast)
    metrics |= {
      'i_xzx_y': tf.reduce_mean(first.rate),
      'i_yzy_x': tf.reduce_mean(second.rate),
      'i_y_zx': tf.reduce_mean(first.relevant),
      'i_x_zy': tf.reduce_mean(second.relevant),
      'h_e_zx_x': -tf.reduce_mean(first.log_e),
      'h_b_zx_y': -tf.reduce_mean(first.log_b),
      'ceb_beta': beta,
    }
    features = self.features(embeddings)
    return Output(tf.reduce_mean(first.loss + second.loss), metrics, features)


class Teacher(Method):
  """An online encoder and its EMA twin, each seeing one view at a time."""

  def make_heads(self, cfg):
    # The twin starts from its own random weights, as published, and stays out
    # of trained(): trainable=False would freeze its batch statistics too.
    self.target_encoder = make_encoder(cfg)
    self.target_projector = make_projector(cfg)
    self.ema = schedules.ema_ramp(cfg.ema_alpha, self.steps[1])

  def target(self, view, training):
    """The twin's normalised projection of a view, without gradient."""
    h = self.target_encoder(view, training=training)
    y = self.target_projector(h, training=training)[-1]
    return tf.stop_gradient(tf.math.l2_normalize(y, -1))

  def after_update(self, step):
    model.update_ema(
      [self.encoder, self.projector],
      [self.target_encoder, self.target_projector],
      self.ema(step),
    )


class BYOL(Teacher):
  """Predict the twin's projection of the other view."""

  def make_heads(self, cfg):
    super().make_heads(cfg)
    self.predictor = model.MLP(
      2,
      cfg.proj_head_hidden_dim,
      cfg.proj_out_dim,
      mid_bn=cfg.projector_mid_bn,
      **_head_options(cfg),
    )

  def trained(self):
    return [*super().trained(), self.predictor]

  def encode(self, views, step, training=True):
    del step
    online = [self.embed(view, training) for view in views]
    return {
      'prediction': [
        self.predictor(o['projection'], training=training)[-1] for o in online
      ],
      'target': [self.target(view, training) for view in views],
      'probed': self.probed(online[0]),
    }

  def distance(self, embeddings):
    """Sum over the two orders of ||prediction - other view's target||^2."""
    p1, p2 = embeddings['prediction']
    y1, y2 = embeddings['target']
    return tf.reduce_mean(
      objectives.normalized_distance(p1, y2)
      + objectives.normalized_distance(p2, y1)
    )

  def objective(self, embeddings, step):
    loss = self.cfg.byol_loss_weight * self.distance(embeddings)
    metrics = {'byol_loss': loss, 'ema_alpha': self.ema(step)}
    return Output(loss, metrics, tf.stop_gradient(embeddings['probed']))

  def predict_mean(self, projection):
    """The prediction at evaluation, without noise."""
    return self.predictor(projection)[-1]


class CBYOL(BYOL):
  """BYOL with the conditional entropy bottleneck (CVR, spec of 1.7).

  The predictor becomes e(z|x) and the decoder d(y|z), and a second MLP on the
  target is the backward encoder b(z|y), trained by the rate alone.
  """

  def make_heads(self, cfg):
    Teacher.make_heads(self, cfg)
    self.ceb = make_ceb(cfg, cfg.proj_out_dim)
    self.predictor = model.StochasticHead(
      cfg.proj_head_hidden_dim,
      cfg.proj_out_dim,
      location=self.ceb.location,
      mid_bn=cfg.projector_mid_bn,
      **_head_options(cfg),
    )
    self.backward_encoder = model.MLP(
      2, cfg.proj_head_hidden_dim, cfg.proj_out_dim, **_head_options(cfg)
    )
    self.beta = schedules.beta_schedule(
      cfg.beta_schedule, cfg.ceb_beta, *self.steps
    )

  def trained(self):
    return [*super().trained(), self.backward_encoder, self.ceb]

  def predict(self, projection, step, salt, training):
    """The stochastic predictor's mu, z and prediction for one view."""

    def sample(mu):
      noise = self.noise(step, salt, mu.shape[0], self.ceb.noise_dim)
      return self.ceb.sample(mu, noise)

    sampling = self.cfg.ceb_sampling and training
    return self.predictor(
      projection, training=training, sample=sample if sampling else None
    )

  def predict_mean(self, projection):
    return self.predictor(projection)['prediction']

  def backward(self, target, training):
    """A view's target -> where its b(z|y) lies."""
    y = self.backward_encoder(target, training=training)[-1]
    return self.ceb.location(y)

  def ordered(self, backward):
    """What the z of view 1 and that of view 2 are compared with."""
    return backward[::-1] if self.cfg.backward_view == 'other' else backward

  def rate(self, embedded, views):
    """[b] I(X;Z|Y), the mean of both directions."""
    mu1, mu2 = (self.predictor(e['projection'])['mu'] for e in embedded)
    b1, b2 = self.ordered(
      [self.backward(self.target(view, False), False) for view in views]
    )
    return (self.ceb.rate(mu1, b1) + self.ceb.rate(mu2, b2)) / 2

  def encode(self, views, step, training=True):
    online = [self.embed(view, training) for view in views]
    forward = [
      self.predict(o['projection'], step, salt, training)
      for salt, o in enumerate(online, 1)
    ]
    target = [self.target(view, training) for view in views]
    return {
      'mu': [f['mu'] for f in forward],
      'z': [f['z'] for f in forward],
      'prediction': [f['prediction'] for f in forward],
      'target': target,
      'backward': [self.backward(y, training) for y in target],
      'probed': self.probed(online[0]),
    }

  def objective(self, embeddings, step):
    (z1, z2), (mu1, mu2) = embeddings['z'], embeddings['mu']
    b1, b2 = self.ordered(embeddings['backward'])
    log_e = [self.ceb.log_e(z1, mu1), self.ceb.log_e(z2, mu2)]
    log_b = [self.ceb.log_b(z1, b1), self.ceb.log_b(z2, b2)]
    rate = [tf.reduce_mean(e - b) for e, b in zip(log_e, log_b, strict=True)]
    regression = self.cfg.byol_loss_weight * self.distance(embeddings)
    beta = self.beta(step)
    metrics = {
      'byol_loss': regression,
      'ema_alpha': self.ema(step),
      'ceb_beta': beta,
      'i_xzx_y': rate[0],
      'i_yzy_x': rate[1],
      'h_e_zx_x': -tf.reduce_mean(log_e[0]),
      'h_b_zx_y': -tf.reduce_mean(log_b[0]),
    }
    features = tf.stop_gradient(embeddings['probed'])
    return Output(regression + beta * tf.add_n(rate), metrics, features)


class Finetune(Method):
  """Train the encoder, from a block on, under the labels' loss alone."""

  @property
  def frozen(self):
    """How many of the encoder's stages (the stem, four groups) are frozen."""
    return self.cfg.fine_tune_after_block + 1

  def embed(self, images, training=False):
    h = self.encoder(images, training=training, frozen=self.frozen)
    # A frozen backbone is an encoder at evaluation, its heads included.
    return self.layers_of(h, training and self.frozen < 5)

  def trained(self):
    if self.frozen >= 5:
      return []
    used = self.cfg.ft_proj_selector % (len(self.projector.layers_out) + 1)
    return [
      *self.encoder.stages[self.frozen :],
      *self.projector.layers_out[:used],
    ]

  def encode(self, views, step, training=True):
    del step
    return {'probed': self.probed(self.embed(views[0], training))}

  def objective(self, embeddings, step):
    del step
    return Output(tf.constant(0.0), {}, embeddings['probed'])


METHODS = {
  'contrastive': SimCLR,
  'contrastive_ceb': CSimCLR,
  'byol': BYOL,
  'byol_ceb': CBYOL,
}


def make_method(cfg, warmup_steps, total_steps):
  """The method of a run, its variables built. Call it inside the scope."""
  kind = METHODS[cfg.pretrain_loss]
  if cfg.train_mode == 'finetune':
    kind = Finetune
  method = kind(cfg, warmup_steps, total_steps)
  method.build(cfg.image_size)
  return method
