"""LAMB on the legacy stack: scripts/test_legacy.sh runs it there by name."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from cvr.configs.config import Config
from cvr.training import optimizers
from cvr.training.step import make_state
from small_data import plan_of


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'])
@pytest.mark.parametrize('replicas', [1, 2])
def test_lamb_decays_kernels_alone_and_follows_the_schedule(
  tiny_encoder, policy, replicas
):
  """No gradient, so the update is decay * w, and the ratio 1 / decay."""
  cfg = Config(
    optimizer='lamb', weight_decay=0.1, learning_rate=1.0, image_size=16,
    resnet_depth=18, proj_head_hidden_dim=16, proj_out_dim=8,
    train_batch_size=256, pretrain_loss='byol_ceb',
  )  # fmt: skip
  keras.mixed_precision.set_global_policy(policy)
  strategy = tf.distribute.MirroredStrategy(
    [f'CPU:{i}' for i in range(replicas)]
  )
  try:
    with strategy.scope():
      state = make_state(plan_of(cfg, 100, warmup=5))
    groups = optimizers.make_groups(state.method, state.probe)
    before = [v.numpy() for v in groups.trained]

    @tf.function
    def step():
      def apply():
        zeros = [tf.zeros(v.shape) for v in groups.trained]
        optimizers.apply_gradients(state.optimizer, zeros, groups.trained)

      strategy.run(apply)

    step()  # Step 0 of the warm-up: the rate is 0.
    for v, old in zip(groups.trained, before, strict=True):
      np.testing.assert_array_equal(v.numpy(), old)
    step()  # Step 1 of 5: 0.2.
  finally:
    keras.mixed_precision.set_global_policy('float32')
  decayed = {v.ref() for v in groups.decayed + groups.probe_kernels}
  for v, old in zip(groups.trained, before, strict=True):
    factor = 0.8 if v.ref() in decayed else 1.0
    np.testing.assert_allclose(v.numpy(), factor * old, rtol=1e-5)
