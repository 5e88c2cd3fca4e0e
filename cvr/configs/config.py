"""The settings of a call, checked as a whole; to and from files."""

import dataclasses
import re

from cvr.configs import checks
from cvr.configs.settings import (
  FIELDS,
  ConfigError,
  Settings,
  of_older_code,
  refuse,
  show,
)

# What TensorFlow's int32 and float32 hold.
_MOST_INT, _MOST_FLOAT = 2**31, 1e38

# The annotation of a field -> (the types it takes, their name for people).
_KINDS = {
  bool: ((bool,), 'true or false'),
  bool | None: ((bool, type(None)), 'true or false'),
  int: ((int,), 'a whole number'),
  float: ((int, float), 'a number'),
  str: ((str,), 'text'),
}


def allowed(field):
  """What the flag may be, for people."""
  choices, kind = field.metadata['choices'], _KINDS[field.type][1]
  if isinstance(choices, tuple):
    return 'one of ' + ', '.join(str(c) for c in choices if c != '')
  return f'{kind} in {choices}' if choices else kind


def _is_allowed(field, value):
  if type(value) not in _KINDS[field.type][0]:
    return False
  choices = field.metadata['choices']
  if choices is None:
    return True
  if isinstance(choices, tuple):
    return value in choices
  low, high = map(float, choices[1:-1].split(','))
  above = value >= low if choices[0] == '[' else value > low
  below = value <= high if choices[-1] == ']' else value < high
  return above and below


def _beyond(value):
  """'' or why nothing that computes can hold a value of the right type."""
  if isinstance(value, str):
    # Lone surrogates are names of the system that are no text.
    texts = not re.search('[\0\ud800-\udfff]', value)
    return '' if texts else 'must be text of UTF-8'
  if isinstance(value, int) and abs(value) >= _MOST_INT:
    return f'must be below {_MOST_INT:,}'
  if isinstance(value, float) and abs(value) > _MOST_FLOAT:
    return f'must be below {_MOST_FLOAT:g}'
  return ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
  """Settings that are checked as a whole when they are put together."""

  def __post_init__(self):
    for field in FIELDS.values():
      value = getattr(self, field.name)
      if not _is_allowed(field, value):
        refuse(field.name, value, f'must be {allowed(field)}')
      if why := _beyond(value):
        refuse(field.name, value, why)
    checks.check(self)


def to_dict(cfg):
  """The settings as JSON can hold them."""
  return dataclasses.asdict(cfg)


def from_dict(values):
  """The Config of to_dict; settings that it lacks have their defaults."""
  for key in values:
    if key not in FIELDS:
      raise ConfigError(f'unknown setting {show(key)!r} in a stored config')
  return Config(**values)


def _check_facts(record):
  """Refuses what is said of a run's data where it has another type."""
  names, examples = record.get('class_names'), record.get('num_examples')
  if names is not None and not (
    isinstance(names, list) and all(isinstance(name, str) for name in names)
  ):
    raise ConfigError('its class_names are no list of names')
  if examples is not None and not (type(examples) is int and examples > 0):
    raise ConfigError('its num_examples is no number of examples')


def stored_settings(path, read):
  """The settings in a config.json, which anybody may have written.

  read: a function of the path that parses the file. Settings that are younger
  than the run are added, as the code was before they existed.
  """
  try:
    record = read(path)
    settings = record['config']
    from_dict({'pretrain_loss': None} | settings)
    _check_facts(record)
  except (ValueError, TypeError, LookupError, RecursionError, OSError) as error:
    reason = str(error) if isinstance(error, ConfigError) else 'no settings'
    if isinstance(error, OSError):
      reason = str(error.strerror)
    raise ConfigError(
      f'{path} was not written by a run ({reason}). Move it away to continue '
      'without it.'
    ) from error
  # All of them: other programs leave out what they do not know.
  defaults = {name: field.default for name, field in FIELDS.items()}
  return defaults | of_older_code(settings) | settings
