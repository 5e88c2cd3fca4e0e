"""The texts of --help: all of it, a section, a flag or a preset."""

import difflib
import textwrap

from cvr.configs.config import allowed
from cvr.configs.methods import KINDS, OWN_FLAGS, using
from cvr.configs.presets import PRESETS
from cvr.configs.settings import FIELDS, ConfigError, sections, show

# What people type for a flag.
SHORT_NAMES = {
  'method': 'pretrain_loss',
  'lr': 'learning_rate',
  'wd': 'weight_decay',
  'bs': 'train_batch_size',
}
_BEGINNING = """python run.py --flag=value ...

Self-supervised pretraining with C-SimCLR, C-BYOL and other methods
(--pretrain_loss). To begin: --preset=quickstart.

--help=Method shows a section, --help=learning_rate a flag and the presets that
set it, --help=quickstart the flags that a preset sets. Each flag is listed with
its default. If a flag is typed twice, the last value counts.
"""
_END = """
Exit status: 0 done; 1 a bug of this program; 2 a wrong flag or file; 3 the loss
was NaN or infinite, or the embeddings had collapsed; 75 try again (storage out
of reach or full, a worker lost); 143 stopped by a signal, after a checkpoint
was written."""
_PRESETS = 'Presets'


def _fill(text, indent):
  return textwrap.fill(
    text, 79, initial_indent=' ' * indent, subsequent_indent=' ' * 6,
    break_on_hyphens=False,
  )  # fmt: skip


def _entry(name):
  field = FIELDS[name]
  default = '' if field.default is None else show(field.default)
  values = 'see the end' if name == 'preset' else allowed(field)
  values = '' if values == 'text' else f'  ({values})'
  return [
    _fill(f'--{name}={default}{values}', 2),
    _fill(field.metadata['help'], 6),
  ]


def _section(title):
  lines = [title]
  if title == _PRESETS:
    for name, (about, _) in PRESETS.items():
      lines += [_fill(f'--preset={name}', 2), _fill(about, 6)]
  for name in sections().get(title, ()):
    lines += _entry(name)
  return lines


def whole():
  """What --help prints."""
  lines = [_BEGINNING]
  for title in (*sections(), _PRESETS):
    lines += [*_section(title), '']
  return '\n'.join([*lines[:-1], _END])


def _flag(name):
  lines = _entry(name)
  (section,) = (title for title, names in sections().items() if name in names)
  lines += ['', f'Section: {section}']
  if name in OWN_FLAGS:
    titles = [KINDS[method].title for method in using(name)]
    lines.append(_fill(f'Methods that read it: {", ".join(titles)}', 0))
  if name == 'preset':
    return [*lines, '', *_section(_PRESETS)]
  presets = {}
  for preset, (_, values) in PRESETS.items():
    if name in values:
      presets.setdefault(values[name], []).append(preset)
  if presets:
    lines += ['', 'Presets that set it:']
  for value in sorted(presets):
    lines.append(_fill(f'{show(value)}: {", ".join(presets[value])}', 2))
  return lines


def _preset(name):
  about, values = PRESETS[name]
  typed = ' '.join(f'--{flag}={show(value)}' for flag, value in values.items())
  return [
    _fill(f'--preset={name}', 2),
    _fill(about, 6),
    '',
    f'It sets these flags (--preset={name} --print_config shows all):',
    _fill(typed, 2),
  ]


def _unknown(word, asked, titles):
  """The error for a word that nothing has for its name."""
  known = [*titles, *FIELDS, *PRESETS]
  near = [*filter(None, [SHORT_NAMES.get(asked)])]
  near += difflib.get_close_matches(asked.lower(), known)
  near += [name for name in known if asked and asked.lower() in name]
  near = [titles.get(name, name) for name in dict.fromkeys(near)][:3]
  hint = f'there are sections ({", ".join(titles.values())}), flags and presets'
  if near:
    hint = f'did you mean {" or ".join(near)}?'
  return ConfigError(f'--help={show(word)}: {hint}')


def about(word):
  """What --help=WORD prints: of a section, a flag or a preset."""
  asked = word.lstrip('-').partition('=')[0]
  titles = {title.lower(): title for title in (*sections(), _PRESETS)}
  if asked.lower() in titles:
    lines = _section(titles[asked.lower()])
  elif asked in FIELDS:
    lines = _flag(asked)
  elif asked in PRESETS:
    lines = _preset(asked)
  else:
    raise _unknown(word, asked, titles)
  return '\n'.join(lines)
