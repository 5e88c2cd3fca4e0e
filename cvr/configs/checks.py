"""What the settings of a call may be together, and which have no effect.

Each refusal is a line that names the flag, its value and what to do instead.
"""

import dataclasses
import importlib.util
import os
import re

from cvr.configs import derived, methods, places, transfer_sets
from cvr.configs.settings import FIELDS, refuse, show

# fmt: off
# A table, laid out by hand.

_CROPS = range(1, 17)  # Local ones.
# The modes that read no data set: the one of a stored run may be gone.
_WITHOUT_IMAGES = ('export', 'inspect', 'compare', 'report')
# The modes that write metrics.jsonl.
_MEASURING = ('train', 'train_then_eval', 'eval')
# A flag -> the package that it needs, and the extra of setup.py that brings it.
_PACKAGES = {'wandb_project': 'wandb', 'mlflow_uri': 'mlflow'}

# A flag -> (another one, the values of that with which the first has effect).
# Those that some methods read alone stand in the methods' rows.
_MATTERS_WITH = {
  **dict.fromkeys(
    ('color_jitter_saturation', 'color_jitter_hue', 'grayscale_probability'),
    ('channels', (3,))),
  'bbox_tries': ('bbox_sampling', ('uniform',)),
  'plain_view': ('no_augmentation', (True,)),
  'local_crops': ('train_mode', ('pretrain',)),
  'local_size': ('local_crops', _CROPS),
  'local_area': ('local_crops', _CROPS),
  'num_proj_layers': ('proj_head_mode', ('nonlinear',)),
  'proj_head_output_bn': ('proj_head_mode', ('linear', 'nonlinear')),
  'proj_head_hidden': ('proj_head_mode', ('nonlinear',)),
  'kappa_e': ('ceb_distribution', ('vmf',)),
  'kappa_b': ('ceb_distribution', ('vmf',)),
  'latent_std': ('latent_variance', ('fixed',)),
  'sigma_e': ('ceb_distribution', ('gaussian',)),
  'sigma_b': ('ceb_distribution', ('gaussian',)),
  'gaussian_scale': ('ceb_distribution', ('gaussian',)),
  'ft_with_full_aug': ('train_mode', ('finetune',)),
  'fine_tune_after_block': ('train_mode', ('finetune',)),
  'lineareval_while_pretraining': ('train_mode', ('pretrain',)),
  'health_pairs': ('train_mode', ('pretrain',)),
  'summary_images': ('train_mode', ('pretrain',)),
  'stop_on_collapse': ('train_mode', ('pretrain',)),
  'momentum': ('optimizer', ('lars', 'momentum')),
  'lars_eta': ('optimizer', ('lars',)),
  'lars_clip': ('optimizer', ('lars',)),
  'lars_classic': ('optimizer', ('lars',)),
  'lars_nesterov': ('optimizer', ('lars',)),
  'momentum_nesterov': ('optimizer', ('momentum',)),
  'final_learning_rate': ('learning_rate_schedule', ('cosine',)),
  'wandb_project': ('mode', _MEASURING),
  'mlflow_uri': ('mode', _MEASURING),
  'profile_steps': ('mode', ('train', 'train_then_eval')),
}

# A flag -> (another one, the values of that with which the first has none).
_IDLE_WITH = {
  **dict.fromkeys(
    ('blur_probability', 'solarize_probability', 'color_jitter_probability',
     'grayscale_probability', 'bbox_sampling', 'area_range_lower_bound',
     'area_range_upper_bound', 'clip_by_value_after_grayscale'),
    ('no_augmentation', (True,))),
  'teacher_temperature_start': ('teacher_temperature_warmup_epochs', (0,)),
  'queue_start': ('queue_size', (0,)),
  'reinit_logits_layer': ('checkpoint', ('',)),
  'warmup_learning_rate': ('warmup_epochs', (0,)),
  'health_pairs': ('train_summary_steps', (0,)),
  'summary_images': ('health_pairs', (0,)),
}
# fmt: on


def check(cfg):
  """Refuses settings that contradict each other."""
  _check_names(cfg)
  _check_run(cfg)
  _check_method(cfg)
  _check_contrast(cfg)
  _check_latent(cfg)
  _check_reading_latents(cfg)
  _check_evaluation(cfg)
  _check_augmentation(cfg)
  _check_chunks(cfg)
  _check_optimizer(cfg)


def check_place(flag, path):
  """Refuses what TensorFlow takes for a pattern of paths."""
  if set(path) & set('[]*?'):
    why = 'must not contain [ ] * ?: checkpoints in it would not be found'
    refuse(flag, path, why)


