"""Faults: what the machine, the store, the data and other people do to a run.

Each fault is made as it happens: processes are killed, disks are full, stores
do not answer, files are hostile.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import pickle
import random
import re
import resource
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras as keras
from tensorflow.python.lib.io import file_io

import resnet
import run
from cvr.checkpoints import files, pretrained, saving
from cvr.checkpoints.files import CheckpointError
from cvr.checkpoints.saving import Checkpoints
from cvr.configs import command_line, config
from cvr.data import photo_patches, sources
from cvr.evaluation import online
from cvr.methods import skeletons
from cvr.numerics import replicas
from cvr.training import start as starting
from cvr.training import train
from cvr.training.step import State as Trained
from cvr.training.step import make_state
from processes import log_to
from saved_runs import (
  Net,
  State,
  assert_same,
  damage,
  files_in,
  layers,
  parts_run,
  restore,
  saved_run,
)
from small_data import encoded, plan_of, write
from small_runs import flags


def refused(capsys, argv, status=2):
  """Runs the program, which refuses -> the one line that it says."""
  capsys.readouterr()
  assert run.main(['run.py', '--use_tpu=false', *argv]) == status
  line = capsys.readouterr().err.strip()
  assert line.startswith('run.py: ') and line.isprintable(), line
  return line


# SIGKILL ----------------------------------------------------------------------

KEEP = 2


class Blocks(tf.Module):
  """48 MB, or less; every number is the step."""

  def __init__(self, count=12, side=1024):
    super().__init__()
    self.blocks = [tf.Variable(tf.zeros([side, side])) for _ in range(count)]

  def fill(self, step):
    for block in self.blocks:
      block.assign(tf.fill(block.shape, float(step)))

  def values(self):
    ends = [(tf.reduce_min(b), tf.reduce_max(b)) for b in self.blocks]
    return {float(value) for pair in ends for value in pair}


def while_saving(line, directory, seed):
  """Restores, then saves for ever; tells what it found, and of every save."""
  rng, net = random.Random(seed), Blocks()
  store = Checkpoints(directory, KEEP, net=net)
  step = store.restore_latest(lambda text: None) or 0
  line.send((step, net.values()))
  while True:
    # Not the step that the last process died in: its pieces are nobody's.
    step += rng.randint(1, 3)
    net.fill(step)
    line.send(step)
    store.save(step)
    line.send(step)


def sizes(directory, pattern='*'):
  found = pathlib.Path(directory).rglob(pattern)
  return {p: p.stat().st_size for p in found if p.is_file()}


def test_sigkill_inside_a_save_at_random_moments(tmp_path, start):
  rng, returned, interrupted = random.Random(2), [], 0
  for kill in range(24):
    child = start(while_saving, str(tmp_path), kill)
    step, values = child.line.recv()
    assert step >= max(returned, default=0) and values == {float(step)}
    child.line.recv()
    if not kill:
      began = time.monotonic()
      returned.append(child.line.recv())
      seconds = time.monotonic() - began
      size = sum(sizes(tmp_path, 'ckpt-*').values())
      child.line.recv()
    if kill % 2:
      child.line.poll(rng.uniform(0, 1.2 * seconds))  # Any moment.
    else:  # Within a save, however busy the machine is.
      while not list(tmp_path.glob('*_temp')) and not child.line.poll(0.001):
        pass
    child.kill()
    # In turn the ends and the beginnings of saves.
    told = list(child.told())
    returned += told[::2]
    interrupted += len(told) % 2 == 0
    assert len(list(tmp_path.glob('*_temp'))) <= 1
    # What is damaged is kept on purpose.
    kept = set(sizes(tmp_path)) - set(sizes(tmp_path, 'corrupt-*'))
    assert sum(p.stat().st_size for p in kept) <= 1.01 * (KEEP + 1) * size
    there = files.steps(tmp_path)
    assert len(there) >= min(KEEP, len(returned))
    assert there[-1] >= max(returned)
  assert interrupted > 5 and size > 48e6


# Full disks -------------------------------------------------------------------


@contextlib.contextmanager
def small_files(size):
  """The system refuses larger ones, as a full disk does."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures('tiny_encoder')
