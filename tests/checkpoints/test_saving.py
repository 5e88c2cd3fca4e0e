"""Checkpoints: what is kept, what is restored, and every kind of damage."""

import collections
import os
import resource

import pytest
import tensorflow as tf
import tf_keras as keras

from cvr.checkpoints import files, saving
from cvr.checkpoints.files import CheckpointError
from saved_runs import (
  DAMAGES,
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


def test_restore_brings_back_everything(tmp_path):
  expected = saved_run(tmp_path)
  step, lines, state = restore(tmp_path)
  assert (step, lines) == (20, [])
  assert_same(state.values(), expected[20])
  assert state.optimizer.iterations == 2
  straight = State()
  for each in (straight, straight, straight, state):
    each.step()
  assert_same(state.values(), straight.values())


def test_a_directory_without_checkpoints(tmp_path):
  assert files.steps(str(tmp_path / 'not there')) == []
  step, lines, state = restore(tmp_path)
  assert (step, lines) == (None, [])
  assert_same(state.values(), State().values())


def test_a_folder_that_gives_no_list_is_not_empty(tmp_path, monkeypatch):
  """It is there, says stat: then a store that does not answer is the reason."""
  saved_run(tmp_path, (1,))

  def listdir(path):
    raise tf.errors.NotFoundError(None, None, path)

  monkeypatch.setattr(tf.io.gfile, 'listdir', listdir)
  with pytest.raises(tf.errors.UnavailableError, match='gives no list'):
    files.steps(str(tmp_path))
  with pytest.raises(tf.errors.UnavailableError):
    restore(tmp_path)


def test_steps_are_in_order_of_their_numbers(tmp_path):
  saved_run(tmp_path, (9, 100, 10))
  saved = files_in(tmp_path, 'ckpt-9.*')
  for name in ('corrupt-ckpt-7', 'old-ckpt-8', 'ckpt-x', 'ckpt-1_temp', 'ckpt'):
    (tmp_path / f'{name}.index').write_bytes(saved['ckpt-9.index'])
  (tmp_path / 'ckpt-11.data-00000-of-00001').write_bytes(b'index not written')
  assert files.steps(str(tmp_path)) == [9, 10, 100]
  assert restore(tmp_path)[0] == 100


@pytest.mark.parametrize('count', [9, 10, 11])
def test_of_many_differences_ten_are_named(tmp_path, count):
  path = str(tmp_path / 'ckpt')
  saved = {f'v{i:02d}': tf.Variable(0.0) for i in range(count)}
  tf.train.Checkpoint(**saved).write(path)
  found = saving.difference(path, tf.train.Checkpoint())
  names = [f'v{i:02d} []' for i in range(min(count, 10))]
  more = ', ...' if count > 10 else ''
  assert found == f'{count} unexpected: {", ".join(names)}{more}'


def test_keeps_the_newest(tmp_path):
  saved_run(tmp_path, (1, 2, 3, 4), keep=3)
  assert files.steps(str(tmp_path)) == [2, 3, 4]
  saved_run(tmp_path, (5, 6), keep=3)  # a later process goes on
  assert files.steps(str(tmp_path)) == [4, 5, 6]
  assert set(files_in(tmp_path, 'ckpt-*')) == {
    f'ckpt-{step}.{kind}'
    for step in (4, 5, 6)
    for kind in ('index', 'data-00000-of-00001')
  }
  saved_run(tmp_path, (7,), keep=0)
  assert files.steps(str(tmp_path)) == [7]


def test_the_state_file_names_the_newest_for_other_tools(tmp_path):
  saved_run(tmp_path)
  assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / 'ckpt-20')


def test_files_of_others_are_never_deleted(tmp_path):
  ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
  saved_run(ours, (3,))
  saved_run(theirs, (1, 2))
  (ours / 'checkpoints.json').unlink()  # now nobody knows who wrote ckpt-3
  (ours / 'checkpoint').write_text(
    f'model_checkpoint_path: "{theirs}/*"\n'
    f'all_model_checkpoint_paths: "{theirs}/*"\n'
    'all_model_checkpoint_timestamps: 1.0\n'
  )
  foreign, elsewhere = files_in(ours, 'ckpt-3.*'), files_in(theirs)
  assert restore(ours)[0] == 3
  saved_run(ours, (4, 5, 6), keep=1)
  assert files.steps(str(ours)) == [3, 6]
  assert files_in(ours, 'ckpt-3.*') == foreign
  assert files_in(theirs) == elsewhere


