"""A card's page, number by number."""

import sample_card
from cvr.evaluation.card.page import markdown


def page_of(made):
  return '\n'.join(markdown(made))


def tables(made):
  """{suite: rows of cells}, without what is not of a suite."""
  found, suite = {}, None
  for line in markdown(made):
    if line.startswith('## '):
      suite = line[3:]
    elif line.startswith('| ') and suite:
      found.setdefault(suite, []).append(line[2:-2].split(' | '))
  return {suite: rows[2:] for suite, rows in found.items()}


def percent(value):
  return f'{100 * value:.1f}'


def test_the_page_has_exactly_the_numbers():
  made, _ = sample_card.make(images=500)
  found = tables(made)
  assert list(found) == [
    'linear', 'knn', 'semi', 'transfer', 'robustness', 'compression'
  ]  # fmt: skip
  cells = [cells for rows in found.values() for cells in rows]
  assert len(cells) == len(made['numbers']) == 42
  for row, (name, dataset, metric, value, interval, images, *_) in zip(
    made['numbers'], cells, strict=True
  ):
    assert name == row['name'] and dataset == f'{row["dataset"]}, test'
    assert images == '500'
    if row['metric'] in ('top_1', 'mean_per_class'):
      assert metric == row['metric'].replace('_', ' ') + ', %'
      assert value == percent(row['value'])
    else:
      assert metric == row['metric'] and float(value) == row['value']
    ends = [row['low'], row['high']]
    assert interval == ('' if None in ends else ' to '.join(map(percent, ends)))


def test_the_page_says_what_was_evaluated_and_what_is_missing():
  made, _ = sample_card.make(images=50)
  text = page_of(made)
  for part in (
    '# Evaluation of byol_ceb',
    '| path | runs/byol_ceb/ckpt-100 |',
    '| hash | 00000000 |',
    '| step | 100 |',
    '| epochs | 7.812 |',
    '| created | 2025-01-31T12:00:00+00:00 |',
    '| versions | tensorflow 2.17.0, numpy 1.26.4 |',
    'dataset: imagenet2012; resnet depth: 50; train batch size: 256',
    '- transfer, birdsnap: TFDS has no Birdsnap: --transfer=birdsnap=folder:',
    'not with another seed of training',
  ):
    assert text.count(part) == 1, part
  made['missing'] = []
  assert '## Missing' not in page_of(made)


def test_protocols_are_spelled_once():
  made, _ = sample_card.make(images=50)
  made['numbers'] = [r for r in made['numbers'] if r['suite'] == 'transfer']
  lines = markdown(made)
  (shared,) = [line for line in lines if line.startswith('Protocol: ')]
  assert shared == (
    'Protocol: crop: centre 224 of 224; bn: moving statistics; layer:'
    ' representation; seed: 0; grid: l2 45 values from 1e-06 to 1e+05.'
  )
  for row in made['numbers']:
    chosen = f'chosen: l2 {row["protocol"]["chosen"]["l2"]:.4g}.'
    (line,) = [line for line in lines if line.endswith(chosen)]
    assert f'logistic ({row["dataset"]})' in line


def test_rows_with_a_protocol_of_their_own():
  made, _ = sample_card.make(images=50)
  made['numbers'] = [r for r in made['numbers'] if r['suite'] == 'robustness']
  text = page_of(made)
  assert 'Protocol: ' not in text
  masked = [line for line in text.splitlines() if 'class mask' in line]
  assert len(masked) == 1 and masked[0].startswith('- imagenet_a: crop: ')
  assert 'class mask: 200 values from 0 to 995.' in masked[0]
  assert '- mce: pairs: 20000.' in text
  assert text.count('- all others: crop: centre 224 of 256; bn: ') == 1


# The papers' numbers ---------------------------------------------------------