def test_a_full_disk_ends_a_run_only_when_it_stays_full(
  images, tmp_path, capsys, monkeypatch
):
  save, before = Checkpoints.save, {}

  def save_in_little_space(self, step, *args, **more):
    full = step in (2, 3, 5, 6, 7)
    if full:
      before[step] = files_in(tmp_path, 'ckpt-*')
    with small_files(20_000) if full else contextlib.nullcontext():
      save(self, step, *args, **more)
    if full:  # Nothing is lost, and nothing left behind.
      assert files_in(tmp_path, 'ckpt-*') == before[step]
      assert not list(tmp_path.glob('*_temp'))

  argv = flags(images, tmp_path, '--mode=train', '--train_steps=9')
  argv.append('--checkpoint_steps=1')
  with monkeypatch.context() as patch:
    patch.setattr(Checkpoints, 'save', save_in_little_space)
    line = refused(capsys, argv[1:], 75)
  for part in ('step 7 could not', 'File too large', str(tmp_path)):
    assert part in line
  assert files.steps(tmp_path) == [0, 1, 4]
  assert files_in(tmp_path, 'ckpt-*') == before[7]
  assert not list(tmp_path.glob('*_temp'))


def test_each_failed_save_is_said(tmp_path):
  store, said = State().store(tmp_path), []
  store.save(1)
  with small_files(100):
    for count in (1, 2):
      store.save(2, needed=False, say=said.append)
      assert len(said) == count
      assert 'ERROR: the checkpoint of step 2 could not' in said[-1]
    with pytest.raises(files.NotSaved):
      store.save(2, needed=False, say=said.append)
  assert restore(tmp_path)[0] == 1


# Damage -----------------------------------------------------------------------


def test_an_index_that_is_gone_is_said_and_the_rest_is_kept(tmp_path):
  expected = saved_run(tmp_path)
  (tmp_path / 'ckpt-20.index').unlink()
  data = files_in(tmp_path, 'ckpt-20.*')
  step, said, state = restore(tmp_path)
  assert step == 10 and len(said) == 2
  assert f'ERROR: {tmp_path}/ckpt-20 is damaged (no index)' in said[0]
  assert_same(state.values(), expected[10])
  kept = {f'corrupt-{name}': content for name, content in data.items()}
  assert files_in(tmp_path, 'corrupt-*') == kept
  for later in (30, 40, 50):
    state.store(tmp_path, keep=2).save(later)
  assert files_in(tmp_path, 'corrupt-*') == kept


def test_what_is_damaged_does_not_count_as_kept(tmp_path):
  saved_run(tmp_path, (1, 2), keep=2)
  damage(tmp_path, 2, 'data empty')
  state = restore(tmp_path)[2]
  state.store(tmp_path, keep=2).save(5)
  assert files.steps(tmp_path) == [1, 5]
  assert json.loads((tmp_path / 'checkpoints.json').read_text()) == [1, 5]


@pytest.mark.parametrize('name', ['checkpoint', 'checkpoints.json'])
def test_a_folder_where_a_listing_should_be(tmp_path, name):
  saved_run(tmp_path)
  (tmp_path / name).unlink()
  write(f'{tmp_path}/{name}/mine', b'x')
  step, said, state = restore(tmp_path)
  assert (step, said) == (20, [])
  state.store(tmp_path).save(30)
  assert files.steps(tmp_path) == [10, 20, 30]
  assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / 'ckpt-30')
  assert (tmp_path / f'corrupt-{name}' / 'mine').read_bytes() == b'x'


def test_a_state_file_that_names_a_deleted_step(tmp_path):
  expected = saved_run(tmp_path, (10, 20, 30), keep=2)
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "ckpt-10"\n')
  step, said, state = restore(tmp_path)
  assert (step, said) == (30, [])
  assert_same(state.values(), expected[30])
  state.store(tmp_path, keep=2).save(40)
  assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / 'ckpt-40')


@pytest.mark.usefixtures('tiny_encoder')
def test_a_run_whose_checkpoints_are_all_damaged_is_refused(
  images, tmp_path, capsys
):
  saved_run(tmp_path)
  damage(tmp_path, 10, 'data bit, middle')
  damage(tmp_path, 20, 'index cut in half')
  argv = flags(images, tmp_path, '--mode=train')
  before = files_in(tmp_path, '*ckpt-*')
  for _ in range(2):  # A supervisor starts the same command again.
    line = refused(capsys, argv[1:])
    assert 'all 2 checkpoints' in line and '--fresh_start' in line
    assert files_in(tmp_path, '*ckpt-*') == before


# Stores out of reach ----------------------------------------------------------

