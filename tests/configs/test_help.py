"""The help: all of it, and what is asked for alone."""

import re

import pytest

from cvr.configs import config, help, methods, presets
from cvr.configs.config import ConfigError


def test_all_flags_and_presets_are_in_it():
  lines = help.whole().split('\n')
  assert max(map(len, lines)) <= 80
  for name in config.FIELDS:
    assert any(line.startswith(f'  --{name}=') for line in lines), name
  for name in presets.PRESETS:
    assert f'  --preset={name}' in lines
  assert lines.count('Heads') == 1


def flags_in(text):
  return re.findall(r'^  --(\w+)=', text, re.M)


@pytest.mark.parametrize('word', ['Heads', 'heads', '--Heads'])
def test_a_section(word):
  text = help.about(word)
  assert text in help.whole() and text.startswith('Heads\n')
  names = flags_in(text)
  assert names[0] == 'proj_head_mode' and names[-1] == 'stochastic_projector'


@pytest.mark.parametrize('word', ['kappa_e', '--kappa_e', '--kappa_e=5'])
def test_a_flag(word):
  text = help.about(word)
  assert flags_in(text) == ['kappa_e']
  assert text.startswith('  --kappa_e=1024.0  (a number in (0, inf))')
  assert 'Section: Method' in text
  assert 'Methods that read it: C-SimCLR, C-BYOL' in text


@pytest.mark.parametrize('name', config.FIELDS)
def test_the_presets_of_a_flag_are_those_that_set_it(name):
  text = help.about(name)
  assert max(map(len, text.split('\n'))) <= 80
  if name == 'preset':
    assert {*flags_in(text)} == {'preset'} and '--preset=quickstart' in text
    return
  told = {}
  _, _, tail = text.partition('Presets that set it:\n')
  for entry in re.split(r'\n(?=  \S)', tail) if tail else ():
    value, _, names = ' '.join(entry.split()).partition(': ')
    told |= dict.fromkeys(names.split(', '), value)
  values = {p: v[name] for p, (_, v) in presets.PRESETS.items() if name in v}
  assert told == {p: config.show(v) for p, v in values.items()}
  reads = name in methods.OWN_FLAGS
  assert reads == ('Methods that read it' in text)


def test_a_preset_can_be_typed_again():
  text = help.about('quickstart')
  assert 'C-SimCLR on patches of photographs' in text
  typed = dict(re.findall(r'--(\w+)=(\S+)', text.partition('shows all):')[2]))
  values = presets.PRESETS['quickstart'][1]
  assert typed == {name: config.show(v) for name, v in values.items()}


@pytest.mark.parametrize(
  'word, near',
  [
    ('lerning_rate', 'learning_rate'),
    ('optimization', 'Optimisation or optimizer'),
    ('lr', 'learning_rate'),
    ('quikstart', 'quickstart'),
    ('warmup', 'warmup_epochs'),
    ('finetuning', 'Linear probe and finetuning'),
  ],
)
def test_an_unknown_word_is_guessed(word, near):
  with pytest.raises(ConfigError) as error:
    help.about(word)
  assert f'--help={word}: did you mean ' in str(error.value)
  assert near in str(error.value)


@pytest.mark.parametrize('word', ['qqq', '\t'])
def test_where_nothing_is_near_the_sections_are_named(word):
  with pytest.raises(
    ConfigError, match=r'sections \(This call, .*Presets'
  ) as e:
    help.about(word)
  assert str(e.value).isprintable()