@pytest.mark.parametrize('kind', DAMAGES)
def test_damage_falls_back_to_the_one_before(tmp_path, kind):
  expected = saved_run(tmp_path)
  damage(tmp_path, 20, kind)
  damaged, good = (
    files_in(tmp_path, 'ckpt-20.*'),
    files_in(tmp_path, 'ckpt-10.*'),
  )
  step, lines, state = restore(tmp_path)
  assert step == 10
  assert_same(state.values(), expected[10])
  assert str(tmp_path / 'ckpt-20') in lines[0] and 'damaged' in lines[0]
  assert all('\n' not in line for line in lines)
  assert files_in(tmp_path, 'corrupt-*') == {
    f'corrupt-{name}': content for name, content in damaged.items()
  }
  assert files_in(tmp_path, 'ckpt-*') == good
  # The step is trained and saved again, and is as good as any.
  state.step()
  state.store(tmp_path).save(20)
  again = restore(tmp_path)
  assert again[:2] == (20, [])
  assert_same(again[2].values(), expected[20])


def test_a_missing_index_is_no_checkpoint(tmp_path):
  expected = saved_run(tmp_path)
  (tmp_path / 'ckpt-20.index').unlink()
  step, _, state = restore(tmp_path)
  assert step == 10
  assert_same(state.values(), expected[10])


def test_what_cannot_be_opened_is_not_called_damaged(tmp_path):
  """Too many links, no permission, an error of the disk: it may be whole."""
  saved_run(tmp_path)
  data = tmp_path / 'ckpt-20.data-00000-of-00001'
  data.rename(tmp_path / 'elsewhere')
  data.symlink_to(data)
  before = set(os.listdir(tmp_path))
  with pytest.raises(tf.errors.OpError, match='symbolic'):
    restore(tmp_path)
  assert set(os.listdir(tmp_path)) == before


def test_with_other_workers_no_save_may_fail(tmp_path, monkeypatch):
  """They wait for the chief in the middle of it."""

  def write(self, path):
    raise tf.errors.ResourceExhaustedError(None, None, 'full')

  monkeypatch.setattr(tf.train.Checkpoint, 'write', write)
  lines = []
  State().store(tmp_path / 'a').save(5, needed=False, say=lines.append)
  assert len(lines) == 1
  with pytest.raises(files.NotSaved, match='full'):
    State().store(tmp_path / 'b', alone=False).save(5, needed=False)


def test_all_damaged_never_begins_at_zero(tmp_path):
  saved_run(tmp_path, (10, 20, 30))
  for step, kind in ((10, 'data empty'), (20, 'index empty')):
    damage(tmp_path, step, kind)
  damage(tmp_path, 30, 'data missing')
  before, state = files_in(tmp_path), State()
  for _ in range(2):  # a supervisor starts the same command again
    with pytest.raises(CheckpointError, match='all 3 .*--fresh_start'):
      restore(tmp_path, state)
  assert_same(state.values(), State().values())
  assert files_in(tmp_path) == before


def test_only_the_chief_sets_aside(tmp_path):
  saved_run(tmp_path)
  damage(tmp_path, 20, 'data empty')
  before = files_in(tmp_path)
  worker = State().store(tmp_path, chief=False)
  assert worker.restore_latest(lambda line: None) == 10
  assert files_in(tmp_path) == before


@pytest.mark.parametrize('name', ['checkpoint', 'checkpoints.json'])
@pytest.mark.parametrize(
  'content',
  [None, b'', b'\x00\xff', b'garbage', b'null', b'{"a": 1}', b'[[1]]', b'7'],
)
def test_a_broken_listing_loses_nothing(tmp_path, name, content):
  saved_run(tmp_path)
  if content is None:
    (tmp_path / name).unlink()
  else:
    (tmp_path / name).write_bytes(content)
  step, lines, state = restore(tmp_path)
  assert (step, lines) == (20, [])
  state.store(tmp_path).save(30)
  assert files.steps(str(tmp_path)) == [10, 20, 30]
  assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / 'ckpt-30')


