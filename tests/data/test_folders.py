"""Folders of images: splits, classes, what is refused and how."""

import errno
import os
import socket

import pytest
import tensorflow as tf

import run
from cvr.configs import command_line
from cvr.configs.config import ConfigError
from cvr.data import folders, reading, sources
from cvr.data.sources import DataError, describe
from small_data import CLASSES, encoded, write


def test_folder_classes_are_sorted_names(folder):
  info = describe(f'folder:{folder}', split='train')
  assert info.class_names == CLASSES and info.num_examples == 22
  assert info.labels == (0,) * 5 + (1,) * 9 + (2,) * 8
  test = describe(f'folder:{folder}', split='validation')
  assert test.class_names == CLASSES  # Those of train, though bird is absent.
  assert test.labels == (1,) * 4 + (2,) * 3


def test_validation_is_the_first_there_is(folder):
  def validation():
    info = describe(f'folder:{folder}', split='validation')
    return os.path.basename(info.folder), info.split, info.num_examples

  os.rename(f'{folder}/val', f'{folder}/test')
  assert validation() == ('test', 'test', 7)
  write(f'{folder}/val/cat/1.png', encoded(0))
  assert validation() == ('val', 'validation', 1)
  write(f'{folder}/validation/dog/1.png', encoded(0))
  write(f'{folder}/validation/dog/2.png', encoded(0))
  assert validation() == ('validation', 'validation', 2)
  assert describe(f'folder:{folder}', split='test').num_examples == 7


def test_without_a_train_folder_the_others_are_the_classes(folder):
  for name in CLASSES:
    os.rename(f'{folder}/train/{name}', f'{folder}/{name}')
  os.rmdir(f'{folder}/train')
  info = describe(f'folder:{folder}')
  assert info.class_names == CLASSES and info.split == 'train'
  assert info.labels == (0,) * 5 + (1,) * 9 + (2,) * 8
  test = describe(f'folder:{folder}', split='validation')
  assert test.class_names == CLASSES and test.labels == (1,) * 4 + (2,) * 3
  write(f'{folder}/val/horse/1.png', encoded(0))
  with pytest.raises(DataError, match='val/horse is a class that'):
    describe(f'folder:{folder}', split='validation')
  # One folder, or images beside the folders: not classes.
  write(f'{folder}/loose.png', encoded(0))
  with pytest.raises(DataError, match='no split .train.*bird, cat, dog, val'):
    describe(f'folder:{folder}')


def test_unlabelled_folder(tmp_path):
  for i in range(9):
    write(f'{tmp_path}/deep/{i % 2}/{i}.jpeg', encoded(i, tf.io.encode_jpeg))
  info = describe(f'folder:{tmp_path}')
  assert info.class_names == () and info.num_examples == 9


def test_hidden_folders_and_files_hold_no_images(folder):
  """Such as those of .git, of macOS and of notebooks."""
  before = describe(f'folder:{folder}')
  for hidden in ('.cache/1.png', 'train/.git/1.png', 'train/cat/._1.png',
                 'train/cat/.ipynb_checkpoints/1.png'):  # fmt: skip
    write(f'{folder}/{hidden}', encoded(0))
  info = describe(f'folder:{folder}')
  assert info.class_names == CLASSES and info.paths == before.paths


def break_folder(folder, how):
  if how == 'mixed':
    write(f'{folder}/train/loose.png', encoded(0))
  elif how == 'empty class':
    os.makedirs(f'{folder}/train/empty')
  elif how == 'unknown class':
    write(f'{folder}/val/horse/1.png', encoded(0))
  elif how == 'no train':
    os.rename(f'{folder}/train', f'{folder}/training')


@pytest.mark.parametrize(
  'how,split,says',
  [
    ('mixed', 'train', 'loose.png'),
    ('empty class', 'train', 'train/empty'),
    ('unknown class', 'validation', 'val/horse'),
    ('no train', 'train', 'training, val'),
    ('', 'holdout', "'holdout'"),
    ('', 'train[:10%]', 'whole splits'),
  ],
)
def test_unclear_folders_are_refused(folder, how, split, says):
  break_folder(folder, how)
  with pytest.raises(DataError) as error:
    describe(f'folder:{folder}', split=split)
  assert says in str(error.value)
  assert str(error.value).startswith('--dataset=folder:')


