"""Tables and lists of images: columns, splits, and lines that are refused."""

import os

import pytest

from cvr.data import sources
from cvr.data.sources import DataError, describe
from small_data import encoded, write


@pytest.fixture
def root(tmp_path):
  for i in range(4):
    write(f'{tmp_path}/data/in/{i}.png', encoded(i))
  write(f'{tmp_path}/other/9.png', encoded(9))
  return tmp_path / 'data'


def table(root, text, name='t.csv'):
  content = text if isinstance(text, bytes) else text.encode()
  write(f'{root}/{name}', content)
  kind = 'list' if name.endswith('.txt') else 'csv'
  return f'{kind}:{root}/{name}'


def names(info):
  return [os.path.basename(path) for path in info.paths]


@pytest.mark.parametrize(
  'text, label, classes, labels',
  [
    # Texts are sorted, integers are what they are.
    ('path,label\nin/0.png,b\nin/1.png,a\n', '', ('a', 'b'), (1, 0)),
    ('path,label\nin/0.png,3\nin/1.png,1', '', ('0', '1', '2', '3'), (3, 1)),
    ('path,label\nin/0.png,03\nin/1.png,1', '', ('03', '1'), (0, 1)),
    ('FileName; Class\nin/0.png; x\nin/1.png; y', '', ('x', 'y'), (0, 1)),
    ('label\timage\nx\tin/0.png\nx\tin/1.png', '', ('x',), (0, 0)),
    # The first of two, and the one that is named.
    ('file,class,label\nin/0.png,a,y\nin/1.png,b,y', '', ('a', 'b'), (0, 1)),
    ('file,class,label\nin/0.png,a,y\nin/1.png,b,y', '#label', ('y',), (0, 0)),
    ('file,Breed\nin/0.png,b\nin/1.png,a', '#breed', ('a', 'b'), (1, 0)),
    # No labels.
    ('path\nin/0.png\nin/1.png\n', '', (), (-1, -1)),
    ('path,label\nin/0.png,\nin/1.png,-1\n', '', (), (-1, -1)),
    ('path,label\nin/0.png,a\nin/1.png,b\n', '#none', (), (-1, -1)),
  ],
)
def test_columns(root, text, label, classes, labels):
  info = describe(table(root, text) + label)
  assert names(info) == ['0.png', '1.png']
  assert (info.class_names, info.labels) == (classes, labels)
  assert sources.example_id(info, 1) == 'in/1.png'


def test_quotes_marks_and_empty_lines(root):
  os.rename(f'{root}/in/0.png', f'{root}/in/a, "b".png')
  text = '\ufeffpath,label\r\n\r\n"in/a, ""b"".png","two\nlines"\r\n'
  info = describe(table(root, text))
  assert names(info) == ['a, "b".png'] and info.class_names == ('two\nlines',)


def test_two_columns_for_one_purpose_are_said(root, caplog):
  describe(table(root, 'path,file,label,class\nin/0.png,x,a,b'))
  assert 'path and file are columns of paths' in caplog.text
  assert 'label and class are columns of labels' in caplog.text
  assert 'using label' in caplog.text


def test_splits_share_the_classes_of_train(root):
  text = 'path,label,split\nin/0.png,a,train\nin/1.png,b,train\nin/2.png,b,'
  info = describe(table(root, f'{text}test'), split='validation')
  assert (info.split, info.labels, names(info)) == ('test', (1,), ['2.png'])
  with pytest.raises(DataError, match='It has: train, test'):
    describe(table(root, f'{text}test'), split='holdout')
  with pytest.raises(DataError, match='t.csv, line 4: it names no split'):
    describe(table(root, text))
  unknown = text.replace('2.png,b', '2.png,c')
  with pytest.raises(
    DataError, match="line 4: the label 'c' is not a class of"
  ):
    describe(table(root, f'{unknown}test'), split='test')
  # Also where each split is a file.
  table(root, 'in/0.png\ta\nin/1.png\tb', 'train.txt')
  table(root, 'in/2.png\tb', 'val.txt')
  info = describe(f'list:{root}/{{split}}.txt', split='validation')
  assert (info.split, info.labels, names(info)) == ('val', (1,), ['2.png'])
  with pytest.raises(DataError, match="no split 'test'.*It has: train, val"):
    describe(f'list:{root}/{{split}}.txt', split='test')


