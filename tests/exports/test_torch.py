"""PyTorch reads our backbones: torchvision's and timm's own ResNets."""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip(
  'torch', reason="optional: pip install -e '.[test-torch]'"
)
# The compiled operators of torchvision do not load beside a CPU build of torch,
# and no ResNet needs them.
sys.modules.setdefault(
  'torchvision._meta_registrations', types.ModuleType('none')
)
timm = pytest.importorskip(
  'timm', reason="optional: pip install -e '.[test-torch]'"
)
import torchvision  # noqa: E402

import data_util  # noqa: E402
import exported_models  # noqa: E402
from cvr.exports import export  # noqa: E402
from exported_models import pictures, trained  # noqa: E402

SCRIPT = pathlib.Path(__file__).parents[2] / 'scripts' / 'load_in_torch.py'
spec = importlib.util.spec_from_file_location('load_in_torch', SCRIPT)
load_in_torch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(load_in_torch)

RESNETS = {
  'timm': sys.modules['timm.models.resnet'],
  'torchvision': torchvision.models.resnet,
}


def exported(monkeypatch, folder, **changes):
  """-> (the Trained, its file)."""
  model = trained(monkeypatch, **changes)
  export.export('safetensors', str(folder), model, print)
  (path,) = folder.glob('*.safetensors')
  return model, str(path)


def through(net, images, mean, std):
  images = (images - np.float32(mean)) / np.float32(std)
  with torch.no_grad():
    return net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


def assert_close(theirs, ours):
  scale = np.abs(ours).max()
  np.testing.assert_allclose(theirs / scale, ours / scale, atol=1e-4)


@pytest.mark.parametrize('library', RESNETS)
@pytest.mark.parametrize(
  'changes',
  [
    dict(depth=18),
    dict(depth=50, ft_proj_selector=-1),
    dict(depth=18, layers={'stem': 'cifar'}, classes=0),
    dict(
      depth=50,
      layers={'stem': 'small'},
      batch_image_augmentation_type='simclr',
    ),
  ],
)
def test_their_resnets_give_our_outputs(
  monkeypatch, tmp_path, library, changes
):
  model, path = exported(monkeypatch, tmp_path, **changes)
  net, mean, std = load_in_torch.load(path, RESNETS[library])
  probed = model.state.probe and not changes.get('ft_proj_selector')
  name = 'logits_sup' if probed else 'final_avg_pool'
  # Even and odd after the stem: the max pool pads them differently.
  for size in (64, 65, 67):
    images = pictures(3, size)
    ours = exported_models.expected(model, tf.constant(images))[name]
    assert_close(through(net, images, mean, std), ours)


def test_the_script_compares(monkeypatch, tmp_path, capsys):
  exported(monkeypatch, tmp_path)
  assert load_in_torch.main(str(tmp_path)) == 0
  assert ': timm differs by' in capsys.readouterr().out
  with np.load(tmp_path / 'parity.npz') as file:
    np.savez(tmp_path / 'parity.npz', **{k: 2 * v for k, v in file.items()})
  assert load_in_torch.main(str(tmp_path)) == 1


def test_the_documented_lines_and_what_their_max_pool_is_for(
  monkeypatch, tmp_path
):
  """At full size: timm.create_model('resnet50') and 224 px."""
  folder = tmp_path / 'exports'
  folder.mkdir()
  exact, _ = exported(monkeypatch, folder, depth=50, width=1, image_size=224)
  monkeypatch.chdir(tmp_path)
  load, finetune = exported_models.blocks('PyTorch', 'python.md')
  mean, std = data_util.IMAGENET_MEAN, data_util.IMAGENET_STD
  images = pictures(2, 224)
  ours = exported_models.expected(exact, tf.constant(images))['final_avg_pool']
  images = (images - np.float32(mean)) / np.float32(std)
  scope = {'images': torch.from_numpy(images).permute(0, 3, 1, 2)}
  exec(load, scope)
  assert_close(scope['features'].detach().numpy(), ours)
  # Left as it was, it is another network.
  scope['model'].maxpool = torch.nn.MaxPool2d(3, 2, padding=1)
  theirs = scope['model'](scope['images']).detach().numpy()
  assert np.linalg.norm(theirs - ours) / np.linalg.norm(ours) > 0.01
  before = {k: v.clone() for k, v in scope['model'].state_dict().items()}
  scope['labels'] = torch.tensor([3, 9])
  exec(finetune, scope)
  assert torch.isfinite(scope['loss'])
  after = scope['model'].state_dict()
  # Every weight, and every statistic of a norm.
  assert all((after[k] != v).any() for k, v in before.items())
