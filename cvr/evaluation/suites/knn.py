"""The suite `knn`: weighted neighbours at every k and temperature.

None of these settings is chosen: a card has all of them.

Of small training splits also what the same network is worth untrained.
"""

from cvr.evaluation.heads.knn import predictions
from cvr.evaluation.subject import accuracy, splits_of

# Images of a training split at most, for the untrained network: it costs what
# the features of the trained one cost.
_UNTRAINED = 20_000
_K, _TEMPERATURE = 20, 0.07


def suite(subject):
  splits = splits_of(subject)
  train, test = subject.rows(splits.train), splits.test_rows(subject)
  classes_by_setting = predictions(
    train['representation'],
    train['labels'],
    test['representation'],
    splits.classes,
  )
  protocol = subject.protocol(
    train_split=splits.train.split,
    train_images=len(train['labels']),
    similarity='cosine, votes exp(similarity / temperature)',
  )
  for (k, temperature), classes in classes_by_setting.items():
    right = classes == test['labels']
    name = f'k{k}_t{temperature:g}'
    yield accuracy('knn', name, splits.test, test, right, protocol)
  if splits.train.num_examples <= _UNTRAINED:
    yield from _untrained(subject, splits, protocol)


def _untrained(subject, splits, protocol):
  """What the network is worth before training, by one of the settings."""
  before = subject.untrained()
  if not before:
    return
  subject.say('The same network before training ...')
  train, test = (before.rows(split) for split in splits)
  (((k, temperature), classes),) = predictions(
    train['representation'],
    train['labels'],
    test['representation'],
    splits.classes,
    ks=(_K,),
    temperatures=(_TEMPERATURE,),
  ).items()
  name = f'untrained/k{k}_t{temperature:g}'
  right = classes == test['labels']
  protocol = protocol | {'checkpoint': before.model}
  yield accuracy('knn', name, splits.test, test, right, protocol)
