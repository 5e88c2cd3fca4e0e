"""What methods share: resolutions, state, epochs, layers that are held."""

import numpy as np
import pytest
import tensorflow as tf

from cvr import methods
from cvr.checkpoints import files, pretrained
from cvr.configs import config
from cvr.data import sources
from cvr.methods import contrastive, skeletons
from cvr.numerics import schedules
from cvr.training import monitor, train
from cvr.training.step import make_state, make_train_step
from small_data import plan_of
from tiny_methods import BATCH, Traced, assert_same, make_batch, tiny
from toy_method import SLOTS, Toy

pytestmark = pytest.mark.usefixtures('tiny_encoder')


@pytest.fixture
def toy(monkeypatch):
  """--pretrain_loss=contrastive is the Toy."""
  monkeypatch.setitem(methods.METHODS, 'contrastive', Toy)


# Views of two resolutions.


def test_one_call_per_resolution_and_its_outputs_by_view():
  rng = np.random.default_rng(0)
  sizes = [12, 12, 6, 6, 6]
  views = [
    tf.constant(rng.random((2, size, size, 3)), tf.float32) for size in sizes
  ]
  calls = []

  def embed(x):
    calls.append(x.shape.as_list())
    return {'mean': tf.reduce_mean(x, [1, 2]), 'layers': [x[:, 0, 0], x + 1]}

  found = skeletons.by_resolution(embed, views)
  assert calls == [[4, 12, 12, 3], [6, 6, 6, 3]]
  assert len(found) == 5
  for view, output in zip(views, found, strict=True):
    alone = embed(view)
    assert output.keys() == alone.keys()
    tf.nest.map_structure(np.testing.assert_array_equal, output, alone)


# State, epochs, a first pass.


def trained(folder, model_dir, strategy):
  """A run of 5 steps, which ends -> its State."""
  cfg = tiny(
    dataset=f'folder:{folder}', model_dir=str(model_dir), mode='train',
    image_size=16, no_augmentation=True, use_blur=False, warmup_epochs=0.0,
    train_batch_size=10, train_steps=5, train_summary_steps=0,
  )  # fmt: skip
  info = train.describe(cfg)
  record = {'config': config.to_dict(cfg)}
  return train.train(
    cfg, strategy, info, record, monitor.Monitor(str(model_dir), True)
  )[0]


def test_two_replicas_keep_what_one_keeps(
  toy, glance, images, tmp_path, two_replicas
):
  """A whole run: the pass over the data, epochs, queue, centre, memory."""
  one = trained(images, tmp_path / 'one', tf.distribute.get_strategy()).method
  two = trained(images, tmp_path / 'two', two_replicas).method
  # 24 examples by tens: epochs begin at steps 0 and 3, and a pass takes 30.
  np.testing.assert_array_equal(two.counts, [30, 2])
  assert two.pointer.numpy() == 50 % SLOTS
  norms = np.linalg.norm(two.memory.numpy(), axis=-1)
  np.testing.assert_allclose(norms, np.ones(24), rtol=1e-5)
  for a, b in zip(one.variables, two.variables, strict=True):
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-4, atol=2e-4)
  kept = (two.queue, two.pointer, two.centre, two.memory, two.anchor)
  for variable in kept:
    first, second = variable.values
    np.testing.assert_array_equal(first, second)
    assert np.abs(first.numpy()).max() > 0
  # Restored on one replica: all that two had.
  method = methods.make_method(plan_of(tiny(image_size=16), 5, 0, examples=24))
  path = files.prefix(str(tmp_path / 'two'), 5)
  pretrained.load(path, [], method)
  for a, b in zip(method.variables, two.variables, strict=True):
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_step_with_state_compiles_and_is_the_same(toy, glance):
  batch = make_batch(np.random.default_rng(1))
  traced = Traced(tiny())
  plain = traced.after(batch, steps=2)
  assert_same(plain, traced.after(batch, steps=2, compiled=True), 2e-4)


