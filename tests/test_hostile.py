"""Files of strangers, by the hundred: success, or one line and status 2.

Each is made by hostile_files from a seed, so that a failure repeats. What may
not happen: another exception, a character that a terminal obeys, a file outside
of the folder, a pickle that is opened, memory that the disk does not justify.
"""

import contextlib
import io
import json
import os
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf

import hostile_files
import released_files
import released_names
import run
import sample_card
import small_kinds
from cvr.checkpoints import pretrained, saving, stored
from cvr.configs import command_line
from cvr.data import sources
from cvr.evaluation.card import comparison, plots
from cvr.evaluation.card import files as cards
from cvr.evaluation.search import hamming, search
from saved_runs import State
from small_data import encoded
from small_shards import take

SEEDS = range(int(os.environ.get('HOSTILE_SEEDS', 10)))
_MOST_BYTES = 10**9


class Failed(AssertionError):
  """What a file did; its cause is the exception."""


def _memory(line):
  """What the system says of this process, in bytes."""
  with open('/proc/self/status') as file:
    found = [row.split()[1] for row in file if row.startswith(f'{line}:')]
  return 1024 * int(found[0])


@contextlib.contextmanager
def bounded():
  """At most 1 GB more memory than before."""
  with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')  # The most of all begins anew.
  before = _memory('VmRSS')
  yield
  if _memory('VmHWM') > before + _MOST_BYTES:
    raise Failed(f'{_memory("VmHWM") - before:,} bytes more')


def check(act, capsys, *args):
  """Calls something -> 'success', or the line that it ends with."""
  try:
    with bounded():
      act(*args)
    line = 'success'
  except Exception as error:
    try:
      status, line = run._explained(error)
    except Exception as same:
      raise Failed(f'{type(same).__name__}: {same}'[:300]) from same
    if status != 2:
      raise Failed(f'status {status}: {line}') from error
  out, err = capsys.readouterr()
  for text in (line, *out.splitlines(), *err.splitlines()):
    if not text.isprintable() or len(text) > 5000:
      raise Failed(f'a terminal gets {ascii(text)[:300]} of {len(text)}')
  return line


def found(folder):
  """All that is in a folder, links as such."""
  return {
    os.path.join(parent, name)
    for parent, folders, names in os.walk(folder)
    for name in (*folders, *names)
  }


@pytest.fixture
def no_plots(monkeypatch):
  """Plots take seconds."""
  monkeypatch.setattr(plots, 'draw', lambda *_: {})
  monkeypatch.setattr(plots, 'rate_accuracy', lambda points: {})


@pytest.fixture
def survives(tmp_path, capsys, monkeypatch):
  """survives(make, act): each file that make writes, given to act.

  make: (random, folder) -> what act gets.
  """
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  unpacked = tmp_path / 'unpacked'

  def new(**_):
    unpacked.mkdir(exist_ok=True)
    return str(unpacked)

  monkeypatch.setattr(pretrained.tempfile, 'mkdtemp', new)

  def survives(make, *acts):
    succeeded = 0
    for seed in SEEDS:
      root = tmp_path / 'in'
      folder = root / 'deep' / 'folder'
      folder.mkdir(parents=True)
      made = make(random.Random(seed), str(folder))
      before = found(tmp_path)
      for act in acts:
        pretrained._unpack.cache_clear()
        try:
          succeeded += check(act, capsys, made) == 'success'
        except Failed as failed:
          raise AssertionError(f'seed {seed}: {failed}') from failed.__cause__
      new_files = {
        path
        for path in found(tmp_path) - before
        if not path.startswith((str(unpacked), str(tmp_path / 'cache')))
      }
      assert new_files == set(), f'seed {seed}'
      shutil.rmtree(root)
      shutil.rmtree(unpacked, ignore_errors=True)
    return succeeded

  return survives


# Checkpoints ------------------------------------------------------------------


@pytest.fixture(scope='module')
def good(tmp_path_factory):
  """The files of a checkpoint of ours -> {name: bytes}."""
  folder = tmp_path_factory.mktemp('good')
  settings = {'pretrain_loss': 'byol', 'resnet_depth': 18, 'image_size': 32}
  record = {
    'config': settings, 'argv': ['run.py', '--seed=1'], 'git': 'abc',
    'class_names': ['a', 'b'], 'num_examples': 20,
    'versions': {'tensorflow': '2', 'python': '3', 'tf_keras': '2'},
  }  # fmt: skip
  state = State()
  store = saving.Checkpoints(
    str(folder), record=saving.Record(record), **state.items
  )
  store.save(10)
  files = {path.name: path.read_bytes() for path in folder.iterdir()}
  return files | {'config.json': json.dumps(record).encode()}


