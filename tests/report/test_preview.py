"""--mode=preview: counts, damage, duplicates, pictures of a data set."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import run
from cvr.configs.config import Config
from cvr.data import augmentation, decoding
from cvr.report import preview, preview_page
from small_data import encoded, make_folder, write


def collect(dataset, full=False, **settings):
  settings = {'image_size': 16} | settings
  if full:
    settings['preview'] = 'full'
  return preview.collect(Config(dataset=dataset, **settings), lambda line: None)


@pytest.fixture
def broken(folder):
  """The folder of tests with two damaged images and one that is in both."""
  write(f'{folder}/train/cat/empty.png', b'')
  write(f'{folder}/train/dog/cut.png', encoded(7)[:40])
  shutil.copy(f'{folder}/train/bird/1.png', f'{folder}/val/bird_1.png')
  os.makedirs(f'{folder}/val/bird')
  shutil.move(f'{folder}/val/bird_1.png', f'{folder}/val/bird/x.png')
  return folder


@pytest.mark.parametrize('full', [False, True])
def test_what_is_wrong_is_found(broken, full):
  found = collect(f'folder:{broken}', full)
  train, test = found['splits']
  assert train['counts'] == {'bird': 5, 'cat': 10, 'dog': 9}
  assert sorted(name for name, _ in train['bad']) == [
    'cat/empty.png', 'dog/cut.png']  # fmt: skip
  assert (train['images'], test['images'], len(train['sides'])) == (24, 8, 22)
  assert {*train['sides']} == {(6, 8)} and train['bits'] == {8: 22}
  assert found['duplicates']['pairs'] == [('bird/1.png', 'bird/x.png')]
  said = preview_page.warnings(found)
  assert any('damaged in train: 2 images' in line for line in said)
  assert any('in train and validation: 1 image' in line for line in said)
  assert any('smaller than the crop of 16 px' in line for line in said)


def test_files_of_one_size_that_differ_are_no_duplicates(tmp_path):
  rows = [tmp_path / name for name in 'abcd']
  contents = [b'x' * 99, b'y' * 99, b'x' * 99, b'z' * 98]
  for path, content in zip(rows, contents, strict=True):
    path.write_bytes(content)
  a, b, c, d = map(str, rows)
  pairs, compared = preview._alike((a, b), (c, d), None)
  assert pairs == [(a, c)] and compared == 1
  preview._sizes.cache_clear()
  long = [b'h' * preview._HEAD + tail for tail in (b'1', b'2', b'1')]
  for path, content in zip(rows, long, strict=False):
    path.write_bytes(content)
  assert preview._alike((a,), (b, c), None)[0] == [(a, c)]


def test_images_of_arrays_are_compared_in_full_alone(tmp_path):
  values = np.random.default_rng(0).integers(0, 255, [6, 8, 9, 3])
  values = values.astype(np.uint8)
  np.savez(
    tmp_path / 'a.npz', train_images=values, test_images=values[3:5],
    train_labels=[0, 0, 1, 1, 1, 1], test_labels=[0, 1],
  )  # fmt: skip
  found = collect(f'npz:{tmp_path}/a.npz')
  assert '--preview=full does' in found['duplicates']['how']
  found = collect(f'npz:{tmp_path}/a.npz', full=True)
  assert len(found['duplicates']['pairs']) == 2
  assert [*found['splits'][0]['counts'].values()] == [2, 4]


def test_boxes_are_those_of_the_crops(folder):
  found = collect(f'folder:{folder}', area_range_lower_bound=0.9)
  assert len(found['views']) == 6
  for pair in found['views']:
    assert pair['size'] == (6, 8)
    for top, left, high, wide in pair['boxes']:
      assert top + high <= 6 and left + wide <= 8
      assert high * wide >= 0.6 * 48
  # The tile is a square of 96: 8 px are 96, 6 are 72 in its middle.
  boxes = preview_page.boxes_on_tile(
    {'size': (6, 8), 'boxes': [[0, 1, 6, 7]]}, 96
  )
  assert boxes == [(12, 12, 84, 72)]


def test_without_random_crops_the_box_is_the_image(folder):
  found = collect(f'folder:{folder}', no_augmentation=True)
  assert found['views'][0]['boxes'] == [[0, 0, 6, 8]] * 2
  caption = preview_page.caption(found['views'][0], 0)
  assert caption == 'crop 100%'


def test_decisions_are_what_the_batch_gets():
  """A view that is only flipped or gray shows it."""
  cfg = Config(
    image_size=16, color_jitter_probability=0.0, grayscale_probability=0.5,
    use_blur=False, solarize_probability='0.5,0.5',
  )  # fmt: skip
  from cvr.configs import derived

  recipe = derived.augmentation(cfg)
  draws = tf.random.stateless_uniform([64, 18], [1, 2])
  image = np.zeros([16, 16, 3], np.uint8)
  image[:, :8] = [250, 200, 150]
  views = tf.constant(np.tile(image, [64, 1, 1, 1]))
  made = augmentation.per_batch(
    recipe, {'views': (views,), 'draws': draws[:, None]}
  )['views'][0].numpy()
  told = augmentation.decisions(recipe, 0, draws)
  assert not np.any(told['blur']) and not np.any(told['brightness'])
  plain = (made * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]).round(3)
  gray = np.ptp(plain, -1).max((1, 2)) < 0.01
  np.testing.assert_array_equal(gray, told['gray'])
  inverted = plain.max((1, 2, 3)) < 0.5
  np.testing.assert_array_equal(inverted, told['solarize'])
  flipped = plain[:, 0, 0].max(-1) < 0.01  # The dark half is on the left.
  np.testing.assert_array_equal(flipped, told['flip'])
  for name in ('gray', 'solarize', 'flip'):
    assert 10 < told[name].numpy().sum() < 54


def test_headers(tmp_path):
  image = np.zeros([5, 7, 3], np.uint8)
  for kind in (tf.io.encode_jpeg, tf.io.encode_png):
    assert decoding.header_of(kind(image).numpy()) == (5, 7, 8)
  deep = tf.io.encode_png(image.astype(np.uint16)).numpy()
  assert decoding.header_of(deep) == (5, 7, 16)
  many = decoding.encode(np.zeros([5, 7, 6], np.uint16))
  assert decoding.header_of(many) == (5, 7, 16)
  with pytest.raises(ValueError):
    decoding.header_of(b'nothing')


def test_the_page_and_its_escaping(folder, tmp_path, capsys):
  evil = f'{folder}/train/cat/<b>&.png'
  write(evil, b'broken')
  out = tmp_path / 'out'
  argv = ['run.py', '--mode=preview', f'--dataset=folder:{folder}']
  assert run.main([*argv, '--image_size=16', f'--output={out}']) == 0
  text = (out / 'preview.html').read_text()
  assert '&lt;b&gt;&amp;.png' in text and '<b>&.png' not in text
  assert 'preview.html' in capsys.readouterr().out
  assert not [name for name in os.listdir(out) if name.startswith('ckpt')]


def test_images_without_labels(tmp_path):
  folder = make_folder(tmp_path / 'x')
  found = collect(f'folder:{folder}/train/cat')
  (split,) = found['splits']
  assert split['counts'] is None and found['duplicates'] is None
  assert [name for name, _ in found['by_class']] == ['']
