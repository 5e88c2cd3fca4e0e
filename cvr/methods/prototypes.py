"""Predictions of which prototype an image is assigned to: SwAV, DeepCluster-v2.

Both take two global crops, from which assignments come, and any number of local
ones. The reconstruction is that of a discrete W: q(w|z) = softmax(C z / tau).
"""

import math

import tensorflow as tf

import model
import objectives
from cvr.configs.settings import refuse
from cvr.methods.skeletons import Output, Siamese, by_resolution
from cvr.numerics import clustering, randomness, replicas, sums


class _Crops(Siamese):
  """Crops of two sizes; the projector sees all of them as one batch."""

  def encode(self, views, draw, training=True):
    del draw
    representations = by_resolution(
      lambda x: self.encoder(x, training=training), views
    )
    embedded = self.layers_of(tf.concat(representations, 0), training)
    z = self.location(embedded['projection'])
    probed = tf.split(self.probed(embedded), len(views))
    return {'projection': tf.split(z, len(views)), 'probed': probed[:2]}


class SwAV(_Crops):
  """Swapped prediction of codes (Caron et al., 2020, eqs. 1 to 5).

  Codes are what Sinkhorn makes of the scores c_k . z of a global crop and of
  the queue's embeddings, rows of all replicas: prototypes in equal use, so that
  H(W) stays near log K. Each crop predicts those of the global crops but its
  own: loss = -mean over pairs i != j of q_i . log softmax(C z_j / tau).
  """

  def make_heads(self, cfg):
    self.prototypes = model.Prototypes(cfg.num_prototypes)
    # Embeddings of the global crops of earlier steps, the newest first.
    queue = tf.zeros([cfg.queue_size, 2, self.projected_dim])
    self.queue = replicas.mirrored(queue, 'queue')

  def trained(self):
    return [*super().trained(), self.prototypes]

  def _frozen(self, step):
    return step < self.cfg.freeze_prototypes_steps

  def held(self, step):
    return [(self.prototypes, self._frozen(step))]

  def encode(self, views, draw, training=True):
    embeddings = super().encode(views, draw, training)
    return embeddings | {
      'scores': [self.prototypes(z) for z in embeddings['projection']]
    }

  def chance(self):
    return {'swav_loss': math.log(self.cfg.num_prototypes)}

  def probabilities(self, projection):
    """[b, d] -> q(w|z) [b, K]."""
    scores = self.prototypes(self.location(projection))
    return tf.nn.softmax(scores / self.cfg.temperature)

  def codes(self, scores, crop, step):
    """[b, K] scores of a global crop -> its codes [b, K]."""
    rows = scores.shape[0]
    # Sinkhorn adds the replicas up: each takes its own part of the queue.
    queued = replicas.local_rows(self.queue)[:, crop]
    counted = tf.concat(
      [
        tf.fill([rows], True),
        tf.fill([queued.shape[0]], step >= self.plan.queue_from),
      ],
      0,
    )
    balanced = clustering.sinkhorn(
      tf.concat([scores, self.prototypes(queued)], 0),
      self.cfg.sinkhorn_epsilon,
      self.cfg.sinkhorn_iterations,
      counted,
    )
    return balanced[:rows]

  def objective(self, embeddings, step):
    scores, z = embeddings['scores'], embeddings['projection']
    codes = [self.codes(scores[i], i, step) for i in range(2)]
    loss = tf.reduce_mean(
      objectives.swav_cross_entropy(codes, scores, self.cfg.temperature)
    )
    usage = clustering.usage(
      tf.argmax(tf.concat(codes, 0), 1), self.cfg.num_prototypes
    )
    metrics = {
      'swav_loss': loss,
      'prototypes_used': usage.used,
      'prototype_entropy': usage.entropy,
    }
    carry = {'embeddings': tf.stack(z[:2], 1)} if self.cfg.queue_size else {}
    return Output(loss, metrics, self.features(embeddings), carry)

  def after_update(self, step, carry):
    self.prototypes.normalize(held=self._frozen(step))
    if carry:
      newest = replicas.all_gather(carry['embeddings'])  # [B, 2, d]
      rows = tf.concat([newest, self.queue], 0)
      self.queue.assign(rows[: self.cfg.queue_size])


