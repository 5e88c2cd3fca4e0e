"""The command line: absl flags made of Config's fields, the help, the table.

Nothing heavy is imported here, so that --help and a mistyped flag answer at
once. In order of precedence, a value is what was typed, else (--mode=eval) what
the run in model_dir was trained with, else the preset's, else the default.
"""

import difflib
import re
from typing import NamedTuple

from absl import flags

from cvr.configs import help
from cvr.configs.checks import check_place, check_surroundings, warnings
from cvr.configs.config import allowed, from_dict, to_dict
from cvr.configs.derived import READING, STOCHCON, stem
from cvr.configs.methods import KINDS, SWITCHES
from cvr.configs.presets import PRESETS
from cvr.configs.settings import (
  FIELDS,
  ConfigError,
  of_one_call,
  of_the_encoder,
  of_the_run,
  refuse,
  sections,
  show,
  with_version,
)


class Help(Exception):
  """--help was typed; str() of this is what to print."""


def changes(stored, cfg):
  """Settings that differ from a stored run's -> (all of them, those that
  change its meaning), as lines.

  What a call does, where and how often it writes may differ when it resumes.
  """
  harmless = ['data_dir', 'eval_split', 'eval_batch_size', 'cache_dataset']
  harmless += ['eval_crop', 'corrupt_scale', 'max_bad_images']
  harmless += ['checkpoint', 'deterministic', 'augment_on']
  harmless += [*of_one_call(), *sections()['Checkpoints and summaries']]
  different = {
    name: f'--{name}={show(value)}, was {show(stored[name])}'
    for name, value in to_dict(cfg).items()
    if name in stored and stored[name] != value
  }
  lines = [
    line for name, line in different.items() if name not in of_one_call()
  ]
  return lines, [
    line for name, line in different.items() if name not in harmless
  ]


class Stored(NamedTuple):
  """The settings of a stored run, or those that a checkpoint's tensors show."""

  settings: dict
  methods: tuple  # the values of --pretrain_loss that it may belong to
  released: bool = False  # in the published layout: the architecture alone
  older: dict = {}  # those settings that are younger than the run


# What tensors are made by.
_ARCHITECTURE = (
  'channels',
  'resnet_depth',
  'width_multiplier',
  'sk_ratio',
  'se_ratio',
  'stem',
  'shortcut',
  'proj_head_mode',
  'num_proj_layers',
  'proj_head_hidden',
  'proj_head_hidden_dim',
  'proj_out_dim',
  'proj_head_output_bn',
  'view_pairs',
  'latent_top_k',
  'latent_dim',
  'latent_variance',
  'latent_scale',
)


def _taken_over(typed, given, stored, whole):
  """The stored settings that this call takes over; typed ones may not differ.

  whole: all of them, to read or resume a model; else those of what was built.
  """
  settings = stored.settings
  # Finetuning may have another probe, but not who reads it.
  fixed = [*_ARCHITECTURE, *(['probe_latent'] if whole else [])]
  if settings.get('resnet_depth', 50) >= 50:
    fixed.remove('shortcut')  # Both are one network.
  for name in fixed:
    value, there = typed.get(name), settings.get(name)
    if None in (value, there) or value == there or 'auto' in (value, there):
      continue
    # Tensors do not tell the stem of small images from the one for CIFAR.
    if (value, there) != ('small', 'cifar'):
      refuse(
        name, value, f'the checkpoint was made with {show(there)}; drop it'
      )
  if not whole:
    return of_the_encoder(settings) | _latent_taken_over(given, settings)
  settings = of_the_run(settings)
  if stored.methods and given.get('pretrain_loss') not in stored.methods:
    if 'pretrain_loss' in typed:
      names = ' or '.join(stored.methods)
      refuse(
        'pretrain_loss', typed['pretrain_loss'], f'the checkpoint is of {names}'
      )
    settings['pretrain_loss'] = stored.methods[0]
  return settings


def _latent_taken_over(given, settings):
  """What finetuning needs to know of a latent: whose it is."""
  if given.get('train_mode') != 'finetune':
    return {}
  method = settings.get('pretrain_loss')
  if method in STOCHCON:
    return {'pretrain_loss': method}
  if given.get('probe_latent'):
    refuse('probe_latent', True, 'the checkpoint has no latents; drop it')
  return {}


def define_flags(flag_values=flags.FLAGS):
  """Defines an absl flag for every field of Config."""
  define = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    bool: flags.DEFINE_boolean,
    bool | None: flags.DEFINE_boolean,
  }
  for name, field in FIELDS.items():
    help, choices = field.metadata['help'], field.metadata['choices']
    if field.type is str and choices:
      flags.DEFINE_enum(
        name, field.default, choices, help, flag_values=flag_values
      )
    else:
      define[field.type](name, field.default, help, flag_values=flag_values)


def _did_you_mean(name):
  near = difflib.get_close_matches(name, FIELDS)
  near = near or [field for field in FIELDS if name in field][:3]
  near = [help.SHORT_NAMES[name]] if name in help.SHORT_NAMES else near
  names = ' or '.join(f'--{flag}' for flag in near)
  return f'did you mean {names}?' if near else 'see --help'


