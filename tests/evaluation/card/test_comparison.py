"""Two cards whose difference is known, in any order, and what forbids it."""

import copy
import json

import numpy as np
import pytest

import sample_card
from cvr.evaluation import statistics
from cvr.evaluation.card import comparison, files, schema


@pytest.fixture(scope='module')
def cards():
  a = sample_card.make(0, images=400)
  b = sample_card.make(1, 0.03, 'byol', images=400)
  return a, b


def compare(a, b):
  found = comparison.compare(*a, *b)
  json.dumps(found, allow_nan=False)
  return found


def with_rows(found):
  return {(schema.key(row), row['metric']): row for row in found['rows']}


def only(found, suite, name, dataset):
  (row,) = [
    row for row in found['rows']
    if (row['suite'], row['name'], row['dataset']) == (suite, name, dataset)
  ]  # fmt: skip
  return row


def test_every_number_of_both(cards):
  a, b = cards
  found = compare(a, b)
  assert len(found['rows']) == 42 and found['notes'] == []
  for row, row_a, row_b in zip(
    found['rows'], a[0]['numbers'], b[0]['numbers'], strict=True
  ):
    assert row['a'] == row_a['value'] and row['b'] == row_b['value']
    apart = row_b['value'] - row_a['value']
    assert row['difference'] == pytest.approx(apart, abs=1e-6)
    name = schema.key(row_a)
    if name in a[1]:
      by_class = row['metric'] == 'mean_per_class'
      labels = a[1][f'labels/{row["dataset"]}/test'] if by_class else None
      wanted = statistics.paired(a[1][name], b[1][name], labels)
      assert {part: row[part] for part in wanted} == wanted
      assert row['notes'] == []
    else:
      assert row['p_value'] is row['p_holm'] is row['low'] is None
      assert row['notes'] == ['no p-value: no score per image']


def test_a_difference_over_clusters(cards):
  a, b = cards
  rows = [{**row, 'protocol': {'interval_over': 'photographs'}}
          for row in a[0]['numbers']]  # fmt: skip
  found = compare((a[0] | {'numbers': rows}, a[1]), b)
  row = only(found, 'linear', 'online', 'imagenet2012')
  name = 'linear/online/imagenet2012/test'
  labels = a[1]['labels/imagenet2012/test']
  wanted = statistics.paired(a[1][name], b[1][name], clusters=labels)
  assert {part: row[part] for part in wanted} == wanted
  assert row['test'] == 'sign flips of clusters'
  assert 'interval over differs: photographs in A' in row['notes'][0]


def test_a_difference_by_hand():
  """70% and 80% of 100 images; B alone is right on 15, A alone on 5."""
  a, b = (sample_card.make(images=100) for _ in range(2))
  name = 'linear/online/imagenet2012/test'
  scores_a, scores_b = np.zeros(100), np.zeros(100)
  scores_a[:70] = 1
  scores_b[5:85] = 1
  for (made, scores), new in ((a, scores_a), (b, scores_b)):
    scores[name] = new
    made['numbers'] = [made['numbers'][0] | statistics.interval(new)]
  (row,) = compare(a, b)['rows']
  assert (row['a'], row['b']) == (0.7, 0.8)
  assert row['difference'] == pytest.approx(0.1)
  assert (row['only_a'], row['only_b'], row['images']) == (5, 15, 100)
  # Of 20 images at most 5: 2 (1 + 20 + 190 + 1140 + 4845 + 15504) / 2^20.
  assert row['p_value'] == pytest.approx(2 * 21700 / 2**20)
  assert row['p_holm'] == row['p_value']
  text = '\n'.join(comparison.markdown(compare(a, b)))
  low, high = (f'{100 * row[end]:.1f}' for end in ('low', 'high'))
  assert (
    '- B is 10.0 points above A on imagenet2012 (linear/online): 95% interval'
    f' {low} to {high}, p = 0.041 (exact McNemar, 100 images).'
  ) in text
  assert '| 70.0 | 80.0 | +10.0 |' in text
  text = '\n'.join(comparison.markdown(compare(b, a)))
  assert '- B is 10.0 points below A on imagenet2012' in text
  assert f'95% interval -{high} to -{low}, p = 0.041' in text


def test_holm_over_all_that_are_tested(cards):
  found = compare(*cards)['rows']
  tested = [row for row in found if row['p_value'] is not None]
  assert len(tested) == 37
  wanted = statistics.holm([row['p_value'] for row in tested])
  assert [row['p_holm'] for row in tested] == wanted
  assert any(row['p_holm'] > row['p_value'] for row in tested)


