"""Reports on latents against closed forms, loops over pairs, and known bits."""

import collections
import io
import itertools
import json
import math
import sys

import numpy as np
import pytest
import tensorflow as tf

from cvr.evaluation.latents import report

BLUE, RED, GREEN = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)


def random(seed=0):
  return np.random.default_rng(seed)


def all_codes(k):
  """[2^k, k]: every code once, so all bits are fair and independent."""
  codes = itertools.product((False, True), repeat=k)
  return np.array(list(codes))


# Forests ---------------------------------------------------------------------

INFORMATIVE = [6, 2]


def split(n, seed, informative=INFORMATIVE, k=8):
  """Fair bits [n, k], and labels that are the number written in some."""
  bits = random(seed).random((n, k)) < 0.5
  return bits, bits[:, informative] @ 2 ** np.arange(len(informative))


def loop_macro_f1(labels, predicted):
  f1 = []
  for c in {*labels, *predicted}:
    pairs = list(zip(labels == c, predicted == c, strict=True))
    hits = pairs.count((True, True))
    wrong = pairs.count((True, False)) + pairs.count((False, True))
    f1.append(2 * hits / (2 * hits + wrong))
  return sum(f1) / len(f1)


def five_sigma(p, n):
  return 5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize(
  ('k', 'wanted'),
  [
    (1, [1]),
    (4, [1, 2, 3, 4]),
    (12, [*range(1, 12), 12]),
    (16, [*range(1, 12), 16]),
    (100, [*range(1, 12), 16, 32, 64, 100]),
    (128, [*range(1, 12), 16, 32, 64, 128]),
  ],
)
def test_how_many_bits_are_kept(k, wanted):
  assert report.counts(k) == wanted


def test_the_bits_that_make_the_label_come_first_and_suffice():
  pytest.importorskip('sklearn')
  train, test = split(500, 0), split(2000, 1)
  assert {*report.ranking(*train, trees=20)[:2]} == {*INFORMATIVE}
  one, two, full = report.forest_curve(train, test, [1, 2, 8], trees=20)
  # With one of two bits known, two of the four labels are left.
  assert abs(one['accuracy'] - 1 / 2) < five_sigma(1 / 2, 2000)
  assert two == {'bits': 2, 'macro_f1': 1.0, 'accuracy': 1.0}
  assert full['bits'] == 8


def test_no_bit_tells_anything():
  pytest.importorskip('sklearn')
  train, test = split(500, 0), split(2000, 1)
  others = np.setdiff1d(np.arange(8), INFORMATIVE)
  shuffled = random().permutation(train[1])
  for which, labels in ((others, train[1]), (range(8), shuffled)):
    curve = report.forest_curve(
      (train[0][:, which], labels),
      (test[0][:, which], test[1]),
      [1, len(which)],
      trees=20,
    )
    for row in curve:
      assert abs(row['accuracy'] - 1 / 4) < five_sigma(1 / 4, 2000)


def test_the_curve_is_that_of_plain_forests():
  """Of three classes of unequal size, one of which is not in test."""
  ensemble = pytest.importorskip('sklearn.ensemble')
  from sklearn.metrics import f1_score

  bits = random().random((600, 20)) < 0.5
  noise = random(1).random(600) < 0.2
  labels = np.where(noise, 2, np.where(bits[:, 4] & bits[:, 1], 5, 7))
  labels[300:][labels[300:] == 2] = 5
  train, test = (bits[:300], labels[:300]), (bits[300:], labels[300:])
  curve = report.forest_curve(train, test, [1, 2, 20], seed=3, trees=10)

  def forest(which):
    made = ensemble.RandomForestClassifier(10, random_state=3)
    return made.fit(train[0][:, which], train[1])

  importance = forest(range(20)).feature_importances_
  best = sorted(range(20), key=lambda bit: -importance[bit])
  for row in curve:
    which = sorted(best[: row['bits']])
    predicted = forest(which).predict(test[0][:, which])
    assert row['accuracy'] == np.mean(predicted == test[1])
    wanted = loop_macro_f1(test[1], predicted)
    assert row['macro_f1'] == pytest.approx(wanted, abs=1e-12)
    theirs = f1_score(test[1], predicted, average='macro')
    assert row['macro_f1'] == pytest.approx(theirs, abs=1e-12)
  assert len({row['macro_f1'] for row in curve}) == 3
  again = report.forest_curve(train, test, [1, 2, 20], seed=3, trees=10)
  assert again == curve
  other = report.forest_curve(train, test, [1, 2, 20], seed=4, trees=10)
  assert other != curve


