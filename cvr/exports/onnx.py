"""--format=onnx: a graph for evaluation, any number of images of any size."""

import os

import onnxruntime
import tensorflow as tf
import tf2onnx


def write(folder, model):
  """-> (path, the network read back from it)."""
  path = os.path.join(folder, 'model.onnx')
  call = tf.function(model.network_of(model.state))
  shape = [None, None, None, model.channels]
  any_images = tf.TensorSpec(shape, tf.float32, 'images')
  tf2onnx.convert.from_function(
    call, input_signature=[any_images], opset=17, output_path=path
  )
  session = onnxruntime.InferenceSession(path)
  names = [output.name for output in session.get_outputs()]

  def network(images):
    outputs = session.run(None, {'images': images.numpy()})
    return dict(zip(names, outputs, strict=True))

  return path, network
