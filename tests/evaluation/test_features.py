"""How an encoder is shown a split: central, random, and corrupted images."""

import itertools
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf

import data_util
from cvr.configs.config import Config, ConfigError
from cvr.data.sources import DataError, describe
from cvr.evaluation import features, online
from cvr.evaluation.corruptions import corruptions
from cvr.evaluation.features import Look
from cvr.numerics import randomness
from cvr.training import progress
from small_data import write

SIZE = 16


@pytest.fixture
def info(tmp_path):
  """Nine images of noise, taller than wide."""
  for i in range(9):
    noise = np.random.default_rng(i).integers(0, 256, [40, 28, 3], np.uint8)
    write(
      f'{tmp_path}/val/{"ab"[i % 2]}/{i}.png', tf.io.encode_png(noise).numpy()
    )
  return describe(f'folder:{tmp_path}', split='val')


def shown(info, look, batch=4):
  """{index: image} of a look."""
  source = features.make_source(SIZE, batch)(info, look)
  found = {}
  for rows in source(tf.distribute.InputContext()).as_numpy_iterator():
    for i, image in zip(rows['index'], rows['views'][0], strict=True):
      if i >= 0:
        assert i not in found
        found[int(i)] = image
  return found


def decoded(info, i):
  return tf.io.decode_image(tf.io.read_file(info.paths[i]))


def test_the_central_crop_has_its_share(info):
  for share in (0.875, 1.0):
    for i, image in shown(info, Look(crop=share)).items():
      side = round(28 * share)
      top, left = (41 - side) // 2, (29 - side) // 2
      part = decoded(info, i)[top : top + side, left : left + side]
      part = tf.image.convert_image_dtype(part, tf.float32)
      expected = tf.image.resize(part, [SIZE, SIZE], method='bicubic')
      np.testing.assert_allclose(image, np.clip(expected, 0, 1), atol=1e-6)


class Seeing:
  """A method whose representation is the image that it is shown."""

  def embed(self, images):
    pixels = tf.reshape(images, [tf.shape(images)[0], -1])
    return {'representation': pixels, 'projection': pixels}

  def probed(self, embedded):
    return embedded['representation']


def framed(root, size):
  """Images that differ in their outermost pixels alone, which tell the class.

  -> DatasetInfo.
  """
  for label in (0, 1):
    for i in range(3):
      image = np.full([size, size, 3], 100 + i, np.uint8)
      image[[0, -1]] = image[:, [0, -1]] = 255 * label
      write(
        f'{root}/val/{"ab"[label]}/{i}.png', tf.io.encode_png(image).numpy()
      )
  return describe(f'folder:{root}', split='val')


@pytest.mark.parametrize(
  'size, typed, crop',
  [(32, None, None), (32, '0.875', 0.875), (48, None, 0.875), (48, '1', None)],
)
def test_small_images_are_shown_whole(tmp_path, size, typed, crop):
  """In SimCLR's code 32 px and below are evaluated without a test crop.

  Oracle: the pixels of the file itself, or TensorFlow's own central crop.
  """
  info = framed(tmp_path, size)
  settings = {'eval_crop': typed} if typed else {}
  cfg = Config(
    image_size=size, batch_image_augmentation_type='simclr',
    eval_batch_size=4, **settings,
  )  # fmt: skip
  strategy = tf.distribute.get_strategy()
  state = types.SimpleNamespace(method=Seeing(), probe=None)
  rows = features.read_all(features.make_read(cfg, strategy, state), info)
  for i, row in enumerate(rows['representation']):
    expected = tf.image.convert_image_dtype(decoded(info, i), tf.float32)
    if crop:
      expected = tf.image.central_crop(expected, crop)
      expected = tf.image.resize(expected, [size] * 2, method='bicubic')
    expected = np.reshape(np.clip(expected, 0, 1), -1)
    np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize('typed, accuracy', [(None, 1.0), ('0.875', 0.5)])
def test_the_probe_is_scored_on_the_same_images(tmp_path, typed, accuracy):
  class Corner(tf.Module):
    """Reads the first pixel; the first class if there is nothing to see."""

    def __init__(self):
      super().__init__()
      self.scale = tf.Variable(1.0)
      self.dense = types.SimpleNamespace(units=2)

    def __call__(self, rows):
      return tf.stack([0.9 - rows[:, 0], rows[:, 0] - 0.9], 1) * self.scale

  info = framed(tmp_path, 32)
  settings = {'eval_crop': typed} if typed else {}
  cfg = Config(
    image_size=32, batch_image_augmentation_type='simclr',
    eval_batch_size=4, **settings,
  )  # fmt: skip
  state = types.SimpleNamespace(method=Seeing(), probe=Corner())
  strategy = tf.distribute.get_strategy()
  evaluate = online.make_evaluator(cfg, strategy, state, info)
  assert evaluate()['eval/label_top_1_accuracy'] == accuracy


def test_batches_that_no_machine_holds_are_not_made(info):
  """Of a config.json, or of a mistyped --image_size."""
  of_context = features.eval_input(info, 10**7, 4, Look(1.0))
  with pytest.raises(ConfigError, match='4 images of 10000000 px take 9,600,0'):
    of_context(tf.distribute.InputContext())


