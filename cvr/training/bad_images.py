"""Which images of a run are bad, by name: bad_images.txt and a line an epoch.

The input pipeline of a host notes them in a table on that host: nothing of it
is in the step. They are noted when they are read, a few steps before they are
trained on. An image that cannot be decoded is replaced by another one; one that
is smaller than the crop is enlarged.
"""

import os

import numpy as np
import tensorflow as tf

from cvr.configs.settings import show
from cvr.data import decoding, sources

FILE = 'bad_images.txt'
_NAMED = 5  # In a line.
_UNDECODED, _SMALL = 1, 2  # In a table.
_DIGITS, _BASE = 3, 2**20  # Of an index that goes from host to host.


def _sum_over_hosts(host_means, hosts, numbers):
  """Whole numbers below 2^20 of each host -> their sums: float32 is enough."""
  means = np.asarray(host_means(numbers.ravel().tolist()))
  return np.rint(means * hosts).astype(np.int64).reshape(numbers.shape)


class BadImages:
  """The bad images of a training split, as far as they were read.

  crop: the side of a view. resumed: whether the file of the run counts on.
  """

  def __init__(self, info, crop, monitor, host_means=list, resumed=False):
    self.info, self.crop, self.monitor = info, crop, monitor
    self._host_means = host_means
    self._reason_of = {
      _UNDECODED: decoding.cannot(info.channels),
      _SMALL: 'smaller than the crop',
    }
    self._tables, self._host, self._hosts = [], 0, 1
    self._by_index = {}
    self._reasons = self._read() if resumed else {}

  def note_of(self, context):
    """-> the `note` of batches.train_batches, for an InputContext."""
    with tf.device('CPU:0'):
      table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int32, 0)
    self._tables.append(table)
    self._host = context.input_pipeline_id
    self._hosts = context.num_input_pipelines

    def note(batch):
      batch = dict(batch)
      small = tf.where(batch.pop('side') < self.crop, _SMALL, 0)
      kind = tf.where(batch['bad'] > 0, _UNDECODED, small)
      places = tf.where(kind > 0)[:, 0]
      table.insert(tf.gather(batch['index'], places), tf.gather(kind, places))
      return batch

    return note

  def after_epoch(self, over):
    """Says how many there are and writes their names.

    All workers call it. over: how many epochs are over; None: the run is.
    """
    rows = [[x.numpy() for x in table.export()] for table in self._tables]
    own = np.concatenate([np.stack(row, 1) for row in rows]).astype(np.int64)
    new = {
      index: kind
      for index, kind in self._gathered(own).tolist()
      if index not in self._by_index
    }
    self._by_index |= new
    for index, kind in sorted(new.items()):
      name = show(sources.example_id(self.info, index))
      self._reasons[name] = self._reason_of[kind]
    if new:
      lines = [f'{why}\t{name}\n' for name, why in self._reasons.items()]
      self.monitor.write_text(FILE, ''.join(sorted(lines)))
    if self._reasons:
      when = 'End of the run' if over is None else f'End of epoch {over}'
      self.monitor.say(f'{when}: {self._line()}')

  def _line(self):
    parts = []
    for kind, effect in (
      (_UNDECODED, 'replaced by another image'),
      (_SMALL, f'of {self.crop} px: enlarged'),
    ):
      reason = self._reason_of[kind]
      names = [n for n, why in self._reasons.items() if why == reason]
      if names:
        some = ', '.join(names[:_NAMED]) + (', ...' if names[_NAMED:] else '')
        parts.append(f'{len(names):,} {reason} ({effect}): {some}')
    return (
      f'of {self.info.num_examples:,} images {"; ".join(parts)}. '
      f'All of them: {FILE}'
    )

  def _gathered(self, own):
    """Rows (index, kind) [n, 2] of this process -> those of all processes."""
    if len(self._tables) == self._hosts:
      return own
    counts = np.zeros(self._hosts)
    counts[self._host] = len(own)
    counts = _sum_over_hosts(self._host_means, self._hosts, counts)
    if not counts.sum():
      return own
    first = counts[: self._host].sum()
    digits = np.zeros([counts.sum(), _DIGITS + 1])
    for digit in range(_DIGITS):
      digits[first : first + len(own), digit] = (
        own[:, 0] // _BASE**digit % _BASE
      )
    digits[first : first + len(own), -1] = own[:, 1]
    digits = _sum_over_hosts(self._host_means, self._hosts, digits)
    indices = digits[:, :-1] @ _BASE ** np.arange(_DIGITS)
    return np.stack([indices, digits[:, -1]], 1)

  def _read(self):
    """{name: reason} of the file that an earlier part of the run has left."""
    path = os.path.join(self.monitor.model_dir, FILE)
    if not tf.io.gfile.exists(path):
      return {}
    with tf.io.gfile.GFile(path, 'rb') as file:
      lines = file.read().decode(errors='replace').splitlines()
    rows = [line.partition('\t')[::2] for line in lines]
    return {n: why for why, n in rows if why in self._reason_of.values()}
