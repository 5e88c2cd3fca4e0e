"""The built-in data set, prepared once."""

import pytest

from cvr.data import photo_patches, sources


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  """TFDS' folder, in which photo_patches has an eighth of its patches."""
  folder = str(tmp_path_factory.getbasetemp() / 'tfds')
  with pytest.MonkeyPatch.context() as patch:
    for split, count in photo_patches.PER_CLASS.items():
      patch.setitem(photo_patches.PER_CLASS, split, count // 8)
    for version in photo_patches.REGIONS:
      sources.describe(f'photo_patches:{version}', folder)
  return folder
