"""What follows from the settings of a call: pure functions of them.

Which kind of method and of mode it is, how many steps, at which rate, what
happens to images. Nothing heavy is imported here, so that --help and a mistyped
flag answer at once.
"""

import dataclasses
import math

from cvr.configs import methods, variants
from cvr.configs.settings import SUITES, refuse, show

# fmt: off
# Tables, laid out by hand.

# Parts of an image's colours that a network of CMC may see.
COLOUR_PARTS = ('rgb', 'lab_l', 'lab_ab', 'ycbcr_y', 'ycbcr_cbcr')
STOCHCON = methods.using('latent_dim')
# fmt: on
# The modes that read a trained model and train none.
READING = (
  *('eval', 'evaluate', 'extract_features', 'latents', 'search'),
  *('report', 'export', 'inspect'),
)


# What kind of call it is ------------------------------------------------------


def is_ceb(cfg):
  """Whether the method compresses."""
  return cfg.pretrain_loss in methods.using('ceb_beta')


def compares(cfg):
  """Whether the loss of an image depends on the others in its batch."""
  kind = methods.KINDS[cfg.pretrain_loss]
  return cfg.train_mode == 'pretrain' and kind.compares


def centres(cfg):
  """Whether the logits of DINO's teacher are centred."""
  if cfg.centring is None:
    return methods.KINDS[cfg.pretrain_loss].centred
  return cfg.centring and cfg.pretrain_loss in methods.using('centring')


def has_teacher(cfg):
  """Whether the method has a target network, the EMA of the online one."""
  return methods.has_teacher(cfg.pretrain_loss)


def chunks(cfg, replicas):
  """How many parts a replica's batch comes in."""
  rows = cfg.train_batch_size // replicas
  if cfg.grad_cache_chunk:
    return rows // cfg.grad_cache_chunk
  return cfg.grad_accum_steps


def has_latent(cfg):
  """Whether bits or Gaussians stand between representation and head."""
  return cfg.pretrain_loss in STOCHCON


def latent_dim(cfg):
  """How wide they are: by themselves as wide as the representation."""
  width = (512 if cfg.resnet_depth < 50 else 2048) * cfg.width_multiplier
  return cfg.latent_dim or width


def head_sizes(cfg):
  """{setting: how many numbers a tensor has at most that it sizes}."""
  hidden, out = cfg.proj_head_hidden_dim, cfg.proj_out_dim
  clusterings = cfg.num_heads if cfg.pretrain_loss == 'deepcluster' else 1
  return {
    'proj_head_hidden_dim': hidden * hidden,
    'proj_out_dim': hidden * out,
    'latent_dim': hidden * cfg.latent_dim,
    'num_prototypes': cfg.num_prototypes * out,
    'num_heads': clusterings * cfg.num_prototypes * out,
    'queue_size': 2 * cfg.queue_size * out,
  }


def view_pair(cfg):
  """What each of two networks sees; () where there is one."""
  return tuple(cfg.view_pairs.split(',')) if cfg.view_pairs else ()


def reads(cfg):
  """Whether this call reads a trained model and trains none."""
  return cfg.mode in READING


def words(text):
  """'a, b' -> ['a', 'b']."""
  return [word.strip() for word in text.split(',') if word.strip()]


def _among(flag, text, names):
  """'all' or 'a,b' -> names in their own order; refuses others."""
  wanted = words(text)
  unknown = [word for word in wanted if word not in (*names, 'all')]
  if unknown:
    why = f'{show(unknown[0])} is unknown; there are all, {", ".join(names)}'
    refuse(flag, text, why)
  return [name for name in names if name in wanted or 'all' in wanted]


def suites(cfg):
  """The suites of this evaluation, in their order."""
  named = words(cfg.suite)
  if not named:
    refuse('suite', cfg.suite, f'must be all or some of {", ".join(SUITES)}')
  chosen = _among('suite', cfg.suite, SUITES)
  return [name for name in chosen if name in named or name != SUITES[-1]]


def corruptions(cfg):
  """The corruptions of the evaluation split, in ImageNet-C's order."""
  return _among('corrupt', cfg.corrupt, [*variants.ALEXNET_ERRORS])


def corrupt_scale(cfg):
  """The published set that corruptions have their parameters of."""
  if cfg.corrupt_scale == 'auto':
    return 'cifar10_c' if cfg.image_size <= 32 else 'imagenet_c'
  return cfg.corrupt_scale


def is_imagenet(cfg):
  """Whether the images are ImageNet's, which has published variants."""
  return cfg.dataset.partition(':')[0].startswith('imagenet2012')


def robustness_places(cfg):
  """--robustness_sets -> {name: where it lies, or '' where TFDS knows}."""
  text = cfg.robustness_sets or ('all' if is_imagenet(cfg) else '')
  places = dict(word.partition('=')[::2] for word in words(text))
  names = _among('robustness_sets', ','.join(places), variants.SETS)
  # Another pass over all of ImageNet-C is made only by name.
  names = [n for n in names if n in places or n != variants.RECROPPED]
  return {name: places.get(name, '') for name in names}


def stem(cfg):
  """The stem of the backbone: 'imagenet', 'cifar' or 'small'."""
  if cfg.stem == 'auto':
    return 'cifar' if cfg.image_size <= 32 else 'imagenet'
  return cfg.stem


def eval_crop(cfg):
  """The share of the shorter side that the crop of the evaluation keeps.

  SimCLR and the published code cut nothing off small images.
  """
  if cfg.eval_crop == 'auto':
    return 1.0 if cfg.image_size <= 32 else 0.875
  return float(cfg.eval_crop)


