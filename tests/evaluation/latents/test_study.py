"""--mode=latents: the report of a run, from the command line."""

import json
import sys

import numpy as np
import pytest

from bit_runs import DIM, call, extracted
from cvr.evaluation.corruptions import corruptions
from cvr.evaluation.latents import report, study

KINDS = ('stochcon_bernoulli', 'stochcon_gaussian')


def studied(model_dir, *more):
  assert call('--mode=latents', f'--model_dir={model_dir}', *more) == 0
  with open(f'{model_dir}/eval/latents.json') as file:
    return json.load(file)


@pytest.mark.parametrize('kind', KINDS)
def test_the_report_of_a_run(kind, tmp_path, run_copy, capsys, monkeypatch):
  model_dir, _ = run_copy(kind)
  looks = ('gaussian_noise 5', 'fog 3')
  monkeypatch.setattr(
    study, 'CORRUPTIONS', {k: study.CORRUPTIONS[k] for k in looks}
  )
  given = []
  curve = [{'bits': 1, 'macro_f1': 0.25, 'accuracy': 0.5}]
  monkeypatch.setattr(
    report, 'forest_curve', lambda *args: given.append(args) or curve
  )
  numbers = studied(model_dir)
  said = capsys.readouterr().out
  assert all(line in said for line in report.table(numbers))
  with open(f'{model_dir}/eval/latents.png', 'rb') as file:
    assert file.read(8) == b'\x89PNG\r\n\x1a\n'
  rows = extracted(model_dir, f'{tmp_path}/f.npz')
  wrong = rows['logits'].argmax(1) != rows['labels']
  scores = study.entropies(rows)
  expected = report.uncertainty(scores, wrong)
  np.testing.assert_allclose(
    numbers['uncertainty'].pop('curve'), expected.pop('curve')
  )
  assert numbers['uncertainty'] == pytest.approx(expected)
  assert numbers['corrupted'].keys() == study.CORRUPTIONS.keys()
  for row in numbers['corrupted'].values():
    assert row['clean_mean'] == pytest.approx(scores.mean(), rel=1e-5)
  # The images are each of one colour.
  assert numbers['corrupted']['gaussian_noise 5']['mean'] != pytest.approx(
    scores.mean(), rel=1e-4
  )
  assert ('forest' in numbers) == ('latent_bits' in rows) == (kind == KINDS[0])
  if kind == KINDS[0]:
    bits = np.unpackbits(rows['latent_bits'], axis=1)[:, :DIM]
    test_labels = rows['labels']
    assert numbers['capacity'] == report.capacity(bits, test_labels)
    # Fitted on the training split, told of the evaluation's.
    train = extracted(model_dir, f'{tmp_path}/t.npz', '--eval_split=train')
    fitted = np.unpackbits(train['latent_bits'], axis=1)[:, :DIM]
    ((on, of, counts, seed),) = given
    for (rows, labels), pair in (
      (on, (fitted, train['labels'])),
      (of, (bits, test_labels)),
    ):
      np.testing.assert_array_equal(rows, pair[0])
      np.testing.assert_array_equal(labels, pair[1])
    assert (counts, seed) == (report.counts(DIM), 0)
    assert numbers['forest'] == curve


def test_images_that_are_not_rgb_are_not_corrupted(run_copy, capsys):
  model_dir, _ = run_copy('stochcon_gaussian', '--channels=1')
  numbers = studied(model_dir)
  assert 'corrupted' not in numbers and 'uncertainty' in numbers
  assert '--channels=1: no corruptions' in capsys.readouterr().out


def test_looks_are_corruptions():
  assert len(study.CORRUPTIONS) == 10
  for name, look in study.CORRUPTIONS.items():
    assert name == f'{look["corruption"]} {look["severity"]}'
    assert look['corruption'] in corruptions.CORRUPTIONS
    assert look['severity'] in (3, 5)


def test_entropies_of_bits_and_gaussians():
  p = np.array([[0.5, 0.25], [1.0, 0.0]])
  bits = {'latent_mean': p, 'latent_bits': None}
  expected = np.log(2) - 0.25 * np.log(0.25) - 0.75 * np.log(0.75)
  assert study.entropies(bits) == pytest.approx([expected, 0], abs=1e-9)
  std = np.array([[0.5], [2.0]])
  found = study.entropies({'latent_mean': p, 'latent_std': std})
  each = np.log(std[:, 0] * np.sqrt(2 * np.pi * np.e))
  assert found == pytest.approx(2 * each)
  per_dim = {'latent_mean': p, 'latent_std': np.array([[0.5, 2.0]] * 2)}
  assert study.entropies(per_dim) == pytest.approx([each.sum()] * 2)


def test_who_has_no_latents(run_copy, capsys):
  model_dir, _ = run_copy('contrastive_ceb', '--no_augmentation=false')
  flags = ['--mode=latents', f'--model_dir={model_dir}']
  assert call(*flags) == 2
  assert (
    'needs a model of --pretrain_loss=stochcon_b' in capsys.readouterr().err
  )


def test_a_missing_package_is_named_at_once(run_copy, capsys, monkeypatch):
  model_dir, _ = run_copy(KINDS[1])
  monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
  assert call('--mode=latents', f'--model_dir={model_dir}') == 2
  assert "pip install -e '.[plot]'" in capsys.readouterr().err
