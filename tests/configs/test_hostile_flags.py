"""Any flag with any value: a Config, or the usual line; also any two flags."""

import os

import hypothesis
from hypothesis import strategies as st

from cvr.configs import command_line, config
from cvr.configs.config import Config, ConfigError
from cvr.configs.settings import FIELDS

# Numbers at the edges of what is there to hold them, and what is none.
NUMBERS = """0 -0 1 -1 2 3 1e-320 1e308 -1e308 1e400 inf -inf nan NaN Infinity
  999999999999999999999999999999 -999999999999999999999999999999 1_000 0x10 1e3
  00 ١ 0.5 1.5 1e-3 2147483648 9223372036854775808""".split()
NUMBERS.append('9' * 5000)  # Python converts no text of so many digits.
# Texts that mean something somewhere: in paths, lists, names, terminals.
KINDS = ('folder', 'csv', 'list', 'npz', 'npy', 'wds', 'hf')
PATHS = ('', '/', '.', '/dev/null', '#', '\0', '{split}', '\udcff', '~x')
TEXTS = [
  *('', ' ', ',', ',,', ':', '#', '/', '.', '..', '~', '-', '=', '{', '}'),
  *('{split}', '{0..999999999}', '{a,b}', '[', '*', '\0', 'a\0b', '\n'),
  *('\x1b[2J', '\udcff', '\u202e', 'é', 'a' * 5000, '../../etc/passwd'),
  *('/dev/zero', '/dev/stdin', '/proc/self/mem', 'gs://', 'gcs://b/x', '://'),
  *('inf,5', 'nan,nan', '1,inf', '10,20', '0.1,0.2', '1e400,1', '-1,2'),
  *('1,2,3,4', 'all', 'auto', 'none', 'true', 'False', 'null', 'nan,0.5'),
  *('pets=folder:', 'pets=folder:/', 'pets=', 'imagenet_a=folder:/x', 'x,y'),
  *('cifar10', 'cifar10:9.9.9', 'photo_patches/32px', 'grpc://a:99999'),
  *(f'{kind}:{path}' for kind in KINDS for path in PATHS),
]  # fmt: skip


def values_of(name):
  """What may stand behind --name=, from harmless to hostile."""
  field = FIELDS[name]
  choices = field.metadata['choices']
  known = choices if isinstance(choices, tuple) else ()
  known = [*known, field.default, True, False]
  return st.one_of(
    st.sampled_from([*map(str, known)]),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.text(st.characters(codec=None), max_size=8),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
  )


FLAGS = st.sampled_from([*FIELDS]).flatmap(
  lambda name: st.tuples(st.just(name), values_of(name))
)


def check(argv):
  """A Config that can be shown, or a line that a terminal can be given."""
  try:
    cfg = command_line.parse(['run.py', *argv])
  except ConfigError as error:
    line = str(error)
    assert line.isprintable(), ascii(line)
    assert line and len(line) < 8000, ascii(line)
    return
  except command_line.Help:
    return
  assert isinstance(cfg, Config)
  for value in config.to_dict(cfg).values():
    if isinstance(value, str):
      assert '\0' not in value
      value.encode()
    elif isinstance(value, float):
      assert abs(value) <= 1e38
    else:
      assert value is None or abs(value) < 2**31
  shown = command_line.describe(cfg, ['run.py', *argv])
  assert all(line.isprintable() for line in shown.splitlines())


SETTINGS = hypothesis.settings(
  max_examples=int(os.environ.get('HOSTILE_FLAGS', 300)),
  deadline=None,
  derandomize=True,
  database=None,
)


@SETTINGS
@hypothesis.given(FLAGS)
def test_any_value_of_any_flag(flag):
  check(['--{}={}'.format(*flag)])


@SETTINGS
@hypothesis.given(st.lists(FLAGS, min_size=2, max_size=2))
def test_any_two_flags(two):
  check(['--{}={}'.format(*flag) for flag in two])


@SETTINGS
@hypothesis.given(st.lists(st.text(st.characters(codec=None), max_size=12)))
def test_any_words(words):
  check(words)
