import tracemalloc

import pytest

import released_names
import resnet
from cvr.checkpoints import released_settings
from cvr.checkpoints.released_layout import Mismatch
from released_files import write


@pytest.mark.parametrize('depth', resnet.BLOCKS)
@pytest.mark.parametrize('width', [1, 2, 4])
def test_depth_and_width_follow_from_names_and_shapes(
  tmp_path, monkeypatch, depth, width
):
  shapes = released_names.tensors('byol', depth=depth, width=width)
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  monkeypatch.setattr(released_settings, 'step', lambda path: 7)
  inferred = released_settings.infer('anywhere')
  settings = inferred.settings
  assert settings['resnet_depth'] == depth
  assert settings['width_multiplier'] == width
  assert (settings['sk_ratio'], settings['stem']) == (0.0, 'imagenet')
  assert inferred.methods == ('byol',) and inferred.num_classes == 1000
  assert settings['proj_head_hidden_dim'] == 4096
  assert settings['ft_proj_selector'] == -1
  assert f'BYOL, ResNet-{depth} {width}x' in inferred.describe()


def test_the_shortcut_follows_where_depth_leaves_it_open(monkeypatch):
  shapes = released_names.tensors('byol', depth=18)
  monkeypatch.setattr(released_settings, 'step', lambda path: 7)

  def settings():
    monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
    return released_settings.infer('anywhere').settings

  assert settings()['shortcut'] == 'published'
  first = 'model/_resnet/block_groups/0/layers/0/shortcut_layers/'
  shapes = {k: v for k, v in shapes.items() if not k.startswith(first)}
  assert settings()['shortcut'] == 'torchvision'
  shapes = released_names.tensors('byol', depth=50)
  assert 'shortcut' not in settings()


@pytest.mark.parametrize('sk', [0.0, 0.0625])
def test_channels_are_those_of_the_first_kernel(monkeypatch, sk):
  shapes = released_names.tensors('simclr', sk=sk)
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  monkeypatch.setattr(released_settings, 'step', lambda path: 7)
  inferred = released_settings.infer('anywhere')
  assert inferred.settings['channels'] == 3
  assert 'channels' not in inferred.describe()
  name = 'model/_resnet/initial_conv_relu_max_pool/0/conv2d/kernel'
  height, width, _, filters = shapes[name]
  shapes[name] = (height, width, 4, filters)
  inferred = released_settings.infer('anywhere')
  assert inferred.settings['channels'] == 4
  assert ', --channels=4, imagenet stem' in inferred.describe()


@pytest.mark.parametrize(
  'probe, reads', [((2048, 10), 0), ((4096, 1000), 1), ((256, 7), -1)]
)
def test_the_probe_tells_its_layer_and_its_classes(monkeypatch, probe, reads):
  shapes = released_names.tensors('simclr', probe=probe)
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  monkeypatch.setattr(released_settings, 'step', lambda path: 7)
  inferred = released_settings.infer('anywhere')
  assert inferred.settings['ft_proj_selector'] == reads
  assert inferred.num_classes == probe[1]
  assert inferred.methods == ('contrastive', 'contrastive_ceb')


@pytest.mark.parametrize(
  'change, says',
  [
    (dict(probe=(300, 10)), 'probe reads 300'),
    (dict(width=3), None),
  ],
)
def test_what_fits_no_model_is_said(monkeypatch, change, says):
  shapes = released_names.tensors('simclr', **change)
  if says is None:
    shapes = {n: s for n, s in shapes.items() if '/layers/5/' not in n}
    says = 'not a ResNet'
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  with pytest.raises(Mismatch, match=says):
    released_settings.infer('anywhere')


@pytest.mark.parametrize('sk', [0.0, 0.0625])
@pytest.mark.parametrize(
  'name',
  [
    '_resnet/initial_conv_relu_max_pool/0/conv2d/kernel',
    '_resnet/block_groups/0/layers/0/conv_relu_dropblock_layers/0/conv2d/kernel',
    '_projection_head/linear_layers/0/dense/kernel',
  ],
)
def test_what_the_model_is_read_off_is_named_when_missing(
  monkeypatch, name, sk
):
  shapes = released_names.tensors('simclr', sk=sk)
  del shapes[f'model/{name}']
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  with pytest.raises(Mismatch, match=f'{name} is missing'):
    released_settings.infer('anywhere')


@pytest.mark.parametrize('ratio', [0.0625, 0.25])
def test_selective_kernels_follow_from_their_squeeze(monkeypatch, ratio):
  shapes = released_names.tensors('simclr', width=2, sk=ratio)
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  monkeypatch.setattr(released_settings, 'step', lambda path: 7)
  settings = released_settings.infer('anywhere').settings
  assert (settings['sk_ratio'], settings['stem']) == (ratio, 'imagenet')


@pytest.mark.parametrize('number', ['30000000', '9' * 5000])
@pytest.mark.parametrize(
  'part', ['_projection_head/linear_layers', '_resnet/block_groups/2/layers']
)
def test_a_number_in_a_name_asks_for_no_memory(monkeypatch, part, number):
  """Tensors are counted: a hostile index would ask for as many layers."""
  shapes = released_names.tensors('simclr')
  shapes[f'model/{part}/{number}/dense/kernel'] = (1, 1)
  monkeypatch.setattr(released_settings, 'shapes_in', lambda path: shapes)
  tracemalloc.start()
  try:
    with pytest.raises(Mismatch, match=f'{part}/{number}/.* no number before'):
      released_settings.infer('anywhere')
    assert tracemalloc.get_traced_memory()[1] < 2**24
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  ('counters', 'expected'),
  [
    ({'finetune_global_step': 5, 'save_counter': 2}, 5),
    ({'global_step': 9, 'finetune_global_step': 5}, 9),
    ({'save_counter': 2}, 0),
  ],
)
def test_the_step_is_that_of_the_counter_which_is_there(
  tmp_path, counters, expected
):
  path = write(tmp_path / 'ckpt-1', counters)
  assert released_settings.step(path) == expected
