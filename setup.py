"""For `pip install -e .` in a virtual environment of one's own."""

import pathlib

from setuptools import setup

here = pathlib.Path(__file__).parent


def requirements(name):
  """The requirements in a file, without its comments."""
  lines = (here / name).read_text().splitlines()
  return [line for line in lines if line and not line.startswith('#')]


PLOT = ['matplotlib>=3.7']
SEARCH = ['faiss-cpu>=1.10']
EXPORT = ['safetensors>=0.4', 'tf2onnx>=1.16', 'onnxruntime>=1.17']

setup(
  name='compressive-ssl',
  version='0.1.0',
  description='Compressive self-supervised visual learning, TensorFlow 2',
  license='Apache-2.0',
  python_requires='>=3.10,<3.14',
  py_modules=[
    'augmentation',
    'big_batches',
    'checkpoint_files',
    'checkpoints',
    'checks',
    'clustering',
    'command_line',
    'config',
    'contrastive',
    'data',
    'data_service',
    'data_sources',
    'data_util',
    'derived',
    'distillation',
    'distributed',
    'distributions',
    'doctor',
    'entropy_reconstruction',
    'evaluate',
    'export',
    'features',
    'hamming',
    'health',
    'information',
    'inspection',
    'keras_twin',
    'lars_optimizer',
    'latent_report',
    'latent_study',
    'latents',
    'locks',
    'loop',
    'methods',
    'model',
    'monitor',
    'objectives',
    'optimizers',
    'photo_patches',
    'presets',
    'pretrained',
    'prototypes',
    'randomness',
    'released',
    'resnet',
    'run',
    'schedules',
    'search',
    'settings',
    'skeletons',
    'stochcon',
    'torch_names',
    'towers',
    'train',
    'watch',
  ],
  packages=['evaluation'],
  install_requires=requirements('requirements.txt'),
  extras_require={
    # The built-in data set, the logistic probe of the quickstart, forests.
    'quickstart': ['scikit-image>=0.21', 'scikit-learn>=1.2'],
    # --mode=export --format=safetensors and onnx.
    'export': EXPORT,
    # scripts/plot_information.py, latent_report.py.
    'plot': PLOT,
    # Many queries at once in hamming.py; without it numpy takes longer.
    'search': SEARCH,
    'test': [
      'scikit-image>=0.21',
      'scikit-learn>=1.2',
      'mpmath>=1.3',
      'scipy>=1.10',
      'pytest>=8',
      'pytest-xdist>=3',
      'ruff>=0.9',
      *EXPORT,
      *PLOT,
      *SEARCH,
    ],
    # The tests of what PyTorch reads; several GB on Linux.
    'test-torch': ['torch>=2.0', 'timm>=1.0'],
  },
)
