import json
import subprocess
import sys

from cvr.checkpoints import stored
from cvr.configs import command_line, config, derived


def test_a_run_in_a_local_folder_is_read_without_tensorflow(tmp_path):
  settings = config.to_dict(config.Config(pretrain_loss='byol_ceb'))
  (tmp_path / 'config.json').write_text(json.dumps({'config': settings}))
  (tmp_path / 'ckpt-7.index').touch()
  code = (
    'import sys\n'
    'from cvr.checkpoints.stored import read_stored\n'
    'for path in sys.argv[1:]:\n'
    '  print(read_stored(path).methods)\n'
    "assert 'tensorflow' not in sys.modules\n"
  )
  paths = [str(tmp_path), str(tmp_path / 'ckpt-7')]
  printed = subprocess.check_output([sys.executable, '-c', code, *paths])
  assert printed.decode() == "('byol_ceb',)\n" * 2


def test_an_old_run_is_evaluated_as_it_was(tmp_path):
  """Before --eval_crop, 12.5% of images of every size were cut off."""
  old = config.to_dict(config.Config(image_size=32))
  del old['eval_crop']
  (tmp_path / 'config.json').write_text(json.dumps({'config': old}))
  (tmp_path / 'ckpt-7.index').touch()
  run = f'--model_dir={tmp_path}'
  for typed, crop in (((), 0.875), (('--eval_crop=auto',), 1.0)):
    for mode in ('eval', 'evaluate', 'train'):
      argv = ['run.py', f'--mode={mode}', run, '--image_size=32', *typed]
      cfg = command_line.parse(argv, stored.read_stored)
      assert derived.eval_crop(cfg) == crop


def test_corruptions_of_an_old_run_have_imagenet_cs_parameters(tmp_path):
  values = config.to_dict(config.Config(image_size=32))
  (tmp_path / 'ckpt-7.index').touch()
  argv = ['run.py', '--mode=evaluate', f'--model_dir={tmp_path}']
  for old, typed, scale in (
    (False, (), 'cifar10_c'),
    (True, (), 'imagenet_c'),
    (True, ('--corrupt_scale=auto',), 'cifar10_c'),
  ):
    if old:
      values.pop('corrupt_scale', None)
    (tmp_path / 'config.json').write_text(json.dumps({'config': values}))
    cfg = command_line.parse([*argv, *typed], stored.read_stored)
    assert derived.corrupt_scale(cfg) == scale


def test_an_old_run_resumes_with_the_crops_that_it_had(tmp_path):
  """Before --bbox_tries, sides of uniform crops were cut to the image."""
  old = config.to_dict(config.Config(bbox_sampling='uniform'))
  del old['bbox_tries']
  (tmp_path / 'config.json').write_text(json.dumps({'config': old}))
  (tmp_path / 'ckpt-7.index').touch()
  argv = ['run.py', f'--model_dir={tmp_path}', '--bbox_sampling=uniform']
  assert command_line.parse(argv, stored.read_stored).bbox_tries == 0
  argv = ['run.py', '--bbox_sampling=uniform']
  assert command_line.parse(argv, stored.read_stored).bbox_tries == 100


def test_an_old_run_without_augmentation_keeps_its_centres(tmp_path):
  old = config.to_dict(config.Config(no_augmentation=True))
  del old['plain_view']
  (tmp_path / 'config.json').write_text(json.dumps({'config': old}))
  (tmp_path / 'ckpt-7.index').touch()
  argv = ['run.py', f'--model_dir={tmp_path}', '--no_augmentation']
  cfg = command_line.parse(argv, stored.read_stored)
  assert not derived.augmentation(cfg).whole


def test_nothing_is_read_where_there_is_no_model(tmp_path):
  assert stored.read_stored(str(tmp_path)) is None
  assert stored.read_stored(str(tmp_path / 'missing')) is None


def test_a_local_folder_without_checkpoints_is_listed_without_tensorflow(
  tmp_path,
):
  code = (
    'import sys\n'
    'from cvr.checkpoints.stored import read_stored\n'
    'assert read_stored(sys.argv[1]) is None\n'
    "assert 'tensorflow' not in sys.modules\n"
  )
  subprocess.check_output([sys.executable, '-c', code, str(tmp_path)])