def test_forests_see_train_only(monkeypatch):
  pytest.importorskip('sklearn')
  train, test = split(200, 0), split(200, 1)
  seen = []
  fitted = report.fitted

  def spy(bits, labels, *how):
    seen.append((bits.tobytes(), labels.tobytes()))
    return fitted(bits, labels, *how)

  monkeypatch.setattr(report, 'fitted', spy)
  rows = random().permutation(200)
  curves = [
    report.forest_curve(train, (test[0], labels), [1, 2], trees=5)
    for labels in (test[1], test[1][rows])
  ]
  # Forests of other bits had been fitted, had test a say in the ranking.
  assert len(seen) == 6 and seen[:3] == seen[3:]
  assert curves[0] != curves[1]


def test_without_scikit_learn(monkeypatch):
  for module in ('sklearn', 'sklearn.ensemble', 'sklearn.metrics'):
    monkeypatch.setitem(sys.modules, module, None)
  wanted = r"pip install -e '\.\[quickstart\]'"
  with pytest.raises(report.Missing, match=wanted):
    report.forest_curve(split(9, 0), split(9, 1), [1])


# Capacity --------------------------------------------------------------------


def test_independent_fair_bits():
  bits = all_codes(9)
  found = report.capacity(bits, np.arange(512) % 10)
  assert found == {
    'images': 512,
    'bits': 9,
    'share_of_ones': 0.5,
    'smallest_share_in_a_bit': 0.5,
    'largest_share_in_a_bit': 0.5,
    'entropy_per_bit': 1.0,
    'constant_bits': 0,
    'mean_mutual_information': 0.0,
    'max_mutual_information': 0.0,
    'unique_codes': 512,
    'codes_of_several_classes': 0,
    'share_of_images_with_such_codes': 0.0,
  }
  json.dumps(found)


def test_copies_opposites_and_constants():
  fair = all_codes(2)[:, :1]
  never, always = np.zeros_like(fair), np.ones_like(fair)
  bits = np.concatenate([fair, fair, ~fair, never, always], 1)
  shared = report.mutual_information(bits)
  wanted = np.zeros([5, 5])
  wanted[:3, :3] = 1
  np.testing.assert_array_equal(shared, wanted)
  found = report.capacity(bits, np.array([0, 1, 2, 2]))
  assert found['share_of_ones'] == 0.5
  assert found['entropy_per_bit'] == pytest.approx(3 / 5)
  assert found['constant_bits'] == 2
  # 3 of the 10 pairs share their bit.
  assert found['mean_mutual_information'] == pytest.approx(3 / 10)
  assert found['max_mutual_information'] == 1
  # Images 0 and 1 are of two classes, 2 and 3 of one.
  assert found['unique_codes'] == 2
  assert found['codes_of_several_classes'] == 1
  assert found['share_of_images_with_such_codes'] == 0.5


def test_a_single_bit_has_no_pairs():
  found = report.capacity(all_codes(1), np.arange(2))
  assert found['mean_mutual_information'] is None
  assert found['max_mutual_information'] is None


def loop_mutual_information(a, b):
  n = len(a)
  joint = collections.Counter(zip(a.tolist(), b.tolist(), strict=True))
  first, second = (
    collections.Counter(a.tolist()),
    collections.Counter(b.tolist()),
  )
  return sum(
    m / n * math.log2(m * n / (first[x] * second[y]))
    for (x, y), m in joint.items()
  )


def loop_entropy(a):
  n = len(a)
  found = collections.Counter(a.tolist()).values()
  return -sum(m / n * math.log2(m / n) for m in found)


