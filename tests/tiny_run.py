"""run.py with a thin ResNet of two blocks as --resnet_depth=18.

python tests/tiny_run.py FLAGS, for tests that need a process of their own.
"""

import os
import signal
import sys

BLOCKS = (False, (1, 0, 0, 1))


def make_encoder(cfg):
  import resnet

  return resnet.ResNet(
    cfg.resnet_depth,
    1 / 8,
    stem='small',
    bn_decay=cfg.batch_norm_decay,
    sync_bn=cfg.global_bn,
  )


def _kill_after_saving(step):
  """As if the machine took the process away at this very moment."""
  import checkpoints

  save = checkpoints.Checkpoints.save

  def killed(self, at, *args, **more):
    save(self, at, *args, **more)
    if at == step:
      os.kill(os.getpid(), signal.SIGKILL)

  checkpoints.Checkpoints.save = killed


def main():
  import run

  run.quiet_start()
  import methods
  import resnet

  if 'KILL_AFTER_SAVING' in os.environ:
    _kill_after_saving(int(os.environ['KILL_AFTER_SAVING']))
  resnet.BLOCKS[18] = BLOCKS
  methods.make_encoder = make_encoder
  return run.main(sys.argv)


if __name__ == '__main__':
  sys.exit(main())
