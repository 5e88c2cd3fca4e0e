"""LARS (You et al., 2017): the rule as a pure function, and a Keras optimizer.

Four variants, from two choices: `classic` puts the learning rate and the trust
ratio inside the momentum, popular implementations put them after it; each with
or without Nesterov's look-ahead.
"""

import tensorflow as tf
import tf_keras as keras


def _norm(x):
  # As tf.norm, in half as many operations: there are two for each variable.
  return tf.sqrt(tf.reduce_sum(x * x))


def trust_ratio(weight, update, eta, clip_at=None):
  """eta ||w|| / ||u||, or 1 where either norm is 0; clipped as in LARC."""
  weight_norm, update_norm = _norm(weight), _norm(update)
  ratio = eta * weight_norm / tf.where(update_norm > 0, update_norm, 1.0)
  if clip_at is not None:
    ratio = tf.minimum(ratio / clip_at, 1.0)
  return tf.where((weight_norm > 0) & (update_norm > 0), ratio, 1.0)


def lars_update(
  weight,
  gradient,
  velocity,
  *,
  learning_rate,
  momentum=0.9,
  weight_decay=0.0,
  eta=1e-3,
  adapt=True,
  classic=True,
  nesterov=False,
  clip=False,
):
  """One step of LARS on one variable -> (new weight, new velocity).

  weight_decay is 0 and adapt False for the variables excluded from both:
  biases, batch normalisation, the linear probe.
  """
  # Read once, and without operations that change nothing: each of them takes
  # time before the first step, for every variable.
  weight = tf.convert_to_tensor(weight)
  velocity = tf.convert_to_tensor(velocity)
  if tf.is_tensor(weight_decay) or weight_decay:
    gradient = gradient + weight_decay * weight

  def scaled(update):
    if not adapt:
      return learning_rate * update
    # LARC: the layer's rate never exceeds the global one. At rate 0 (the first
    # step of a warm-up) nothing moves, whatever the ratio.
    clip_at = tf.maximum(learning_rate, 1e-12) if clip else None
    trust = trust_ratio(weight, update, eta, clip_at)
    return learning_rate * trust * update

  if classic:
    step = scaled(gradient)
    velocity = momentum * velocity + step
    update = momentum * velocity + step if nesterov else velocity
  else:
    velocity = momentum * velocity + gradient
    ahead = momentum * velocity + gradient if nesterov else velocity
    update = scaled(ahead)
  return weight - update, velocity


def _unwrapped(variable):
  """The variable inside the wrapper of mixed precision, or itself."""
  return getattr(variable, '_variable', variable)


def _distributed(variable):
  """The distributed variable that one replica's copy belongs to, or itself."""
  variable = _unwrapped(variable)
  for holder in (variable, variable.handle):
    container = getattr(holder, '_distributed_container', None)
    if container is not None:
      return _unwrapped(container())
  return variable


def among(variables):
  """-> is_among(variable), for any form in which an optimizer receives one."""
  chosen = {_unwrapped(v).ref() for v in variables}
  return lambda variable: _distributed(variable).ref() in chosen


class LARS(keras.optimizers.legacy.Optimizer):
  """lars_update for every variable; the state is one slot named Momentum."""

  def __init__(
    self, learning_rate, *, weight_decay=0.0, decayed=(), name='LARS', **rule
  ):
    """decayed: the variables that get weight decay and a trust ratio.

    weight_decay: a number, or a function of the step.
    """
    super().__init__(name)
    self._set_hyper('learning_rate', learning_rate)
    self._weight_decay = weight_decay
    self._is_decayed = among(decayed)
    self._rule = rule

  def _create_slots(self, var_list):
    for variable in var_list:
      self.add_slot(variable, 'Momentum')

  def _prepare_local(self, var_device, var_dtype, apply_state):
    """What all variables share: schedules are traced once, not for each."""
    super()._prepare_local(var_device, var_dtype, apply_state)
    decay = self._weight_decay
    decay = decay(self.iterations) if callable(decay) else decay
    apply_state[var_device, var_dtype]['decay'] = decay

  def _resource_apply_dense(self, grad, var, apply_state=None):
    adapt = self._is_decayed(var)
    velocity = self.get_slot(var, 'Momentum')
    key = var.device, var.dtype.base_dtype
    shared = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
    weight, moved = lars_update(
      var,
      grad,
      velocity,
      learning_rate=shared['lr_t'],
      weight_decay=shared['decay'] if adapt else 0.0,
      adapt=adapt,
      **self._rule,
    )
    return tf.group(var.assign(weight), velocity.assign(moved))

  def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
    raise ValueError('LARS needs dense gradients')

  def get_config(self):
    """Keras asks for it; a run is rebuilt from its own config.json."""
    return {'name': self._name, **self._rule}