def test_a_class_that_a_split_lacks_hides_no_other(tmp_path):
  """The first one is not there; the next two are one folder."""
  for i, name in enumerate('abc'):
    write(f'{tmp_path}/train/{name}/1.png', encoded(i))
  write(f'{tmp_path}/val/b/1.png', encoded(3))
  os.symlink(f'{tmp_path}/val/b', f'{tmp_path}/val/c')
  with pytest.raises(DataError, match='val/c and .*val/b are one folder'):
    describe(f'folder:{tmp_path}', split='val')


def test_folder_that_is_not_there_or_empty(tmp_path):
  with pytest.raises(DataError, match='no folder'):
    describe(f'folder:{tmp_path}/nowhere')
  with pytest.raises(DataError, match='no image'):
    describe(f'folder:{tmp_path}')


# What is no image, and what is there twice.


@pytest.fixture
def said(caplog):
  """-> function: the lines that were logged since."""
  folders._say_once.cache_clear()

  def lines():
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    folders._say_once.cache_clear()
    assert all(line.isprintable() for line in found)
    return found

  return lines


def test_what_is_no_file_is_passed_over_and_told(folder, said):
  before = describe(f'folder:{folder}')
  cat = f'{folder}/train/cat'
  os.mkfifo(f'{cat}/pipe.png')
  os.symlink('pipe.png', f'{cat}/to-pipe.png')
  os.symlink('/dev/zero', f'{cat}/zero.png')
  os.symlink('nowhere', f'{cat}/gone.png')
  os.symlink('self.png', f'{cat}/self.png')
  os.symlink('folder', f'{cat}/folder')
  os.makedirs(f'{cat}/empty.png')
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(f'{cat}/s.png')
    info = describe(f'folder:{folder}')
  assert info.paths == before.paths and info.labels == before.labels
  (line,) = said()
  assert f'train: 6 passed over, as no regular files: {cat}/gone.png' in line
  assert '(a link that leads nowhere), ...' in line
  for name in os.listdir(cat):
    if os.path.islink(f'{cat}/{name}') or name == 'pipe.png':
      os.remove(f'{cat}/{name}')
  os.mkfifo(f'{cat}/only.png')
  describe(f'folder:{folder}')
  assert 'only.png (a pipe), ...' in said()[0]


def test_links_to_files_anywhere_are_images(folder, tmp_path, said):
  """Data sets are made of links."""
  before = describe(f'folder:{folder}')
  for path in before.paths:
    link = f'{tmp_path}/links/train/{os.path.relpath(path, before.folder)}'
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(path, link)
  info = describe(f'folder:{tmp_path}/links')
  assert info.labels == before.labels and not said()
  for link, path in zip(info.paths, before.paths, strict=True):
    assert os.path.realpath(link) == path


def test_loops_of_links_make_no_images(folder, said):
  """One loop gave the same images forty times, two loops had no end."""
  before = describe(f'folder:{folder}')
  train = f'{folder}/train'
  os.makedirs(f'{train}/cat/deep/deeper')
  os.symlink('../..', f'{train}/cat/deep/up')
  os.symlink('../../..', f'{train}/cat/deep/deeper/all')
  os.symlink('.', f'{train}/dog/here')
  os.symlink('../bird', f'{train}/dog/also')
  info = describe(f'folder:{folder}')
  assert info.paths == before.paths and info.labels == before.labels
  (line,) = [line for line in said() if 'links to folders' in line]
  assert 'train: 4 passed over, links to folders that were read' in line
  flat = describe(f'folder:{train}/dog')
  assert {os.path.realpath(path) for path in flat.paths} == {
    path for path in before.paths if '/cat/' not in path
  }
  assert flat.num_examples == 5 + 8


