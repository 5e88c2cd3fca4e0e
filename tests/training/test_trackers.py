"""Trackers get what metrics.jsonl gets, and never end a run.

Without the packages small stand-ins take their place, which know no more than
what is called; with them the real ones write offline.
"""

import collections
import importlib.util
import io
import json
import sys
import types

import pytest

from cvr.configs.config import Config, ConfigError
from cvr.training import loop, trackers
from cvr.training.monitor import Monitor


class FakeRun:
  """What wandb.init returns, as far as it is used."""

  url, offline = 'https://example.org/run', False

  def __init__(self, fake, options):
    self.fake, self.id = fake, options['id'] or f'new{len(fake.begun)}'
    fake.begun.append(options)

  def define_metric(self, names, step_metric):
    self.fake.metrics.append((names, step_metric))

  def log(self, row):
    if self.fake.broken:
      raise ConnectionError('no route\nto the host')
    self.fake.rows.setdefault(self.id, []).append(row)

  def finish(self, exit_code):
    self.fake.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
  """A module wandb, and what was done with it."""
  fake = types.ModuleType('wandb')
  fake.begun, fake.rows, fake.ended, fake.metrics = [], {}, [], []
  fake.broken = fake.unreachable = False

  def init(**options):
    if fake.unreachable:
      raise ConnectionError('no route')
    return FakeRun(fake, options)

  fake.init, fake.Settings = init, dict
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  return fake


class FakeClient:
  """MlflowClient, as far as it is used: a store that it forgets nothing of."""

  def __init__(self, store, uri):
    self.store = store
    store.uris.append(uri)

  def get_experiment_by_name(self, name):
    found = self.store.experiments.get(name)
    return found and types.SimpleNamespace(experiment_id=found)

  def create_experiment(self, name):
    return self.store.experiments.setdefault(name, f'exp{name}')

  def create_run(self, place, run_name):
    run_id = f'run{len(self.store.runs)}'
    self.store.runs[run_id] = {'place': place, 'name': run_name, 'params': {}}
    self.store.rows[run_id] = []
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

  def update_run(self, run_id, status):
    assert run_id in self.store.runs
    self.store.states.append(status)

  def log_batch(self, run_id, metrics=(), params=()):
    assert len(params) <= 100
    self.store.runs[run_id]['params'] |= {p.key: p.value for p in params}
    self.store.rows[run_id] += [(m.key, m.value, m.step) for m in metrics]

  def set_terminated(self, run_id, status):
    self.store.states.append(status)


@pytest.fixture
def mlflow(monkeypatch):
  fake = types.ModuleType('mlflow')
  fake.uris, fake.experiments, fake.runs, fake.rows = [], {}, {}, {}
  fake.states = []
  fake.entities = types.SimpleNamespace(
    Metric=collections.namedtuple('Metric', 'key value timestamp step'),
    Param=collections.namedtuple('Param', 'key value'),
  )
  fake.tracking = types.SimpleNamespace(
    MlflowClient=lambda uri: FakeClient(fake, uri)
  )
  monkeypatch.setitem(sys.modules, 'mlflow', fake)
  monkeypatch.delenv('MLFLOW_EXPERIMENT_NAME', raising=False)
  return fake


def rows_of(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def run(folder, steps, chief=True, error=None, **settings):
  """A run that writes a summary at each of these steps -> what it says."""
  settings = {'wandb_project': 'p'} | settings
  cfg = Config(model_dir=str(folder), mode='train', **settings)
  monitor = Monitor(str(folder), chief, stream=(said := io.StringIO()))
  with trackers.opened(cfg, monitor):
    for step in steps:
      monitor.summary(step, {'total_loss': 1 / step, 'learning_rate': 0.5})
    if error:
      raise error
  return said.getvalue()


def test_wandb_gets_the_rows_of_metrics_jsonl(tmp_path, wandb):
  said = run(tmp_path / 'a run', [10, 20])
  assert 'Weights & Biases: run new0, https://example.org/run' in said
  assert wandb.rows['new0'] == rows_of(tmp_path / 'a run')
  (options,) = wandb.begun
  assert options['name'] == 'a run' and options['project'] == 'p'
  assert options['config']['wandb_project'] == 'p'
  # Steps of a resumed run may come twice.
  assert wandb.metrics == [('*', 'step')]
  assert wandb.ended == [0]


def test_a_resumed_run_goes_on_in_its_own(tmp_path, wandb, mlflow):
  places = {'wandb_project': 'p', 'mlflow_uri': 'sqlite:///x.db'}
  run(tmp_path, [10, 20], **places)
  run(tmp_path, [20, 30], **places)
  assert [options['id'] for options in wandb.begun] == [None, 'new0']
  assert all(options['resume'] == 'allow' for options in wandb.begun)
  assert [row['step'] for row in wandb.rows['new0']] == [10, 20, 20, 30]
  assert mlflow.runs.keys() == {'run0'}
  assert mlflow.states == ['FINISHED', 'RUNNING', 'FINISHED']
  # Another project is another run.
  run(tmp_path, [40], wandb_project='q')
  assert wandb.begun[-1]['id'] is None and 'new2' in wandb.rows


def test_mlflow_gets_the_rows_of_metrics_jsonl(tmp_path, mlflow):
  said = run(tmp_path, [10, 20], wandb_project='', mlflow_uri='file:///x')
  assert 'MLflow: run run0, file:///x' in said
  written = [
    (name, row[name], row['step'])
    for row in rows_of(tmp_path)
    for name in row.keys() - {'step'}
  ]
  assert sorted(mlflow.rows['run0']) == sorted(written) and len(written) == 4
  assert mlflow.runs['run0']['params']['resnet_depth'] == '50'
  assert mlflow.runs['run0']['name'] == tmp_path.name


def test_an_evaluation_has_a_run_of_its_own(tmp_path, wandb):
  folder = tmp_path / 'run' / 'eval'
  cfg = Config(mode='eval', model_dir=str(tmp_path / 'run'), wandb_project='p')
  with trackers.opened(cfg, Monitor(str(folder), stream=io.StringIO())):
    pass
  assert wandb.begun[0]['name'] == 'run/eval'
  assert (folder / 'trackers.json').exists()


def test_only_the_first_process_writes(tmp_path, wandb, mlflow):
  run(tmp_path / 'run', [10], chief=False, mlflow_uri='file:///x')
  assert not wandb.begun and not mlflow.runs
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'error, status',
  [
    (loop.Stopped('at step 3'), 'KILLED'),
    (KeyboardInterrupt(), 'KILLED'),
    (loop.NonFinite('a loss'), 'FAILED'),
  ],
)
def test_how_a_run_ends_is_told(tmp_path, wandb, mlflow, error, status):
  with pytest.raises(type(error)):
    run(tmp_path, [10], error=error, mlflow_uri='file:///x')
  assert mlflow.states == [status] and wandb.ended == [1]


