"""The page: every part of it, what is missing, what is escaped, its size."""

import html.parser
import re

import pytest

from cvr.report import page
from cvr.report.tiles import Sheet
from sample_report import card_row, images, metrics, run


class Reader(html.parser.HTMLParser):
  """The ids, the tags, and whether what is opened is closed."""

  VOID = ('meta', 'link', 'input', 'br')

  def __init__(self, text):
    super().__init__()
    self.ids, self.tags, self.open, self.wrong = [], [], [], []
    self.feed(text)
    assert not self.open and not self.wrong

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.ids += [value for name, value in attrs if name == 'id']
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.wrong.append(tag)


PARTS = ('pairs curves information map neighbours spectrum probe card data '
         'settings environment').split()  # fmt: skip


def test_a_whole_run_has_all_parts_and_nothing_from_elsewhere():
  text = page.page([run()])
  ids = Reader(text).ids
  assert [i for i in ids if i in PARTS] == PARTS
  assert len(ids) == len({*ids})
  assert [*re.findall(r'href="#(\w+)"', text)] == PARTS
  # Nothing is loaded: no address but those of namespaces.
  assert {*re.findall(r'\w+://[^\s"\'<)]+', text)} == {
    'http://www.w3.org/2000/svg'
  }
  assert "default-src 'none'" in text


def test_names_are_for_readers():
  text = page.page([run()])
  for words in ('Training loss', 'Made up metric', 'linear, L-BFGS',
                '95% interval 60.0 to 90.0', 'chance 33.3%'):  # fmt: skip
    assert words in text, words
  for key in ('total_loss', 'supervised_acc', 'made_up', 'information/'):
    assert key not in text, key
  # Above its value for views that agree: 4 + 2 - 1.
  assert '<dt>Only one view knows</dt><dd>5 nats' in text


def test_what_files_say_is_escaped():
  evil = '"><script>alert(1)</script>'
  bad = {'count': 1, 'rows': [(evil, evil)]}
  pictures = images() | {'names': [evil] * 30, 'class_names': [evil] * 3}
  pictures |= {'dataset': evil, 'split': evil}
  made = run(
    name=evil, folder=evil, title=evil, settings={evil: evil, 'dataset': evil},
    changed={evil: (evil, evil)}, environment={evil: evil}, notes=[evil],
    metrics={evil: ([1, 2], [1.0, 2.0])}, bad_images=bad, images=pictures,
    card={'numbers': [card_row(evil, evil) | {'dataset': evil}]},
    written=evil, preset=evil,
  )  # fmt: skip
  for runs in ([made], [made, run('b')]):
    text = page.page(runs)
    assert Reader(text).tags.count('script') == 1
    assert '<script>alert' not in text


def test_without_labels_there_is_no_class_and_no_probe():
  text = page.page([run(images=images(labels=False), classes=0)])
  ids = Reader(text).ids
  assert 'probe' not in ids and 'map' in ids and 'neighbours' in ids
  assert 'same class' not in text and 'near other' not in text


def test_without_summaries_card_and_pictures():
  bare = run(metrics={}, images=None, card=None, notes=['No pictures: gone'])
  text = page.page([bare])
  ids = Reader(text).ids
  assert not {'map', 'card', 'pairs', 'information'} & {*ids}
  assert 'There is no metrics.jsonl' in text and 'No pictures: gone' in text


def test_values_that_are_no_numbers_are_told():
  text = page.page([run()])
  assert '1 values are not numbers' in text
  broken = {'train/total_loss': ([1, 2], [float('nan')] * 2)}
  Reader(page.page([run(metrics=broken)]))


def test_bits_have_neighbours_of_their_own():
  text = page.page([run(images=images(bits=True))])
  assert 'Nearest by the bits that differ' in text and '7 bits' in text
  assert 'bits that differ' not in page.page([run()])


def test_several_runs_are_beside_each_other():
  text = page.page([run('a'), run('b', images=None), run('c')])
  Reader(text)
  assert text.count('class="run r1"') == text.count('class="run r0"') > 3
  assert text.count('<path class="line s2"') > 5  # One axis for all.
  assert 'Nothing to show' in text


def test_two_thousand_images_fit_in_five_megabytes():
  # As large as a sheet of noise is.
  noise = Sheet(b'x' * 2000 * 1000, 48, 2000, 40, 40)
  many = images(2000) | {'sheet': noise}
  text = page.page([run(images=many, metrics=metrics(5000))])
  assert len(text) < 5_000_000


@pytest.mark.parametrize('classes', [3, 30, 1000])
def test_many_classes_are_chosen_from_a_list(classes):
  text = page.page([run(images=images(2000, classes))])
  assert ('<select' in text) == (classes > 24)


def test_two_maps_stand_side_by_side_below_their_classes():
  shown = images()
  text = page.page([run(images=shown)])
  assert text.index('id="map0"') < text.index('data-map="map0"')
  shown['maps']['UMAP'] = {k: shown['maps']['PCA'][k] for k in 'xy'}
  text = page.page([run(images=shown)])
  assert text.index('data-map="map0"') < text.index('id="map0"')
  assert '30 images by PCA' in text and '30 images by UMAP' in text
  assert text.count('id="map0"') == 1
