"""Losses as pure functions of tensors, composed of the papers' own terms.

Rows are this replica's; keys are the rows of all replicas, gathered by the
caller; `offset` says where the local rows begin among the keys. Everything is
float32, every loss is a mean over the local rows.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from cvr.numerics import sums

# Large enough to erase a logit from a softmax in float32.
_MASKED = 1e9


class Contrast(NamedTuple):
  """How well each row finds its partner among the candidates."""

  cross_entropy: tf.Tensor  # [b] nats
  accuracy: tf.Tensor  # []
  entropy: tf.Tensor  # [] nats, of the softmax over candidates
  candidates: int


class Ceb(NamedTuple):
  """One direction of a contrastive CEB objective, all [b] and in nats."""

  loss: tf.Tensor
  rate: tf.Tensor  # I(X;Z|Y) from above: log e(z|x) - log b(z|y)
  relevant: tf.Tensor  # I(Y;Z) from below: log candidates - cross entropy
  log_e: tf.Tensor
  log_b: tf.Tensor
  contrast: Contrast


def contrast(scores, z, keys, same_view=None, offset=0) -> Contrast:
  """Which of `keys` belongs to each row of z: row i's partner is offset + i.

  scores(z, keys) -> logits [b, B]; z [b, d]; keys [B, d], the other view of
  the global batch; same_view [B, d], the rows' own view, which gives B - 1
  more negatives (the row itself is masked): the double batch trick.
  """
  partner = offset + tf.range(z.shape[0])
  z = sums.joint(z)
  logits = scores(z, keys)  # [b, B]
  candidates = keys.shape[0]
  if same_view is not None:
    itself = tf.one_hot(partner, same_view.shape[0])
    logits = tf.concat([logits, scores(z, same_view) - _MASKED * itself], 1)
    candidates = 2 * candidates - 1
  return _choice(logits, partner, candidates)


def queue_contrast(scores, z, positive, queue) -> Contrast:
  """Each row's own key among those of other images (MoCo, eq. 1).

  scores as in contrast; z, positive [b, d]; queue [K, d], the same negatives
  for every row.
  """
  own = tf.linalg.diag_part(scores(z, positive))  # [b]
  logits = tf.concat([own[:, None], scores(z, queue)], 1)  # [b, 1 + K]
  first = tf.zeros([z.shape[0]], tf.int32)
  return _choice(logits, first, 1 + queue.shape[0])


def _choice(logits, partner, candidates) -> Contrast:
  """A softmax over candidates: logits [b, n]; partner [b], their indices."""
  right = tf.cast(tf.argmax(logits, 1), tf.int32) == partner
  log_p = tf.nn.log_softmax(logits)
  return Contrast(
    cross_entropy=tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=partner, logits=logits
    ),
    accuracy=tf.reduce_mean(tf.cast(right, tf.float32)),
    entropy=-tf.reduce_mean(
      tf.reduce_sum(tf.exp(log_p) * tf.maximum(log_p, -_MASKED), 1)
    ),
    candidates=candidates,
  )


def ceb_contrastive(
  z, mu, other, keys, same_view=None, *, log_e, log_b, scores, beta, offset=0
) -> Ceb:
  """beta (log e(z|x) - log b(z|y)) - I(Y;Z), one direction (CVR, eq. of 1.3).

  z [b, d] a sample of e(.|mu); other [b, d] the partner's mean direction,
  which is also the backward encoder's; keys and same_view as in contrast.
  """
  choice = contrast(scores, z, keys, same_view, offset)
  z = sums.joint(z)
  log_e, log_b = log_e(z, mu), log_b(z, other)
  rate = log_e - log_b
  relevant = math.log(choice.candidates) - choice.cross_entropy
  return Ceb(beta * rate - relevant, rate, relevant, log_e, log_b, choice)


def normalized_distance(prediction, target):
  """[b, d], [b, d] -> [b]: ||l2n(p) - l2n(y)||^2 = 2 - 2 cos (BYOL, eq. 2)."""
  difference = tf.math.l2_normalize(prediction, -1) - tf.math.l2_normalize(
    target, -1
  )
  return tf.reduce_sum(tf.square(difference), -1)


def simsiam(predictions, projections):
  """The mean of the two orders of -cos(p, sg(z)) (SimSiam, eq. 4) -> [b].

  predictions, projections: [b, d] of each of two views, normalised here. The
  minimum is -1: a quarter of BYOL's sum of two distances, less 1.
  """
  (p1, p2), (z1, z2) = predictions, map(tf.stop_gradient, projections)
  distances = normalized_distance(p1, z2) + normalized_distance(p2, z1)
  return distances / 4.0 - 1.0


def _across_views(targets, logits):
  """Cross entropy of every target with every view but its own, mean -> [b].

  targets: probabilities [b, K] of the first views, without gradient; logits
  [b, K] of all views, in the same order.
  """
  log_p = [tf.nn.log_softmax(view) for view in logits]
  pairs = [
    -tf.reduce_sum(tf.stop_gradient(target) * log_p[j], -1)
    for i, target in enumerate(targets)
    for j in range(len(log_p))
    if i != j
  ]
  return sums.total(pairs) / len(pairs)


def sharpened(logits, centre, temperature):
  """The targets of DINO's teacher: softmax of its centred logits [b, K]."""
  return tf.nn.softmax((logits - centre) / temperature)


