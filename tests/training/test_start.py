"""What is said of a device before the first step."""

import pytest

from cvr.configs.config import Config
from cvr.training import start

_ZEN_3 = 'flags\t\t: fpu sse4_2 avx2 bmi2'


@pytest.mark.parametrize(
  ('text', 'slow'),
  [
    (f'model name\t: A\n{_ZEN_3}\nmodel name\t: B\n{_ZEN_3}\n', True),
    (f'{_ZEN_3} avx512_vnni avx512_bf16\n', False),
    (f'{_ZEN_3} amx_bf16 amx_tile\n', False),
    ('Features\t: asimd bf16\n', False),  # An Arm processor.
  ],
)
def test_a_processor_without_bfloat16_is_known_by_its_flags(
  tmp_path, text, slow
):
  path = tmp_path / 'cpuinfo'
  path.write_text(text)
  assert start.slow_bfloat16('the CPU', str(path)) == slow
  assert not start.slow_bfloat16('one GPU', str(path))
  assert not start.slow_bfloat16('the CPU', str(tmp_path / 'none'))


def test_bfloat16_is_advised_against_where_it_is_slow(monkeypatch):
  monkeypatch.setattr(start, 'slow_bfloat16', lambda device: True)
  line = start.precision_note(Config(precision='bf16'), 'the CPU')
  assert 'has no bfloat16' in line and '--precision=fp32' in line
  assert not start.precision_note(Config(), 'the CPU')
  monkeypatch.setattr(start, 'slow_bfloat16', lambda device: False)
  assert not start.precision_note(Config(precision='bf16'), 'the CPU')
