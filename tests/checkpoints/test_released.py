"""Released checkpoints: in, out, what is refused."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import released_names
import resnet
from cvr import methods
from cvr.checkpoints import released, released_layout, released_settings
from cvr.checkpoints.released_layout import Mismatch
from cvr.configs.config import Config
from released_files import (
  SMALL,
  build,
  finetuned,
  lars,
  read,
  shorten,
  values,
  write,
)
from small_data import plan_of


@pytest.fixture(autouse=True)
def short(monkeypatch):
  shorten(monkeypatch)


@pytest.mark.parametrize(
  'family, scaled', [('simclr', True), ('byol', False), ('cbyol', False)]
)
def test_released_to_ours_to_released_keeps_every_bit(tmp_path, family, scaled):
  tensors = values(released_names.tensors(family, **SMALL))
  path = write(tmp_path / 'ckpt-1', tensors)
  method, probe, parts = build(path)
  trained = [v for layer in method.trained() for v in layer.trainable_variables]
  optimizer = lars(trained + probe.trainable_variables)
  if scaled:
    optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
  report = released.load(path, parts, optimizer)
  assert report.left_over == {'counters': ['save_counter']}
  assert int(optimizer.iterations) == tensors['global_step']
  out = str(tmp_path / 'out' / 'ckpt-9')
  released.write(out, parts, optimizer, int(tensors['save_counter']))
  again = read(out)
  assert again.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


class Bag(tf.Module):
  """An object with any attributes, as the published classes have theirs."""


def test_what_we_write_is_restored_by_object_too(tmp_path):
  tensors = values(released_names.tensors('simclr', **SMALL))
  path = write(tmp_path / 'ckpt-1', tensors)
  method, probe, parts = build(path)
  optimizer = lars(probe.trainable_variables)
  released.load(path, parts)
  out = str(tmp_path / 'out')
  released.write(out, parts, optimizer)
  # Classes of someone else: only the attributes' names are the same.
  head, dense, linear = Bag(), Bag(), Bag()
  dense.kernel, dense.bias = tf.Variable(tf.zeros([16, 10])), None
  linear.dense, head.linear_layer = dense, linear
  block, layer, conv = Bag(), Bag(), Bag()
  conv.kernel = tf.Variable(tf.zeros([3, 3, 8, 8]))
  layer.conv2d = conv
  block.conv2d_bn_layers = [layer, Bag()]
  group, backbone, root = Bag(), Bag(), Bag()
  group.layers, backbone.block_groups = [block], [group]
  root._resnet, root.supervised_head = backbone, head
  step = tf.Variable(0, dtype=tf.int64)
  published = tf.train.Checkpoint(model=root, global_step=step)
  published.restore(out).assert_existing_objects_matched()
  name = 'block_groups/0/layers/0/conv2d_bn_layers/0/conv2d/kernel'
  np.testing.assert_array_equal(conv.kernel, tensors[f'model/_resnet/{name}'])
  name = 'model/supervised_head/linear_layer/dense/kernel'
  np.testing.assert_array_equal(dense.kernel, tensors[name])


@pytest.mark.parametrize(
  'family, trained',
  [
    ('simclr', 'model/supervised_head'),
    ('byol', ('model/_resnet/block_groups/3', 'model/supervised_head')),
    ('cbyol', 'model/supervised_head'),
  ],
)
def test_a_finetuned_checkpoint_keeps_its_names_and_every_bit(
  tmp_path, family, trained
):
  tensors = values(released_names.tensors(family, **SMALL))
  tensors = finetuned(tensors, trained)
  path = write(tmp_path / 'ckpt-1', tensors)
  method, probe, parts = build(path)
  assert (
    released_settings.infer(path)
    .describe()
    .endswith(f', finetuned, step {tensors["finetune_global_step"]}')
  )
  # As for pretraining: most of its momentum is not in the file.
  body = [v for layer in method.trained() for v in layer.trainable_variables]
  optimizer = lars(body + probe.trainable_variables)
  report = released.load(path, parts, optimizer)
  assert report.left_over == {'counters': ['save_counter']}
  assert int(optimizer.iterations) == tensors['finetune_global_step']
  # Nobody goes on pretraining with momentum that is not there.
  with pytest.raises(Mismatch, match='finetune_optimizer/Momentum'):
    released.load(path, parts, optimizer, resuming=True)
  out = str(tmp_path / 'out')
  released.write(
    out, parts, optimizer, int(tensors['save_counter']), True, like=path
  )
  again = read(out)
  assert again.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


# What is refused --------------------------------------------------------------

KERNEL = (
  'model/_resnet/block_groups/2/layers/0/conv2d_bn_layers/2/conv2d/kernel'
)
HEAD = 'model/_projection_head/linear_layers/1/dense/kernel'


@pytest.mark.parametrize(
  'change, says',
  [
    (lambda t: t.pop(KERNEL), f'1 tensors missing, first {KERNEL}'),
    (lambda t: t.pop(HEAD), f'1 tensors missing, first {HEAD}'),
    (
      lambda t: t.update({HEAD: t[HEAD].T.copy()}),
      f'1 tensors of another shape, first {HEAD} [16, 32] for [32, 16]',
    ),
    (
      lambda t: t.update({KERNEL: t[KERNEL][..., :8].copy()}),
      f'{KERNEL} [3, 3, 32, 8] for [3, 3, 32, 32]',
    ),
  ],
)
def test_what_does_not_fit_is_named_and_nothing_is_assigned(
  tmp_path, change, says
):
  tensors = values(released_names.tensors('simclr', **SMALL))
  method, probe, parts = build(write(tmp_path / 'good', tensors))
  before = [v.numpy() for v in released_layout.variables(parts).values()]
  change(tensors)
  path = write(tmp_path / 'bad', tensors)
  with pytest.raises(Mismatch) as error:
    released.load(path, parts)
  assert says in str(error.value)
  after = [v.numpy() for v in released_layout.variables(parts).values()]
  for a, b in zip(before, after, strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_missing_part_is_an_error(tmp_path):
  tensors = values(released_names.tensors('simclr', **SMALL))
  _, _, parts = build(write(tmp_path / 'whole', tensors))
  tensors = {n: v for n, v in tensors.items() if 'supervised' not in n}
  path = write(tmp_path / 'without', tensors)
  with pytest.raises(Mismatch, match=r'2 tensors miss.*bias \[10\]'):
    released.load(path, parts)


def test_squeeze_and_excitation_has_no_place_there(tmp_path, tiny_encoder):
  cfg = Config(resnet_depth=18, image_size=16, proj_out_dim=8)
  method = methods.make_method(plan_of(cfg, 1, 0))
  method.encoder = resnet.ResNet(18, 1 / 8, stem='small', se_ratio=0.25)
  method.encoder(tf.zeros([1, 16, 16, 3]))
  with pytest.raises(Mismatch, match='squeeze-and-excitation'):
    released.write(
      str(tmp_path / 'x'), released_layout.parts_of(method), lars([])
    )


@pytest.mark.parametrize(
  'stray',
  [
    'model/_resnet/block_groups/0/layers/0/shortcut_layers/1/bn/extra',
    'model/_projection_head/linear_layers/5/dense/kernel',
    'model/_another_network/kernel',
    'something_else',
  ],
)
def test_a_tensor_that_the_model_has_no_place_for_is_named(tmp_path, stray):
  tensors = values(released_names.tensors('simclr', **SMALL))
  path = write(tmp_path / 'ckpt-1', tensors)
  _, probe, parts = build(path)
  odd = write(tmp_path / 'ckpt-2', tensors | {stray: np.ones(3, np.float32)})
  before = probe.dense.kernel.numpy()
  with pytest.raises(Mismatch, match=f'1 tensors without .* first {stray}'):
    released.load(odd, parts)
  np.testing.assert_array_equal(probe.dense.kernel, before)  # Nothing moved.


def test_what_is_not_read_is_counted_by_its_kind(tmp_path):
  """A teacher's checkpoint for whoever wants the encoder alone."""
  tensors = values(released_names.tensors('byol', **SMALL))
  path = write(tmp_path / 'ckpt-1', tensors)
  _, _, parts = build(path)
  report = released.load(path, {'encoder': parts['encoder']})
  names = {kind: len(found) for kind, found in report.left_over.items()}
  roots = ('_target_resnet/', '_target_head/')
  plain = [name for name in tensors if '/.OPTIMIZER_SLOT/' not in name]
  assert names == {
    'momentum': len(tensors) - len(plain),
    'counters': 2,
    'the target network': sum(n.split('model/')[-1].startswith(roots)
                              for n in plain),
    'the projection head': 6,
    'the predictor': 6,
    'the probe': 2,
  }  # fmt: skip
  assert 'not read: ' in report.describe()
  assert '6 of the predictor' in report.describe()


