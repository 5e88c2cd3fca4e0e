"""The settings of a call as a whole: what they may be together, what follows.

Nothing heavy is imported here, so that --help and a mistyped flag answer at
once.
"""

import dataclasses
import importlib.util
import math
import os
import re

from evaluation import transfer_sets, variants
from settings import METHOD_NAMES, METHOD_SWITCHES, SUITES, Settings

# fmt: off
# Tables, laid out by hand.

_CEB = ('contrastive_ceb', 'byol_ceb')
# The methods whose loss compares the images of a batch with each other.
_IN_BATCH = (
  'contrastive', 'contrastive_ceb', 'cmc',
  'er_simclr', 'er_byol', 'er_dino', 'entrec_cont', 'entrec_disc', 'swav',
  'stochcon_bernoulli', 'stochcon_gaussian')
_TEACHERS = tuple(
  name for name in METHOD_NAMES
  if 'use_momentum_encoder' in METHOD_SWITCHES[name])
# Parts of an image's colours that a network of CMC may see.
COLOUR_PARTS = ('rgb', 'lab_l', 'lab_ab', 'ycbcr_y', 'ycbcr_cbcr')
_DINO = ('dino', 'er_dino')
STOCHCON = ('stochcon_bernoulli', 'stochcon_gaussian')
# The methods that take --local_crops beside their two global ones.
MULTI_CROP = ('swav', 'deepcluster', *_DINO)
_CROPS = range(1, 17)  # as many local ones

# A flag -> (another one, the values of that with which the first has effect).
_MATTERS_WITH = {
  'local_crops': ('train_mode', ('pretrain',)),
  'local_size': ('local_crops', _CROPS),
  'local_area': ('local_crops', _CROPS),
  'queue_size': ('pretrain_loss', ('moco', 'swav')),
  'ema_schedule': ('pretrain_loss', _TEACHERS),
  'proj_head_hidden': ('proj_head_mode', ('nonlinear',)),
  'temperature': (
    'pretrain_loss',
    ('contrastive', 'cmc', 'moco', 'swav', 'deepcluster', *_DINO, *STOCHCON)),
  'teacher_temperature': ('pretrain_loss', _DINO),
  'teacher_temperature_start': ('pretrain_loss', _DINO),
  'teacher_temperature_warmup_epochs': ('pretrain_loss', _DINO),
  'centring': ('pretrain_loss', _DINO),
  'predictor_hidden_dim': ('pretrain_loss', ('simsiam',)),
  'constant_predictor_rate': ('pretrain_loss', ('simsiam',)),
  'double_batch_trick': (
    'pretrain_loss', ('contrastive', 'contrastive_ceb', *STOCHCON)),
  'byol_loss_weight': ('pretrain_loss', ('byol', 'byol_ceb')),
  'ceb_beta': ('pretrain_loss', _CEB),
  'ceb_distribution': ('pretrain_loss', _CEB),
  'backward_view': ('pretrain_loss', ('byol_ceb',)),
  'queue_start': ('pretrain_loss', ('swav',)),
  'num_prototypes': ('pretrain_loss', ('swav', 'deepcluster', *_DINO)),
  'freeze_prototypes_steps': ('pretrain_loss', ('swav', *_DINO)),
  'sinkhorn_epsilon': ('pretrain_loss', ('swav',)),
  'sinkhorn_iterations': ('pretrain_loss', ('swav',)),
  'num_heads': ('pretrain_loss', ('deepcluster',)),
  'kmeans_iterations': ('pretrain_loss', ('deepcluster',)),
  'kappa_e': ('ceb_distribution', ('vmf',)),
  'kappa_b': ('ceb_distribution', ('vmf',)),
  'er_kappa': ('pretrain_loss', ('er_simclr', 'er_byol', 'entrec_cont')),
  'er_estimator': ('pretrain_loss', ('er_simclr', 'er_byol')),
  'er_leave_one_out': (
    'pretrain_loss', ('er_simclr', 'er_byol', 'entrec_cont')),
  'er_entropy_of': ('pretrain_loss', ('er_byol',)),
  'er_alpha': ('pretrain_loss', ('entrec_cont',)),
  'latent_dim': ('pretrain_loss', STOCHCON),
  'latent_top_k': ('pretrain_loss', ('stochcon_bernoulli',)),
  'latent_estimator': ('pretrain_loss', ('stochcon_bernoulli',)),
  'latent_temperature': ('pretrain_loss', ('stochcon_bernoulli',)),
  'latent_temperature_end': ('pretrain_loss', ('stochcon_bernoulli',)),
  'latent_variance': ('pretrain_loss', ('stochcon_gaussian',)),
  'latent_scale': ('pretrain_loss', ('stochcon_gaussian',)),
  'latent_std': ('latent_variance', ('fixed',)),
  'latent_kl_weight': ('pretrain_loss', STOCHCON),
  'sigma_e': ('ceb_distribution', ('gaussian',)),
  'sigma_b': ('ceb_distribution', ('gaussian',)),
  'gaussian_scale': ('ceb_distribution', ('gaussian',)),
  'stop_on_collapse': ('train_mode', ('pretrain',)),
  'lars_eta': ('optimizer', ('lars',)),
  'lars_clip': ('optimizer', ('lars',)),
  'lars_classic': ('optimizer', ('lars',)),
  'lars_nesterov': ('optimizer', ('lars',)),
  'momentum_nesterov': ('optimizer', ('momentum',)),
  'final_learning_rate': ('learning_rate_schedule', ('cosine',)),
}
# fmt: on