STORE_CALLS = (
  'IsDirectory',
  'GetChildren',
  'Stat',
  'FileExists',
  'DeleteFile',
  'DeleteRecursively',
  'RenameFile',
  'CreateDir',
  'RecursivelyCreateDir',
  'BufferedInputStream',
  'WritableFile',
)
SILENCE = {
  'timeout': tf.errors.UnavailableError(None, None, 'no answer'),
  'retried': tf.errors.AbortedError(None, None, 'All 10 attempts failed'),
  'no network': tf.errors.FailedPreconditionError(
    None, None, 'Error executing an HTTP request: libcurl code 6'
  ),
}


class Store:
  """The file system as TensorFlow's Python sees it; it can stop to answer."""

  def __init__(self, patch, error):
    self.calls_left, self.error = float('inf'), error
    for name in STORE_CALLS:
      call = getattr(file_io._pywrap_file_io, name)
      patch.setattr(file_io._pywrap_file_io, name, self._answering(call))
    # The reader of checkpoints, in C++, has one error for all it meets.
    lost = 'Failed to find any matching files for'
    lost = tf.errors.NotFoundError(None, None, lost)
    call = self._answering(tf.train.load_checkpoint, lost)
    patch.setattr(tf.train, 'load_checkpoint', call)

  def _answering(self, call, error=None):
    @functools.wraps(call)
    def asked(*args, **more):
      self.calls_left -= 1
      if self.calls_left < 0:
        raise error or self.error
      return call(*args, **more)

    return asked


def identify(directory):
  return pretrained.identify(str(directory)).step


def load(directory):
  saving.load_parts(str(directory / 'ckpt-20'), method=Net())
  return 20


def resume(directory):
  return restore(directory)[0]


@pytest.mark.parametrize('act', [resume, identify, load])
@pytest.mark.parametrize('silence', SILENCE)
def test_a_store_that_stops_to_answer_is_not_an_empty_one(
  tmp_path, monkeypatch, act, silence
):
  """After any call: nothing is taken for damaged, missing or new."""
  saved_run(tmp_path)
  before = files_in(tmp_path)
  store, failed = Store(monkeypatch, SILENCE[silence]), 0
  for calls in range(100):
    store.calls_left = calls
    try:
      found = act(tmp_path)
    except tf.errors.OpError as error:
      assert files.out_of_reach(error), (calls, error)
      failed += 1
    else:
      assert found == 20, calls
      if store.calls_left >= 0:
        break
  store.calls_left = float('inf')
  assert failed > 2 and files_in(tmp_path) == before


@pytest.mark.parametrize('silence', SILENCE)
def test_a_run_never_begins_anew_where_its_store_does_not_answer(
  images, tmp_path, capsys, monkeypatch, silence
):
  saved_run(tmp_path)
  argv = flags(images, tmp_path, '--mode=train')[1:]
  before = files_in(tmp_path, 'c*')
  store = Store(monkeypatch, SILENCE[silence])
  probe = starting.check_writable
  monkeypatch.setattr(train, 'train', lambda *args: pytest.fail('it began'))

  def write_then_stop(model_dir):
    probe(model_dir)
    store.calls_left = 0

  for answers in (write_then_stop, probe):
    store.calls_left = 0 if answers is probe else float('inf')
    monkeypatch.setattr(starting, 'check_writable', answers)
    assert 'The same command resumes' in refused(capsys, argv, 75)
    store.calls_left = float('inf')
    assert files_in(tmp_path, 'c*') == before


@pytest.mark.parametrize(
  'more',
  [
    ['--mode=train', '--model_dir=gs://nobody/run'],
    ['--mode=eval', '--model_dir=gs://nobody/run'],
    ['--mode=train', '--model_dir=run', '--checkpoint=gs://nobody/ckpt-1'],
    ['--mode=inspect', '--checkpoint=gs://nobody/ckpt-1'],
  ],
)
def test_a_bucket_without_a_network(
  images, tmp_path, capsys, monkeypatch, more
):
  """TensorFlow's own client, whose only way out does not exist."""
  for name in ('no_proxy', 'NO_PROXY'):
    monkeypatch.delenv(name, raising=False)
  for name in ('http_proxy', 'https_proxy'):
    monkeypatch.setenv(name, 'http://proxy.invalid:1')
  monkeypatch.chdir(tmp_path)
  line = refused(capsys, [f'--dataset=folder:{images}', *more], 75)
  assert 'libcurl' in line
  assert not list(tmp_path.iterdir())


# Another architecture ---------------------------------------------------------


