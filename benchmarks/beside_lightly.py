"""SimCLR of lightly and torchvision, for benchmarks.beside.

Run with a Python that has torch, torchvision and lightly.
"""

import argparse

import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.utils.lars import LARS

from benchmarks import turns


class SimCLR(torch.nn.Module):
  """Images -> projections."""

  def __init__(self, depth, size, hidden, stride):
    super().__init__()
    net = getattr(torchvision.models, f'resnet{depth}')()
    if size <= 64:  # As is usual for CIFAR.
      net.conv1 = torch.nn.Conv2d(3, 64, 3, stride, 1, bias=False)
      net.maxpool = torch.nn.Identity()
    width = net.fc.in_features
    net.fc = torch.nn.Identity()
    self.net = net
    self.head = SimCLRProjectionHead(width, hidden, 128)

  def forward(self, x):
    return self.head(self.net(x))


def make_step(
  depth, size, batch, precision='fp32', how='eager', hidden=2048, stride=1
):
  """-> a function that does one step.

  how: eager, channels_last, or compiled. stride: of the stem for small images.
  """
  torch.manual_seed(0)
  model = SimCLR(depth, size, hidden, stride)
  loss = NTXentLoss(temperature=0.1)
  views = torch.rand(2 * batch, 3, size, size)
  if how != 'eager':
    model = model.to(memory_format=torch.channels_last)
    views = views.to(memory_format=torch.channels_last)
  optimizer = LARS(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
  forward = torch.compile(model) if how == 'compiled' else model

  def step():
    optimizer.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
      z = forward(views)
    first, second = z.float().chunk(2)
    value = loss(first, second)
    value.backward()
    optimizer.step()

  return step


def first_step():
  """The network and batch of the quickstart, on noise."""
  make_step(18, 32, 256, hidden=512, stride=2)()
  print('step 1/1', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--step', nargs=4)
  parser.add_argument('--start', action='store_true')
  args = parser.parse_args()
  if args.start:
    first_step()
    return
  *sizes, precision = args.step
  turns.serve(
    {
      f'lightly, {how}': make_step(*map(int, sizes), precision, how)
      for how in ('eager', 'channels_last', 'compiled')
    }
  )


if __name__ == '__main__':
  main()