# The modes that read a trained model and train none.
READING = (
  *('eval', 'evaluate', 'extract_features', 'latents', 'search'),
  *('export', 'inspect'),
)


class ConfigError(ValueError):
  """A setting that cannot be: one line that says what to do instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
  """Settings that are checked as a whole when they are put together."""

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not _is_allowed(field, value):
        refuse(field.name, value, f'must be {allowed(field)}')
    _check_names(self)
    _check_run(self)
    _check_method(self)
    _check_contrast(self)
    _check_latent(self)
    _check_reading_latents(self)
    _check_evaluation(self)
    _check_augmentation(self)
    _check_chunks(self)
    _check_optimizer(self)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# The annotation of a field -> (the types it takes, their name for people).
_KINDS = {
  bool: ((bool,), 'true or false'),
  bool | None: ((bool, type(None)), 'true or false'),
  int: ((int,), 'a whole number'),
  float: ((int, float), 'a number'),
  str: ((str,), 'text'),
}


def show(value):
  """A value as one would type it, on one line."""
  text = str(value).lower() if isinstance(value, bool) else str(value)
  return text if text.isprintable() else repr(text)


def refuse(name, value, why):
  raise ConfigError(f'--{name}={show(value)}: {why}')


def allowed(field):
  """What the flag may be, for people."""
  choices, kind = field.metadata['choices'], _KINDS[field.type][1]
  if isinstance(choices, tuple):
    return 'one of ' + ', '.join(str(c) for c in choices if c != '')
  return f'{kind} in {choices}' if choices else kind


def _is_allowed(field, value):
  if type(value) not in _KINDS[field.type][0]:
    return False
  choices = field.metadata['choices']
  if choices is None:
    return True
  if isinstance(choices, tuple):
    return value in choices
  low, high = map(float, choices[1:-1].split(','))
  above = value >= low if choices[0] == '[' else value > low
  below = value <= high if choices[-1] == ']' else value < high
  return above and below


# Checks between flags ------------------------------------------------------


def check_place(flag, path):
  """Refuses what TensorFlow takes for a pattern of paths."""
  if set(path) & set('[]*?'):
    why = 'must not hold any of [ ] * ?, or checkpoints in it are not found'
    refuse(flag, path, why)


def _check_names(cfg):
  name = r'[a-z0-9_]+(/\w[\w.-]*)?(:\d+\.\d+\.\d+)?'
  folder = re.fullmatch(r'folder:.+', cfg.dataset)
  if not folder and not re.fullmatch(name, cfg.dataset, re.ASCII):
    why = 'must be a TFDS name such as cifar10, or folder:PATH'
    refuse('dataset', cfg.dataset, why)
  for flag in ('model_dir', 'checkpoint'):
    check_place(flag, getattr(cfg, flag))
  if not re.fullmatch(r'(grpc://[\w.-]+:\d{1,5})?', cfg.data_service, re.ASCII):
    why = 'must be such as grpc://localhost:5050'
    refuse('data_service', cfg.data_service, why)
  if not re.fullmatch(r'[\w-][\w.-]*|', cfg.eval_name, re.ASCII):
    why = 'must consist of letters, digits, _ - and .'
    refuse('eval_name', cfg.eval_name, why)


def _check_run(cfg):
  if reads(cfg) and not (cfg.model_dir or cfg.checkpoint):
    refuse('mode', cfg.mode, 'needs --model_dir of a run, or --checkpoint')
  if cfg.mode in ('extract_features', 'export') and not cfg.output:
    refuse('mode', cfg.mode, 'needs --output, where to write')
  watching = cfg.health_pairs and cfg.train_summary_steps
  if cfg.stop_on_collapse and not watching:
    why = 'needs --health_pairs and --train_summary_steps above 0'
    refuse('stop_on_collapse', True, why)
  if cfg.health_pairs == 1:
    refuse('health_pairs', 1, 'must be 0 or at least 2')
  if cfg.resume == 'must' and not cfg.model_dir:
    refuse('resume', 'must', 'needs --model_dir, the folder of the run')
  if cfg.resume == 'must' and cfg.fresh_start:
    refuse('fresh_start', True, 'contradicts --resume=must; drop one')
  if cfg.use_tpu is False and (cfg.tpu_name or cfg.master):
    named = 'tpu_name' if cfg.tpu_name else 'master'
    refuse('use_tpu', False, f'contradicts --{named}; drop one')
  frozen = cfg.train_mode == 'finetune' and cfg.fine_tune_after_block >= 0
  if frozen and not reads(cfg) and not cfg.checkpoint:
    why = 'freezes layers that --checkpoint has to bring; give it, or use -1'
    refuse('fine_tune_after_block', cfg.fine_tune_after_block, why)


def _check_method(cfg):
  implied = METHOD_SWITCHES[cfg.pretrain_loss]
  for name in METHOD_SWITCHES['byol_ceb']:
    value = getattr(cfg, name)
    if value is not None and value != (name in implied):
      why = f'contradicts --pretrain_loss={cfg.pretrain_loss}; drop it'
      refuse(name, value, why)
  pretrain = cfg.train_mode == 'pretrain'
  if pretrain and has_teacher(cfg) and cfg.proj_head_mode == 'none':
    why = f'--pretrain_loss={cfg.pretrain_loss} needs linear or nonlinear'
    refuse('proj_head_mode', 'none', why)
  layers = {'none': 0, 'linear': 1}.get(cfg.proj_head_mode, cfg.num_proj_layers)
  if cfg.ft_proj_selector > layers:
    why = f'the projection head has {layers} layers; must be -1 to {layers}'
    refuse('ft_proj_selector', cfg.ft_proj_selector, why)
  if cfg.sk_ratio > 0 and cfg.resnet_depth < 50:
    why = f'needs --resnet_depth of 50 or more, not {cfg.resnet_depth}'
    refuse('sk_ratio', cfg.sk_ratio, why)
  if compares(cfg) and cfg.train_batch_size < 2:
    why = f'--pretrain_loss={cfg.pretrain_loss} compares images: 2 or more'
    refuse('train_batch_size', cfg.train_batch_size, why)


def _check_contrast(cfg):
  parts, pretrain = view_pair(cfg), cfg.train_mode == 'pretrain'
  if parts and (len(parts) != 2 or not {*parts} <= {*COLOUR_PARTS}):
    why = f'must be two of {", ".join(COLOUR_PARTS)}, such as lab_l,lab_ab'
    refuse('view_pairs', cfg.view_pairs, why)
  if pretrain and bool(parts) != (cfg.pretrain_loss == 'cmc'):
    why = 'is of --pretrain_loss=cmc; drop it'
    if not parts:
      why = '--pretrain_loss=cmc needs two, such as lab_l,lab_ab'
    refuse('view_pairs', cfg.view_pairs, why)
  if not pretrain or cfg.pretrain_loss != 'moco':
    return
  if not cfg.queue_size:
    why = '--pretrain_loss=moco has its negatives there; published: 65536'
    refuse('queue_size', 0, why)
  batch = cfg.train_batch_size
  if cfg.queue_size % batch:
    nearest = max(1, round(cfg.queue_size / batch)) * batch
    why = f'must be a multiple of --train_batch_size={batch}, such as {nearest}'
    refuse('queue_size', cfg.queue_size, why)


def _check_latent(cfg):
  if cfg.probe_latent and not has_latent(cfg):
    why = f'needs --pretrain_loss={" or ".join(STOCHCON)}'
    refuse('probe_latent', True, why)
  if cfg.probe_latent and cfg.ft_proj_selector:
    why = 'contradicts --probe_latent; drop one'
    refuse('ft_proj_selector', cfg.ft_proj_selector, why)
  dim = latent_dim(cfg)
  if cfg.latent_top_k >= dim:
    why = f'must be below the {dim} bits of the latent'
    refuse('latent_top_k', cfg.latent_top_k, why)


def _check_reading_latents(cfg):
  kept = cfg.train_mode == 'pretrain' or cfg.probe_latent
  needed = {'latents': STOCHCON, 'search': STOCHCON[:1]}.get(cfg.mode)
  if needed and not (kept and cfg.pretrain_loss in needed):
    why = f'needs a model of --pretrain_loss={" or ".join(needed)}'
    if not kept:
      why += ', this one was finetuned without --probe_latent'
    refuse('mode', cfg.mode, why)
  if cfg.mode == 'search' and not cfg.query:
    refuse('mode', cfg.mode, 'needs --query, the file of an image')
  if cfg.mode == 'search' and not (cfg.model_dir or cfg.output):
    refuse('mode', cfg.mode, 'needs --output, the file to keep its index in')


def _check_evaluation(cfg):
  if cfg.mode == 'compare' and len(words(cfg.cards)) < 2:
    refuse('mode', cfg.mode, 'needs --cards=A/card.json,B/card.json')
  if cfg.mode != 'evaluate':
    return
  suites(cfg)
  corruptions(cfg)
  robustness_places(cfg)
  try:
    transfer_sets.parse(cfg.transfer_sets)
  except ValueError as error:
    refuse('transfer_sets', cfg.transfer_sets, str(error))
  if cfg.train_mode == 'finetune' and 'compression' in words(cfg.suite):
    why = 'compression is of a pretrained model, and this one was finetuned'
    refuse('suite', cfg.suite, why)


def _check_augmentation(cfg):
  for name in ('blur_probability', 'solarize_probability'):
    text = getattr(cfg, name)
    found = _numbers(text or '0,0')
    if len(found) not in (2, 3) or not all(0 <= p <= 1 for p in found):
      why = "must be two probabilities such as '1,0.1', or three"
      refuse(name, text, why)
  if cfg.blur_probability and not cfg.use_blur:
    refuse('use_blur', False, 'contradicts --blur_probability; drop one')
  lowest = cfg.area_range_lower_bound
  if cfg.area_range_upper_bound < lowest:
    why = f'must be {lowest} or more, --area_range_lower_bound'
    refuse('area_range_upper_bound', cfg.area_range_upper_bound, why)
  _check_local_crops(cfg)


def _check_local_crops(cfg):
  area = _numbers(cfg.local_area)
  if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
    why = "must be two shares of the image such as '0.05,0.14'"
    refuse('local_area', cfg.local_area, why)
  if num_views(cfg) > 2 and cfg.pretrain_loss not in MULTI_CROP:
    why = f'--pretrain_loss={cfg.pretrain_loss} learns from two views; drop it'
    refuse('local_crops', cfg.local_crops, why)


def check_surroundings(cfg):
  """What only this machine knows, asked before anything slow begins."""

  def missing(path):
    return '://' not in path and not os.path.exists(path)

  kind, _, path = cfg.dataset.partition(':')
  if kind == 'folder' and missing(path):
    refuse('dataset', cfg.dataset, 'there is no such folder')
  index = f'{cfg.checkpoint}.index'
  if cfg.checkpoint and missing(cfg.checkpoint) and missing(index):
    refuse('checkpoint', cfg.checkpoint, 'there is no such file or folder')
  if cfg.query and missing(cfg.query):
    refuse('query', cfg.query, 'there is no such file')
  if reads(cfg):
    return
  addons = importlib.util.find_spec('tensorflow_addons')
  if cfg.optimizer == 'lamb' and addons is None:
    why = 'needs tensorflow-addons: pip install -r requirements-legacy.txt'
    refuse('optimizer', 'lamb', why)


def _check_chunks(cfg):
  if cfg.grad_cache_chunk and not compares(cfg):
    why = 'its loss is of each image alone; use --grad_accum_steps'
    refuse('grad_cache_chunk', cfg.grad_cache_chunk, why)
  if cfg.grad_accum_steps > 1 and compares(cfg):
    why = 'would cut what images are compared with; use --grad_cache_chunk'
    refuse('grad_accum_steps', cfg.grad_accum_steps, why)


def _check_optimizer(cfg):
  if cfg.final_weight_decay and cfg.optimizer == 'lamb':
    why = 'lamb keeps its weight decay; use adamw, lars or momentum'
    refuse('final_weight_decay', cfg.final_weight_decay, why)
  if cfg.constant_predictor_rate and cfg.optimizer != 'momentum':
    why = f'needs --optimizer=momentum, not {cfg.optimizer}'
    refuse('constant_predictor_rate', True, why)


def _check_shares(cfg, replicas):
  rows = cfg.train_batch_size // replicas
  if cfg.grad_cache_chunk and rows % cfg.grad_cache_chunk:
    why = f'must divide the {rows} examples of a replica'
    refuse('grad_cache_chunk', cfg.grad_cache_chunk, why)
  if rows % cfg.grad_accum_steps:
    why = f'must divide the {rows} examples of a replica'
    refuse('grad_accum_steps', cfg.grad_accum_steps, why)
  if cfg.pretrain_loss == 'swav' and cfg.queue_size % replicas:
    why = f'must be a multiple of the {replicas} replicas, which share it'
    refuse('queue_size', cfg.queue_size, why)
  if cfg.jit_compile and replicas > 1:
    refuse('jit_compile', True, f'one replica only, and there are {replicas}')


def check_replicas(cfg, replicas):
  """Refuses what `replicas` devices cannot share evenly."""
  evaluation = dict.fromkeys(READING, ['eval_batch_size'])
  training = dict.fromkeys(('train', 'doctor'), ['train_batch_size'])
  names = training | evaluation
  for name in names.get(cfg.mode, ['train_batch_size', 'eval_batch_size']):
    batch = getattr(cfg, name)
    if batch % replicas:
      nearest = max(1, round(batch / replicas)) * replicas
      why = f'must be a multiple of the {replicas} replicas, such as {nearest}'
      refuse(name, batch, why)
  if cfg.mode.startswith('train'):
    _check_shares(cfg, replicas)


def _idle(cfg):
  """{flag without effect: the one because of which}."""
  idle = {
    name: other
    for name, (other, values) in _MATTERS_WITH.items()
    if getattr(cfg, other) not in values
  }
  if not centres(cfg):
    idle['centre_momentum'] = (
      'pretrain_loss' if cfg.centring is None else 'centring'
    )
  return idle


def in_use(cfg):
  """{flag: value}, but those without effect."""
  idle = _idle(cfg)
  if not has_teacher(cfg):
    idle['ema_alpha'] = 'pretrain_loss'
  known = to_dict(cfg) | {'centring': centres(cfg)}
  return {k: v for k, v in known.items() if k not in idle}


def warnings(cfg, num_examples=None):
  """Lines about what is possible but hardly meant; call it again with data."""
  lines = []
  for name, other in _idle(cfg).items():
    value, given = getattr(cfg, name), getattr(cfg, other)
    if value != FIELDS[name].default:
      lines.append(f'--{name}={show(value)}: no effect with --{other}={given}')
  if cfg.train_mode == 'pretrain' and is_ceb(cfg) and cfg.ceb_beta == 0:
    lines.append('--ceb_beta=0: no compression; the published recipes have 1')
  if cfg.train_mode == 'finetune' and cfg.mode != 'eval' and not cfg.checkpoint:
    lines.append('--train_mode=finetune: starts untrained without --checkpoint')
  if cfg.data_service and not reads(cfg):
    lines.append(
      f'--data_service={cfg.data_service}: no promised order of examples; '
      'resuming repeats or leaves out some'
    )
  if num_views(cfg) > 2 and cfg.local_size > cfg.image_size:
    lines.append(
      f'--local_size={cfg.local_size}: larger than the global crops, '
      f'--image_size={cfg.image_size}'
    )
  if num_examples:
    warmup = warmup_steps(cfg, num_examples)
    steps = train_steps(cfg, num_examples)
    if warmup >= steps:
      epochs = f'--warmup_epochs={cfg.warmup_epochs:g}'
      lines.append(f'{epochs}: {warmup} steps of warm-up in a run of {steps}')
  return lines


# What follows from the settings --------------------------------------------


def is_ceb(cfg):
  """Whether the method compresses."""
  return cfg.pretrain_loss in _CEB


def compares(cfg):
  """Whether the loss of an image depends on the others in its batch."""
  return cfg.train_mode == 'pretrain' and cfg.pretrain_loss in _IN_BATCH


def centres(cfg):
  """Whether the logits of DINO's teacher are centred."""
  asked = cfg.pretrain_loss == 'dino' if cfg.centring is None else cfg.centring
  return asked and cfg.pretrain_loss in _DINO