def _check_names(cfg):
  name = r'[a-z0-9_]+(/\w[\w.-]*)?(:\d+\.\d+\.\d+)?'
  placed = places.parse(cfg.dataset)
  if not placed and not re.fullmatch(name, cfg.dataset, re.ASCII):
    why = f'must be a TFDS name such as cifar10, or one of {places.known()}'
    refuse('dataset', cfg.dataset, why)
  for flag in ('model_dir', 'checkpoint'):
    check_place(flag, getattr(cfg, flag))
  if not re.fullmatch(r'(grpc://[\w.-]+:\d{1,5})?', cfg.data_service, re.ASCII):
    why = 'must be an address such as grpc://localhost:5050'
    refuse('data_service', cfg.data_service, why)
  if not re.fullmatch(r'[\w-][\w.-]*|', cfg.eval_name, re.ASCII):
    why = 'must consist of letters, digits, _ - and .'
    refuse('eval_name', cfg.eval_name, why)


def _check_run(cfg):
  if derived.reads(cfg) and not (cfg.model_dir or cfg.checkpoint):
    refuse('mode', cfg.mode, 'needs --model_dir of a run, or --checkpoint')
  if cfg.mode == 'report' and not cfg.model_dir:
    refuse('mode', 'report', 'needs --model_dir, the folder of a run')
  if cfg.mode in ('extract_features', 'export') and not cfg.output:
    refuse('mode', cfg.mode, 'needs --output, where to write')
  watching = cfg.health_pairs and cfg.train_summary_steps
  if cfg.stop_on_collapse and not watching:
    why = 'needs --health_pairs and --train_summary_steps above 0'
    refuse('stop_on_collapse', True, why)
  derived.profile_steps(cfg)
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
  if frozen and not derived.reads(cfg) and not cfg.checkpoint:
    why = 'freezes layers that must come from --checkpoint; add it, or use -1'
    refuse('fine_tune_after_block', cfg.fine_tune_after_block, why)


def _check_method(cfg):
  implied = methods.KINDS[cfg.pretrain_loss].switches
  for name in methods.SWITCHES:
    value = getattr(cfg, name)
    if value is not None and value != (name in implied):
      why = f'contradicts --pretrain_loss={cfg.pretrain_loss}; drop it'
      refuse(name, value, why)
  pretrain = cfg.train_mode == 'pretrain'
  if pretrain and derived.has_teacher(cfg) and cfg.proj_head_mode == 'none':
    why = f'--pretrain_loss={cfg.pretrain_loss} needs linear or nonlinear'
    refuse('proj_head_mode', 'none', why)
  layers = {'none': 0, 'linear': 1}.get(cfg.proj_head_mode, cfg.num_proj_layers)
  if cfg.ft_proj_selector > layers:
    why = f'the projection head has {layers} layers; must be -1 to {layers}'
    refuse('ft_proj_selector', cfg.ft_proj_selector, why)
  if cfg.sk_ratio > 0 and cfg.resnet_depth < 50:
    why = f'needs --resnet_depth of 50 or more, not {cfg.resnet_depth}'
    refuse('sk_ratio', cfg.sk_ratio, why)
  if derived.compares(cfg) and cfg.train_batch_size < 2:
    why = f'--pretrain_loss={cfg.pretrain_loss} compares images: 2 or more'
    refuse('train_batch_size', cfg.train_batch_size, why)


def _check_contrast(cfg):
  parts, pretrain = derived.view_pair(cfg), cfg.train_mode == 'pretrain'
  known = derived.COLOUR_PARTS
  if parts and (len(parts) != 2 or not {*parts} <= {*known}):
    why = f'must be two of {", ".join(known)}, such as lab_l,lab_ab'
    refuse('view_pairs', cfg.view_pairs, why)
  if parts and cfg.channels != 3:
    why = f'needs RGB images, but --channels={cfg.channels}; use 3'
    refuse('view_pairs', cfg.view_pairs, why)
  if pretrain and bool(parts) != (cfg.pretrain_loss == 'cmc'):
    why = 'is for --pretrain_loss=cmc only; drop it'
    if not parts:
      why = '--pretrain_loss=cmc needs two parts, such as lab_l,lab_ab'
    refuse('view_pairs', cfg.view_pairs, why)
  if not pretrain or cfg.pretrain_loss != 'moco':
    return
  if not cfg.queue_size:
    why = 'must be above 0 for --pretrain_loss=moco; published: 65536'
    refuse('queue_size', 0, why)
  batch = cfg.train_batch_size
  if cfg.queue_size % batch:
    nearest = max(1, round(cfg.queue_size / batch)) * batch
    why = f'must be a multiple of --train_batch_size={batch}, such as {nearest}'
    refuse('queue_size', cfg.queue_size, why)


