"""What replicas say to each other, over two logical CPUs."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf

from cvr.numerics import replicas


def per_replica(strategy, values):
  """A distributed value holding values[r] on replica r."""
  return strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(values[context.replica_id_in_sync_group])
  )


def test_gather_and_rows_are_inverse(two_replicas):
  rows = np.arange(12, dtype=np.float32).reshape(2, 2, 3)

  @tf.function
  def run(x):
    def step(part):
      whole = replicas.all_gather(part)
      return whole, replicas.local_rows(whole)

    return two_replicas.run(step, args=(x,))

  whole, back = run(per_replica(two_replicas, rows))
  for r, (w, b) in enumerate(zip(whole.values, back.values, strict=True)):
    np.testing.assert_array_equal(w, rows.reshape(4, 3))
    np.testing.assert_array_equal(b, rows[r])


def test_gradients_cross_the_replicas(two_replicas):
  """Each replica's part of sum_r w_r . gather(x): d/dx_r needs every w."""
  x = np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32)
  w = np.array([[[1.0, 5.0], [2.0, 6.0]], [[3.0, 7.0], [4.0, 8.0]]], np.float32)

  @tf.function
  def run(x, w):
    def step(x, w):
      with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(w * replicas.all_gather(x))
      return tape.gradient(loss, x)

    return two_replicas.run(step, args=(x, w))

  gradients = run(per_replica(two_replicas, x), per_replica(two_replicas, w))
  for r, gradient in enumerate(gradients.values):
    np.testing.assert_array_equal(gradient, w.sum(0)[r : r + 1])


def test_one_replica_has_nothing_to_say():
  x = tf.constant([[1.0, 2.0]])
  assert replicas.num_replicas() == 1
  assert replicas.replica_id() == 0
  for function in (
    replicas.all_gather,
    replicas.local_rows,
    replicas.cross_replica_sum,
  ):
    np.testing.assert_array_equal(function(x), x)


def test_between_steps_the_first_replica_speaks(two_replicas):
  with two_replicas.scope():
    assert replicas.num_replicas() == 2 and replicas.replica_id() == 0


def test_of_an_index_that_comes_twice_the_last_row_counts():
  table = replicas.mirrored(tf.zeros([4, 2]), 'table')
  index = tf.constant([2, 0, 2, 2])
  rows = tf.reshape(tf.range(1.0, 9.0), [4, 2])
  for jit_compile in (False, True):
    table.assign(tf.zeros([4, 2]))
    tf.function(replicas.set_rows, jit_compile=jit_compile)(table, index, rows)
    np.testing.assert_array_equal(table, [[3, 4], [0, 0], [7, 8], [0, 0]])


def test_a_mirrored_variable_is_written_by_all_saved_and_restored(
  two_replicas, tmp_path
):
  def make(strategy):
    with strategy.scope():
      table = replicas.mirrored(tf.zeros([4, 2]), 'table')
      count = replicas.mirrored(tf.constant(0), 'count')
    return table, count

  table, count = make(two_replicas)

  @tf.function
  def run(values):
    def step(rows):
      place = replicas.replica_id()
      index = replicas.all_gather(tf.stack([2 * place, 2 * place + 1]))
      replicas.set_rows(table, index, replicas.all_gather(rows))
      count.assign_add(1)

    two_replicas.run(step, args=(values,))

  rows = np.arange(1, 9, dtype=np.float32).reshape(2, 2, 2)
  run(per_replica(two_replicas, rows))
  saved = tf.train.Checkpoint(table=table, count=count)
  path = saved.write(str(tmp_path / 'ckpt'))
  run(per_replica(two_replicas, -rows))
  assert not table.trainable
  for strategy in (two_replicas, tf.distribute.get_strategy()):
    other = make(strategy)
    tf.train.Checkpoint(table=other[0], count=other[1]).read(path)
    for variable, expected in zip(other, (rows.reshape(4, 2), 1), strict=True):
      for copy in getattr(variable, 'values', [variable]):
        np.testing.assert_array_equal(copy.numpy(), expected)
  for copy in table.values:
    np.testing.assert_array_equal(copy.numpy(), -rows.reshape(4, 2))


def test_what_the_first_replica_has(two_replicas):
  @tf.function
  def run(x):
    return two_replicas.run(replicas.of_first_replica, args=(x,))

  actual = run(per_replica(two_replicas, np.array([[1, 2], [3, 4]], np.int32)))
  for x in actual.values:
    np.testing.assert_array_equal(x, [1, 2])
  assert replicas.of_first_replica(3.0) == 3.0


STEP = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_ID': '0',
  'SLURM_STEP_NUM_TASKS': '6',
  'SLURM_STEP_NODELIST': 'n[9-10,07],gpu-b',
  'SLURM_STEP_TASKS_PER_NODE': '2(x2),1(x2)',
}


@pytest.mark.parametrize(
  'node, local, index', [(0, 1, 1), (1, 1, 3), (3, 0, 5)]
)
def test_srun_tells_the_workers(node, local, index):
  own = {'SLURM_NODEID': str(node), 'SLURM_LOCALID': str(local)}
  config = json.loads(replicas.slurm_config(STEP | own))
  assert config['cluster']['worker'] == [
    'n9:10112', 'n9:10113', 'n10:10112', 'n10:10113', 'n07:10112',
    'gpu-b:10112',
  ]  # fmt: skip
  assert config['task'] == {'type': 'worker', 'index': index}


