"""Heads on representations, groups of variables, and moving averages.

No loss and no schedule: a head maps tensors to tensors.
"""

import dataclasses
import math

import tensorflow as tf
import tf_keras as keras

from cvr.numerics import distributions
from resnet import BatchNorm, Conv


def l2_normalize(x):
  """[B, D] -> the same directions on the unit sphere."""
  return tf.math.l2_normalize(x, -1)


def _initializer(name):
  # A new one for every layer: two layers that share an unseeded initializer
  # would start from the same numbers.
  return {
    'byol': lambda: keras.initializers.VarianceScaling(),
    'simclr': lambda: keras.initializers.RandomNormal(stddev=0.01),
  }[name]()


class Linear(keras.layers.Layer):
  """Dense, then batch normalisation and an activation as wanted.

  norm: a BatchNorm, or None. bias: of no use before a BatchNorm, which cancels
  it. activation: a name that Keras knows, or None.
  """

  def __init__(self, units, init, norm=None, activation=None, bias=False):
    super().__init__(dtype=tf.float32)
    self.dense = keras.layers.Dense(
      units,
      use_bias=bias,
      kernel_initializer=_initializer(init),
      dtype=tf.float32,
    )
    self.norm = norm
    self.activation = activation

  def call(self, x, training=False):
    x = self.dense(x)
    if self.norm is not None:
      x = self.norm(x, training=training)
    return keras.activations.get(self.activation)(x)


class MLP(keras.layers.Layer):
  """num_layers Linears; 1 is a linear head, 0 the identity.

  In float32 at any precision: representations of a batch have a large common
  part, which batch norm removes. Rounded to bfloat16 before, they lose their
  differences: four points of accuracy, and a head in float32 costs no time.

  mid_bn: batch normalisation in the hidden layers, else a bias.
  output_bn: batch normalisation, without offset, on the output.
  init: 'byol' (variance scaling) or 'simclr' (normal, 0.01).
  activation: of the hidden layers; 'gelu' in DINO's head.
  """

  def __init__(
    self,
    num_layers,
    hidden_dim,
    out_dim,
    output_bn=False,
    mid_bn=True,
    init='byol',
    bn_decay=0.9,
    sync_bn=True,
    activation='relu',
  ):
    super().__init__(dtype=tf.float32)

    def norm(wanted, center=True):
      if not wanted:
        return None
      return BatchNorm(bn_decay, center=center, sync=sync_bn, dtype=tf.float32)

    self.layers_out = [
      Linear(hidden_dim, init, norm(mid_bn), activation, bias=not mid_bn)
      for _ in range(num_layers - 1)
    ]
    if num_layers > 0:
      last = Linear(out_dim, init, norm(output_bn, center=False))
      self.layers_out.append(last)
    self.out_dim = out_dim

  def call(self, x, training=False):
    """[B, D] -> [x, every layer's output]; the last one in float32."""
    outputs = [x]
    for layer in self.layers_out:
      outputs.append(layer(outputs[-1], training=training))
    return [*outputs[:-1], tf.cast(outputs[-1], tf.float32)]


class StochasticHead(keras.layers.Layer):
  """C-BYOL's predictor: an MLP to mu of e(z|x), z, a linear decoder d(y|z).

  location: maps the MLP's output to mu; onto the sphere for von Mises-Fisher,
  nothing for a Gaussian.
  """

  def __init__(
    self,
    hidden_dim,
    out_dim,
    location=l2_normalize,
    mid_bn=True,
    init='byol',
    bn_decay=0.9,
    sync_bn=True,
  ):
    super().__init__()
    self.location = location
    self.encoder = MLP(
      2,
      hidden_dim,
      out_dim,
      mid_bn=mid_bn,
      init=init,
      bn_decay=bn_decay,
      sync_bn=sync_bn,
    )
    # In float32 at any precision: bfloat16 would round away the noise in z.
    self.decoder = keras.layers.Dense(
      out_dim,
      use_bias=False,
      kernel_initializer=_initializer(init),
      dtype=tf.float32,
    )

  def call(self, x, training=False, sample=None):
    """[B, D] -> mu, z = sample(mu) (mu without sample), and the prediction."""
    mu = self.location(self.encoder(x, training=training)[-1])
    z = mu if sample is None else sample(mu)
    return {'mu': mu, 'z': z, 'prediction': self.decoder(z)}


class VmfCeb(keras.layers.Layer):
  """e(z|x) and b(z|y) as von Mises-Fisher; without variables."""

  def __init__(self, dim, kappa_e, kappa_b):
    super().__init__()
    self.kappa_e = kappa_e
    self.kappa_b = kappa_b
    self.noise_dim = dim + 1

  def location(self, x):
    """The mean of a latent: [B, d] -> unit rows."""
    return l2_normalize(x)

  def sample(self, mu, noise):
    """z ~ e(.|mu); noise [B, noise_dim] standard normal."""
    return distributions.vmf_sample(mu, self.kappa_e, noise)

  def log_e(self, z, mu):
    return distributions.vmf_log_prob(z, mu, self.kappa_e)

  def log_b(self, z, mu):
    return distributions.vmf_log_prob(z, mu, self.kappa_b)

  def rate(self, mu_e, mu_b):
    """KL(e || b) of their locations [B, d] -> [B], the rate's mean over z."""
    cosine = tf.reduce_sum(mu_e * mu_b, -1)
    dim = mu_e.shape[-1]
    return distributions.vmf_kl(dim, self.kappa_e, self.kappa_b, cosine)

  def scores(self, z, means):
    """log b(z|y) for many y, up to a constant that cancels in a softmax."""
    return distributions.vmf_scores(z, means, self.kappa_b)


