"""Why a run is as slow as it is: its parts measured alone, and what to turn.

Every part is a step of loop.make_loop, so that it is timed as in training: with
the run's own batches, on its own devices.
"""

import itertools
import os
import time
from typing import NamedTuple

import tensorflow as tf

from cvr.configs import config
from cvr.data import sources
from cvr.numerics import replicas
from cvr.training import loop, optimizers, start, train
from cvr.training.monitor import Monitor

# A part runs in chunks of 1, 2, 4, ... steps until one takes that long.
SECONDS = 5.0
LONGEST = 512


class Numbers(NamedTuple):
  """What was measured: seconds of a whole step for each part alone."""

  decode: float  # reading and decoding
  input: float  # these, cropping, and what else the hosts do
  step: float  # a train step on a batch that is there
  exchange: float | None  # the sum of the gradients over several replicas
  batch: int
  replicas: int
  device: str  # CPU, GPU or TPU
  cores: int  # of this host


def seconds_per_step(steps, iterator, host_means):
  """The pace of the last chunk; those before it have warmed up."""
  steps(iterator, 1)  # Compiles.
  for n in (2**i for i in itertools.count()):
    began = time.monotonic()
    steps(iterator, n)
    # Hosts that exchange numbers have to stop at the same chunk.
    (seconds,) = host_means([time.monotonic() - began])
    if seconds >= SECONDS or n >= LONGEST:
      return float(seconds) / n


def measure(cfg, strategy, info):
  """-> Numbers of the run that cfg describes; its data set is info."""
  means = replicas.host_means(strategy)
  plan = train.plan_of(cfg, strategy, info)

  def pace(step, iterator, jit_compile=False):
    steps = loop.make_loop(strategy, step, jit_compile, clocks=False)
    return seconds_per_step(steps, iterator, means)

  def take(batch):
    return {'bad': tf.reduce_sum(batch['bad'])}

  def corner(image, seed):
    del seed
    return {'views': (image[0, 0],)}

  decode = pace(take, train.make_input(plan, info, strategy, 0, corner))
  batches = train.make_input(plan, info, strategy, 0)
  batch, pulling = next(batches), pace(take, batches)
  del batches  # It would go on working beside the step.
  step, state, _ = train.build(plan, strategy)
  exchange = None
  if strategy.num_replicas_in_sync > 1:
    trained = optimizers.make_groups(state.method, state.probe).trained
    exchange = pace(_exchange(trained), itertools.repeat(batch))
  return Numbers(
    decode=decode,
    input=pulling,
    step=pace(step, itertools.repeat(batch), cfg.jit_compile),
    exchange=exchange,
    batch=cfg.train_batch_size,
    replicas=strategy.num_replicas_in_sync,
    device=replicas.device_type(strategy),
    cores=os.cpu_count(),
  )


def _exchange(variables):
  """-> a step that does nothing but sum what has the gradients' shapes."""

  def step(batch):
    del batch
    sums = replicas.cross_replica_sum([v + 0.0 for v in variables])
    # One number of each is used: a sum without a reader would be removed.
    return {'one': tf.add_n([tf.reshape(s, [-1])[0] for s in sums])}

  return step


def table(numbers):
  """What was measured, as lines."""
  parts = {
    'reading and decoding': numbers.decode,
    'the whole input': numbers.input,
    'the train step': numbers.step,
    f'its sum over {numbers.replicas} replicas': numbers.exchange,
  }
  lines = [
    f'{"measured alone":26}  s/step  images/s',
    f'{"-" * 26}  ------  --------',
  ]
  for name, seconds in parts.items():
    if seconds is not None:
      rate = f'{numbers.batch / seconds:8,.0f}'
      lines.append(f'{name:26}  {seconds:6.3f}  {rate}')
  return lines


# Per verdict: (flag, whether to say it, what to say). A flag that is not in
# config.FIELDS is left out.
_INPUT = (
  (
    'cache_dataset',
    lambda n, cfg: not cfg.cache_dataset,
    'if the split fits into memory: no file is read twice',
  ),
  (
    'augment_on=device',
    lambda n, cfg: cfg.augment_on == 'host',
    'colours and blurs in the step, not on the host',
  ),
  (
    'data_service=ADDRESS',
    lambda n, cfg: not cfg.data_service,
    'other machines prepare the batches, see scripts/data_workers.sh',
  ),
)
_EXCHANGE = (
  (
    'train_batch_size',
    lambda n, cfg: True,
    'larger: the sum costs the same for any number of images',
  ),
)
_STEP = (
  (
    'precision=bf16',
    lambda n, cfg: (
      cfg.precision == 'fp32' and not start.slow_bfloat16(n.device)
    ),
    'if the device supports it: TPUs, recent GPUs, some CPUs',
  ),
  (
    'jit_compile',
    lambda n, cfg: n.device == 'GPU' and not cfg.jit_compile,
    'fuses elementwise operations',
  ),
  (
    'train_batch_size',
    lambda n, cfg: n.device != 'CPU' and n.batch // n.replicas < 128,
    'larger, if it fits: this one may not fill a device',
  ),
  (
    'augment_on=host',
    lambda n, cfg: (
      n.device != 'CPU' and n.input < n.step / 2 and cfg.augment_on != 'host'
    ),
    'the hosts are idle: they can colour and blur',
  ),
)


def _advice(rules, numbers, cfg):
  return [
    f'  --{flag}: {why}'
    for flag, applies, why in rules
    if flag.partition('=')[0] in config.FIELDS and applies(numbers, cfg)
  ]


def diagnose(numbers, cfg):
  """Numbers -> which part holds the run up and which flags to turn, lines."""
  if numbers.input > numbers.step:
    reading = numbers.decode / numbers.input
    lines = [
      'The input is the bottleneck: a step takes '
      f'{numbers.step / numbers.input:.0%} of the time that the input takes.',
      f'  Reading and decoding are {min(reading, 1):.0%} of that time.',
      *_advice(_INPUT, numbers, cfg),
      f'  More CPU cores: this host has {numbers.cores}.',
    ]
  elif numbers.exchange and numbers.exchange > numbers.step / 3:
    lines = [
      'The sum of the gradients is the bottleneck: '
      f'{min(numbers.exchange / numbers.step, 1):.0%} of a step.',
      *_advice(_EXCHANGE, numbers, cfg),
      '  A faster interconnect, or fewer replicas with more images each.',
    ]
  else:
    lines = [
      'The train step is the bottleneck: the input takes '
      f'{numbers.input / numbers.step:.0%} of its time.',
      *_advice(_STEP, numbers, cfg),
    ]
  if numbers.device == 'CPU':
    both = numbers.input + numbers.step
    lines.append(
      f'On a CPU both share the cores: up to {both:.3f} s for a step, '
      f'{numbers.batch / both:,.0f} images/s.'
    )
  return lines


def report(cfg, strategy, where):
  """Prints what slows a run down; doctor.json is the one file it may leave."""
  chief = replicas.is_chief(strategy)
  if cfg.model_dir:
    start.check_writable(cfg.model_dir)
  if chief:
    print(f'Running on {where}; measuring, a minute or so', flush=True)
  info = train.describe(cfg)
  with sources.explained(info):
    numbers = measure(cfg, strategy, info)
  diagnosis = diagnose(numbers, cfg)
  if chief:
    print(*table(numbers), '', *diagnosis, sep='\n')
  if cfg.model_dir:
    content = numbers._asdict() | {'diagnosis': diagnosis}
    Monitor(cfg.model_dir, chief).write_json('doctor.json', content)
