"""Plain data of runs -> a page of HTML that needs nothing else.

What stands in files may come from anybody: every text is escaped where it goes
into the page, and the page may load nothing from elsewhere.
"""

import importlib.resources
import os

from cvr.report import card_section, charts, picture_sections, sections
from cvr.report.charts import escape
from cvr.report.tiles import Sheets

# Pictures in the page and nothing from outside, whatever a text contains.
_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)

# The sections of a page: id, short name, title, what they say.
_PARTS = (
  ('pairs', 'Views', 'What went in: two views of an image',
   'The two augmented views that the network has to recognise as one image, '
   'as it sees them, and the cosine of their projections.'),
  ('curves', 'Curves', 'What is learned: curves',
   'Point at a chart, or press the arrow keys, to read its values.'),
  ('information', 'Information', 'What is learned: information',
   'What the projections of two views of held-out images tell of each other.'),
  ('map', 'Map', 'What came out: a map of images',
   'Images whose representations are alike are close. Point at a mark, or '
   'press the arrow keys, to see its image.'),
  ('neighbours', 'Neighbours', 'Nearest neighbours',
   'An image, and those that the encoder finds most alike. Neighbours of '
   'another class are marked and named.'),
  ('spectrum', 'Spectrum', 'Spectrum and similarities',
   'How many directions the representations use, and how well the views of '
   'an image are told from those of others.'),
  ('probe', 'Errors', 'What the probe gets wrong',
   'The linear probe that was trained beside the encoder: its confusions, and '
   'the images where it is wrong and most sure of it. These are hard, have a '
   'wrong label, or show what the encoder does not see.'),
  ('card', 'Card', 'Evaluation card',
   'Measured by <code>--mode=evaluate</code>. Intervals are over test images; '
   'they say nothing about another seed of training.'),
  ('data', 'Data', 'Data', ''),
  ('settings', 'Settings', 'Settings', ''),
  ('environment', 'Environment', 'Environment', ''),
)  # fmt: skip


def _own(name):
  """The text of a file of this package."""
  files = importlib.resources.files('cvr.report')
  return files.joinpath(name).read_text(encoding='utf-8')


def labels(runs):
  """Names for runs: their folders, without what all have in front."""
  folders = [os.path.abspath(run['folder']) for run in runs]
  if len(folders) < 2:
    return [run['name'] for run in runs]
  shared = os.path.commonpath([os.path.dirname(folder) for folder in folders])
  return [os.path.relpath(folder, shared) for folder in folders]


def document(title, body, css='', nav=()):
  """A whole page. nav: (id of a section, its name)."""
  links = ''.join(f'<a href="#{i}">{escape(name)}</a>' for i, name in nav)
  nav = f'<nav aria-label="Sections">{links}</nav>' if links else ''
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    '<meta name="color-scheme" content="light dark">'
    '<link rel="icon" href="data:,">'
    f'<title>{escape(title)}</title><style>{_own("style.css")}{css}</style>'
    f'</head><body>{nav}<main>{body}</main>'
    '<div id="tip" role="status" hidden></div>'
    f'<script>{_own("script.js")}</script></body></html>\n'
  )


def section(name, title, body, says=''):
  """A section; '' without a body."""
  if not body:
    return ''
  says = f'<p class="says">{says}</p>' if says else ''
  return f'<section id="{name}"><h2>{title}</h2>{says}{body}</section>'


def _beside(runs, names, make):
  """make(run, label) of each run, side by side; '' where none has any."""
  made = [
    make(run, name if len(runs) > 1 else '')
    for run, name in zip(runs, names, strict=True)
  ]
  if not any(made):
    return ''
  if len(runs) == 1:
    return made[0]
  columns = ''.join(
    f'<div><h3 class="run r{i % charts.SERIES}">{escape(name)}</h3>'
    f'{body or "<p>Nothing to show.</p>"}</div>'
    for i, (name, body) in enumerate(zip(names, made, strict=True))
  )
  return f'<div class="beside">{columns}</div>'


