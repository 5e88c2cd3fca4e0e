"""--mode=latents: what the latents of a trained model tell, as a report.

Forests on bits, capacity, whether the predicted variance ranks errors and rises
on corrupted images: the measures are latent_report's, here they get their rows.
"""

import io
import json
import os

import numpy as np
import tensorflow as tf

from cvr.configs import config
from cvr.data import sources
from cvr.evaluation import features
from cvr.evaluation.latents import report

# Images of the training split that forests are fitted on.
_FITTED = 20_000
# What images are shown under: a corruption of each kind, in the middle.
LOOKS = {
  f'{name} {severity}': features.Look(corruption=name, severity=severity)
  for name in ('gaussian_noise', 'defocus_blur', 'fog', 'contrast', 'pixelate')
  for severity in (3, 5)
}


def entropies(rows):
  """The entropy of each image's latent in nats, its uncertainty: [n].

  Of bits by their means; of Gaussians, whose deviation may be one for all.
  """
  mean = rows['latent_mean'].astype(np.float64)
  if 'latent_bits' in rows:
    p = np.clip(mean, 1e-12, 1 - 1e-12)
    return -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p), 1)
  log_std = np.log(rows['latent_std'].astype(np.float64))
  return mean.shape[1] * np.mean(log_std + (1 + np.log(2 * np.pi)) / 2, 1)


def _unpacked(rows):
  """-> (bits [n, dim], labels [n]), as forests take them."""
  dim = rows['latent_mean'].shape[1]
  return np.unpackbits(rows['latent_bits'], axis=1)[:, :dim], rows['labels']


def study(cfg, strategy, state, folder, say):
  """Writes latents.json, latents.md and latents.png to a folder."""
  has_bits = hasattr(state.method.latent, 'bits')
  report.check_packages(has_bits)
  test_info = sources.describe(cfg.dataset, cfg.data_dir, cfg.eval_split)
  if not test_info.class_names:
    raise config.ConfigError(
      f'--dataset={cfg.dataset} has no labels, which --mode=latents needs.'
    )

  read = features.make_read(cfg, strategy, state)

  def rows_of(info, look=features.CENTRAL):
    rows = features.whole(read, info, look)
    good = ~np.isnan(rows['latent_mean'][:, 0])
    return {name: value[good] for name, value in rows.items()}

  test = rows_of(test_info)
  numbers = {'dataset': test_info.name, 'split': test_info.split}
  if has_bits:
    bits = _unpacked(test)
    numbers['capacity'] = report.capacity(*bits)
    fitted = sources.describe(cfg.dataset, cfg.data_dir, cfg.train_split)
    fitted = sources.a_few(fitted, _FITTED)
    say(f'Forests on the bits of {fitted.num_examples:,} training images ...')
    counts = report.counts(bits[0].shape[1])
    numbers['forest'] = report.forest_curve(
      _unpacked(rows_of(fitted)), bits, counts, cfg.seed
    )
  scores = entropies(test)
  if 'logits' in test:
    wrong = test['logits'].argmax(1) != test['labels']
    numbers['uncertainty'] = report.uncertainty(scores, wrong)
  say(f'{len(LOOKS)} corruptions of {test_info.num_examples:,} images ...')
  corrupted = {k: entropies(rows_of(test_info, v)) for k, v in LOOKS.items()}
  numbers['corrupted'] = report.rises(scores, corrupted)
  write(numbers, folder)
  say('\n'.join(report.table(numbers)))
  say(f'Written: latents.json, latents.md, latents.png in {folder}')


def write(numbers, folder):
  """The report for programs, for readers and as a picture."""

  def open_new(name, kind='w'):
    return tf.io.gfile.GFile(os.path.join(folder, name), kind)

  with open_new('latents.json') as file:
    json.dump(numbers, file, indent=2)
  with open_new('latents.md') as file:
    file.write('\n'.join(report.table(numbers)))
  picture = io.BytesIO()
  report.draw(numbers, picture)
  with open_new('latents.png', 'wb') as file:
    file.write(picture.getvalue())