@pytest.fixture
def state_of(monkeypatch):
  """state_of(**settings) -> a State; thin networks of two or three blocks."""
  monkeypatch.setitem(resnet.BLOCKS, 18, (False, (1, 0, 0, 1)))
  monkeypatch.setitem(resnet.BLOCKS, 34, (False, (1, 0, 0, 2)))

  def make_encoder(plan):
    cfg = plan.cfg
    return resnet.ResNet(cfg.resnet_depth, cfg.width_multiplier / 8, 'small')

  monkeypatch.setattr(skeletons, 'make_encoder', make_encoder)

  def make(**settings):
    small = dict(image_size=16, proj_head_hidden_dim=16, proj_out_dim=8)
    small |= dict(resnet_depth=18, train_batch_size=4) | settings
    return make_state(plan_of(config.Config(**small)))

  return make


def whole_state(state):
  variables = (*state.method.variables, *state.probe.variables)
  variables += (*state.optimizer.variables(),)
  return [v.numpy() for v in variables]


@pytest.mark.parametrize(
  'other, reason',
  [
    ({'resnet_depth': 34}, r'10 missing: method/encoder/stages/4/blocks/1/'),
    ({'width_multiplier': 2}, r'of another shape: method/encoder/stages/0'),
    ({'proj_out_dim': 4}, r'1 of another shape: method/projector/layers_out/'),
    ({'optimizer': 'adam'}, r'3 missing: optimizer/beta_1 \[\], opt'),
    ({'optimizer': 'momentum'}, r'optimizer'),
    ({'pretrain_loss': 'byol'}, r'missing: method/predictor'),
  ],
)
def test_another_network_is_refused_whole(tmp_path, state_of, other, reason):
  saved = state_of()
  Checkpoints(str(tmp_path), **saved.items()).save(7)
  before, state = files_in(tmp_path), state_of(**other)
  store = Checkpoints(str(tmp_path), **state.items())
  values = whole_state(state)
  for _ in range(2):
    with pytest.raises(CheckpointError, match=reason) as error:
      store.restore_latest()
    assert str(tmp_path / 'ckpt-7') in str(error.value)
    assert str(error.value).isprintable()
    assert_same(whole_state(state), values)
    assert files_in(tmp_path) == before
  again = state_of()
  assert Checkpoints(str(tmp_path), **again.items()).restore_latest() == 7
  assert_same(whole_state(again), whole_state(saved))


def test_parts_are_whole_and_counted(tmp_path):
  path, saved = parts_run(tmp_path)
  method = types.SimpleNamespace(encoder=Net(3), projector=Net(2), other=Net(2))
  line = pretrained.load(path, ['encoder'], method)
  assert line == (
    f'Loaded encoder from {path}: 3 tensors (not read: 7 of the optimizer, '
    '1 of the probe, 2 of the projector)'
  )
  assert_same(layers(method.encoder), layers(saved['method'].encoder))
  assert_same(layers(method.projector), layers(Net(2)))
  with pytest.raises(CheckpointError, match='2 missing: method/other/'):
    pretrained.load(path, ['other'], method)
  assert_same(layers(method.other), layers(Net(2)))


def run_of(directory, argv, inside=False):
  """A folder as a run of these flags leaves it, but for what it learnt.

  inside: what its config.json says stands in its checkpoints alone.
  """
  cfg = command_line.parse(argv)
  record = {'config': config.to_dict(cfg), 'argv': argv, 'git': None}
  record |= {'versions': {'tensorflow': '2'}, 'class_names': ['a', 'b']}
  if inside:
    saved_run(directory, record=saving.Record(record))
  else:
    saved_run(directory)
    (directory / 'config.json').write_text(json.dumps(record))
  return record


@pytest.mark.parametrize('inside', [False, True])
def test_another_optimizer_is_refused_by_its_flag(
  images, tmp_path, capsys, inside
):
  argv = flags(images, tmp_path, '--mode=train')
  run_of(tmp_path, argv, inside)
  before = files_in(tmp_path, 'c*')
  line = refused(capsys, [*argv[1:], '--optimizer=momentum'])
  assert '--optimizer=momentum, was lars' in line
  assert '--allow_config_change' in line
  assert files_in(tmp_path, 'c*') == before


# Data -------------------------------------------------------------------------


def few_patches(monkeypatch, count):
  for split in photo_patches.PER_CLASS:
    monkeypatch.setitem(photo_patches.PER_CLASS, split, count)


