"""What methods are made of: encoders, heads, and two skeletons.

Siamese: one encoder, the views concatenated. Teacher: an online encoder and
its EMA twin, view by view. The package's docstring has the contract.
"""

import itertools
from typing import NamedTuple

import tensorflow as tf

import model
from cvr.methods.towers import TowerHeads, Towers
from cvr.numerics import randomness, replicas, schedules
from resnet import ResNet

# Salts are smaller, so that no two seeds share a stream. Changing it would
# change what every run draws.
_SALTS = 1009


class Output(NamedTuple):
  """loss: [] of the local rows; metrics: flat; features: for the probe.

  carry: what after_update() needs of this step, {name: [n, ...]}. The rows of
  all chunks of a batch are joined; a mean has the shape [1, ...].
  """

  loss: tf.Tensor
  metrics: dict
  features: tf.Tensor
  carry: dict = {}


def make_encoder(plan):
  """The backbone that the configuration describes."""
  cfg = plan.cfg
  return ResNet(
    cfg.resnet_depth,
    cfg.width_multiplier,
    stem=plan.stem,
    sk_ratio=cfg.sk_ratio,
    se_ratio=cfg.se_ratio,
    bn_decay=cfg.batch_norm_decay,
    sync_bn=cfg.global_bn,
    shortcut=cfg.shortcut,
  )


def make_projector(cfg):
  """The projection head: none, linear or an MLP."""
  layers = {'none': 0, 'linear': 1, 'nonlinear': cfg.num_proj_layers}
  return model.MLP(
    layers[cfg.proj_head_mode],
    cfg.proj_head_hidden_dim,
    cfg.proj_out_dim,
    output_bn=cfg.proj_head_output_bn,
    mid_bn=cfg.proj_head_hidden == 'bn_relu',
    activation=cfg.proj_head_hidden.removeprefix('bn_'),
    **head_options(cfg),
  )


def make_body(plan):
  """-> encoder, projector; of two networks in one where there are two."""
  parts, cfg = plan.view_pair, plan.cfg
  if not parts:
    return make_encoder(plan), make_projector(cfg)
  encoders = [make_encoder(plan) for _ in parts]
  heads = [make_projector(cfg) for _ in parts]
  return Towers(parts, encoders, plan.recipe.mean_std), TowerHeads(heads)


def head_options(cfg):
  return {
    'init': cfg.mlp_init,
    'bn_decay': cfg.batch_norm_decay,
    'sync_bn': cfg.global_bn,
  }


def make_ceb(cfg, dim):
  """The distributions e(z|x) and b(z|y) of a CEB method."""
  if cfg.ceb_distribution == 'vmf':
    return model.VmfCeb(dim, cfg.kappa_e, cfg.kappa_b)
  learned = cfg.gaussian_scale == 'learned'
  return model.GaussianCeb(dim, cfg.sigma_e, cfg.sigma_b, learned)


def by_resolution(function, views):
  """Calls function once per resolution -> its output for each view, a list.

  function: images -> any structure of tensors [n, ...]. Views of one size
  follow each other, and are one batch.
  """
  outputs = []
  for _, group in itertools.groupby(views, key=lambda view: view.shape[1]):
    group = list(group)
    output = function(tf.concat(group, 0))
    parts = [tf.split(x, len(group)) for x in tf.nest.flatten(output)]
    outputs += [
      tf.nest.pack_sequence_as(output, rows)
      for rows in zip(*parts, strict=True)
    ]
  return outputs


