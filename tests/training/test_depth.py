"""--bit_depth: from 16-bit files to views and rows, and what a run stores."""

import json

import numpy as np
import pytest
import tensorflow as tf

import run
from cvr.configs import derived
from cvr.configs.config import Config
from cvr.data import augmentation, batches
from cvr.data.batches import HostBatch
from cvr.data.sources import describe
from small_data import write
from small_runs import QUICK, flags, make_images


def deep_folder(root, top=4095):
  """24 images of 20 px with values up to `top` in files of 16 bits."""
  rng = np.random.default_rng(0)
  for split, count in (('train', 12), ('val', 4)):
    for k, name in enumerate(('dark', 'light')):
      for i in range(count):
        image = rng.integers(0, top // 3, [20, 20, 3]) + k * top // 2
        image[0, 0] = top
        data = tf.io.encode_png(image.astype(np.uint16)).numpy()
        write(f'{root}/{split}/{name}/{i}.png', data)
  return root


def trained(images, model_dir, *more):
  argv = flags(images, model_dir, '--mode=train', *QUICK, *more)
  assert run.main(argv) == 0
  with open(f'{model_dir}/config.json') as file:
    return json.load(file)['config']


def test_auto_is_resolved_once_and_stored(tmp_path, capsys, glance):
  images, model_dir = deep_folder(tmp_path / 'images'), tmp_path / 'run'
  line = '24 of 24 images have 16 bits a channel, and values up to 4,095'
  stored = trained(images, model_dir, '--train_steps=2')
  assert stored['bit_depth'] == '12'
  assert line in capsys.readouterr().out
  # More of the range was seen since: the run is what it was.
  deep_folder(tmp_path / 'images', 60_000)
  more = ('--train_steps=3', '--allow_config_change')
  stored = trained(images, model_dir, *more)
  assert stored['bit_depth'] == '12'
  out = capsys.readouterr().out
  assert 'Resuming from step 2' in out and 'bit_depth' not in out


def test_a_run_from_before_has_8_bits_and_so_has_one_of_jpegs(
  tmp_path, capsys, glance
):
  images, model_dir = deep_folder(tmp_path / 'images'), tmp_path / 'run'
  trained(images, model_dir, '--train_steps=1', '--bit_depth=8')
  path = model_dir / 'config.json'
  record = json.loads(path.read_text())
  del record['config']['bit_depth']
  path.write_text(json.dumps(record))
  more = ('--train_steps=2', '--allow_config_change')
  assert trained(images, model_dir, *more)['bit_depth'] == '8'
  jpegs = make_images(tmp_path / 'jpegs')
  assert trained(jpegs, tmp_path / 'other')['bit_depth'] == '8'
  assert '16 bits a channel' not in capsys.readouterr().out


@pytest.mark.parametrize('crop', [True, False])
def test_views_keep_what_bytes_would_lose(tmp_path, crop):
  """A flat image between two bytes: every view has its very value."""
  value, images = 1000, tmp_path / 'flat'
  for i in range(4):
    flat = np.full([20, 20, 3], value + i, np.uint16)
    write(f'{images}/{i}.png', tf.io.encode_png(flat).numpy())
  cfg = Config(
    image_size=16,
    no_augmentation=not crop,
    color_jitter_probability=0.0,
    grayscale_probability=0.0,
    use_blur=False,
    solarize_probability='0,0',
    batch_image_augmentation_type='simclr',
  )
  recipe = derived.augmentation(cfg)
  info = describe(f'folder:{images}', bits=12)
  dataset = batches.train_batches(
    info, augmentation.per_image(recipe, 2), HostBatch(4, 4), seed=1
  )
  batch = next(iter(dataset))
  views = augmentation.per_batch(recipe, batch)['views']
  for view in views:
    expected = (value + batch['index'].numpy()) / 4095
    for image, wanted in zip(view.numpy(), expected, strict=True):
      np.testing.assert_allclose(image, wanted, atol=2e-5)
