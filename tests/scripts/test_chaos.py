"""scripts/chaos.py: what counts as a kill during a save."""

import os
import pathlib
import sys
import time

SCRIPTS = os.path.join(pathlib.Path(__file__).parents[2], 'scripts')
sys.path.insert(0, SCRIPTS)
chaos = __import__('chaos')
sys.path.remove(SCRIPTS)


def test_a_save_of_an_earlier_process_does_not_count(tmp_path):
  now = time.time()
  assert not chaos.saves(tmp_path, now)
  folder = tmp_path / 'ckpt-12_temp'
  folder.mkdir()
  os.utime(folder, (now - 5, now - 5))
  assert not chaos.saves(tmp_path, now)
  os.utime(folder, (now + 5, now + 5))
  assert chaos.saves(tmp_path, now)
  folder.rename(tmp_path / 'old-12_temp')
  assert not chaos.saves(tmp_path, now)