@pytest.mark.parametrize(
  'other, reason',
  [
    ({'depth': 5}, r'2 missing: method/layers/3 \[4, 4\], method/layers/4'),
    ({'depth': 2}, '1 unexpected: method/layers/2'),
    (
      {'width': 6},
      r'3 of another shape: method/layers/0 \[4, 4\] for \[6, 6\], method',
    ),
    (
      {'optimizer': keras.optimizers.legacy.Adam()},
      r'2 missing: optimizer/beta_1 \[\], optimizer/beta_2 \[\]; 1 unexp',
    ),
  ],
)
def test_another_architecture_changes_nothing(tmp_path, other, reason):
  saved_run(tmp_path)
  before, state = files_in(tmp_path), State(**other)
  values = state.values()
  with pytest.raises(CheckpointError, match=reason) as error:
    restore(tmp_path, state)
  assert str(tmp_path / 'ckpt-20') in str(error.value)
  assert '\n' not in str(error.value)
  assert_same(state.values(), values)
  assert files_in(tmp_path) == before


def test_slots_that_nobody_wants_are_an_error(tmp_path):
  adam = keras.optimizers.legacy.Adam()
  State(optimizer=adam).store(tmp_path).save(10)
  amsgrad = keras.optimizers.legacy.Adam(amsgrad=True)
  reason = r'optimizer \(.{1,200}\)\. Give the flags'  # short, and one line
  with pytest.raises(CheckpointError, match=reason):
    restore(tmp_path, State(optimizer=amsgrad))


def test_names_are_those_of_tensorflow(tmp_path, two_replicas):
  """Shared, nested and oddly named variables; layers; optimizers; replicas."""

  def build():
    layer = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
    layer.build([1, 3])
    norm = keras.layers.BatchNormalization()
    norm.build([1, 3])
    net = Net()
    net.named = {'a/b': net.layers[1], 'c.d': tf.Variable(1.0), 'e': (norm,)}
    old = keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    old._create_all_weights(layer.trainable_variables)
    new = keras.optimizers.AdamW(0.1)
    new.build(layer.trainable_variables)
    return {'net': net, 'layer': layer, 'old': old, 'new': new}

  for i, strategy in enumerate([tf.distribute.get_strategy(), two_replicas]):
    with strategy.scope():
      root = tf.train.Checkpoint(**build())
    path = root.write(str(tmp_path / f'ckpt-{i}'))
    saved = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    assert len([k for k in saved if k.startswith('net/')]) == 3 + 1 + 4
    assert saving.difference(path, root) == ''
    root.net.named['c.d'] = tf.Variable([1.0])
    assert saving.difference(path, root) == (
      '1 of another shape: net/named/c..d [] for [1]'
    )


# Three momenta, the counter and three settings.
OPTIMIZER = {'optimizer': 7}


def test_load_parts_restores_what_is_asked_for(tmp_path):
  path, saved = parts_run(tmp_path)
  encoder, projector, probe = Net(3), Net(2), Net(1)
  method = tf.train.Checkpoint(encoder=encoder)
  counts = saving.load_parts(path, method=method)
  assert counts == (3, OPTIMIZER | {'projector': 2, 'probe': 1})
  assert_same(layers(encoder), layers(saved['method'].encoder))
  method = tf.train.Checkpoint(encoder=Net(3), projector=projector)
  assert saving.load_parts(path, method=method, probe=probe) == (6, OPTIMIZER)
  assert_same(layers(method.encoder), layers(saved['method'].encoder))
  assert_same(layers(projector), layers(saved['method'].projector))
  assert_same(layers(probe), layers(saved['probe']))


@pytest.mark.parametrize(
  'size, reason',
  [
    ((5,), '2 missing: method/encoder/layers/3'),
    # TensorFlow alone would fill it with the first two layers.
    ((2,), '1 unexpected: method/encoder/layers/2'),
    ((3, 5), '3 of another shape: method/encoder/layers/0'),
  ],
)
def test_load_parts_refuses_another_architecture(tmp_path, size, reason):
  path, _ = parts_run(tmp_path)
  net = Net(*size)
  before = layers(net)
  with pytest.raises(CheckpointError, match=f'{reason}.*--resnet_depth'):
    saving.load_parts(path, method=tf.train.Checkpoint(encoder=net))
  assert_same(layers(net), before)


def test_load_parts_refuses_a_part_that_is_not_there(tmp_path):
  path, _ = parts_run(tmp_path)
  with pytest.raises(CheckpointError, match='3 missing: head/layers/0'):
    saving.load_parts(path, head=Net(3))


@pytest.mark.parametrize('kind', DAMAGES)
def test_load_parts_of_a_damaged_file(tmp_path, kind):
  path, _ = parts_run(tmp_path)
  damage(tmp_path, 7, kind)
  method = tf.train.Checkpoint(encoder=Net(3), projector=Net(2))
  with pytest.raises(CheckpointError, match='ckpt-7 cannot be read'):
    saving.load_parts(path, method=method, probe=Net(1))


