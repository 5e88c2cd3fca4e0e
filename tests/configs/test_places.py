"""Where data lies, as it is typed."""

import pytest

from cvr.configs import places


@pytest.mark.parametrize(
  'dataset, kind, path, label',
  [
    ('folder:/a/b', 'folder', '/a/b', ''),
    ('folder:/a#b', 'folder', '/a#b', ''),
    ('csv:t.csv', 'csv', 't.csv', ''),
    ('csv:t.csv#breed', 'csv', 't.csv', 'breed'),
    ('csv:a#b.csv#', 'csv', 'a#b.csv', ''),
    ('wds:gs://b/{split}-{00..10}.tar#json', 'wds',
     'gs://b/{split}-{00..10}.tar', 'json'),
    ('hf:owner/name:config', 'hf', 'owner/name:config', ''),
    ('list:~/a.txt', 'list', '/home/me/a.txt', ''),
  ],
)  # fmt: skip
def test_kinds_of_places(monkeypatch, dataset, kind, path, label):
  monkeypatch.setenv('HOME', '/home/me')
  assert places.parse(dataset) == places.Place(kind, path, label)


@pytest.mark.parametrize(
  'dataset', ['cifar10', 'imagenet2012:5.1.0', 'csv:', 'csv:#a', 'cvs:t.csv']
)
def test_what_is_no_place(dataset):
  assert places.parse(dataset) is None


def test_a_path_for_each_split():
  place = places.parse('npz:/d/{split}.npz')
  assert place.has_file_per_split and place.of('val') == '/d/val.npz'
  assert not places.parse('npz:/d/all.npz').has_file_per_split