def _check_latent(cfg):
  if cfg.probe_latent and not derived.has_latent(cfg):
    why = f'needs --pretrain_loss={" or ".join(derived.STOCHCON)}'
    refuse('probe_latent', True, why)
  if cfg.probe_latent and cfg.ft_proj_selector:
    why = 'contradicts --probe_latent; drop one'
    refuse('ft_proj_selector', cfg.ft_proj_selector, why)
  dim = derived.latent_dim(cfg)
  if cfg.latent_top_k >= dim:
    why = f'must be below the {dim} bits of the latent'
    refuse('latent_top_k', cfg.latent_top_k, why)


def _check_reading_latents(cfg):
  kept = cfg.train_mode == 'pretrain' or cfg.probe_latent
  stochastic = derived.STOCHCON
  needed = {'latents': stochastic, 'search': stochastic[:1]}.get(cfg.mode)
  if needed and not (kept and cfg.pretrain_loss in needed):
    why = f'needs a model of --pretrain_loss={" or ".join(needed)}'
    if not kept:
      why += ', this one was finetuned without --probe_latent'
    refuse('mode', cfg.mode, why)
  if cfg.mode == 'search' and not cfg.query:
    refuse('mode', cfg.mode, 'needs --query, an image file')
  if cfg.mode == 'search' and not (cfg.model_dir or cfg.output):
    refuse('mode', cfg.mode, 'needs --output, the file for its index')


def _check_evaluation(cfg):
  if cfg.mode == 'compare' and len(derived.words(cfg.cards)) < 2:
    refuse('mode', cfg.mode, 'needs --cards=A/card.json,B/card.json')
  if cfg.mode != 'evaluate':
    return
  derived.suites(cfg)
  if derived.corruptions(cfg) and cfg.channels != 3:
    why = f'corruptions need RGB images, but --channels={cfg.channels}'
    refuse('corrupt', cfg.corrupt, f'{why}; drop it')
  derived.robustness_places(cfg)
  try:
    transfer_sets.parse(cfg.transfer_sets)
  except ValueError as error:
    refuse('transfer_sets', cfg.transfer_sets, str(error))
  if cfg.train_mode == 'finetune' and 'compression' in derived.words(cfg.suite):
    why = 'compression needs a pretrained model, but this one was finetuned'
    refuse('suite', cfg.suite, why)


def _check_augmentation(cfg):
  for name in ('blur_probability', 'solarize_probability'):
    text = getattr(cfg, name)
    probabilities = derived.numbers(text or '0,0')
    if len(probabilities) not in (2, 3) or not all(
      0 <= p <= 1 for p in probabilities
    ):
      why = "must be two probabilities such as '1,0.1', or three"
      refuse(name, text, why)
  if cfg.blur_probability and not cfg.use_blur:
    refuse('use_blur', False, 'contradicts --blur_probability; drop one')
  lowest = cfg.area_range_lower_bound
  if cfg.area_range_upper_bound < lowest:
    why = f'must be {lowest} (--area_range_lower_bound) or more'
    refuse('area_range_upper_bound', cfg.area_range_upper_bound, why)
  retries = cfg.bbox_sampling == 'uniform' and cfg.bbox_tries
  if retries and cfg.area_range_upper_bound <= derived.COVERED:
    why = f'must be above {derived.COVERED}, or every crop is the whole image'
    refuse('area_range_upper_bound', cfg.area_range_upper_bound, why)
  _check_local_crops(cfg)


def _check_local_crops(cfg):
  area = derived.numbers(cfg.local_area)
  if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
    why = "must be two shares of the image such as '0.05,0.14'"
    refuse('local_area', cfg.local_area, why)
  takes = methods.KINDS[cfg.pretrain_loss].crops
  if derived.num_views(cfg) > 2 and not takes:
    why = f'--pretrain_loss={cfg.pretrain_loss} learns from two views; drop it'
    refuse('local_crops', cfg.local_crops, why)


def _installed(package):
  found = importlib.util.find_spec(package)
  # Without an origin: a folder of that name, such as W&B makes.
  return found is not None and found.origin is not None


def _folder_problem(path):
  if not os.path.isdir(path):
    return 'there is no such folder'
  try:
    if any(True for _ in places.Walk().files(path)):
      return ''
  except PermissionError as error:
    return f'{show(error.filename)} cannot be read: {error.strerror}'
  return 'the folder is empty; it must hold train/<class>/*.jpg'


def _file_problem(path):
  why = places.no_file(path)
  known = {'': '', 'not there': 'there is no such file'}
  return known.get(why, f'it is {why}, and no file')


# The KIND of --dataset=KIND:PATH -> a function of the path that says why it
# cannot be read, or ''. Local paths only, and only what is known at once.
_PLACES = {'folder': _folder_problem}
_PLACES |= dict.fromkeys(places.FILES, _file_problem)


def _check_dataset(cfg):
  place = places.parse(cfg.dataset)
  kinds = () if not place or place.has_file_per_split else _PLACES
  if kinds and place.kind in kinds and '://' not in place.path:
    problem = kinds[place.kind](place.path)
    if problem:
      refuse('dataset', cfg.dataset, problem)