def test_latest_or_prefix(tmp_path):
  saved_run(tmp_path, (9, 10))
  prefix = str(tmp_path / 'ckpt-9')
  assert files.latest_or_prefix(prefix) == prefix
  newest = files.latest_or_prefix(str(tmp_path))
  assert newest == str(tmp_path / 'ckpt-10')
  empty = tmp_path / 'empty'
  empty.mkdir()
  for path, reason in (
    (empty, 'no ckpt-.*index in this directory'),
    (tmp_path / 'ckpt-8', 'ckpt-8.index'),
    (tmp_path / 'not there', 'not there.index'),
  ):
    with pytest.raises(CheckpointError, match=reason):
      files.latest_or_prefix(str(path))


def test_retire_keeps_an_earlier_run_as_old(tmp_path):
  saved_run(tmp_path, (10, 20), keep=2)
  before, lines, state = files_in(tmp_path, 'ckpt-*'), [], State()
  store = state.store(tmp_path, keep=2)
  store.retire(files.steps(str(tmp_path)), lines.append)
  old = {f'old-{name}': content for name, content in before.items()}
  assert files_in(tmp_path, '*ckpt-*') == old
  assert lines == ['2 earlier checkpoints are kept as old-ckpt-*']
  assert store.restore_latest(lines.append) is None
  for step in (0, 10, 20, 30):
    store.save(step)
  assert files.steps(str(tmp_path)) == [20, 30]
  assert files_in(tmp_path, 'old-*') == old
  # A second fresh start does not overwrite what the first one kept.
  second = files_in(tmp_path, 'ckpt-20.*')
  state.store(tmp_path).retire([20], lines.append)
  assert files_in(tmp_path, 'old-ckpt-*') == old
  names = {f'old-2-{name}': content for name, content in second.items()}
  assert files_in(tmp_path, 'old-2-*') == names


def test_retire_without_a_cause(tmp_path):
  saved_run(tmp_path)
  before, lines = files_in(tmp_path), []
  State().store(tmp_path).retire([], lines.append)
  State().store(tmp_path, chief=False).retire([10, 20], lines.append)
  assert (files_in(tmp_path), lines) == (before, [])


def test_other_workers_take_part_and_leave_nothing(tmp_path, monkeypatch):
  written, write = [], tf.train.Checkpoint.write

  def watched(self, path):
    written.append(write(self, path))
    assert os.path.exists(path + '.index')

  monkeypatch.setattr(tf.train.Checkpoint, 'write', watched)
  worker = State().store(tmp_path / 'run', chief=False)
  assert worker.save(5) == str(tmp_path / 'run' / 'ckpt-5')
  assert len(written) == 1
  assert list(tmp_path.rglob('*')) == []


def test_saving_a_step_twice_writes_once(tmp_path):
  state = State()
  store = state.store(tmp_path)
  path = store.save(5)
  before = files_in(tmp_path)
  state.step()
  assert store.save(5) == path
  assert files_in(tmp_path) == before


def begun(directory, **options):
  """A store that holds the checkpoint of step 5."""
  store = State().store(directory, **options)
  store.save(5)
  return store