class DeepCluster(_Crops):
  """Classification into clusters of the epoch before (DeepCluster-v2).

  A memory has the latest embeddings of both global crops of every example. Head
  h clusters those of crop h mod 2 when an epoch begins, by spherical k-means:
  its centroids c are the prototypes, w_h(i) example i's cluster. Loss: the mean
  over heads and crops z of -log softmax(c z / tau)[w_h(i)] (Caron et al.,
  2020, section 3 and appendix).
  """

  needs_first_pass = True

  def make_heads(self, cfg):
    examples, clusters = self.plan.examples or 0, cfg.num_prototypes
    if examples and clusters > examples:
      why = f'must not exceed the number of examples, {examples}'
      refuse('num_prototypes', clusters, why)
    empty = tf.zeros([examples, self.projected_dim])
    self.memory = [
      replicas.mirrored(empty, f'memory_{crop}') for crop in range(2)
    ]
    # Anything will do before the first epoch, but for zeros.
    shape = [cfg.num_heads, clusters, self.projected_dim]
    centroids = self.location(randomness.normal(shape, [cfg.seed, 0]))
    self.centroids = replicas.mirrored(centroids, 'centroids')
    assignments = tf.zeros([examples, cfg.num_heads], tf.int32)
    self.assignments = replicas.mirrored(assignments, 'assignments')
    # Clusters in use, H(W), over all examples, a mean over heads.
    self.usage = replicas.mirrored(tf.zeros([2]), 'usage')

  def remember(self, index, embeddings):
    """index [b], embeddings [b, 2, d] of this replica's examples."""
    index = replicas.all_gather(tf.cast(index, tf.int32))
    rows = replicas.all_gather(embeddings)
    for crop, memory in enumerate(self.memory):
      replicas.set_rows(memory, index, rows[:, crop])

  def observe(self, embeddings):
    rows = tf.stack(embeddings['projection'][:2], 1)
    self.remember(embeddings['index'], rows)

  def on_epoch(self, epoch):
    clusters = [self.cluster(head, epoch) for head in range(self.cfg.num_heads)]
    self.centroids.assign(tf.stack([f.centroids for f in clusters]))
    # Of the nearest two devices may think differently.
    assignments = tf.stack([f.assignments for f in clusters], 1)
    self.assignments.assign(replicas.of_first_replica(assignments))
    usages = [
      clustering.usage(f.assignments, self.cfg.num_prototypes) for f in clusters
    ]
    self.usage.assign(tf.reduce_mean(tf.stack(usages), 0))

  def chance(self):
    return {'cluster_loss': math.log(self.cfg.num_prototypes)}

  def probabilities(self, projection):
    """[b, d] -> q(w|z) [b, heads, K]."""
    z = self.location(projection)
    scores = tf.einsum('bd,hkd->bhk', z, self.centroids)
    return tf.nn.softmax(scores / self.cfg.temperature)

  def cluster(self, head, epoch):
    """One head's Clusters, from rows that are drawn anew in every epoch."""
    rows = tf.convert_to_tensor(self.memory[head % 2])
    start = clustering.random_rows(
      rows,
      self.cfg.num_prototypes,
      tf.stack([self.stream(head + 1), tf.cast(epoch, tf.int32)]),
    )
    iterations = self.cfg.kmeans_iterations
    return clustering.spherical_kmeans(rows, start, iterations)

  def objective(self, embeddings, step):
    del step
    z, index = embeddings['projection'], embeddings['index']
    assigned = tf.gather(self.assignments, index)  # [b, heads]
    crops = sums.branches(tf.concat(z, 0), self.cfg.num_heads)
    results = [
      objectives.classification(
        tf.matmul(rows, self.centroids[head], transpose_b=True)
        / self.cfg.temperature,
        tf.tile(assigned[:, head], [len(z)]),
      )
      for head, rows in enumerate(crops)
    ]
    loss, accuracy = tf.unstack(tf.reduce_mean(tf.stack(results), 0))
    metrics = {
      'cluster_loss': loss,
      'cluster_acc': accuracy,
      'prototypes_used': self.usage[0],
      'prototype_entropy': self.usage[1],
    }
    carry = {'index': index, 'embeddings': tf.stack(z[:2], 1)}
    return Output(loss, metrics, self.features(embeddings), carry)

  def after_update(self, step, carry):
    del step
    self.remember(carry['index'], carry['embeddings'])
