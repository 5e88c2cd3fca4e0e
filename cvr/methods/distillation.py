"""Distillation, towards an EMA twin or oneself: BYOL, C-BYOL, DINO, SimSiam."""

import math

import tensorflow as tf

import model
import objectives
from cvr.methods.skeletons import (
  Method,
  Output,
  Teacher,
  by_resolution,
  head_options,
  make_ceb,
)
from cvr.numerics import replicas, schedules, sums


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

  def encode(self, views, draw, training=True):
    del draw
    online = [self.embed(view, training) for view in views]
    return {
      'projection': [o['projection'] for o in online],
      'prediction': [
        self.predictor(o['projection'], training=training)[-1] for o in online
      ],
      'target': self.targets(views, training),
      'probed': self.probed(online[0]),
    }

  def targets(self, views, training):
    """The twin's projection of each view.

    It sees view 2 first, as in the published code. Its moving statistics alone
    depend on that.
    """
    return [self.target(view, training) for view in views[::-1]][::-1]

  def distances(self, embeddings):
    """[b] ||prediction - other view's target||^2 of view 1, and of view 2."""
    p1, p2 = embeddings['prediction']
    y1, y2 = embeddings['target']
    return (
      objectives.normalized_distance(p1, y2),
      objectives.normalized_distance(p2, y1),
    )

  def regression(self, embeddings, step):
    """-> the weighted sum of both directions, and its metrics."""
    first, second = self.distances(embeddings)
    loss = self.cfg.byol_loss_weight * tf.reduce_mean(first + second)
    return loss, {
      # As published: of view 1 alone, without the weight.
      'byol_loss': tf.reduce_mean(first),
      'contrast_loss': loss,
      'ema_alpha': self.ema(step),
    }

  def objective(self, embeddings, step):
    loss, metrics = self.regression(embeddings, step)
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
      cfg.beta_schedule, cfg.ceb_beta, self.plan.warmup, self.plan.total
    )

  def trained(self):
    return [*super().trained(), self.backward_encoder, self.ceb]

  def predict(self, projection, draw, salt, training):
    """The stochastic predictor's mu, z and prediction for one view."""

    def sample(mu):
      noise = self.noise(draw, salt, mu.shape[0], self.ceb.noise_dim)
      return self.ceb.sample(mu, noise)

    sampling = self.cfg.ceb_sampling and training
    return self.predictor(
      projection, training=training, sample=sample if sampling else None
    )

  def predict_mean(self, projection):
    return self.predictor(projection)['prediction']

  def forward_mean(self, projection):
    """Where a view's e(z|x) lies, at evaluation."""
    return self.predictor(projection)['mu']

  def backward(self, target, training):
    """A view's target -> where its b(z|y) lies."""
    y = self.backward_encoder(target, training=training)[-1]
    return self.ceb.location(y)

  def ordered(self, backward):
    """What the z of view 1 and that of view 2 are compared with."""
    return backward[::-1] if self.cfg.backward_view == 'other' else backward

  def rate(self, embedded, views):
    """[b] I(X;Z|Y), the mean of both directions."""
    mu1, mu2 = (self.forward_mean(e['projection']) for e in embedded)
    b1, b2 = self.ordered(
      [self.backward(self.target(view, False), False) for view in views]
    )
    return (self.ceb.rate(mu1, b1) + self.ceb.rate(mu2, b2)) / 2

  def encode(self, views, draw, training=True):
    online = [self.embed(view, training) for view in views]
    forward = [
      self.predict(o['projection'], draw, salt, training)
      for salt, o in enumerate(online, 1)
    ]
    target = self.targets(views, training)
    return {
      'mu': [f['mu'] for f in forward],
      'z': [f['z'] for f in forward],
      'prediction': [f['prediction'] for f in forward],
      'target': target,
      'backward': [self.backward(y, training) for y in target],
      'probed': self.probed(online[0]),
    }

  def objective(self, embeddings, step):
    (z1, z2), (mu1, mu2) = map(sums.joint, embeddings['z']), embeddings['mu']
    b1, b2 = self.ordered(embeddings['backward'])
    log_e = [self.ceb.log_e(z1, mu1), self.ceb.log_e(z2, mu2)]
    log_b = [self.ceb.log_b(z1, b1), self.ceb.log_b(z2, b2)]
    rate = [tf.reduce_mean(e - b) for e, b in zip(log_e, log_b, strict=True)]
    regression, metrics = self.regression(embeddings, step)
    beta = self.beta(step)
    metrics |= {
      'ceb_beta_log': beta,
      'i_xzx_y': rate[0],
      'i_yzy_x': rate[1],
      'h_e_zx_x': -tf.reduce_mean(log_e[0]),
      'h_b_zx_y': -tf.reduce_mean(log_b[0]),
    }
    features = tf.stop_gradient(embeddings['probed'])
    return Output(regression + beta * sums.total(rate), metrics, features)


