"""The data service: a dispatcher here, workers in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

import augmentation
import config
import data
import data_service
import derived
import run
from data_sources import describe
from small_data import make_folder
from test_data import SMALL, augment, indices, make_shards, take

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture(scope='module')
def service():
  """Two workers of the script -> (the address, their process ids)."""
  server = tf.data.experimental.service.DispatchServer()
  env = {
    'DISPATCHER': server.target.removeprefix('grpc://'),
    'HOST_NAME': '127.0.0.1',
    'PYTHON': sys.executable,
  }
  with subprocess.Popen(
    ['bash', f'{ROOT}/scripts/data_workers.sh', '2'],
    env=os.environ | env,
    stdout=subprocess.PIPE,
    text=True,
  ) as script:
    lines = sorted(script.stdout.readline() for _ in range(3))
    assert lines[0] == f'--data_service={server.target}\n'
    assert lines[1].startswith('worker at 127.0.0.1:')
    with open(f'/proc/{script.pid}/task/{script.pid}/children') as file:
      workers = [int(pid) for pid in file.read().split()]
    assert len(workers) == 2
    yield server.target, workers
    script.terminate()
  assert script.returncode == 143
  assert not any(os.path.exists(f'/proc/{pid}') for pid in workers)
  server._stop()


def shared(info, address, **settings):
  share = data_service.shared(address)
  return data.train_batches(info, augment, **{**SMALL, **settings}, share=share)


def info_of(kind, folder):
  if kind == 'folder':
    return describe(f'folder:{make_folder(folder)}')
  return make_shards(folder)


@pytest.mark.parametrize('kind', ['folder', 'records', 'cached'])
def test_every_example_of_an_epoch_arrives_once(service, tmp_path, kind):
  info = info_of(kind, tmp_path)
  cached = dict(cache=kind == 'cached')
  size = info.num_examples
  ours = take(info, 3 * size // 8, **cached)
  whole = [value for batch in ours for value in batch['views'][0][:, 0, 0, 0]]
  wanted, found = set(whole[: 2 * size]), []
  batches = shared(info, service[0], **cached)
  assert batches.element_spec['views'][0].shape == [8, 2, 2, 3]
  for batch in batches.take(40 * size).as_numpy_iterator():
    value = batch['views'][0][:, 0, 0, 0]
    np.testing.assert_array_equal(value // 1, batch['index'])
    # The noise tells the epoch, too: it is that of (seed, epoch, index).
    found += value.tolist()
    if wanted <= set(found):
      break
  assert wanted <= set(found)
  assert len(found) == len(set(found))


def test_local_crops_arrive_as_they_are_made_here(
  service, tmp_path, monkeypatch
):
  monkeypatch.setattr(derived, 'MULTI_CROP', ('contrastive',))
  cfg = config.Config(image_size=16, local_size=8, local_crops=2)
  views = augmentation.per_image(derived.augmentation(cfg), 4)
  info = info_of('folder', tmp_path)

  def rows(batches):
    """What an example's draws are -> its views."""
    return {
      draws.tobytes(): [view[i].tobytes() for view in batch['views']]
      for batch in batches.as_numpy_iterator()
      for i, draws in enumerate(batch['draws'])
    }

  ours = rows(data.train_batches(info, views, **SMALL).take(33))
  theirs = data.train_batches(
    info, views, **SMALL, share=data_service.shared(service[0])
  )
  sizes = [view.shape for view in theirs.element_spec['views']]
  assert sizes == [[8, 16, 16, 3]] * 2 + [[8, 8, 8, 3]] * 2
  found = rows(theirs.take(4))
  assert len(found) == 32
  assert found == {draws: ours[draws] for draws in found}


def test_a_host_gets_its_own_part(service, tmp_path):
  """Of more hosts than files: workers leave out what is not this one's."""
  batches = shared(
    info_of('records', tmp_path), service[0], global_batch=12, num_hosts=6,
    host=5, per_replica_batch=2,
  )  # fmt: skip
  assert (indices(batches.take(4).as_numpy_iterator()) % 6 == 5).all()


