"""--channels: gray images and TIFF files of five, from files to exports.

Images are as large as the network's, so that nothing is resized: what it sees
is computed here by Pillow and tifffile.
"""

import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import run
import tiny_methods
from cvr import load_encoder
from cvr.checkpoints import files
from small_data import encoded, write
from small_runs import QUICK, flags, tensors

tifffile = pytest.importorskip('tifffile')
SIZE = 16
KERNEL = (
  'method/encoder/stages/0/convs/0/conv/kernel/.ATTRIBUTES/VARIABLE_VALUE'
)


def save(path, image):
  """RGB as PNG, five channels as TIFF, whose samples are those."""
  if image.shape[-1] == 3:
    return write(f'{path}.png', tf.io.encode_png(image).numpy())
  write(f'{path}.tif', b'')
  return tifffile.imwrite(
    f'{path}.tif', image, photometric='minisblack', planarconfig='contig'
  )


def make_images(root, channels):
  """Two classes of noise; the files of a network of one channel are RGB."""
  rng = np.random.default_rng(0)
  for split, count in (('train', 12), ('val', 5)):
    for k, name in enumerate(('dark', 'light')):
      for i in range(count):
        noise = rng.integers(
          0, 100, (SIZE, SIZE, channels if channels > 1 else 3)
        )
        save(f'{root}/{split}/{name}/{i}', (noise + 150 * k).astype(np.uint8))
  return root


def seen(images, ids):
  """What a network sees of evaluation images, in [0, 1]: [n, H, W, C]."""
  from PIL import Image

  rows = []
  for name in ids:
    path = f'{images}/val/{name}'
    if path.endswith('.tif'):
      rows.append(tifffile.imread(path))
    else:
      rows.append(np.array(Image.open(path).convert('L'))[..., None])
  return np.stack(rows).astype(np.float32) / 255


class Run:
  """A run of two steps on images of so many channels."""

  def __init__(self, root, channels):
    self.channels, self.root = channels, root
    self.images = make_images(root / 'images', channels)
    self.model_dir = root / 'run'

  def call(self, *more):
    settings = flags(self.images, self.model_dir, '--shortcut=torchvision')
    return run.main([*settings, *more])

  def read(self, *more):
    """A call that reads the run: nothing of its architecture is typed."""
    return run.main(
      ['run.py', '--use_tpu=false', f'--model_dir={self.model_dir}', *more]
    )


@pytest.fixture(scope='module', params=[1, 5])
def made(request, tmp_path_factory):
  channels = request.param
  result = Run(tmp_path_factory.mktemp('run'), channels)
  if channels == 5:
    # Among those of five channels one that has three.
    odd = np.zeros([SIZE, SIZE, 3], np.uint8)
    tifffile.imwrite(f'{result.images}/train/light/odd.tif', odd)
  with pytest.MonkeyPatch.context() as patch:
    tiny_methods.use_encoder(patch)
    more = ['--mode=train', '--train_steps=4', '--health_pairs=4']
    # Whole views, and the loader that keeps decoded images.
    assert result.call(*more, f'--channels={channels}', '--cache_dataset') == 0
  return result


@pytest.fixture
def tiny(made, tiny_encoder):
  del tiny_encoder
  return made


def test_the_first_kernel_has_as_many_and_the_run_says_so(tiny):
  kernel = tensors(f'{tiny.model_dir}/ckpt-4')[KERNEL]
  assert kernel.shape == (3, 3, tiny.channels, 8)
  with open(f'{tiny.model_dir}/config.json') as file:
    assert json.load(file)['config']['channels'] == tiny.channels
  bad = tiny.model_dir / 'bad_images.txt'
  assert bad.exists() == (tiny.channels == 5)
  if bad.exists():
    assert bad.read_text() == (
      'cannot be decoded to 5 channels\tlight/odd.tif\n'
    )


def test_what_is_of_rgb_is_said_once_and_left_out(tiny, tmp_path, capsys):
  more = [f'--model_dir={tmp_path}', '--mode=train', '--train_steps=1']
  assert tiny.call(*more, f'--channels={tiny.channels}') == 0
  lines = capsys.readouterr().out.splitlines()
  about = [line for line in lines if 'no saturation, hue and grayscale' in line]
  assert len(about) == 1 and f'--channels={tiny.channels}' in about[0]