def test_a_folder_has_its_own_name_and_not_that_of_a_link(tmp_path, said):
  write(f'{tmp_path}/z/real/1.png', encoded(1))
  os.makedirs(f'{tmp_path}/a')
  os.symlink('../z/real', f'{tmp_path}/a/link')
  info = describe(f'folder:{tmp_path}')
  assert info.paths == (f'{tmp_path}/z/real/1.png',)
  assert 'a/link' in ''.join(said())
  # From elsewhere it is read, once.
  write(f'{tmp_path}-more/deep/2.png', encoded(2))
  for name in ('x', 'y'):
    os.symlink(f'{tmp_path}-more', f'{tmp_path}/{name}')
  info = describe(f'folder:{tmp_path}')
  assert info.paths[0] == f'{tmp_path}/x/deep/2.png' and len(info.paths) == 2


def test_one_file_twice_is_told(folder, said):
  cat = f'{folder}/train/cat'
  os.symlink('3.png', f'{cat}/x.png')
  os.link(f'{cat}/3.png', f'{folder}/train/dog/y.png')
  info = describe(f'folder:{folder}')
  assert info.num_examples == 24
  (line,) = said()
  assert 'train: 2 images that are the same file as another one' in line
  assert f'{cat}/x.png and {cat}/3.png, ...' in line


def test_one_folder_is_not_two_classes(folder):
  os.symlink('cat', f'{folder}/train/puma')
  with pytest.raises(DataError, match='train/puma and .*train/cat are one'):
    describe(f'folder:{folder}')


def test_images_of_two_splits_are_told(folder, said):
  for split in ('train', 'validation'):
    describe(f'folder:{folder}', split=split)
  assert not said()
  os.symlink('../../val/cat', f'{folder}/train/cat/more')
  os.symlink('../../val/dog/0.JPG', f'{folder}/train/dog/0.JPG')
  assert describe(f'folder:{folder}').num_examples == 27
  (line,) = said()
  assert '5 images of train are files of val, too: ' in line
  assert line.endswith('train/cat/more/1.JPG, ...')
  describe(f'folder:{folder}', split='validation')
  assert not said()


def test_names_that_are_no_text(folder, said):
  """Of files they are read; of classes they would be written."""
  name = os.fsdecode(b'caf\xe9')
  os.rename(f'{folder}/train/cat/0.png', f'{folder}/train/cat/{name}.png')
  info = describe(f'folder:{folder}')
  index = info.paths.index(f'{folder}/train/cat/{name}.png')
  assert sources.example_id(info, index) == 'cat/caf\\xe9.png'
  with tf.device('CPU:0'):
    data, label = reading.path_reader(info)(index)
  assert data.numpy() == encoded(5) and label == 1
  os.rename(f'{folder}/train/cat', f'{folder}/train/{name}')
  with pytest.raises(DataError, match='class folder .*caf.* is not UTF-8'):
    describe(f'folder:{folder}')


def test_a_folder_that_cannot_be_listed(folder, monkeypatch):
  """Else a part of the data would be missing without a word."""

  def scandir(path, real=os.scandir):
    if path.endswith('cat'):
      raise OSError(number, os.strerror(number), path)
    return real(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  number = errno.EACCES
  with pytest.raises(DataError, match='train/cat cannot be read: Permission'):
    describe(f'folder:{folder}')
  number = errno.ESTALE
  with pytest.raises(OSError) as error:
    describe(f'folder:{folder}')
  assert run._explained(error.value)[0] == 75


def test_the_command_line_sees_no_end_of_links_either(tmp_path):
  """It looks for any file at all, before TensorFlow is there."""
  for a in 'ab':
    os.makedirs(f'{tmp_path}/{a}')
    for b in 'xy':
      os.symlink('..', f'{tmp_path}/{a}/{b}')
  with pytest.raises(ConfigError, match='the folder is empty'):
    command_line.parse(['run.py', f'--dataset=folder:{tmp_path}'])
  os.mkfifo(f'{tmp_path}/pipe')
  for kind in ('csv', 'list', 'npz', 'npy'):
    for name, says in (('pipe', 'it is a pipe'), ('a', 'it is a folder')):
      with pytest.raises(ConfigError, match=says):
        command_line.parse(['run.py', f'--dataset={kind}:{tmp_path}/{name}'])
