"""Draws the wings of the code, and who imports whom: docs/wings.svg.

python scripts/draw_wings.py

Wings and arrows are read from the imports, the rows from the import contract in
pyproject.toml. An arrow that others imply (a -> b -> c) is left out. A test
fails while the picture in docs/ is an old one.
"""

import ast
import html
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
FRONT = ('resnet', 'model', 'objectives', 'data_util', 'lars_optimizer')
WIDTH, HEIGHT, GAP_X, GAP_Y = 292, 74, 24, 46
_STYLE = """text{font:13px sans-serif;fill:#1d2733}.name{font-weight:600;
font-size:15px}rect{fill:#f3f6fa;
stroke:#9fb3c8;rx:8}path{fill:none;stroke:#7b8ea3;stroke-width:1.4;
marker-end:url(#tip)}"""


def wing_of(module):
  """A dotted name -> its wing; None for what is not of the project."""
  first, _, rest = module.partition('.')
  if first in FRONT:
    return 'front'
  if first == 'run':
    return 'run.py'
  return rest.partition('.')[0] or None if first == 'cvr' else None


def modules():
  """{dotted name: path} of the product."""
  paths = [*ROOT.glob('*.py'), *ROOT.glob('cvr/*/**/*.py')]
  return {
    '.'.join(p.relative_to(ROOT).with_suffix('').parts): p
    for p in sorted(paths)
    if p.stem != 'setup'
  }


def imported(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
      # `from cvr import methods` names the wing itself.
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def find_arrows():
  """-> {(importing wing, imported wing)}."""
  arrows, wings = set(), {wing for row in rows() for wing in row}
  for name, path in modules().items():
    wing = wing_of(name)
    others = set(map(wing_of, imported(ast.parse(path.read_text()))))
    arrows |= {(wing, other) for other in others & wings - {wing}}
  return {(a, b) for a, b in arrows if a in wings}


def rows():
  """The wings from top to bottom, as the contract has them; with the front."""
  text = (ROOT / 'pyproject.toml').read_text()
  layers = ast.literal_eval(re.search(r'layers = (\[.*?\])', text, re.S)[1])
  wings = [re.findall(r'cvr\.(\w+)', layer) for layer in layers]
  # The front imports numerics alone: beside it no arrow crosses a box.
  beside = [w for w in wings[-1] if w not in ('numerics', 'startup')]
  return [['run.py'], *wings[:-1], ['front', *beside], ['numerics']]


def direct(arrows):
  """The arrows that no path of others implies."""
  targets = {}
  for a, b in arrows:
    targets.setdefault(a, set()).add(b)

  def reached(a, skip):
    found, left = set(), [b for b in targets.get(a, ()) if b != skip]
    while left:
      b = left.pop()
      if b not in found:
        found.add(b)
        left += targets.get(b, ())
    return found

  return sorted((a, b) for a, b in arrows if b not in reached(a, b))


def question(wing):
  """What a wing is for: the first line of its docstring."""
  if wing == 'front':
    return ', '.join(f'{name}.py' for name in FRONT)
  if wing == 'run.py':
    return 'flags, one dispatch over modes, exit status'
  path = ROOT / 'cvr' / wing / '__init__.py'
  return ast.get_docstring(ast.parse(path.read_text())).partition('\n')[0]


def _wrapped(text, width=37):
  lines = ['']
  for word in text.split():
    if len(lines[-1]) + len(word) > width:
      lines.append('')
    lines[-1] = f'{lines[-1]} {word}'.strip()
  return lines[:2]


def _passed(row):
  """Whether an arrow leads past a row, from above it to below it."""
  order = [wing for row in rows() for wing in row]
  top, bottom = order.index(row[0]), order.index(row[-1])
  return any(
    order.index(a) < top and order.index(b) > bottom
    for a, b in direct(find_arrows())
  )


def places():
  """{wing: the middle of its box}."""
  widest = max(map(len, rows()))
  total = widest * WIDTH + (widest + 1) * GAP_X
  found = {}
  for y, row in enumerate(rows()):
    # A box alone would hide an arrow that leads past it: it makes room.
    count = len(row) + (len(row) == 1 and _passed(row))
    left = (total - count * WIDTH - (count - 1) * GAP_X) / 2
    for x, wing in enumerate(row):
      centre = left + x * (WIDTH + GAP_X) + WIDTH / 2
      found[wing] = centre, GAP_X + y * (HEIGHT + GAP_Y) + HEIGHT / 2
  return found, total, 2 * GAP_X + len(rows()) * (HEIGHT + GAP_Y) - GAP_Y


def _box(wing, place):
  x, y = place[0] - WIDTH / 2, place[1] - HEIGHT / 2
  name = wing if wing in ('front', 'run.py') else f'cvr/{wing}'
  yield f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}"/>'
  yield f'<text class="name" x="{x + 12:g}" y="{y + 22:g}">{name}</text>'
  for i, line in enumerate(_wrapped(question(wing))):
    at = f'x="{x + 12:g}" y="{y + 43 + 17 * i:g}"'
    yield f'<text {at}>{html.escape(line)}</text>'


def _arrow(start, end):
  (x1, y1), (x2, y2) = start, end
  y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2 - 5
  # Arrows that start or end at one box do not meet in one point.
  shift = max(-WIDTH / 3, min(WIDTH / 3, (x2 - x1) / 4))
  x1, x2, middle = x1 + shift, x2 - shift, (y1 + y2) / 2
  return (
    f'<path d="M{x1:g} {y1:g}C{x1:g} {middle:g} {x2:g} {middle:g} '
    f'{x2:g} {y2:g}"/>'
  )


def draw():
  """-> the picture, as text."""
  centres, width, height = places()
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" '
    f'height="{height:g}" viewBox="0 0 {width:g} {height:g}">',
    f'<style>{_STYLE}</style>',
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="5" refY="4" '
    'markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" style="fill:#7b8ea3;stroke:none;'
    'marker-end:none"/></marker></defs>',
    '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>',
  ]
  lines += [_arrow(centres[a], centres[b]) for a, b in direct(find_arrows())]
  for wing, centre in centres.items():
    lines += _box(wing, centre)
  return '\n'.join([*lines, '</svg>']) + '\n'


def main():
  path = ROOT / 'docs' / 'wings.svg'
  path.write_text(draw())
  print(f'Written: {path.relative_to(ROOT)}')


if __name__ == '__main__':
  main()
