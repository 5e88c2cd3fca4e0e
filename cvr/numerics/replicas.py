"""The devices of a step, and the communication between its replicas.

The only file that uses tf.distribute's replica context. On a single replica
every function does the obvious local thing, so that the rest of the code has
one way of writing a step.
"""

import contextlib
import importlib.util
import json
import os
import re

import tensorflow as tf

from cvr.numerics import sums


class NoDevice(ValueError):
  """The requested device is not available."""


def num_replicas():
  """Replicas that share a step: 1 outside of any strategy."""
  return tf.distribute.get_strategy().num_replicas_in_sync


def replica_id():
  """This replica's index in the global order, an int or an int32 scalar."""
  context = tf.distribute.get_replica_context()
  return 0 if context is None else context.replica_id_in_sync_group


def cross_replica_sum(x):
  """Sums x (a tensor or a list) over the replicas, differentiably.

  The gradient of a sum is the sum of the gradients, so a loss that is a part
  of the global one on every replica gets global gradients.
  """
  context = tf.distribute.get_replica_context()
  if num_replicas() == 1 or context is None:
    return x
  return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def all_gather(x):
  """[b, ...] on each of R replicas -> [R * b, ...] on all, differentiably.

  Each replica writes its rows into zeros and the sum is taken: static shapes,
  which XLA needs, and the gradient is the one of cross_replica_sum.
  """
  replicas = num_replicas()
  if replicas == 1:
    return sums.joint(x)
  rows = tf.scatter_nd(
    [[replica_id()]], x[None], [replicas] + x.shape.as_list()
  )
  return tf.reshape(cross_replica_sum(rows), [-1] + x.shape.as_list()[1:])


def local_rows(x):
  """The part of a global batch [R * b, ...] that belongs to this replica.

  Random numbers of a step are drawn for the whole global batch and cut here:
  those of an example do not depend on the number of replicas.
  """
  replicas = num_replicas()
  if replicas == 1:
    return x
  rows = x.shape[0] // replicas
  return x[replica_id() * rows : (replica_id() + 1) * rows]


def mirrored(value, name):
  """A variable without gradient: a queue, a centre, a memory.

  Every replica has a copy of its own and assigns to it in the step. All have to
  assign the same value, gathered or summed before.
  """
  return tf.Variable(
    value,
    trainable=False,
    name=name,
    synchronization=tf.VariableSynchronization.ON_WRITE,
    # Any other would synchronise the replicas at every assignment.
    aggregation=tf.VariableAggregation.NONE,
  )


def set_rows(variable, index, rows):
  """variable[index] = rows; index [n], rows [n, ...] of all replicas.

  Of a repeated index the last row counts: left to the devices, copies of the
  variable might differ.
  """
  same = index[:, None] == index
  last = tf.reduce_max(tf.where(same, tf.range(index.shape[0]), 0), 1)
  variable.scatter_update(tf.IndexedSlices(tf.gather(rows, last), index))


def of_first_replica(x):
  """The first replica's x on all: devices may compute it differently."""
  if num_replicas() == 1:
    return x
  return cross_replica_sum(tf.where(replica_id() == 0, x, tf.zeros_like(x)))


def when(condition, change, variables):
  """change() where the condition [] holds, the same on all replicas.

  variables: all that it assigns to. On several replicas it is always called, as
  they meet in it, and taken back.
  """
  if num_replicas() == 1:

    def changed():
      change()
      return 0

    tf.cond(condition, changed, lambda: 0)
    return
  before = [tf.identity(v) for v in variables]
  change()
  put_back(~condition, variables, before)


def put_back(condition, variables, before):
  """Where the condition [] holds, the variables get their values `before`."""
  for variable, value in zip(variables, before, strict=True):
    variable.assign(tf.where(condition, value, variable))


def repeat(first, last, body, state):
  """state = body(i, state) for i in [first, last), one after the other."""
  strategy = tf.distribute.get_strategy()
  if getattr(strategy.extended, '_use_merge_call', lambda: False)():
    # These replicas synchronise in Python, outside of any loop of the graph.
    for i in range(first, last):
      with tf.control_dependencies(
        [x for x in tf.nest.flatten(state) if tf.is_tensor(x)]
      ):
        state = body(i, state)
    return state
  return tf.while_loop(
    lambda i, _: i < last,
    lambda i, state: (i + 1, body(i, state)),
    (tf.constant(first), state),
    parallel_iterations=1,
  )[1]


def _tpu_attached():
  # Newer TPU VMs show a device that other machines use for other things.
  shared = os.path.exists('/dev/vfio/0') and importlib.util.find_spec('libtpu')
  return os.path.exists('/dev/accel0') or bool(shared)


def _tpu_strategy(tpu_name, zone, project, master):
  name = master or tpu_name or os.environ.get('TPU_NAME')
  name = name or ('local' if _tpu_attached() else '')
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
      tpu=name, zone=zone or None, project=project or None
    )
    if name != 'local':
      tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
  except Exception as error:
    # The cloud's client libraries raise anything; the advice is the same.
    reason = str(error).strip().partition('\n')[0][:300]
    raise NoDevice(
      f'--use_tpu=true, but no TPU could be reached ({reason}). Name one with '
      '--tpu_name, or drop the flag to run on GPUs or the CPU.'
    ) from error
  return tf.distribute.TPUStrategy(resolver)


