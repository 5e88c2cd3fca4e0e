"""The layout of the code, read from its syntax trees."""

import ast
import pathlib

LEAVES = """presets randomness schedules objectives distributions distributed
  lars_optimizer photo_patches monitor loop data_service hamming
  latent_report"""
# Room -> the rooms it may import; each names only rooms above itself.
ROOMS = dict.fromkeys(LEAVES.split(), '') | {
  'settings': 'presets',
  'config': 'settings',
  'command_line': 'config presets settings',
  'clustering': 'distributed randomness',
  'data_util': 'randomness',
  'resnet': 'distributed',
  'towers': 'data_util',
  'released': 'lars_optimizer resnet',
  'big_batches': 'distributed resnet',
  'checkpoint_files': '',
  'locks': 'checkpoint_files',
  'checkpoints': 'checkpoint_files released',
  'pretrained': 'checkpoint_files checkpoints config released',
  'inspection': 'config pretrained',
  'torch_names': '',
  'keras_twin': 'data_util resnet',
  'export': 'checkpoint_files data_util keras_twin released torch_names',
  'information': 'distributions',
  'health': 'distributions information',
  'model': 'resnet distributions',
  'latents': 'distributions model randomness resnet',
  'skeletons': 'config distributed model randomness resnet schedules towers',
  'contrastive': """distributed distributions model objectives randomness
    schedules skeletons""",
  'distillation': 'config distributed model objectives schedules skeletons',
  'entropy_reconstruction': 'distillation distributed information skeletons',
  'prototypes': """clustering config distributed model objectives randomness
    skeletons""",
  'stochcon': 'config contrastive distributed latents schedules skeletons',
  'methods': """contrastive distillation entropy_reconstruction prototypes
    skeletons stochcon""",
  'data_sources': 'photo_patches',
  'data': 'data_sources randomness',
  'augmentation': 'data_util randomness',
  'watch': 'augmentation config data data_sources health loop',
  'optimizers': 'config lars_optimizer model objectives schedules',
  'train': """augmentation big_batches checkpoint_files checkpoints config data
    data_service data_sources distributed loop methods model monitor objectives
    optimizers pretrained skeletons watch""",
  'features': 'config data data_sources data_util',
  'latent_study': """config data_sources data_util features latent_report
    randomness""",
  'search': 'config data data_sources data_util features hamming',
  'evaluate': """checkpoint_files config data_sources features objectives
    pretrained""",
}
ROOMS['doctor'] = 'config distributed loop optimizers train'
ROOMS['run'] = ' '.join(ROOMS)
FILES = pathlib.Path(__file__).parents[1].glob('*.py')
TREES = {path.stem: ast.parse(path.read_text()) for path in FILES}
SETUP = TREES.pop('setup')


def names(tree):
  """What a file imports (inside of functions too) and its identifiers."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (f'import {alias.name}' for alias in node.names)
    if isinstance(node, ast.ImportFrom):
      yield f'import {node.module}'
      yield from (f'import {node.module}.{alias.name}' for alias in node.names)
    if isinstance(node, ast.Attribute):
      yield from (node.attr, ast.unparse(node))
    yield from (getattr(node, field, None) for field in ('id', 'arg'))


NAMES = {room: set(names(tree)) for room, tree in TREES.items()}


def rooms_with(*wanted):
  return {room for room, found in NAMES.items() if found & {*wanted}}


def test_imports_point_one_way():
  for i, (room, allowed) in enumerate(ROOMS.items()):
    assert {*allowed.split()} <= {*list(ROOMS)[:i]}, room
  for room, found in NAMES.items():
    others = {other for other in NAMES if f'import {other}' in found}
    assert others <= {*ROOMS[room].split()}, room


def test_setup_lists_exactly_the_modules():
  (modules,) = [
    ast.literal_eval(node.value)
    for node in ast.walk(SETUP)
    if isinstance(node, ast.keyword) and node.arg == 'py_modules'
  ]
  assert modules == sorted(TREES) == sorted(ROOMS)


def test_some_things_live_in_one_place():
  assert rooms_with('import absl.flags') == {'command_line'}
  assert rooms_with('get_replica_context') == {'distributed'}
  openers = {'run', 'train', 'evaluate', 'doctor', 'config', 'command_line'}
  openers |= {'methods', 'contrastive', 'distillation', 'skeletons', 'stochcon'}
  openers |= {'features', 'latent_study', 'search'}
  openers |= {'entropy_reconstruction', 'optimizers', 'prototypes', 'watch'}
  assert rooms_with('cfg') <= openers
  assert not rooms_with('import tensorflow.keras', 'tf.keras')
  assert rooms_with('import keras') == {'keras_twin', 'export'}
