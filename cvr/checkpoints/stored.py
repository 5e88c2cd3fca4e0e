"""The settings of a model that lies on disk, for the command line.

TensorFlow is imported only for a bucket, or where a checkpoint's tensors have
to be read: a local folder with a config.json answers at once.
"""

import json
import os

from cvr.configs import config, places
from cvr.configs.command_line import Stored
from cvr.configs.settings import of_older_code
from cvr.startup import quiet_start


def _file_system(path):
  """tf.io.gfile for buckets; os.path for local paths."""
  if '://' not in path:
    return os.path
  quiet_start()
  import tensorflow as tf

  return tf.io.gfile


def exists(path):
  """Whether there is a file or a folder."""
  return _file_system(path).exists(path)


def read_json(path):
  """The content of a JSON file; ValueError, if it is none."""
  if why := places.endless(path):
    raise ValueError(f'it is {why}')
  if '://' not in path:
    with open(path, 'rb') as file:
      return parsed(file.read())
  import tensorflow as tf

  with tf.io.gfile.GFile(path, 'rb') as file:
    return parsed(file.read())


def parsed(text):
  """JSON -> its value; ValueError, if it is none."""
  try:
    return json.loads(text)
  except RecursionError as error:
    raise ValueError('its brackets are nested too deeply') from error


def _listed(folder):
  if '://' not in folder:
    return os.listdir(folder)
  from cvr.checkpoints import files

  return files.listed(folder)


def read_stored(path):
  """What a run's folder or a checkpoint says of its model: Stored, or None."""
  if not exists(path) and not exists(f'{path}.index'):
    return None
  is_folder = _file_system(path).isdir(path)
  folder = path if is_folder else os.path.dirname(path)
  record = os.path.join(folder, 'config.json')
  if not path.endswith(('.tar', '.gz', '.tgz')) and exists(record):
    settings = config.stored_settings(record, read_json)
    older = of_older_code(read_json(record)['config'])
    return Stored(settings, (settings['pretrain_loss'],), older=older)
  # No run of ours: the settings follow from the tensors of a checkpoint.
  if is_folder and not any(n.endswith('.index') for n in _listed(path)):
    return None
  quiet_start()
  from cvr.checkpoints import files, pretrained

  try:
    checkpoint = pretrained.identify(path)
  except files.CheckpointError as error:
    raise config.ConfigError(str(error)) from error
  return Stored(checkpoint.settings, checkpoint.methods, checkpoint.released)
