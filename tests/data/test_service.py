"""The data service: a dispatcher here, workers in processes of their own."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

import run
from cvr.configs import config, derived
from cvr.data import augmentation, batches, reading, service
from cvr.data.batches import HostBatch
from cvr.data.sources import describe
from small_data import make_folder, take_local_crops
from small_shards import ROWS, SMALL, augment, indices, make_shards, take

ROOT = str(pathlib.Path(__file__).parents[2])


@pytest.fixture(scope='module')
def workers():
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


def shared(info, address, rows=ROWS, **settings):
  share = service.shared(address)
  return batches.train_batches(
    info, augment, rows, **{**SMALL, **settings}, share=share
  )


def info_of(kind, folder):
  if kind == 'folder':
    return describe(f'folder:{make_folder(folder)}')
  return make_shards(folder)


@pytest.mark.parametrize('kind', ['records', 'cached'])
def test_every_example_of_an_epoch_arrives_once(workers, tmp_path, kind):
  info = info_of(kind, tmp_path)
  cached = dict(cache=kind == 'cached')
  size = info.num_examples
  ours = take(info, 3 * size // 8, **cached)
  whole = [value for batch in ours for value in batch['views'][0][:, 0, 0, 0]]
  wanted, arrived = set(whole[: 2 * size]), []
  dataset = shared(info, workers[0], **cached)
  assert dataset.element_spec['views'][0].shape == [8, 2, 2, 3]
  for batch in dataset.take(40 * size).as_numpy_iterator():
    value = batch['views'][0][:, 0, 0, 0]
    np.testing.assert_array_equal(value // 1, batch['index'])
    # The noise identifies the epoch, too: it depends on (seed, epoch, index).
    arrived += value.tolist()
    if wanted <= set(arrived):
      break
  assert wanted <= set(arrived)
  assert len(arrived) == len(set(arrived))


def test_local_crops_arrive_as_they_are_made_here(
  workers, tmp_path, monkeypatch
):
  take_local_crops(monkeypatch, 'contrastive')
  cfg = config.Config(image_size=16, local_size=8, local_crops=1)
  views = augmentation.per_image(derived.augmentation(cfg), 3)
  info = info_of('folder', tmp_path)

  def rows(dataset):
    """{an example's draws: its views}."""
    return {
      draws.tobytes(): [view[i].tobytes() for view in batch['views']]
      for batch in dataset.as_numpy_iterator()
      for i, draws in enumerate(batch['draws'])
    }

  ours = rows(batches.train_batches(info, views, ROWS, **SMALL).take(33))
  theirs = batches.train_batches(
    info, views, ROWS, **SMALL, share=service.shared(workers[0])
  )
  sizes = [view.shape for view in theirs.element_spec['views']]
  assert sizes == [[8, 16, 16, 3]] * 2 + [[8, 8, 8, 3]]
  arrived = rows(theirs.take(4))
  assert len(arrived) == 32
  assert arrived == {draws: ours[draws] for draws in arrived}


def test_a_host_gets_its_own_part(workers, tmp_path):
  """With more hosts than files: workers skip the other hosts' records."""
  info = info_of('records', tmp_path)
  dataset = shared(info, workers[0], HostBatch(12, 2, num_hosts=6, host=5))
  assert (indices(dataset.take(4).as_numpy_iterator()) % 6 == 5).all()


def test_records_resume_at_about_the_same_place(tmp_path):
  records = reading.shared_records(
    info_of('records', tmp_path), ROWS, [1, 2], 3, 6
  )
  epochs = [int(epoch) for epoch, _, _ in records.take(24)]
  assert epochs[0] == 1 and set(epochs) == {1, 2}


def tiny_run(folder, model_dir, workers):
  return run.main([
    'run.py', f'--dataset=folder:{folder}', f'--model_dir={model_dir}',
    '--use_tpu=false', '--mode=train', '--resnet_depth=18', '--image_size=16',
    '--train_batch_size=8', '--train_steps=4', '--proj_head_hidden_dim=16',
    '--proj_out_dim=8', '--warmup_epochs=0', '--no_augmentation',
    '--use_blur=false', '--health_pairs=0', f'--data_service={workers}',
  ])  # fmt: skip


@pytest.mark.usefixtures('tiny_encoder')
def test_a_run_trains_with_it(workers, folder, tmp_path, capsys):
  assert tiny_run(folder, tmp_path / 'run', workers[0]) == 0
  out = capsys.readouterr().out
  assert 'Done: 4 steps' in out
  assert f'--data_service={workers[0]}: the order of examples' in out
  # Of 6 x 8 pixels: the workers tell, the training notes.
  assert 'End of the run: of 22 images' in out
  assert 'smaller than the crop (of 16 px' in out


def test_nobody_there(folder, tmp_path, capsys):
  with socket.socket() as silent:
    silent.bind(('127.0.0.1', 0))  # And does not listen.
    address = f'grpc://127.0.0.1:{silent.getsockname()[1]}'
    assert tiny_run(folder, tmp_path / 'run', address) == 75
    err = capsys.readouterr().err
    assert f'--data_service={address} does not answer (UNAVAILABLE)' in err
    assert 'scripts/data_workers.sh' in err and 'Traceback' not in err


def test_what_is_wrong_with_a_service_is_said():
  with socket.socket() as silent:
    silent.bind(('127.0.0.1', 0))
    address = f'grpc://127.0.0.1:{silent.getsockname()[1]}'
    trouble = service._trouble(address)
  assert trouble.startswith(f'--data_service={address} does not answer')


def test_a_worker_without_a_dispatcher_is_refused(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['service', 'worker'])
  with pytest.raises(SystemExit) as end:
    service.main()
  assert end.value.code == 2
  assert 'a worker needs --dispatcher=HOST:PORT' in capsys.readouterr().err


def test_a_dispatcher_is_found_by_its_address():
  server, address = service._serve('dispatcher', 0, 'localhost', None)
  assert isinstance(server, tf.data.experimental.service.DispatchServer)
  assert server.target == f'grpc://{address}'
  server._stop()


def test_a_run_does_not_wait_for_ever(monkeypatch):
  lines, statuses, ended = [], [], threading.Event()

  def leave(status):
    statuses.append(status)
    ended.set()

  monkeypatch.setattr(service.os, '_exit', leave)
  server = tf.data.experimental.service.DispatchServer()
  with service.watched(server.target, lines.append, every=0, patience=2):
    ended.wait()
  assert statuses == [75]
  *waiting, last = lines
  assert len(waiting) == 3 and 'no worker answers. Start some' in waiting[0]
  assert last.startswith('Nothing answers')


def test_a_restarted_dispatcher_is_not_taken_for_damaged_data(tmp_path):
  service_of = tf.data.experimental.service
  server = service_of.DispatchServer()
  address = server.target
  port = int(address.rpartition(':')[2])
  config = service_of.WorkerConfig(f'localhost:{port}')
  worker = service_of.WorkerServer(config)
  dataset = iter(shared(info_of('folder', tmp_path), address))
  with pytest.raises(service.Unreachable, match='was restarted'):
    with service.watched(address, print):
      next(dataset)
      server._stop()
      server = service_of.DispatchServer(service_of.DispatcherConfig(port=port))
      while True:
        next(dataset)
  worker._stop()
  server._stop()


# The last test that needs both workers.
def test_a_folder_resumes_and_a_killed_worker_does_not_stop_it(
  workers, tmp_path
):
  address, (worker, _) = workers
  info = info_of('folder', tmp_path)
  dataset = shared(info, address, start_step=11).as_numpy_iterator()
  before = [next(dataset) for _ in range(5)]
  assert len(service.check(address)) == 2
  os.kill(worker, signal.SIGKILL)
  after = [next(dataset) for _ in range(3 * info.num_examples)]
  arrived = [v for b in before + after for v in b['views'][0][:, 0, 0, 0]]
  assert len(arrived) == len(set(arrived)) and len(after[-1]['index']) == 8
  # There is no batch of an earlier step.
  earlier = [v for b in take(info, 11) for v in b['views'][0][:, 0, 0, 0]]
  assert not {*earlier} & {*arrived}
  assert not service._trouble(address)
