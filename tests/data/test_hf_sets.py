"""Data sets of Hugging Face's library: columns, splits, what is refused."""

import os
import sys
import types

import pytest

from cvr.data import batches, hf_sets, sources
from cvr.data.batches import HostBatch
from cvr.data.sources import DataError, describe
from small_data import encoded, write
from small_shards import take

datasets = pytest.importorskip('datasets', reason="pip install -e '.[hf]'")
datasets.disable_progress_bars()


def saved(path, split=None, features=None, **columns):
  """Columns, that of images as numbers, as save_to_disk writes them."""
  columns = {
    name: [
      {'bytes': encoded(v), 'path': None} if isinstance(v, int) else v
      for v in values
    ]
    if name.startswith('image')
    else values
    for name, values in columns.items()
  }
  images = {n: datasets.Image() for n in columns if n.startswith('image')}
  rows = datasets.Dataset.from_dict(columns, split=split)
  for name, feature in (images | (features or {})).items():
    rows = rows.cast_column(name, feature)
  # What is set here is stored.
  rows.with_format('numpy').save_to_disk(path)
  return f'hf:{path}'


BREEDS = datasets.ClassLabel(names=['z', 'a', 'm'])


@pytest.mark.parametrize(
  'columns, label, classes, labels',
  [
    # The names of the library keep their order.
    ({'breed': BREEDS, 'label': None}, '', ('z', 'a', 'm'), (2, 0, 1)),
    ({'label': None}, '', ('0', '1', '2'), (2, 0, 1)),
    ({'breed': None}, '#breed', ('0', '1', '2'), (2, 0, 1)),
    ({'breed': None}, '', (), (-1, -1, -1)),
    ({'breed': BREEDS}, '#none', (), (-1, -1, -1)),
    ({'text': None}, '#text', ('a', 'b'), (1, 0, 1)),
    ({'none': BREEDS}, '', (), (-1, -1, -1)),
  ],
)
def test_columns(tmp_path, columns, label, classes, labels):
  values = {'text': ['b', 'a', 'b'], 'none': [-1, -1, -1]}
  features = {name: kind for name, kind in columns.items() if kind}
  name = saved(
    f'{tmp_path}/d', features=features, image=[5, 6, 7],
    **{name: values.get(name, [2, 0, 1]) for name in columns},
  )  # fmt: skip
  info = describe(name + label)
  assert (info.class_names, info.labels) == (classes, labels)
  assert [info.read(p) for p in info.paths] == [encoded(i) for i in (5, 6, 7)]
  assert sources.example_id(info, 2) == 'train/2'
  assert all(os.path.exists(file) for file in info.files)


def test_splits_and_columns_that_are_chosen(tmp_path, caplog):
  name = saved(
    f'{tmp_path}/d', 'test', {'y': BREEDS, 'x': BREEDS},
    image_a=[1], image_b=[2], y=[0], x=[1],
  )  # fmt: skip
  info = describe(name, split='validation')
  assert info.split == 'test' and info.labels == (0,)
  assert info.read(info.paths[0]) == encoded(1)
  assert 'image_a and image_b are columns of images; using image_a' in (
    caplog.text
  )
  assert 'y and x are columns of labels; using y' in caplog.text
  with pytest.raises(DataError, match="no split 'train'.*It has: test"):
    describe(name)


def test_an_image_that_is_missing_is_a_bad_one(tmp_path):
  info = describe(saved(f'{tmp_path}/d', image=[3, None, 4, 5]))
  (batch,) = take(info, 1, HostBatch(4, 4))
  bad = batch['bad'][batch['index'] == 1]
  assert bad.tolist() == [1] and batch['bad'].sum() == 1
  assert batches.labels_of(info).tolist() == [-1] * 4


def test_rows_read_no_files_from_outside(tmp_path):
  """save_to_disk puts files into rows; other writers leave their names."""
  write(f'{tmp_path}/secret.png', encoded(8))
  write(f'{tmp_path}/d/own.png', encoded(9))
  images = {}
  for name in ('secret.png', 'd/own.png', 'd/../secret.png'):
    row = {'bytes': None, 'path': f'{tmp_path}/{name}'}
    images[name] = [{'image': row}]
  roots = (f'{tmp_path}/d',)
  assert hf_sets._read({'s': images['d/own.png']}, roots, 'x/s/0') == encoded(9)
  for name in ('secret.png', 'd/../secret.png'):
    with pytest.raises(ValueError, match='secret.png is outside of'):
      hf_sets._read({'s': images[name]}, roots, 'x/s/0')


@pytest.mark.parametrize(
  'columns, label, says',
  [
    ({'x': [1]}, '', 'no column of images, only: x'),
    ({'image': [1], 'x': [1]}, '#y', "no column 'y', only: "),
    ({'image': [1], 'label': [[1]]}, '', 'labels are integers or texts'),
    ({'image': [1], 'label': [0.5]}, '', 'labels are integers or texts'),
    ({'image': [1, 2], 'label': [1, None]}, '', 'train/1 has no label, others'),
    (
      {'image': [1, 2], 'label': [1, -4]},
      '',
      "train/1: the label '-4' is",
    ),
    ({'image': []}, '', 'cannot be loaded: '),
  ],
)
def test_what_is_refused(tmp_path, columns, label, says):
  name = saved(f'{tmp_path}/d', **columns) + label
  with pytest.raises(DataError) as error:
    describe(name)
  assert says in str(error.value)
  assert str(error.value).startswith(f'--dataset={name}: ')


def test_places_that_hold_none(tmp_path):
  with pytest.raises(DataError, match='neither a folder nor a name on the hub'):
    describe(f'hf:{tmp_path}/none')
  name = saved(f'{tmp_path}/d', image=[1, 2])
  (file,) = describe(name).files
  write(file, b'no arrow file')
  with pytest.raises(DataError, match='^--dataset=hf:.*/d: cannot be loaded: '):
    describe(name)
  write(f'{tmp_path}/d/state.json', b'{')
  with pytest.raises(DataError, match='^--dataset=hf:.*/d: cannot be loaded: '):
    describe(name)


def test_the_library_is_optional_and_not_too_old(tmp_path, monkeypatch):
  name = f'hf:{tmp_path}'
  monkeypatch.setitem(
    sys.modules, 'datasets', types.SimpleNamespace(__version__='3.6.0')
  )
  with pytest.raises(DataError, match='needs version 4 of the library'):
    describe(name)
  monkeypatch.setitem(sys.modules, 'datasets', None)
  with pytest.raises(DataError, match="pip install -e '.\\[hf\\]'"):
    describe(name)


def test_large_downloads_are_allowed_by_a_flag(tmp_path, monkeypatch):
  asked = []
  path = saved(f'{tmp_path}/d', image=[1]).removeprefix('hf:')

  def builder(path, config):
    asked.append((path, config))
    info = types.SimpleNamespace(download_size=2 * 10**9)
    return types.SimpleNamespace(info=info, cache_dir=f'{tmp_path}/none')

  loaded = datasets.load_from_disk(path)
  monkeypatch.setattr(datasets, 'load_dataset_builder', builder)
  parts = {'train': loaded, 'test': loaded.select([])}
  monkeypatch.setattr(datasets, 'load_dataset', lambda *_: parts)
  with pytest.raises(DataError, match='download of 2.0 GB. Add --download'):
    describe('hf:owner/name:config')
  info = describe('hf:owner/name:config', download=True)
  with pytest.raises(DataError, match='the split test is empty'):
    describe('hf:owner/name:config', split='test', download=True)
  assert asked == [('owner/name', 'config')] * 3
  assert sources.example_id(info, 0) == 'train/0'