def test_features_are_those_of_the_exports(tiny, tmp_path, capsys):
  assert tiny.read('--mode=eval', '--train_steps=4') == 0
  path = f'{tmp_path}/features.npz'
  assert tiny.read('--mode=extract_features', f'--output={path}') == 0
  with np.load(path) as file:
    rows = dict(file)
  assert len(rows['ids']) == 10
  assert tiny.read('--mode=export', f'--output={tmp_path}/saved') == 0
  network = tf.saved_model.load(f'{tmp_path}/saved/saved_model')
  images = seen(tiny.images, rows['ids'])
  assert images.shape == (10, SIZE, SIZE, tiny.channels)
  expected = network(images)['final_avg_pool'].numpy()
  assert expected.std(0).max() > 1e-3
  # Of gray a rounded luminance may be another one.
  tolerance = {1: 2e-2, 5: 1e-5}[tiny.channels] * np.abs(expected).max()
  np.testing.assert_allclose(rows['representation'], expected, atol=tolerance)
  encoder = load_encoder(tiny.model_dir)
  found = encoder(encoder.preprocess((255 * images).round().astype(np.uint8)))
  np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())
  with pytest.raises(ValueError, match=f'width, {tiny.channels}'):
    encoder(images[..., :1].repeat(3, -1))
  out = f'--output={tmp_path}/torch'
  assert tiny.read('--mode=export', '--format=safetensors', out) == 0
  stored = safetensors.numpy.load_file(f'{tmp_path}/torch/resnet18.safetensors')
  # Other tests may have trained further, whichever came first.
  newest = files.steps(tiny.model_dir)[-1]
  np.testing.assert_array_equal(
    stored['conv1.weight'].transpose(2, 3, 1, 0),
    tensors(f'{tiny.model_dir}/ckpt-{newest}')[KERNEL],
  )
  capsys.readouterr()
  out = f'--output={tmp_path}/released'
  assert tiny.read('--mode=export', '--format=released', out) == 2
  assert f'has --channels={tiny.channels}.' in capsys.readouterr().err
  assert tiny.read('--mode=inspect') == 0
  assert f'stem, --channels={tiny.channels}' in capsys.readouterr().out


def test_a_contradiction_is_an_error(tiny, tmp_path, capsys):
  out = f'--output={tmp_path}/f.npz'
  assert tiny.read('--mode=extract_features', out, '--channels=3') == 2
  said = capsys.readouterr().err
  assert f'--channels=3: the checkpoint was made with {tiny.channels}' in said
  # A run is resumed with the flags that it was started with.
  assert tiny.call('--mode=train', '--train_steps=4') == 2
  said = capsys.readouterr().err
  assert f'--channels=3, was {tiny.channels}' in said


def test_it_is_resumed_and_finetuned(tiny, tmp_path, capsys):
  typed = f'--channels={tiny.channels}'
  more = ['--mode=train', '--health_pairs=4', '--cache_dataset', typed]
  assert tiny.call(*more, '--train_steps=5', '--allow_config_change') == 0
  assert 'Resuming from step 4' in capsys.readouterr().out
  # The architecture is the checkpoint's.
  begun = [f'--checkpoint={tiny.model_dir}/ckpt-4', f'--model_dir={tmp_path}']
  tuned = ['--mode=train', '--train_mode=finetune', '--train_steps=1']
  assert tiny.call(*tuned, *begun) == 0
  kernel = tensors(f'{tmp_path}/ckpt-1')[KERNEL]
  assert kernel.shape[2] == tiny.channels


def test_what_config_json_says_has_to_be_what_the_tensors_are(
  tiny, tmp_path, capsys
):
  """As where somebody edited it, or put it beside another checkpoint."""
  for path in tiny.model_dir.glob('ckpt-4.*'):
    write(f'{tmp_path}/{path.name}', path.read_bytes())
  record = json.loads((tiny.model_dir / 'config.json').read_text())
  record['config']['channels'] = 3
  write(f'{tmp_path}/config.json', json.dumps(record).encode())
  out = f'--output={tmp_path}/out'
  assert tiny.read('--mode=export', f'--model_dir={tmp_path}', out) == 2
  shape = f'[3, 3, {tiny.channels}, 8] for [3, 3, 3, 8]'
  assert shape in capsys.readouterr().err


def test_three_is_the_default_and_what_older_runs_have(
  images, tmp_path, tiny_encoder, capsys
):
  def trained(name, *more):
    argv = flags(images, tmp_path / name, '--mode=train', *QUICK)
    assert run.main([*argv, '--train_steps=2', *more]) == 0
    return tensors(f'{tmp_path}/{name}/ckpt-2')

  plain, typed = trained('plain'), trained('typed', '--channels=3')
  for name, value in plain.items():
    np.testing.assert_array_equal(value, typed[name], err_msg=name)
  path = tmp_path / 'plain' / 'config.json'
  record = json.loads(path.read_text())
  del record['config']['channels']
  path.write_text(json.dumps(record))
  capsys.readouterr()
  trained('plain', '--channels=3')
  assert 'channels' not in capsys.readouterr().out
  argv = flags(images, tmp_path / 'plain', '--mode=train', *QUICK)
  assert run.main([*argv, '--train_steps=2', '--channels=1']) == 2
  assert '--channels=1, was 3' in capsys.readouterr().err


def test_no_run_is_left_where_the_first_image_has_others(tmp_path, capsys):
  write(f'{tmp_path}/images/0.png', encoded(1))
  argv = flags(tmp_path / 'images', tmp_path / 'run', '--mode=train')
  assert run.main([*argv, '--channels=4']) == 2
  said = capsys.readouterr().err
  assert '0.png: it has 3 channels, but --channels=4' in said
  assert not (tmp_path / 'run').exists()