class Method(tf.Module):
  """What all methods share: an encoder, a projector, a probe's layer."""

  probed_dim = None  # the width of what the linear probe reads, once built
  # Whether observe() sees all examples once before step 0.
  needs_first_pass = False

  def __init__(self, plan):
    super().__init__()
    self.plan, self.cfg = plan, plan.cfg
    self.encoder, self.projector = make_body(plan)
    self.make_heads(plan.cfg)

  @property
  def projected_dim(self):
    """The width of the projection, which may be the representation itself."""
    if self.cfg.proj_head_mode == 'none':
      return self.encoder.representation_dim
    return self.cfg.proj_out_dim

  def make_heads(self, cfg):
    """Builds what the method has beyond encoder and projector."""

  def embed(self, images, training=False):
    """[b, H, W, C] -> the representation and the projector's layers."""
    h = self.encoder(images, training=training)
    return self.layers_of(h, training)

  def layers_of(self, h, training):
    """h itself first: the projector saw it in its compute precision."""
    layers = [h, *self.projector(h, training=training)[1:]]
    return {'representation': h, 'projection': layers[-1], 'layers': layers}

  @property
  def probes_latent(self):
    """Whether the probe reads what a latent makes of the representation."""
    return self.cfg.probe_latent

  def probed(self, embedded):
    """What the linear probe reads: layer 0 is the representation."""
    if self.probes_latent:
      return embedded['code']
    return embedded['layers'][self.cfg.ft_proj_selector]

  def trained(self):
    """The layers that get gradients, each once."""
    return [self.encoder, self.projector]

  def held(self, step):
    """[(trained layer, [] bool: whether it does not change at this step)]."""
    del step
    return []

  def steady(self):
    """Trained layers whose learning rate stays at its peak."""
    return []

  def after_update(self, step, carry):
    """Moves what has no gradients; step is the one just taken."""

  def chance(self):
    """{metric: its value where all images look alike}, in nats."""
    return {}

  def on_epoch(self, epoch):
    """Called before the first step of an epoch, of methods that override it."""

  def observe(self, embeddings):
    """Keeps what it needs of some examples, if needs_first_pass."""
    raise NotImplementedError

  def build(self, image_size):
    """Creates every variable, by one step on black images."""
    shape = [2, image_size, image_size, self.cfg.channels]
    views = [tf.zeros(shape)] * 2
    embeddings = self.encode(views, tf.constant(0, tf.int64), training=False)
    self.probed_dim = tf.nest.flatten(embeddings['probed'])[0].shape[-1]
    self.begin()

  def begin(self):
    """Makes copies of trained layers, once these are loaded."""

  def stream(self, salt):
    """The first half of a seed: another stream of numbers for each salt."""
    return self.cfg.seed * _SALTS + salt

  def noise(self, draw, salt, rows, width, sample=randomness.normal):
    """[rows, width] random numbers for this replica's rows of a view."""
    seed = tf.stack([self.stream(salt), tf.cast(draw, tf.int32)])
    return replicas.local_rows(
      sample([rows * replicas.num_replicas(), width], seed)
    )

  def step_of(self, draw):
    """The step that a draw belongs to: each of its chunks is one."""
    return draw // self.plan.chunks


class Siamese(Method):
  """One encoder for all views, which it sees as one batch."""

  def encode(self, views, draw, training=True):
    del draw
    embedded = self.embed(tf.concat(views, 0), training)
    h1, h2 = tf.split(self.location(embedded['projection']), 2)
    # One tensor per view: the rows of chunks can then be joined in order.
    probed = tf.split(self.probed(embedded), 2)
    return {'projection': (h1, h2), 'probed': tuple(probed)}

  def features(self, embeddings):
    """What the probe reads, of both views, without gradient."""
    return tf.stop_gradient(tf.concat(embeddings['probed'], 0))

  def location(self, projection):
    """A projection -> where on the sphere (or in space) its view lies."""
    return tf.math.l2_normalize(projection, -1)

  def keys(self, h1, h2):
    """Every replica's rows of both views, and where the local ones begin."""
    offset = replicas.replica_id() * h1.shape[0]
    return replicas.all_gather(h1), replicas.all_gather(h2), offset


class Teacher(Method):
  """An online encoder and its EMA twin, each seeing one view at a time."""

  def make_heads(self, cfg):
    # The twin starts from its own random weights, as published, and stays out
    # of trained(): trainable=False would freeze its batch statistics too.
    self.target_encoder = make_encoder(self.plan)
    self.target_projector = make_projector(cfg)
    self.ema = schedules.ema_ramp(
      cfg.ema_alpha, self.plan.total, cfg.ema_schedule == 'constant'
    )

  def target(self, view, training):
    """The twin's normalised projection of a view, without gradient."""
    h = self.target_encoder(view, training=training)
    y = self.target_projector(h, training=training)[-1]
    return tf.stop_gradient(tf.math.l2_normalize(y, -1))

  def twins(self):
    """-> (the online layers, their twins in the same order)."""
    online = [self.encoder, self.projector]
    return online, [self.target_encoder, self.target_projector]

  def after_update(self, step, carry):
    del carry
    model.update_ema(*self.twins(), self.ema(step))
