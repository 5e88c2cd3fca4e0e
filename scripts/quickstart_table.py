"""Prints what a run learned: a logistic probe on the encoder, before, after.

python scripts/quickstart_table.py runs/quickstart
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cvr.checkpoints.stored import read_stored
from cvr.configs import command_line
from cvr.startup import quiet_start, stops_in_a_line

MORE = """More to try:

  . .venv/bin/activate
  python run.py --preset=quickstart --pretrain_loss=contrastive \\
      --model_dir=runs/simclr
      The same run of SimCLR, to compare with:
  python run.py --mode=report --model_dir={model_dir} --compare=runs/simclr
      Both runs in one report: curves on the same axes, pictures side by side.
  python run.py --preset=quickstart --dataset=folder:PATH --model_dir=runs/mine
      Your own images: PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg."""


def opened(model_dir):
  """A run's folder -> (its configuration, splits, plan, state to load into)."""
  quiet_start()
  import tensorflow as tf

  # Several models in one process are traced anew, which it warns of.
  tf.get_logger().setLevel('ERROR')

  from cvr.configs.plan import make_plan
  from cvr.data import sources
  from cvr.training import start
  from cvr.training.step import make_state

  argv = ['run.py', '--mode=eval', f'--model_dir={model_dir}']
  cfg = command_line.parse(argv, read_stored)
  infos = [
    sources.describe(cfg.dataset, cfg.data_dir, split)
    for split in (cfg.train_split, cfg.eval_split)
  ]
  start.set_numerics(cfg)
  plan = make_plan(
    cfg, infos[0].num_examples, len(infos[0].class_names), replicas=1
  )
  return cfg, infos, plan, make_state(plan)


def measure(model_dir, ends=(0, -1)):
  """-> (classes, steps there are, top-1 at those that `ends` points at)."""
  quiet_start()
  from cvr.checkpoints import files, saving

  steps = files.steps(model_dir)
  if not steps or (0 in ends and steps[0] != 0):
    sys.exit(f'{model_dir} holds no checkpoint of the untrained encoder')
  cfg, infos, plan, state = opened(model_dir)
  import tensorflow as tf

  from cvr.evaluation import features, online

  context = tf.distribute.InputContext()
  sizes = cfg.image_size, cfg.eval_batch_size
  splits = [
    features.eval_input(info, *sizes, features.central(cfg))(context)
    for info in infos
  ]
  accuracies = []
  for step in [steps[end] for end in ends]:
    saving.load_parts(files.prefix(model_dir, step), method=state.method)
    rows = [
      online.extract(
        lambda images: state.method.embed(images)['representation'],
        split,
        plan.recipe.mean_std,
      )
      for split in splits
    ]
    accuracies.append(online.logistic_probe(*rows))
  return len(infos[1].class_names), steps, accuracies


def main(model_dir):
  classes, steps, (before, after) = measure(model_dir)
  print(f"""
held-out images, logistic probe     step    top-1
--------------------------------  ------  -------
chance                                    {100 / classes:6.1f}%
untrained encoder                 {steps[0]:6d}  {100 * before:6.1f}%
trained encoder                   {steps[-1]:6d}  {100 * after:6.1f}%

{MORE.format(model_dir=model_dir)}""")


if __name__ == '__main__':
  stops_in_a_line()
  main(sys.argv[1])
