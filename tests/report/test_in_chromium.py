"""The page in a browser: errors, hover, keyboard, light and dark.

Needs Chromium and the package playwright, which is no part of the extra `test`:
pip install playwright (its own browsers are not used).
"""

import shutil

import pytest

from cvr.report import page
from sample_report import images, run

sync_api = pytest.importorskip(
  'playwright.sync_api', reason='playwright is not installed'
)
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
pytestmark = pytest.mark.skipif(
  not CHROMIUM, reason='chromium is not installed'
)


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    found = playwright.chromium.launch(
      executable_path=CHROMIUM, args=['--no-sandbox']
    )
    yield found
    found.close()


@pytest.fixture
def opened(browser, tmp_path):
  """opened(width, scheme) -> a page of Chromium, and its errors."""
  path = tmp_path / 'report.html'

  def open_page(width, scheme, classes=3):
    shown = images(60, bits=True, classes=classes)
    path.write_text(page.page([run(images=shown), run('b')]))
    size = {'width': width, 'height': 800}
    view = browser.new_page(viewport=size, color_scheme=scheme)
    errors = []
    # The sheets of the sample are no pictures, which is no error of the page.
    view.on('console', lambda m: m.type == 'error' and errors.append(m.text))
    view.on('pageerror', lambda error: errors.append(str(error)))
    view.goto(f'file://{path}')
    return view, errors

  return open_page


def luminance(colour):
  """'rgb(1, 2, 3)' -> relative luminance of WCAG."""
  values = [float(v) / 255 for v in colour[4:-1].split(',')[:3]]
  linear = [
    v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values
  ]
  return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear,
                                   strict=True))  # fmt: skip


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [400, 1400])
def test_nothing_scrolls_sideways_and_nothing_fails(opened, width, scheme):
  view, errors = opened(width, scheme)
  assert view.evaluate('document.documentElement.scrollWidth') == width
  assert not errors
  back, *texts = view.evaluate("""() => {
    const of = (s, p) => getComputedStyle(document.querySelector(s))[p];
    return [of('body', 'backgroundColor'), of('body', 'color'),
            of('.says', 'color'), of('.note', 'color'), of('nav a', 'color'),
            of('svg .tick', 'fill'), of('.near b', 'color')];
  }""")
  assert (luminance(back) > 0.5) == (scheme == 'light')
  for text in texts:
    light, dark = sorted((luminance(back), luminance(text)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5, text


def test_hover_shows_values_and_leaving_hides_them(opened):
  view, errors = opened(1400, 'light')
  tip = view.locator('#tip')
  assert tip.is_hidden()
  chart = view.locator('#curves svg[data-points]').nth(1)
  chart.hover()
  assert 'at step' in tip.inner_text() and 'b: ' in tip.inner_text()
  view.mouse.move(5, 5)
  assert tip.is_hidden() and not errors


def test_the_keyboard_reads_charts_and_maps(opened):
  view, errors = opened(1400, 'dark')
  chart = view.locator('#curves svg[data-points]').nth(1)
  chart.focus()
  view.keyboard.press('Home')
  first = view.locator('#tip').inner_text()
  view.keyboard.press('ArrowRight')
  assert 'step 10' in first and 'step 20' in view.locator('#tip').inner_text()
  view.keyboard.press('Escape')
  assert view.locator('#tip').is_hidden()
  view.locator('#map svg[data-points]').first.focus()
  view.keyboard.press('End')
  assert view.locator('#tip .tile').count() == 1
  assert '.png' in view.locator('#tip').inner_text() and not errors


def test_a_class_is_picked_from_the_legend(opened):
  view, errors = opened(1400, 'light')
  button = view.locator('button[data-map]').first
  button.press('Enter')
  assert button.get_attribute('aria-pressed') == 'true'
  assert view.locator('#map0.picked .m.on').count() == 20
  button.press('Enter')
  assert not view.locator('#map0.picked').count() and not errors


def test_a_class_of_many_is_picked_from_a_list(opened):
  view, errors = opened(400, 'dark', classes=30)
  choice = view.locator('select[data-map]').first
  choice.select_option('7')
  assert view.locator('#map0.picked .m.on').count() == 2
  choice.select_option('')
  assert not view.locator('#map0.picked').count() and not errors
