"""Released tensors load into our layers and compute what their names say."""

import numpy as np
import pytest
import tensorflow as tf

import released_names
from cvr.checkpoints import released, released_settings
from released_files import SMALL, _bn, build, features, values, write
from released_names import SLOT

DIGESTS = {
  ('simclr', 0.0): '3b32ff2f86c9db9d',
  ('simclr', 0.0625): '0d9934f0ad225fb6',
  ('byol', 0.0): '5ad2558eeefae40a',
  ('cbyol', 0.0): '69b42dc8c820f4e0',
}


@pytest.mark.parametrize('family, sk', DIGESTS)
def test_the_rules_of_the_tests_make_the_real_lists(family, sk):
  shapes = released_names.tensors(family, sk=sk)
  assert released_names.digest(shapes) == DIGESTS[family, sk]


@pytest.mark.parametrize('family, sk', DIGESTS)
def test_real_sizes_load_and_compute_what_the_names_say(tmp_path, family, sk):
  """ResNet-50 with heads of 4096, as released; features to 1e-4.

  The probes read the projection, but for BYOL's here: the representation.
  """
  width = 2048 if family == 'byol' else 256
  tensors = values(released_names.tensors(family, sk=sk, probe=(width, 1000)))
  path = write(tmp_path / 'ckpt-1', tensors)
  assert released_settings.recognised(path)
  method, probe, parts = build(path)
  report = released.load(path, parts)
  assert report.matched == sum(
    SLOT not in name and name not in ('global_step', 'save_counter')
    for name in tensors
  )
  rng = np.random.default_rng(1)
  images = tf.constant(rng.standard_normal((2, 32, 32, 3)), tf.float32)
  h = features(tensors, images)
  np.testing.assert_allclose(
    method.embed(images)['representation'], h, rtol=1e-4, atol=1e-4
  )
  if family != 'simclr':
    twin = features(tensors, images, 'model/_target_resnet')
    ours = method.target_encoder(images)
    np.testing.assert_allclose(ours, twin, rtol=1e-4, atol=1e-4)
  found = method.embed(images)
  read = found['representation' if width == 2048 else 'projection']
  root = 'model/supervised_head/linear_layer/dense'
  np.testing.assert_allclose(
    probe(method.probed(found)),
    read @ tensors[f'{root}/kernel'] + tensors[f'{root}/bias'],
    rtol=1e-4,
    atol=1e-4,
  )


def _head(t, root, x, last=1):
  layers = f'{root}/linear_layers'
  x = x @ t[f'{layers}/0/dense/kernel']
  x = tf.nn.relu(_bn(t, f'{layers}/0/bn_relu', x))
  return x @ t[f'{layers}/{last}/dense/kernel']


def test_every_head_of_cbyol_computes_what_its_names_say(tmp_path):
  t = values(released_names.tensors('cbyol', **SMALL))
  path = write(tmp_path / 'ckpt-1', t)
  method, probe, parts = build(path)
  released.load(path, parts)
  rng = np.random.default_rng(1)
  views = [tf.constant(rng.standard_normal((2, 32, 32, 3)), tf.float32)] * 2
  out = method.encode(views, tf.constant(0, tf.int64), training=False)
  projection = _head(t, 'model/_projection_head', features(t, views[0]))
  mu = tf.math.l2_normalize(_head(t, 'model/_projector', projection, 2), -1)
  target = features(t, views[0], 'model/_target_resnet')
  target = tf.math.l2_normalize(_head(t, 'model/_target_head', target), -1)
  backward = _head(t, 'model/_target_projector', target)
  expected = {
    'mu': mu,
    'prediction': mu @ t['model/_projector/linear_layers/3/dense/kernel'],
    'target': target,
    'backward': tf.math.l2_normalize(backward, -1),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(
      out[name][0], value, rtol=1e-3, atol=1e-4, err_msg=name
    )
  dense = 'model/supervised_head/linear_layer/dense'
  np.testing.assert_allclose(
    probe(out['probed']),
    projection @ t[f'{dense}/kernel'] + t[f'{dense}/bias'],
    rtol=1e-3,
    atol=1e-4,
  )
