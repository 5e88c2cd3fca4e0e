"""What import-linter (pyproject.toml) cannot say of the layout, read by ast."""

import ast
import pathlib

from cvr import startup

ROOT = pathlib.Path(__file__).parents[1]
FRONT = {'model', 'resnet', 'objectives', 'data_util', 'lars_optimizer'}
TREES = {
  '.'.join(path.relative_to(ROOT).with_suffix('').parts): ast.parse(
    path.read_text()
  )
  for path in [*ROOT.glob('*.py'), *ROOT.glob('cvr/**/*.py')]
}


def imports(tree):
  """The modules that a file names, inside of functions too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def names(tree):
  """The identifiers in a file, and its dotted names."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute):
      yield from (node.attr, ast.unparse(node))
    yield from (getattr(node, field, None) for field in ('id', 'arg'))


def modules_that(find, *wanted):
  return {name for name, tree in TREES.items() if {*wanted} & {*find(tree)}}


def test_the_front_is_the_design_card():
  top = {path.stem for path in ROOT.glob('*.py')}
  assert top == FRONT | {'run', 'setup'}
  assert {*startup.FRONT} == FRONT


def test_the_front_is_installed():
  setup = ast.walk(ast.parse((ROOT / 'setup.py').read_text()))
  (modules,) = (
    ast.literal_eval(node.value)
    for node in setup
    if isinstance(node, ast.keyword) and node.arg == 'py_modules'
  )
  assert {*modules} == FRONT | {'run'}
  # find_packages() takes the folders that have one of these.
  folders = {p.parent for p in ROOT.glob('cvr/**/*.py')}
  assert all((folder / '__init__.py').exists() for folder in folders)


def test_the_front_imports_numerics_and_itself():
  for name in FRONT:
    ours = {m for m in imports(TREES[name]) if m.partition('.')[0] == 'cvr'}
    assert all(m.startswith('cvr.numerics') for m in ours), name
    assert 'run' not in {*imports(TREES[name])}


def test_some_things_live_in_one_place():
  flags = modules_that(imports, 'absl.flags')
  assert flags == {'cvr.configs.command_line'}
  contexts = modules_that(names, 'get_replica_context')
  assert contexts == {'cvr.numerics.replicas'}
  assert not modules_that(imports, 'tensorflow.keras')
  assert not modules_that(names, 'tf.keras')
  keras = modules_that(imports, 'keras')
  assert keras and all(name.startswith('cvr.exports.') for name in keras)


def test_low_modules_take_plain_arguments():
  """Whoever reads cfg stands above: what it knows, nobody below has to."""
  wings = ('configs', 'methods', 'training', 'evaluation', 'report')
  for name in modules_that(names, 'cfg') - {'run'}:
    assert name.split('.')[1] in wings, name


def test_no_module_is_longer_than_a_few_screens():
  tables = {'cvr.configs.settings'}
  for name in TREES.keys() - tables:
    lines = (ROOT / (name.replace('.', '/') + '.py')).read_text().splitlines()
    assert len(lines) <= 450, f'{name} has {len(lines)} lines'


def test_no_merge_is_left_half_done():
  pages = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')]
  assert pages
  for page in pages:
    for line in page.read_text().splitlines():
      assert not line.startswith(('<<<<<<< ', '>>>>>>> ')), page
