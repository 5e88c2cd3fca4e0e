"""Which optimizer a run has, at which rates, what it moves and what stays."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras as keras

import model
import objectives
from cvr.configs import config
from cvr.numerics import schedules
from lars_optimizer import LARS, among


class Groups(NamedTuple):
  """The trained variables, and which of them the optimizer decays."""

  trained: list
  decayed: list  # kernels of the method
  probe_kernels: list
  penalised: list  # everything but batch normalisation


def make_groups(method, probe):
  """Explicit groups by layer type; nothing is found by its name."""
  body = model.variable_groups(*method.trained())
  head = model.variable_groups(*([probe] if probe else []))
  everything = (
    body.kernels + body.biases + body.norms + head.kernels + head.biases
  )
  return Groups(
    trained=everything,
    decayed=body.kernels,
    probe_kernels=head.kernels,
    penalised=body.kernels + body.biases + head.kernels + head.biases,
  )


class _Rate(keras.optimizers.schedules.LearningRateSchedule):
  """A closure step -> value as Keras wants it."""

  def __init__(self, schedule):
    self.schedule = schedule

  def __call__(self, step):
    return self.schedule(step)

  def get_config(self):
    return {}


class _AdamW(keras.optimizers.AdamW):
  """AdamW whose weight decay is a function of the step."""

  def __init__(self, rate, decay):
    self._decay = decay
    super().__init__(rate, jit_compile=False)

  @property
  def weight_decay(self):
    return self._decay(self.iterations)

  @weight_decay.setter
  def weight_decay(self, constant):
    """Keras' default is not wanted."""


def learning_rate(plan):
  """The run's schedule, step -> rate."""
  return schedules.warmup_cosine(
    plan.peak_rate,
    plan.warmup,
    plan.total,
    constant=plan.cfg.learning_rate_schedule == 'constant',
    start=plan.start_rate,
    end=plan.final_rate,
  )


def weight_decay(plan):
  """The run's schedule, step -> weight decay."""
  decay, final = plan.cfg.weight_decay, plan.cfg.final_weight_decay
  if not final:
    return lambda step: decay
  return schedules.cosine(decay, final, plan.total)


def make_optimizer(cfg, groups, schedule, decay):
  """The optimizer that the configuration names, its slots created.

  schedule, decay: step -> learning rate, weight decay.
  """
  rate = _Rate(schedule)
  legacy = keras.optimizers.legacy
  kernels = groups.decayed + groups.probe_kernels
  if cfg.optimizer == 'lars':
    optimizer = LARS(
      rate,
      weight_decay=decay,
      decayed=groups.decayed,
      momentum=cfg.momentum,
      eta=cfg.lars_eta,
      clip=cfg.lars_clip,
      classic=cfg.lars_classic,
      nesterov=cfg.lars_nesterov,
    )
  elif cfg.optimizer == 'momentum':
    optimizer = legacy.SGD(rate, cfg.momentum, nesterov=cfg.momentum_nesterov)
  elif cfg.optimizer == 'adam':
    optimizer = legacy.Adam(rate)
  elif cfg.optimizer == 'lamb':
    optimizer = _lamb(schedule, cfg.weight_decay, kernels)
  else:
    optimizer = _AdamW(rate, decay)
    decayed = {v.ref() for v in kernels}
    rest = [v for v in groups.trained if v.ref() not in decayed]
    optimizer.exclude_from_weight_decay(var_list=rest)
    optimizer.build(groups.trained)
    return optimizer
  optimizer._create_all_weights(groups.trained)
  return optimizer


def _lamb(schedule, weight_decay, decayed):
  """LAMB of tensorflow-addons; it decays and adapts the `decayed` alone."""
  try:
    from tensorflow_addons.optimizers import LAMB
  except ImportError as error:
    raise config.ConfigError(
      '--optimizer=lamb comes from tensorflow-addons, which runs on the legacy '
      'stack only: pip install -r requirements-legacy.txt (Python 3.10/3.11).'
    ) from error

  is_decayed = among(decayed)

  class Lamb(LAMB):
    def _do_use_weight_decay(self, variable):
      return is_decayed(variable)

    _do_layer_adaptation = _do_use_weight_decay

  # Its Keras is tensorflow's own and takes no schedule of tf_keras.
  optimizer = Lamb(
    lambda: schedule(optimizer.iterations), weight_decay=weight_decay
  )
  return optimizer


def _penalised(cfg, groups):
  """The variables that the optimizer does not decay itself."""
  if cfg.optimizer in ('adamw', 'lamb'):
    return []
  return groups.probe_kernels if cfg.optimizer == 'lars' else groups.penalised


def penalty(cfg, groups, decay):
  """Weight decay as a loss; with_penalty has its gradient."""
  variables = _penalised(cfg, groups)
  if not variables:
    return tf.constant(0.0)
  return decay * objectives.l2_loss(variables)


def with_penalty(cfg, groups, decay, gradients):
  """The gradients of groups.trained, and that of the penalty."""
  decayed = {v.ref() for v in _penalised(cfg, groups)}
  return [
    g + decay * v if v.ref() in decayed else g
    for g, v in zip(gradients, groups.trained, strict=True)
  ]


def held(method, step):
  """{variable.ref(): whether it stays as it is}, of the layers that may."""
  return {
    variable.ref(): stays
    for layer, stays in method.held(step)
    for variable in layer.trainable_variables
  }


def steadied(peak, method, rate, gradients, variables):
  """The gradients, those of method.steady() as if the rate were at its peak.

  It is a factor of each of them in SGD, also within its momentum.
  """
  layers = method.steady()
  steady = {v.ref() for layer in layers for v in layer.trainable_variables}
  factor = tf.math.divide_no_nan(peak, rate)
  return [
    factor * g if v.ref() in steady else g
    for v, g in zip(variables, gradients, strict=True)
  ]


def apply_gradients(optimizer, gradients, variables):
  """Applies gradients that are summed over the replicas already."""
  pairs = list(zip(gradients, variables, strict=True))
  inner = getattr(optimizer, 'inner_optimizer', optimizer)  # of a loss scale
  if isinstance(inner, keras.optimizers.AdamW):
    optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)
  else:
    optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)


def _momentum(optimizer, variable):
  """[its momentum], where the optimizer has one that moves it.

  Not Adam's moments: they have to go on. Their bias is corrected by the number
  of all steps, and what began at 0 later would move it five times too far.
  """
  inner = getattr(optimizer, 'inner_optimizer', optimizer)
  if isinstance(inner, keras.optimizers.AdamW):
    return []
  names = [n for n in inner.get_slot_names() if n not in ('m', 'v')]
  return [inner.get_slot(variable, name) for name in names]


def update(optimizer, gradients, variables, held):
  """apply_gradients, but that some variables and their momentum stay.

  held: {variable.ref(): [] bool}.
  """
  kept = [
    (x, tf.identity(x), held[v.ref()])
    for v in variables
    if v.ref() in held
    for x in (v, *_momentum(optimizer, v))
  ]
  apply_gradients(optimizer, gradients, variables)
  for x, before, stays in kept:
    x.assign(tf.where(stays, before, x))


def scaling(optimizer):
  """-> (what scales a loss, what scales its gradients back), for fp16."""
  if not isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer):
    return (lambda loss: loss), (lambda gradients: gradients)

  def scale(loss):
    def scaled(*args):
      total, *rest = loss(*args)
      return optimizer.get_scaled_loss(total), *rest

    return scaled

  return scale, optimizer.get_unscaled_gradients
