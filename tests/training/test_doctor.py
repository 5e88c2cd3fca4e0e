"""What holds a run up: timing, advice, and a whole call."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

import run
from cvr.configs import config
from cvr.configs.config import Config
from cvr.training import doctor, train

# A GPU run in balance: neither the input nor the sum holds it up.
NUMBERS = doctor.Numbers(
  decode=0.1, input=0.2, step=0.3, exchange=0.01, batch=1024, replicas=4,
  device='GPU', cores=8,
)  # fmt: skip
SLOW_INPUT = {'input': 0.6, 'decode': 0.3}
FEW = {'batch': 256}


def said(numbers, **settings):
  return '\n'.join(doctor.diagnose(numbers, Config(**settings)))


@pytest.mark.parametrize(
  'measured, settings, wanted, unwanted',
  [
    (SLOW_INPUT, {}, ['input is the', '50%', '--cache_d', '8'], ['--augment']),
    (SLOW_INPUT, {'augment_on': 'host'}, ['--augment_on=device'], ['=bf16']),
    (SLOW_INPUT, {'cache_dataset': True}, ['cores'], ['--cache_dataset']),
    ({}, {}, ['train step is the', '67%', '--precision=bf16'], ['--train_b']),
    ({}, {'precision': 'bf16'}, ['train step is the'], ['--precision']),
    (FEW, {}, ['--train_batch_size'], ['--augment_on']),
    (FEW | {'device': 'CPU'}, {}, ['0.500 s', '512 i'], ['--train_batch_size']),
    ({'input': 0.1}, {}, ['--augment_on=host'], ['cores']),
    ({'input': 0.1}, {'augment_on': 'host'}, ['train step'], ['--augment_on']),
    ({'exchange': 0.2}, {}, ['sum of', '67%', '--train_batch'], ['--precis']),
    ({'exchange': None}, {}, ['train step is the'], ['sum of']),
    ({'exchange': 0.2} | SLOW_INPUT, {}, ['input is the'], ['sum of']),
  ],
)
def test_what_is_said_of_numbers(measured, settings, wanted, unwanted):
  text = said(NUMBERS._replace(**measured), **settings)
  assert all(part in text for part in wanted), text
  assert not any(part in text for part in unwanted), text


def test_every_flag_that_is_named_exists(monkeypatch):
  """Or is to come: it is not named before."""
  for rules in (doctor._INPUT, doctor._EXCHANGE, doctor._STEP):
    flags = {flag.partition('=')[0] for flag, _, _ in rules}
    assert flags - {'data_service', 'jit_compile'} <= config.FIELDS.keys()
  monkeypatch.setattr(config, 'FIELDS', {})
  for measured in (SLOW_INPUT, FEW, {'exchange': 0.2}):
    assert '--' not in said(NUMBERS._replace(**measured))


@pytest.mark.parametrize('pace, chunks', [(1.0, [1, 2, 4, 8]), (9.0, [1])])
def test_the_last_chunk_counts(monkeypatch, pace, chunks):
  done, now = [], [0.0]

  def steps(iterator, n):
    # What is prefetched and what compiles is in the chunks before.
    now[0] += 60 if not done else n * pace
    done.append(n)

  monkeypatch.setattr(doctor.time, 'monotonic', lambda: now[0])
  # As numbers come back from several hosts; a file has to hold the result.
  found = doctor.seconds_per_step(steps, None, np.float32)
  assert json.loads(json.dumps(found)) == pace
  assert done == [1, *chunks]


def test_no_end_of_chunks_is_too_far(monkeypatch):
  monkeypatch.setattr(doctor.time, 'monotonic', lambda: 0.0)
  done = []
  doctor.seconds_per_step(lambda _, n: done.append(n), None, list)
  assert done[-1] == doctor.LONGEST


def flags(folder, *more):
  return [
    'run.py', '--mode=doctor', f'--dataset=folder:{folder}',
    '--use_tpu=false', '--resnet_depth=18', '--image_size=16',
    '--train_batch_size=8', '--proj_head_hidden_dim=16', '--proj_out_dim=8',
    *more,
  ]  # fmt: skip


@pytest.fixture
def quick(monkeypatch, glance, tmp_path):
  """One step of each part, in an empty folder."""
  monkeypatch.setattr(doctor, 'SECONDS', 0.0)
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')


def test_a_call_prints_all_and_writes_nothing(quick, folder, capsys):
  assert run.main(flags(folder, '--augment_on=host')) == 0
  out = capsys.readouterr().out
  for row in ('reading and decoding', 'the whole input', 'the train step'):
    assert row in out
  assert 'is the bottleneck' in out and 'replicas' not in out
  assert os.listdir() == []


def test_a_run_that_is_there_already_stays_as_it_is(
  quick, folder, tmp_path, capsys
):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('not of the doctor')
  argv = flags(folder, '--augment_on=device', f'--model_dir={tmp_path}/run')
  assert run.main(argv) == 0
  out = capsys.readouterr().out
  for row in ('reading and decoding', 'the whole input', 'the train step'):
    assert row in out
  assert 'is the bottleneck' in out and 'replicas' not in out
  assert os.listdir() == []
  assert sorted(os.listdir(tmp_path / 'run')) == ['config.json', 'doctor.json']
  stored = json.loads((tmp_path / 'run' / 'doctor.json').read_text())
  assert stored['batch'] == 8 and stored['device'] == 'CPU'
  assert 'is the bottleneck' in stored['diagnosis'][0]
  assert 'not of' in (tmp_path / 'run' / 'config.json').read_text()


def test_with_replicas_their_sum_is_measured(quick, folder, two_replicas):
  cfg = Config(
    dataset=f'folder:{folder}', image_size=16, resnet_depth=18,
    train_batch_size=8, proj_head_hidden_dim=16, proj_out_dim=8,
    pretrain_loss='byol', no_augmentation=True, use_blur=False,
  )  # fmt: skip
  numbers = doctor.measure(cfg, two_replicas, train.describe(cfg))
  assert numbers.replicas == 2 and numbers.exchange > 0
  assert any('sum over 2 replicas' in line for line in doctor.table(numbers))


def test_what_is_summed_has_the_values_of_both(two_replicas):
  with two_replicas.scope():
    variables = [tf.Variable([[3.0, 4.0]]), tf.Variable(5.0)]
  steps = doctor.loop.make_loop(two_replicas, doctor._exchange(variables))
  assert steps(doctor.itertools.repeat(()), 2)['one'] == 2 * (3 + 5)
