"""What ImageNet's variants are called, and how AlexNet did on one of them."""

from typing import NamedTuple


class RobustnessSet(NamedTuple):
  """A set without training images, of ImageNet's classes."""

  dataset: str  # its name in TFDS; '' where it is a folder with a list file
  split: str
  classes: int  # that occur in it; 0: as many as its list file says


RECROPPED = 'imagenet_c_recropped'
SETS = {
  'imagenet_a': RobustnessSet('imagenet_a', 'test', 200),
  'imagenet_r': RobustnessSet('imagenet_r', 'test', 200),
  'imagenet_v2': RobustnessSet('imagenet_v2/matched-frequency', 'test', 1000),
  # A configuration '<corruption>_<severity>' for each of the 75. Its images are
  # central crops already. robustness_metrics, whose numbers the papers have,
  # crops them again.
  'imagenet_c': RobustnessSet('imagenet2012_corrupted', 'validation', 1000),
  RECROPPED: RobustnessSet('imagenet2012_corrupted', 'validation', 1000),
  'objectnet': RobustnessSet('', '', 0),
  'imagenet_vid': RobustnessSet('', '', 0),
  'youtube_bb': RobustnessSet('', '', 0),
}

SEVERITIES = (1, 2, 3, 4, 5)
# AlexNet's errors, each the mean over the five severities (Hendrycks and
# Dietterich, 2019), in ImageNet-C's own order.
ALEXNET_ERRORS = {
  'gaussian_noise': 0.886428,
  'shot_noise': 0.894468,
  'impulse_noise': 0.922640,
  'defocus_blur': 0.819880,
  'glass_blur': 0.826268,
  'motion_blur': 0.785948,
  'zoom_blur': 0.798360,
  'snow': 0.866816,
  'frost': 0.826572,
  'fog': 0.819324,
  'brightness': 0.564592,
  'contrast': 0.853204,
  'elastic_transform': 0.646056,
  'pixelate': 0.717840,
  'jpeg_compression': 0.606500,
}