def pixels(cfg):
  """What decoding has to know: bits of a channel, channels of an image.

  Where no training has resolved `auto`, 8 bits.
  """
  bits = 8 if cfg.bit_depth == 'auto' else int(cfg.bit_depth)
  return {'bits': bits, 'channels': cfg.channels}


def train_steps(cfg, num_examples):
  """Steps of the whole training."""
  epochs = num_examples * cfg.train_epochs // cfg.train_batch_size + 1
  return cfg.train_steps or epochs


def warmup_steps(cfg, num_examples):
  """Steps over which the learning rate rises."""
  return round(cfg.warmup_epochs * num_examples // cfg.train_batch_size)


def queue_start_step(cfg, num_examples):
  """The first step that uses SwAV's queue, which is full then."""
  start = math.ceil(cfg.queue_start * num_examples / cfg.train_batch_size)
  return max(start, math.ceil(cfg.queue_size / cfg.train_batch_size))


def checkpoint_steps(cfg, num_examples):
  """Steps between two checkpoints."""
  epochs = cfg.checkpoint_epochs * num_examples / cfg.train_batch_size
  return cfg.checkpoint_steps or max(1, round(epochs))


def scaled_learning_rate(cfg, name='learning_rate'):
  """The peak of the learning rate, or another one, at this batch size."""
  rate = getattr(cfg, name)
  if cfg.learning_rate_scaling == 'sqrt':
    return rate * math.sqrt(cfg.train_batch_size)
  return rate * cfg.train_batch_size / 256


def num_views(cfg):
  """Views of an image in training: two global crops, then the local ones."""
  return 1 if cfg.train_mode == 'finetune' else 2 + cfg.local_crops


def colours(cfg):
  """Whether views are jittered, blurred and solarised in training."""
  pretrain = cfg.train_mode == 'pretrain'
  return not cfg.no_augmentation and (pretrain or cfg.ft_with_full_aug)


def numbers(text):
  """'0.3,1' -> (0.3, 1.0); () where that is not what it says."""
  try:
    return tuple(float(part) for part in text.split(','))
  except ValueError:
    return ()


def profile_steps(cfg):
  """--profile_steps -> (first, last), or () for none."""
  steps = numbers(cfg.profile_steps)
  whole = len(steps) == 2 and all(step.is_integer() for step in steps)
  if not cfg.profile_steps:
    return ()
  if not whole or not 0 <= steps[0] < steps[1]:
    why = 'must be two steps, the smaller first, such as 10,20'
    refuse('profile_steps', cfg.profile_steps, why)
  return int(steps[0]), int(steps[1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
  """What stands between a decoded image and its views.

  Tuples have a number per view: two global crops, then local ones, which have
  all of them the same. Probabilities are 0 where something is switched off.
  Without random_crop a view is the whole image or its centre, 87.5% of it.
  """

  size: tuple
  random_crop: bool
  whole: bool
  area_lower: tuple
  area_upper: tuple
  sampling: str
  tries: int  # of a crop, until it fits; 0: sides that do not are cut
  covered: tuple  # with tries: the smallest crop, whatever area_lower is
  jitter_prob: float
  brightness: float
  contrast: float
  saturation: float
  hue: float
  brightness_fn: str
  gray_prob: float
  clip_after_resize: bool
  clip_after_gray: bool
  blur: tuple
  solarize: tuple
  mean_std: bool

  @property
  def image_size(self):
    """Height and width of the global crops."""
    return self.size[0]


COVERED = 0.1  # SimCLR's min_object_covered, of the whole image.

# --batch_image_augmentation_type -> for view 1, view 2 and every local crop.
_BLUR = {'byol': (1.0, 0.1, 0.5), 'simclr': (0.5, 0.5, 0.5)}
_SOLARIZE = {'byol': (0.0, 0.2, 0.0), 'simclr': (0.0, 0.0, 0.0)}


def augmentation(cfg):
  """-> Augmentation, what the training images of this run go through."""

  def views(first, second, local):
    return first, second, *(local,) * cfg.local_crops

  def probabilities(typed, usual, on):
    given = numbers(typed)
    return views(*given, *usual[kind][len(given) :]) if on else views(0, 0, 0)

  kind = cfg.batch_image_augmentation_type
  smallest, largest = cfg.area_range_lower_bound, cfg.area_range_upper_bound
  low, high = numbers(cfg.local_area)
  color, rgb = colours(cfg), cfg.channels == 3
  return Augmentation(
    size=views(cfg.image_size, cfg.image_size, cfg.local_size),
    random_crop=not cfg.no_augmentation,
    whole=cfg.plain_view == 'whole',
    area_lower=views(smallest, smallest, low),
    area_upper=views(largest, largest, high),
    sampling=cfg.bbox_sampling,
    tries=cfg.bbox_tries if cfg.bbox_sampling == 'uniform' else 0,
    covered=views(COVERED, COVERED, 0.0),
    jitter_prob=cfg.color_jitter_probability if color else 0.0,
    brightness=cfg.color_jitter_brightness,
    contrast=cfg.color_jitter_contrast,
    saturation=cfg.color_jitter_saturation if rgb else 0.0,
    hue=cfg.color_jitter_hue if rgb else 0.0,
    brightness_fn=cfg.brightness_fn,
    gray_prob=cfg.grayscale_probability if color and rgb else 0.0,
    clip_after_resize=cfg.clip_by_value_after_resizing,
    clip_after_gray=cfg.clip_by_value_after_grayscale,
    blur=probabilities(cfg.blur_probability, _BLUR, color and cfg.use_blur),
    solarize=probabilities(cfg.solarize_probability, _SOLARIZE, color),
    mean_std=kind == 'byol',
  )
