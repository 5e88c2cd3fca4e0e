"""--format=onnx: a graph for evaluation, any number of images of any size."""

import os

import onnxruntime
import tensorflow as tf
import tf2onnx

_ANY_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, 'images')


def write(folder, model):
  """-> (path, the network read back from it)."""
  path = os.path.join(folder, 'model.onnx')
  call = tf.function(model.network_of(model.state))
  tf2onnx.convert.from_function(
    call, input_signature=[_ANY_IMAGES], opset=17, output_path=path
  )
  session = onnxruntime.InferenceSession(path)
  names = [output.name for output in session.get_outputs()]

  def network(images):
    outputs = session.run(None, {'images': images.numpy()})
    return dict(zip(names, outputs, strict=True))

  return path, network
