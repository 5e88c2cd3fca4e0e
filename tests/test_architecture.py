"""The layout of the code, read from its syntax trees."""

import ast
import pathlib

LEAVES = """presets randomness schedules objectives distributions distributed
  lars_optimizer photo_patches monitor loop data_service hamming
  latent_report evaluation.blurs evaluation.references
  evaluation.variants
  evaluation.statistics evaluation.store evaluation.subsets
  evaluation.transfer_sets evaluation.knn evaluation.plots"""
# Room -> the rooms it may import; each names only rooms above itself.
ROOMS = dict.fromkeys(LEAVES.split(), '') | {
  'settings': 'presets',
  'derived': 'evaluation.variants settings',
  'checks': 'derived evaluation.transfer_sets settings',
  'config': 'checks settings',
  'evaluation.robustness_sets': 'evaluation.variants',
  'command_line': 'checks config derived presets settings',
  'clustering': 'distributed randomness',
  'data_util': '',
  'resnet': 'distributed',
  'towers': 'data_util',
  'released': 'lars_optimizer resnet',
  'big_batches': 'distributed resnet',
  'checkpoint_files': '',
  'locks': 'checkpoint_files',
  'checkpoints': 'checkpoint_files released',
  'pretrained': 'checkpoint_files checkpoints config released',
  'inspection': 'config pretrained settings',
  'torch_names': '',
  'keras_twin': 'data_util resnet',
  'export': 'checkpoint_files data_util keras_twin released torch_names',
  'information': 'distributions',
  'health': 'distributions information',
  'model': 'distributions resnet',
  'latents': 'distributions model randomness resnet',
  'skeletons': 'derived distributed model randomness resnet schedules towers',
  'contrastive': """distributed distributions model objectives randomness
    schedules skeletons""",
  'distillation': 'derived distributed model objectives schedules skeletons',
  'entropy_reconstruction': 'distillation distributed information skeletons',
  'prototypes': """clustering derived distributed model objectives randomness
    settings skeletons""",
  'stochcon': 'contrastive derived distributed latents schedules skeletons',
  'methods': """contrastive distillation entropy_reconstruction prototypes
    skeletons stochcon""",
  'data_sources': 'photo_patches',
  'data': 'data_sources evaluation.subsets randomness',
  'augmentation': 'data_util randomness',
  'watch': 'augmentation checks data data_sources derived health loop',
  'optimizers': 'config derived lars_optimizer model objectives schedules',
  'train': """augmentation big_batches checkpoint_files checkpoints checks data
    data_service data_sources derived distributed loop methods model monitor
    objectives optimizers pretrained skeletons watch""",
  'evaluation.weather': 'evaluation.blurs randomness',
  'evaluation.corruptions': 'evaluation.blurs evaluation.weather randomness',
  'features': """config data data_sources data_util derived
    evaluation.corruptions randomness""",
  'evaluation.linear': 'evaluation.statistics evaluation.subsets',
  'evaluation.compression': 'distributions',
  'evaluation.card': 'evaluation.plots evaluation.references evaluation.store',
  'evaluation.comparison': """evaluation.card evaluation.plots
    evaluation.statistics""",
  'evaluation.subject': """config data data_sources derived
    evaluation.statistics evaluation.store features""",
  'evaluation.finetuning': """config data data_sources evaluation.store features
    loop monitor settings train""",
  'evaluation.accuracy': """data data_sources evaluation.finetuning
    evaluation.knn evaluation.linear evaluation.subject evaluation.subsets
    evaluation.transfer_sets features""",
  'evaluation.robustness': """data_sources derived evaluation.accuracy
    evaluation.linear evaluation.robustness_sets evaluation.subject
    evaluation.variants features""",
  'evaluation.rates': """distributions evaluation.accuracy
    evaluation.compression evaluation.linear evaluation.subject features health
    information settings watch""",
  'evaluation.suites': """config data_sources derived evaluation.accuracy
    evaluation.card evaluation.linear evaluation.rates evaluation.robustness
    evaluation.store evaluation.subject features pretrained""",
  'latent_study': 'config data_sources features latent_report',
  'search': """config data data_sources data_util derived features hamming
    pretrained""",
  'evaluate': """checkpoint_files config data_sources derived features
    objectives pretrained""",
}
ROOMS['doctor'] = 'config distributed loop optimizers train'
ROOMS['run'] = ' '.join(ROOMS)
ROOT = pathlib.Path(__file__).parents[1]
TREES = {path.stem: ast.parse(path.read_text()) for path in ROOT.glob('*.py')}
SETUP = TREES.pop('setup')
TREES |= {
  f'evaluation.{path.stem}': ast.parse(path.read_text())
  for path in ROOT.glob('evaluation/*.py')
  if path.stem != '__init__'
}
# The rooms of the evaluation that know of a run's configuration.
SUITES = 'subject accuracy finetuning robustness rates suites'


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
  modules, packages = [
    ast.literal_eval(node.value)
    for name in ('py_modules', 'packages')
    for node in ast.walk(SETUP)
    if isinstance(node, ast.keyword) and node.arg == name
  ]
  assert sorted(TREES) == sorted(ROOMS)
  assert modules == sorted(room for room in TREES if '.' not in room)
  assert packages == sorted({r.split('.')[0] for r in TREES if '.' in r})


def test_some_things_live_in_one_place():
  assert rooms_with('import absl.flags') == {'command_line'}
  assert rooms_with('get_replica_context') == {'distributed'}
  openers = {'run', 'train', 'evaluate', 'doctor', 'command_line'}
  openers |= {'config', 'checks', 'derived'}
  openers |= {'methods', 'contrastive', 'distillation', 'skeletons', 'stochcon'}
  openers |= {'features', 'latent_study', 'search'}
  openers |= {f'evaluation.{name}' for name in SUITES.split()}
  openers |= {'entropy_reconstruction', 'optimizers', 'prototypes', 'watch'}
  assert rooms_with('cfg') <= openers
  assert not rooms_with('import tensorflow.keras', 'tf.keras')
  assert rooms_with('import keras') == {'keras_twin', 'export'}
