"""ImageNet-C's means, class masks and list files against known answers."""

import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvr.configs import variants
from cvr.evaluation.suites import robustness_sets

SETS = variants.SETS
ALEXNET = variants.ALEXNET_ERRORS
# AlexNet at severities 1 to 5, as ImageNet-C's authors gave them out.
ALEXNET_SEVERITIES = {
  'gaussian_noise': (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
  'shot_noise': (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
  'impulse_noise': (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
  'defocus_blur': (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
  'glass_blur': (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
  'motion_blur': (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
  'zoom_blur': (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
  'snow': (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
  'frost': (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
  'fog': (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
  'brightness': (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
  'contrast': (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
  'elastic_transform': (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
  'pixelate': (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
}
# ResNet-50's corruption errors in the ImageNet-C paper, in its order, percent.
RESNET50 = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)


def random(seed=0):
  return np.random.default_rng(seed)


def some_accuracies(shape=()):
  draw = random()
  return {(c, s): draw.random(shape) for c in ALEXNET for s in range(1, 6)}


# The table -------------------------------------------------------------------


class NoDownloads:
  """Stands where TFDS downloads; which splits there are needs no image."""

  def __init__(self, folder):
    self.folder = self.manual_dir = folder
    for split in ('train', 'val', 'test'):
      tarfile.open(folder / f'ILSVRC2012_img_{split}.tar', 'w').close()

  def download_and_extract(self, _):
    return self.folder

  download = download_and_extract

  def iter_archive(self, _):
    return iter(())


def check_tfds(dataset, split, folder):
  base = dataset.partition('/')[0]
  assert base in tfds.list_builders(with_community_datasets=False)
  builder = tfds.builder(dataset, data_dir=folder)
  label = builder.info.features['label']
  assert isinstance(label, tfds.features.ClassLabel)
  # All of them share ImageNet's labels, even those with 200 classes.
  assert label.num_classes == 1000
  imagenet = tfds.builder('imagenet2012', data_dir=folder)
  assert label.names == imagenet.info.features['label'].names
  made = builder._split_generators(NoDownloads(folder))
  assert split in [str(each.name) for each in made]


@pytest.mark.parametrize('name', ['imagenet_a', 'imagenet_r', 'imagenet_v2'])
def test_tfds_has_the_set_and_its_split(name, tmp_path):
  check_tfds(SETS[name].dataset, SETS[name].split, tmp_path)


def test_sets_that_tfds_lacks():
  known = tfds.list_builders(with_community_datasets=False)
  assert [n for n, row in SETS.items() if not row.dataset] == [
    'objectnet', 'imagenet_vid', 'youtube_bb'
  ]  # fmt: skip
  for word in ('objectnet', 'imagenet_vid', 'ytbb', 'youtube_bb'):
    assert not [base for base in known if word in base]


def test_the_75_corruptions(tmp_path):
  found = robustness_sets.corrupted()
  assert len(found) == 75
  configs = tfds.builder_cls('imagenet2012_corrupted').builder_configs
  for (corruption, severity), (dataset, split) in found.items():
    base, config = dataset.split('/')
    assert (base, split) == ('imagenet2012_corrupted', 'validation')
    assert configs[config].corruption_type == corruption
    assert configs[config].severity == severity
  check_tfds(*found['jpeg_compression', 5], tmp_path)
  beside = robustness_sets.corrupted('folder:/data/c/')
  assert beside.keys() == found.keys()
  assert beside['snow', 3] == ('folder:/data/c/snow', '3')


# ImageNet-C ------------------------------------------------------------------


def test_alexnets_errors_are_means_over_severities():
  for corruption, errors in ALEXNET_SEVERITIES.items():
    assert ALEXNET[corruption] == pytest.approx(sum(errors) / 5, abs=1e-12)
  # The only one not among them; in percent, as the paper rounds it.
  jpeg = 100 * ALEXNET['jpeg_compression']
  assert jpeg == pytest.approx(60.7, abs=0.05 + 1e-9)


def test_alexnet_has_100_and_a_perfect_one_0():
  by_severity = ALEXNET_SEVERITIES | {
    'jpeg_compression': [ALEXNET['jpeg_compression']] * 5
  }
  acc = {(c, s + 1): 1 - by_severity[c][s] for c in ALEXNET for s in range(5)}
  assert robustness_sets.mce(acc) == pytest.approx(100, abs=1e-10)
  assert robustness_sets.mce(dict.fromkeys(acc, 1)) == 0
  # Chance is worse than AlexNet, by the mean of what it gets right.
  wanted = 100 * sum(1 / error for error in ALEXNET.values()) / 15
  chance = robustness_sets.mce(dict.fromkeys(acc, 0))
  assert chance == pytest.approx(wanted, rel=1e-12)


def test_resnet50_of_the_paper():
  """Its errors, printed in whole percents, give its mCE and mean error."""
  errors = dict(zip(ALEXNET, RESNET50, strict=True))
  acc = {
    (c, severity): 1 - errors[c] / 100 * ALEXNET[c]
    for c in ALEXNET
    for severity in range(1, 6)
  }
  assert robustness_sets.mce(acc) == pytest.approx(76.7, abs=0.5)
  assert robustness_sets.mean_accuracy(acc) == pytest.approx(0.39, abs=0.005)


def test_mean_and_mce_by_loops():
  acc = some_accuracies()
  mean = sum(acc.values()) / 75
  assert robustness_sets.mean_accuracy(acc) == pytest.approx(mean, abs=1e-14)
  ce = []
  for c in ALEXNET:
    ours = sum(1 - acc[c, s] for s in range(1, 6))
    ce.append(ours / (5 * ALEXNET[c]))
  wanted = 100 * sum(ce) / 15
  assert robustness_sets.mce(acc) == pytest.approx(wanted, abs=1e-11)
  backwards = dict(reversed(acc.items()))
  assert robustness_sets.mce(backwards) == robustness_sets.mce(acc)


def test_scores_of_images_average_to_the_numbers():
  images = {key: a < 0.4 for key, a in some_accuracies((7,)).items()}
  means = {key: right.mean() for key, right in images.items()}
  for what in (robustness_sets.mean_accuracy, robustness_sets.mce):
    scores = what(images)
    assert scores.shape == (7,)
    assert scores.mean() == pytest.approx(what(means), abs=1e-11)
  third = {key: right[3] for key, right in images.items()}
  assert scores[3] == pytest.approx(robustness_sets.mce(third), abs=1e-11)


@pytest.mark.parametrize(
  'what', [robustness_sets.mean_accuracy, robustness_sets.mce]
)
def test_no_mean_of_something_else(what):
  acc = some_accuracies()
  without = {key: a for key, a in acc.items() if key != ('fog', 4)}
  with pytest.raises(ValueError, match=r'^1 of 75 .*\(fog_4'):
    what(without)
  with pytest.raises(ValueError, match='saturate'):
    what(acc | {('saturate', 1): 0.5})
  for bad in (38.5, np.nan, -0.1):
    with pytest.raises(ValueError, match=r'\[0, 1\]'):
      what(acc | {('fog', 4): bad})


# Class masks -----------------------------------------------------------------


def test_a_mask_changes_the_answer():
  logits = np.array([[5.0, 1, 2, 3], [0, 9, 1, 2], [1, 2, 3, 4]], np.float32)
  everything = np.ones(4, bool)
  assert robustness_sets.predicted(logits, everything).tolist() == [0, 1, 3]
  mask = robustness_sets.mask_of([1, 2, 2], 4)
  assert mask.tolist() == [False, True, True, False]
  assert robustness_sets.predicted(logits, mask).tolist() == [2, 1, 2]


def test_the_mask_is_that_of_a_loop():
  draw = random()
  logits = draw.normal(size=(50, 30))
  labels = draw.choice(30, 12)
  mask = robustness_sets.mask_of(labels, 30)
  guesses = robustness_sets.predicted(logits, mask)
  for row, guess in zip(logits, guesses, strict=True):
    inside = [c for c in range(30) if c in labels]
    assert guess == max(inside, key=lambda c: row[c])
  assert mask.sum() == len({*labels})
  several = robustness_sets.mask_of([(3, 7), (7,), (0,)], 9)
  assert np.flatnonzero(several).tolist() == [0, 3, 7]


def test_nan_is_never_right():
  logits = np.array([[np.nan, 1, 2], [1, np.nan, 0], [np.nan] * 3])
  mask = robustness_sets.mask_of([1, 2], 3)
  assert robustness_sets.predicted(logits, mask).tolist() == [2, -1, -1]


@pytest.mark.parametrize('labels', [[0, 9], [-1, 0], [(0, 2), (9, 1)]])
def test_masks_refuse_labels_outside(labels):
  with pytest.raises(ValueError, match='label (9|-1) is none of the 9 classes'):
    robustness_sets.mask_of(labels, 9)
  with pytest.raises(ValueError, match='no labels'):
    robustness_sets.mask_of([], 9)


def test_masks_in_words():
  mask = np.arange(1000) < 200
  assert robustness_sets.described(mask) == '200 of 1000 classes'
  assert robustness_sets.described(np.ones(9, bool)) == 'all 9 classes'
  assert robustness_sets.check_classes('imagenet_a', mask) == ''
  note = robustness_sets.check_classes('imagenet_r', mask[:199])
  assert note.startswith('imagenet_r: 199 classes occur, not 200')
  assert robustness_sets.check_classes('imagenet_v2', mask) != ''
  assert robustness_sets.check_classes('objectnet', mask[:3]) == ''


def test_folders_are_relabelled_as_the_classifier_counts():
  trained = ['n01', 'n02', 'n03', 'n04']
  labels = np.array([0, 1, 1, 0])
  found = robustness_sets.relabelled(labels, ['n02', 'n04'], trained)
  assert found.tolist() == [1, 3, 3, 1]


def test_folders_of_numbers_are_the_classifiers_labels():
  """ImageNet-v2 as published: folders 0, 1, 10, 100, ... when sorted."""
  trained = [f'n{i:08}' for i in range(1000)]
  names = sorted(map(str, range(1000)))
  assert names[2] == '10'
  found = robustness_sets.relabelled(range(1000), names, trained)
  assert found.tolist() == [int(name) for name in names]


def test_relabelling_refuses_what_it_does_not_know():
  with pytest.raises(ValueError, match="class 'cat' is none of the 2 classes"):
    robustness_sets.relabelled([0], ['cat'], ['n1', 'n2'])
  with pytest.raises(ValueError, match="class '2' is none"):
    robustness_sets.relabelled([0], ['2'], ['n1', 'n2'])
  with pytest.raises(ValueError, match='without a label'):
    robustness_sets.relabelled([0, -1], ['n1'], ['n1', 'n2'])


# List files ------------------------------------------------------------------

HEAD = 'path,classes,group\n'


@pytest.fixture
def folder(tmp_path):
  for name in ('v/a.jpg', 'v/b.jpg', 'v/c.jpg', 'd.png', 'e, f.png'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  return tmp_path


def written(folder, text):
  path = folder / 'list.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


def read(folder, text, num_classes=20):
  return robustness_sets.read_list(str(written(folder, text)), num_classes)


def test_a_list_is_read(folder):
  frames = read(
    folder,
    '\ufeffgroup, path,classes,note\r\n'
    'x,v/b.jpg,7 12 7,the anchor\r\n'
    ',d.png,3,\r\n'
    '\r\n'
    'x,./v//a.jpg, 12,\r\n'
    ',"e, f.png",0,\r\n'
    '2,v/c.jpg,19,\r\n',
  )
  assert frames.paths == ('v/b.jpg', 'd.png', 'v/a.jpg', 'e, f.png', 'v/c.jpg')
  assert frames.classes == ((7, 12), (3,), (12,), (0,), (19,))
  # Rows without a group are apart, whatever lines and groups are called.
  assert frames.groups.tolist() == [0, 1, 0, 2, 3]
  assert frames.anchors.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(
  ('text', 'says'),
  [
    ('', 'no column path, classes, group'),
    ('path,classes\nd.png,1\n', 'no column group'),
    (HEAD, 'no images'),
    (HEAD + 'd.png,20,\n', 'line 2: class 20 is none of the 20'),
    (HEAD + 'd.png,-1,\n', "line 2: classes '-1'"),
    (HEAD + 'd.png,,\n', 'separated by spaces'),
    (HEAD + f'd.png,{"9" * 9000},\n', 'line 2: classes'),
    (HEAD + 'd.png,\N{FULLWIDTH DIGIT ONE},\n', 'line 2: classes'),
    (HEAD + 'd.png,1,\nv/x.jpg,1,\n', "line 3: there is no file 'v/x.jpg'"),
    (HEAD + 'v,1,\n', "line 2: there is no file 'v'"),
    (HEAD + 'v/../../d.png,1,\n', 'is not inside'),
    (HEAD + '/etc/passwd,1,\n', 'is not inside'),
    (HEAD + 'd\0.png,1,\n', 'line 2: '),
    (HEAD + ',1,\n', "line 2: path '' is not inside"),
    (HEAD + 'd.png,1,\nv/a.jpg,1,\nv/../d.png,1,x\n', 'is already in line 2'),
    (HEAD + 'd.png,1\n', 'line 2: another number of values'),
    (HEAD + 'e, f.png,1,\n', 'quote paths with commas'),
    (HEAD + '"d.png,1,\n', 'list.csv: '),
    (HEAD.encode() + b'\xff.png,1,\n', 'CSV in UTF-8'),
    (HEAD + f'{"x" * 200_000},1,\n', 'list.csv: '),
    (HEAD + '"d\n.png",1,\n', r"there is no file 'd\n.png'"),
  ],
)
def test_a_list_is_refused(folder, text, says):
  with pytest.raises(robustness_sets.ListError) as error:
    read(folder, text)
  message = str(error.value)
  assert says in message
  assert '\n' not in message and len(message) < 500
  assert message.startswith(str(folder / 'list.csv'))


def test_no_list(folder):
  for path in (folder / 'gone.csv', folder):
    with pytest.raises(robustness_sets.ListError, match=str(path)):
      robustness_sets.read_list(str(path), 20)


def test_random_bytes_are_refused_in_a_line(folder):
  draw = random()
  letters = np.frombuffer(b'd.png,1 \n\r"\0/.\xc3\xa9', np.uint8)
  count = 0
  for _ in range(500):
    noise = draw.choice(letters, draw.integers(60)).tobytes()
    try:
      read(folder, HEAD.encode() + b'd.png,1,\n' + noise)
      count += 1
    except robustness_sets.ListError as error:
      assert '\n' not in str(error)
  assert 0 < count < 500


def frames_of(classes, groups):
  anchors = [groups.index(g) for g in sorted(set(groups))]
  paths = tuple(f'{i}.jpg' for i in range(len(groups)))
  return robustness_sets.Frames(
    paths, tuple(classes), np.array(groups), np.array(anchors)
  )


def test_one_wrong_frame_makes_a_group_wrong():
  frames = frames_of([(1,)] * 6, [0, 0, 0, 1, 1, 2])
  scores = robustness_sets.frame_scores([1, 1, 5, 4, 1, 1], frames)
  assert scores['anchor'].tolist() == [1, 0, 1]
  assert scores['pm_k'].tolist() == [0, 0, 1]
  assert scores['pm_k'].dtype == np.float32


def test_any_class_of_a_superclass_is_right():
  frames = frames_of([(3, 7), (3, 7), (3, 7), (2,)], [0, 1, 2, 3])
  scores = robustness_sets.frame_scores([3, 7, 2, -1], frames)
  assert scores['anchor'].tolist() == [1, 1, 0, 0]
  with pytest.raises(ValueError):
    robustness_sets.frame_scores([3, 7, 2], frames)


def test_frames_from_logits_by_loops():
  """Superclasses that do not overlap: the object of the likeliest class."""
  draw = random()
  objects = [(0, 4), (1,), (2, 3, 9)]
  truth = draw.integers(3, size=60)
  groups = [*range(12), *draw.integers(12, size=48).tolist()]
  frames = frames_of([objects[t] for t in truth], groups)
  logits = draw.normal(size=(60, 12))
  logits[np.arange(60), [objects[t][-1] for t in truth]] += 2
  mask = robustness_sets.mask_of(frames.classes, 12)
  guesses = robustness_sets.predicted(logits, mask)
  scores = robustness_sets.frame_scores(guesses, frames)
  right = [
    max(range(3), key=lambda o: max(row[c] for c in objects[o])) == t
    for row, t in zip(logits, truth, strict=True)
  ]
  for g in range(12):
    members = [right[i] for i in range(60) if groups[i] == g]
    assert scores['anchor'][g] == members[0]
    assert scores['pm_k'][g] == all(members)
  assert 0 < scores['pm_k'].mean() < scores['anchor'].mean() < 1
