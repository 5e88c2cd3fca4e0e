"""The picture of the wings is that of today's imports."""

import draw_wings


def test_the_picture_is_that_of_the_imports():
  drawn = (draw_wings.ROOT / 'docs' / 'wings.svg').read_text()
  assert drawn == draw_wings.draw(), 'run python scripts/draw_wings.py'


def test_arrows_are_found_and_implied_ones_left_out():
  arrows = draw_wings.find_arrows()
  assert {('run.py', 'training'), ('training', 'methods')} <= arrows
  assert all(a != b for a, b in arrows)
  chain = {('a', 'b'), ('b', 'c'), ('a', 'c'), ('a', 'd')}
  assert draw_wings.direct(chain) == [('a', 'b'), ('a', 'd'), ('b', 'c')]


def test_every_arrow_points_down():
  row = {w: y for y, wings in enumerate(draw_wings.rows()) for w in wings}
  assert all(row[a] < row[b] for a, b in draw_wings.find_arrows())
