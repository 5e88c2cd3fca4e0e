"""The training input, prepared by other processes: TensorFlow's data service.

  python -m cvr.data.service dispatcher --port=5050
  python -m cvr.data.service worker --dispatcher=HOST:5050

scripts/data_workers.sh starts both. The dispatcher distributes the parts of a
data set, the workers make batches of them, trainings fetch the batches from the
workers.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import sys
import threading

import grpc
import tensorflow as tf

_TIMEOUT = 10  # Seconds.
EXIT_RETRY = 75  # As in run.py.


class Unreachable(Exception):
  """No server answers at --data_service, or one that does not know this run."""


def shared(service):
  """-> a transformation of a dataset: the workers make its elements.

  Each element of the source goes to the first worker that asks; the elements of
  a worker that is killed are lost.
  """
  service_of = tf.data.experimental.service
  return service_of.distribute(
    service_of.ShardingPolicy.DYNAMIC,
    service,
    compression=None,  # Augmented images hardly get smaller.
  )


def _workers(service):
  """host:port of the workers known to the dispatcher, dead ones too."""
  with grpc.insecure_channel(service.removeprefix('grpc://')) as channel:
    ask = channel.unary_unary('/tensorflow.data.DispatcherService/GetWorkers')
    answer = ask(b'', timeout=_TIMEOUT)
  addresses = []
  # Protocol buffers, each: tag, length, and a string with its tag and length.
  while answer:
    addresses.append(answer[4 : 4 + answer[3]].decode())
    answer = answer[2 + answer[1] :]
  return addresses


def _answers(address):
  host, _, port = address.rpartition(':')
  with contextlib.suppress(OSError):
    socket.create_connection((host, int(port)), _TIMEOUT).close()
    return True
  return False


def check(service):
  """-> the dispatcher's workers; raises Unreachable if it does not answer."""
  try:
    return _workers(service)
  except grpc.RpcError as error:
    raise Unreachable(
      f'--data_service={service} does not answer ({error.code().name}). Start '
      'it with scripts/data_workers.sh, which prints its address, or drop the '
      'flag; then the same command resumes the run.'
    ) from None


def _trouble(service):
  """-> what keeps the service from making batches, or ''."""
  try:
    if any(map(_answers, check(service))):
      return ''
  except Unreachable as error:
    return str(error)
  return (
    f'--data_service={service}: no worker answers. Start some: '
    f'DISPATCHER={service.removeprefix("grpc://")} bash scripts/data_workers.sh'
  )


@contextlib.contextmanager
def watched(service, say, every=60, patience=10):
  """Reports that no worker answers, and ends the process if that persists.

  TensorFlow itself waits for ever, inside a step, where signals have no effect.

  every: seconds between checks; patience: failed checks before the end.
  """
  over = threading.Event()

  def watch():
    failures = 0
    while failures <= patience:
      trouble = _trouble(service)
      failures = failures + 1 if trouble else 0
      if trouble:
        say(f'Waiting: {trouble}')
      if over.wait(every):
        return
    say('Nothing answers. The same command resumes from the last checkpoint.')
    os._exit(EXIT_RETRY)

  if service:
    threading.Thread(target=watch, daemon=True).start()
  try:
    yield
  except tf.errors.OpError as error:
    if not re.search('Failed to get (split|tasks)', str(error)):
      raise
    raise Unreachable(
      f'--data_service={service} was restarted and does not know this run. The '
      'same command resumes from the last checkpoint.'
    ) from error
  finally:
    over.set()


def _own_name():
  """This machine's host name, or localhost if the name does not resolve."""
  with contextlib.suppress(OSError):
    socket.gethostbyname(socket.gethostname())
    return socket.gethostname()
  return 'localhost'


def _serve(role, port, host, dispatcher):
  """Starts a server -> (the server, its address)."""
  service_of = tf.data.experimental.service
  tf.config.set_visible_devices([], 'GPU')
  if role == 'dispatcher':
    server = service_of.DispatchServer(service_of.DispatcherConfig(port=port))
  else:
    settings = service_of.WorkerConfig(
      dispatcher.removeprefix('grpc://'), f'{host}:%port%', port
    )
    server = service_of.WorkerServer(settings)
  return server, f'{host}:{server._address.rpartition(":")[2]}'


def main():
  parser = argparse.ArgumentParser(prog='python -m cvr.data.service')
  parser.add_argument('role', choices=('dispatcher', 'worker'))
  parser.add_argument('--port', type=int, default=0, help='0: any free one')
  parser.add_argument('--host', default=_own_name(), help="this machine's name")
  parser.add_argument('--dispatcher', help='its HOST:PORT, for a worker')
  args = parser.parse_args()
  if args.role == 'worker' and not args.dispatcher:
    parser.error('a worker needs --dispatcher=HOST:PORT')
  try:
    server, address = _serve(**vars(args))
  except tf.errors.OpError as error:
    sys.exit(f'data_service: {str(error).partition(chr(10))[0]}')
  print(f'{args.role} at {address}', flush=True)
  # join() never returns to Python, where a handler would run.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  server.join()


if __name__ == '__main__':
  main()