class DINO(Teacher):
  """Say of every crop what the twin says of another, global one (DINO).

  Over K outputs, P = softmax((g'(v) - C) / tau') of the twin, a global crop v,
  and Q = softmax(g(w) / tau) of the student, another crop w of the image:
  L = mean over the pairs v != w of -sum_k P_k log Q_k (eq. 3). tau' < tau
  sharpens; C <- m C + (1 - m) mean g'(v), over all rows and after the loss
  (eq. 4), keeps one output from winning. The twin starts as a copy of the
  student, as in the paper's algorithm 1: what its outputs stand for, which
  nothing else names, is then the same.

  g: the projector, onto the sphere, then cosines with --num_prototypes unit
  vectors. Unlike BYOL's, the crops of one resolution are one batch.
  """

  def make_heads(self, cfg):
    super().make_heads(cfg)
    self.prototypes = model.Prototypes(cfg.num_prototypes)
    self.target_prototypes = model.Prototypes(cfg.num_prototypes)
    self.centre = replicas.mirrored(tf.zeros([cfg.num_prototypes]), 'centre')
    # A model that is only read does not know its steps, nor need them.
    images = cfg.teacher_temperature_warmup_epochs * (self.plan.examples or 0)
    self.teacher_temperature = schedules.linear(
      cfg.teacher_temperature_start,
      cfg.teacher_temperature,
      round(images // cfg.train_batch_size),
    )

  def begin(self):
    model.update_ema(*self.twins(), 0.0)

  def twins(self):
    online, target = super().twins()
    return [*online, self.prototypes], [*target, self.target_prototypes]

  def trained(self):
    return [*super().trained(), self.prototypes]

  def held(self, step):
    steps = self.cfg.freeze_prototypes_steps
    return [(self.prototypes, step < steps)] if steps else []

  def encode(self, views, draw, training=True):
    del draw

    def student(images):
      embedded = self.embed(images, training)
      z = model.l2_normalize(embedded['projection'])
      return self.prototypes(z), self.probed(embedded)

    def teacher(images):
      logits = self.target_prototypes(self.target(images, training))
      return tf.stop_gradient(logits)

    online = by_resolution(student, views)
    return {
      'student': [logits for logits, _ in online],
      'teacher': by_resolution(teacher, views[:2]),
      'probed': online[0][1],
    }

  def chance(self):
    outputs = math.log(self.cfg.num_prototypes)
    return {'dino_loss': outputs, 'teacher_entropy': outputs}

  def probabilities(self, projection):
    """[b, d] -> what the student says, [b, K]."""
    logits = self.prototypes(model.l2_normalize(projection))
    return tf.nn.softmax(logits / self.cfg.temperature)

  def teacher_probabilities(self, logits, step):
    """What the student is to say: logits [b, K] -> probabilities [b, K]."""
    temperature = self.teacher_temperature(step)
    return objectives.sharpened(logits, self.centre, temperature)

  def cross_entropy(self, embeddings, step):
    """From the twin's global crops to the student's others -> [b]."""
    return objectives.dino_cross_entropy(
      embeddings['student'],
      embeddings['teacher'],
      self.centre,
      self.cfg.temperature,
      self.teacher_temperature(step),
    )

  def objective(self, embeddings, step):
    loss = tf.reduce_mean(self.cross_entropy(embeddings, step))
    logits = tf.concat(embeddings['teacher'], 0)
    p = self.teacher_probabilities(logits, step)
    entropy = -tf.reduce_mean(tf.reduce_sum(tf.math.xlogy(p, p), -1))
    metrics = {
      'dino_loss': loss,
      'teacher_entropy': entropy,
      # Every global crop is in as many pairs.
      'teacher_student_kl': loss - entropy,
      'teacher_temperature': self.teacher_temperature(step),
      'ema_alpha': self.ema(step),
    }
    carry = {'logits': tf.reduce_mean(logits, 0, keepdims=True)}
    features = tf.stop_gradient(embeddings['probed'])
    return Output(loss, metrics, features, carry)

  def move_centre(self, mean):
    """mean [K]: of the twin's logits, before any centring."""
    momentum = self.cfg.centre_momentum
    self.centre.assign(momentum * self.centre + (1.0 - momentum) * mean)

  def after_update(self, step, carry):
    super().after_update(step, carry)
    if self.plan.centres:
      mean = tf.reduce_mean(carry['logits'], 0)  # of the chunks' means
      total = replicas.cross_replica_sum(mean)
      self.move_centre(total / replicas.num_replicas())


def spread(z):
  """The deviation of l2n(z) [b, d] in a coordinate, times sqrt(d) -> [].

  Over the rows of all replicas. 0 where all are one, 1 where directions are
  evenly spread (SimSiam, fig. 2).
  """
  z = model.l2_normalize(z)
  total = z.shape[0] * replicas.num_replicas()

  def mean(rows):
    return replicas.cross_replica_sum(tf.reduce_sum(rows, 0)) / total

  deviation = tf.sqrt(mean(tf.square(z - mean(z))))  # [d]
  return math.sqrt(z.shape[1]) * tf.reduce_mean(deviation)


class SimSiam(Method):
  """Predict one's own projection of the other view, which stands still.

  L = (D(p1, z2) + D(p2, z1)) / 2, D(p, z) = -cos(p, stop-gradient(z)), p the
  prediction and z the projection of a view (SimSiam, eq. 1 to 4). BYOL whose
  twin is oneself: -log vMF(z2; p1, kappa) but for constants, and nothing that
  keeps the entropy up beside the predictor and batch normalisation, also on
  the projection (--proj_head_output_bn).
  """

  def make_heads(self, cfg):
    self.predictor = model.MLP(
      2,
      cfg.predictor_hidden_dim,
      self.projected_dim,
      mid_bn=cfg.projector_mid_bn,
      **head_options(cfg),
    )

  def trained(self):
    return [*super().trained(), self.predictor]

  def steady(self):
    return [self.predictor] if self.cfg.constant_predictor_rate else []

  def encode(self, views, draw, training=True):
    del draw
    online = [self.embed(view, training) for view in views]
    projection = [o['projection'] for o in online]
    return {
      'projection': projection,
      'prediction': [
        self.predictor(z, training=training)[-1] for z in projection
      ],
      'probed': self.probed(online[0]),
    }

  def objective(self, embeddings, step):
    del step
    z = embeddings['projection']
    loss = tf.reduce_mean(objectives.simsiam(embeddings['prediction'], z))
    metrics = {'simsiam_loss': loss, 'output_std': spread(tf.concat(z, 0))}
    return Output(loss, metrics, tf.stop_gradient(embeddings['probed']))

  def predict_mean(self, projection):
    """The prediction at evaluation."""
    return self.predictor(projection)[-1]