@pytest.mark.parametrize(
  'kind, says',
  [
    ('nothing', 'the folder is empty'),
    ('no image', 'no image (*.jpg'),
    ('an empty class', 'train/a'),
    ('too few', 'train split has 3 examples, the global batch is 8'),
    ('an empty slice', "split 'train[:0]' (--train_split"),
    ('a small slice', 'split has 7 examples, the global batch is 8'),
    ('nothing decodes', 'none of the first 9 images'),
  ],
)
@pytest.mark.usefixtures('tiny_encoder')
def test_too_little_data(tmp_path, capsys, monkeypatch, kind, says):
  few_patches(monkeypatch, 1)
  more = [f'--data_dir={tmp_path}', '--dataset=photo_patches']
  folder = tmp_path / 'images'
  counts = {'too few': 3, 'nothing decodes': 9}
  if 'slice' in kind:
    more.append(f'--train_split=train[:{0 if "empty" in kind else 7}]')
  else:
    more = [f'--dataset=folder:{folder}']
    (folder / 'train' / 'a').mkdir(parents=True)
    for i in range(counts.get(kind, 0)):
      content = encoded(i) if kind == 'too few' else b'no image'
      write(f'{folder}/train/a/{i}.png', content)
  if kind == 'no image':
    write(f'{folder}/train/a.txt', b'a list')
    (folder / 'train' / 'a').rmdir()
  if kind == 'an empty class':
    write(f'{folder}/train/b/0.png', encoded(0))
  argv = flags('', tmp_path / 'run', '--mode=train', *more)
  assert says in refused(capsys, argv[1:])
  assert not (tmp_path / 'run' / 'ckpt-1.index').exists()


@pytest.mark.parametrize(
  'split, label', [('train', -1), ('train', 16), ('test', 16)]
)
@pytest.mark.usefixtures('tiny_encoder')
def test_labels_out_of_range_stop_a_run(
  tmp_path, capsys, monkeypatch, label, split
):
  few_patches(monkeypatch, 1)
  describe = sources.describe

  def mislabelled(name, data_dir, wanted, *more, **named):
    info = describe(name, data_dir, wanted, *more, **named)
    if wanted != split:
      return info

    def parse(record):
      image, _ = info.parse(record)
      return image, tf.constant(label, tf.int64)

    return dataclasses.replace(info, parse=parse)

  monkeypatch.setattr(sources, 'describe', mislabelled)
  argv = flags('', tmp_path / 'run', '--dataset=photo_patches')
  argv += [f'--data_dir={tmp_path}', '--eval_split=test', '--train_steps=1']
  line = refused(capsys, argv[1:])
  for part in (f'[{label}]', '16 classes', '.tfrecord', 'photo_patches'):
    assert part in line, part
  assert not (tmp_path / 'run' / 'result.json').exists()


@pytest.mark.parametrize('name', ['train_batch_size', 'eval_batch_size'])
def test_a_batch_that_replicas_cannot_share(
  images, tmp_path, capsys, monkeypatch, two_replicas, name
):
  monkeypatch.setattr(
    replicas, 'make_strategy', lambda *args: (two_replicas, 'two CPUs')
  )
  argv = flags(images, tmp_path / 'run', f'--{name}=7')
  line = refused(capsys, argv[1:])
  assert f'--{name}=7' in line and '2 replicas' in line
  assert not (tmp_path / 'run').exists()


# Places that cannot be --------------------------------------------------------


@pytest.mark.parametrize('place', ['a file', 'below a file', 'gcs://x/run'])
def test_a_model_dir_that_cannot_be_is_refused_before_any_step(
  images, tmp_path, capsys, monkeypatch, place
):
  monkeypatch.setattr(train, 'train', lambda *args: pytest.fail('it began'))
  (tmp_path / 'file').write_bytes(b'mine')
  places = {'a file': tmp_path / 'file', 'below a file': tmp_path / 'file/run'}
  path = places.get(place, place)
  for mode in ('train', 'eval'):
    argv = flags(images, path, f'--mode={mode}')
    assert str(path) in refused(capsys, argv[1:])
  assert files_in(tmp_path) == {'file': b'mine'}
  assert len(list(tmp_path.iterdir())) == 1


def without_rights(line, argv, log):
  """run.py as a user who may read the code, and write nowhere."""
  log_to(log)
  if not os.getuid():
    os.setuid(65534)
  sys.exit(run.main(argv))


def test_a_model_dir_without_the_right_to_write(images, tmp_path, start):
  tmp_path.chmod(0o555)
  argv = flags(images, tmp_path / 'run', '--dataset=photo_patches')
  log = images.parent / 'log-of-nobody'
  child = start(without_rights, argv, str(log))
  child.process.join()
  tmp_path.chmod(0o755)
  assert f'--model_dir={tmp_path}/run cannot be written' in log.read_text()
  assert 'Traceback' not in log.read_text()
  assert child.process.exitcode == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['run[1]', 'run*', 'run?'])