def written(files, folder):
  for name, content in files.items():
    with open(os.path.join(folder, name), 'wb') as file:
      file.write(content)
  return folder


def inspect(path):
  argv = ['run.py', '--mode=inspect', f'--checkpoint={path}']
  cfg = command_line.parse(argv, stored.read_stored)
  run.execute(cfg, argv)


def load(path):
  net = State().net
  saving.load_parts(pretrained.locate(path), method=net)


def resume(path):
  state = State()
  store = saving.Checkpoints(path, record=saving.Record({}), **state.items)
  store.restore_latest(print)
  store._listing()


def test_forged_checkpoints(good, survives):
  """Names, shapes, sizes and places that fit nothing, with right checksums."""

  def make(rng, folder):
    files = dict(good)
    name = rng.choice(['ckpt-10.index'] * 3 + ['ckpt-10.data-00000-of-00001'])
    index = name.endswith('.index')
    forge = (
      hostile_files.bundle_index if index else hostile_files.cut_or_flipped
    )
    content = forge(files.pop(name), rng)
    written(files, folder)
    hostile_files.put(os.path.join(folder, name), content, rng)
    return folder

  survives(make, inspect, load)


def test_records_in_checkpoints_and_beside_them(good, survives):
  """config.json, the lists of checkpoints, and what lies in a checkpoint."""

  def make(rng, folder):
    files, name = (
      dict(good),
      rng.choice(['config.json'] * 3 + ['inside'] * 2 + ['checkpoints.json']),
    )
    record = json.loads(files.pop('config.json'))
    if name == 'inside':
      # Not by our code, which would write no such record.
      content = rng.choice([
        hostile_files.json_text(record, rng), b'\xff\xfe', b'',
      ])  # fmt: skip
      tensors = {'method/x/.ATTRIBUTES/VARIABLE_VALUE': np.zeros(3)}
      tensors['record/.ATTRIBUTES/py_state'] = rng.choice(
        [tf.constant(content)] * 3 + [np.zeros(3), tf.constant([content])]
      )
      tf.raw_ops.SaveV2(
        prefix=f'{folder}/ckpt-3',
        tensor_names=[*tensors],
        shape_and_slices=[''] * len(tensors),
        tensors=[*tensors.values()],
      )
      return folder
    value = [10, 20] if name == 'checkpoints.json' else record
    files.pop(name, None)
    if name == 'config.json':
      files = {n: c for n, c in files.items() if rng.random() < 0.8}
    written(files, folder)
    content = hostile_files.json_text(value, rng)
    hostile_files.put(os.path.join(folder, name), content, rng)
    return folder

  survives(make, inspect, resume)


def released(tensors, rng, path):
  """Writes tensors of the released layout, some of which are altered."""
  tensors = dict(tensors)
  for _ in range(rng.choice((1, 1, 3, 20))):
    name, kind = rng.choice([*tensors]), rng.randrange(5)
    if kind == 0:
      tensors.pop(name)
    elif kind == 1:
      tensors[name] = np.zeros(rng.choice([(), (0,), (1, 2), (3,) * 8]), 'f')
    elif kind == 2:
      new = rng.choice([
        *(name.replace('0', '9' * 30), name + '/x'),
        *(hostile_files.CONTROL + name, name.replace('model/', '')),
        *(name.replace('1', '01'), '\xe9' + name),
      ])  # fmt: skip
      tensors[new] = tensors.pop(name)
    elif kind == 3:
      tensors[name] = tf.constant(['x'] * 3)
    else:
      tensors['global_step'] = rng.choice([
        np.int64(-5), np.float32('nan'), np.zeros([2]), np.uint64(2**63),
        np.float64(1e300), tf.constant('x'), np.float32('inf'),
      ])  # fmt: skip
  tf.raw_ops.SaveV2(
    prefix=path,
    tensor_names=[f'{n}/.ATTRIBUTES/VARIABLE_VALUE' for n in tensors],
    shape_and_slices=[''] * len(tensors),
    tensors=[*tensors.values()],
  )


