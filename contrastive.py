"""Contrastive methods: SimCLR, C-SimCLR."""

import functools
import math

import tensorflow as tf

import distributions
import objectives
import schedules
from skeletons import Output, Siamese, make_ceb


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