def test_places_that_tensorflow_takes_for_patterns(tmp_path, capsys, name):
  folder = tmp_path / name
  saved_run(tmp_path / 'plain')
  (tmp_path / 'plain').rename(folder)
  before = files_in(folder)
  for argv in (
    [f'--model_dir={folder}'],
    ['--mode=eval', f'--model_dir={folder}'],
    ['--mode=inspect', f'--checkpoint={folder}'],
    ['--mode=inspect', f'--checkpoint={folder}/ckpt-10'],
  ):
    line = refused(capsys, argv)
    assert f'{argv[-1]}: must not contain [ ] * ?' in line
  assert files_in(folder) == before and os.listdir(tmp_path) == [name]


# An evaluator beside the training ---------------------------------------------


class Results:
  """A monitor that keeps what it is told."""

  def __init__(self):
    self.said, self.found = [], {}
    self.say = self.said.append

  def summary(self, step, metrics):
    pass

  def write_json(self, name, result):
    if name != 'result.json':
      self.found[int(result['global_step'])] = result['values']


@pytest.fixture
def follow(tmp_path, monkeypatch):
  """follow(last step, wait) -> Results of a reader of tmp_path / 'run'."""
  parts = [Blocks(20, 8) for _ in range(2)]
  method = tf.train.Checkpoint(encoder=parts[0])
  state = Trained(method, parts[1], None)

  def read(*args):
    values = parts[0].values() | parts[1].values()
    top = {f'eval/label_top_{k}_accuracy': 0.0 for k in (1, 5)}
    return top | {
      'eval/images': 1.0,
      'eval/bad_images': 0.0,
      'values': values,
    }

  info = types.SimpleNamespace(name='', split='', channels=3, cluster='')
  monkeypatch.setattr(sources, 'describe', lambda *args, **more: info)
  monkeypatch.setattr(online, 'make_evaluator', lambda *args: read)
  cfg = types.SimpleNamespace(model_dir=str(tmp_path / 'run'))
  cfg.dataset = cfg.data_dir = cfg.eval_split = ''
  cfg.bit_depth, cfg.channels = '8', 3

  def begin(total, wait):
    results = Results()
    online.follow(cfg, None, state, total, results, wait)
    return results

  return begin


def writer(directory):
  """save(step) of a run that keeps one checkpoint."""
  parts = [Blocks(20, 8) for _ in range(2)]
  method = tf.train.Checkpoint(encoder=parts[0])
  store = Checkpoints(directory, 1, method=method, probe=parts[1])

  def save(step):
    for part in parts:
      part.fill(step)
    store.save(step)

  return save


def saving_quickly(line, directory, total):
  save = writer(directory)
  for step in range(1, total + 1):
    save(step)
    line.send(step)


def test_an_evaluator_beside_a_trainer_that_deletes(tmp_path, start, follow):
  child = start(saving_quickly, str(tmp_path / 'run'), 150)
  results = follow(150, lambda seconds: child.line.recv())
  assert results.found[150] == {150.0}
  assert len(results.found) > 3
  for step, values in results.found.items():
    assert values == {float(step)}


@pytest.mark.parametrize(
  'owner, name',
  [
    (saving, 'difference'),
    (tf.train.Checkpoint, 'read'),
  ],
)
def test_a_checkpoint_deleted_while_it_is_read(
  tmp_path, monkeypatch, follow, owner, name
):
  save = writer(str(tmp_path / 'run'))
  save(10)
  reads, whole = getattr(owner, name), [20]

  def too_late(*args, **more):
    if whole:
      save(whole.pop())
    return reads(*args, **more)

  monkeypatch.setattr(owner, name, too_late)
  results = follow(20, lambda seconds: pytest.fail('there is nothing to do'))
  assert results.found == {20: {20.0}}
  assert any('ckpt-10 was deleted' in line for line in results.said)


def test_steps_that_are_passed_over_are_said_and_nothing_is_written(
  tmp_path, follow
):
  folder = tmp_path / 'run'
  save = writer(str(folder))
  save(3)
  (folder / 'checkpoints.json').unlink()  # Not this run's, so it stays.
  save(4)
  before = files_in(folder)
  results = follow(4, lambda seconds: pytest.fail('there is nothing to do'))
  assert results.found == {4: {4.0}}
  assert results.said[0] == 'Steps [3] are skipped: 4 is newer'
  assert files_in(folder) == before


