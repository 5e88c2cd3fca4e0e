"""The images of small_data.make_folder as every kind of data set."""

import csv
import io
import os
import tarfile

import numpy as np
import pytest

from small_data import CLASSES, encoded, write

TRAIN = [0] * 5 + [1] * 9 + [2] * 8
VALIDATION = [2, 1, 1, 2, 2, 1, 1]
# (split, index in it, class), in the order in which they are written.
EXAMPLES = [
  *(('train', i, k) for i, k in enumerate(TRAIN)),
  *(('val', i, k) for i, k in enumerate(VALIDATION)),
]


def _csv(root):
  with open(f'{root}/all.csv', 'w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(['Path', 'class', 'split'])
    for split, i, k in EXAMPLES:
      write(f'{root}/images/{split} {i}, x.png', encoded(i))
      rows.writerow([f'images/{split} {i}, x.png', CLASSES[k], split])
  return f'csv:{root}/all.csv'


def _list(root):
  lines = {'train': '', 'val': ''}
  for split, i, k in EXAMPLES:
    write(f'{root}/images/{split} {i}.png', encoded(i))
    lines[split] += f'images/{split} {i}.png\t{CLASSES[k]}\n'
  for split, text in lines.items():
    write(f'{root}/{split}.txt', text.encode())
  return f'list:{root}/{{split}}.txt'


def _npz(root):
  arrays = {}
  for split in ('train', 'val'):
    own = [(i, k) for s, i, k in EXAMPLES if s == split]
    pixels = np.array([i for i, _ in own], np.uint8)[:, None, None, None]
    arrays[f'{split}_images'] = np.tile(pixels, [1, 6, 8, 3])
    arrays[f'{split}_labels'] = np.array([[CLASSES[k]] for _, k in own])
  np.savez(f'{root}/all.npz', **arrays)
  return f'npz:{root}/all.npz'


def _wds(root):
  """Two files of train, one of val."""
  for split, i, k in EXAMPLES:
    with tarfile.open(f'{root}/{split}-{i // 13}.tar', 'a') as file:
      parts = {'png': encoded(i), 'cls': CLASSES[k].encode()}
      for suffix, content in parts.items():
        entry = tarfile.TarInfo(f'{split}/{i:02d}.{suffix}')
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
  return f'wds:{root}/{{split}}-*.tar'


def _hf(root):
  datasets = pytest.importorskip('datasets', reason="pip install '.[hf]'")
  datasets.disable_progress_bars()
  splits = {}
  for split in ('train', 'val'):
    own = [(encoded(i), k) for s, i, k in EXAMPLES if s == split]
    columns = {
      'label': [k for _, k in own],
      'image': [{'bytes': data, 'path': None} for data, _ in own],
    }
    features = datasets.Features(
      label=datasets.ClassLabel(names=list(CLASSES)), image=datasets.Image()
    )
    splits[split] = datasets.Dataset.from_dict(columns, features=features)
  datasets.DatasetDict(splits).save_to_disk(f'{root}/saved')
  return f'hf:{root}/saved'


MAKE = {'csv': _csv, 'list': _list, 'npz': _npz, 'wds': _wds, 'hf': _hf}


def make(kind, root):
  """Writes the images below root -> what to give --dataset."""
  os.makedirs(root, exist_ok=True)
  return MAKE[kind](root)
