"""run.py with a thin ResNet of two blocks as --resnet_depth=18.

python tests/tiny_run.py FLAGS, for tests that need a process of their own. With
TINY_ENCODER=glance in the environment the encoder has no convolutions.
"""

import os
import sys

BLOCKS = (False, (1, 0, 0, 1))


def make_encoder(plan):
  import resnet

  cfg = plan.cfg
  return resnet.ResNet(
    cfg.resnet_depth,
    1 / 8,
    stem='small',
    bn_decay=cfg.batch_norm_decay,
    sync_bn=cfg.global_bn,
    shortcut=cfg.shortcut,
  )


def main(encoder=make_encoder):
  import run
  from cvr.startup import quiet_start

  quiet_start()
  import resnet
  from cvr.methods import skeletons

  if os.environ.get('TINY_ENCODER') == 'glance':
    from tiny_methods import Glance as encoder
  resnet.BLOCKS[18] = BLOCKS
  run.report_at_end = lambda *_: None  # It takes a moment.
  skeletons.make_encoder = encoder
  return run.main(sys.argv)


if __name__ == '__main__':
  sys.exit(main())
