"""Stochastic contrastive learning: SimCLR with a latent in one branch."""

import tensorflow as tf

from cvr.methods import latents
from cvr.methods.contrastive import SimCLR
from cvr.methods.skeletons import head_options
from cvr.numerics import schedules


def make_latent(cfg, width):
  """What the method puts between a representation of a width and the head."""
  if cfg.pretrain_loss == 'stochcon_bernoulli':
    return latents.BernoulliLatent(
      cfg.latent_dim,
      width,
      top_k=cfg.latent_top_k,
      relaxed=cfg.latent_estimator == 'relaxed',
      **head_options(cfg),
    )
  return latents.GaussianLatent(
    cfg.latent_dim,
    width,
    variance=cfg.latent_variance,
    per_dim=cfg.latent_scale == 'per_dim',
    std=cfg.latent_std,
    **head_options(cfg),
  )


class WithLatent:
  """A latent on the representation: what a Method needs to read and draw it."""

  def make_heads(self, cfg):
    self.latent = make_latent(cfg, self.encoder.representation_dim)
    self.latent_temperature = schedules.exponential(
      cfg.latent_temperature, cfg.latent_temperature_end, self.plan.total
    )

  def read_latent(self, h, training=False):
    """A representation -> the parameters of its latent, and its mean code."""
    phi = self.latent.parameters(h, training)
    return {'phi': phi, 'code': self.latent.code(phi)}

  def layers_of(self, h, training):
    return super().layers_of(h, training) | self.read_latent(h, training)

  def sample_latent(self, phi, draw):
    """z [b, dim] of this replica's rows, the same for any number of them."""
    latent = self.latent
    rows = tf.nest.flatten(phi)[0].shape[0]
    noise = self.noise(draw, 1, rows, latent.dim, latent.draw)
    temperature = self.latent_temperature(self.step_of(draw))
    return latent.sample(phi, noise, temperature)


class StochCon(WithLatent, SimCLR):
  """View 2 goes through a latent before the head, view 1 does not (StochCon).

  v = g(h), v' = g(rho(z')), z' ~ q(z|pi(h')): NT-Xent of v and v', the two
  directions summed. The head g is one, and sees both branches as one batch, as
  SimCLR's does. No prior's term is published: --latent_kl_weight.
  """

  def trained(self):
    return [*super().trained(), self.latent]

  def encode(self, views, draw, training=True):
    h = self.encoder(tf.concat(views, 0), training=training)
    embedded = self.read_latent(h, training)
    first, second = _halves(embedded['phi'])
    phi = self.latent.of_pair(own=second, other=first)
    z = self.sample_latent(phi, draw) if training else self.latent.code(phi)
    up = self.latent.up(z, training)
    both = tf.concat([tf.cast(_halves(h)[0], up.dtype), up], 0)
    # Of SimCLR: the latent is read already.
    embedded |= SimCLR.layers_of(self, both, training)
    # The probe's layer 0 is of both views what it is at evaluation.
    embedded['layers'] = [h, *embedded['layers'][1:]]
    return {
      'projection': _halves(self.location(embedded['projection'])),
      'probed': _halves(self.probed(embedded)),
      'report': self.latent.report(phi, z),
    }

  def objective(self, embeddings, step):
    output = super().objective(embeddings, step)
    report = {k: tf.reduce_mean(v) for k, v in embeddings['report'].items()}
    report['latent_temperature'] = self.latent_temperature(step)
    loss, weight = output.loss, self.cfg.latent_kl_weight
    if weight:
      loss += weight * report['latent_kl']
    return output._replace(loss=loss, metrics=output.metrics | report)


def _halves(x):
  """Rows of both views, in any structure -> (of view 1, of view 2)."""
  parts = [tf.split(rows, 2) for rows in tf.nest.flatten(x)]
  return tuple(
    tf.nest.pack_sequence_as(x, half) for half in zip(*parts, strict=True)
  )
