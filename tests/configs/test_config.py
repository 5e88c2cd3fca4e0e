"""A configuration, from Python or a file."""

import dataclasses
import json

import pytest

from cvr.configs import (
  config,
)
from cvr.configs.config import Config, ConfigError
from typed import parse


@pytest.mark.parametrize(
  'values',
  [
    {'train_steps': True},
    {'train_steps': '3'},
    {'learning_rate': None},
    {'use_blur': 1},
    {'use_tpu': 'true'},
    {'stem': ''},
    {'learning_rate': float('nan')},
  ],
)
def test_wrong_types_from_python_or_a_file(values):
  (name,) = values
  with pytest.raises(ConfigError, match=f'--{name}='):
    config.from_dict(values)


def test_dict_and_back():
  cfg = parse('--preset=cbyol --seed=5 --use_tpu=false')
  assert config.from_dict(json.loads(json.dumps(config.to_dict(cfg)))) == cfg
  assert config.from_dict({}) == Config()
  with pytest.raises(ConfigError, match='no_such_key'):
    config.from_dict({'no_such_key': 1})


def test_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    Config().seed = 1
