"""What a run tells people: a progress line, metrics.jsonl, TensorBoard."""

import json
import os
from typing import Protocol

import tensorflow as tf

from cvr.checkpoints import files
from cvr.training import progress


def tag(name):
  """The name of a metric for readers: its published tag, where it has one."""
  return name if '/' in name or name == 'learning_rate' else f'train/{name}'


def _digits(number):
  """A number of epochs with the digits that change: 0.023, 7.8, 300."""
  if number < 10:
    return f'{number:.2g}'
  return f'{number:.1f}'.removesuffix('.0')


class Writer(Protocol):
  """Takes the numbers of a summary, {tag: value}, to where they are read."""

  def write(self, step: int, row: dict): ...


class Lines:
  """metrics.jsonl: a line for each summary."""

  def __init__(self, folder):
    self._path = os.path.join(folder, 'metrics.jsonl')

  def write(self, step, row):
    with tf.io.gfile.GFile(self._path, 'a') as file:
      file.write(json.dumps({'step': step} | row) + '\n')


def as_table(settings):
  """{flag: value} -> a table of Markdown, as TensorBoard shows it."""
  rows = [f'| {name} | `{value}` |' for name, value in settings.items()]
  return '\n'.join(['| setting | value |', '| --- | --- |', *rows])


class TensorBoard:
  """Its event files, of which there is none before the first summary.

  With the settings of the run as text, where its config.json is.
  """

  def __init__(self, folder):
    self._folder, self._writer = folder, None

  def _opened(self, step):
    if not self._writer:
      self._writer = tf.summary.create_file_writer(self._folder)
      path = os.path.join(self._folder, 'config.json')
      if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file, self._writer.as_default():
          settings = json.load(file)['config']
          tf.summary.text('settings', as_table(settings), step=step)
    return self._writer.as_default()

  def write(self, step, row):
    with self._opened(step):
      for name, value in row.items():
        tf.summary.scalar(name, value, step=step)

  def show(self, step, images, histograms):
    """images: {tag: [n, H, W, C] in [0, 1]}; histograms: {tag: values}."""
    with self._opened(step):
      for name, batch in images.items():
        tf.summary.image(name, batch, step=step, max_outputs=len(batch))
      for name, values in histograms.items():
        tf.summary.histogram(name, values, step=step)


class Monitor:
  """Writes and shows metrics; does nothing on workers that are not chief.

  writers: of summaries; more may be added.
  """

  def __init__(self, model_dir, chief=True, stream=None, title=''):
    self.chief = chief
    self.model_dir = model_dir
    self._line, self._title = progress.Line(stream), title
    self.writers: list[Writer] = [TensorBoard(model_dir), Lines(model_dir)]
    if chief:
      tf.io.gfile.makedirs(model_dir)

  def say(self, text):
    """A line of its own, ended even where a progress line stands."""
    if self.chief:
      self._line.say(text)

  def summary(self, step, metrics):
    """The means since the last summary, to all writers."""
    if self.chief:
      row = {tag(name): float(value) for name, value in metrics.items()}
      for writer in self.writers:
        writer.write(step, row)

  def show(self, step, images=None, histograms=None):
    """Pictures, to the writers that can show them."""
    if self.chief:
      for writer in self.writers:
        if hasattr(writer, 'show'):
          writer.show(step, images or {}, histograms or {})

  def progress(self, step, total, metrics, rate=None, eta=None, epochs=None):
    """Step, epoch, loss, probe accuracy, images/s, time waited for them, the
    memory of a GPU, ETA.

    rate: images a second; eta: seconds. epochs: how many are done, how many
    there will be.
    """
    if not self.chief:
      return
    # By the order in which they matter where there is not room for all.
    parts = [(0, f'step {step:,}/{total:,}')]
    if epochs:
      parts.append((5, f'epoch {"/".join(map(_digits, epochs))}'))
    parts.append((2, f'loss {metrics["total_loss"]:.4f}'))
    if 'supervised_acc' in metrics:
      parts.append((3, f'probe {100 * metrics["supervised_acc"]:.1f}%'))
    if rate is not None:
      parts.append((4, f'{rate:,.0f} img/s'))
    if 'input_wait' in metrics:
      parts.append((6, f'input {100 * metrics["input_wait"]:.0f}%'))
    if 'gpu_memory' in metrics:
      parts.append((7, f'GPU {metrics["gpu_memory"]:.1f} GiB'))
    if eta is not None:
      parts.append((1, f'ETA {progress.duration(eta)}'))
    self._line.show(parts, self._title, last=step >= total)

  def write_json(self, name, content):
    """Writes a small file, of which readers see the old or the new one."""
    self.write_text(name, json.dumps(content, indent=2, sort_keys=True) + '\n')

  def write_text(self, name, text):
    """The same of any text."""
    if self.chief:
      files.write_atomically(self._path(name), text)

  def _path(self, name):
    return os.path.join(self.model_dir, name)
