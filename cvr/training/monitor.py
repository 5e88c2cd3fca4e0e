"""What a run tells people: a progress line, metrics.jsonl, TensorBoard."""

import json
import os
import sys
import time

import tensorflow as tf

from cvr.checkpoints import files

# Published tags for the numbers of a summary; the rest is train/<name>.
_TAGS = {
  'learning_rate': 'learning_rate',
  'ceb_beta': 'train/ceb_beta_log',
}


def duration(seconds):
  """Seconds as people say them: 42s, 3m10s, 5h02m, 2d03h."""
  seconds = int(seconds)
  for size, unit, small, name in (
    (86400, 'd', 3600, 'h'),
    (3600, 'h', 60, 'm'),
    (60, 'm', 1, 's'),
  ):
    if seconds >= size:
      return f'{seconds // size}{unit}{seconds % size // small:02d}{name}'
  return f'{seconds}s'


class Monitor:
  """Writes and shows metrics; does nothing on workers that are not chief."""

  def __init__(self, model_dir, chief=True, stream=None):
    self.chief = chief
    self.stream = stream = stream or sys.stdout
    self.model_dir = model_dir
    self._terminal = stream.isatty()
    self._last_line = float('-inf')
    self._writer = None
    if chief:
      tf.io.gfile.makedirs(model_dir)

  def say(self, text):
    """A line of its own, ended even where a progress line stands."""
    if self.chief:
      clear = '\r\033[K' if self._terminal else ''
      print(clear + text, file=self.stream, flush=True)

  def summary(self, step, metrics):
    """The means since the last summary: TensorBoard and metrics.jsonl."""
    if not self.chief:
      return
    if not self._writer:
      self._writer = tf.summary.create_file_writer(self.model_dir)
    with self._writer.as_default():
      for name, value in metrics.items():
        tag = _TAGS.get(name, name if '/' in name else f'train/{name}')
        tf.summary.scalar(tag, value, step=step)
    row = {'step': step} | {k: float(v) for k, v in metrics.items()}
    with tf.io.gfile.GFile(self._path('metrics.jsonl'), 'a') as file:
      file.write(json.dumps(row) + '\n')

  def progress(self, step, total, metrics, rate, eta):
    """step, loss, probe accuracy, images/s, time waited for them, ETA.

    One line, rewritten; a plain line a minute where the output is a file. No
    rates and no eta (None) after the first chunk, which compiles.
    """
    line = f'step {step}/{total}  loss {metrics["total_loss"]:.4f}'
    if 'supervised_acc' in metrics:
      line += f'  probe acc {100 * metrics["supervised_acc"]:.1f}%'
    if eta is not None:
      line += f'  {rate:,.0f} images/s'
      if 'input_wait' in metrics:
        line += f'  input {100 * metrics["input_wait"]:.0f}%'
      line += f'  ETA {duration(eta)}'
    done = step >= total
    if self.chief and self._terminal:
      end = '\n' if done else ''
      print('\r\033[K' + line, end=end, file=self.stream, flush=True)
    elif done or time.monotonic() - self._last_line >= 60:
      self._last_line = time.monotonic()
      self.say(line)

  def write_json(self, name, content):
    """Writes a small file, of which readers see the old or the new one."""
    self.write_text(name, json.dumps(content, indent=2, sort_keys=True) + '\n')

  def write_text(self, name, text):
    """The same of any text."""
    if self.chief:
      files.write_atomically(self._path(name), text)

  def _path(self, name):
    return os.path.join(self.model_dir, name)
