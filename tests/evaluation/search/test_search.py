"""--mode=search and the bits it reads, from the command line."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from bit_runs import DIM, call, extracted
from cvr.configs import config
from cvr.evaluation import features
from cvr.evaluation.search import hamming, search
from small_data import encoded, write
from small_runs import QUICK


@pytest.fixture
def bernoulli(run_copy):
  return run_copy('stochcon_bernoulli')


def test_bits_are_packed_and_their_size_is_told(bernoulli, tmp_path, capsys):
  model_dir, images = bernoulli
  images = shutil.copytree(images, f'{tmp_path}/images')
  write(f'{images}/val/cat/2.JPG', b'no image')
  rows = extracted(model_dir, f'{tmp_path}/f.npz', f'--dataset=folder:{images}')
  bits = np.unpackbits(rows['latent_bits'], axis=1)
  assert rows['latent_bits'].shape == (7, 2) and not bits[:, DIM:].any()
  bad = rows['ids'] == 'cat/2.JPG'
  assert not bits[bad].any() and np.isnan(rows['latent_mean'][bad]).all()
  mean = rows['latent_mean'][~bad]
  np.testing.assert_array_equal(bits[~bad, :DIM], mean > 0.5)
  np.testing.assert_allclose(
    rows['latent_std'][~bad], np.sqrt(mean * (1 - mean)), rtol=1e-4, atol=1e-6
  )
  # 16 x 16 x 3 x 8 / 12, and what the archive says.
  with zipfile.ZipFile(f'{tmp_path}/f.npz') as file:
    stored = file.getinfo('latent_bits.npy').file_size
  said = capsys.readouterr().out
  assert '12 bits an image: 512.0 x smaller than its 8-bit pixels' in said
  assert f'latent_bits takes {stored:,} bytes on disk' in said
  assert f'{7 * 768 / stored:.1f} x less than those of 7 images' in said


def test_the_nearest_are_found_and_the_index_is_kept(
  bernoulli, tmp_path, capsys
):
  model_dir, images = bernoulli
  flags = ['--mode=search', f'--model_dir={model_dir}', '--neighbors=7']
  flags += [f'--query={images}/val/dog/3.JPG']
  assert call(*flags) == 0
  said = capsys.readouterr().out
  assert 'dog/3.JPG  dog' in said and '7 codes of 12 bits' in said
  assert f'Pictures: {model_dir}/eval/nearest-3.html' in said
  rows = extracted(model_dir, f'{tmp_path}/f.npz')
  bits = np.unpackbits(rows['latent_bits'], axis=1)[:, :DIM]
  (own,) = np.flatnonzero(rows['ids'] == 'dog/3.JPG')
  distance = np.sum(bits != bits[own], 1)
  assert len({*distance}) > 3
  order = np.argsort(distance, kind='stable')
  lines = [line.split() for line in said.splitlines() if ' bits  ' in line]
  assert [int(line[0]) for line in lines] == [*distance[order]]
  assert [line[2] for line in lines] == [*rows['ids'][order]]
  capsys.readouterr()
  # It is read the second time, and made again for another model.
  (path,) = (f'{model_dir}/eval/{n}' for n in os.listdir(f'{model_dir}/eval')
             if n.startswith('index-'))  # fmt: skip
  made = os.stat(path).st_mtime_ns
  assert call(*flags) == 0
  assert 'Making' not in capsys.readouterr().out
  assert os.stat(path).st_mtime_ns == made
  own = f'--output={tmp_path}/new/index.npz'
  assert call(*flags, own) == 0
  assert os.path.exists(f'{tmp_path}/new/index.npz')
  with open(path, 'rb') as file:
    index = hamming.from_bytes(file.read())
  assert (index.facts['recall_at'], index.facts['recall']) == (6, 1.0)
  search._save(path, index._replace(facts=index.facts | {'model': 'x'}))
  assert call(*flags) == 0
  assert 'of another model or data set: making a new one' in (
    capsys.readouterr().out
  )


@pytest.mark.parametrize('kind', ['PNG of 16 bits', 'TIFF', 'TIFF of 16 bits'])
def test_a_query_is_read_as_a_folder_is(bernoulli, tmp_path, capsys, kind):
  """The same image as one of the set: by the higher byte, in 16 bits."""
  model_dir, images = bernoulli
  with open(f'{images}/val/dog/3.JPG', 'rb') as file:
    image = tf.io.decode_png(file.read()).numpy()
  wide = image.astype(np.uint16) * 256 + 7
  path = f'{tmp_path}/query.{kind.split()[0]}'
  if kind.startswith('PNG'):
    write(path, tf.io.encode_png(wide).numpy())
  else:
    tifffile = pytest.importorskip('tifffile')
    pixels = wide if '16' in kind else image
    tifffile.imwrite(path, pixels, photometric='rgb')
  flags = ['--mode=search', f'--model_dir={model_dir}', '--neighbors=7']
  distances = []
  for query in (path, f'{images}/val/dog/3.JPG'):
    assert call(*flags, f'--query={query}') == 0
    lines = capsys.readouterr().out.splitlines()
    distances.append([line for line in lines if ' bits  ' in line])
  assert distances[0] == distances[1] and len(distances[0]) == 7
  assert any(
    line.split()[0] == '0' and 'dog/3.JPG' in line for line in distances[0]
  )


def test_a_query_that_folders_would_not_read(bernoulli, tmp_path, capsys):
  tifffile = pytest.importorskip('tifffile')
  model_dir, _ = bernoulli
  flags = ['--mode=search', f'--model_dir={model_dir}']
  path = f'{tmp_path}/five.tif'
  tifffile.imwrite(path, np.zeros([8, 8, 5], np.uint8), planarconfig='contig')
  assert call(*flags, f'--query={path}') == 2
  said = capsys.readouterr().err
  assert f'--query={path}: {path}: it has 5 channels, but --channels=3' in said
  write(path, b'II*\0 no image')
  assert call(*flags, f'--query={path}') == 2
  assert f'--query={path} cannot be read' in capsys.readouterr().err


def test_what_cannot_be_searched(bernoulli, tmp_path, capsys):
  model_dir, images = bernoulli
  flags = ['--mode=search', f'--model_dir={model_dir}']

  def refused(*more):
    assert call(*flags, *more) == 2
    return capsys.readouterr().err

  assert 'needs --query' in refused()
  assert 'there is no such file' in refused('--query=/nowhere.png')
  write(f'{tmp_path}/a.png', b'not one')
  assert 'a.png cannot be read' in refused(f'--query={tmp_path}/a.png')
  write(f'{tmp_path}/b.png', encoded(3))
  write(f'{tmp_path}/i.npz', b'not an index')
  query = f'--query={tmp_path}/b.png'
  assert 'is not an index of codes' in refused(
    query, f'--output={tmp_path}/i.npz'
  )
  assert 'name a file in it' in refused(query, f'--output={tmp_path}')


INDEX = hamming.make_index(
  np.zeros([5, 1], np.uint8), 8, [*'abcde'], [0] * 5, {'a': 1}
)


@pytest.mark.parametrize('folder', ['{tmp_path}', 'ram://indices'])
def test_an_index_is_kept_whatever_the_store(folder, tmp_path):
  folder = folder.format(tmp_path=tmp_path)
  path = f'{folder}/new/index.npz'
  search._save(path, INDEX)
  assert tf.io.gfile.listdir(f'{folder}/new') == ['index.npz']
  found = search._load(path, {'a': 1}, print)
  assert [*found.ids] == [*INDEX.ids] and found.facts == {'a': 1}


def test_a_write_that_fails_leaves_the_index_that_was_there(
  tmp_path, monkeypatch
):
  class Full(tf.io.gfile.GFile):
    def write(self, content):
      raise OSError('No space left on device')

  path = f'{tmp_path}/index.npz'
  search._save(path, INDEX)
  other = INDEX._replace(facts={'a': 2})
  with monkeypatch.context() as patched:
    patched.setattr(search.tf.io.gfile, 'GFile', Full)
    with pytest.raises(OSError, match='No space'):
      search._save(path, other)
  assert search._load(path, {'a': 1}, print).facts == {'a': 1}


def test_a_damaged_index_is_named(tmp_path):
  path = tmp_path / 'index.npz'
  search._save(str(path), INDEX)
  data = path.read_bytes()
  for damaged in (b'', b'not an index', data[:-30], data[1:]):
    path.write_bytes(damaged)
    with pytest.raises(
      config.ConfigError, match='index.npz is not .*damaged.*to make a new one'
    ):
      search._load(str(path), {}, print)
  path.unlink()
  assert search._load(str(path), {}, print) is None


def test_a_store_out_of_reach_is_no_damaged_index(tmp_path, monkeypatch):
  def away(*_):
    raise tf.errors.UnavailableError(None, None, 'no answer')

  write(f'{tmp_path}/i.npz', b'')
  monkeypatch.setattr(search.tf.io.gfile, 'GFile', away)
  with pytest.raises(tf.errors.UnavailableError):
    search._load(f'{tmp_path}/i.npz', {}, print)


def test_a_model_without_bits_says_so(tmp_path, run_copy, capsys):
  model_dir, images = run_copy('stochcon_gaussian')
  query = f'--query={images}/val/dog/3.JPG'
  assert call('--mode=search', f'--model_dir={model_dir}', query) == 2
  assert 'needs a model of --pretrain_loss=stochcon_bernoulli' in (
    capsys.readouterr().err
  )
  rows = extracted(model_dir, f'{tmp_path}/f.npz')
  assert rows['latent_mean'].shape == (7, DIM)
  assert rows['latent_std'].shape == (7, 1) and 'latent_bits' not in rows


def test_recall_is_measured_on_rows_of_the_index(monkeypatch):
  """Every third of what can be decoded, whatever the batches are."""
  rng = np.random.default_rng(0)
  floats = rng.normal(size=[40, 8]).astype(np.float32)
  mean = (floats > 0) * 1.0
  mean[[4, 5, 17]] = np.nan
  bits = np.packbits(floats > 0, axis=1)
  monkeypatch.setattr(search, '_MEASURED', 14)

  def pieces(*_):
    for start in range(0, 40, 7):
      part = slice(start, start + 7)
      yield {
        'latent_mean': mean[part],
        'representation': floats[part],
        'latent_bits': bits[part],
        'ids': np.arange(40).astype(str)[part],
        'labels': np.zeros(40, int)[part],
        'decoded': ~np.isnan(mean[part, 0]),
      }

  seen = {}

  def recall(index, floats, k, sample, seed):
    seen.update(index=index, floats=floats)
    return 0.5

  monkeypatch.setattr(search.features, 'make_read', lambda *_: pieces)
  monkeypatch.setattr(search.hamming, 'recall', recall)

  class Info:
    name, split, num_examples = 'a folder', 'val', 40

  class State:
    class method:
      class latent:
        dim = 8

  class Cfg:
    neighbors = 5

  index = search._make(Cfg, None, State, Info, {'a': 1})
  good = np.delete(np.arange(40), [4, 5, 17])
  assert [*index.ids] == [*good.astype(str)]
  np.testing.assert_array_equal(seen['floats'], floats[good][::3])
  codes = hamming.make_index(
    bits[good][::3], 8, index.ids[::3], index.labels[::3], {}
  )
  np.testing.assert_array_equal(seen['index'].words, codes.words)
  assert index.facts == {
    'a': 1, 'recall': 0.5, 'recall_at': 5, 'recall_among': 13
  }  # fmt: skip
  assert json.dumps(index.facts)


def test_what_changes_the_bits_is_no_flag_of_the_search(
  bernoulli, tmp_path, capsys
):
  model_dir, images = bernoulli
  flags = ['--mode=search', f'--query={images}/val/dog/3.JPG']
  more = [f'--model_dir={model_dir}']
  assert call(*flags, *more, '--latent_top_k=2') == 2
  assert 'the checkpoint was made with 0' in capsys.readouterr().err
  assert call('--mode=eval', *more, '--probe_latent') == 2
  assert 'the checkpoint was made with false' in capsys.readouterr().err
  # Where would the index be kept?
  assert call(*flags, f'--checkpoint={model_dir}') == 2
  assert 'needs --output, the file for its index' in capsys.readouterr().err
  # Nor is the index of one data set that of another.
  images = shutil.copytree(images, f'{tmp_path}/images')
  more += [f'--dataset=folder:{images}']
  os.rename(f'{images}/val/cat/2.JPG', f'{images}/val/cat/22.JPG')
  assert call(*flags, *more) == 0
  os.rename(f'{images}/val/cat/22.JPG', f'{images}/val/cat/2.JPG')
  capsys.readouterr()
  assert call(*flags, *more) == 0
  assert 'making a new one' in capsys.readouterr().out


def test_2048_bits_of_a_large_image(tmp_path):
  arrays = {'latent_bits': np.zeros([3, 256], np.uint8)}
  np.savez(f'{tmp_path}/f.npz', **arrays)
  line = features.bits_on_disk(2048, 224**2 * 3, 3, [f'{tmp_path}/f.npz'])
  assert '2,048 bits an image: 588.0 x smaller' in line
  assert 'latent_bits takes 896 bytes on disk' in line


def test_finetuning_takes_the_latent_over(bernoulli, tmp_path, capsys):
  model_dir, images = bernoulli
  flags = [f'--checkpoint={model_dir}', f'--dataset=folder:{images}', *QUICK]
  flags += ['--train_mode=finetune', '--mode=train', '--probe_latent']
  flags += ['--train_steps=2', '--warmup_epochs=0', '--train_batch_size=4']
  for block in (-1, 4):
    own = f'{tmp_path}/tuned{block}'
    more = [f'--model_dir={own}', f'--fine_tune_after_block={block}']
    assert call(*flags, *more) == 0
    assert 'Loaded encoder, latent from' in capsys.readouterr().out
    before = extracted(model_dir, f'{tmp_path}/before.npz')
    after = extracted(own, f'{tmp_path}/after.npz')
    assert call('--mode=eval', f'--model_dir={own}') == 0
    assert 'step 2: top-1' in capsys.readouterr().out
    # Linear evaluation moves nothing; the probe reads twelve bits.
    same = np.array_equal(before['latent_mean'], after['latent_mean'])
    assert same == (block == 4)
    assert after['logits'].shape == (7, 3)
    capsys.readouterr()
  with open(f'{own}/config.json') as file:
    assert json.load(file)['config']['pretrain_loss'] == 'stochcon_bernoulli'


def test_finetuning_a_latent_that_is_not_there(run_copy, capsys):
  model_dir, images = run_copy('contrastive_ceb', '--no_augmentation=false')
  flags = [f'--checkpoint={model_dir}', f'--dataset=folder:{images}']
  flags += ['--train_mode=finetune', '--probe_latent']
  for more in ([], ['--pretrain_loss=stochcon_bernoulli']):
    assert call(*flags, *more) == 2
    assert 'the checkpoint has no latents' in capsys.readouterr().err


def test_a_pretraining_that_begins_there_keeps_its_own_method(
  bernoulli, tmp_path
):
  model_dir, images = bernoulli
  flags = [f'--checkpoint={model_dir}', f'--dataset=folder:{images}', *QUICK]
  flags += ['--mode=train', '--train_steps=1', '--warmup_epochs=0']
  flags += ['--train_batch_size=4', f'--model_dir={tmp_path}/next']
  assert call(*flags, '--proj_head_mode=nonlinear') == 0
  with open(f'{tmp_path}/next/config.json') as file:
    assert json.load(file)['config']['pretrain_loss'] == 'contrastive'


def test_exports_of_a_probe_on_bits(tmp_path, run_copy, capsys):
  more = ('--probe_latent', '--shortcut=torchvision')
  model_dir, _ = run_copy('stochcon_bernoulli', *more)
  rows = extracted(model_dir, f'{tmp_path}/f.npz')
  assert rows['logits'].shape == (7, 3)

  def exported(form):
    flags = ['--mode=export', f'--model_dir={model_dir}', f'--format={form}']
    return call(*flags, f'--output={tmp_path}/{form}')

  for form in ('saved_model', 'safetensors', 'onnx'):
    assert exported(form) == 0, form
  loaded = tf.saved_model.load(f'{tmp_path}/saved_model/saved_model')
  logits = loaded(tf.zeros([2, 16, 16, 3]))['supervised_head_input']
  assert logits.shape == (2, DIM)
  capsys.readouterr()
  assert exported('keras') == 2
  assert 'cannot hold the latent' in capsys.readouterr().err
