"""A method that keeps whatever a method may keep."""

import tensorflow as tf

from cvr.methods import skeletons
from cvr.numerics import replicas

SLOTS = 16


class Toy(skeletons.Siamese):
  """Whatever a method may keep: a queue, a centre, a memory, and of epochs."""

  needs_first_pass = True

  def make_heads(self, cfg):
    dim = cfg.proj_out_dim
    self.queue = replicas.mirrored(tf.zeros([SLOTS, dim]), 'queue')
    self.pointer = replicas.mirrored(tf.constant(0), 'pointer')
    self.centre = replicas.mirrored(tf.zeros([dim]), 'centre')
    memory = tf.zeros([self.plan.examples, dim])
    self.memory = replicas.mirrored(memory, 'memory')
    self.anchor = replicas.mirrored(tf.zeros([dim]), 'anchor')
    # Rows that were observed, epochs that were begun.
    self.counts = replicas.mirrored(tf.zeros([2], tf.int32), 'counts')

  def objective(self, embeddings, step):
    del step
    h1, h2 = embeddings['projection']
    past = tf.gather(self.memory, embeddings['index'])
    pull = tf.reduce_sum(h1 * (h2 + past + self.anchor - self.centre), -1)
    push = tf.reduce_logsumexp(tf.matmul(h1, self.queue, transpose_b=True), 1)
    loss = tf.reduce_mean(push - pull)
    carry = {
      'keys': h2,
      'index': embeddings['index'],
      'mean': tf.reduce_mean(h2, 0, keepdims=True),
    }
    features = self.features(embeddings)
    return skeletons.Output(loss, {'toy_loss': loss}, features, carry)

  def remember(self, index, rows):
    index = replicas.all_gather(tf.cast(index, tf.int32))
    rows = replicas.all_gather(rows)
    replicas.set_rows(self.memory, index, rows)
    return rows

  def observe(self, embeddings):
    rows = self.remember(embeddings['index'], embeddings['projection'][0])
    self.counts.assign_add([rows.shape[0], 0])

  def after_update(self, step, carry):
    del step
    keys = self.remember(carry['index'], carry['keys'])
    at = (self.pointer + tf.range(keys.shape[0])) % SLOTS
    replicas.set_rows(self.queue, at, keys)
    self.pointer.assign((self.pointer + keys.shape[0]) % SLOTS)
    mean = tf.reduce_mean(replicas.all_gather(carry['mean']), 0)
    self.centre.assign(0.9 * self.centre + 0.1 * mean)

  def on_epoch(self, epoch):
    mean = tf.reduce_mean(self.memory, 0) + tf.cast(epoch, tf.float32)
    self.anchor.assign(replicas.of_first_replica(mean))
    self.counts.assign_add([0, 1])