def test_what_killed_saves_left_is_cleared_by_the_next(tmp_path):
  """The half-written folders, and a checkpoint that its run never pruned."""
  store = begun(tmp_path)
  for step in (7, 10):
    (tmp_path / f'ckpt-{step}_temp').mkdir()
    (tmp_path / f'ckpt-{step}_temp' / 'part-00000').write_bytes(b'half')
  with pytest.MonkeyPatch.context() as patch:
    # Killed after the checkpoint was written, before older ones are deleted.
    patch.setattr(files, 'verify', lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      store.save(10)
  assert files.steps(tmp_path) == [5, 10]
  again = State().store(tmp_path, keep=1)
  again.save(15)
  assert files.steps(tmp_path) == [15]
  assert not list(tmp_path.glob('*_temp'))


FULL = tf.errors.ResourceExhaustedError(None, None, 'No space left on device')


def test_a_save_that_fails_removes_its_pieces_and_may_fail_again(
  tmp_path, monkeypatch
):
  store, lines = begun(tmp_path), []
  before = files_in(tmp_path)

  def fail(self, path):
    (tmp_path / 'ckpt-10.data-00000-of-00001').write_bytes(b'half')
    (tmp_path / 'ckpt-10_temp').mkdir(exist_ok=True)
    raise FULL

  with monkeypatch.context() as patch:
    patch.setattr(tf.train.Checkpoint, 'write', fail)
    for count in (1, 2):
      store.save(10, needed=False, say=lines.append)
      assert len(lines) == count and 'step 10 could not be written' in lines[-1]
    assert files.steps(tmp_path) == [5]
    # A third in a row ends the run, as does one that is needed.
    with pytest.raises(files.NotSaved, match='No space left'):
      store.save(10, needed=False, say=lines.append)
    with pytest.raises(files.NotSaved, match='No space left'):
      store.save(10)
  after = files_in(tmp_path)
  assert {n: after[n] for n in before if n.startswith('ckpt-')} == {
    n: v for n, v in before.items() if n.startswith('ckpt-')
  }
  assert 'ckpt-10.data-00000-of-00001' not in after
  store.save(10, needed=False)
  assert restore(tmp_path)[0] == 10


def test_a_real_write_that_fails(tmp_path):
  """The system refuses to write more than 2 kB to a file."""
  store, lines = begun(tmp_path, keep=1), []
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
  try:
    store.save(10, needed=False, say=lines.append)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert 'ckpt-10 could not' in lines[0] or 'step 10 could not' in lines[0]
  assert files.steps(tmp_path) == [5] and restore(tmp_path)[0] == 5
  store.save(15)
  assert files.steps(tmp_path) == [15]


@pytest.mark.parametrize('there, needed', [(0, 4), (2, 2), (5, 1)])
def test_room_for_all_checkpoints_is_there_before_the_first_step(
  tmp_path, monkeypatch, there, needed
):
  net = tf.train.Checkpoint(w=tf.Variable(tf.zeros([1000, 500])))  # 2 MB
  store = saving.Checkpoints(str(tmp_path), keep=3, net=net)
  for step in range(there):
    (tmp_path / f'ckpt-{step}.index').write_bytes(b'x')
    (tmp_path / f'ckpt-{step}.data-00000-of-00001').write_bytes(b'x')
  free = needed * 2_000_000
  usage = collections.namedtuple('Usage', 'free')
  monkeypatch.setattr(saving.shutil, 'disk_usage', lambda path: usage(free))
  store.check_room()
  free -= 1
  with pytest.raises(files.NotSaved, match=f'{needed} checkpoints of 2 MB'):
    store.check_room()


def test_nothing_is_deleted_before_the_new_one_was_read_back(
  tmp_path, monkeypatch
):
  store = begun(tmp_path, keep=1)
  read_back = []

  def damaged(path):
    read_back.append(path)
    raise IndexError('Read less bytes than requested')

  monkeypatch.setattr(files, 'verify', damaged)
  with pytest.raises(files.NotSaved, match='Read less bytes'):
    store.save(10)
  monkeypatch.undo()
  assert read_back == [str(tmp_path / 'ckpt-10')]
  assert files.steps(tmp_path) == [5] and restore(tmp_path)[0] == 5


@pytest.mark.parametrize(
  'text, silent',
  [
    ('Error executing an HTTP request: HTTP response code 503', True),
    ('Error executing an HTTP request: HTTP response code 429', True),
    ('Error executing an HTTP request: HTTP response code 404', False),
    ('Checksum does not match', False),
  ],
)
def test_a_store_that_is_busy_says_nothing_of_what_it_holds(text, silent):
  error = tf.errors.FailedPreconditionError(None, None, text)
  assert files.out_of_reach(error) == silent


def test_data_index_and_folder_are_flushed_before_and_after_renaming(
  tmp_path, monkeypatch
):
  """By what the system is asked for: a patched os.fsync."""
  flushed = []

  def fsync(handle):
    path = os.readlink(f'/proc/self/fd/{handle}')
    there = sorted(name for name in os.listdir(tmp_path) if '.index' in name)
    flushed.append((os.path.relpath(path, tmp_path), there))

  monkeypatch.setattr(os, 'fsync', fsync)
  saved_run(tmp_path, (5,))
  data, index = 'ckpt-5.data-00000-of-00001', 'ckpt-5.index'
  before = [path for path, there in flushed if not there]
  after = [path for path, there in flushed if there == [index]]
  # Their content first, under the temporary name; then the names themselves.
  folder = 'ckpt-5_temp'
  assert {*before} == {f'{folder}/{data}', f'{folder}/{index}', folder}
  assert {*after} == {data, index, '.'}
  assert len(flushed) == 6