@pytest.mark.parametrize('dtype', [bool, np.uint8])
def test_loops_over_pairs_and_codes_agree(dtype):
  source = random().random((200, 6)) < [0.5, 0.9, 0.5, 0.02, 0.5, 0.5]
  source[:, 4] ^= source[:, 0] & source[:, 1]
  source[:, 5] |= source[:, 2]
  bits, labels = source.astype(dtype), random(1).integers(0, 3, 200)
  found = report.capacity(bits, labels)
  pairs = [
    loop_mutual_information(bits[:, i], bits[:, j])
    for i, j in itertools.combinations(range(6), 2)
  ]
  assert found['mean_mutual_information'] == pytest.approx(np.mean(pairs))
  assert found['max_mutual_information'] == pytest.approx(max(pairs))
  entropies = [loop_entropy(bit) for bit in bits.T]
  assert found['entropy_per_bit'] == pytest.approx(np.mean(entropies))
  np.testing.assert_allclose(
    np.diag(report.mutual_information(bits)), entropies, atol=1e-12
  )
  classes = collections.defaultdict(list)
  for code, label in zip(bits, labels, strict=True):
    classes[tuple(code)].append(label)
  several = [found for found in classes.values() if len({*found}) > 1]
  assert found['share_of_ones'] == pytest.approx(source.mean())
  shares = source.mean(0)
  assert found['smallest_share_in_a_bit'] == pytest.approx(shares.min())
  assert found['largest_share_in_a_bit'] == pytest.approx(shares.max())
  assert found['unique_codes'] == len(classes)
  assert found['codes_of_several_classes'] == len(several) < len(classes)
  share = sum(map(len, several)) / 200
  assert found['share_of_images_with_such_codes'] == pytest.approx(share)


def test_codes_differ_in_their_last_bit_alone():
  """Bytes of zeros and a last byte that is not full count as others do."""
  bits = np.zeros([3, 19], bool)
  bits[2, 18] = True
  found = report.capacity(bits, np.array([0, 1, 0]))
  assert found['unique_codes'] == 2
  assert found['share_of_images_with_such_codes'] == pytest.approx(2 / 3)


# Uncertainty -----------------------------------------------------------------


def loop_auroc(positive, negative):
  won = [(p > n) + (p == n) / 2 for p in positive for n in negative]
  return sum(won) / len(won)


def test_auroc_is_a_share_of_pairs():
  score = random().integers(0, 12, 90) / 7  # Many ties.
  wrong = random(1).random(90) < 0.3
  wanted = loop_auroc(score[wrong], score[~wrong])
  for given in (wrong, wrong.astype(np.uint8)):
    found = report.uncertainty(score, given)
    assert found['auroc'] == pytest.approx(wanted, abs=1e-12)
  assert report.auroc(np.array([2, 3]), np.array([0, 1])) == 1
  assert report.auroc(np.array([0, 1]), np.array([2, 3])) == 0
  assert report.auroc(np.ones(3), np.ones(5)) == 0.5


@pytest.mark.parametrize('rate', [0, 1])
def test_no_error_or_nothing_else(rate):
  found = report.uncertainty(np.arange(40.0), np.full(40, rate, bool))
  assert found['auroc'] is None
  for name in ('aurc', 'aurc_best', 'aurc_random'):
    assert found[name] == rate
  np.testing.assert_allclose(np.array(found['curve'])[:, 1], rate)
  json.dumps(found, allow_nan=False)


def test_scores_that_rank_all_errors_none_or_the_wrong_way():
  wrong = np.array([False, True, False, True])
  best = (0 + 0 + 1 / 3 + 2 / 4) / 4
  worst = (1 + 1 + 2 / 3 + 2 / 4) / 4
  for score, aurc, ranked in (
    ([1, 3, 2, 4], best, 1),
    ([4, 2, 3, 1], worst, 0),
    ([7, 7, 7, 7], 1 / 2, 0.5),
  ):
    found = report.uncertainty(np.array(score), wrong)
    assert found['aurc'] == pytest.approx(aurc)
    assert found['auroc'] == ranked
    assert found['aurc_best'] == pytest.approx(best)
    assert found['aurc_random'] == 0.5


def test_the_curve_of_scores_that_know_the_errors():
  score = random().permutation(40)
  wrong = score >= 30
  curve = report.uncertainty(score, wrong)['curve']
  for i, (coverage, risk) in enumerate(curve, 1):
    assert coverage == i / 20
    # 2 i rows, of which those beyond the 30th are wrong.
    assert risk == pytest.approx(max(0, 2 * i - 30) / (2 * i))
  assert len(curve) == 20


def test_the_order_of_rows_does_not_matter():
  score = random().integers(0, 5, 60)
  wrong = random(1).random(60) < 0.4
  found = report.uncertainty(score, wrong)
  for seed in range(5):
    rows = random(seed).permutation(60)
    assert report.uncertainty(score[rows], wrong[rows]) == found


