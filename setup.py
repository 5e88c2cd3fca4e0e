"""For `pip install -e .` in a virtual environment of one's own."""

import pathlib

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent


def requirements(name):
  """The requirements in a file, without its comments."""
  lines = (here / name).read_text().splitlines()
  return [line for line in lines if line and not line.startswith('#')]


PLOT = ['matplotlib>=3.7']
TIFF = ['tifffile>=2023.1']
HF = ['datasets>=4.0']
SEARCH = ['faiss-cpu>=1.10']
EXPORT = ['safetensors>=0.4', 'tf2onnx>=1.16', 'onnxruntime>=1.17']

setup(
  name='compressive-ssl',
  version='0.1.0',
  description='Compressive self-supervised visual learning, TensorFlow 2',
  license='Apache-2.0',
  python_requires='>=3.10,<3.14',
  # The design card's front; everything behind it is one package.
  py_modules=[
    'data_util',
    'lars_optimizer',
    'model',
    'objectives',
    'resnet',
    'run',
  ],
  packages=find_packages(include=['cvr*']),
  # What every page of the report has in it.
  package_data={'cvr.report': ['style.css', 'script.js']},
  install_requires=requirements('requirements.txt'),
  extras_require={
    # The built-in data set, the logistic probe of the quickstart, forests.
    'quickstart': ['scikit-image>=0.21', 'scikit-learn>=1.2'],
    # --mode=export --format=safetensors and onnx.
    'export': EXPORT,
    # scripts/plot_information.py, the plots of evaluations.
    'plot': PLOT,
    # Many queries at once in --mode=search; without it numpy takes longer.
    'search': SEARCH,
    # --dataset=hf:NAME_OR_PATH.
    'hf': HF,
    # A second map in --mode=report.
    'umap': ['umap-learn>=0.5.4'],
    # Folders of TIFF files.
    'tiff': TIFF,
    # --wandb_project and --mlflow_uri.
    'wandb': ['wandb>=0.17'],
    'mlflow': ['mlflow>=2.9'],
    'test': [
      'scikit-image>=0.21',
      'scikit-learn>=1.2',
      'mpmath>=1.3',
      'scipy>=1.10',
      'hypothesis>=6',
      'pytest>=8',
      'pytest-xdist>=3',
      'ruff>=0.9',
      'import-linter>=2.5',
      'kubernetes-validate>=1.29',
      *EXPORT,
      *HF,
      *PLOT,
      *SEARCH,
      *TIFF,
    ],
    # scripts/fuzz.sh; it has wheels for Linux and macOS.
    'fuzz': ['atheris>=2.3'],
    # The tests of what PyTorch reads; several GB on Linux.
    'test-torch': ['torch>=2.0', 'timm>=1.0'],
  },
)