def test_b_against_a(cards):
  a, b = cards
  there, back = with_rows(compare(a, b)), with_rows(compare(b, a))
  assert there.keys() == back.keys()
  for name, row in there.items():
    other = back[name]
    assert other['difference'] == -row['difference']
    assert other['p_value'] == row['p_value']
    assert other['p_holm'] == row['p_holm']
    if row['difference'] and row['low'] is not None:
      assert (other['low'], other['high']) == (-row['high'], -row['low'])


def test_a_card_against_itself(cards):
  a, _ = cards
  found = compare(a, a)
  assert found['notes'] == ['A and B are the same checkpoint.']
  for row in found['rows']:
    assert row['difference'] == 0
    if row['p_value'] is not None:
      assert row['p_value'] == row['p_holm'] == 1
      assert row['low'] is row['high'] is None
  text = '\n'.join(comparison.markdown(found))
  assert '- B is level with A on cifar10 (transfer/logistic): p = 1' in text
  assert 'points above' not in text and '-0.0' not in text


def permuted(found, seed=0):
  """The same card, its images in another order, on each data set its own."""
  made, scores = copy.deepcopy(found)
  random, orders = np.random.default_rng(seed), {}
  for name in sorted(scores):
    images = '/'.join(name.split('/')[-2:])
    if images not in orders:
      orders[images] = random.permutation(len(scores[name]))
    scores[name] = scores[name][orders[images]]
  return made, scores


def test_the_order_of_images_says_nothing(cards):
  a, b = cards
  found = compare(a, b)
  assert compare(a, permuted(b)) == found
  assert compare(permuted(a, 1), permuted(b)) == found
  # Were rows taken as they come, pairs would be of different images.
  _, shuffled = permuted(b)
  for name in shuffled:
    if name.startswith('ids/'):
      shuffled[name] = b[1][name]
  assert compare(a, (b[0], shuffled)) != found


NAME, IDS = 'linear/online/imagenet2012/test', 'ids/imagenet2012/test'
FLOWERS = 'labels/flowers/test'


def changed(found, name, change):
  made, scores = copy.deepcopy(found)
  scores[name] = change(scores[name])
  return made, scores


def other_ids(ids):
  return np.array([*ids[2:], 'new'])


def twice(ids):
  return np.array([*ids[:-1], ids[0]])


@pytest.mark.parametrize(
  ('name', 'change', 'why'),
  [
    (IDS, other_ids, 'other images: 2 only in A, 1 only in B'),
    (IDS, twice, 'some ids occur twice'),
    (NAME, lambda scores: scores[1:], 'scores and ids differ in number'),
    (NAME, lambda scores: scores * np.nan, 'a score is not a number'),
    (NAME, lambda scores: 1 - scores, 'the value of B is not the mean of'),
    (FLOWERS, lambda labels: labels + 1, 'the same images have other labels'),
  ],
)
def test_no_p_value_where_images_do_not_match(cards, name, change, why):
  a, b = cards
  found = compare(a, changed(b, name, change))
  data = name.split('/')[-2]
  where = (
    ('transfer', 'logistic') if data == 'flowers' else ('linear', 'online')
  )
  row = only(found, *where, data)
  assert len(row['notes']) == 1
  assert row['notes'][0].startswith(f'no p-value: {why}')
  assert row['p_value'] is row['low'] is row['images'] is None
  assert row['difference'] == row['b'] - row['a'] != 0
  assert only(found, 'transfer', 'logistic', 'cifar10')['p_value'] is not None


@pytest.mark.parametrize('part', ['ids', 'labels'])
def test_cards_without_ids_or_labels(cards, part):
  a, b = cards
  scores = {n: s for n, s in b[1].items() if not n.startswith(f'{part}/')}
  found = compare(a, (b[0], scores))
  row = only(found, 'transfer', 'logistic', 'pets')
  assert row['notes'] == [f'no p-value: a card has no {part} of its images']
  tested = [row for row in found['rows'] if row['p_value'] is not None]
  assert len(tested) == (0 if part == 'ids' else 33)


def test_protocols_that_differ_are_said(cards):
  a, b = cards
  made = copy.deepcopy(b[0])
  online = made['numbers'][0]
  online['protocol'] |= {'crop': 'centre 224 of 224', 'class_mask': [1, 5]}
  # Chosen by each for itself, as it should be.
  online['protocol']['chosen'] = {'l2': 3}
  found = compare(a, (made, b[1]))
  row = only(found, 'linear', 'online', 'imagenet2012')
  assert row['notes'] == [
    'crop differs: centre 224 of 256 in A, centre 224 of 224 in B',
    'class mask differs: none in A, [1, 5] in B',
  ]
  assert row['p_value'] is not None
  text = '\n'.join(comparison.markdown(found))
  assert '- linear/online on imagenet2012: crop differs: centre 224' in text
  others = [r for r in found['rows'] if r is not row and r['p_value']]
  assert not any(other['notes'] for other in others)