def test_names_of_the_released_layout(survives, monkeypatch):
  released_files.shorten(monkeypatch)
  shapes = released_names.tensors('simclr', **released_files.SMALL)
  tensors = released_files.values(shapes)

  def make(rng, folder):
    released(tensors, rng, f'{folder}/ckpt-7')
    return folder

  survives(make, inspect)


def test_archives(good, survives):
  def make(rng, folder):
    name = rng.choice(['x.tar', 'x.tar.gz', 'x.tgz'])
    content = hostile_files.tar(good, rng)
    return hostile_files.put(os.path.join(folder, name), content, rng)

  survives(make, inspect)


# Cards, arrays, tar files -----------------------------------------------------


def test_cards(survives, no_plots):
  card, scores = sample_card.make(images=20)

  def make(rng, folder):
    for side in 'ab':
      os.makedirs(f'{folder}/{side}')
      cards.write(f'{folder}/{side}', card, scores)
    name = rng.choice(['card.json', 'card.json', 'card_rows.npz'])
    path = f'{folder}/{rng.choice("ab")}/{name}'
    os.remove(path)
    if name == 'card.json':
      content = hostile_files.json_text(card, rng)
    else:
      few = {k: scores[k] for k in rng.sample(sorted(scores), 3)}
      content = hostile_files.npz(few, rng, f'{folder}/marked')
    hostile_files.put(path, content, rng)
    return folder

  def compare(folder):
    out = f'{folder}/../../../unpacked/{random.random()}'
    comparison.report([f'{folder}/a', f'{folder}/b'], out, print)

  survives(make, compare)


def describe(name):
  info = sources.describe(name)
  sources.fingerprint(info)
  with sources.explained(info):
    take(info, 2)


def test_arrays(survives):
  arrays = {
    'train_images': np.zeros([22, 6, 8, 3], np.uint8),
    'train_labels': np.arange(22)[:, None] % 3,
    'val_images': np.zeros([7, 6, 8], np.uint16),
    'val_labels': np.array(['a'] * 7),
  }

  def make(rng, folder):
    if rng.randrange(4):
      content = hostile_files.npz(arrays, rng, f'{folder}/marked')
      path = hostile_files.put(f'{folder}/x.npz', content, rng)
      return f'npz:{path}'
    images = arrays['train_images']
    content = hostile_files.npy(images, rng, f'{folder}/marked')
    return f'npy:{hostile_files.put(f"{folder}/x.npy", content, rng)}'

  survives(make, describe)


def test_tar_files_of_images(survives):
  files = {}
  for i in range(16):
    files[f'n/{i}.png'] = encoded(i)
    files[f'n/{i}.json'] = json.dumps({'label': i % 3}).encode()

  def make(rng, folder):
    several = dict(files)
    name = rng.choice(sorted(files))
    several[name] = (
      hostile_files.json_text({'label': 3}, rng)
      if name.endswith('.json')
      else hostile_files.cut_or_flipped(files[name], rng)
    )
    content = hostile_files.tar(several, rng)
    return f'wds:{hostile_files.put(f"{folder}/a.tar", content, rng)}'

  survives(make, describe)


def test_tables(survives):
  def make(rng, folder):
    kind = rng.choice(['csv', 'list'])
    place = small_kinds.make(kind, folder).partition(':')[2]
    path = place.replace('{split}', 'train')
    with open(path, 'rb') as file:
      content = file.read()
    os.remove(path)
    content = hostile_files.cut_or_flipped(content, rng)
    hostile_files.put(path, content, rng)
    return f'{kind}:{place}'

  survives(make, describe)


def test_indices_of_a_search(survives):
  index = hamming.make_index(
    np.zeros([9, 2], np.uint8),
    12,
    np.array(['x'] * 9),
    np.zeros(9, np.int64),
    {},
  )
  with np.load(io.BytesIO(hamming.to_bytes(index))) as file:
    arrays = dict(file)

  def make(rng, folder):
    content = hostile_files.npz(arrays, rng, f'{folder}/marked')
    return hostile_files.put(f'{folder}/index.npz', content, rng)

  survives(make, lambda path: search._load(path, {}, print))
