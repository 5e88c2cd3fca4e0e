"""The rows of facts agree with the classes, and with the flags they read."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from cvr import methods
from cvr.configs.config import Config
from cvr.configs.methods import KINDS, OWN_FLAGS, SWITCHES, has_teacher, using
from cvr.configs.settings import FIELDS
from cvr.methods.skeletons import Teacher
from small_data import plan_of
from tiny_methods import BATCH, make_batch, tiny


def test_both_tables_have_the_same_methods():
  assert list(KINDS) == list(methods.METHODS)
  for name, kind in methods.METHODS.items():
    assert kind.__module__ == f'cvr.methods.{KINDS[name].family}', name
    assert issubclass(kind, Teacher) == has_teacher(name), name


def test_rows_name_flags_that_there_are():
  for name, kind in KINDS.items():
    assert {*kind.uses, *kind.small} <= {*FIELDS}, name
    assert {*kind.switches} <= {*SWITCHES}, name
    # What a short run sets, the method reads, if only some methods do.
    assert {*kind.small} & {*OWN_FLAGS} <= {*kind.uses}, name


def test_who_uses_a_flag():
  assert using('centring') == ('dino', 'er_dino')
  assert using('learning_rate') == ()


class Recording(Config):
  """A Config that writes down which of its fields are read."""

  def __getattribute__(self, name):
    read = object.__getattribute__(self, '__dict__').get('read')
    if read is not None and name in FIELDS:
      # The line `self.cfg.x` of a method, not what a library makes of it.
      read.add(name)
    return super().__getattribute__(name)


@functools.cache
def reads(name):
  """The flags that a method reads, with either distribution of a CEB."""
  return _reads(name, 'vmf') | _reads(name, 'gaussian')


def _reads(name, distribution):
  """The flags that a method reads when it is built and takes a step."""
  plan = plan_of(Recording(**vars(tiny(name, distribution))), examples=BATCH)
  object.__setattr__(plan.cfg, 'read', set())
  method = methods.make_method(plan)
  step = tf.constant(3, tf.int64)
  batch = make_batch(np.random.default_rng(0))
  embeddings = method.encode(batch['views'], step)
  index = {'index': batch['index']}
  output = method.objective(embeddings | index, step)
  method.held(step), method.steady(), method.chance()
  method.after_update(step, output.carry)
  if method.needs_first_pass:
    method.observe(embeddings | index)
    method.on_epoch(tf.constant(0, tf.int64))
  return frozenset(plan.cfg.read)


# Read where a Plan is made.
ELSEWHERE = {'centring', 'queue_start'}
# A Gaussian is sampled at no temperature, although its schedule is made.
IN_VAIN = {
  'stochcon_gaussian': {'latent_temperature', 'latent_temperature_end'}
}


@pytest.mark.parametrize('name', KINDS)
def test_a_row_names_the_flags_of_its_own_that_a_method_reads(
  name, tiny_encoder
):
  own = {*OWN_FLAGS}
  found = reads(name) & own - IN_VAIN.get(name, set())
  assert found == {*KINDS[name].uses} - ELSEWHERE


def test_a_flag_that_some_methods_read_alone_stands_in_their_rows(
  tiny_encoder,
):
  every = frozenset.intersection(*map(reads, KINDS))
  some = frozenset.union(*map(reads, KINDS)) - every
  # The rest has an effect with other settings, or in shared code that not all
  # methods call.
  shared = {
    *('proj_out_dim', 'proj_head_hidden_dim', 'num_proj_layers'),
    *('train_batch_size', 'seed', 'centre_momentum'),
  }
  assert some - {*OWN_FLAGS} <= shared
