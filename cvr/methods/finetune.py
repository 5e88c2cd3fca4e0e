"""Finetuning: the encoder, from a stage on, under the labels' loss alone."""

import tensorflow as tf

from cvr.methods.skeletons import Method, Output
from cvr.methods.stochcon import WithLatent


class Finetune(Method):
  """Trains what is not frozen; the probe's loss is that of the step."""

  @property
  def frozen(self):
    """How many of the encoder's stages (the stem, four groups) are frozen."""
    return self.cfg.fine_tune_after_block + 1

  def embed(self, images, training=False):
    h = self.encoder(images, training=training, frozen=self.frozen)
    # The heads on a frozen backbone are in evaluation mode, too.
    return self.layers_of(h, training and self.frozen < 5)

  def heads(self):
    """The layers between the representation and what the probe reads."""
    used = self.cfg.ft_proj_selector % (len(self.projector.layers_out) + 1)
    return self.projector.layers_out[:used]

  def trained(self):
    if self.frozen >= 5:
      return []
    return [*self.encoder.stages[self.frozen :], *self.heads()]

  def encode(self, views, draw, training=True):
    del draw
    return {'probed': self.probed(self.embed(views[0], training))}

  def objective(self, embeddings, step):
    del step
    return Output(tf.constant(0.0), {}, embeddings['probed'])


class FinetuneLatent(WithLatent, Finetune):
  """The probe reads a stochastic latent, which is drawn in training."""

  def heads(self):
    return [self.latent.projector]

  def encode(self, views, draw, training=True):
    embedded = self.embed(views[0], training)
    if training and self.frozen < 5:
      embedded['code'] = self.sample_latent(embedded['phi'], draw)
    return {'probed': self.probed(embedded)}