def check_surroundings(cfg):
  """What only this machine knows, asked before anything slow begins."""

  def missing(path):
    return '://' not in path and not os.path.exists(path)

  if cfg.mode not in _WITHOUT_IMAGES:
    _check_dataset(cfg)
  index = f'{cfg.checkpoint}.index'
  if cfg.checkpoint and missing(cfg.checkpoint) and missing(index):
    refuse('checkpoint', cfg.checkpoint, 'there is no such file or folder')
  if cfg.query and missing(cfg.query):
    refuse('query', cfg.query, 'there is no such file')
  if cfg.mode in _MEASURING:
    for flag, package in _PACKAGES.items():
      if getattr(cfg, flag) and not _installed(package):
        why = f"needs the package {package}: pip install -e '.[{package}]'"
        refuse(flag, getattr(cfg, flag), why)
  if derived.reads(cfg):
    return
  if cfg.optimizer == 'lamb' and not _installed('tensorflow_addons'):
    why = 'needs tensorflow-addons: pip install -r requirements-legacy.txt'
    refuse('optimizer', 'lamb', why)


def _check_chunks(cfg):
  if cfg.grad_cache_chunk and not derived.compares(cfg):
    why = 'this method does not compare images; use --grad_accum_steps'
    refuse('grad_cache_chunk', cfg.grad_cache_chunk, why)
  if cfg.grad_accum_steps > 1 and derived.compares(cfg):
    why = 'images would be compared with fewer others; use --grad_cache_chunk'
    refuse('grad_accum_steps', cfg.grad_accum_steps, why)


def _check_optimizer(cfg):
  if cfg.final_weight_decay and cfg.optimizer == 'lamb':
    why = 'the weight decay of lamb is constant; use adamw, lars or momentum'
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
    refuse('jit_compile', True, f'needs one replica, but there are {replicas}')


def check_replicas(cfg, replicas):
  """Refuses what `replicas` devices cannot share evenly."""
  evaluation = dict.fromkeys(derived.READING, ['eval_batch_size'])
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
  """{flag without effect: the one because of which}, in the help's order."""
  idle = {
    name: other
    for name, (other, values) in _MATTERS_WITH.items()
    if getattr(cfg, other) not in values
  }
  idle |= {
    name: other
    for name, (other, values) in _IDLE_WITH.items()
    if getattr(cfg, other) in values
  }
  own = methods.KINDS[cfg.pretrain_loss].uses
  idle |= {
    name: 'pretrain_loss' for name in methods.OWN_FLAGS if name not in own
  }
  if not derived.centres(cfg):
    idle['centre_momentum'] = (
      'pretrain_loss' if cfg.centring is None else 'centring'
    )
  return {name: idle[name] for name in FIELDS if name in idle}


def in_use(cfg):
  """{flag: value}, but those without effect."""
  idle = _idle(cfg)
  known = dataclasses.asdict(cfg) | {'centring': derived.centres(cfg)}
  return {k: v for k, v in known.items() if k not in idle}


def warnings(cfg, total=None, warmup=0):
  """Lines about settings that are possible and rarely meant.

  total, warmup: steps, where they are known.
  """
  lines = []
  if cfg.channels != 3 and derived.colours(cfg):
    lines.append(
      f'--channels={cfg.channels}: no saturation, hue and grayscale, because '
      'they need RGB'
    )
  for name, other in _idle(cfg).items():
    value, given = getattr(cfg, name), show(getattr(cfg, other))
    field = FIELDS[name]
    if other == 'channels':
      continue
    # What a stored run has from before the flag was not asked for either.
    if value not in (field.default, field.metadata['before']):
      lines.append(f'--{name}={show(value)}: no effect with --{other}={given}')
  if cfg.train_mode == 'pretrain' and derived.is_ceb(cfg) and cfg.ceb_beta == 0:
    lines.append('--ceb_beta=0: no compression; published: 1')
  if cfg.train_mode == 'finetune' and cfg.mode != 'eval' and not cfg.checkpoint:
    lines.append('--train_mode=finetune: starts untrained without --checkpoint')
  if cfg.data_service and not derived.reads(cfg):
    lines.append(
      f'--data_service={cfg.data_service}: the order of examples is not fixed; '
      'resuming may repeat or skip some'
    )
  if derived.num_views(cfg) > 2 and cfg.local_size > cfg.image_size:
    lines.append(
      f'--local_size={cfg.local_size}: larger than the global crops, '
      f'--image_size={cfg.image_size}'
    )
  if total is not None and warmup >= total:
    epochs = f'--warmup_epochs={cfg.warmup_epochs:g}'
    lines.append(f'{epochs}: {warmup} steps of warm-up in a run of {total}')
  return lines