def _header(runs, names):
  run = runs[0]
  several = len(runs) > 1
  titles = list(dict.fromkeys(r['title'] for r in runs))
  title = ' and '.join(titles) if several else run['title']
  about = []
  settings = run['settings']
  if settings and not several:
    depth = settings.get('resnet_depth', '?')
    about.append(f'ResNet-{depth} at {settings.get("image_size", "?")} px')
    about.append(f'trained on {settings.get("dataset", "?")}')
  about.append(f'written {run["written"]}')
  folder = ', '.join(names) if several else run['folder']
  return (
    f'<header><p class="kind">Report of {"runs" if several else "a run"}</p>'
    f'<h1>{escape(title)}</h1><p>{escape("; ".join(about))}</p>'
    f'<p class="folder"><code>{escape(folder)}</code></p></header>'
  )


def _notes(runs, names):
  """What a reader has to know first."""
  lines = []
  for run, name in zip(runs, names, strict=True):
    prefix = f'{name}: ' if len(runs) > 1 else ''
    lines += [f'{prefix}{note}' for note in run['notes']]
  return sections.notes(lines)


def _pictures(runs, names, sheets):
  """The sections of pictures: {id: HTML}."""
  large, numbers = {}, {id(run): i for i, run in enumerate(runs)}
  for run in runs:
    if run['images']:
      order, sheet = run['images']['large']
      large[id(run)] = order, sheets.add(sheet)

  def each(make):
    return _beside(
      runs, names, lambda run, _: make(run) if run['images'] else ''
    )

  pictures = picture_sections
  errors = {
    id(run): pictures.errors(run, sheets, large[id(run)])
    for run in runs
    if run['images']
  }
  return {
    'pairs': each(lambda run: pictures.pairs(run, sheets)),
    'map': each(
      lambda run: pictures.embedding_map(run, sheets, numbers[id(run)])
    ),
    'neighbours': each(
      lambda run: pictures.neighbours(run, sheets, large[id(run)])
    ),
    'probe': _probe(runs, names, errors),
  }


def _probe(runs, names, errors):
  """What the probe gets wrong: the confusions, and the hardest images."""

  def one(run, name):
    matrix = sections.confusion(run, '')
    return picture_sections.split(matrix, errors.get(id(run), ''))

  return _beside(runs, names, one)


def page(runs):
  """What collect gave for one or more runs -> the page."""
  names, sheets = labels(runs), Sheets()
  pictures = _pictures(runs, names, sheets)
  spectrum, alike = (
    sections.spectrum(runs, names),
    [
      sections.similarities(
        run, name if len(runs) > 1 else '', sections.highest(runs)
      )
      for run, name in zip(runs, names, strict=True)
    ],
  )
  shape = ''.join([spectrum, *alike])
  if shape:
    shape = charts.legend(names) + f'<div class="grid">{shape}</div>'
  plane = picture_sections.split(
    sections.plane(runs, names), sections.information(runs, names)
  )
  bodies = pictures | {
    'curves': sections.curves(runs, names),
    'information': plane and charts.legend(names) + plane,
    'spectrum': shape,
    'card': card_section.card(runs, names),
    'data': _beside(runs, names, lambda run, _: picture_sections.data(run)),
    'settings': sections.settings(runs, names),
    'environment': sections.environment(runs, names),
  }
  parts = [part for part in _PARTS if bodies.get(part[0])]
  body = [
    _header(runs, names),
    _notes(runs, names),
    sections.glance(runs, names),
    *(section(i, title, bodies[i], says) for i, _, title, says in parts),
  ]
  nav = [(i, short) for i, short, *_ in parts]
  title = f'{runs[0]["title"]}: {", ".join(names)}'
  return document(title, ''.join(body), sheets.css(), nav)