def test_what_is_listed_can_be_read_at_every_moment(tmp_path, monkeypatch):
  """Writing, renaming, deleting never shows half a checkpoint."""
  seen, write_all = [], tf.train.Checkpoint.write

  def write_unseen(self, path):
    before = files.steps(tmp_path)
    write_all(self, path)  # Part by part: nobody may see it yet.
    assert files.steps(tmp_path) == before

  def watched(call):
    def changing(*args, **more):
      call(*args, **more)
      seen.append(files.steps(tmp_path))
      for step in seen[-1]:
        files.verify(files.prefix(tmp_path, step))

    return changing

  for name in ('remove', 'rename'):
    monkeypatch.setattr(tf.io.gfile, name, watched(getattr(tf.io.gfile, name)))
  monkeypatch.setattr(tf.train.Checkpoint, 'write', write_unseen)
  saved_run(tmp_path, (1, 2, 3), keep=1)
  State().store(tmp_path).retire([3], lambda line: None)
  assert [3] in seen and seen[-1] == []


# Hostile files ----------------------------------------------------------------


class Touch:
  """Unpickled, it leaves a mark."""

  def __init__(self, mark):
    self.mark = mark

  def __reduce__(self):
    return pathlib.Path.touch, (self.mark,)


class Initializer(tf.saved_model.experimental.TrackableResource):
  """Loaded from a SavedModel, it leaves a mark."""

  def __init__(self, mark):
    super().__init__()
    self.mark = str(mark)

  def _create_resource(self):
    return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.string)

  def _initialize(self):
    tf.io.write_file(self.mark, 'x')


def a_pickle(path, mark):
  path.write_bytes(pickle.dumps(Touch(mark)))
  return lambda: pickle.loads(path.read_bytes())


def an_array_of_objects(path, mark):
  np.save(path, np.array([Touch(mark)]), allow_pickle=True)
  return lambda: np.load(path, allow_pickle=True)


def an_archive_of_objects(path, mark):
  np.savez(path, encoder=np.array([Touch(mark)]))
  return lambda: np.load(path, allow_pickle=True)['encoder']


def a_keras_model(path, mark):
  def leave(x, mark=str(mark)):
    open(mark, 'w').close()
    return x

  keras.Sequential([keras.layers.Lambda(leave, input_shape=(2,))]).save(path)
  return lambda: keras.models.load_model(path)


def a_saved_model(path, mark):
  module = tf.Module()
  module.resource, module.v = Initializer(mark), tf.Variable(1.0)
  tf.saved_model.save(module, str(path))
  return lambda: tf.saved_model.load(str(path))


HOSTILE = {
  'x.pkl': a_pickle,
  'x.npy': an_array_of_objects,
  'x.npz': an_archive_of_objects,
  'x.h5': a_keras_model,
  'saved_model': a_saved_model,
  # Under the names of our own files.
  'ckpt-5.index': a_pickle,
  'config.json': a_pickle,
}


def modes(tmp_path, path, *more):
  """Command lines that give a path to every mode that reads one."""
  reading = [f'--checkpoint={path}', *more]
  out = ['--mode=extract_features', f'--output={tmp_path / "out.npz"}']
  finetune = ['--train_mode=finetune', f'--model_dir={tmp_path / "new"}']
  return [
    [*reading, '--mode=eval'],
    [*reading, '--mode=inspect'],
    [*reading, *out],
    [*reading, *finetune],
  ]


@pytest.mark.filterwarnings('ignore')  # Keras: .h5 files are a thing of old.
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_are_refused_and_run_no_code(
  images, tmp_path, capsys, name
):
  folder, mark = tmp_path / 'folder', tmp_path / 'MARK'
  folder.mkdir()
  fire = HOSTILE[name](folder / name, mark)
  mark.unlink(missing_ok=True)
  fire()
  assert mark.exists()  # It would have worked.
  mark.unlink()
  before = files_in(folder, '**/*')
  data = f'--dataset=folder:{images}'
  lines = modes(tmp_path, folder / name.removesuffix('.index'), data)
  lines += modes(tmp_path, folder, data)
  lines += [
    [data, f'--mode={mode}', f'--model_dir={folder}']
    for mode in ('eval', 'inspect')
  ]
  if name == 'saved_model':  # Its tensors can be listed, and fit no model.
    prefix = folder / name / 'variables' / 'variables'
    eval_mode, _, *others = modes(tmp_path, prefix, data)
    lines += [eval_mode, *others]
  for line in lines:
    refused(capsys, line)
  after = files_in(folder, '**/*')
  assert {name: after[name] for name in before} == before
  assert not mark.exists()


