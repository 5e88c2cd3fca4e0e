"""What --checkpoint names: folders, prefixes, archives; the modes that read."""

import functools
import gzip
import io
import json
import os
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf

import data_util
import released_names
import run
from cvr.checkpoints import files, inspection, pretrained
from cvr.checkpoints.files import CheckpointError
from cvr.numerics import replicas
from released_files import (
  SMALL,
  features,
  finetuned,
  read,
  shorten,
  values,
  write,
)
from saved_runs import layers, parts_run
from small_runs import QUICK

LOSS = {'simclr': 'contrastive_ceb', 'byol': 'byol', 'cbyol': 'byol_ceb'}
SIZES = {**SMALL, 'probe': (16, 3)}  # As many classes as the folder has.


@pytest.fixture(autouse=True)
def short(monkeypatch):
  shorten(monkeypatch)


def folder_of(path, family, **changes):
  """A folder as people unpack it -> (folder, its tensors)."""
  tensors = values(released_names.tensors(family, **SIZES | changes))
  tensors['global_step'] = np.int64(40)
  os.makedirs(path, exist_ok=True)
  write(f'{path}/ckpt-40', tensors)
  with open(f'{path}/checkpoint', 'w') as file:
    file.write('model_checkpoint_path: "/somewhere/else/ckpt-7"\n')
  return str(path), tensors


def call(*more):
  return run.main(['run.py', '--use_tpu=false', *more])


@pytest.fixture
def on_two_replicas(monkeypatch, two_replicas):
  """-> has the calls that follow run on two replicas."""

  def switch():
    monkeypatch.setattr(
      replicas, 'make_strategy', lambda *_: (two_replicas, 'two CPUs')
    )

  return switch


def npz(path):
  with np.load(path) as file:
    return dict(file)


# Archives ---------------------------------------------------------------------


def archive(path, **members):
  """name -> bytes, or a function that changes a TarInfo."""
  with tarfile.open(path, 'w:gz') as tar:
    for name, content in members.items():
      info = tarfile.TarInfo(name)
      if callable(content):
        content(info)
        content = b''
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return str(path)


def test_a_tarball_is_read_as_its_folder_would_be(tmp_path):
  folder, tensors = folder_of(tmp_path / 'whole', 'simclr')
  path = str(tmp_path / 'checkpoint.tar.gz')
  with tarfile.open(path, 'w:gz') as tar:
    tar.add(folder, '.')  # As `tar -C folder .` does.
  prefix = pretrained.locate(path)
  assert os.path.basename(prefix) == 'ckpt-40'
  assert not prefix.startswith(str(tmp_path))
  unpacked = read(prefix)
  assert unpacked.keys() == tensors.keys()
  assert pretrained.identify(path).settings['resnet_depth'] == 18


def _link(kind, target):
  def change(info):
    info.type, info.linkname = kind, target

  return change


@pytest.mark.parametrize(
  'members, says',
  [
    ({'../ckpt-1.index': b'x'}, "'../ckpt-1.index' in the archive lies outs"),
    ({'/tmp/ckpt-1.index': b'x'}, 'lies outside'),
    ({'a/../../ckpt-1.index': b'x'}, 'lies outside'),
    (
      {'ckpt-1.index': _link(tarfile.SYMTYPE, '/etc/passwd')},
      'not a plain file',
    ),
    (
      {'ckpt-1.index': _link(tarfile.LNKTYPE, '/etc/passwd')},
      'not a plain file',
    ),
    ({'dev': _link(tarfile.CHRTYPE, '')}, 'not a plain file'),
    ({'a/ckpt-1.index': b'x', 'b/ckpt-1.index': b'y'}, 'occurs twice'),
    ({'readme.txt': b'x'}, 'no ckpt-'),
  ],
)
def test_hostile_archives_are_refused(tmp_path, members, says):
  path = archive(tmp_path / 'x.tar.gz', **members)
  pretrained._unpack.cache_clear()
  with pytest.raises(CheckpointError, match=says):
    pretrained.locate(path)
  assert os.listdir(tmp_path) == ['x.tar.gz']