def test_a_tracker_that_fails_later_is_a_warning(tmp_path, wandb):
  wandb.broken = True
  lines = run(tmp_path, range(1, 9)).splitlines()[1:]
  assert len(lines) == 3
  assert lines[0] == (
    'WARNING: Weights & Biases did not accept step 1 (no route). '
    'metrics.jsonl has it.'
  )
  assert lines[2].endswith('It is not tried again.')
  assert len(rows_of(tmp_path)) == 8


def test_one_that_works_again_is_used_again(tmp_path, wandb):
  cfg = Config(model_dir=str(tmp_path), mode='train', wandb_project='p')
  monitor = Monitor(str(tmp_path), stream=io.StringIO())
  with trackers.opened(cfg, monitor):
    for step in range(1, 13):
      wandb.broken = step % 3 != 0  # Never three in a row.
      monitor.summary(step, {'total_loss': 1.0})
  assert [row['step'] for row in wandb.rows['new0']] == [3, 6, 9, 12]


def test_one_that_cannot_be_closed_is_a_warning(tmp_path, wandb, monkeypatch):
  def refuse(self, exit_code):
    raise OSError('too late')

  monkeypatch.setattr(FakeRun, 'finish', refuse)
  assert run(tmp_path, [1]).endswith('was not closed (too late).\n')


def test_one_that_cannot_begin_is_an_error_at_first(tmp_path, wandb):
  """One line with what to do; a run that had it before goes on without it."""
  wandb.unreachable = True
  with pytest.raises(ConfigError) as error:
    run(tmp_path, [1])
  assert str(error.value) == (
    '--wandb_project=p: Weights & Biases cannot be used (no route). '
    'WANDB_MODE=offline needs no server; `wandb sync` sends runs later.'
  )
  wandb.unreachable = False
  run(tmp_path, [1])
  wandb.unreachable = True
  said = run(tmp_path, [2])
  assert 'WARNING: --wandb_project=p' in said and 'without it' in said
  assert [row['step'] for row in rows_of(tmp_path)] == [1, 2]


@pytest.mark.parametrize('content', ['', '[]', '{"a"'])
def test_a_damaged_list_of_runs_begins_new_ones(tmp_path, wandb, content):
  (tmp_path / 'trackers.json').write_text(content)
  run(tmp_path, [1])
  assert wandb.begun[0]['id'] is None


# The packages themselves ------------------------------------------------------


@pytest.mark.skipif(
  not importlib.util.find_spec('wandb'), reason='wandb is not installed'
)
def test_the_real_wandb_writes_offline(tmp_path, monkeypatch):
  monkeypatch.setenv('WANDB_MODE', 'offline')
  run(tmp_path, [10, 20])
  (first,) = json.loads((tmp_path / 'trackers.json').read_text()).values()
  assert run(tmp_path, [20, 30]).count(f'run {first}, offline') == 1
  files = [*tmp_path.glob(f'wandb/offline-run-*-{first}/*.wandb')]
  assert files and all(file.stat().st_size for file in files)


@pytest.mark.skipif(
  not importlib.util.find_spec('mlflow'), reason='mlflow is not installed'
)
def test_the_real_mlflow_writes_into_a_file(tmp_path):
  from mlflow import tracking

  uri = f'sqlite:///{tmp_path}/mlflow.db'
  for steps in ([10, 20], [30]):
    run(tmp_path, steps, wandb_project='', mlflow_uri=uri)
  (run_id,) = json.loads((tmp_path / 'trackers.json').read_text()).values()
  client = tracking.MlflowClient(uri)
  for name in ('train/total_loss', 'learning_rate'):
    history = client.get_metric_history(run_id, name)
    assert [(m.step, m.value) for m in history] == [
      (row['step'], row[name]) for row in rows_of(tmp_path)
    ]
  found = client.get_run(run_id)
  assert found.info.status == 'FINISHED'
  assert found.data.params['pretrain_loss'] == 'contrastive'
