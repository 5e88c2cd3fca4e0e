"""ER as the objective: on SimCLR, BYOL, DINO, and its first forms, EntRec.

All of them minimise reconstruction - entropy, both in nats and of weight one,
averaged over the two branches (ER, eq. 1; docs/methods.md derives them).
"""

import math

import tensorflow as tf

from cvr.methods.distillation import BYOL, DINO
from cvr.methods.skeletons import Output, Siamese
from cvr.numerics import information, replicas, sums


def _estimator(cfg):
  if cfg.er_estimator == 'joe':
    return information.joe
  return information.plug_in(replicas.all_gather)


def _batch_means(probabilities):
  """A list of [b, c] -> their means [c] over the rows of all replicas."""
  means = [tf.reduce_mean(p, 0) for p in probabilities]
  share = 1.0 / replicas.num_replicas()
  return [share * mean for mean in replicas.cross_replica_sum(means)]


def _metrics(bound):
  return {
    'er_entropy': bound.entropy,
    'er_reconstruction': bound.reconstruction,
    'er_bound': -bound.loss,
  }


class ERSimCLR(Siamese):
  """SimCLR whose NT-Xent is replaced by ER on the sphere (ER, 4.1).

  Unlike NT-Xent's denominator the density is of one view's own rows, themselves
  included as published, and gradients flow into both terms of both branches.
  """

  def kernels(self, dim):
    """Of the entropy, and of the reconstruction."""
    vmf = information.vmf_kernel(dim, self.cfg.er_kappa)
    return vmf, vmf

  @property
  def estimator(self):
    return _estimator(self.cfg)

  def objective(self, embeddings, step):
    del step
    h1, h2 = embeddings['projection']
    keys1, keys2, offset = self.keys(h1, h2)
    density, decoder = self.kernels(h1.shape[1])
    bound = information.er_symmetric(
      density,
      h1,
      h2,
      keys1,
      keys2,
      offset=offset,
      leave_one_out=self.cfg.er_leave_one_out,
      estimator=self.estimator,
      reconstruction_kernel=decoder,
    )
    return Output(bound.loss, _metrics(bound), self.features(embeddings))


class EntRecCont(ERSimCLR):
  """EntRec's continuous form (EntRec, eq. 4): Joe's estimator, kernels in R^d.

  Their width is that of the vMF of concentration er_kappa, and er_alpha is the
  exponent of the reconstruction: 2 has the gradients of er_simclr by Joe, any
  other the alignment and uniformity of Wang and Isola.
  """

  estimator = staticmethod(information.joe)

  def kernels(self, dim):
    width = math.sqrt(2 / self.cfg.er_kappa)
    return (
      information.gaussian_kernel(dim, width),
      information.gaussian_kernel(dim, width, self.cfg.er_alpha),
    )


class EntRecDisc(Siamese):
  """EntRec's discrete form (EntRec, eq. 7): the projection holds logits.

  H(W) of the batch's mean probabilities less the cross entropies between the
  views, both ways, no temperature, no centring, no stopped gradient.
  """

  def location(self, projection):
    return tf.nn.log_softmax(projection)

  def probabilities(self, projection):
    return tf.nn.softmax(projection)

  def objective(self, embeddings, step):
    del step
    log_p1, log_p2 = embeddings['projection']
    means = _batch_means([tf.exp(log_p1), tf.exp(log_p2)])
    bound = information.er_discrete_symmetric(log_p1, log_p2, *means)
    return Output(bound.loss, _metrics(bound), self.features(embeddings))


class ERBYOL(BYOL):
  """BYOL with the entropy that its twin else has to keep (ER, 4.2).

  The twin gets no gradient, so the entropy is of the online network's rows, by
  default of the projections, which is what the moving average copies; the
  reconstruction, vMF(twin; prediction, er_kappa), is affine in BYOL's loss.
  """

  def objective(self, embeddings, step):
    cfg = self.cfg
    z, p, y = (
      [tf.math.l2_normalize(sums.joint(x), -1) for x in embeddings[name]]
      for name in (cfg.er_entropy_of, 'prediction', 'target')
    )
    kernel = information.vmf_kernel(z[0].shape[1], cfg.er_kappa)
    bound = information.average(
      *(
        information.er(
          kernel,
          z[view],
          replicas.all_gather(z[view]),
          p[view],
          y[1 - view],
          offset=replicas.replica_id() * z[view].shape[0],
          leave_one_out=cfg.er_leave_one_out,
          estimator=_estimator(cfg),
        )
        for view in (0, 1)
      )
    )
    metrics = _metrics(bound) | {
      'byol_loss': tf.reduce_mean(self.distances(embeddings)[0]),
      'ema_alpha': self.ema(step),
    }
    return Output(bound.loss, metrics, tf.stop_gradient(embeddings['probed']))


class ERDINO(DINO):
  """DINO with the entropy that its centring else has to keep (ER, 4.2).

  H(W) of the mean, over the batch, of what the student says of the two global
  crops, from which it reaches the twin; no centring, unless it is asked for.
  """

  def objective(self, embeddings, step):
    plain = super().objective(embeddings, step)
    student = [
      tf.nn.softmax(logits / self.cfg.temperature)
      for logits in embeddings['student'][:2]
    ]
    bound = information.er_discrete(plain.loss, _batch_means(student))
    return plain._replace(
      loss=bound.loss, metrics=plain.metrics | _metrics(bound)
    )
