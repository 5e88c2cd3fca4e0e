"""Contrastive methods: SimCLR, C-SimCLR, CMC, MoCo v2."""

import functools
import math

import tensorflow as tf

import model
import objectives
from cvr.methods.skeletons import Output, Siamese, Teacher, make_ceb
from cvr.numerics import distributions, randomness, replicas, schedules, sums

# The second half of the seed of MoCo's first keys.
_QUEUE_STREAM = 65536


def _contrast_metrics(*directions):
  """The sum of cross entropies, the means of accuracy and entropy."""
  total = sums.total([tf.reduce_mean(d.cross_entropy) for d in directions])
  share = 1.0 / len(directions)
  return {
    'contrast_loss': total,
    'contrast_acc': share * sums.total([d.accuracy for d in directions]),
    'contrast_entropy': share * sums.total([d.entropy for d in directions]),
  }


def _chance(batch, double):
  """Both directions' cross entropy where all candidates look alike."""
  candidates = 2 * batch - 1 if double else batch
  return {'contrast_loss': 2 * math.log(candidates)}


class SimCLR(Siamese):
  """NT-Xent over both views' negatives, the two directions summed."""

  @property
  def double(self):
    """Whether a row's own view gives negatives too."""
    return self.cfg.double_batch_trick

  def chance(self):
    return _chance(self.cfg.train_batch_size, self.double)

  def objective(self, embeddings, step):
    del step
    h1, h2 = embeddings['projection']
    keys1, keys2, offset = self.keys(h1, h2)
    scores = functools.partial(
      distributions.vmf_scores, kappa=1.0 / self.cfg.temperature
    )
    double = self.double
    directions = [
      objectives.contrast(scores, h1, keys2, keys1 if double else None, offset),
      objectives.contrast(scores, h2, keys1, keys2 if double else None, offset),
    ]
    metrics = _contrast_metrics(*directions)
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
      cfg.beta_schedule, cfg.ceb_beta, self.plan.warmup, self.plan.total
    )

  def trained(self):
    return [*super().trained(), self.ceb]

  def location(self, projection):
    return self.ceb.location(projection)

  def chance(self):
    return _chance(self.cfg.train_batch_size, self.cfg.double_batch_trick)

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
    (a1, b1, c1), (a2, b2, c2) = (sums.branches(h, 3) for h in (h1, h2))
    beta, double = self.beta(step), self.cfg.double_batch_trick
    terms = {
      'log_e': self.ceb.log_e,
      'log_b': self.ceb.log_b,
      'scores': self.ceb.scores,
      'beta': beta,
      'offset': offset,
    }
    first = objectives.ceb_contrastive(
      self.sample(a1, step, 1),
      b1,
      c2,
      keys2,
      keys1 if double else None,
      **terms,
    )
    second = objectives.ceb_contrastive(
      self.sample(a2, step, 2),
      b2,
      c1,
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
      'ceb_beta_log': beta,
    }
    features = self.features(embeddings)
    return Output(tf.reduce_mean(first.loss + second.loss), metrics, features)


class CMC(SimCLR):
  """Two networks tell which of their parts belong to one image.

  L = L(1 -> 2) + L(2 -> 1), L(a -> b) the mean over i of
  -log softmax_j(f_a(i) . f_b(j) / tau)[i]: negatives from the other network
  alone (CMC, eq. 2 and 3), here those of the batch instead of a memory's.
  """

  double = False

  def encode(self, views, draw, training=True):
    del draw
    # Two parts of one view, as published; of whole images there have to be two.
    first, second = self.encoder.parts
    h = self.encoder(
      views[0],
      training=training,
      second=views[1] if first == second else None,
    )
    embedded = self.layers_of(h, training)
    rows = tf.split(embedded['projection'], 2, -1)
    return {
      'projection': tuple(self.location(x) for x in rows),
      'probed': self.probed(embedded),
    }

  def features(self, embeddings):
    return tf.stop_gradient(embeddings['probed'])


class MoCo(Teacher):
  """MoCo v2: view 1 finds the twin's view 2 among the keys of earlier steps.

  L = mean_i -log softmax([q_i . k_i, q_i . queue] / tau)[0] (MoCo, eq. 1), one
  way. The queue begins as random directions: in the first K / B steps part of
  the negatives is noise. The published code shuffles images between devices,
  because batch statistics of few images reveal pairs; --global_bn has those of
  the whole batch, in the twin as well.
  """

  def make_heads(self, cfg):
    super().make_heads(cfg)
    shape = [cfg.queue_size, cfg.proj_out_dim]
    rows = randomness.normal(shape, [cfg.seed, _QUEUE_STREAM])
    queue = tf.math.l2_normalize(rows, -1)
    self.queue = replicas.mirrored(queue, 'queue')

  def begin(self):
    # As published, and unlike BYOL's: with a constant coefficient of .999 the
    # keys of the first thousand steps would be those of a random network.
    model.update_ema(*self.twins(), 0.0)

  def chance(self):
    return {'contrast_loss': math.log(1 + self.cfg.queue_size)}

  def encode(self, views, draw, training=True):
    del draw
    online = self.embed(views[0], training)
    return {
      'query': tf.math.l2_normalize(online['projection'], -1),
      'key': self.target(views[1], training),
      'probed': self.probed(online),
    }

  def objective(self, embeddings, step):
    scores = functools.partial(
      distributions.vmf_scores, kappa=1.0 / self.cfg.temperature
    )
    key = embeddings['key']
    contrast = objectives.queue_contrast(
      scores, embeddings['query'], key, self.queue
    )
    metrics = _contrast_metrics(contrast) | {'ema_alpha': self.ema(step)}
    features = tf.stop_gradient(embeddings['probed'])
    return Output(metrics['contrast_loss'], metrics, features, {'key': key})

  def after_update(self, step, carry):
    super().after_update(step, carry)
    keys = replicas.all_gather(carry['key'])
    count = keys.shape[0]  # Divides the queue.
    first = step * count % self.cfg.queue_size
    at = tf.cast(first, tf.int32) + tf.range(count)
    replicas.set_rows(self.queue, at, keys)
