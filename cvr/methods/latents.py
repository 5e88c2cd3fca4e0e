"""Latents between a representation and the head: bits, or Gaussians.

(StochCon) phi = pi(h), z ~ q(z|phi), the head sees rho(z). Every latent
has a width `dim`, a way `draw` of making its noise, and answers

  parameters(h) -> phi, a dict of tensors [B, ...]
  of_pair(own, other) -> the phi that a view's z is drawn from
  sample(phi, noise, temperature) -> z [B, dim], differentiable in phi
  code(phi) -> z [B, dim] without noise, as it is read at evaluation
  up(z) -> what the head sees in place of a representation
  describe(phi) -> what is stored of an image: latent_mean, latent_std, ...
  report(phi, z) -> {metric: [B]}, the rate latent_kl in nats among them
"""

import math

import tensorflow as tf
import tf_keras as keras

from cvr.numerics import distributions, randomness
from model import Linear
from resnet import BatchNorm


class Latent(keras.layers.Layer):
  """pi, a linear map, and rho, which a bottleneck needs.

  A representation is never negative: were it itself the logits, every bit would
  be 1. Batch norm after the map centres them, or most bits would be the same
  for all images. rho ends in a ReLU: the head sees from both branches what has
  the shape of a representation.
  """

  def __init__(self, dim, width, init, bn_decay, sync_bn, scales=0):
    """dim 0: as wide as the representation, width, and no way up.

    scales: how many outputs pi has beside one for each of dim.
    """
    super().__init__(dtype=tf.float32)

    def linear(units, activation=None):
      norm = BatchNorm(bn_decay, sync=sync_bn, dtype=tf.float32)
      return Linear(units, init, norm, activation)

    self.dim = dim or width
    self.projector = linear(self.dim + scales)
    self.upsampler = linear(width, 'relu') if dim else None
    # Built at once: finetuning goes no way up, but loads what there is.
    self.up(tf.zeros([1, self.dim]))

  def up(self, z, training=False):
    if self.upsampler is None:
      return z
    return self.upsampler(z, training=training)


class BernoulliLatent(Latent):
  """Bits by the binary Concrete: whole, straight through, or relaxed.

  top_k: the k bits with the largest logits are 1 (of a sample: with their
  noise). What lies half way between the k-th and the next takes the place of 0.
  """

  draw = staticmethod(randomness.uniform)

  def __init__(self, dim, width, top_k=0, relaxed=False, **options):
    super().__init__(dim, width, **options)
    self.top_k = top_k
    self.relaxed = relaxed

  def parameters(self, h, training=False):
    logits = self.projector(h, training=training)
    return {'logits': logits - self._threshold(logits)}

  def of_pair(self, own, other):
    del other
    return own

  def _threshold(self, logits):
    """0, or what lies between the k-th largest logit and the next: [B, 1]."""
    if not self.top_k:
      return 0.0
    largest = tf.math.top_k(logits, self.top_k + 1).values
    return tf.stop_gradient(tf.reduce_mean(largest[:, -2:], -1, keepdims=True))

  def sample(self, phi, noise, temperature):
    logistic = distributions.logistic(noise)
    logits = phi['logits'] + logistic
    logits -= self._threshold(logits)
    soft = tf.sigmoid(logits / temperature)
    if self.relaxed:
      return soft
    # The bits themselves, with the gradient of the soft ones.
    hard = tf.stop_gradient(tf.cast(logits > 0, soft.dtype))
    return hard + (soft - tf.stop_gradient(soft))

  def bits(self, phi):
    """[B, dim] bool: the likelier value of each bit, or the top k."""
    return phi['logits'] > 0

  def code(self, phi):
    return tf.cast(self.bits(phi), tf.float32)

  def describe(self, phi):
    mean = tf.sigmoid(phi['logits'])
    return {
      'latent_mean': mean,
      'latent_std': tf.sqrt(mean * (1 - mean)),
      'latent_bits': self.bits(phi),
    }

  def report(self, phi, z):
    entropy = distributions.bernoulli_entropy(phi['logits'])
    return {
      # From fair bits.
      'latent_kl': self.dim * math.log(2) - entropy,
      'latent_entropy': entropy,
      'latent_ones': tf.reduce_mean(z, -1),
    }


class GaussianLatent(Latent):
  """z = mean + deviation noise, isotropic or with a deviation per dimension.

  variance: 'opposing' takes a view's variance from the other view, so that a
  view cannot make its own vanish; 'own' from the same; 'fixed' is std.
  """

  draw = staticmethod(randomness.normal)

  def __init__(
    self, dim, width, variance='opposing', per_dim=False, std=1.0, **options
  ):
    fixed = variance == 'fixed'
    scales = 0 if fixed else (dim or width) if per_dim else 1
    super().__init__(dim, width, scales=scales, **options)
    self.fixed = std if fixed else None
    self.opposing = variance == 'opposing'

  def parameters(self, h, training=False):
    phi = self.projector(h, training=training)
    mean, log_variance = phi[:, : self.dim], phi[:, self.dim :]
    if self.fixed is None:
      return {'mean': mean, 'std': tf.exp(log_variance / 2)}
    return {'mean': mean, 'std': self.fixed * tf.ones_like(mean[:, :1])}

  def of_pair(self, own, other):
    return {
      'mean': own['mean'],
      'std': (other if self.opposing else own)['std'],
    }

  def sample(self, phi, noise, temperature):
    del temperature
    return distributions.gaussian_sample(phi['mean'], phi['std'], noise)

  def code(self, phi):
    return phi['mean']

  def describe(self, phi):
    return {'latent_mean': phi['mean'], 'latent_std': phi['std']}

  def report(self, phi, z):
    del z
    std = phi['std'] * tf.ones_like(phi['mean'])
    return {
      # From the standard normal.
      'latent_kl': distributions.gaussian_kl(phi['mean'], std, 0.0, 1.0),
      'latent_std': tf.reduce_mean(phi['std'], -1),
    }