def test_nodes_without_tasks_are_not_left_out():
  own = {'SLURM_NODEID': '0', 'SLURM_LOCALID': '0'}
  with pytest.raises(replicas.NoDevice, match='names 5 nodes, but .* names 4'):
    replicas.slurm_config(STEP | own | {'SLURM_STEP_NODELIST': 'n[1-5]'})


def test_two_tasks_are_several():
  step = STEP | {
    'SLURM_STEP_NUM_TASKS': '2', 'SLURM_STEP_NODELIST': 'a,b',
    'SLURM_STEP_TASKS_PER_NODE': '1(x2)', 'SLURM_NODEID': '1',
    'SLURM_LOCALID': '0',
  }  # fmt: skip
  config = json.loads(replicas.slurm_config(step))
  assert config['cluster']['worker'] == ['a:10112', 'b:10112']
  assert config['task'] == {'type': 'worker', 'index': 1}


@pytest.mark.parametrize(
  'env',
  [
    {},
    {'SLURM_NTASKS': '4', 'SLURM_PROCID': '0', 'SLURM_JOB_ID': '7'},  # sbatch
    STEP | {'SLURM_STEP_NUM_TASKS': '1'},
  ],
)
def test_elsewhere_one_process_runs_alone(env):
  assert replicas.slurm_config(env) == ''


@pytest.mark.parametrize('gpus, line', [([], 'the CPU'), (['a'], 'one GPU')])
def test_one_device_is_named(monkeypatch, gpus, line):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  monkeypatch.setattr(tf.config, 'list_logical_devices', lambda kind: gpus)
  assert replicas.make_strategy(use_tpu=False)[1] == line


@pytest.mark.parametrize('name, connected', [('local', 0), ('mine', 1)])
def test_a_tpu_is_asked_for_where_it_was_said(monkeypatch, name, connected):
  asked, connections = {}, []

  class Strategy:
    num_replicas_in_sync = 8

    def __init__(self, resolver):
      assert resolver == 'resolver'

  def resolver(**where):
    asked.update(where)
    return 'resolver'

  resolvers, tpu = tf.distribute.cluster_resolver, tf.tpu.experimental
  monkeypatch.setattr(resolvers, 'TPUClusterResolver', resolver)
  monkeypatch.setattr(
    tf.config, 'experimental_connect_to_cluster', connections.append
  )
  monkeypatch.setattr(tpu, 'initialize_tpu_system', lambda resolver: None)
  monkeypatch.setattr(tf.distribute, 'TPUStrategy', Strategy)
  _, line = replicas.make_strategy(True, name, 'europe-west4-a', 'thesis')
  assert line == '8 TPU cores' and len(connections) == connected
  assert asked == {'tpu': name, 'zone': 'europe-west4-a', 'project': 'thesis'}
  replicas.make_strategy(True, name)
  assert asked == {'tpu': name, 'zone': None, 'project': None}
  # Unnamed, the one that is attached, or what the cloud's metadata tell.
  monkeypatch.delenv('TPU_NAME', raising=False)
  for attached, wanted in ((True, 'local'), (False, '')):
    monkeypatch.setattr(replicas, '_tpu_attached', lambda there=attached: there)
    replicas.make_strategy(True)
    assert asked['tpu'] == wanted


@pytest.mark.parametrize(
  'short, names',
  [
    ('a', ['a']),
    ('a[3]', ['a3']),
    ('a[08-11]', ['a08', 'a09', 'a10', 'a11']),
    ('r[1-2]n[0,3].x', ['r1n0.x', 'r1n3.x', 'r2n0.x', 'r2n3.x']),
  ],
)
def test_short_names_of_nodes(short, names):
  assert replicas._expanded(short) == names


@pytest.mark.parametrize('task, chief', [
  (None, True), (('worker', 0), True), (('worker', 1), False),
])  # fmt: skip
def test_workers_are_counted_and_the_first_is_the_chief(task, chief):
  spec = tf.train.ClusterSpec({'worker': ['a:1', 'b:1', 'c:1']})
  resolver = task and tf.distribute.cluster_resolver.SimpleClusterResolver(
    spec, task_type=task[0], task_id=task[1]
  )
  strategy = types.SimpleNamespace(cluster_resolver=resolver)
  assert replicas.num_workers(strategy) == (3 if task else 1)
  assert replicas.is_chief(strategy) == chief


def test_a_worker_is_no_chief_where_there_is_one():
  spec = tf.train.ClusterSpec({'chief': ['a:1'], 'worker': ['b:1']})
  for task, chief in (('chief', True), ('worker', False)):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
      spec, task_type=task, task_id=0
    )
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    assert replicas.num_workers(strategy) == 2
    assert replicas.is_chief(strategy) == chief


def test_the_memory_of_gpus_is_that_of_the_fullest(monkeypatch):
  assert replicas.gpu_memory() is None  # There is none here.
  peaks = {'GPU:0': 2**30, 'GPU:1': 3 * 2**30}

  def info(device):
    if device not in peaks:
      raise ValueError('the allocator does not count')
    return {'current': 1, 'peak': peaks[device]}

  monkeypatch.setattr(
    tf.config, 'list_logical_devices', lambda kind: [kind] * 3
  )
  monkeypatch.setattr(tf.config.experimental, 'get_memory_info', info)
  assert replicas.gpu_memory() == 3.0