@pytest.mark.usefixtures('two_replicas')
def test_who_does_nothing_when_an_epoch_begins_is_not_asked(folder):
  strategy = tf.distribute.get_strategy()
  for name, kind in methods.METHODS.items():
    begin = train._on_epoch(strategy, kind(plan_of(tiny(name))))
    assert (begin is None) == (name != 'deepcluster')
  toy = Toy(plan_of(tiny(), examples=22))
  train._on_epoch(strategy, toy)(7)
  np.testing.assert_array_equal(toy.anchor, np.full(8, 7.0))


def test_a_pass_over_the_data_moves_nothing_else(toy, folder, monkeypatch):
  cfg = tiny(
    dataset=f'folder:{folder}', image_size=16, no_augmentation=True,
    use_blur=False, grad_cache_chunk=4,
  )  # fmt: skip
  info = sources.describe(cfg.dataset, '', 'train')
  method = methods.make_method(plan_of(cfg, 1, 0, examples=info.num_examples))
  before = {v.ref(): v.numpy() for v in method.variables}
  seen = []
  monkeypatch.setattr(
    method, 'observe', lambda found: seen.append(found) or Toy.observe(
      method, found
    )
  )  # fmt: skip
  train.first_pass(tf.distribute.get_strategy(), info, method)
  # Traced once, a whole batch joined from its chunks.
  (found,) = seen
  assert found['index'].shape == (BATCH,)
  assert found['projection'][0].shape == (BATCH, 8)
  assert np.abs(method.memory.numpy()).sum(-1).min() > 0
  moved = {method.memory.ref(), method.counts.ref()}
  for v in method.variables:
    same = np.array_equal(v.numpy(), before[v.ref()])
    assert same != (v.ref() in moved), v.name


# Layers that are held still.


class Late(contrastive.SimCLR):
  """SimCLR whose projector stays as it is for two steps."""

  def held(self, step):
    return [(self.projector, step < 2)]


@pytest.mark.parametrize(
  'count, settings',
  [
    (1, {'optimizer': 'lars'}),
    (1, {'optimizer': 'lars', 'lars_classic': False, 'lars_nesterov': True}),
    (1, {'optimizer': 'momentum'}),
    (1, {'optimizer': 'adam'}),
    (1, {'optimizer': 'adamw'}),
    (2, {'optimizer': 'lars'}),
    (2, {'optimizer': 'adamw'}),
  ],
)
def test_what_is_held_keeps_its_bits_and_then_begins_anew(
  monkeypatch, glance, two_replicas, count, settings
):
  """Weight decay and momentum would move it without a gradient."""
  monkeypatch.setitem(methods.METHODS, 'contrastive', Late)
  strategy = two_replicas if count == 2 else tf.distribute.get_strategy()
  cfg = tiny(weight_decay=0.1, clip_norm=1e3, **settings)
  with strategy.scope():
    state = make_state(plan_of(cfg, 100))
    schedule = schedules.warmup_cosine(0.1, 0, 100)
    step = make_train_step(state, schedule)
  batch = make_batch(np.random.default_rng(3), BATCH // count)

  @tf.function(autograph=False)
  def run_step():
    strategy.run(step, args=(batch,))

  method, projector = state.method, state.method.projector
  shapes = {v.shape for v in projector.trainable_variables if v.shape.rank > 1}
  slots = [v for v in state.optimizer.variables() if v.shape in shapes]
  assert len(slots) >= 2
  adaptive = settings['optimizer'].startswith('adam')

  def values(variables):
    return [v.numpy() for v in variables]

  held = values(projector.trainable_variables)
  others = method.encoder.trainable_variables
  rest = values(others)
  for _ in range(2):
    run_step()
  for v, old in zip(projector.trainable_variables, held, strict=True):
    np.testing.assert_array_equal(v.numpy(), old)
  assert not any(
    np.array_equal(a, b)
    for a, b in zip(
      values(method.encoder.trainable_variables), rest, strict=True
    )
  )
  # Adam's moments go on, momentum does not begin.
  assert all(np.any(v) == adaptive for v in values(slots))
  run_step()
  for v, old in zip(projector.trainable_variables, held, strict=True):
    assert not np.array_equal(v.numpy(), old)
