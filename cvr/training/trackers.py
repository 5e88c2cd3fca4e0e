"""Weights & Biases and MLflow: further writers of a run's numbers.

The runs of trackers that a folder belongs to stand in its trackers.json: a
resumed run continues them. A tracker that cannot be used when a run begins is
an error. Later failures are warnings and never end a run.
"""

import contextlib
import json
import os
import time

import tensorflow as tf

from cvr.configs import config, derived
from cvr.training import loop

FILE = 'trackers.json'
_MOST_FAILURES = 3  # In a row, then a tracker is left out.
_EXPERIMENT = 'compressive-ssl'


def _first_line(error):
  return str(error).strip().partition('\n')[0][:200] or type(error).__name__


class WandB:
  """A run of Weights & Biases, in a project."""

  title = 'Weights & Biases'
  hint = 'WANDB_MODE=offline needs no server; `wandb sync` sends runs later'

  def __init__(self, project, folder, name, run_id, settings):
    import wandb

    self._run = wandb.init(
      project=project,
      id=run_id,
      resume='allow',
      name=name,
      dir=folder if '://' not in folder else None,
      config=settings,
      settings=wandb.Settings(console='off', silent=True),
    )
    # Steps that a resumed run repeats would be dropped if they were W&B's own.
    self._run.define_metric('*', step_metric='step')
    # It warns of being asked for an address that it has not.
    self.id = self._run.id
    self.place = 'offline' if self._run.offline else self._run.url

  def write(self, step, row):
    self._run.log(row | {'step': step})

  def close(self, status):
    self._run.finish(exit_code=int(status != 'FINISHED'))


class MLflow:
  """A run of MLflow, in the experiment MLFLOW_EXPERIMENT_NAME."""

  title = 'MLflow'
  hint = '--mlflow_uri=sqlite:///mlflow.db needs no server'

  def __init__(self, uri, folder, name, run_id, settings):
    del folder
    # A step waits for it: one that does not answer is given up soon.
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '2')
    os.environ.setdefault('MLFLOW_HTTP_REQUEST_TIMEOUT', '10')
    os.environ.setdefault('MLFLOW_LOGGING_LEVEL', 'WARNING')
    from mlflow import entities, tracking

    self._entities = entities
    self._client = tracking.MlflowClient(uri)
    if run_id:
      self._client.update_run(run_id, status='RUNNING')
    else:
      run_id = self._begun(name, settings)
    self.id, self.place = run_id, uri

  def _begun(self, name, settings):
    experiment = os.environ.get('MLFLOW_EXPERIMENT_NAME', _EXPERIMENT)
    found = self._client.get_experiment_by_name(experiment)
    place = (
      found.experiment_id
      if found
      else self._client.create_experiment(experiment)
    )
    run_id = self._client.create_run(place, run_name=name).info.run_id
    params = [self._entities.Param(k, str(v)) for k, v in settings.items()]
    for i in range(0, len(params), 100):  # The most that it takes at once.
      self._client.log_batch(run_id, params=params[i : i + 100])
    return run_id

  def write(self, step, row):
    now = int(time.time() * 1000)
    self._client.log_batch(
      self.id,
      [self._entities.Metric(k, v, now, step) for k, v in row.items()],
    )

  def close(self, status):
    self._client.set_terminated(self.id, status)


# The setting that names the place -> the tracker.
_TRACKERS = {'wandb_project': WandB, 'mlflow_uri': MLflow}


class Guarded:
  """A writer whose failures are warnings."""

  def __init__(self, writer, say):
    self._writer, self._say, self._failures = writer, say, 0

  def write(self, step, row):
    if self._failures >= _MOST_FAILURES:
      return
    try:
      self._writer.write(step, row)
      self._failures = 0
    except Exception as error:
      self._failures += 1
      line = f'WARNING: {self._writer.title} did not accept step {step} '
      line += f'({_first_line(error)}). metrics.jsonl has it.'
      if self._failures == _MOST_FAILURES:
        line += ' It is not tried again.'
      self._say(line)

  def close(self, status):
    try:
      self._writer.close(status)
    except Exception as error:
      self._say(
        f'WARNING: {self._writer.title} was not closed ({_first_line(error)}).'
      )


def _ids(folder):
  """{flag=place: run} of the tracker runs that a folder belongs to."""
  path = os.path.join(folder, FILE)
  if not tf.io.gfile.exists(path):
    return {}
  try:
    with tf.io.gfile.GFile(path) as file:
      found = json.load(file)
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}


def _begin(cfg, monitor):
  """The trackers that are wanted and answer."""
  folder = os.path.normpath(monitor.model_dir)
  # Evaluations have a run of their own, in a folder of the run's.
  name = '/'.join(folder.split('/')[-1 - derived.reads(cfg) :])
  ids, writers = _ids(monitor.model_dir), []
  for flag, tracker in _TRACKERS.items():
    place = getattr(cfg, flag)
    if not place:
      continue
    key = f'{flag}={place}'
    try:
      writer = tracker(place, folder, name, ids.get(key), config.to_dict(cfg))
    except Exception as error:
      line = f'--{key}: {tracker.title} cannot be used ({_first_line(error)})'
      if key not in ids:
        raise config.ConfigError(f'{line}. {tracker.hint}.') from error
      monitor.say(f'WARNING: {line}. The run resumes without it.')
      continue
    ids[key] = writer.id
    monitor.say(f'{tracker.title}: run {writer.id}, {writer.place}')
    writers.append(Guarded(writer, monitor.say))
  if writers:
    monitor.write_json(FILE, ids)
  return writers


@contextlib.contextmanager
def opened(cfg, monitor):
  """Adds the trackers of --wandb_project and --mlflow_uri to a monitor.

  They are told how the run ends.
  """
  writers = _begin(cfg, monitor) if monitor.chief else []
  monitor.writers += writers
  status = 'FAILED'
  try:
    yield
    status = 'FINISHED'
  except (loop.Stopped, KeyboardInterrupt):
    status = 'KILLED'
    raise
  finally:
    for writer in writers:
      writer.close(status)