def test_equal_scores_are_the_mean_over_their_orders():
  score = np.array([1, 2, 2, 2, 3, 3])
  wrong = np.array([False, True, False, False, True, False])
  risks = []
  for rows in itertools.permutations(range(6)):
    order = sorted(rows, key=lambda row: score[row])
    risks.append(np.cumsum(wrong[order]) / np.arange(1, 7))
  found = report.uncertainty(score, wrong)
  assert found['aurc'] == pytest.approx(np.mean(risks))
  halves = {coverage: risk for coverage, risk in found['curve']}
  assert halves[0.5] == pytest.approx(np.mean(risks, 0)[2])
  assert halves[1] == pytest.approx(1 / 3)


def test_scores_that_rise():
  clean = np.array([1.0, 2, 3, 4])
  found = report.rises(
    clean,
    {'same': clean, 'more': clean + 10, 'some': np.array([0, 2, 5, 6.0])},
  )
  assert found == {
    'same': {'mean': 2.5, 'clean_mean': 2.5, 'rose': 0, 'auroc': 0.5},
    'more': {'mean': 12.5, 'clean_mean': 2.5, 'rose': 1, 'auroc': 1},
    # Above 0, 1.5, 4 and 4 of the four.
    'some': {'mean': 3.25, 'clean_mean': 2.5, 'rose': 0.5, 'auroc': 9.5 / 16},
  }
  json.dumps(found)


def test_scores_that_are_no_numbers():
  broken = np.array([1, np.nan])
  with pytest.raises(ValueError, match='NaN'):
    report.uncertainty(broken, np.array([True, False]))
  with pytest.raises(ValueError, match='NaN'):
    report.rises(np.ones(2), {'blur': broken})


# For readers -----------------------------------------------------------------


def made_up(*parts, k=64):
  """A report, as JSON that sorts its keys gives it back."""
  score = random().random(200)
  bits = random().random((200, k)) < 0.5
  numbers = {
    'forest': [
      {'bits': n, 'macro_f1': 1 - 0.5**n, 'accuracy': 0.125}
      for n in report.counts(k)
    ],
    'capacity': report.capacity(bits, np.arange(200) % 3),
    'uncertainty': report.uncertainty(score, score > 0.8),
    'corrupted': {
      'blur': {'mean': 2.0, 'clean_mean': 1.0, 'rose': 0.75, 'auroc': None}
    },
    'checkpoint': 'elsewhere',
  }
  numbers = {part: numbers[part] for part in parts or numbers}
  return json.loads(json.dumps(numbers, sort_keys=True))


def test_tables():
  lines = report.table(made_up())
  for line in (
    '| bits | macro-F1 | accuracy |',
    '| 2 | 0.75 | 0.125 |',
    '| capacity |  |',
    '| constant bits | 0 |',
    '| uncertainty |  |',
    '| auroc | 1 |',
    '| corruption | mean | clean mean | rose | AUROC |',
    '| blur | 2 | 1 | 0.75 | - |',
  ):
    assert lines.count(line) == 1, line
  assert not any('curve' in line or 'elsewhere' in line for line in lines)
  # A Gaussian latent has no bits.
  lines = report.table(made_up('uncertainty'))
  assert lines[0] == '| uncertainty |  |'
  assert lines.count('') == 1
  assert report.table({}) == []


def drawn(numbers):
  """The PNG's pixels [H, W, 3]."""
  file = io.BytesIO()
  report.draw(numbers, file)
  return tf.io.decode_png(file.getvalue(), channels=3).numpy()


def has(image, colour):
  return (image == colour).all(-1).sum() > 100


def test_a_panel_for_each_part_that_is_there(tmp_path):
  pytest.importorskip('matplotlib')
  both = drawn(made_up())
  assert all(has(both, colour) for colour in (BLUE, RED, GREEN))
  forest = drawn(made_up('forest', 'capacity'))
  assert has(forest, RED) and not has(forest, GREEN)
  risk = drawn(made_up('uncertainty'))
  assert has(risk, GREEN) and not has(risk, RED)
  assert both.shape[1] == 2 * forest.shape[1] == 2 * risk.shape[1]
  few = drawn(made_up('forest', k=10))
  assert has(few, BLUE) and not has(few, RED)
  report.draw(made_up('capacity'), f'{tmp_path}/none.png')
  assert not list(tmp_path.iterdir())


def test_without_matplotlib(monkeypatch, tmp_path):
  for module in ('matplotlib', 'matplotlib.figure'):
    monkeypatch.setitem(sys.modules, module, None)
  wanted = r"pip install -e '\.\[plot\]'"
  with pytest.raises(report.Missing, match=wanted):
    report.draw(made_up(), f'{tmp_path}/drawn.png')
