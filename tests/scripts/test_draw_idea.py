"""scripts/draw_idea.py: the numbers that it draws."""

import os
import pathlib
import sys

import numpy as np
import tensorflow as tf

SCRIPTS = os.path.join(pathlib.Path(__file__).parents[2], 'scripts')
sys.path.insert(0, SCRIPTS)
draw_idea = __import__('draw_idea')
sys.path.remove(SCRIPTS)


def test_curves_are_above_the_floor_and_later_lines_count(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text(
    '{"step": 1, "eval/images": 3.0}\n'
    '{"step": 20, "information/infonce_bound": 9, "information/residual": 9}\n'
    '{"step": 10, "information/infonce_bound": 1, "information/residual": 7}\n'
    '{"step": 20, "information/infonce_bound": 2, "information/residual": 6}\n'
  )
  steps, nats = draw_idea.curves(tmp_path, floor=5.0)
  assert steps.tolist() == [10, 20]
  assert nats.tolist() == [[1, 2], [2, 1]]


class Unit:
  """An encoder on the circle without noise: a view is an angle."""

  class cfg:
    train_batch_size = 3

  def embed(self, view):
    return {'projection': tf.stack([tf.cos(view), tf.sin(view)], 1)}

  def location(self, projection):
    return projection

  def sample(self, mu, step, salt):
    return mu


def test_cosines_have_the_same_images_on_the_diagonal():
  x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.1, 1.2, 2.3, 3.4])
  found = draw_idea.cosines(Unit(), (tf.constant(x), tf.constant(y)))
  np.testing.assert_allclose(found, np.cos(x[:3, None] - y[None, :3]))