def test_an_archive_that_is_too_large_or_cut_is_refused(tmp_path, monkeypatch):
  path = archive(tmp_path / 'x.tgz', **{'ckpt-1.index': b'x' * 4000})
  with monkeypatch.context() as patch:
    patch.setattr(pretrained, '_ALWAYS', 100)
    pretrained._unpack.cache_clear()
    room = 100 + 20 * os.path.getsize(path)
    assert room < 4000
    with pytest.raises(CheckpointError, match=f'more than the {room:,} bytes'):
      pretrained.locate(path)
  with monkeypatch.context() as patch:
    usage = shutil.disk_usage(tmp_path)._replace(free=4000)
    patch.setattr(shutil, 'disk_usage', lambda folder: usage)
    pretrained._unpack.cache_clear()
    with pytest.raises(CheckpointError, match='more than the 3,600 bytes'):
      pretrained.locate(path)
  os.truncate(path, os.path.getsize(path) // 2)
  with pytest.raises(CheckpointError, match='download complete'):
    pretrained.locate(path)
  with pytest.raises(CheckpointError, match='no such file'):
    pretrained.locate(str(tmp_path / 'none.tar.gz'))


def test_a_checkpoint_of_ours_is_described_by_its_methods():
  known = pretrained.Checkpoint('x/ckpt-7', False, {}, ('byol',), 3, 7, {})
  assert known.describe() == 'ours: byol, step 7'
  unknown = known._replace(methods=())
  assert unknown.describe() == 'ours: ?, step 7'


@pytest.mark.parametrize('suffix', ['tar', 'tar.gz'])
def test_a_member_that_never_ends_is_refused(tmp_path, suffix):
  """Sparse, of one byte, for which 2**80 have to be skipped."""
  header = tarfile.TarInfo('ckpt-1.index')
  header.type = tarfile.GNUTYPE_SPARSE
  block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
  block[124:136] = b'\x80' + (2**80).to_bytes(11, 'big')  # Its size.
  block[386:482] = bytes(96)  # No pieces.
  block[482:495] = b'\0%011o\0' % 1  # Its real size.
  block[148:156] = b' ' * 8
  block[148:156] = b'%06o\0 ' % sum(block)
  content = bytes(block) + bytes(1024)
  path = tmp_path / f'x.{suffix}'
  path.write_bytes(gzip.compress(content) if suffix == 'tar.gz' else content)
  pretrained._unpack.cache_clear()
  with pytest.raises(CheckpointError, match='ends before its last member'):
    pretrained.locate(str(path))


def test_a_small_archive_may_hold_much(tmp_path):
  """Weights that are zeros, such as a new head's, are packed a thousandfold."""
  prefix = str(tmp_path / 'ckpt-1')
  tf.train.Checkpoint(x=tf.Variable(tf.zeros([500_000]))).write(prefix)
  content = {path.name: path.read_bytes() for path in tmp_path.glob('ckpt-1.*')}
  path = archive(tmp_path / 'x.tgz', **content)
  assert 20 * os.path.getsize(path) < 2_000_000
  assert pretrained.locate(path).endswith('ckpt-1')


def test_no_more_is_unpacked_than_the_index_announces(tmp_path):
  folder, _ = folder_of(tmp_path / 'whole', 'simclr')
  index, data = (
    pathlib.Path(folder, f'ckpt-40.{end}').read_bytes()
    for end in ('index', 'data-00000-of-00001')
  )
  for more, path in ((0, 'a.tgz'), (1, 'b.tgz')):
    name = 'ckpt-40.data-00000-of-00001'
    members = {'ckpt-40.index': index, name: data + bytes(more)}
    archive(tmp_path / path, **members)
  assert pretrained.locate(str(tmp_path / 'a.tgz')).endswith('ckpt-40')
  says = f'{len(data) + 1:,} bytes, but its index announces {len(data):,}'
  with pytest.raises(CheckpointError, match=says):
    pretrained.locate(str(tmp_path / 'b.tgz'))


# The modes that read ----------------------------------------------------------


@pytest.mark.parametrize('family', LOSS)
def test_features_of_a_released_checkpoint(
  tmp_path, folder, capsys, family, on_two_replicas
):
  """No flag about the architecture; the published values.

  Whatever the size of a batch and the number of replicas.
  """
  source, tensors = folder_of(tmp_path / 'source', family)
  flags = [
    '--mode=extract_features',
    f'--checkpoint={source}',
    f'--dataset=folder:{folder}',
    '--image_size=16',
    f'--pretrain_loss={LOSS[family]}',
  ]
  outputs = []
  for batch in (3, 4):
    path = str(tmp_path / f'{batch}.npz')
    assert call(*flags, f'--output={path}', f'--eval_batch_size={batch}') == 0
    outputs.append(npz(path))
    on_two_replicas()
  out = capsys.readouterr().out
  assert 'Running on the CPU' in out and 'Running on two CPUs' in out
  assert 'missing 0, not read: 2 of counters, ' in out
  first, second = outputs
  names = {'representation', 'projection', 'logits', 'labels', 'ids'}
  names |= set() if family == 'simclr' else {'prediction'}
  assert first.keys() == names
  assert first['ids'].tolist() == sorted(
    f'{name}/{i}.JPG'
    for i, name in enumerate(('dog', 'cat', 'cat', 'dog', 'dog', 'cat', 'cat'))
  )
  assert first['labels'].tolist() == [1] * 4 + [2] * 3
  for name, value in first.items():
    same = np.testing.assert_array_equal
    if value.dtype == np.float32:
      same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    same(value, second[name], err_msg=name)
  images = []
  for name in first['ids']:
    with open(f'{folder}/val/{name}', 'rb') as file:
      image = tf.io.decode_jpeg(file.read(), channels=3)
    images.append(data_util.normalize(data_util.eval_image(image, 16, 1.0)))
  h = features(tensors, tf.stack(images))
  np.testing.assert_allclose(first['representation'], h, rtol=1e-3, atol=1e-4)


def test_evaluating_a_released_model_dir(tmp_path, folder, capsys):
  source, _ = folder_of(tmp_path / 'source', 'byol')
  before = {n: os.stat(f'{source}/{n}').st_mtime_ns for n in os.listdir(source)}
  flags = ['--mode=eval', f'--dataset=folder:{folder}', '--image_size=16']
  flags += ['--eval_batch_size=4']
  assert call(*flags, f'--model_dir={source}') == 0
  out = capsys.readouterr().out
  assert 'BYOL, ResNet-18 1x, cifar stem' in out
  assert 'tensors matched, missing 0' in out
  with open(f'{source}/eval/result.json') as file:
    result = json.load(file)
  assert (result['global_step'], result['eval/images']) == (40.0, 7.0)
  after = {n: os.stat(f'{source}/{n}').st_mtime_ns for n in before}
  assert after == before
  other, _ = folder_of(tmp_path / 'other', 'byol', probe=(16, 10))
  assert call(*flags, f'--model_dir={other}') == 2
  err = capsys.readouterr().err
  assert 'has 3 classes, the probe of this checkpoint 10' in err


def test_flags_against_a_checkpoint_are_refused(tmp_path, folder, capsys):
  source, _ = folder_of(tmp_path / 'source', 'byol')
  flags = ['--mode=eval', f'--dataset=folder:{folder}', f'--model_dir={source}']
  for flag, says in (
    ('--resnet_depth=50', 'made with 18'),
    ('--proj_out_dim=8', 'made with 16'),
    ('--pretrain_loss=byol_ceb', 'the checkpoint is of byol'),
  ):
    assert call(*flags, flag) == 2
    assert says in capsys.readouterr().err


def test_finetuning_and_going_on_from_a_released_checkpoint(
  tmp_path, folder, capsys
):
  source, tensors = folder_of(tmp_path / 'source', 'cbyol')
  data = [f'--dataset=folder:{folder}', '--image_size=16', '--mode=train']
  data += ['--train_batch_size=8', '--warmup_epochs=0', *QUICK]
  out = tmp_path / 'linear'
  assert (
    call(
      *data,
      f'--checkpoint={source}',
      f'--model_dir={out}',
      '--train_mode=finetune',
      '--fine_tune_after_block=4',
      '--train_steps=2',
    )
    == 0
  )
  assert 'Loaded encoder' in capsys.readouterr().out
  stem = tensors['model/_resnet/initial_conv_relu_max_pool/0/conv2d/kernel']
  name = 'method/encoder/stages/0/convs/0/conv/kernel'
  np.testing.assert_array_equal(read(out / 'ckpt-2')[name], stem)
  # The same folder as a model_dir: training goes on at its step, momentum too.
  more = ['--ceb_beta=1', '--learning_rate=0', f'--model_dir={source}']
  more += ['--health_pairs=0']
  assert call(*data, *more, '--train_steps=42', '--resnet_depth=34') == 2
  assert 'was made with 18' in capsys.readouterr().err
  assert call(*data, *more, '--train_steps=42') == 0
  out = capsys.readouterr().out
  assert 'Resuming from step 40' in out
  assert 'C-BYOL, ResNet-18 1x, cifar stem' in out
  assert 'missing 0, not read: 1 of counters' in out
  assert files.steps(source) == [40, 42]
  # At rate 0 the stored momentum alone moves weights, twice.
  velocity = tensors[
    'model/_resnet/initial_conv_relu_max_pool/0/conv2d/kernel'
    + released_names.SLOT
  ]
  again = read(f'{source}/ckpt-42')
  np.testing.assert_allclose(
    again[name], stem - (0.9 + 0.81) * velocity, rtol=1e-5, atol=1e-6
  )
  assert read(f'{source}/ckpt-40').keys() == tensors.keys()
  # An evaluator that follows reads both kinds.
  for file in tmp_path.glob('source/ckpt-42.*'):
    file.unlink()
  follow = ['--mode=eval', f'--model_dir={source}', '--train_steps=40']
  assert call(*follow, '--eval_batch_size=4') == 0
  assert 'step 40: top-1' in capsys.readouterr().out


def test_a_released_checkpoint_of_another_number_is_refused(
  tmp_path, folder, capsys
):
  source, _ = folder_of(tmp_path / 'source', 'simclr')
  for file in tmp_path.glob('source/ckpt-40.*'):
    file.rename(str(file).replace('ckpt-40', 'ckpt-1'))
  flags = [f'--dataset=folder:{folder}', '--image_size=16', '--mode=train']
  flags += ['--train_batch_size=8', f'--model_dir={source}']
  assert call(*flags, '--train_steps=50') == 2
  assert 'at step 40: rename its files to ckpt-40.*' in capsys.readouterr().err


def test_features_of_images_that_cannot_be_decoded(tmp_path, folder, capsys):
  source, _ = folder_of(tmp_path / 'source', 'simclr')
  with open(f'{folder}/val/cat/2.JPG', 'wb') as file:
    file.write(b'no image')
  flags = ['--mode=extract_features', f'--checkpoint={source}']
  flags += [f'--dataset=folder:{folder}', '--image_size=16']
  flags += ['--eval_batch_size=4', f'--output={tmp_path}/shards']
  assert call(*flags) == 0
  assert '1 of them cannot be decoded' in capsys.readouterr().out
  (path,) = tmp_path.glob('shards/*.npz')
  rows = npz(path)
  bad = rows['ids'] == 'cat/2.JPG'
  assert bad.sum() == 1 and len(bad) == 7
  assert np.isnan(rows['representation'][bad]).all()
  assert np.isfinite(rows['representation'][~bad]).all()
  assert (rows['labels'][bad] == -1).all() and (rows['labels'] > 0).sum() == 6
  # What is there is not mixed with new shards, nor overwritten.
  assert call(*flags) == 2
  assert 'name another folder' in capsys.readouterr().err


def test_reading_takes_one_process(tmp_path, capsys, monkeypatch):
  source, _ = folder_of(tmp_path / 'source', 'simclr')
  monkeypatch.setattr(replicas, 'num_workers', lambda strategy: 2)
  flags = ['--mode=extract_features', f'--checkpoint={source}']
  assert call(*flags, f'--output={tmp_path}/a.npz') == 2
  assert 'unset TF_CONFIG' in capsys.readouterr().err


def test_finetuning_on_two_replicas_is_finetuning_on_one(
  tmp_path, folder, on_two_replicas
):
  """From the third block group on; what is before it stays, statistics too."""
  source, tensors = folder_of(tmp_path / 'source', 'byol')
  flags = [f'--dataset=folder:{folder}', '--image_size=16', '--mode=train']
  flags += [f'--checkpoint={source}', '--train_mode=finetune']
  flags += ['--train_batch_size=8', '--warmup_epochs=0', '--train_steps=2']
  flags += QUICK
  flags += ['--fine_tune_after_block=2', '--learning_rate=0.5']
  assert call(*flags, f'--model_dir={tmp_path}/one') == 0
  on_two_replicas()
  assert call(*flags, f'--model_dir={tmp_path}/two') == 0
  one, two = (read(f'{tmp_path}/{n}/ckpt-2') for n in ('one', 'two'))
  begun = read(f'{tmp_path}/two/ckpt-0')
  assert one.keys() == two.keys() == begun.keys()
  moved = {name for name in two if not np.array_equal(two[name], begun[name])}
  for name in two:
    if name.startswith('method/encoder/'):
      stage = int(name.split('/')[3])
      assert (name in moved) == (stage >= 3), name
    np.testing.assert_allclose(
      two[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name
    )
  name = 'method/encoder/stages/0/convs/0/norm/moving_mean'
  published = 'model/_resnet/initial_conv_relu_max_pool/2/bn/moving_mean'
  np.testing.assert_array_equal(two[name], tensors[published])
  assert 'probe/dense/kernel' in moved


def exported(source, out, capsys):
  """The tensors of a checkpoint after --mode=export --format=released."""
  flags = ['--mode=export', '--format=released', f'--checkpoint={source}']
  flags += ['--image_size=16']
  assert call(*flags, f'--output={out}') == 0
  (index,) = out.glob('ckpt-*.index')
  assert f'-> {out}/{index.stem}' in capsys.readouterr().out
  assert call(*flags, f'--output={out}') == 2
  assert 'exists already' in capsys.readouterr().err
  return read(out / index.stem)


@pytest.mark.parametrize('trained', [None, 'model/supervised_head'])
def test_export_gives_back_what_was_released(tmp_path, capsys, trained):
  source, tensors = folder_of(tmp_path / 'source', 'cbyol')
  if trained:
    tensors = finetuned(tensors, trained)
    write(f'{source}/ckpt-40', tensors)
  again = exported(source, tmp_path / 'out', capsys)
  assert again.keys() == tensors.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_what_we_finetune_is_exported_as_finetuned(tmp_path, folder, capsys):
  source, tensors = folder_of(tmp_path / 'source', 'simclr')
  status = call(
    *QUICK,
    f'--dataset=folder:{folder}',
    f'--model_dir={tmp_path}/run',
    f'--checkpoint={source}',
    '--image_size=16',
    '--train_mode=finetune',
    '--fine_tune_after_block=4',
    '--train_batch_size=8',
    '--train_steps=1',
  )
  assert status == 0
  capsys.readouterr()
  again = exported(f'{tmp_path}/run', tmp_path / 'out', capsys)
  expected = finetuned(tensors, 'model/supervised_head').keys()
  assert again.keys() == expected
  assert again['finetune_global_step'] == 1


def test_inspect_says_what_a_checkpoint_is(tmp_path, capsys):
  source, _ = folder_of(tmp_path / 'source', 'cbyol')
  assert call('--mode=inspect', f'--checkpoint={source}') == 0
  out = capsys.readouterr().out
  for text in (
    'released layout: C-BYOL, ResNet-18 1x, cifar stem, nonlinear projection',
    'step 40',
    'probe         3 classes\n',
    'model/_target_resnet',
  ):
    assert text in out


@pytest.mark.parametrize(
  ('names', 'loaded'),
  [([], 'ep+'), (['encoder'], 'e'), (['encoder', 'probe'], 'e+')],
)
def test_the_parts_that_are_named_are_loaded(tmp_path, names, loaded):
  """All of them where none is: encoder, projector and probe."""
  path, items = parts_run(tmp_path)
  method, probe = items['method'], items['probe']
  nets = {'e': method.encoder, 'p': method.projector, '+': probe}
  kept = {name: layers(net) for name, net in nets.items()}
  for net in nets.values():
    for v in net.layers:
      v.assign(tf.zeros_like(v))
  line = pretrained.load(path, names, method, probe)
  assert line.startswith(f'Loaded {", ".join(names) or "method, probe"} from')
  for name, net in nets.items():
    for now, stored in zip(layers(net), kept[name], strict=True):
      wanted = stored if name in loaded else 0 * stored
      np.testing.assert_array_equal(now, wanted)


def test_inspect_shows_no_control_characters_and_an_end(tmp_path):
  """Names of tensors are a stranger's: a terminal would obey them."""
  parts = {f'part{i}': tf.Variable(0.0) for i in range(150)}
  parts['a\x1b[2J\n' + 5000 * 'z'] = tf.Variable(0.0)
  prefix = tf.train.Checkpoint(**parts).write(str(tmp_path / 'ckpt-1'))
  lines = inspection.describe(prefix).splitlines()
  assert all(line.isprintable() and len(line) < 300 for line in lines)
  assert lines[-1] == '... and 51 more parts' and len(lines) < 110
  assert 'probe         no classes' in lines


@pytest.mark.parametrize(
  'damage, says',
  [
    (lambda p: os.truncate(f'{p}.data-00000-of-00001', 5000), 'cannot be read'),
    (lambda p: os.truncate(f'{p}.index', 50), 'cannot be read'),
  ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, folder, capsys, damage, says):
  source, _ = folder_of(tmp_path / 'source', 'simclr')
  damage(f'{source}/ckpt-40')
  flags = [f'--dataset=folder:{folder}', '--image_size=16']
  assert call('--mode=eval', f'--model_dir={source}', *flags) == 2
  err = capsys.readouterr().err
  assert f'{source}/ckpt-40 {says}' in err and 'Traceback' not in err
