"""What a run has, as plain data: of its files, and of one pass of a network."""

import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins.projector import ProjectorConfig

import run
from cvr.configs.config import Config
from cvr.report import collect, collect_images
from small_runs import QUICK, flags


@pytest.fixture
def trained(glance, images, tmp_path):
  """trained(*flags) -> the folder of a run of six steps."""
  del glance

  def train(*more):
    folder = tmp_path / 'run'
    assert run.main(flags(images, folder, *QUICK, *more)) == 0
    return folder

  return train


def report(folder, *more):
  argv = ['run.py', '--mode=report', f'--model_dir={folder}', '--use_tpu=false']
  return run.main([*argv, *more])


@pytest.mark.report
def test_a_run_ends_with_its_report(trained, capsys):
  text = (trained() / 'report.html').read_text()
  assert 'SimCLR' in text and '10 images by PCA' in text
  assert 'id="probe"' in text and 'id="pairs"' in text
  assert 'report.html' in capsys.readouterr().out


@pytest.mark.report
def test_a_report_that_fails_is_a_warning(trained, monkeypatch, capsys):
  def broken(*_):
    raise RuntimeError('no pictures today')

  monkeypatch.setattr(collect_images, 'images_of', broken)
  folder = trained()
  assert not (folder / 'report.html').exists()
  said = capsys.readouterr().out
  assert 'Warning: no report.html: RuntimeError: no pictures today' in said
  assert 'Written to' in said


@pytest.mark.report
def test_no_report_is_written_where_none_is_wanted(trained):
  assert not (trained('--report=false') / 'report.html').exists()


def test_a_stored_run_and_another_beside_it(trained, tmp_path, capsys):
  folder = trained()
  assert report(folder, f'--compare={folder}') == 0
  text = (folder / 'report.html').read_text()
  assert text.count('<figcaption>10 images by PCA') == 2
  assert report(folder, f'--compare={tmp_path}/none') == 2
  assert 'there is no config.json of a run' in capsys.readouterr().err


def test_the_projector_of_tensorboard_gets_the_same_images(trained, capsys):
  folder = trained()
  assert report(folder) == 0
  assert 'projector shows its 10 images' in capsys.readouterr().out
  config = text_format.Parse(
    (folder / 'projector_config.pbtxt').read_text(), ProjectorConfig()
  )
  (embedding,) = config.embeddings
  count, width = embedding.tensor_shape
  data = (folder / embedding.tensor_path).read_bytes()
  rows = np.frombuffer(data, '<f4').reshape(count, width)
  assert count == 10 and np.isfinite(rows).all() and rows.std(0).max() > 0
  lines = (folder / embedding.metadata_path).read_text().splitlines()
  assert lines[0] == 'class\timage' and len(lines) == 11
  assert {line.partition('\t')[0] for line in lines[1:]} == {'dark', 'light'}
  sprite = (folder / embedding.sprite.image_path).read_bytes()
  pixels = tf.io.decode_png(sprite).numpy()
  height, width = embedding.sprite.single_image_dim
  # Four by four places, row by row, as many as there are images.
  assert pixels.shape == (4 * height, 4 * width, 3)
  places = pixels.reshape(4, height, 4, width, 3).swapaxes(1, 2)
  light = places.reshape(16, -1).mean(1)
  assert (light[10:] == 0).all()
  expected = [line.startswith('light') for line in lines[1:]]
  assert [bool(x > 125) for x in light[:10]] == expected


def test_without_its_data_a_run_has_its_numbers(trained, capsys):
  folder = trained()
  record = json.loads((folder / 'config.json').read_text())
  record['config']['dataset'] = 'folder:/gone'
  (folder / 'config.json').write_text(json.dumps(record))
  assert report(folder) == 0
  text = (folder / 'report.html').read_text()
  assert 'No pictures' in text and 'Training loss' in text
  assert 'No pictures of' in capsys.readouterr().out


def test_metrics_of_a_damaged_file():
  lines = [
    '{"step": 2, "train/a": 1.5, "train/b": NaN}',
    '{"step": 1, "train/a": 3}',
    'nonsense', '{"no": 1}', '[1]', '{"step": 3, "train/a": {}}',
    '{"step": 2, "train/a": 2.5}',
    '{"step": 4, "tr',
  ]  # fmt: skip
  series, damaged = collect.metrics_of('\n'.join(lines))
  assert series['train/a'] == ([1, 2], [3.0, 2.5]) and damaged == 5
  assert np.isnan(series['train/b'][1]).all()


@pytest.mark.parametrize(
  'record', ['', 'no JSON', '[]', '{"config": 3}', '{"config": {}, "argv": 2}']
)
def test_a_folder_with_odd_files(tmp_path, record):
  (tmp_path / 'config.json').write_text(record)
  (tmp_path / 'result.json').write_text('{')
  (tmp_path / 'bad_images.txt').write_bytes(b'small\t\xff.jpg\nx\n')
  (tmp_path / 'eval').mkdir()
  (tmp_path / 'eval' / 'card.json').write_text('{}')
  found = collect.of_files(str(tmp_path))
  assert found['metrics'] == {} and found['card'] is None
  assert found['bad_images']['count'] == 2 and found['notes']
  collect.page.page([found])


def test_what_was_changed_is_told_against_the_preset():
  cfg = Config(preset='quickstart', seed=3)
  changed = collect.changed(vars(cfg))
  assert changed['seed'] == ('3', '0')
  # The preset has 0.5, and this call the default.
  assert changed['learning_rate'] == ('0.3', '0.5')
  assert 'preset' not in changed and 'momentum' not in changed


@pytest.mark.parametrize(
  'steps, batch, wanted', [(6, 8, 128), (250, 256, 1000), (40, 256, 204)]
)
def test_the_end_of_a_run_costs_a_share_of_it(steps, batch, wanted):
  cfg = Config(train_batch_size=batch)
  assert collect_images.at_end(cfg, steps) == wanted


def test_bits_and_no_labels(glance, images, tmp_path):
  folder = tmp_path / 'bits'
  made = ['--pretrain_loss=stochcon_bernoulli', '--latent_dim=12', *QUICK]
  made += [f'--dataset=folder:{images}/train/dark', '--report=false']
  assert run.main(flags(images, folder, *made)) == 0
  assert report(folder) == 0
  text = (folder / 'report.html').read_text()
  assert 'Nearest by the bits that differ' in text
  assert 'id="probe"' not in text and os.path.getsize(
    folder / 'report.html') < 10**6  # fmt: skip
  assert re.search(r'\d+ bits<', text)


@pytest.mark.parametrize('side, shown', [(28, 28), (96, 96), (224, 74)])
def test_thumbnails_are_whole_and_small(side, shown):
  from cvr.evaluation import features

  images = np.linspace(0, 1, side, dtype=np.float32)
  images = np.broadcast_to(images[None, :, None, None], [2, side, side, 3])
  small = features._small(images, 96).numpy()
  assert small.shape == (2, shown, shown, 3)
  assert small[0, 0, 0, 0] < 4 and small[0, -1, 0, 0] > 250
  made = collect_images.sheet(small)
  assert (made.side, made.cell % 8) == (shown, 0) and made.cell - shown < 8
