import json
import subprocess
import sys

from cvr.checkpoints import stored
from cvr.configs import config


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


def test_nothing_is_read_where_there_is_no_model(tmp_path):
  assert stored.read_stored(str(tmp_path)) is None
  assert stored.read_stored(str(tmp_path / 'missing')) is None
