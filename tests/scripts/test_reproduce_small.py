"""The small reproductions: equal terms for both of a pair, honest tables."""

import os
import pathlib
import sys

import numpy as np
import pytest

from cvr.configs import checks, config, derived
from cvr.evaluation import statistics
from cvr.evaluation.card import files, schema

SCRIPTS = os.path.join(pathlib.Path(__file__).parents[2], 'scripts')
sys.path.insert(0, SCRIPTS)
families = __import__('families')
reproduce = __import__('reproduce_small')
sweep = __import__('beta_sweep')
sys.path.remove(SCRIPTS)

# What compression adds; anything else has to be the same in a pair.
OWN = {'pretrain_loss', 'ceb_beta', 'beta_schedule', 'kappa_e', 'seed'}


def configs(seed):
  return {
    method: config.Config(**families.BASE | reproduce.settings(method, seed))
    for pair in reproduce.PAIRS.items()
    for method in pair
  }


def test_both_of_a_pair_differ_by_compression_alone():
  found = configs(seed=1)
  for plain, compressive in reproduce.PAIRS.items():
    a, b = (config.to_dict(found[m]) for m in (plain, compressive))
    differ = {name for name in a if a[name] != b[name]}
    assert differ <= OWN, plain
    assert derived.is_ceb(found[compressive]) and b['ceb_beta'] > 0
    assert a['seed'] == b['seed'] == 1
    for method in (plain, compressive):
      assert checks.warnings(found[method]) == []


def test_the_sweep_changes_beta_and_kappa_alone():
  base = config.to_dict(
    config.Config(**families.BASE | sweep.settings(0.1, 1024.0))
  )
  assert (0.1, 1024.0) in sweep.SWEEP and len({*sweep.SWEEP}) == len(
    sweep.SWEEP
  )
  for beta, kappa in sweep.SWEEP:
    cfg = config.Config(**families.BASE | sweep.settings(beta, kappa))
    changed = {k: v for k, v in config.to_dict(cfg).items() if v != base[k]}
    assert changed.items() <= {'ceb_beta': beta, 'kappa_e': kappa}.items()


def make_card(right, nats):
  """A card whose accuracies are of one row of scores, and the rest nats."""
  numbers, scores = [], {}
  for name in reproduce.NUMBERS:
    suite, rest = name.split('/', 1)
    name = rest.removesuffix('/photo_patches/32px:2.0.0/test')
    row = {'suite': suite, 'name': name, 'dataset': 'photo_patches/32px:2.0.0'}
    row |= {'split': 'test', 'low': None, 'high': None, 'images': len(right)}
    metric = 'nats' if suite == 'compression' else 'top_1'
    value = float(np.mean(right)) if metric == 'top_1' else nats
    numbers.append(row | {'metric': metric, 'value': value, 'protocol': {}})
    if metric == 'top_1':
      scores[schema.key(numbers[-1])] = np.array(right, np.float32)
  content = {'version': 1, 'checkpoint': {}, 'numbers': numbers}
  return content, scores


def test_a_table_is_the_seeds_and_the_images():
  cards = {}
  rights = {
    'contrastive': [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]],
    'contrastive_ceb': [[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]],
  }
  rights |= {'byol': rights['contrastive'], 'byol_ceb': rights['contrastive']}
  for method, seeds in rights.items():
    for seed, right in enumerate(seeds):
      content, scores = make_card(right, nats=1.0 + seed)
      rows = {schema.key(row): row for row in content['numbers']}
      cards[method, seed] = rows, scores
  first, second = [
    line for line in reproduce.tables(cards) if 'logistic regression, %' in line
  ]
  apart = statistics.paired_over_seeds([50, 75, 25], [100, 75, 100])
  images = statistics.paired(
    np.mean(rights['contrastive'], 0), np.mean(rights['contrastive_ceb'], 0)
  )
  assert apart['mean'] == pytest.approx(125 / 3)
  assert first == (
    '| linear, frozen, logistic regression, % | 50.00 ± 25.00 | '
    '91.67 ± 14.43 | +41.67 | '
    f'{apart["low"]:+.2f} to {apart["high"]:+.2f}, p = {apart["p_value"]:.2g}'
    f' | {100 * images["low"]:+.2f} to {100 * images["high"]:+.2f}, p = '
    f'{images["p_value"]:.2g} |'
  )  # fmt: skip
  assert '| +0.00 |' in second


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(reproduce, 'ROOT', str(tmp_path))
  calls, status = [], [1]

  def call(*argv):
    folder = [a for a in argv if a.startswith('--model_dir=')][0][12:]
    mode = [a for a in argv if a.startswith('--mode=')][0]
    calls.append((mode, os.path.basename(folder)))
    if mode == '--mode=evaluate' and status[0] == 0:
      files.write(f'{folder}/eval', *make_card([0, 1, 1, 0], 2.0))
    return int(mode == '--mode=evaluate' and status[0])

  for module in (families, reproduce):
    monkeypatch.setattr(module, 'call', call)
  with pytest.raises(SystemExit, match='The same command resumes'):
    reproduce.main()
  assert calls == [
    *[('--mode=train', 'contrastive_0'), ('--mode=evaluate', 'contrastive_0')]
  ]
  status[0] = 0
  reproduce.main()
  assert len([c for c in calls if c[0] == '--mode=evaluate']) == 1 + 12
  # A card that lacks what is compared is made again.
  content, scores = make_card([1, 1, 0, 0], 2.0)
  content['numbers'] = content['numbers'][:3]
  files.write(f'{tmp_path}/byol_1/eval', content, scores)
  calls.clear()
  reproduce.main()
  evaluated = [name for mode, name in calls if mode == '--mode=evaluate']
  assert evaluated == ['byol_1']
  with open(f'{tmp_path}/results.md') as file:
    assert file.read() in capsys.readouterr().out
