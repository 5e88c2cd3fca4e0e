"""Charts as text: where marks are, what they say, and that text is escaped."""

import html
import json
import re
import xml.dom.minidom

import pytest

from cvr.report import charts, maps

NAN = float('nan')


def points(figure):
  """What the marks of a figure say, as script.js reads it."""
  text = re.search(r'data-points="([^"]*)"', figure)[1]
  return json.loads(html.unescape(text))


def well_formed(figure):
  return xml.dom.minidom.parseString(figure)


@pytest.mark.parametrize(
  'low, high, count, wanted',
  [
    (0, 10, 4, [0, 2.5, 5, 7.5, 10]),
    (0.13, 0.39, 4, [0.2, 0.3]),
    (-3, 3, 3, [-2, 0, 2]),
    (5, 5, 4, [5]),
    (0, 1e9, 4, [0, 2.5e8, 5e8, 7.5e8, 1e9]),
  ],
)
def test_ticks_are_round(low, high, count, wanted):
  assert charts.ticks(low, high, count) == pytest.approx(wanted)


@pytest.mark.parametrize(
  'value, text',
  [(0.12345678, '0.1235'), (1234567.0, '1,234,567'), (2.5e-7, '2.50e-07'),
   (12345.6, '12,345.6'), (NAN, 'not a number'), (3.0, '3')],
)  # fmt: skip
def test_numbers_are_short(value, text):
  assert charts.number(value) == text


def test_a_line_is_where_its_values_are():
  line = charts.Series('run', [0, 50, 100], [1.0, 3.0, 2.0])
  figure = charts.line_chart('Loss', [line], 'step')
  well_formed(figure)
  (said,) = points(figure)
  xs, ys, texts = zip(*said, strict=True)
  assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
  assert ys[0] > ys[2] > ys[1]  # Down is up.
  assert ys[0] - ys[2] == pytest.approx(ys[2] - ys[1], abs=0.2)
  assert texts[1] == '3 at step 50'


def test_what_is_no_number_is_a_gap():
  line = charts.Series('a', [0, 1, 2, 3, 4], [1.0, 2.0, NAN, 1.0, float('inf')])
  figure = charts.line_chart('Loss', [line], 'step')
  path = re.search(r'class="line s0" d="([^"]*)"', figure)[1]
  assert path.count('M') == 2 and 'nan' not in figure.lower()
  # The fourth has no neighbour: it is a dot.
  assert figure.count('class="dot d0"') == 1
  assert [p[1] is None for p in points(figure)[0]] == [0, 0, 1, 0, 1]
  well_formed(charts.line_chart('x', [charts.Series('', [], [])], 'step'))
  well_formed(charts.line_chart('x', [charts.Series('', [1], [NAN])], 'step'))


def test_long_lines_are_thinned_and_keep_their_end():
  line = charts.Series('a', [*range(10_000)], [float(i) for i in range(10_000)])
  (said,) = points(charts.line_chart('x', [line], 'step'))
  assert 100 < len(said) < 400 and said[-1][2] == '9,999 at step 9,999'


def test_texts_are_escaped():
  evil = '</svg><script>alert("1")</script>&\''
  line = charts.Series(evil, [0, 1], [1.0, 2.0])
  figures = [
    charts.line_chart(evil, [line, line], evil, evil),
    charts.scatter(
      evil, [0, 1], [1, 0], [0, 1], 2, [evil] * 2, [(0, 0, 0)] * 2
    ),
    charts.intervals(evil, [(evil, 0.5, 0.4, 0.6)], evil, [(evil, 0.2)]),
    charts.histograms(evil, [(evil, [1, 2])], [0, 1, 2], evil),
    charts.plane(evil, [(evil, [0, 1], [1, 2], [1, 2])] * 2, evil, evil),
    maps.matrix(evil, [[1, 2], [3, 4]], [evil, 'b']),
    charts.legend([evil, 'b']),
  ]
  for figure in figures:
    assert '<script' not in figure
    well_formed(figure)


def test_shares_of_a_histogram_are_of_its_own_group():
  figure = charts.histograms(
    'x', [('a', [1, 3]), ('b', [0, 0])], [0, 1, 2], 'c'
  )
  a, b = points(figure)
  assert [p[2].split(' ')[1] for p in a] == ['25.0%', '75.0%']
  assert [p[2].split(' ')[1] for p in b] == ['0.0%', '0.0%']


def test_a_matrix_says_what_is_taken_for_what():
  figure = maps.matrix('x', [[3, 1], [0, 0]], ['cat', 'dog'])
  texts = [p[2] for p in points(figure)[0]]
  assert texts[:2] == ['cat, found: 3 of 4 (75%)',
                       'cat, taken for dog: 1 of 4 (25%)']  # fmt: skip
  # What never happens has no cell.
  assert figure.count('class="cell') == 2


def test_classes_differ_by_more_than_colour():
  styles = {charts.class_style(k, 36) for k in range(36)}
  assert len(styles) == 36
  assert charts.class_style(3, 1000) == charts.class_style(-1, 5)


def test_logarithmic_charts_leave_out_what_has_no_logarithm():
  line = charts.Series('a', [1, 2, 3], [10.0, 0.0, 0.1])
  figure = charts.line_chart('x', [line], 'step', log=True)
  assert [p[1] is None for p in points(figure)[0]] == [0, 1, 0]


def test_values_below_a_floor_are_drawn_where_they_are():
  """A bound may be negative, although what it bounds is not."""
  line = charts.Series('a', [1, 2, 3], [-2.0, -1.0, 0.5])
  (said,) = points(charts.line_chart('x', [line], 'step', floor=0.0))
  ys = [p[1] for p in said]
  assert ys[0] - ys[1] == pytest.approx((ys[1] - ys[2]) / 1.5, abs=0.2)
  above = charts.Series('a', [1, 2], [0.01, 1.0])
  (said,) = points(charts.line_chart('x', [above], 'step', floor=0.0))
  bottom = charts.HEIGHT - charts._BOTTOM
  assert 0 < bottom - said[0][1] < 5
