"""Folders of images: splits, classes, what is refused and how."""

import os

import pytest
import tensorflow as tf

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


def test_folder_that_is_not_there_or_empty(tmp_path):
  with pytest.raises(DataError, match='no folder'):
    describe(f'folder:{tmp_path}/nowhere')
  with pytest.raises(DataError, match='no image'):
    describe(f'folder:{tmp_path}')
