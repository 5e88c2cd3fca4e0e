"""Train steps as XLA programs: what is written, and that JAX runs it."""

import copy
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import model
import resnet
import tiny_run
from benchmarks import flops, rules, xla_export
from cvr import methods
from cvr.configs.config import Config
from cvr.methods import skeletons
from small_data import plan_of

RUNNER = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'xla_run.py'
QUICK_COMPILATION = '--xla_backend_optimization_level=0'
# Each skeleton once, and each precision.
EXPORTS = {'contrastive_ceb': 'fp32', 'byol': 'bf16'}
needs_jax = pytest.mark.skipif(
  importlib.util.find_spec('jax') is None,
  reason='optional: bash scripts/test_jax.sh',
)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A folder with a tiny step of every method."""
  folder = tmp_path_factory.mktemp('xla')
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(resnet.BLOCKS, 18, tiny_run.BLOCKS)
    patch.setattr(skeletons, 'make_encoder', tiny_run.make_encoder)
    patch.setattr(xla_export, 'CLASSES', 3)
    for method, precision in EXPORTS.items():
      cfg = Config(
        pretrain_loss=method,
        precision=precision,
        image_size=16,
        resnet_depth=18,
        proj_head_hidden_dim=16,
        proj_out_dim=8,
        train_batch_size=4,
        ceb_beta=1.0,
      )
      xla_export.export(cfg, folder)
  keras.mixed_precision.set_global_policy('float32')
  return folder


@pytest.mark.parametrize('method', EXPORTS)
def test_an_export_says_what_stands_where(exported, method):
  name = f'{method}_{EXPORTS[method]}'
  facts = json.loads((exported / f'{name}.json').read_text())
  program = (exported / f'{name}.hlo').read_bytes()
  # Nothing that one kind of device alone could run.
  assert b'convolution' in program and b'custom-call' not in program
  assert facts['parameters'][:6] == [
    ['int32', [4]],
    ['float32', [4, 2, 18]],
    ['int32', [4]],
    ['uint8', [4, 16, 16, 3]],
    ['uint8', [4, 16, 16, 3]],
    ['int64', []],
  ]
  with np.load(exported / f'{name}.npz') as stored:
    shapes = [list(stored[f'arr_{i}'].shape) for i in range(len(stored.files))]
  assert [shape for _, shape in facts['parameters'][5:]] == shapes
  # Every variable moves (momentum, averages), and comes back in its order.
  count = len(facts['metrics'])
  assert facts['updates'] == [[count + i, 5 + i] for i in range(len(shapes))]
  assert len(facts['variables']) == len(facts['reference']['norms'])
  losses = [m['total_loss'] for m in facts['reference']['metrics']]
  assert len(set(losses)) == xla_export.REFERENCE_STEPS
  assert sorted(facts['reference']['metrics'][0]) == facts['metrics']
  assert facts['pairs'] == 4 and facts['flops'] > 0


def test_variables_are_told_apart_by_identity():
  twins = [tf.Variable([1.0, 2.0]) for _ in range(3)]
  order = [2, 0, 1]

  @tf.function
  def touch():
    return tf.add_n([twins[i].assign_add([1.0, 1.0]) for i in order])

  found = xla_export.captured(touch.get_concrete_function())
  assert [id(v) for v in found] == [id(twins[i]) for i in order]


def test_a_program_of_another_order_is_refused():
  hlo = (
    'HloModule a, input_output_alias={ {1}: (1, {}, may-alias) }, '
    'entry_computation_layout={(s32[4]{0}, /*index=1*/f32[2,3]{1,0})->(f32[], '
    'f32[2,3]{1,0})}\nENTRY ...'
  )
  parameters, updates = xla_export.interface(hlo)
  assert parameters == [('s32', [4]), ('f32', [2, 3])]
  assert updates == {1: 1}
  arrays = [np.zeros(4, np.int32), np.zeros([2, 3], np.float32)]
  xla_export.check(parameters, arrays, updates, 1)
  with pytest.raises(ValueError, match='we would give'):
    xla_export.check(parameters, arrays[::-1], updates, 1)
  with pytest.raises(ValueError, match='After 2 metrics'):
    xla_export.check(parameters, arrays, updates, 2)


def test_bfloat16_is_stored_as_its_bits():
  array = np.arange(3).astype(ml_dtypes.bfloat16)
  bare = xla_export._bare(array)
  assert bare.dtype == np.uint16
  np.testing.assert_array_equal(bare.view(ml_dtypes.bfloat16), array)


def test_the_rule_gives_the_same_numbers_everywhere():
  def hashed(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
      x = (x ^ x >> shift) * factor % 2**32
    return x

  literal = [[1753845952, 3507691905], [1408362973, 3648937681]]
  assert literal == [[hashed(1), hashed(2)], [hashed(3), hashed(4)]]
  assert rules.bits([5], 0).tolist() == [0, *literal[0], *literal[1]]
  seeded = [hashed((i + 3 * 0x9E3779B9) % 2**32) for i in range(6)]
  assert rules.bits([2, 3], 3).ravel().tolist() == seeded
  images = rules.view(2, 6, 1)
  assert images.dtype == np.uint8 and images.shape == (2, 6, 6, 3)
  assert images.min() < 60 and images.max() > 195


@pytest.mark.parametrize(
  'depth, size, stem, expected', [(50, 224, 'imagenet', 8.18),
                                  (18, 32, 'cifar', 1.11)]
)  # fmt: skip
def test_flops_of_a_forward_are_those_of_the_literature(
  depth, size, stem, expected
):
  net = resnet.ResNet(depth, 1, stem=stem, shortcut='torchvision')
  head = model.Classifier(1000)
  image = tf.TensorSpec([1, size, size, 3])
  found = flops.forward(lambda x: head(net(x, training=True)), image)
  assert found / 1e9 == pytest.approx(expected, abs=0.005)


def test_flops_of_matrix_products_know_what_is_transposed():
  a, b = tf.TensorSpec([2, 3]), tf.TensorSpec([5, 3])
  product = flops.forward(lambda a, b: tf.matmul(a, b, transpose_b=True), a, b)
  assert product == 2 * 2 * 3 * 5


def test_a_step_costs_three_forwards_and_one_of_the_target(tiny_encoder):
  small = {'image_size': 16, 'resnet_depth': 18, 'proj_head_hidden_dim': 16}
  view = tf.TensorSpec([1, 16, 16, 3])
  costs = {}
  for loss in ('contrastive', 'byol'):
    cfg = Config(pretrain_loss=loss, proj_out_dim=8, **small)
    method = methods.make_method(plan_of(cfg, 1, 0))
    embed = flops.forward(lambda x, m=method: m.embed(x, True), view)
    costs[loss] = flops.train_step(method, 16) / embed
  assert costs['contrastive'] == 6
  # BYOL: its predictor costs a little beyond 2 x (3 + 1).
  assert 8 < costs['byol'] < 8.1


def run_with_jax(folder):
  return subprocess.run(
    [sys.executable, str(RUNNER), str(folder), '--steps=1', '--check'],
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': QUICK_COMPILATION},
    capture_output=True,
    text=True,
  )


@needs_jax
def test_jax_computes_what_tensorflow_does(exported):
  done = run_with_jax(exported)
  assert done.returncode == 0, done.stdout + done.stderr
  results = json.loads((exported / 'results.json').read_text())
  rows = {row['method']: row for row in results['rows']}
  assert {m: row['precision'] for m, row in rows.items()} == EXPORTS
  for method, row in rows.items():
    assert row['agrees'] is True and row['pairs_per_second'] > 0
    assert f'{method:16}' in done.stdout


@needs_jax
def test_jax_notices_other_numbers(exported, tmp_path):
  facts = json.loads((exported / 'contrastive_ceb_fp32.json').read_text())

  def damaged(name, change):
    for kind in ('hlo', 'npz'):
      source = exported / f'contrastive_ceb_fp32.{kind}'
      shutil.copy(source, tmp_path / f'{name}.{kind}')
    changed = copy.deepcopy(facts)
    change(changed)
    (tmp_path / f'{name}.json').write_text(json.dumps(changed))

  def metric(facts):
    facts['reference']['metrics'][2]['total_loss'] *= 1.01

  def norm(facts):
    facts['reference']['norms'][-1] += 0.01

  def swap(facts):
    """Two moving averages change places; no metric depends on them."""
    a, b = (
      i
      for i, name in enumerate(facts['variables'])
      if 'moving' in name and facts['parameters'][5 + i][1] == [16]
    )
    updates = facts['updates']
    updates[a][0], updates[b][0] = updates[b][0], updates[a][0]

  for change in (metric, norm, swap):
    damaged(change.__name__, change)
  done = run_with_jax(tmp_path)
  assert done.returncode == 1, done.stderr
  assert done.stdout.count('DIFFERS') == 3, done.stdout