def _refuse_value(name, value):
  """Refuses a value that the flag cannot have."""
  choices = FIELDS[name].metadata['choices']
  words = [str(c) for c in choices] if isinstance(choices, tuple) else []
  near = difflib.get_close_matches(value, filter(None, words))
  if near:
    why = f'did you mean {" or ".join(near)}? --help={name} shows all'
    refuse(name, value, why)
  refuse(name, value, f'must be {allowed(FIELDS[name])}')


def _asked(argv):
  """What help is wanted of: '' of all, None for none."""
  for i, word in enumerate(argv):
    after = ''.join(argv[i + 1 : i + 2])
    found = re.fullmatch(r'--?(?:h|help\w*)(?:=(.*))?', word)
    if found:
      return found[1] or (after if not after.startswith('-') else '')
  return None


def _refuse_word(word):
  """Refuses a word that stands among the flags and is none."""
  name, equals, value = word.partition('=')
  if word.lower() in ('true', 'false'):
    hint = f'write --flag={word.lower()}'
  elif name in FIELDS:
    hint = f'did you mean --{name}{equals}{value}?'
  else:
    hint = _did_you_mean(name)
  shown = show(word) or repr(word)
  raise ConfigError(f'{shown}: flags begin with --; {hint}')


def typed_flags(argv):
  """-> {name: value} of the flags in argv, whose first word is the program."""
  for word in argv[1:]:
    # With these absl reads arguments from a file, or lets misspellings pass.
    if re.match(r'--?(flagfile|undefok)\b', word):
      raise ConfigError(f'{show(word)}: not supported; type the flags')
  expanded = [w for w in argv if re.match(r'--?dataset=wds:', w)]
  if len(expanded) > 1:
    raise ConfigError(
      f'{show(expanded[0])} and {len(expanded) - 1} more: the shell has '
      "expanded the braces; write quotes: --dataset='wds:...'"
    )
  values = flags.FlagValues()
  define_flags(values)
  try:
    words = values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    name = error.flagname
    hint = _did_you_mean(name)
    raise ConfigError(f'--{show(name)}: no such flag; {hint}') from None
  except (flags.Error, ValueError) as error:
    bad = re.match(r'flag --(\w+)=(.*?): ', str(error), re.DOTALL)
    if bad and bad[1] in FIELDS:
      _refuse_value(*bad.groups())
    raise ConfigError(str(error).partition('\n')[0]) from None
  if words:
    _refuse_word(words[0])
  return {name: values[name].value for name in FIELDS if values[name].present}


def _preset(typed):
  """What a preset sets; its evaluation split is one of its own data set."""
  values = PRESETS[typed['preset']][1] if typed.get('preset') else {}
  foreign = ('eval_split',) if 'dataset' in typed else ()
  return {k: v for k, v in values.items() if k not in foreign}


def _find_stored(given, load):
  """-> (Stored at --model_dir or --checkpoint, whether all of it is taken,
  the settings that a run which is resumed is older than).
  """
  checkpoint, model_dir = given.get('checkpoint'), given.get('model_dir')
  reading, there = given.get('mode') in READING, None
  try:
    there = load(model_dir) if model_dir else None
  except ConfigError:
    if reading:
      raise
    # Otherwise resuming reports the damage and uses an earlier checkpoint.
  if not reading:
    # Our runs resume with the same flags typed again, which are compared. A
    # released checkpoint comes without flags.
    if there and there.released and not given.get('fresh_start'):
      return there, True, {}
    older = there.older if there and not given.get('fresh_start') else {}
    return load(checkpoint) if checkpoint else None, False, older
  if there and (given['mode'] == 'eval' or not checkpoint):
    # The checkpoint is where a run in model_dir began, if there is one.
    return there, True, {}
  return load(checkpoint) if checkpoint else None, True, {}


def parse(argv, load_stored=None):
  """argv -> Config; raises ConfigError, or Help.

  load_stored(path) -> Stored: settings that need not be typed again.
  """
  asked = _asked(argv[1:])
  if asked is not None:
    raise Help(help.about(asked) if asked else help.whole())
  typed = with_version(typed_flags(argv))
  preset = with_version(_preset(typed))
  given = preset | typed
  for flag in ('model_dir', 'checkpoint'):
    check_place(flag, given.get(flag, ''))
  source, whole, older = None, False, {}
  if load_stored:
    source, whole, older = _find_stored(given, load_stored)
  stored = _taken_over(typed, given, source, whole) if source else {}
  cfg = from_dict(preset | stored | older | typed)
  check_surroundings(cfg)
  return cfg


def describe(cfg, argv=('run.py',)):
  """The table of --print_config; argv is the command line behind cfg.

  Each value, and who set it where it is not the default.
  """
  typed = typed_flags(argv)
  implied = KINDS[cfg.pretrain_loss].switches
  follows = {name: name in implied for name in SWITCHES}
  follows['stem'] = stem(cfg)
  lines = []
  for title, names in sections().items():
    lines.append(title)
    for name in names:
      value = getattr(cfg, name)
      by = '' if value == FIELDS[name].default else 'stored'
      by = 'preset' if name in _preset(typed) else by
      by = 'typed' if name in typed else by
      shown = show(follows.get(name, 'auto' if value is None else value))
      lines.append(f'  {name:30} {shown or "-":26} {by}'.rstrip())
  notes = warnings(cfg)
  return '\n'.join([*lines, *(['', 'Notes'] if notes else []), *notes])
