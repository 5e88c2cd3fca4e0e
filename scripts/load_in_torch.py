"""Loads an export of --format=safetensors into PyTorch, and compares.

  python scripts/load_in_torch.py FOLDER

Needs torch, safetensors, and timm or torchvision. Copy load() and SamePool into
your own code.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors import safe_open
from torch import nn


class SamePool(nn.Module):
  """The 3x3 max pool as TensorFlow's SAME pads it.

  At the end, and at the start only of an odd number of rows or columns; torch's
  padding=1 always pads both. Inputs come from a ReLU: zeros are neutral.
  """

  def forward(self, x):
    rows, columns = x.shape[-2:]
    x = nn.functional.pad(x, (columns % 2, 1, rows % 2, 1))
    return nn.functional.max_pool2d(x, 3, 2)


def load(path, resnet):
  """-> (a ResNet in eval mode, mean, std of its images in [0, 1]).

  resnet: the module timm.models.resnet or torchvision.models.resnet.
  """
  with safe_open(path, 'pt') as file:
    tensors = {name: file.get_tensor(name) for name in file.keys()}
    metadata = file.metadata()
  groups = [f'layer{g}.' for g in range(1, 5)]
  counts = [
    len({n.split('.')[1] for n in tensors if n.startswith(g)}) for g in groups
  ]
  deep = 'layer1.0.conv3.weight' in tensors
  net = resnet.ResNet(resnet.Bottleneck if deep else resnet.BasicBlock, counts)
  for name, old in list(net.named_modules()):
    if f'{name}.weight' not in tensors:
      continue
    # Replaced: wider networks and other stems have the same names.
    out, *rest = tensors[f'{name}.weight'].shape
    if isinstance(old, nn.Conv2d):
      size = rest[1]
      stride = old.stride if name != 'conv1' else int(metadata['stem_stride'])
      new = nn.Conv2d(rest[0], out, size, stride, size // 2, bias=False)
    elif isinstance(old, nn.BatchNorm2d):
      new = nn.BatchNorm2d(out)
    else:
      new = nn.Linear(rest[0], out)
    parent, _, last = name.rpartition('.')
    setattr(net.get_submodule(parent), last, new)
  if 'fc.weight' not in tensors:
    net.fc = nn.Identity()
  net.maxpool = SamePool() if metadata['max_pool'] == 'true' else nn.Identity()
  net.load_state_dict(tensors)
  return net.eval(), json.loads(metadata['mean']), json.loads(metadata['std'])


def main(folder):
  (path,) = pathlib.Path(folder).glob('*.safetensors')
  name = 'timm' if importlib.util.find_spec('timm') else 'torchvision'
  resnet = importlib.import_module(f'{name}.models.resnet')
  net, mean, std = load(path, resnet)
  with np.load(pathlib.Path(folder) / 'parity.npz') as file:
    images = (file['images'] - np.float32(mean)) / np.float32(std)
    probed = not isinstance(net.fc, nn.Identity)
    ours = file['logits_sup' if probed else 'final_avg_pool']
  with torch.no_grad():
    theirs = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
  worst = np.abs(ours - theirs).max() / np.abs(ours).max()
  print(f'{path}: {name} differs by {worst:.1e} of the largest value')
  return 0 if worst <= 1e-4 else 1


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
