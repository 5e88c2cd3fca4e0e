"""Which images of a run are bad, by name: bad_images.txt and a line an epoch.

The input pipeline of a host notes them in a table on that host: nothing of it
is in the step. They are noted when they are read, a few steps before they are
trained on. An image that cannot be read or decoded is replaced by another one,
and too many of these end the run; one that is smaller than the crop is
enlarged.
"""

import contextlib
import math
import os

import numpy as np
import tensorflow as tf

from cvr.configs.settings import show
from cvr.data import decoding, reading, sources

FILE = 'bad_images.txt'
_NAMED = 5  # In a line.
_UNDECODED, _SMALL, _UNREAD = 1, 2, 3  # The last is not in a table.
_TOO_MANY = 'Too many bad images'
_DIGITS, _BASE = 3, 2**20  # Of an index that goes from host to host.


def _sum_over_hosts(host_means, hosts, numbers):
  """Whole numbers below 2^20 of each host -> their sums: float32 is enough."""
  means = np.asarray(host_means(numbers.ravel().tolist()))
  return np.rint(means * hosts).astype(np.int64).reshape(numbers.shape)


class BadImages:
  """The bad images of a training split, as far as they were read.

  crop: the side of a view. resumed: whether the file of the run counts on.
  most: the share of the images that may be replaced.
  """

  def __init__(
    self, info, crop, monitor, host_means=list, resumed=False, most=1.0
  ):
    self.info, self.crop, self.monitor = info, crop, monitor
    self._host_means = host_means
    # Rounded up, so that one image of a small set is none too many.
    self._most, self._limit = most, math.ceil(most * info.num_examples - 1e-6)
    self._reason_of = {
      _UNREAD: 'cannot be read',
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
      noted = table.insert(
        tf.gather(batch['index'], places), tf.gather(kind, places)
      )
      with tf.control_dependencies([noted]):
        # Seldom, because the whole table is looked at.
        looked = tf.cond(tf.reduce_any(batch['bad'] > 0), limited, tf.no_op)
      with tf.control_dependencies([looked]):
        return tf.nest.map_structure(tf.identity, batch)

    def limited():
      replaced = tf.equal(table.export()[1], _UNDECODED)
      count = tf.math.count_nonzero(replaced, dtype=tf.int32)
      return tf.raw_ops.Assert(condition=count <= self._limit, data=[_TOO_MANY])

    return note

  @contextlib.contextmanager
  def ends_the_run(self):
    """Names the images, if these are so many that the input has stopped."""
    try:
      yield
    except tf.errors.InvalidArgumentError as error:
      if _TOO_MANY not in str(error):
        raise
      self._note(self._own())
      replaced = self._line(_UNREAD, _UNDECODED)
      raise sources.DataError(
        f'--dataset={self.info.name}: {replaced}. More than '
        f'--max_bad_images={self._most:g} cannot be used: put good copies '
        'there, or raise it; then the same command resumes from the last '
        'checkpoint.'
      ) from error

  def after_epoch(self, over):
    """Says how many there are and writes their names.

    All workers call it. over: how many epochs are over; None: the run is.
    """
    self._note(self._gathered(self._own()))
    if self._reasons:
      when = 'End of the run' if over is None else f'End of epoch {over}'
      self.monitor.say(f'{when}: {self._line()}')

  def _own(self):
    """Rows (index, kind) [n, 2] of this process."""
    rows = [[x.numpy() for x in table.export()] for table in self._tables]
    return np.concatenate([np.stack(row, 1) for row in rows]).astype(np.int64)

  def _note(self, rows):
    """Writes the names of those that were not known."""
    new = {
      index: kind
      for index, kind in rows.tolist()
      if index not in self._by_index
    }
    self._by_index |= new
    for index, kind in sorted(new.items()):
      name = show(sources.example_id(self.info, index))
      self._reasons[name] = self._reason_of[self._kind(index, kind)]
    if new:
      lines = [f'{why}\t{name}\n' for name, why in self._reasons.items()]
      self.monitor.write_text(FILE, ''.join(sorted(lines)))

  def _kind(self, index, kind):
    """What a table holds, and whether the file can be read at all."""
    with contextlib.suppress(OSError):
      if kind == _UNDECODED and reading.why_not(self.info, index):
        return _UNREAD
    return kind

  def _line(self, *kinds):
    """Counts and names, of some kinds or of all."""
    parts = []
    for kind, effect in (
      (_UNREAD, 'replaced by another image'),
      (_UNDECODED, 'replaced by another image'),
      (_SMALL, f'of {self.crop} px: enlarged'),
    ):
      reason = self._reason_of[kind]
      names = [n for n, why in self._reasons.items() if why == reason]
      if names and (not kinds or kind in kinds):
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