def test_a_list_has_a_label_after_a_tab(root):
  os.rename(f'{root}/in/0.png', f'{root}/in/0 a.png')
  info = describe(table(root, 'in/0 a.png\tx\r\n\nin/1.png\ty\n', 't.txt'))
  assert (info.class_names, info.labels) == (('x', 'y'), (0, 1))
  assert names(info) == ['0 a.png', '1.png']
  with pytest.raises(DataError, match='no split to evaluate on'):
    describe(table(root, 'in/1.png', 't.txt'), split='validation')


@pytest.mark.parametrize(
  'text, says',
  [
    ('', 'line 1: no column of paths'),
    (
      'label,x\na,b',
      'line 1: no column of paths (path, file, image, filename)',
    ),
    (
      'path,label,Label\nin/0.png,a,b',
      "line 1: the column 'label' occurs",
    ),
    (
      'path,label\nin/0.png,a\nin/1.png',
      'line 3: it has 1 columns',
    ),
    (
      'path,label\nin/0.png,a,b',
      'line 2: it has 3 columns, but the header has 2',
    ),
    ('path,label\nin/0.png,a\nin/1.png,', 'line 3 has no label, others'),
    ('path,label\nin/0.png,a\n"in/1.png,b\n', 'line 3: unexpected end of data'),
    ('path,label\nin/0.png,5000000\n', 'would need 5,000,001 classes'),
    ('path,label\n,a', 'line 2: it names no image'),
    (b'path\nin/0.png\n\xff\n', 'line 3: it is not UTF-8 text'),
    ('path\nin/0.png\nin/none.png', 'line 3: there is no file '),
    ('path\nin', 'line 2: there is no file '),
    ('path\n', 'It has: none'),
  ],
)
def test_damaged_tables_are_told_with_the_line(root, text, says):
  with pytest.raises(DataError) as error:
    describe(table(root, text))
  assert says in str(error.value)
  assert str(error.value).startswith(f'--dataset=csv:{root}/t.csv: ')


@pytest.mark.parametrize(
  'text, says',
  [
    ('in/0.png\ta\tb', 'line 1: it must be a path, or a path, a tab and'),
    ('in/0.png\ta\n\ta', 'line 2: it must be a path'),
    ('in/0.png\t', 'line 1: it must be a path'),
    ('in/0.png\ta\nin/1.png', 'line 2 has no label'),
    ('in/0.png 3', 'a label follows a tab, not a space'),
    ('in/0\0.png', 'line 1: it names no image'),
  ],
)
def test_damaged_lists_are_told_with_the_line(root, text, says):
  with pytest.raises(DataError) as error:
    describe(table(root, text, 't.txt'))
  assert says in str(error.value) and 't.txt, line' in str(error.value)


def test_paths_stay_below_the_table(root, tmp_path):
  os.symlink(f'{tmp_path}/other', f'{root}/linked')
  os.symlink(f'{tmp_path}/other/9.png', f'{root}/in/9.png')
  os.symlink(f'{root}/in/0.png', f'{root}/in/again.png')
  outside = ('../other/9.png', f'{tmp_path}/other/9.png', 'linked/9.png')
  for path in (*outside, 'in/9.png', 'in/../../other/9.png'):
    name = table(root, f'path\nin/0.png\n{path}\n')
    with pytest.raises(DataError, match='line 3: .*outside of .*--data_dir'):
      describe(name)
    # Whoever types a folder may read it.
    info = describe(name, data_dir=f'{tmp_path}/other')
    assert info.paths[1].endswith('/9.png')
  inside = ('in/../in/1.png', f'{root}/in/1.png', 'in/again.png')
  for path in inside:
    assert describe(table(root, f'path\n{path}')).num_examples == 1


def test_a_table_that_cannot_be_read(root):
  with pytest.raises(DataError, match='data cannot be read: Is a directory'):
    describe(f'csv:{root}')
