"""What a search found, in pictures: a page, a PNG, files that can be opened."""

import os

import numpy as np
import pytest
import tensorflow as tf

from cvr.data import sources
from cvr.evaluation.search.search import Found
from cvr.report import neighbours
from small_data import make_folder


def found(info, order, image=None):
  image = image or neighbours.encoded(info, [0])[0]
  rows = [
    (distance, sources.example_id(info, i), '<b>cat')
    for distance, i in enumerate(order)
  ]
  return Found('/q/<query>.png', image, info, rows, '5 codes of 8 bits')


def pixel(path):
  return int(tf.io.decode_image(tf.io.read_file(path))[1, 1, 0])


def test_rows_of_arrays_are_written_in_the_order_of_nearness(tmp_path):
  values = np.arange(5, dtype=np.uint8)[:, None, None, None]
  np.savez(tmp_path / 'a.npz', images=np.tile(10 * values, [1, 9, 8, 3]))
  info = sources.describe(f'npz:{tmp_path}/a.npz', split='train')
  lines = []
  neighbours.write(found(info, [3, 0, 4]), str(tmp_path / 'out'), lines.append)
  folder = tmp_path / 'out' / 'nearest-_query_'
  names = sorted(os.listdir(folder))
  assert [pixel(str(folder / name)) for name in names] == [30, 0, 40]
  text = (tmp_path / 'out' / 'nearest-_query_.html').read_text()
  assert '0 bits &lt;b&gt;cat' in text and '<query>' not in text
  assert all(name in text for name in names)
  if (tmp_path / 'out' / 'nearest-_query_.png').exists():
    assert '.png' in lines[0]
  assert 'nearest-_query_.html' in lines[0]


def test_files_of_a_folder_are_named_where_they_are(tmp_path):
  folder = make_folder(tmp_path / 'images')
  info = sources.describe(f'folder:{folder}', split='train')
  neighbours.write(found(info, [7, 2]), str(tmp_path / 'out'), print)
  assert (
    sorted(name for name in os.listdir(tmp_path / 'out') if '.' not in name)
    == []
  )
  text = (tmp_path / 'out' / 'nearest-_query_.html').read_text()
  assert f'{folder}/train/cat/2.png' in text


@pytest.mark.parametrize('channels', [1, 2, 5])
def test_arrays_that_are_no_png_become_one(tmp_path, channels):
  image = np.full([4, 5, channels], 3, np.uint16) * 256
  np.savez(tmp_path / 'a.npz', images=image[None])
  pixels = {'bits': 16, 'channels': channels}
  info = sources.describe(f'npz:{tmp_path}/a.npz', split='train', **pixels)
  (data,) = neighbours.encoded(info, [0])
  content, ending = neighbours.viewable(data, pixels)
  assert ending == 'png'
  assert tf.io.decode_png(content, dtype=tf.uint16).shape[:2] == (4, 5)
  assert neighbours.thumbnail(data, pixels, 16).shape == (16, 16, channels)
