"""The suite `knn`: weighted neighbours at every k and temperature.

None of these settings is chosen: a card has all of them.
"""

from cvr.evaluation.heads.knn import predictions
from cvr.evaluation.subject import accuracy, splits_of


def suite(subject):
  splits = splits_of(subject)
  train, test = subject.rows(splits.train), splits.test_rows(subject)
  classes_by_setting = predictions(
    train['representation'],
    train['labels'],
    test['representation'],
    splits.classes,
  )
  for (k, temperature), classes in classes_by_setting.items():
    yield accuracy(
      'knn',
      f'k{k}_t{temperature:g}',
      splits.test,
      test,
      classes == test['labels'],
      subject.protocol(
        train_split=splits.train.split,
        train_images=len(train['labels']),
        similarity='cosine, votes exp(similarity / temperature)',
      ),
    )
