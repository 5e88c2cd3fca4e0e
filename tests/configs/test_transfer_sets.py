"""The table of transfer sets against the papers and TFDS, and its flag."""

import pytest
import tensorflow_datasets as tfds

from cvr.configs import transfer_sets

SETS = transfer_sets.SETS
IN_TFDS = [name for name, row in SETS.items() if row.dataset]
# Images in all of train, and classes, as the sets' own authors publish them.
PUBLISHED = {
  'food101': (101 * 750, 101),
  'cifar10': (50000, 10),
  'cifar100': (50000, 100),
  'flowers': (102 * 20, 102),
  'pets': (3680, 37),
  'cars': (8144, 196),
  'caltech101': (102 * 30, 102),  # 101 and the background
  'dtd': (2 * 47 * 40, 47),
  'sun397': (397 * 50, 397),
  'aircraft': (6667, 100),
  'birdsnap': (47386, 500),
}


def test_rows_are_those_of_the_papers():
  # C-SimCLR's slides: the order of their table.
  assert list(SETS) == list(PUBLISHED)
  per_class = {n for n, row in SETS.items() if row.metric == 'mean_per_class'}
  assert per_class == {'aircraft', 'pets', 'caltech101', 'flowers'}
  others = {row.metric for name, row in SETS.items() if name not in per_class}
  assert others == {'top_1'}
  for name, row in SETS.items():
    train, validation, test = row.sizes
    assert train + validation == PUBLISHED[name][0]
    assert len({row.train, row.validation, row.test}) == 3
  with_validation = {name for name, row in SETS.items() if row.validation}
  assert with_validation == {'flowers', 'dtd', 'aircraft'}


class NoDownloads:
  """Stands where TFDS downloads; which splits there are needs no image."""

  def __init__(self, folder):
    self.folder = folder
    # What is read before any image: names of classes, and of images.
    ten, hundred = 'cifar-10-batches-bin', 'cifar-100-binary'
    for name, lines in {
      f'{ten}/batches.meta.txt': 10,
      f'{hundred}/coarse_label_names.txt': 20,
      f'{hundred}/fine_label_names.txt': 100,
      'Training_01.txt': 0,
      'Testing_01.txt': 0,
    }.items():
      (folder / name).parent.mkdir(exist_ok=True)
      (folder / name).write_text('\n'.join(map(str, range(lines))))

  def download_and_extract(self, what):
    several = isinstance(what, dict)
    return dict.fromkeys(what, self.folder) if several else self.folder

  extract = download_and_extract

  def iter_archive(self, _):
    return iter(())


@pytest.mark.parametrize('name', IN_TFDS)
def test_tfds_has_the_set_and_its_splits(name, tmp_path):
  row = SETS[name]
  base = row.dataset.partition('/')[0]
  assert base in tfds.list_builders(with_community_datasets=False)
  builder = tfds.builder(row.dataset, data_dir=tmp_path)
  label = builder.info.features['label']
  assert isinstance(label, tfds.features.ClassLabel)
  assert label.num_classes == PUBLISHED[name][1]
  made = builder._split_generators(NoDownloads(tmp_path))
  made = {str(getattr(split, 'name', split)) for split in made}
  # All of them: no validation images that we would hold out once more.
  assert made == {row.train, row.validation, row.test} - {''}


def test_what_tfds_lacks():
  known = tfds.list_builders(with_community_datasets=False)
  lacking = set(SETS) - set(IN_TFDS)
  assert lacking == {'aircraft', 'birdsnap'}
  assert not [base for base in known for name in lacking if name in base]


def test_all_sets_and_where_some_lie():
  everything = transfer_sets.parse('all')
  assert list(everything) == list(SETS)
  assert everything['birdsnap'] == everything['aircraft'] == ''
  assert everything['sun397'] == 'sun397/standard-part1-120k'
  for text in (
    ' all , birdsnap = folder:/my b=1 ',
    'birdsnap=folder:/my b=1,all',
  ):
    placed = transfer_sets.parse(text)
    assert placed == everything | {'birdsnap': 'folder:/my b=1'}
    assert list(placed) == list(SETS)
  some = transfer_sets.parse('dtd,birdsnap=folder:~/b,cars=mine/one:1.0.0,')
  assert some == {
    'dtd': 'dtd', 'birdsnap': 'folder:~/b', 'cars': 'mine/one:1.0.0'
  }  # fmt: skip
  assert list(some) == ['dtd', 'birdsnap', 'cars']
  assert transfer_sets.parse('') == {}


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('ciffar10', 'did you mean cifar10'),
    ('oxford_iiit_pet', 'did you mean pets?'),
    ('sun', 'did you mean sun397?'),
    ('qqq', 'there are: all, food101'),
    ('=folder:x', 'there are: all'),
    ('all=folder:x', "'all' is not a transfer set"),
    ('birdsnap', 'birdsnap=folder:PATH'),
    ('cars=', 'cars=folder:PATH'),
    ('dtd,cars,dtd', 'dtd is named twice'),
    ('a\nb' * 999, 'there are'),
  ],
)
def test_refuses(text, says):
  with pytest.raises(ValueError, match='^[^\n]{,300}$') as error:
    transfer_sets.parse(text)
  assert says in str(error.value)


def test_splits_of_folders_never_validate_on_test():
  for name, row in SETS.items():
    given = transfer_sets.splits(name, row.dataset or 'mine')
    assert given == (row.train, row.validation, row.test)
    train, validation, test = transfer_sets.splits(name, 'folder:PATH')
    assert (train, test) == ('train', 'test')
    assert validation == ('val' if row.validation else '')


def test_as_many_are_held_out_as_in_byol():
  for name, row in SETS.items():
    train, validation, _ = row.sizes
    assert transfer_sets.held_out(name, train + validation) == validation
  assert transfer_sets.held_out('cifar10', 1000) == 100


def test_sizes_that_differ_are_said():
  for name, row in SETS.items():
    assert transfer_sets.check_sizes(name, row.sizes) == ''
  # What TFDS makes of Caltech-101.
  note = transfer_sets.check_sizes('caltech101', (2549, 510, 6085))
  assert note == (
    'caltech101: train has 2,549 images, not 2,550, test has 6,085 images, '
    'not 6,084 (BYOL, Table 10)'
  )
