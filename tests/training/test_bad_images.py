"""Images that cannot be decoded, or are small: the lines and the file."""

import builtins
import errno
import os
import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf

import run
from cvr.data import sources
from cvr.data.sources import describe
from cvr.numerics import replicas
from cvr.training.bad_images import BadImages
from cvr.training.monitor import Monitor
from small_data import make_folder, write
from small_runs import QUICK, flags, make_images

JPEG = tf.io.encode_jpeg(np.full([40, 40, 3], 9, np.uint8)).numpy()


def png(side):
  return tf.io.encode_png(np.full([side, side, 3], 50, np.uint8)).numpy()


FILES = {
  'dark/broken.jpg': JPEG[: len(JPEG) - 40],
  'light/empty.png': b'',
  'light/html.png': b'<html>404</html>',
  'dark/one.png': png(1),
  'light/four.png': png(4),
}
EXPECTED = """cannot be decoded\tdark/broken.jpg
cannot be decoded\tlight/empty.png
cannot be decoded\tlight/html.png
smaller than the crop\tdark/one.png
smaller than the crop\tlight/four.png
"""


@pytest.mark.parametrize('how', ['alone', 'two replicas', 'in memory'])
def test_a_run_names_its_bad_images(
  tmp_path, capsys, monkeypatch, glance, two_replicas, how
):
  images = make_images(tmp_path / 'images')
  for name, content in FILES.items():
    write(f'{images}/train/{name}', content)
  if how == 'two replicas':
    strategy = (two_replicas, 'two CPUs')
    monkeypatch.setattr(replicas, 'make_strategy', lambda *_: strategy)
  more = ['--cache_dataset'] if how == 'in memory' else []
  # 29 images: epoch 1 ends within step 4, epoch 2 within step 8.
  argv = flags(images, tmp_path / 'run', '--mode=train', *QUICK, *more)
  argv += ['--max_bad_images=0.1']
  assert run.main([*argv, '--train_steps=9', '--train_summary_steps=1']) == 0
  lines = capsys.readouterr().out.splitlines()
  told = [line for line in lines if 'cannot be decoded (' in line]
  assert [line.partition(':')[0] for line in told] == [
    'End of epoch 1', 'End of epoch 2', 'End of the run'
  ]  # fmt: skip
  for line in told:
    assert 'of 29 images 3 cannot be decoded' in line
    assert all(name in line for name in FILES)
    assert '2 smaller than the crop (of 16 px' in line
    assert 'bad_images.txt' in line
  listed = (tmp_path / 'run' / 'bad_images.txt').read_text()
  assert listed == EXPECTED
  if how == 'alone':
    # One step more: what was listed before still is.
    capsys.readouterr()
    argv += ['--train_steps=10', '--allow_config_change']
    assert run.main(argv) == 0
    assert 'End of the run: of 29 images 3 cannot' in capsys.readouterr().out
    assert (tmp_path / 'run' / 'bad_images.txt').read_text() == EXPECTED


@pytest.mark.parametrize('how', ['alone', 'in memory'])
def test_files_that_cannot_be_read_are_bad_images(
  tmp_path, capsys, monkeypatch, glance, how
):
  """Removed after they were listed, among them one that is no UTF-8 text."""
  images = make_images(tmp_path / 'images')
  os.rename(f'{images}/train/dark/3.jpg', f'{images}/train/dark/3\udcff.jpg')
  gone = [f'{images}/train/dark/3\udcff.jpg', f'{images}/train/light/7.jpg']
  describe_all = sources.describe

  def describe(*args, **settings):
    info = describe_all(*args, **settings)
    for path in filter(os.path.exists, gone):
      os.remove(path)
    return info

  monkeypatch.setattr(sources, 'describe', describe)
  more = ['--cache_dataset'] if how == 'in memory' else []
  argv = flags(images, tmp_path / 'run', '--mode=train', *QUICK, *more)
  assert run.main([*argv, '--max_bad_images=0.08']) == 0
  assert '2 cannot be read (replaced by' in capsys.readouterr().out
  listed = (tmp_path / 'run' / 'bad_images.txt').read_text()
  assert listed == (
    'cannot be read\tdark/3\\xff.jpg\ncannot be read\tlight/7.jpg\n'
  )


@pytest.mark.parametrize('how', ['alone', 'two replicas', 'in memory'])
def test_too_many_end_the_run(
  tmp_path, capsys, monkeypatch, glance, two_replicas, how
):
  images = make_images(tmp_path / 'images')
  for name, content in FILES.items():
    write(f'{images}/train/{name}', content)
  if how == 'two replicas':
    strategy = (two_replicas, 'two CPUs')
    monkeypatch.setattr(replicas, 'make_strategy', lambda *_: strategy)
  more = ['--cache_dataset'] if how == 'in memory' else []
  argv = flags(images, tmp_path / 'run', '--mode=train', *QUICK, *more)
  # 2 of 29 are 0.069.
  assert run.main([*argv, '--max_bad_images=0.065']) == 2
  line = capsys.readouterr().err.strip()
  assert line.startswith('run.py: --dataset=folder:') and line.isprintable()
  assert 'of 29 images 3 cannot be decoded' in line
  assert all(name in line for name in [*FILES][:3])
  assert '--max_bad_images=0.065' in line and 'small' not in line
  listed = (tmp_path / 'run' / 'bad_images.txt').read_text()
  assert listed.count('cannot be decoded') == 3
  # The checkpoint of step 0 goes on.
  assert run.main([*argv, '--max_bad_images=0.1']) == 0


