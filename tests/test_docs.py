"""What pages say of the program: its flags, its files, and each other."""

import pathlib
import re
import shlex

import pytest

from cvr.configs import command_line, config
from cvr.configs.derived import READING
from cvr.configs.presets import PRESETS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])


def name_of(page):
  return str(page.relative_to(ROOT))


def commands(page):
  """The words after `run.py` or a script, of every command in a block."""
  blocks = re.findall(r'```\n(.*?)```', page.read_text(), re.DOTALL)
  blocks += re.findall(r'\n\n((?:    .*\n)+)', page.read_text())
  for line in '\n'.join(blocks).replace('\\\n', ' ').splitlines():
    line = line.partition('  #')[0].strip()
    found = re.match(r'(?:\S+=\S+ )*(?:python|bash) (\S+\.(?:py|sh))(.*)', line)
    if found:
      yield found[1], shlex.split(found[2])


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_commands_name_scripts_and_flags_that_there_are(page):
  for program, words in commands(page):
    assert (ROOT / program).exists(), program
    if program != 'run.py' or '...' in ' '.join(words):
      continue
    # Words in capitals stand for something of the reader's.
    if any(re.match(r'--(preset|format|suite)=[A-Z_]+$', w) for w in words):
      continue
    if any(word.startswith('--help') for word in words):
      continue
    typed = command_line.typed_flags(['run.py', *words])
    # What a model is, which these read, is not typed.
    if typed.get('mode') in READING or typed.get('checkpoint'):
      continue
    preset = PRESETS[typed['preset']][1] if typed.get('preset') else {}
    config.from_dict(preset | typed)


def test_there_are_commands():
  found = [program for page in PAGES for program, _ in commands(page)]
  assert found.count('run.py') > 25
  assert 'scripts/quickstart.sh' in found and 'scripts/test.sh' in found


def anchors(page):
  """The anchors of its headings, as GitHub makes them."""
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE):
    plain = re.sub(r'[^\w\- ]', '', heading.lower())
    yield plain.replace(' ', '-')


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
    if '://' in target:
      continue
    path, _, anchor = target.partition('#')
    other = (page.parent / path).resolve() if path else page
    assert other.exists(), target
    assert not anchor or anchor in anchors(other), target


def test_the_readme_is_short():
  lines = (ROOT / 'README.md').read_text().splitlines()
  assert len(lines) < 180
  # Nothing scrolls sideways in a narrow window, but for tables.
  assert all(len(line) <= 90 for line in lines if not line.startswith('|'))