def _expanded(name):
  """SLURM's short form of names: 'a[8-9,03]' -> a8, a9, a03."""
  match = re.fullmatch(r'([^[]*)\[([^]]*)\](.*)', name)
  if not match:
    return [name]
  head, ranges, tail = match.groups()
  names = []
  for low, _, high in (part.partition('-') for part in ranges.split(',')):
    for number in range(int(low), int(high or low) + 1):
      digits = f'{number:0{len(low)}}'
      names += [head + digits + rest for rest in _expanded(tail)]
  return names


def slurm_config(env):
  """srun's tasks as a TF_CONFIG, or '' where there are not several.

  SLURM_NTASKS is also set in the shells of salloc and sbatch, where one process
  runs alone; only srun sets the variables of a step. TensorFlow's own
  SlurmClusterResolver does not work here: it sorts nodes as text (n10, n9),
  uses ranks as positions in that list, and needs nvidia-smi.
  """
  if int(env.get('SLURM_STEP_NUM_TASKS', 1)) < 2:
    return ''
  runs = re.findall(r'(\d+)(?:\(x(\d+)\))?', env['SLURM_STEP_TASKS_PER_NODE'])
  tasks = [int(count) for count, times in runs for _ in range(int(times or 1))]
  # Steps that share a node should not share ports.
  step = int(env['SLURM_JOB_ID']) + int(env['SLURM_STEP_ID'])
  port = 10000 + step % 1250 * 16
  parts = re.findall(r'(?:[^,[]|\[[^]]*\])+', env['SLURM_STEP_NODELIST'])
  nodes = [node for part in parts for node in _expanded(part)]
  if len(nodes) != len(tasks):
    raise NoDevice(
      f'SLURM_STEP_NODELIST names {len(nodes)} nodes, but '
      f'SLURM_STEP_TASKS_PER_NODE names {len(tasks)}. Start all tasks with one '
      'srun, or set TF_CONFIG yourself.'
    )
  workers = [
    f'{node}:{port + i}'
    for node, count in zip(nodes, tasks, strict=True)
    for i in range(count)
  ]
  # Not SLURM_PROCID: whether ranks go node by node is up to --distribution.
  index = sum(tasks[: int(env['SLURM_NODEID'])]) + int(env['SLURM_LOCALID'])
  task = {'type': 'worker', 'index': index}
  return json.dumps({'cluster': {'worker': workers}, 'task': task})


def make_strategy(use_tpu=None, tpu_name='', zone='', project='', master=''):
  """-> (strategy, one line that says what was chosen).

  A TPU if one is named or attached, several workers if TF_CONFIG or srun lists
  them, else all GPUs, else the CPU. Call it before any other operation:
  collectives between workers have to be set up first.
  """
  named = tpu_name or master or os.environ.get('TPU_NAME') or _tpu_attached()
  if use_tpu or (use_tpu is None and named):
    strategy = _tpu_strategy(tpu_name, zone, project, master)
    return strategy, f'{strategy.num_replicas_in_sync} TPU cores'
  workers = os.environ.get('TF_CONFIG') or slurm_config(os.environ)
  if workers:
    os.environ['TF_CONFIG'] = workers
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    replicas = strategy.num_replicas_in_sync
    return strategy, f'{replicas} replicas on {num_workers(strategy)} workers'
  gpus = tf.config.list_logical_devices('GPU')
  if len(gpus) > 1:
    return tf.distribute.MirroredStrategy(), f'{len(gpus)} GPUs'
  where = 'one GPU' if gpus else 'the CPU'
  return tf.distribute.get_strategy(), where


def host_means(strategy):
  """-> means(list of floats) over the worker processes, called by all of them.

  Hosts have to decide from the same numbers (duration of a step, whether to
  stop), or one waits for a step that another never takes.
  """
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return lambda values: values

  @tf.function
  def means(values):
    each = strategy.run(tf.identity, args=(values,))
    return strategy.reduce(tf.distribute.ReduceOp.MEAN, each, axis=None)

  return lambda values: means(tf.constant(values, tf.float32)).numpy()


def device_type(strategy):
  """What the replicas run on: 'CPU', 'GPU' or 'TPU'."""
  if isinstance(strategy, tf.distribute.TPUStrategy):
    return 'TPU'
  return 'GPU' if tf.config.list_logical_devices('GPU') else 'CPU'


def num_workers(strategy):
  """The number of processes that take part in a step."""
  resolver = strategy.cluster_resolver
  if resolver is None or not getattr(resolver, 'task_type', None):
    return 1
  jobs = resolver.cluster_spec().as_dict()
  return sum(len(jobs.get(job, ())) for job in ('chief', 'worker'))


def num_hosts(strategy):
  """The number of machines that read input: workers, or hosts of a TPU pod."""
  return getattr(strategy.extended, 'num_hosts', num_workers(strategy))


def gpu_memory():
  """GiB that the fullest GPU of this process has held at most; None without."""
  peaks = []
  for i in range(len(tf.config.list_logical_devices('GPU'))):
    # Not every allocator counts.
    with contextlib.suppress(ValueError, tf.errors.OpError):
      peaks.append(tf.config.experimental.get_memory_info(f'GPU:{i}')['peak'])
  return max(peaks) / 2**30 if peaks else None


def is_chief(strategy):
  """True on the one process that writes files and prints."""
  resolver = strategy.cluster_resolver
  if resolver is None or not getattr(resolver, 'task_type', None):
    return True
  jobs = resolver.cluster_spec().as_dict()
  first = 'chief' if 'chief' in jobs else 'worker'
  return resolver.task_type == first and resolver.task_id == 0