class GaussianCeb(keras.layers.Layer):
  """e(z|x) and b(z|y) as diagonal Gaussians, deviations fixed or learned."""

  def __init__(self, dim, sigma_e, sigma_b, learned=False):
    super().__init__()
    self.noise_dim = dim
    self._fixed = (sigma_e, sigma_b)
    self._raw = None
    if learned:
      # softplus(raw) is the deviation, and starts from the given one.
      start = [math.log(math.expm1(sigma)) for sigma in self._fixed]
      self._raw = [
        self.add_weight(
          name,
          [dim],
          dtype=tf.float32,
          initializer=keras.initializers.Constant(value),
          experimental_autocast=False,
        )
        for name, value in zip(('raw_e', 'raw_b'), start, strict=True)
      ]

  def _sigma(self, which):
    if self._raw is None:
      return self._fixed[which]
    return tf.nn.softplus(self._raw[which])

  def location(self, x):
    """The mean of a latent: x itself."""
    return x

  def sample(self, mu, noise):
    """z ~ e(.|mu); noise [B, noise_dim] standard normal."""
    return distributions.gaussian_sample(mu, self._sigma(0), noise)

  def log_e(self, z, mu):
    return distributions.gaussian_log_prob(z, mu, self._sigma(0))

  def log_b(self, z, mu):
    return distributions.gaussian_log_prob(z, mu, self._sigma(1))

  def rate(self, mu_e, mu_b):
    """KL(e || b) of their locations [B, d] -> [B], the rate's mean over z."""
    sigma_e, sigma_b = self._sigma(0), self._sigma(1)
    return distributions.gaussian_kl(mu_e, sigma_e, mu_b, sigma_b)

  def scores(self, z, means):
    """log b(z|y) for many y, up to a constant that cancels in a softmax."""
    return distributions.gaussian_scores(z, means, self._sigma(1))


class Classifier(keras.layers.Layer):
  """[B, D] -> [B, num_classes] logits, in float32."""

  def __init__(self, num_classes, zero_init=False):
    super().__init__(dtype=tf.float32)
    self.dense = keras.layers.Dense(
      num_classes,
      kernel_initializer='zeros' if zero_init else _initializer('simclr'),
      dtype=tf.float32,
    )

  def call(self, x):
    return self.dense(x)


class Prototypes(keras.layers.Layer):
  """[B, D] unit rows -> [B, count] cosines with unit vectors, in float32.

  SwAV's prototypes, and the last layer of DINO's head: weight normalisation
  with its length fixed at 1. The vectors are the kernel's columns, normalised;
  the lengths of the columns start near 1.
  """

  def __init__(self, count):
    super().__init__(dtype=tf.float32)
    self.count = count

  def build(self, shape):
    self.kernel = self.add_weight(
      'kernel', [shape[-1], self.count], initializer=_initializer('byol')
    )
    super().build(shape)

  def vectors(self):
    """[D, count], unit columns."""
    return tf.math.l2_normalize(self.kernel, 0)

  def call(self, x):
    return tf.matmul(x, self.vectors())

  def normalize(self, held=False):
    """Resets columns to length 1, as SwAV after every update.

    A gradient is orthogonal to its vector, which would grow and turn less.
    held: [] bool, the kernel stays as it is.
    """
    self.kernel.assign(tf.where(held, self.kernel, self.vectors()))


@dataclasses.dataclass(frozen=True)
class VariableGroups:
  """Trainable variables by their role, each in one list."""

  kernels: list
  biases: list  # and any other vector
  norms: list  # gamma and beta of batch normalisation, learned deviations


def variable_groups(*layers):
  """The trainable variables of the layers, by the type of their layer."""
  kind = {}
  for layer in layers:
    for module in (layer, *layer.submodules):
      if isinstance(module, GaussianCeb):
        # Learned deviations: decay would pull them towards softplus(0).
        kind |= {id(v): 'norms' for v in module.trainable_variables}
      known = BatchNorm | Conv | Prototypes | keras.layers.Dense
      if not isinstance(module, known):
        continue
      if not module.built:
        raise ValueError(f'{module.name} has no variables yet: call it once.')
      if isinstance(module, BatchNorm):
        kind |= {id(v): 'norms' for v in module.trainable_variables}
      else:
        kind[id(module.kernel)] = 'kernels'
  groups = VariableGroups([], [], [])
  grouped = set()
  for variable in (v for layer in layers for v in layer.trainable_variables):
    name = kind.get(id(variable), 'biases')
    if name == 'biases' and variable.shape.rank > 1:
      raise ValueError(
        f'{variable.name} {variable.shape} belongs to a layer that '
        'variable_groups does not know: say there what it is.'
      )
    if id(variable) not in grouped:
      getattr(groups, name).append(variable)
    grouped.add(id(variable))
  return groups


def update_ema(online, target, decay):
  """target <- decay target + (1 - decay) online, for trainable variables.

  online, target: lists of layers of the same structure and order. In a step of
  several replicas each one updates its own copy, all by the same amount.
  """
  sources = [v for layer in online for v in layer.trainable_variables]
  variables = [v for layer in target for v in layer.trainable_variables]
  for source, variable in zip(sources, variables, strict=True):
    if source.shape != variable.shape:
      raise ValueError(
        f'{variable.name} {variable.shape} is no twin of {source.name} '
        f'{source.shape}.'
      )
    variable.assign(decay * variable + (1.0 - decay) * source)