HOSTILE_SETTINGS = {
  'unknown key': b'{"config": {"pretrain_loss": "byol", "\\u001b[2J": 1}}',
  'code': b'{"config": {"pretrain_loss": "__import__(\'os\').getpid()"}}',
  'a list': b'{"config": {"pretrain_loss": ["byol"]}}',
  'of another type': b'{"config": {"pretrain_loss": "byol", "seed": "1"}}',
  'not finite': b'{"config": {"pretrain_loss": "byol", "kappa_e": NaN}}',
  'names that are no list': b'{"config": {}, "class_names": "cat"}',
  'names that are none': b'{"config": {}, "class_names": [1]}',
  'examples that are none': b'{"config": {}, "num_examples": "many"}',
  'no example': b'{"config": {}, "num_examples": 0}',
  'no settings': b'{"config": 5}',
  'settings alone': b'{"pretrain_loss": "byol"}',
  'no dictionary': b'["config"]',
  'deep': b'[' * 100_000,
  'YAML': b"config: !!python/object/apply:os.system ['touch MARK']",
  'bytes': b'\xff\x00',
  'nothing': b'',
}


@pytest.mark.parametrize('kind', HOSTILE_SETTINGS)
def test_hostile_settings_are_refused(
  images, tmp_path, capsys, monkeypatch, kind
):
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'folder'
  saved_run(folder)
  (folder / 'config.json').write_bytes(HOSTILE_SETTINGS[kind])
  before = files_in(folder)
  data = f'--dataset=folder:{images}'
  for line in (
    *modes(tmp_path, folder, data),
    *modes(tmp_path, folder / 'ckpt-10', data),
    [data, '--mode=eval', f'--model_dir={folder}'],
    flags(images, folder, '--mode=train')[1:],
  ):
    assert 'config.json was not written by a run' in refused(capsys, line)
  after = files_in(folder)
  assert {name: after[name] for name in before} == before
  assert os.listdir(tmp_path) == ['folder']


@pytest.mark.parametrize(
  'changes',
  [
    {'class_names': None, 'argv': None},
    {'versions': ['2']},
    {'argv': [1, 2]},
    {'class_names': ['\x1b[2J', 'b'], 'argv': ['\x1b]0;x\x07'], 'git': '\x1b'},
  ],
)
def test_inspect_obeys_nothing_in_a_record(images, tmp_path, capsys, changes):
  record = run_of(tmp_path, flags(images, tmp_path))
  (tmp_path / 'config.json').write_text(json.dumps(record | changes))
  argv = ['run.py', '--mode=inspect', f'--checkpoint={tmp_path}']
  assert run.main(argv) == 0
  out = capsys.readouterr().out
  assert 'ours: contrastive, step 20' in out
  assert all(line.isprintable() for line in out.splitlines())


def test_a_state_file_leads_nowhere(images, tmp_path, capsys):
  ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
  ours.mkdir()
  saved_run(theirs)
  before = files_in(theirs)
  (ours / 'checkpoint').write_text(
    f'model_checkpoint_path: "{theirs}/ckpt-20"\n'
    f'all_model_checkpoint_paths: "{theirs}/*"\n'
    'all_model_checkpoint_timestamps: 1.0\n'
  )
  assert tf.train.latest_checkpoint(str(ours)) == f'{theirs}/ckpt-20'
  data = f'--dataset=folder:{images}'
  for line in (
    *modes(tmp_path, ours, data),
    [data, '--mode=eval', f'--model_dir={ours}'],
  ):
    assert str(theirs) not in refused(capsys, line)
  assert files_in(theirs) == before


def test_features_json_imports_nothing(tmp_path, monkeypatch):
  few_patches(monkeypatch, 1)
  info = sources.describe('photo_patches', str(tmp_path))
  folder = pathlib.Path(info.shards[0].path).parent
  mark = tmp_path / 'MARK'
  (tmp_path / 'evil_features.py').write_text(f'open({str(mark)!r}, "w")')
  monkeypatch.syspath_prepend(str(tmp_path))
  text = (folder / 'features.json').read_text()
  text = re.sub(r'"tensorflow_datasets\.[\w.]+\.', '"evil_features.', text)
  assert 'evil_features' in text
  (folder / 'features.json').write_text(text)
  # Read as TFDS reads a folder of a data set that it does not know.
  with contextlib.suppress(Exception):
    tfds.builder_from_directory(folder)
  assert mark.exists()
  mark.unlink()
  del sys.modules['evil_features']
  again = sources.describe('photo_patches', str(tmp_path))
  assert again.num_examples == 16 and not mark.exists()
