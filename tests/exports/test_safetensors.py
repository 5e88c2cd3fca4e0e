"""Names and layouts of torchvision; PyTorch itself is in test_torch.py."""

import json

import numpy as np
import pytest
import safetensors.numpy

from cvr.exports import export
from exported_models import trained

pytestmark = pytest.mark.usefixtures('few_blocks')


def tensors_in(folder):
  (path,) = folder.glob('*.safetensors')
  return safetensors.numpy.load_file(path)


def test_names_and_layouts_are_torchvisions(monkeypatch, tmp_path):
  exported = trained(monkeypatch, depth=50)
  export.export('safetensors', str(tmp_path), exported, print)
  tensors = tensors_in(tmp_path)
  method, probe = exported.state.method, exported.state.probe
  block = method.encoder.stages[2].blocks[0]
  np.testing.assert_array_equal(
    tensors['layer2.0.conv2.weight'],
    block.branch[1].conv.kernel.numpy().transpose(3, 2, 0, 1),
  )
  np.testing.assert_array_equal(
    tensors['layer2.0.downsample.1.running_var'],
    block.shortcut.norm.moving_variance.numpy(),
  )
  np.testing.assert_array_equal(
    tensors['fc.weight'], probe.dense.kernel.numpy().T
  )
  assert tensors['bn1.num_batches_tracked'].dtype == np.int64
  # A stem, five blocks of three and four shortcuts; fc.
  convs = 1 + 5 * 3 + 4
  assert len(tensors) == convs + 5 * convs + 2


@pytest.mark.parametrize('normalised', [True, False])
def test_other_channels_are_in_the_first_kernel_and_in_the_metadata(
  monkeypatch, tmp_path, normalised
):
  kind = 'byol' if normalised else 'simclr'
  exported = trained(
    monkeypatch, channels=5, batch_image_augmentation_type=kind
  )
  export.export('safetensors', str(tmp_path), exported, print)
  kernel = exported.state.method.encoder.stages[0].convs[0].conv.kernel.numpy()
  assert kernel.shape == (7, 7, 5, 8)
  np.testing.assert_array_equal(
    tensors_in(tmp_path)['conv1.weight'], kernel.transpose(3, 2, 0, 1)
  )
  (path,) = tmp_path.glob('*.safetensors')
  with safetensors.safe_open(path, 'np') as file:
    about = file.metadata()
  assert about['input'].startswith('5 channels in [0, 1]')
  mean, std = (json.loads(about[name]) for name in ('mean', 'std'))
  assert mean == [0.449 if normalised else 0.0] * 5
  assert std == [0.226 if normalised else 1.0] * 5


def test_a_probe_on_the_projection_is_left_out(monkeypatch, tmp_path):
  exported = trained(monkeypatch, ft_proj_selector=-1)
  export.export('safetensors', str(tmp_path), exported, print)
  assert not any(name.startswith('fc') for name in tensors_in(tmp_path))
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


def test_the_published_shortcut_is_refused(monkeypatch, tmp_path):
  """torchvision's ResNet-18 has no layer1.0.downsample."""
  exported = trained(monkeypatch, layers={'shortcut': 'published'})
  with pytest.raises(ValueError, match='--shortcut=torchvision'):
    export.export('safetensors', str(tmp_path), exported, print)
  assert list(tmp_path.iterdir()) == []
  export.export('keras', str(tmp_path), exported, print)