def test_reading_is_shown_while_it_runs(info, monkeypatch, capsys):
  minutes = itertools.count(0, 60)
  clock = types.SimpleNamespace(monotonic=lambda: float(next(minutes)))
  monkeypatch.setattr(progress, 'time', clock)
  cfg = Config(image_size=SIZE, eval_batch_size=4)
  state = types.SimpleNamespace(method=Seeing(), probe=None)
  read = features.make_read(cfg, tf.distribute.get_strategy(), state)
  look = Look(0.875, corruption='fog', severity=3)
  features.read_all(read, info, look)
  lines = capsys.readouterr().out.splitlines()
  assert [line.split('  ')[1] for line in lines] == [
    '4/9 images',
    '8/9 images',
    '9/9 images',
  ]
  # Of a long title the end stays.
  assert lines[0].startswith('...') and ', val: fog 3  ' in lines[0]
  assert 'ETA' in lines[1] and all(len(line) < 80 for line in lines)


def test_random_crops_are_of_the_pass_and_the_image_alone(info):
  first = shown(info, Look(1.0, random=1))
  assert sorted(first) == list(range(9))
  for batch in (3, 9):
    for i, image in shown(info, Look(1.0, random=1), batch).items():
      np.testing.assert_array_equal(image, first[i])
  second = shown(info, Look(1.0, random=2))
  flips = 0
  for k, views in ((1, first), (2, second)):
    for i, image in views.items():
      draws = randomness.uniform([1, len(data_util.DRAWS)], [k, i])
      (box,) = data_util.crop_boxes([40, 28], draws, 0.08, 'logarithmic')
      top, left, height, width = (int(x) for x in box)
      part = decoded(info, i)[top : top + height, left : left + width]
      part = tf.image.convert_image_dtype(part, tf.float32)
      part = np.clip(tf.image.resize(part, [SIZE] * 2, method='bicubic'), 0, 1)
      flip = draws[0, data_util.DRAWS.index('flip')] < 0.5
      flips += int(flip)
      np.testing.assert_allclose(
        image, part[:, ::-1] if flip else part, atol=1e-6
      )
  assert 2 < flips < 16
  assert all(np.abs(first[i] - second[i]).max() > 0.1 for i in range(9))


def test_what_is_corrupted_is_the_crop_of_each_image(info):
  plain = shown(info, Look(0.875))
  found = shown(info, Look(0.875, corruption='gaussian_noise', severity=3))
  assert sorted(found) == list(range(9))
  for i, image in found.items():
    expected = corruptions.corrupt(
      'gaussian_noise',
      3,
      tf.constant(plain[i][None]),
      tf.constant([i], tf.int64),
    )
    np.testing.assert_array_equal(image, expected[0])
    assert np.abs(image - plain[i]).max() > 0.1


@pytest.mark.parametrize('kept', [0, 2**29])
def test_corruptions_one_after_the_other_read_the_images_once(
  info, monkeypatch, kept
):
  """Files that are gone after the first are not missed, if there is room."""
  monkeypatch.setattr(features, '_KEPT_BYTES', kept)
  looks = [Look(0.875, corruption='contrast', severity=n) for n in (1, 5)]
  alone = [shown(info, look) for look in looks]
  source, found = features.make_source(SIZE, 4), []
  for look in looks:
    dataset = source(info, look)(tf.distribute.InputContext())
    found.append(
      {
        int(i): image
        for rows in dataset.as_numpy_iterator()
        for i, image in zip(rows['index'], rows['views'][0], strict=True)
        if i >= 0
      }
    )
    for path in info.paths[1:] if kept else ():
      pathlib.Path(path).unlink(missing_ok=True)
  for images, expected in zip(found, alone, strict=True):
    assert sorted(images) == list(range(9))
    for i, image in images.items():
      np.testing.assert_array_equal(image, expected[i])


# Features that are not finite -------------------------------------------------


def broken_for(images):
  """NaN for the bright ones: the network's fault, not that of their files."""
  mean = tf.reduce_mean(images, [1, 2, 3])[:, None]
  rows = tf.where(mean > 0.5, np.nan, mean)
  return {'representation': tf.concat([mean, rows], 1), 'projection': rows}


@pytest.fixture
def half_broken(tmp_path):
  """3 dark images, 2 bright ones, and a file that is no image."""
  for i, value in enumerate((20, 30, 40, 200, 220)):
    image = np.full([20, 20, 3], value, np.uint8)
    write(f'{tmp_path}/val/a/{i}.png', tf.io.encode_png(image).numpy())
  write(f'{tmp_path}/val/a/5.png', b'no image')
  cfg = Config(
    mode='extract_features', checkpoint='none', dataset=f'folder:{tmp_path}',
    eval_split='val', image_size=SIZE, eval_batch_size=4,
    batch_image_augmentation_type='simclr', output=f'{tmp_path}/f.npz',
  )  # fmt: skip
  method = types.SimpleNamespace(embed=broken_for)
  return cfg, types.SimpleNamespace(method=method, probe=None)


def test_a_broken_network_is_not_a_broken_file(half_broken):
  cfg, state = half_broken
  lines = []
  strategy = tf.distribute.get_strategy()
  features.extract_features(cfg, strategy, state, lines.append)
  text = '\n'.join(lines)
  assert '1 of them cannot be decoded' in text
  assert '2 of them can be decoded, but the network gives NaN' in text
  with np.load(cfg.output) as file:
    rows = dict(file)
  assert rows.keys() == {'representation', 'projection', 'labels', 'ids'}
  assert rows['labels'].tolist() == [0, 0, 0, 0, 0, -1]
  read = features.make_read(cfg, strategy, state)
  info = describe(cfg.dataset, split='val')
  rows = features.read_all(read, info)
  assert rows['decoded'].tolist() == [True] * 5 + [False]
  with pytest.raises(DataError, match='here: the features of some images'):
    features.only_decoded(rows, 'here')
  dark = {name: np.delete(value, [3, 4], 0) for name, value in rows.items()}
  kept = features.only_decoded(dark, 'here')
  assert 'decoded' not in kept and len(kept['labels']) == 3
