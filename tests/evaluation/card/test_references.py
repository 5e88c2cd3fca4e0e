"""The papers' numbers beside a card's."""

import pytest

import sample_card
from cvr.evaluation.card import references
from cvr.evaluation.card.page import markdown


def row(suite, name, dataset, metric='top_1', split='test'):
  return {
    'suite': suite, 'name': name, 'dataset': dataset, 'metric': metric,
    'split': split, 'value': 0.5, 'low': None, 'high': None,
  }  # fmt: skip


SHOWN = [
  ('byol_ceb', row('linear', 'sgd_byol', 'imagenet2012'), [75.8, 78.9]),
  ('byol_ceb', row('linear', 'online', 'imagenet2012'), [75.9, 79.1, 78.8]),
  ('dino', row('knn', 'k20_t0.07', 'imagenet2012'), [67.5]),
  ('contrastive', row('semi', '1pct_byol', 'imagenet2012'), [48.3]),
  ('byol', row('semi', 'simclr_10pct', 'imagenet2012'), [68.8]),
  ('byol', row('robustness', 'mean', 'imagenet_c'), [42.7]),
  ('contrastive_ceb', row('robustness', 'x', 'youtube_bb'), [59.5]),
  ('contrastive_ceb', row('transfer', 'logistic', 'cars196'), [52.7]),
  (
    'contrastive',
    row('transfer', 'logistic', 'oxford_flowers102', 'mean_per_class'),
    [88.4],
  ),
  ('stochcon_gaussian', row('linear', 'sgd_simclr', 'cifar10'), [92.4]),
]


@pytest.mark.parametrize(('method', 'number', 'wanted'), SHOWN)
def test_papers_numbers_beside_their_like(method, number, wanted):
  found = [value for _, value, _ in references.published(method, number)]
  assert {*wanted} <= {*found}
  made, _ = sample_card.make(method=method, images=20)

  def page_of(number):
    return '\n'.join(markdown(made | {'numbers': [number]}))

  text = page_of(number)
  for value in wanted:
    assert f'{value:.1f}' in text
  for change in (
    {'dataset': 'folder:imagenet2012'},
    {'metric': 'top_5'},
    {'split': 'train[90%:]'},
    {'split': 'validation[:1%]'},
    {'name': 'k200_t0.1' if number['suite'] == 'knn' else 'frozen_lbfgs_1pct'},
    {'suite': 'compression'},
  ):
    text = page_of(number | change)
    assert 'published' not in text, change
  made['checkpoint'] = made['checkpoint'] | {'method': 'er_byol'}
  assert 'published' not in page_of(number)


def test_numbers_that_only_look_alike():
  for method, number in (
    ('contrastive', row('transfer', 'logistic', 'pets')),
    ('contrastive', row('transfer', 'finetune', 'cifar10')),
    ('byol', row('transfer', 'logistic', 'cifar10')),
    ('byol', row('robustness', 'gaussian_noise', 'imagenet_c')),
    ('byol', row('robustness', 'x', 'imagenet_v2/topimages')),
    ('byol', row('semi', 'all', 'imagenet2012')),
  ):
    assert references.published(method, number) == []
