"""What the released layout has no place for; tests/checkpoints has the rest."""

import pytest

from cvr.exports import export
from exported_models import trained

pytestmark = pytest.mark.usefixtures('few_blocks')


def test_learned_deviations_are_refused(monkeypatch, tmp_path):
  exported = trained(
    monkeypatch,
    pretrain_loss='contrastive_ceb',
    ceb_distribution='gaussian',
    gaussian_scale='learned',
  )
  with pytest.raises(ValueError, match='cannot hold learned deviations'):
    export.export('released', str(tmp_path), exported, print)


def test_other_than_three_channels_are_refused(monkeypatch, tmp_path):
  exported = trained(monkeypatch, channels=1)
  with pytest.raises(ValueError) as error:
    export.export('released', str(tmp_path), exported, print)
  for part in ('--format=released', 'has --channels=1', 'saved_model, safe'):
    assert part in str(error.value)
  assert not list(tmp_path.iterdir())


def test_other_methods_are_refused(monkeypatch, tmp_path):
  exported = trained(monkeypatch)
  checkpoint = exported.checkpoint._replace(methods=('moco',))
  exported = exported._replace(checkpoint=checkpoint)
  with pytest.raises(ValueError, match='but this checkpoint is of moco'):
    export.export('released', str(tmp_path), exported, print)
  assert not list(tmp_path.iterdir())
