"""WebDataset's tar files: what is found in them, and what stops a run.

The oracles are the tarfile module, which also writes the files.
"""

import io
import os
import tarfile

import pytest

from cvr.data import sources, tars, wds_sets
from cvr.data.batches import HostBatch
from cvr.data.sources import DataError, describe
from small_data import encoded, write
from small_shards import take


@pytest.fixture(autouse=True)
def no_index():
  """Files of one size are written within a tick of the file system's clock."""
  clear = wds_sets._index.cache_clear
  clear()
  return clear


def tar(path, entries, **settings):
  """Writes {name: content}; a TarInfo as content is a header alone."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with tarfile.open(path, 'w', **settings) as file:
    for name, content in entries.items():
      if isinstance(content, tarfile.TarInfo):
        file.addfile(content)
        continue
      info = tarfile.TarInfo(name)
      info.size = len(content)
      file.addfile(info, io.BytesIO(content))
  return str(path)


def sample(i, **labels):
  parts = {'png': encoded(i)} | {k: str(v).encode() for k, v in labels.items()}
  return {f'n/{i:03d}.{suffix}': content for suffix, content in parts.items()}


def samples(count, first=0):
  rows = [sample(i, cls=i % 3) for i in range(first, first + count)]
  return {name: content for row in rows for name, content in row.items()}


def by_tarfile(path):
  """{name: content} of the images."""
  with tarfile.open(path) as file:
    return {
      m.name: file.extractfile(m).read()
      for m in file
      if m.isreg() and m.name.endswith('png')
    }


@pytest.mark.parametrize(
  'settings',
  [
    {'format': tarfile.PAX_FORMAT},
    {'format': tarfile.GNU_FORMAT},
    {'format': tarfile.USTAR_FORMAT},
    {'format': tarfile.PAX_FORMAT, 'pax_headers': {'comment': 'path=x'}},
  ],
)
def test_names_and_bytes_are_those_of_tarfile(tmp_path, settings):
  names = ['a.png', 'b/c.d/e.png', 'x' * 90 + '/' + 'y' * 90 + '.png']
  if settings['format'] != tarfile.USTAR_FORMAT:
    names += ['z' * 300 + '.png', 'grün/ü.png', '=1 path=2.png']
  content = {name: encoded(i) for i, name in enumerate(names)}
  path = tar(f'{tmp_path}/a.tar', content, **settings)
  info = describe(f'wds:{path}')
  read = {
    sources.example_id(info, i).removeprefix('a.tar/'): info.read(p)
    for i, p in enumerate(info.paths)
  }
  assert read == by_tarfile(path) == content


def test_shards_by_numbers_words_and_globs(tmp_path):
  for k in range(3):
    tar(f'{tmp_path}/s-{k + 8:02d}.tar', samples(2, 2 * k))
  tar(f'{tmp_path}/s-x.tar', samples(1, 9))

  def ids(pattern):
    info = describe(f'wds:{tmp_path}/{pattern}')
    return [sources.example_id(info, i) for i in range(info.num_examples)]

  files = ['s-08.tar', 's-09.tar', 's-10.tar']
  numbered = [
    f'{file}/n/{2 * k + i:03d}.png' for k, file in enumerate(files)
    for i in range(2)
  ]  # fmt: skip
  assert ids('s-{08..10}.tar') == ids('s-{08,09,10}.tar') == numbered
  assert ids('s-*.tar') == [*numbered, 's-x.tar/n/009.png']
  assert ids('s-{x,1*}.tar') == ['s-x.tar/n/009.png', *numbered[4:]]
  assert wds_sets.expanded('{a,b}{1..2}{split}') == [
    'a1{split}', 'a2{split}', 'b1{split}', 'b2{split}'
  ]  # fmt: skip
  with pytest.raises(DataError, match=r's-11.tar is missing \(2 of 5 files\)'):
    describe(f'wds:{tmp_path}/s-{{08..12}}.tar')
  with pytest.raises(DataError, match='no file matches .*y-'):
    describe(f'wds:{tmp_path}/y-*.tar')
  for pattern in ('{0..999999999}.tar', '{1..9999}{1..9999}.tar'):
    with pytest.raises(DataError, match='more than 100,000 files'):
      describe(f'wds:{tmp_path}/{pattern}')


def test_splits_are_files(tmp_path, no_index):
  tar(f'{tmp_path}/train-0.tar', samples(6))
  tar(f'{tmp_path}/val-0.tar', samples(2))
  name = f'wds:{tmp_path}/{{split}}-*.tar'
  assert describe(name).num_examples == 6
  info = describe(name, split='validation')
  assert (info.split, info.num_examples) == ('val', 2)
  # The classes are those of train.
  assert info.class_names == ('0', '1', '2') and info.labels == (0, 1)
  with pytest.raises(DataError, match="no split 'test'.*has: train, val"):
    describe(name, split='test')
  with pytest.raises(DataError, match='no split to evaluate on.*has: train'):
    describe(f'wds:{tmp_path}/train-0.tar', split='validation')
  tar(f'{tmp_path}/val-0.tar', sample(1, cls=7))
  no_index()
  with pytest.raises(DataError, match="val-0.tar/n/001.png: the label '7' is"):
    describe(name, split='validation')


@pytest.mark.parametrize(
  'labels, typed, classes, numbers',
  [
    ([{'cls': 3}, {'cls': ' 1\n'}], '', 4, (3, 1)),
    ([{'cls': 'b'}, {'cls': 'a'}], '', 2, (1, 0)),
    ([{'json': '{"label": 1}'}, {'json': '{"label": "0"}'}], '', 2, (1, 0)),
    ([{'json': '5'}, {'json': '2'}], '', 6, (5, 2)),
    ([{'txt': 'dog'}] * 3 + [{'txt': 'a cat'}], '', 2, (1, 1, 1, 0)),
    ([{'cls': 0, 'txt': 'x\ny', 'json': '{}'}], '', 1, (0,)),
    # Captions, unless they are asked for.
    ([{'txt': 'one dog'}, {'txt': 'two dogs'}], '', 0, (-1, -1)),
    ([{'txt': 'dog'}, {'txt': 'dog'}], '', 1, (0, 0)),
    ([{'txt': 'one dog'}, {'txt': 'two dogs'}], '#txt', 2, (0, 1)),
    ([{'txt': 'dog'}] * 4 + [{'txt': 'a' * 101}], '', 0, (-1,) * 5),
    ([{'cls': 0, 'json': '{"age": 2}'}], '#age', 3, (2,)),
    ([{'cls': 0, 'json': '{"label": "x"}'}], '#json', 1, (0,)),
    ([{'cls': 0}, {'cls': 1}], '#none', 0, (-1, -1)),
    ([{}, {}], '', 0, (-1, -1)),
    ([{'json': '{"age": 2}'}, {}], '', 0, (-1, -1)),
    # Only a caption is not read to its end.
    ([{'cls': 'a' * 101 + c} for c in 'cb'], '', 2, (1, 0)),
    ([{'txt': 'a' * 101 + c} for c in 'cb'], '#txt', 2, (1, 0)),
  ],
)
def test_labels(tmp_path, labels, typed, classes, numbers):
  content = {}
  for i, own in enumerate(labels):
    content |= sample(i, **own)
  info = describe(f'wds:{tar(f"{tmp_path}/a.tar", content)}{typed}')
  assert (len(info.class_names), info.labels) == (classes, numbers)


def test_what_belongs_to_a_sample(tmp_path):
  content = {
    './README.md': b'x', '__meta__/__a__.json': b'{}', 'n/._0.png': b'mac',
    'n/0.seg.png': b'x', 'n/0.PNG': encoded(1), 'n/0.cls': b'1',
    'n/0.jpeg': b'jpeg', 'm/0.png': encoded(2), 'm/0.cls': b'0',
  }  # fmt: skip
  info = describe(f'wds:{tar(f"{tmp_path}/a.tar", content)}')
  assert [info.read(path) for path in info.paths] == [b'jpeg', encoded(2)]
  assert info.labels == (1, 0)


@pytest.mark.parametrize(
  'content, says',
  [
    (
      {'n/0.cls': b'1', 'n/0.webp': b'x'},
      'n/0 has no image (jpg, jpeg, png,',
    ),
    ({**sample(0, cls=1), **sample(1)}, 'n/001.png has no label, others have'),
    (
      {**sample(0, cls=1), **sample(1, txt='a')},
      'some labels are in .cls, some in .txt',
    ),
    ({'a.png': b'x', 'a.PNG': b'y'}, 'a.PNG occurs twice in a row'),
    (
      sample(0, json='{"label": [1]}'),
      'n/000.json holds no label: its label',
    ),
    (sample(0, json='{"label": tru'), 'n/000.json holds no label: '),
    (sample(0, json='[' * 100_000), 'n/000.json holds no label: '),
    ({'0.png': b'x', '0.cls': b'\xff'}, '0.cls holds no label: '),
    (sample(0, cls='1' * 2**21), 'n/000.cls has 2,097,152 bytes'),
    ({'README.md': b''}, 'holds no sample'),
    ({f'n/{"n" * 9000}.cls': b'1'}, 'the sample n/nnn'),
  ],
)
def test_what_is_no_sample(tmp_path, content, says):
  path = tar(f'{tmp_path}/a.tar', content)
  with pytest.raises(DataError) as error:
    describe(f'wds:{path}')
  assert says in str(error.value) and path in str(error.value)
  assert len(str(error.value)) < 2000


def header(name='n/0.png', size=0, kind=tarfile.REGTYPE, link=''):
  info = tarfile.TarInfo(name)
  info.size, info.type, info.linkname = size, kind, link
  return info


def test_that_headers_are_read_is_said_of_large_sets(
  tmp_path, caplog, monkeypatch, no_index
):
  paths = [
    tar(f'{tmp_path}/in/{i}.tar', samples(2, first=2 * i)) for i in range(2)
  ]
  size = sum(map(os.path.getsize, paths))
  for least, lines in ((size + 1, 0), (size, 1)):
    no_index()
    caplog.clear()
    monkeypatch.setattr(wds_sets, '_SAID', least)
    describe(f'wds:{tmp_path}/in/*.tar')
    said = [record.getMessage() for record in caplog.records]
    assert sum('the headers of 2 files, 0 GB' in line for line in said) == lines


def test_names_are_names_alone(tmp_path):
  """Nothing is opened by a name in a tar file, or written at all."""
  names = ('/etc/passwd.png', '../../up.png', 'a\x1b[2J.png', 'ü\0c.png')
  content = {name: encoded(i) for i, name in enumerate(names)}
  path = tar(f'{tmp_path}/in/a.tar', content)
  before = sorted(os.listdir(tmp_path))
  info = describe(f'wds:{path}')
  assert [info.read(p) for p in info.paths] == [*content.values()]
  assert sorted(os.listdir(tmp_path)) == before
  for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
    link = header('l/0.png', kind=kind, link='/etc/passwd')
    path = tar(f'{tmp_path}/in/b.tar', {**sample(1), 'link': link})
    with pytest.raises(DataError, match='l/0.png is a link or a special file'):
      describe(f'wds:{path}')
  # Other links and folders are passed over.
  link = header('l/readme', kind=tarfile.SYMTYPE, link='/etc/passwd')
  # Some programs write a size, although nothing follows.
  folder = header('n', 600, kind=tarfile.DIRTYPE)
  path = tar(f'{tmp_path}/c.tar', {'a': folder, 'b': link, **sample(1)})
  assert describe(f'wds:{path}').num_examples == 1


def test_a_cut_file_is_told_with_the_sample(tmp_path):
  path = tar(f'{tmp_path}/a.tar', samples(3))
  with open(path, 'rb') as file:
    content = file.read()
  end = content.rindex(b'n/002.cls') + 1024
  places = {
    # Within an image, within a header, after a sample, within the end mark.
    content.index(b'n/001.png') + 530: 'it is cut off in n/001.png, which has',
    content.index(b'n/001.cls') + 100: 'it is cut off after n/001.png: its end',
    content.index(
      b'n/001.png'
    ): 'it is cut off after n/000.cls: its end mark is',
    end: 'it is cut off after n/002.cls',
    end + 100: 'it is cut off after n/002.cls',
    0: 'it is cut off at its beginning',
  }
  for size, says in places.items():
    write(path, content[:size])
    with pytest.raises(DataError) as error:
      describe(f'wds:{path}')
    assert f'{path}: {says}' in str(error.value)
  # Changed after the index was made.
  write(path, content)
  info = describe(f'wds:{path}')
  write(path, content[: content.index(b'n/001.png') + 530])
  with pytest.raises(ValueError, match='a.tar is cut off in n/001.png'):
    info.read(info.paths[1])
  says = r'^--dataset=wds:.*a.tar is cut off in n/001.png\]. Replace the file'
  with pytest.raises(DataError, match=says), sources.explained(info):
    take(sources.kept(info, [0, 1]), 1, HostBatch(2, 2))


def test_damaged_and_hostile_headers(tmp_path, no_index):
  good = open(tar(f'{tmp_path}/a.tar', samples(2)), 'rb').read()

  def refusal(content):
    write(f'{tmp_path}/a.tar', content)
    no_index()
    with pytest.raises(DataError) as error:
      describe(f'wds:{tmp_path}/a.tar')
    return str(error.value)

  def headed(*infos):
    blocks = [info.tobuf(tarfile.GNU_FORMAT) for info in infos]
    return b''.join(blocks) + bytes(1024)

  at = good.index(b'n/001.png')
  flipped = bytearray(good)
  flipped[at + 3] ^= 1
  assert f'damaged after n/000.cls, at byte {at:,}' in refusal(flipped)
  assert 'damaged at its beginning, at byte 0' in refusal(b'no tar' * 100)
  assert 'it is compressed: ' in refusal(b'\x1f\x8b' + bytes(600))
  assert 'it continues after its end mark' in refusal(good + good)
  huge = refusal(headed(header(size=10**15)))
  assert 'has 1,024 of 1,000,000,000,000,000 bytes' in huge
  negative = header(size=0)
  negative.size = -(2**40)
  assert 'it is cut off in' in refusal(headed(negative))
  for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
    assert 'it is cut off in' in refusal(headed(header('x', 10**12, kind)))
    long = header('x', 10**6, kind)
    content = headed(long)[:512] + bytes(10**6 + 448) + headed(header())
    assert 'x has 1,000,000 bytes' in refusal(content)
  # A chain of names, and a header of names that never ends.
  chain = headed(*[header('x', 0, tarfile.GNUTYPE_LONGNAME)] * 5000, header())
  assert 'holds no sample' in refusal(chain)
  endless = b'3 =' * 20_000
  info = header('x', len(endless), tarfile.XHDTYPE)
  content = headed(info)[:512] + endless + bytes(-len(endless) % 512)
  assert 'holds no sample' in refusal(content + headed(header('none')))


def test_the_index_of_many_samples_is_kept(tmp_path, monkeypatch, no_index):
  monkeypatch.setenv('XDG_CACHE_HOME', f'{tmp_path}/cache')
  monkeypatch.setattr(wds_sets, '_KEPT', 4)
  path, read = tar(f'{tmp_path}/a.tar', samples(3)), []

  as_ever = tars.samples

  def reading(*arguments):
    read.append(arguments)
    return as_ever(*arguments)

  monkeypatch.setattr(wds_sets.tars, 'samples', reading)

  def described():
    no_index()
    return describe(f'wds:{path}')

  described()
  assert not os.path.exists(f'{tmp_path}/cache')
  tar(path, samples(5))
  first = described()
  count = len(read)
  assert described() == first and len(read) == count == 2
  # Another file, or a damaged index: read anew.
  (name,) = os.listdir(f'{tmp_path}/cache/compressive-ssl')
  for content in (b'', b'[[1]]', b'{"a": 1}', b'[[[1]]]'):
    write(f'{tmp_path}/cache/compressive-ssl/{name}', content)
    assert described() == first
  assert len(read) == 6
  os.utime(path, ns=(1, 1))
  assert described() == first and len(read) == 7
  # A place that cannot be written is passed over.
  write(f'{tmp_path}/file', b'')
  monkeypatch.setenv('XDG_CACHE_HOME', f'{tmp_path}/file')
  assert described() == first and len(read) == 8


def test_files_of_a_store_are_read_by_tensorflow(tmp_path):
  path = tar(f'{tmp_path}/a.tar', samples(3))
  info = describe(f'wds:file://{path}')
  assert [info.read(p) for p in info.paths] == [encoded(i) for i in range(3)]
  assert info.files == (f'file://{path}',) and info.labels == (0, 1, 2)
  globbed = describe(f'wds:file://{tmp_path}/*.tar')
  assert globbed.num_examples == 3
  with pytest.raises(DataError, match='none.tar is missing .1 of 1 files'):
    describe(f'wds:file://{tmp_path}/none.tar')
