"""Small TFRecord shards, and batches of them."""

import numpy as np
import tensorflow as tf

from cvr.data import batches
from cvr.data.batches import HostBatch
from cvr.data.sources import DatasetInfo, Shard
from cvr.numerics import randomness
from small_data import CLASSES, encoded


def make_records(path, values):
  with tf.io.TFRecordWriter(path) as writer:
    for value in values:
      feature = {
        'image': tf.train.Feature(
          bytes_list=tf.train.BytesList(value=[encoded(value)])
        ),
        'label': tf.train.Feature(
          int64_list=tf.train.Int64List(value=[value % 3])
        ),
      }
      features = tf.train.Features(feature=feature)
      example = tf.train.Example(features=features)
      writer.write(example.SerializeToString())


def parse_record(record):
  example = tf.io.parse_single_example(
    record,
    {
      'image': tf.io.FixedLenFeature([], tf.string),
      'label': tf.io.FixedLenFeature([], tf.int64),
    },
  )
  return example['image'], example['label']


def make_shards(root):
  """23 records in 4 files, pixel value = index; the first is a slice."""
  shards, first = [], 0
  for k, count in enumerate((7, 6, 5, 5)):
    path = str(root / f'part{k}.tfrecord')
    values = list(range(first, first + count))
    make_records(path, ([200, 201] if k == 0 else []) + values)
    shards.append(Shard(path, 2 if k == 0 else 0, count, first))
    first += count
  return DatasetInfo(
    'records', 'train', first, CLASSES, shards=tuple(shards), parse=parse_record
  )


def augment(image, seed):
  """Two views: the pixel's value, which identifies the image, plus noise."""
  value = tf.cast(image[1, 1], tf.float32)[None, None]
  noise = [randomness.uniform([], s) for s in randomness.split_seed(seed, 2)]
  return {'views': tuple(tf.tile(value + n, [2, 2, 1]) for n in noise)}


ROWS = HostBatch(8, 8)
SMALL = dict(seed=5, shuffle_buffer=6)


def make(info, rows=ROWS, **settings):
  return batches.train_batches(info, augment, rows, **{**SMALL, **settings})


def take(info, count, rows=ROWS, **settings):
  dataset = make(info, rows, **settings)
  return list(dataset.take(count).as_numpy_iterator())


def indices(dataset):
  return np.concatenate([batch['index'] for batch in dataset])
