"""TFDS' data sets: their names, how they are prepared, what is refused."""

import os
import threading

import pytest

from cvr.data import photo_patches, tfds_sets
from cvr.data.sources import DataError, describe


@pytest.mark.parametrize(
  'name',
  [
    '../../etc',
    'cifar10/../x',
    'cifar10/..',
    'CIFAR',
    'a b',
    'x:1',
    '',
    '/etc',
  ],
)
def test_names_that_are_paths_are_refused(name, tmp_path, monkeypatch):
  monkeypatch.setattr(tfds_sets.tfds, 'builder_cls', None)
  with pytest.raises(DataError, match='neither folder:PATH nor a TFDS'):
    describe(name, str(tmp_path))


@pytest.mark.parametrize(
  'name,says',
  [
    ('cifar11', 'cifar10'),
    ('photo_patches/23px', 'Closest: 32px'),
    ('mnist/23px', 'Closest: it has none.'),
    ('photo_patches:9.9.9', '9.9.9'),
    ('imagenet2012', 'docs/imagenet.md'),
    ('imagenet2012_subset/1pct', "tfds.builder('imagenet2012_subset/1pct'"),
    ('food101', 'Add --download'),
  ],
)
def test_data_sets_that_cannot_be_had(name, says, tmp_path):
  with pytest.raises(DataError) as error:
    describe(name, str(tmp_path))
  assert says in str(error.value)
  assert f'--dataset={name}' in str(error.value)
  assert str(error.value).count('\n') <= 1
  assert not os.listdir(tmp_path)


def test_without_a_network_nobody_waits(tmp_path, monkeypatch):
  asked, prepared = [], []
  known = set()

  def find(host, *_):
    asked.append(host)
    if host not in known:
      raise OSError('Name or service not known')

  def prepare(builder, **_):
    prepared.append(builder.name)
    raise ValueError('no route')

  monkeypatch.setattr(tfds_sets.socket, 'getaddrinfo', find)
  monkeypatch.setattr(
    tfds_sets.tfds.core.DatasetBuilder, 'download_and_prepare', prepare
  )
  monkeypatch.setattr(tfds_sets.urllib.request, 'getproxies', dict)
  with pytest.raises(DataError) as error:
    describe('cifar10', str(tmp_path))
  assert f'cannot find {", ".join(sorted(asked))} for' in str(error.value)
  assert "tfds.builder('cifar10'" in str(error.value)
  assert asked and not prepared
  # One of the places is enough, and a proxy may know them.
  known.add(asked[-1])
  with pytest.raises(DataError, match='no route'):
    describe('cifar10', str(tmp_path))
  proxy = {'https': 'http://proxy:3128'}
  monkeypatch.setattr(tfds_sets.urllib.request, 'getproxies', lambda: proxy)
  with pytest.raises(DataError, match='no route'):
    describe('cifar10', str(tmp_path))
  assert prepared == ['cifar10', 'cifar10']


def few_patches(monkeypatch, count):
  for split in photo_patches.PER_CLASS:
    monkeypatch.setitem(photo_patches.PER_CLASS, split, count)


def test_unknown_size_counts_as_large(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds_sets, '_download_bytes', lambda builder: None)
  with pytest.raises(DataError, match='of unknown size. Add --download'):
    describe('photo_patches', str(tmp_path))
  few_patches(monkeypatch, 1)
  info = describe('photo_patches', str(tmp_path), download=True)
  assert info.num_examples == 16


def test_photo_patches_end_to_end(data_dir):
  info = describe('photo_patches', data_dir)
  assert info.cluster == 'photograph'
  assert info.num_examples == 1024 and len(info.class_names) == 16
  held_out = describe('photo_patches:2.0.0', data_dir, 'validation')
  assert held_out.num_examples == 256 and held_out.split == 'validation'
  slices = ('train[:10%]', 'train[10%:]')
  parts = [describe('photo_patches', data_dir, s) for s in slices]
  assert [part.num_examples for part in parts] == [102, 922]
  with pytest.raises(DataError, match='no split .holdout.*train, test'):
    describe('photo_patches', data_dir, 'holdout')


def test_validation_means_test_where_there_is_no_other(data_dir):
  test = describe('photo_patches', data_dir, 'validation')
  assert test.num_examples == 256 and test.split == 'test'


def test_no_other_name_means_another_split(data_dir):
  with pytest.raises(DataError, match='slices look like'):
    describe('photo_patches', data_dir, 'withheld')


def test_validation_means_test_in_every_slice(data_dir):
  both = 'validation[:10%]+validation[90%:]'
  assert describe('photo_patches', data_dir, both).num_examples == 52


def test_the_size_of_a_download_is_that_of_its_files(tmp_path):
  builder = tfds_sets.tfds.builder('cifar10', data_dir=str(tmp_path))
  # CIFAR-10's page has 162 MB for the binary version, of 2^20 bytes.
  found = tfds_sets._download_bytes(builder)
  assert found == pytest.approx(162 * 2**20, rel=0.01)


def test_two_prepare_at_once(tmp_path, monkeypatch):
  few_patches(monkeypatch, 2)
  sizes = []

  def prepare():
    info = describe('photo_patches/64px', str(tmp_path))
    sizes.append(info.num_examples)

  threads = [threading.Thread(target=prepare) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sizes == [32, 32]


def test_prepared_files_that_are_gone(tmp_path, monkeypatch):
  few_patches(monkeypatch, 1)
  info = describe('photo_patches', str(tmp_path))
  os.remove(info.shards[0].path)
  with pytest.raises(DataError, match='is missing'):
    describe('photo_patches', str(tmp_path))
