"""Exports: the same model elsewhere, without a line of ours."""

import sys

import numpy as np
import pytest
import tensorflow as tf

import run
from cvr.checkpoints import saving
from cvr.configs import config
from cvr.data import sources
from cvr.exports import export
from cvr.exports import keras as keras_export
from cvr.training import start
from cvr.training.step import make_state
from exported_models import trained
from small_data import plan_of


def test_an_export_that_differs_is_not_delivered(
  written, monkeypatch, tmp_path
):
  made = written('keras', 'plain')
  path = str(made.folder / 'model.keras')
  network = keras_export.keras.models.load_model(path)

  def wrong(folder, model):
    return path, lambda x: {k: 1.01 * v for k, v in network(x).items()}

  monkeypatch.setattr(keras_export, 'write', wrong)
  with pytest.raises(
    AssertionError, match='model.keras was read back and differs'
  ):
    export.export('keras', str(tmp_path), made.model, print)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures('few_blocks')
def test_nan_is_a_difference(monkeypatch, tmp_path):
  exported = trained(monkeypatch)
  exported.state.probe.dense.bias.assign([np.nan] * 3)
  with pytest.raises(AssertionError, match='differs from the model'):
    export.export('keras', str(tmp_path), exported, print)


def test_files_for_a_bucket_lie_right_below_it(monkeypatch, tmp_path):
  """Object names are not normalised: a/./b is not a/b."""
  (tmp_path / 'saved_model').mkdir()
  for name in ('parity.npz', 'saved_model/x.pb'):
    (tmp_path / name).write_bytes(b'')
  copied = []
  monkeypatch.setattr(tf.io.gfile, 'makedirs', lambda path: None)
  monkeypatch.setattr(
    tf.io.gfile, 'copy', lambda source, target, overwrite: copied.append(target)
  )
  export._copy(str(tmp_path), 'gs://b/out')
  assert copied == ['gs://b/out/parity.npz', 'gs://b/out/saved_model/x.pb']


@pytest.mark.usefixtures('few_blocks')
def test_formats_of_one_network_refuse_two(monkeypatch, tmp_path):
  exported = trained(
    monkeypatch, pretrain_loss='cmc', view_pairs='lab_l,lab_ab'
  )
  for kind in ('safetensors', 'keras', 'released'):
    with pytest.raises(ValueError, match=f'--format={kind}: .* saved_model'):
      export.export(kind, str(tmp_path), exported, print)


def test_a_missing_package_is_named(written, monkeypatch, tmp_path):
  exported = written('keras', 'plain').model
  monkeypatch.setitem(sys.modules, 'tf2onnx', None)
  with pytest.raises(ValueError, match=r'pip install -e "\.\[export\]"'):
    export.export('onnx', str(tmp_path), exported, print)


def test_the_flag_names_every_format():
  (field,) = [
    f for f in config.Config.__dataclass_fields__.values() if f.name == 'format'
  ]
  assert set(field.metadata['choices']) == export.FORMATS.keys()


def test_exporting_a_run(tmp_path, tiny_encoder, capsys):
  where = str(tmp_path / 'run')
  cfg = config.Config(
    resnet_depth=18,
    image_size=16,
    proj_head_hidden_dim=8,
    proj_out_dim=4,
    pretrain_loss='byol',
    precision='bf16',  # The export is in float32 all the same.
  )
  state = make_state(plan_of(cfg, 1))
  info = sources.DatasetInfo('x', 'train', 3, ('a', 'b', 'c'))
  record = start.record(cfg, ['run.py'], info)
  record = saving.Record(record)  # No config.json: a copied checkpoint.
  saving.Checkpoints(where, record=record, **state.items()).save(1)
  out = tmp_path / 'out'
  asked = ['run.py', '--mode=export', f'--checkpoint={where}']
  assert run.main([*asked, f'--output={out}']) == 0
  assert f'{where}/ckpt-1 -> {out}/saved_model' in capsys.readouterr().out
  names = {path.name for path in out.iterdir()}
  assert names == {'saved_model', 'parity.npz', 'saved_model_parity.json'}
  with np.load(out / 'parity.npz') as file:
    images, ours = file['images'], file['final_avg_pool']
  theirs = tf.saved_model.load(str(out / 'saved_model'))(images)
  np.testing.assert_allclose(theirs['final_avg_pool'], ours, rtol=1e-4)
  assert run.main(['run.py', '--mode=inspect', f'--checkpoint={where}']) == 0
  shown = capsys.readouterr().out
  assert 'ours: byol, step 1' in shown and '3: a, b, c' in shown
  assert '--pretrain_loss=byol' in shown and '--precision=bf16' in shown
  assert '--kappa_e' not in shown  # At its default.
