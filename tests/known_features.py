"""Subjects whose features and right answers are known, for tests of suites."""

import numpy as np

from cvr.data import sources
from cvr.evaluation.subject import Missing
from small_data import CLASSES, encoded, write

SETTINGS = {
  'mode': 'evaluate',
  'model_dir': 'none',
  'dataset': '',
  'eval_split': 'val',
  'train_mode': 'finetune',
  'image_size': 16,
  'linear_passes': 2,
}
COUNTS = {'train': 40, 'val': 20}


def make_images(root, counts=COUNTS, classes=CLASSES):
  for split, count in counts.items():
    for name in classes:
      for i in range(count):
        write(f'{root}/{split}/{name}/{i:02d}.png', encoded(i))
  return f'folder:{root}'


class Encoder:
  """Features that tell the class, or noise, in place of a network's."""

  def __init__(self, told=True, dim=6):
    self.told, self.dim, self.seen = told, dim, []

  def __call__(self, info, look):
    self.seen.append((info.split, look))
    n = info.num_examples
    draw = np.random.default_rng([n, look.random, look.severity])
    rows = draw.normal(size=[n, self.dim]).astype(np.float32)
    labels = np.array(info.labels)
    if self.told:
      rows[np.arange(n), labels] += 20
    ids = np.array([sources.example_id(info, i) for i in range(n)])
    logits = 0 * rows[:, :3]
    logits[:, 1] = 1  # The probe says 1, whatever it sees.
    # In batches, of which one cannot be decoded.
    for at in np.array_split(np.arange(n), 3):
      yield {
        'representation': rows[at],
        'logits': logits[at],
        'labels': labels[at],
        'ids': ids[at],
      }


def shuffled(split):
  class Shuffled(Encoder):
    """The same features under other labels, in the evaluation split alone."""

    def __call__(self, info, look):
      for rows in super().__call__(info, look):
        if info.split == split:
          rows['labels'] = (rows['labels'] + 1) % 3
        yield rows

  return Shuffled()


def values(numbers):
  return {n.name: n.value for n in numbers if not isinstance(n, Missing)}