def test_other_seeds_of_the_evaluation_are_said(cards):
  (a, scores_a), (b, scores_b) = cards

  def notes():
    return comparison.compare(a, scores_a, b, scores_b)['notes']

  assert not [note for note in notes() if 'seeds' in note]
  b = copy.deepcopy(b)
  b['numbers'][0]['protocol']['seed'] = 1
  assert len([note for note in notes() if 'different seeds' in note]) == 1
  # Of a number that A lacks it says nothing.
  a = a | {'numbers': a['numbers'][1:]}
  assert not [note for note in notes() if 'seeds' in note]


def test_numbers_that_one_card_has(cards):
  a, b = cards
  made = copy.deepcopy(b[0])
  made['numbers'] = made['numbers'][2:]
  made['numbers'][0]['metric'] = 'top_5'
  found = compare(a, (made, b[1]))
  assert len(found['rows']) == 39
  both = 'imagenet2012/test'
  assert found['notes'] == [
    f'Only in A: linear/online/{both} (top_1), linear/sgd_simclr/{both}'
    f' (top_1), linear/sgd_byol/{both} (top_1).',
    f'Only in B: linear/sgd_byol/{both} (top_5).',
  ]
  made['numbers'] = []
  text = '\n'.join(comparison.markdown(compare(a, (made, b[1]))))
  assert 'They have no number in common.' in text


def test_the_page(cards):
  found = compare(*cards)
  lines = comparison.markdown(found)
  text = '\n'.join(lines)
  assert '- A: byol_ceb, runs/byol_ceb/ckpt-100, 00000000' in lines
  assert '- B: byol, runs/byol/ckpt-100, 00000001' in lines
  assert len([line for line in lines if line.startswith('| ')]) == 2 + 42
  assert len([line for line in lines if line.startswith('- B is ')]) == 37
  assert text.count('They do not cover other seeds of training') == 1
  assert "Holm's p-values allow for all 37 comparisons at once." in text
  assert '(sign flips, 400 images)' in text
  assert 'p < 0.0001 (sign flips' in text
  assert 'compression/rate on imagenet2012, ' in text


# From files -------------------------------------------------------------------


@pytest.fixture
def paths(cards, tmp_path):
  found = []
  for name, (content, scores) in zip('AB', cards, strict=True):
    files.write(f'{tmp_path}/{name}', content, scores)
    found.append(f'{tmp_path}/{name}/card.json')
  return found


def test_two_cards_are_shown_number_by_number(paths, cards, tmp_path):
  said = []
  comparison.report(paths, f'{tmp_path}/out', said.append)
  page = '\n'.join(comparison.markdown(compare(*cards)))
  assert said[0] == page and 'Written: comparison.json' in said[1]
  with open(f'{tmp_path}/out/comparison.md') as file:
    assert page in file.read()
  with open(f'{tmp_path}/out/comparison.json') as file:
    (result,) = json.load(file)['results']
  assert result == json.loads(json.dumps(compare(*cards)))


def point(rate, accuracy, **settings):
  """A card of one checkpoint of a sweep."""
  rows = [('compression', 'residual_information/projections', 'nats', rate)]
  rows += [('linear', 'lbfgs', 'top_1', accuracy)]
  return {
    'version': 1,
    'checkpoint': {'settings': {'pretrain_loss': 'contrastive_ceb'} | settings},
    'numbers': [
      {'suite': suite, 'name': name, 'dataset': 'd', 'split': 'test',
       'metric': metric, 'value': value, 'low': None, 'high': None}
      for suite, name, metric, value in rows
    ],
  }  # fmt: skip


def test_of_several_cards_rate_and_accuracy_are_shown(tmp_path):
  paths = []
  for beta, rate, accuracy in (
    (0.0, 2.0, 0.5),
    (0.1, 1.5, 0.625),
    (1, 0.5, 0.25),
  ):
    content = point(rate, accuracy, ceb_beta=beta, kappa_e=1024.0)
    files.write(f'{tmp_path}/{beta}', content, {})
    paths.append(f'{tmp_path}/{beta}/card.json')
  said = []
  comparison.report(paths, f'{tmp_path}/out', said.append)
  rows = [line for line in said[0].splitlines() if line.startswith('|')]
  # Only what differs stands beside the numbers.
  assert rows[0].startswith('| ceb beta | I(X;Z')
  assert rows[2:] == [
    '| 0 | 2 |  | 50.0 |', '| 0.1 | 1.5 |  | 62.5 |', '| 1 | 0.5 |  | 25.0 |'
  ]  # fmt: skip
  with open(f'{tmp_path}/out/rate_accuracy.png', 'rb') as file:
    assert file.read(4) == b'\x89PNG'