def dino_cross_entropy(student, teacher, centre, student_temp, teacher_temp):
  """Cross entropy of the teacher's targets with the student's views -> [b].

  student: logits [b, K] of all crops; teacher: of the global ones, which are
  the first of the student's; pairs of one view are left out; centre [K] (DINO,
  eq. 3 with centring).
  """
  targets = [sharpened(t, centre, teacher_temp) for t in teacher]
  return _across_views(targets, [s / student_temp for s in student])


def swav_cross_entropy(codes, scores, temperature):
  """Cross entropy of codes with other crops' scores (SwAV, eq. 2) -> [b].

  codes: probabilities [b, K] of the crops that have codes, which come first;
  scores: prototypes times projections [b, K] of all crops.
  """
  return _across_views(codes, [s / temperature for s in scores])


def invariance(z1, z2):
  """Mean squared difference of pairs of rows [b, d] (VICReg, alg. 1) -> []."""
  return tf.reduce_mean(tf.square(z1 - z2))


def variance_hinge(rows, target=1.0, epsilon=1e-4):
  """How far deviations are below a target, mean over dimensions -> [].

  rows [B, d] of all replicas (VICReg, eq. 1 and 2); the variance is the
  unbiased one, B - 1, as the covariance is.
  """
  rows = sums.joint(rows)
  centred = rows - tf.reduce_mean(rows, 0)
  variance = tf.reduce_sum(tf.square(centred), 0) / (rows.shape[0] - 1)  # [d]
  return tf.reduce_mean(tf.nn.relu(target - tf.sqrt(variance + epsilon)))


def covariance_penalty(rows):
  """Squared covariances of different dimensions, their sum over d -> [].

  rows [B, d] of all replicas (VICReg, eq. 3 and 4).
  """
  rows = sums.joint(rows)
  centred = rows - tf.reduce_mean(rows, 0)
  covariance = tf.matmul(centred, centred, transpose_a=True)  # [d, d]
  covariance /= rows.shape[0] - 1
  squares = tf.linalg.set_diag(tf.square(covariance), tf.zeros([rows.shape[1]]))
  return tf.reduce_sum(squares) / rows.shape[1]


def classification(logits, labels, binary=False):
  """The linear probe: logits [n, c], labels [n] -> (loss [], accuracy [])."""
  if binary:
    one_hot = tf.one_hot(labels, logits.shape[-1])
    rows = tf.reduce_sum(
      tf.nn.sigmoid_cross_entropy_with_logits(one_hot, logits), -1
    )
  else:
    rows = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
  right = tf.cast(tf.argmax(logits, -1), labels.dtype) == labels
  return tf.reduce_mean(rows), tf.reduce_mean(tf.cast(right, tf.float32))


def l2_loss(variables):
  """Half the sum of squares of the variables."""
  return sums.total([tf.nn.l2_loss(tf.cast(v, tf.float32)) for v in variables])
