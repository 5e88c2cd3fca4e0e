"""--mode=latents: a report of the latents of a trained model.

Forests on bits, capacity, whether the predicted variance ranks errors and rises
on corrupted images: the measures are report's, here they get their rows.
"""

import io
import json
import os

import numpy as np

from cvr.checkpoints.files import write_atomically
from cvr.configs import config, derived
from cvr.data import sources
from cvr.evaluation import features
from cvr.evaluation.latents import report

# Images of the training split that forests are fitted on.
_FITTED = 20_000
# One corruption of each kind, and a second digital one; middle and strong.
CORRUPTIONS = {
  f'{name} {severity}': {'corruption': name, 'severity': severity}
  for name in ('gaussian_noise', 'defocus_blur', 'fog', 'contrast', 'pixelate')
  for severity in (3, 5)
}


def entropies(rows):
  """The entropy of each image's latent in nats, its uncertainty: [n].

  Of bits from their means; of Gaussians, whose deviation may be shared.
  """
  mean = rows['latent_mean'].astype(np.float64)
  if 'latent_bits' in rows:
    p = np.clip(mean, 1e-12, 1 - 1e-12)
    return -np.sum(p * np.log(p) + (1 - p) * np.log(1 - p), 1)
  log_std = np.log(rows['latent_std'].astype(np.float64))
  return mean.shape[1] * np.mean(log_std + (1 + np.log(2 * np.pi)) / 2, 1)


def _unpacked(rows):
  """-> (bits [n, dim], labels [n])."""
  dim = rows['latent_mean'].shape[1]
  return np.unpackbits(rows['latent_bits'], axis=1)[:, :dim], rows['labels']


def study(cfg, strategy, state, folder, say):
  """Writes latents.json, latents.md and latents.png to a folder."""
  has_bits = hasattr(state.method.latent, 'bits')
  report.check_packages(has_bits)
  test_info = sources.describe(
    cfg.dataset, cfg.data_dir, cfg.eval_split, **derived.pixels(cfg)
  )
  if not test_info.class_names:
    raise config.ConfigError(
      f'--dataset={cfg.dataset} has no labels, which --mode=latents needs.'
    )

  read = features.make_read(cfg, strategy, state)

  def rows_of(info, **corruption):
    scale = derived.corrupt_scale(cfg)
    look = features.central(cfg)._replace(scale=scale, **corruption)
    rows = features.read_all(read, info, look)
    return features.only_decoded(rows, f'{info.name}, {info.split}')

  test = rows_of(test_info)
  numbers = {'dataset': test_info.name, 'split': test_info.split}
  if has_bits:
    bits = _unpacked(test)
    numbers['capacity'] = report.capacity(*bits)
    train = sources.describe(
      cfg.dataset, cfg.data_dir, cfg.train_split, **derived.pixels(cfg)
    )
    train = sources.a_few(train, _FITTED)
    say(f'Forests on the bits of {train.num_examples:,} training images ...')
    counts = report.counts(bits[0].shape[1])
    numbers['forest'] = report.forest_curve(
      _unpacked(rows_of(train)), bits, counts, cfg.seed
    )
  scores = entropies(test)
  if 'logits' in test:
    wrong = test['logits'].argmax(1) != test['labels']
    numbers['uncertainty'] = report.uncertainty(scores, wrong)
  if cfg.channels == 3:
    say(
      f'{len(CORRUPTIONS)} corruptions of {test_info.num_examples:,} images ...'
    )
    corrupted = {
      name: entropies(rows_of(test_info, **corruption))
      for name, corruption in CORRUPTIONS.items()
    }
    numbers['corrupted'] = report.rises(scores, corrupted)
  else:
    say(
      f'--channels={cfg.channels}: no corruptions, because they need RGB images'
    )
  write(numbers, folder)
  say('\n'.join(report.table(numbers)))
  say(f'Written: latents.json, latents.md, latents.png in {folder}')


def write(numbers, folder):
  """The report as JSON, as Markdown and as a picture."""
  picture = io.BytesIO()
  report.draw(numbers, picture)
  files = {
    'latents.json': json.dumps(numbers, indent=2),
    'latents.md': '\n'.join(report.table(numbers)),
    'latents.png': picture.getvalue(),
  }
  for name, content in files.items():
    write_atomically(os.path.join(folder, name), content)