def has_teacher(cfg):
  """Whether the method has a target network, the EMA of the online one."""
  return 'use_momentum_encoder' in METHOD_SWITCHES[cfg.pretrain_loss]


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
    why = f'{show(unknown[0])} is none of all, {", ".join(names)}'
    refuse(flag, text, why)
  return [name for name in names if name in wanted or 'all' in wanted]


def suites(cfg):
  """The suites of this evaluation, in their order."""
  named = words(cfg.suite)
  if not named:
    refuse('suite', cfg.suite, f'must name some of all, {", ".join(SUITES)}')
  found = _among('suite', cfg.suite, SUITES)
  return [name for name in found if name in named or name != SUITES[-1]]


def corruptions(cfg):
  """The corruptions of the evaluation split, in ImageNet-C's order."""
  return _among('corrupt', cfg.corrupt, [*variants.ALEXNET_ERRORS])


def is_imagenet(cfg):
  """Whether the images are ImageNet's, which has published variants."""
  return cfg.dataset.partition(':')[0].startswith('imagenet2012')


def robustness_places(cfg):
  """--robustness_sets -> {name: where it lies, or '' where TFDS knows}."""
  text = cfg.robustness_sets or ('all' if is_imagenet(cfg) else '')
  places = dict(word.partition('=')[::2] for word in words(text))
  names = _among('robustness_sets', ','.join(places), variants.SETS)
  return {name: places.get(name, '') for name in names}