def test_resumes_at_about_the_same_place(service, tmp_path):
  """In the folder, exactly there: no batch of an earlier step."""
  info = info_of('folder', tmp_path)
  earlier = {v for b in take(info, 11) for v in b['views'][0].ravel().tolist()}
  later = shared(info, service[0], start_step=11).take(8).as_numpy_iterator()
  later = {v for b in later for v in b['views'][0].ravel().tolist()}
  assert not earlier & later
  records = data._shared_records(
    info_of('records', tmp_path), [1, 2], 3, 8, 1, 0, 6
  )
  epochs = [int(epoch) for epoch, _, _ in records.take(24)]
  assert epochs[0] == 1 and set(epochs) == {1, 2}


def tiny_run(folder, model_dir, service):
  return run.main([
    'run.py', f'--dataset=folder:{folder}', f'--model_dir={model_dir}',
    '--use_tpu=false', '--mode=train', '--resnet_depth=18', '--image_size=16',
    '--train_batch_size=8', '--train_steps=4', '--proj_head_hidden_dim=16',
    '--proj_out_dim=8', '--warmup_epochs=0', '--no_augmentation',
    '--use_blur=false', f'--data_service={service}',
  ])  # fmt: skip


@pytest.mark.usefixtures('tiny_encoder')
def test_a_run_trains_with_it(service, folder, tmp_path, capsys):
  assert tiny_run(folder, tmp_path / 'run', service[0]) == 0
  out = capsys.readouterr().out
  assert 'Done: 4 steps' in out
  assert f'--data_service={service[0]}: no promised order' in out


def test_nobody_there(folder, tmp_path, capsys):
  with socket.socket() as held:
    held.bind(('127.0.0.1', 0))  # And does not listen.
    address = f'grpc://127.0.0.1:{held.getsockname()[1]}'
    assert tiny_run(folder, tmp_path / 'run', address) == 75
    err = capsys.readouterr().err
    assert f'--data_service={address} does not answer (UNAVAILABLE)' in err
    assert 'scripts/data_workers.sh' in err and 'Traceback' not in err


def test_a_run_does_not_wait_for_ever(monkeypatch):
  said, statuses, ended = [], [], threading.Event()

  def leave(status):
    statuses.append(status)
    ended.set()

  monkeypatch.setattr(data_service.os, '_exit', leave)
  lonely = tf.data.experimental.service.DispatchServer()
  with data_service.watched(lonely.target, said.append, every=0, patience=2):
    ended.wait()
  assert statuses == [75]
  *waiting, last = said
  assert len(waiting) == 3 and 'no worker answers. Start some' in waiting[0]
  assert last.startswith('Nobody came')


def test_a_dispatcher_that_forgot(tmp_path):
  """A restarted one is not taken for a damaged data set."""
  service_of = tf.data.experimental.service
  server = service_of.DispatchServer()
  address = server.target
  port = int(address.rpartition(':')[2])
  config = service_of.WorkerConfig(f'localhost:{port}')
  worker = service_of.WorkerServer(config)
  batches = iter(shared(info_of('folder', tmp_path), address))
  with pytest.raises(data_service.Unreachable, match='started anew'):
    with data_service.watched(address, print):
      next(batches)
      server._stop()
      server = service_of.DispatchServer(service_of.DispatcherConfig(port=port))
      while True:
        next(batches)
  worker._stop()
  server._stop()


# The last of those that need both.
def test_a_killed_worker_does_not_stop_it(service, tmp_path):
  address, (worker, _) = service
  info = info_of('folder', tmp_path)
  batches = shared(info, address).as_numpy_iterator()
  before = [next(batches) for _ in range(5)]
  assert len(data_service.check(address)) == 2
  os.kill(worker, signal.SIGKILL)
  after = [next(batches) for _ in range(3 * info.num_examples)]
  found = [v for b in before + after for v in b['views'][0][:, 0, 0, 0]]
  assert len(found) == len(set(found)) and len(after[-1]['index']) == 8
  assert not data_service._trouble(address)
