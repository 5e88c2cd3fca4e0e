import onnxruntime
import pytest

from exported_models import (
  assert_documented_lines_give_our_features,
  assert_same_model,
)


def load(path):
  """What users do -> a function of images."""
  session = onnxruntime.InferenceSession(path)
  names = [output.name for output in session.get_outputs()]

  def network(images):
    outputs = session.run(None, {'images': images})
    return dict(zip(names, outputs, strict=True))

  return network


@pytest.mark.parametrize('kind', ['selective', 'byol', 'five channels'])
def test_an_onnx_graph_is_the_same_model(written, kind):
  made = written('onnx', kind)
  network = load(made.folder / 'model.onnx')
  assert_same_model(made, network, 'onnx', 'model.onnx')


def test_the_documented_lines_give_our_features(written, tmp_path):
  made = written('onnx', 'byol')
  assert_documented_lines_give_our_features(made, 'ONNX', tmp_path)
