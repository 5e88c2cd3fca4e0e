"""Released tensors load into our layers and compute what their names say."""

import numpy as np
import pytest
import tensorflow as tf

import released_names
import resnet
from cvr.checkpoints import released, released_settings
from released_files import (
  SMALL,
  _bn,
  build,
  features,
  narrow,
  shorten,
  values,
  write,
)
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


# Of real size the one that has all parts; the others are a ResNet-50, narrow.
@pytest.mark.parametrize('family, sk', DIGESTS)
def test_tensors_load_and_layers_compute_what_their_names_say(
  tmp_path, monkeypatch, family, sk
):
  """Features to 1e-4.

  The probes read the projection, but for BYOL's here: the representation.
  """
  sizes = {'probe': (256, 1000)}
  if family != 'cbyol':
    narrow(monkeypatch)
    sizes = {'hidden': 32, 'out': 16, 'probe': (16, 10)}
  if family == 'byol':
    sizes['probe'] = (8 * resnet.WIDTH * 4, 10)
  tensors = values(released_names.tensors(family, sk=sk, **sizes))
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
  outputs = method.embed(images)
  read = outputs['representation' if family == 'byol' else 'projection']
  root = 'model/supervised_head/linear_layer/dense'
  np.testing.assert_allclose(
    probe(method.probed(outputs)),
    read @ tensors[f'{root}/kernel'] + tensors[f'{root}/bias'],
    rtol=1e-4,
    atol=1e-4,
  )


def _head(t, root, x, last=1):
  layers = f'{root}/linear_layers'
  x = x @ t[f'{layers}/0/dense/kernel']
  x = tf.nn.relu(_bn(t, f'{layers}/0/bn_relu', x))
  return x @ t[f'{layers}/{last}/dense/kernel']


def test_every_head_of_cbyol_computes_what_its_names_say(tmp_path, monkeypatch):
  shorten(monkeypatch)
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
