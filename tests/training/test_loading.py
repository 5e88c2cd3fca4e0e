"""What a config.json asks for, against what its checkpoint can hold."""

import pytest
import tensorflow as tf

from cvr.checkpoints.files import CheckpointError
from cvr.configs.config import Config
from cvr.training import loading
from saved_runs import saved_run

_RUN = {'proj_head_hidden_dim': 512, 'proj_out_dim': 128}


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'proj_head_hidden_dim': 10**5}, 'hidden_dim=100000, .* need 40.0 GB'),
    ({'proj_out_dim': 2 * 10**6}, '--proj_out_dim=2000000, '),
    ({'pretrain_loss': 'swav', 'num_prototypes': 10**7}, 'need 5.1 GB'),
    ({'pretrain_loss': 'moco', 'queue_size': 2**27}, '--queue_size=134217728'),
    ({'pretrain_loss': 'deepcluster', 'num_heads': 10**5}, '--num_heads='),
    ({'pretrain_loss': 'stochcon_bernoulli', 'latent_dim': 10**7}, 'latent_'),
  ],
)
def test_nothing_is_made_that_no_checkpoint_of_this_size_holds(
  tmp_path, monkeypatch, changes, says
):
  saved_run(tmp_path)
  monkeypatch.setattr(loading, 'make_plan', None)
  with pytest.raises(CheckpointError, match=says):
    checkpoint = loading.identify(Config(model_dir=str(tmp_path)))
    loading.untrained(Config(**_RUN | changes), None, checkpoint)


def test_the_evaluator_of_a_run_asks_its_newest_checkpoint(
  folder, tmp_path, monkeypatch
):
  saved_run(tmp_path)
  monkeypatch.setattr(loading, 'make_state', None)
  cfg = Config(
    model_dir=str(tmp_path), dataset=f'folder:{folder}', proj_out_dim=2 * 10**6
  )
  with pytest.raises(CheckpointError, match='--proj_out_dim=2000000, '):
    loading.rebuild(cfg, tf.distribute.get_strategy())


@pytest.mark.parametrize('harm', ['cut', 'deleted'])
def test_the_evaluator_of_a_run_begins_beside_a_damaged_checkpoint(
  folder, tmp_path, monkeypatch, harm
):
  """The trainer may delete the newest one while it is looked at."""
  saved_run(tmp_path)
  last = loading.files.steps(str(tmp_path))[-1]
  index = tmp_path / f'ckpt-{last}.index'
  if harm == 'cut':
    index.write_bytes(index.read_bytes()[:100])
  else:
    monkeypatch.setattr(loading.files, 'steps', lambda _: [last])
    index.unlink()
  monkeypatch.setattr(loading, 'make_state', lambda plan: 'built')
  cfg = Config(model_dir=str(tmp_path), dataset=f'folder:{folder}', **_RUN)
  state, _ = loading.rebuild(cfg, tf.distribute.get_strategy())
  assert state == 'built'


@pytest.mark.parametrize('path_bytes', [0, 10**10])
def test_what_a_checkpoint_can_hold_is_made(monkeypatch, path_bytes):
  """The published projector of VICReg needs its checkpoint's gigabytes."""
  monkeypatch.setattr(loading.bundle, 'size_of_data', lambda path: path_bytes)
  cfg = Config(pretrain_loss='vicreg', proj_head_hidden_dim=16384)
  if path_bytes:
    loading.check_sizes(cfg, 'ckpt-1')
  else:
    with pytest.raises(CheckpointError, match='ckpt-1 is too small'):
      loading.check_sizes(cfg, 'ckpt-1')