@pytest.mark.parametrize('depth', [18, 34])
def test_both_shortcuts_are_read_off_a_checkpoint(tmp_path, depth, monkeypatch):
  """As the published code has it, and as older code of ours exported it."""
  small = SMALL | {'depth': depth}
  blocks = 2 * (depth == 18) or 3
  monkeypatch.setitem(released_names.BLOCKS, depth, (1, (blocks, 1, 1, 1)))
  monkeypatch.setitem(resnet.BLOCKS, depth, (False, (blocks, 1, 1, 1)))
  tensors = values(released_names.tensors('simclr', **small))
  first = 'model/_resnet/block_groups/0/layers/0/shortcut_layers'
  assert f'{first}/0/conv2d/kernel' in tensors
  older = {n: v for n, v in tensors.items() if not n.startswith(first)}
  assert len(tensors) - len(older) == 5 + 3  # Three of them have momentum.
  for name, shortcut in ((tensors, 'published'), (older, 'torchvision')):
    path = write(tmp_path / f'ckpt-{len(name)}', name)
    settings = released_settings.infer(path).settings
    assert settings['shortcut'] == shortcut
    _, _, parts = build(path)
    released.load(path, parts)
    has = parts['encoder'].stages[1].blocks[0].shortcut is not None
    assert has == (shortcut == 'published')
