"""Exports: the same model elsewhere, without a line of ours.

PyTorch's part is in test_torch.py.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import model
import resnet
import run
from cvr.checkpoints import saving
from cvr.configs import config
from cvr.data import sources
from cvr.exports import export
from cvr.training import start
from cvr.training.step import make_state
from exported_models import SIZE, blocks, expected, pictures, trained
from small_data import plan_of


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
  monkeypatch.setitem(resnet.BLOCKS, 18, (False, (1, 1, 1, 1)))
  monkeypatch.setitem(resnet.BLOCKS, 50, (True, (2, 1, 1, 1)))


def alone(folder, code):
  """Runs code where nothing of ours can be imported -> what it printed."""
  done = subprocess.run(
    [sys.executable, '-I', '-c', code],
    cwd=folder,
    capture_output=True,
    text=True,
    env={'TF_CPP_MIN_LOG_LEVEL': '3', 'CUDA_VISIBLE_DEVICES': ''},
  )
  assert done.returncode == 0, done.stderr
  return done.stdout, done.stderr


LOAD = 'import numpy as np\nimages = np.load("images.npy")\n'
SHOW = 'np.save("features.npy", np.array(features))\n'

# Backbones, heads and probes that differ in what is written.
KINDS = {
  'plain': {},
  'bottleneck': dict(depth=50, ft_proj_selector=-1, proj_head_output_bn=True),
  'selective': dict(depth=50, layers={'sk_ratio': 0.0625}),
  'squeeze': dict(layers={'se_ratio': 0.25, 'stem': 'small'}),
  'small images': dict(
    layers={'stem': 'cifar'},
    batch_image_augmentation_type='simclr',
    classes=0,
  ),
  'byol': dict(pretrain_loss='byol_ceb', proj_head_mode='linear'),
}
PLACES = {
  'saved_model': 'saved_model',
  'keras': 'model.keras',
  'onnx': 'model.onnx',
}


def read_back(kind, path):
  """What users do -> a function of images."""
  if kind == 'saved_model':
    return tf.saved_model.load(path)
  if kind == 'keras':
    import keras

    return keras.models.load_model(path)
  import onnxruntime

  session = onnxruntime.InferenceSession(path)
  names = [output.name for output in session.get_outputs()]

  def network(images):
    found = session.run(None, {'images': images})
    return dict(zip(names, found, strict=True))

  return network


CASES = [('keras', kind) for kind in KINDS]  # Written layer by layer.
CASES += [('saved_model', kind) for kind in ('selective', 'small images')]
CASES += [('onnx', kind) for kind in ('selective', 'byol')]


@pytest.mark.parametrize('kind_of_file, kind', CASES)
def test_an_export_is_the_same_model(monkeypatch, tmp_path, kind, kind_of_file):
  exported = trained(monkeypatch, **KINDS[kind])
  said = []
  export.export(kind_of_file, str(tmp_path), exported, said.append)
  network = read_back(kind_of_file, str(tmp_path / PLACES[kind_of_file]))
  # Another number of images of another size than those it was checked with.
  for size in (SIZE, 40):
    images = pictures(size=size)
    ours, theirs = expected(exported, images), network(images)
    assert ours.keys() <= theirs.keys()
    for name, value in ours.items():
      scale = np.abs(value).max()
      assert scale > 1e-3
      np.testing.assert_allclose(
        np.array(theirs[name]) / scale, value / scale, atol=1e-5, err_msg=name
      )
  assert 'Read back and compared' in said[0]
  report = json.loads((tmp_path / f'{kind_of_file}_parity.json').read_text())
  assert report['export'] == PLACES[kind_of_file]
  assert all(
    e['difference'] < 1e-5 * e['largest'] for e in report['endpoints'].values()
  )


def test_the_endpoints_of_a_saved_model_have_the_published_names(
  monkeypatch, tmp_path
):
  exported = trained(monkeypatch)
  export.export('saved_model', str(tmp_path), exported, print)
  found = tf.saved_model.load(str(tmp_path / 'saved_model'))(pictures(2, 64))
  assert {name: value.shape.as_list() for name, value in found.items()} == {
    'initial_conv': [2, 32, 32, 8],
    'initial_max_pool': [2, 16, 16, 8],
    'block_group1': [2, 16, 16, 8],
    'block_group2': [2, 8, 8, 16],
    'block_group3': [2, 4, 4, 32],
    'block_group4': [2, 2, 2, 64],
    'final_avg_pool': [2, 64],
    'proj_head_input': [2, 64],
    'proj_head_output': [2, 6],
    'supervised_head_input': [2, 64],
    'logits_sup': [2, 3],
  }


def test_a_saved_model_learns_in_a_process_without_our_code(
  monkeypatch, tmp_path
):
  exported = trained(monkeypatch)
  export.export('saved_model', str(tmp_path / 'exports'), exported, print)
  np.save(tmp_path / 'images.npy', pictures(6))
  first, second = blocks('TensorFlow')
  code = (
    f'{LOAD}labels = np.array([0, 1, 2] * 2)\n{first}{SHOW}{second}'
    'print(len(model.variables), len(model.trainable_variables))\n'
    'old = [v.numpy() for v in model.variables]\n'
    'model(images)\n'
    'changed = [(v.numpy() != o).any() for v, o in zip(model.variables, old)]\n'
    'print(sum(changed))\n'
    'model(images, trainable=True)\n'
    'changed = [(v.numpy() != o).any() for v, o in zip(model.variables, old)]\n'
    'print(sum(changed))\n'
    'print(*losses)\n'
  )
  out, err = alone(tmp_path, code)
  counts, still, moved, losses = out.splitlines()
  method, probe = exported.state.method, exported.state.probe
  layers = (method.encoder, method.projector, probe)
  everything = [v for layer in layers for v in layer.variables]
  learned = [v for layer in layers for v in layer.trainable_variables]
  assert counts == f'{len(everything)} {len(learned)}'
  # Evaluation moves nothing, training the two statistics of every norm.
  assert int(still) == 0
  assert int(moved) == len(everything) - len(learned)
  before, between, after = map(float, losses.split())
  assert after < between < before
  assert 'custom gradient' not in err
  np.testing.assert_allclose(
    np.load(tmp_path / 'features.npy'),
    expected(exported, pictures(6))['final_avg_pool'],
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize(
  'kind, chapter', [('onnx', 'ONNX'), ('keras', 'Keras')]
)
def test_the_documented_lines_give_our_features(
  monkeypatch, tmp_path, kind, chapter
):
  exported = trained(monkeypatch)
  export.export(kind, str(tmp_path / 'exports'), exported, print)
  np.save(tmp_path / 'images.npy', pictures())
  (code,) = blocks(chapter)
  alone(tmp_path, LOAD + code + SHOW)
  np.testing.assert_allclose(
    np.load(tmp_path / 'features.npy'),
    expected(exported, pictures())['final_avg_pool'],
    rtol=1e-4,
    atol=1e-5,
  )


# torchvision's names --------------------------------------------------------


def safetensors(folder):
  import safetensors.numpy

  (path,) = folder.glob('*.safetensors')
  return safetensors.numpy.load_file(path)


def test_names_and_layouts_are_torchvisions(monkeypatch, tmp_path):
  exported = trained(monkeypatch, depth=50)
  export.export('safetensors', str(tmp_path), exported, print)
  found = safetensors(tmp_path)
  method, probe = exported.state.method, exported.state.probe
  block = method.encoder.stages[2].blocks[0]
  np.testing.assert_array_equal(
    found['layer2.0.conv2.weight'],
    block.branch[1].conv.kernel.numpy().transpose(3, 2, 0, 1),
  )
  np.testing.assert_array_equal(
    found['layer2.0.downsample.1.running_var'],
    block.shortcut.norm.moving_variance.numpy(),
  )
  np.testing.assert_array_equal(
    found['fc.weight'], probe.dense.kernel.numpy().T
  )
  assert found['bn1.num_batches_tracked'].dtype == np.int64
  # A stem, five blocks of three and four shortcuts; fc.
  convs = 1 + 5 * 3 + 4
  assert len(found) == convs + 5 * convs + 2


def test_a_probe_on_the_projection_is_left_out(monkeypatch, tmp_path):
  exported = trained(monkeypatch, ft_proj_selector=-1)
  export.export('safetensors', str(tmp_path), exported, print)
  assert not any(name.startswith('fc') for name in safetensors(tmp_path))
  report = json.loads((tmp_path / 'safetensors_parity.json').read_text())
  assert report['endpoints'].keys() == {'final_avg_pool'}


@pytest.mark.parametrize('layers', [{'sk_ratio': 0.0625}, {'se_ratio': 0.25}])
def test_what_torchvision_has_no_names_for_is_refused(
  monkeypatch, tmp_path, layers
):
  exported = trained(monkeypatch, depth=50, layers=layers)
  with pytest.raises(ValueError, match='no names for selective kernels'):
    export.export('safetensors', str(tmp_path), exported, print)
  assert list(tmp_path.iterdir()) == []


# What goes wrong -------------------------------------------------------------


def test_the_twin_of_a_head_with_gelu():
  from cvr.exports import keras_twin

  x = np.random.default_rng(0).normal(size=[7, 3]).astype('float32')
  mlp = model.MLP(3, 5, 4, mid_bn=False, activation='gelu')
  expected = mlp(x)[-1]
  first = y = keras_twin.keras.Input([3])
  for layer in mlp.layers_out:
    y = keras_twin._linear(y, layer)
  found = keras_twin.keras.Model(first, y)(x)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_export_that_differs_is_not_delivered(monkeypatch, tmp_path):
  exported = trained(monkeypatch)

  def wrong(folder, model):
    path, network = export._keras(folder, model)
    return path, lambda x: {k: 1.01 * v for k, v in network(x).items()}

  monkeypatch.setitem(export.FORMATS, 'keras', wrong)
  with pytest.raises(AssertionError, match='model.keras read back is another'):
    export.export('keras', str(tmp_path), exported, print)
  assert list(tmp_path.iterdir()) == []


def test_nan_is_a_difference(monkeypatch, tmp_path):
  exported = trained(monkeypatch)
  exported.state.probe.dense.bias.assign([np.nan] * 3)
  with pytest.raises(AssertionError, match='is another model'):
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


def test_learned_deviations_have_no_place_in_the_released_layout(
  monkeypatch, tmp_path
):
  exported = trained(
    monkeypatch,
    pretrain_loss='contrastive_ceb',
    ceb_distribution='gaussian',
    gaussian_scale='learned',
  )
  with pytest.raises(ValueError, match='no place for learned deviations'):
    export.export('released', str(tmp_path), exported, print)


def test_other_methods_have_no_place_in_the_released_layout(
  monkeypatch, tmp_path
):
  exported = trained(monkeypatch)
  found = exported.found._replace(methods=('moco',))
  exported = exported._replace(found=found)
  with pytest.raises(ValueError, match='and this checkpoint of moco'):
    export.export('released', str(tmp_path), exported, print)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', ['safetensors', 'keras', 'released'])
def test_who_names_one_network_gets_no_two(monkeypatch, tmp_path, kind):
  exported = trained(
    monkeypatch, pretrain_loss='cmc', view_pairs='lab_l,lab_ab'
  )
  with pytest.raises(ValueError, match=f'--format={kind}: .* saved_model'):
    export.export(kind, str(tmp_path), exported, print)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
  exported = trained(monkeypatch)
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
