"""No step adds three tensors in an order that a race decides (see sums.py).

With EVERY_METHOD=1 in the environment, as scripts/chaos.py has it, of all
methods, which takes minutes.
"""

import os

import numpy as np
import pytest
import tensorflow as tf

from cvr.configs.methods import KINDS
from tiny_methods import Traced, make_batch, tiny, whole_resnet, wide_sums

METHODS = KINDS if 'EVERY_METHOD' in os.environ else ['contrastive_ceb']


@pytest.fixture
def as_in_training():
  """What runs do with TensorFlow's optimisations (training/start.py)."""
  before = tf.config.optimizer.get_experimental_options()
  tf.config.optimizer.set_experimental_options(
    {'arithmetic_optimization': False}
  )
  yield
  tf.config.optimizer.set_experimental_options(
    {'arithmetic_optimization': True} | before
  )


@pytest.mark.parametrize('replicas', [1, 2])
@pytest.mark.parametrize('name', METHODS)
def test_the_step_of_resnet_18(name, replicas, two_replicas, as_in_training):
  strategy = two_replicas if replicas == 2 else None
  step = Traced(tiny(name, weight_decay=1e-3), strategy, whole_resnet)
  batch = make_batch(np.random.default_rng(0))
  traced = step.graph(batch)
  convolutions = [o for o in traced.get_operations() if o.type == 'Conv2D']
  assert len(convolutions) >= 20 * replicas
  graphs = step.optimised(batch)
  assert graphs
  assert [n for graph in [traced, *graphs] for n in wide_sums(graph)] == []
