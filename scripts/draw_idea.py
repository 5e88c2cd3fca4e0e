"""Draws the idea of compression from a run: views, encoders, information.

python scripts/draw_idea.py RUN [--output=idea.png]

RUN: the model_dir of a C-SimCLR with its untrained checkpoint, as the
quickstart leaves it. Needs matplotlib: pip install -e '.[plot]'. The picture of
the README is of

python run.py --preset=quickstart --train_summary_steps=10 --model_dir=runs/idea
"""

import argparse
import json
import os

import numpy as np

import quickstart_table  # Puts the project on the path.
from cvr.numerics.distributions import vmf_kl, vmf_mean_length

# Apart for readers with and without colour vision (Okabe and Ito).
BLUE, ORANGE, GREY = '#0072B2', '#D55E00', '#999999'
# Photographs of scikit-image of which views are shown, larger than the network
# sees them.
SHOWN = ('astronaut', 'chelsea', 'coffee')
SIDE = 160


def cosines(method, views):
  """-> cos(z, mean of b(z|y)) [n, n], z ~ e(z|x): same images on the diagonal.

  At most as many images as a batch has, for which noise is drawn.
  """
  rows = method.cfg.train_batch_size
  x, y = (
    method.location(method.embed(view[:rows])['projection']) for view in views
  )
  return method.sample(x, 0, 1).numpy() @ y.numpy().T


def curves(model_dir, floor):
  """-> steps, and I(Y;Z) and I(X;Z|Y) of held-out views at each.

  floor: the rate where both encoders point to the same direction.
  """
  with open(os.path.join(model_dir, 'metrics.jsonl')) as file:
    rows = [json.loads(line) for line in file]
  names = ('information/infonce_bound', 'information/residual')
  rows = {r['step']: [r[n] for n in names] for r in rows if names[0] in r}
  nats = np.array([rows[step] for step in sorted(rows)])
  return np.array(sorted(rows)), nats - [0, floor]


def views_of(recipe):
  """-> for every photograph of SHOWN its centre and two views of it."""
  import dataclasses

  import tensorflow as tf

  from cvr.data import augmentation, photo_patches

  # Not normalised: people look at them.
  recipe = dataclasses.replace(recipe, size=(SIDE, SIDE), mean_std=False)
  augment = augmentation.per_image(recipe, 2)
  rows = []
  for i, name in enumerate(SHOWN):
    image = tf.constant(photo_patches.read_photograph(name))
    made = augment(image, tf.constant([0, i]))
    batch = tf.nest.map_structure(lambda x: x[None], made)
    views = augmentation.per_batch(recipe, batch)['views']
    side = min(image.shape[:2])
    square = tf.image.resize_with_crop_or_pad(image, side, side) / 255
    rows.append([square, *(view[0] for view in views)])
  return rows


def pictures(figure, rows):
  axes = figure.subplots(len(rows), 3)
  for of_row, row in zip(axes, rows, strict=True):
    for ax, image in zip(of_row, row, strict=True):
      ax.imshow(np.clip(image, 0, 1))
      ax.set_axis_off()
  for ax, title in zip(axes[0], ('image', 'view x', 'view y'), strict=True):
    ax.set_title(title, fontsize=10)


def encoders(ax, before, after, most):
  """How near z ~ e(z|x) is to the mean of b(z|y), for same and other images."""
  bins = np.linspace(-1, 1, 81)
  for cos, style in ((before, 'step'), (after, 'stepfilled')):
    same = np.diag(cos)
    other = cos[~np.eye(len(cos), dtype=bool)]
    trained = style == 'stepfilled'
    for values, colour, name in (
      (other, GREY, 'other images'),
      (same, BLUE, 'the same image'),
    ):
      ax.hist(
        values, bins, density=True, histtype=style, color=colour,
        alpha=0.75 if trained else 1, linestyle='-' if trained else ':',
        label=name if trained else f'{name}, untrained',
      )  # fmt: skip
  ax.axvline(most, color=ORANGE, linewidth=1)
  ax.annotate(
    'most that\nnoise allows', (most, ax.get_ylim()[1]), color=ORANGE,
    ha='right', va='top', xytext=(-5, -2), textcoords='offset points',
    fontsize=9,
  )  # fmt: skip
  ax.set(
    xlabel='cosine of z ~ e(z|x) and the mean of b(z|y)',
    xlim=(-0.5, 1.05), xticks=[-0.5, 0, 0.5, 1], yticks=[],
  )  # fmt: skip
  ax.legend(frameon=False, fontsize=9, loc='upper left')


def information(ax, steps, nats):
  for values, colour, name in zip(
    nats.T,
    (BLUE, ORANGE),
    ('I(Y;Z): shared by both views', 'I(X;Z|Y): known to one view only'),
    strict=True,
  ):
    ax.plot(steps, values, color=colour, linewidth=2, label=name)
  ax.set(xlabel='training step', ylabel='nats, held-out images', ylim=(0, None))
  ax.legend(frameon=False, fontsize=9)


def draw(rows, before, after, line, points, output):
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure = pyplot.figure(figsize=(11, 3.4), layout='constrained')
  left, middle, right = figure.subfigures(1, 3, width_ratios=[1.1, 1.3, 1.3])
  pictures(left, rows)
  encoders(middle.subplots(), before, after, line)
  information(right.subplots(), *points)
  for part in (middle, right):
    part.axes[0].spines[['top', 'right']].set_visible(False)
  figure.savefig(output, dpi=120)


def main(argv=None):
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('run', metavar='RUN')
  parser.add_argument('--output', default='idea.png')
  given = parser.parse_args(argv)
  cfg, infos, plan, state = quickstart_table.opened(given.run)
  from cvr.checkpoints import files, saving
  from cvr.training import watch

  views, _ = watch.held_out(plan, infos[1])
  steps = files.steps(given.run)
  found = []
  for step in (steps[0], steps[-1]):
    saving.load_parts(files.prefix(given.run, step), method=state.method)
    found.append(cosines(state.method, views))
  dim = cfg.proj_out_dim
  # The expected cosine of z and the mean of e(z|x).
  most = float(vmf_mean_length(dim, cfg.kappa_e))
  floor = float(vmf_kl(dim, cfg.kappa_e, cfg.kappa_b, 1.0))
  points = curves(given.run, floor)
  draw(views_of(plan.recipe), *found, most, points, given.output)
  print(f'{given.run}, step {steps[-1]}: {given.output}')


if __name__ == '__main__':
  main()
