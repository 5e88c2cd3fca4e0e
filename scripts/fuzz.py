"""Coverage-guided fuzzing of the parsers that are our own Python.

python scripts/fuzz.py [--seconds=60] [index | tar | json]

Atheris changes bytes until they reach new lines of a parser. A damaged file may
end in the errors that the program explains in a line. Any other error ends the
fuzzing with status 1; the file that caused it is kept in runs/fuzz. Without a
name all parsers take their turn.
"""

import argparse
import io
import os
import pathlib
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cvr.startup import call, quiet_start, stops_in_a_line

ROOT = pathlib.Path('runs', 'fuzz')


def _index(place):
  """The index of a checkpoint, up to what its entries announce."""
  import tensorflow as tf

  from cvr.checkpoints import bundle, files

  checkpoint = tf.train.Checkpoint(x=tf.Variable([1.0, 2.0]))
  checkpoint.write(f'{place}/seed')
  seed = pathlib.Path(f'{place}/seed.index').read_bytes()
  path = pathlib.Path(place, 'ckpt-1.index')

  def read(data):
    path.write_bytes(data)
    bundle.size_of_data(str(path.with_suffix('')))

  return seed, read, files.DAMAGE


def _tar(place):
  """The headers of a tar file."""
  del place
  from cvr.data import tars

  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w', format=tarfile.PAX_FORMAT) as tar:
    for name in ('a.png', 'a.cls', 'ü' * 120 + '.png'):
      info = tarfile.TarInfo(name)
      info.size = 3
      tar.addfile(info, io.BytesIO(b'123'))

  def read(data):
    for entry in tars.entries(io.BytesIO(data), len(data)):
      assert 0 <= entry.first <= entry.first + entry.size <= len(data)

  return file.getvalue(), read, (tars.Damaged,)


def _json(place):
  """config.json of a run."""
  from cvr.checkpoints import stored
  from cvr.configs import config

  path = pathlib.Path(place, 'config.json')

  def read(data):
    path.write_bytes(data)
    config.stored_settings(str(path), stored.read_json)

  seed = b'{"config": {"pretrain_loss": "byol", "seed": 1}, "num_examples": 9}'
  return seed, read, (config.ConfigError,)


TARGETS = {'index': _index, 'tar': _tar, 'json': _json}


def fuzz(name, seconds):
  """Never returns: libFuzzer ends the process."""
  import atheris

  quiet_start()
  with atheris.instrument_imports(include=['cvr']):
    place = tempfile.mkdtemp(prefix='fuzz-')
    seed, read, expected = TARGETS[name](place)

  def one(data):
    try:
      read(data)
    except expected:
      pass

  corpus = ROOT / name
  corpus.mkdir(parents=True, exist_ok=True)
  (corpus / 'seed').write_bytes(seed)
  options = (
    *(f'-max_total_time={seconds}', '-timeout=10', '-rss_limit_mb=4000'),
    *(f'-artifact_prefix={ROOT}/{name}-', '-verbosity=0'),
  )
  atheris.Setup([sys.argv[0], *options, str(corpus)], one)
  atheris.Fuzz()


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('name', nargs='?', choices=[*TARGETS])
  parser.add_argument('--seconds', type=int, default=60)
  wanted = parser.parse_args()
  if wanted.name:
    fuzz(wanted.name, wanted.seconds)
  stops_in_a_line()
  for name in TARGETS:
    print(f'\n{name}: {TARGETS[name].__doc__}', flush=True)
    if call(sys.executable, __file__, name, f'--seconds={wanted.seconds}'):
      sys.exit(f'{name}: the file that did it is {ROOT}/{name}-*')
    print(f'{name}: no finding in {wanted.seconds} s', flush=True)


if __name__ == '__main__':
  main()
