import functools
import typing

import pytest
import tf_keras as keras

import exported_models
from cvr.exports import export


@pytest.fixture
def few_blocks(monkeypatch):
  exported_models.shorten(monkeypatch)


class Written(typing.NamedTuple):
  """An export that several tests read."""

  model: export.Trained
  folder: object
  lines: list


@pytest.fixture(scope='session')
def written(tmp_path_factory):
  """-> written(format, one of exported_models.KINDS), a Written made once."""

  @functools.cache
  def write(kind_of_file, kind):
    keras.utils.set_random_seed(0)
    folder, lines = tmp_path_factory.mktemp('exports'), []
    with pytest.MonkeyPatch.context() as patch:
      exported_models.shorten(patch)
      model = exported_models.trained(patch, **exported_models.KINDS[kind])
      export.export(kind_of_file, str(folder), model, lines.append)
    return Written(model, folder, lines)

  return write
