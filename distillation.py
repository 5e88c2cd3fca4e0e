"""Distillation, towards an EMA twin: BYOL, C-BYOL."""

import tensorflow as tf

import model
import objectives
import schedules
from skeletons import Output, Teacher, head_options, make_ceb


class BYOL(Teacher):
  """Predict the twin's projection of the other view."""

  def make_heads(self, cfg):
    super().make_heads(cfg)
    self.predictor = model.MLP(
      2,
      cfg.proj_head_hidden_dim,
      cfg.proj_out_dim,
      mid_bn=cfg.projector_mid_bn,
      **head_options(cfg),
    )

  def trained(self):
    return [*super().trained(), self.predictor]

  def encode(self, views, step, training=True):
    del step
    online = [self.embed(view, training) for view in views]
    return {
      'projection': [o['projection'] for o in online],
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
      **head_options(cfg),
    )
    self.backward_encoder = model.MLP(
      2, cfg.proj_head_hidden_dim, cfg.proj_out_dim, **head_options(cfg)
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

  def encode(self, views, step, training=True):
    online = [self.embed(view, training) for view in views]
    forward = [
      self.predict(o['projection'], step, salt, training)
      for salt, o in enumerate(online, 1)
    ]
    target = [self.target(view, training) for view in views]
    backward = [
      self.ceb.location(self.backward_encoder(y, training=training)[-1])
      for y in target
    ]
    return {
      'mu': [f['mu'] for f in forward],
      'z': [f['z'] for f in forward],
      'prediction': [f['prediction'] for f in forward],
      'target': target,
      'backward': backward,
      'probed': self.probed(online[0]),
    }

  def objective(self, embeddings, step):
    (z1, z2), (mu1, mu2) = embeddings['z'], embeddings['mu']
    b1, b2 = embeddings['backward']
    if self.cfg.backward_view == 'other':
      b1, b2 = b2, b1
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