def stem(cfg):
  """The stem of the backbone: 'imagenet', 'cifar' or 'small'."""
  if cfg.stem == 'auto':
    return 'cifar' if cfg.image_size <= 32 else 'imagenet'
  return cfg.stem


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


def _numbers(text):
  """'0.3,1' -> (0.3, 1.0); () where that is not what it says."""
  try:
    return tuple(float(part) for part in text.split(','))
  except ValueError:
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
  """What stands between a decoded image and its views.

  Tuples have a number per view: two global crops, then local ones, which have
  all of them the same. Probabilities are 0 where something is switched off.
  Without random_crop a view is the central crop of the evaluation.
  """

  size: tuple
  random_crop: bool
  area_lower: tuple
  area_upper: tuple
  sampling: str
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


# --batch_image_augmentation_type -> for view 1, view 2 and every local crop.
_BLUR = {'byol': (1.0, 0.1, 0.5), 'simclr': (0.5, 0.5, 0.5)}
_SOLARIZE = {'byol': (0.0, 0.2, 0.0), 'simclr': (0.0, 0.0, 0.0)}


def augmentation(cfg):
  """-> Augmentation, what the training images of this run go through."""

  def views(first, second, local):
    return first, second, *(local,) * cfg.local_crops

  def probabilities(typed, usual, on):
    given = _numbers(typed)
    return views(*given, *usual[kind][len(given) :]) if on else views(0, 0, 0)

  kind = cfg.batch_image_augmentation_type
  smallest, largest = cfg.area_range_lower_bound, cfg.area_range_upper_bound
  low, high = _numbers(cfg.local_area)
  crop = not cfg.no_augmentation
  color = crop and (cfg.train_mode == 'pretrain' or cfg.ft_with_full_aug)
  return Augmentation(
    size=views(cfg.image_size, cfg.image_size, cfg.local_size),
    random_crop=crop,
    area_lower=views(smallest, smallest, low),
    area_upper=views(largest, largest, high),
    sampling=cfg.bbox_sampling,
    jitter_prob=cfg.color_jitter_probability if color else 0.0,
    brightness=cfg.color_jitter_brightness,
    contrast=cfg.color_jitter_contrast,
    saturation=cfg.color_jitter_saturation,
    hue=cfg.color_jitter_hue,
    brightness_fn=cfg.brightness_fn,
    gray_prob=cfg.grayscale_probability if color else 0.0,
    clip_after_resize=cfg.clip_by_value_after_resizing,
    clip_after_gray=cfg.clip_by_value_after_grayscale,
    blur=probabilities(cfg.blur_probability, _BLUR, color and cfg.use_blur),
    solarize=probabilities(cfg.solarize_probability, _SOLARIZE, color),
    mean_std=kind == 'byol',
  )


# To and from files -----------------------------------------------------------


def to_dict(cfg):
  """The settings as JSON can hold them."""
  return dataclasses.asdict(cfg)


def from_dict(values):
  """The Config of to_dict; settings that it lacks have their defaults."""
  for key in values:
    if key not in FIELDS:
      raise ConfigError(f'unknown setting {show(key)!r} in a stored config')
  return Config(**values)


def stored_settings(path, read):
  """The settings in a config.json, which anybody may have written.

  read: a function of the path that parses the file.
  """
  try:
    settings = read(path)['config']
    from_dict({'pretrain_loss': None} | settings)
  except (ValueError, TypeError, LookupError, RecursionError) as error:
    reason = str(error) if isinstance(error, ConfigError) else 'no settings'
    raise ConfigError(
      f'{path} is not what a run writes ({reason}). Move it away to go on '
      'without it.'
    ) from error
  return settings