def test_one_image_is_never_too_many_unless_none_may_be(
  tmp_path, capsys, glance
):
  images = make_images(tmp_path / 'images')
  write(f'{images}/train/dark/broken.jpg', JPEG[: len(JPEG) - 40])
  argv = flags(images, tmp_path / 'run', '--mode=train', *QUICK)
  assert run.main([*argv]) == 0
  assert run.main([*argv, '--fresh_start', '--max_bad_images=0']) == 2
  assert 'of 25 images 1 cannot' in capsys.readouterr().err


@pytest.mark.parametrize('mode', ['train', 'train_then_eval', 'in memory'])
def test_a_store_that_does_not_answer_is_no_damage(
  tmp_path, capsys, monkeypatch, glance, mode
):
  """Status 75: nothing says that the images are not good."""
  images = make_images(tmp_path / 'images')
  split = 'val' if mode == 'train_then_eval' else 'train'
  path = f'{images}/{split}/light/3.jpg'
  os.remove(path)
  write(path, b'')

  def opened(name, *args, real=open, **settings):
    if name == path:
      raise OSError(errno.ESTALE, 'Stale file handle', path)
    return real(name, *args, **settings)

  monkeypatch.setattr(builtins, 'open', opened)
  more = ['--cache_dataset', '--mode=train']
  more = more if mode == 'in memory' else [f'--mode={mode}']
  argv = flags(images, tmp_path / 'run', *QUICK, *more)
  assert run.main(argv) == 75
  line = capsys.readouterr().err.strip()
  assert 'Stale file handle' in line and line.isprintable()
  assert line.endswith('The same command resumes the run.')


def test_good_images_leave_no_line_and_no_file(
  images, tmp_path, capsys, glance
):
  argv = flags(images, tmp_path, '--mode=train', *QUICK)
  assert run.main(argv) == 0
  out = capsys.readouterr().out
  assert 'decoded' not in out and 'End of' not in out
  assert not (tmp_path / 'bad_images.txt').exists()


class Lines:
  """A stream that keeps what is printed."""

  def __init__(self):
    self.text = ''

  def isatty(self):
    return False

  def write(self, text):
    self.text += text

  def flush(self):
    pass


def noted(bad, context, index, undecoded, side):
  batch = {'index': index, 'bad': undecoded, 'side': side}
  batch = {name: tf.constant(value) for name, value in batch.items()}
  batch['index'] = tf.cast(batch['index'], tf.int64)
  data = tf.data.Dataset.from_tensors(batch).map(bad.note_of(context))
  (rest,) = data
  assert rest.keys() == {'index', 'bad'}


def test_workers_tell_the_chief(tmp_path):
  """Three processes, of which the second has seen nothing."""
  info = describe(f'folder:{make_folder(tmp_path / "images")}')
  barrier, given = threading.Barrier(3, timeout=60), {}

  def worker(host):
    def host_means(values):
      given[host] = np.array(values, np.float32)
      barrier.wait()
      mean = sum(given[i] / np.float32(3) for i in range(3))
      barrier.wait()
      return mean

    monitor = Monitor(str(tmp_path), chief=not host, stream=streams[host])
    bad = BadImages(info, 6, monitor, host_means)
    context = tf.distribute.InputContext(3, host, 3)
    index = {0: [3, 8], 1: [1, 2], 2: [21, 4]}[host]
    undecoded = {0: [0, 1], 1: [0, 0], 2: [1, 0]}[host]
    noted(bad, context, index, undecoded, {2: [6, 5]}.get(host, [6, 6]))
    bad.after_epoch(1)

  streams = [Lines() for _ in range(3)]
  threads = [threading.Thread(target=worker, args=[i]) for i in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  told = [stream.text for stream in streams]
  assert 'of 22 images 2 cannot be decoded' in told[0] and told[1:] == ['', '']
  # Images 5 to 13 are cats, 14 to 21 dogs.
  assert pathlib.Path(tmp_path, 'bad_images.txt').read_text() == (
    'cannot be decoded\tcat/3.png\n'
    'cannot be decoded\tdog/7.png\n'
    'smaller than the crop\tbird/4.png\n'
  )


def test_five_are_named_and_nothing_else_is_printed_of_a_name(tmp_path):
  for i in range(7):
    write(f'{tmp_path}/images/{i}\x1b[2J.png', png(4))
  info = describe(f'folder:{tmp_path}/images')
  stream = Lines()
  bad = BadImages(info, 6, Monitor(str(tmp_path), stream=stream))
  context = tf.distribute.InputContext(1, 0, 1)
  noted(bad, context, [5, 6, 0, 1, 2, 3, 4], [1] * 7, [9] * 7)
  bad.after_epoch(None)
  assert '\x1b' not in stream.text and stream.text.count('.png') == 5
  assert '7 cannot be decoded' in stream.text and ', ...' in stream.text
  listed = pathlib.Path(tmp_path, 'bad_images.txt').read_text()
  assert len(listed.splitlines()) == 7 and listed.isascii()
