"""Every setting of the program: a frozen dataclass whose fields are the flags.

Nothing heavy is imported here, so that --help and a mistyped flag answer at
once. Fields, checks between them, and what follows from them.
"""

import dataclasses
import importlib.util
import math
import os
import re

from presets import PRESETS

# fmt: off
# Tables, laid out by hand.

# pretrain_loss -> the head switches of the published code that it implies.
_BYOL_SWITCHES = (
  'use_momentum_encoder', 'use_momentum_proj_head', 'use_projector')
METHOD_SWITCHES = {
  'contrastive': (),
  'contrastive_ceb': (),
  'byol': _BYOL_SWITCHES,
  'byol_ceb': (
    *_BYOL_SWITCHES, 'use_target_projector', 'stochastic_projector'),
  'cmc': (),
  'moco': ('use_momentum_encoder', 'use_momentum_proj_head'),
  'dino': ('use_momentum_encoder', 'use_momentum_proj_head'),
  'simsiam': ('use_projector',),
  'er_simclr': (),
  'er_byol': _BYOL_SWITCHES,
  'er_dino': ('use_momentum_encoder', 'use_momentum_proj_head'),
  'entrec_cont': (),
  'entrec_disc': (),
  'swav': (),
  'deepcluster': (),
}
METHOD_NAMES = tuple(METHOD_SWITCHES)
_CEB = ('contrastive_ceb', 'byol_ceb')
# The methods whose loss compares the images of a batch with each other.
_IN_BATCH = (
  'contrastive', 'contrastive_ceb', 'cmc',
  'er_simclr', 'er_byol', 'er_dino', 'entrec_cont', 'entrec_disc', 'swav')
_TEACHERS = tuple(
  name for name in METHOD_NAMES
  if 'use_momentum_encoder' in METHOD_SWITCHES[name])
# Parts of an image's colours that a network of CMC may see.
COLOUR_PARTS = ('rgb', 'lab_l', 'lab_ab', 'ycbcr_y', 'ycbcr_cbcr')
_DINO = ('dino', 'er_dino')
# The methods that take --local_crops beside their two global ones.
MULTI_CROP = ('swav', 'deepcluster', *_DINO)
_CROPS = range(1, 17)  # as many local ones

# The first flag of each section of the help -> its title. The settings of the
# first two sections belong to one call of the program, the others to the run.
SECTIONS = {
  'preset': 'This call',
  'use_tpu': 'Hardware',
  'dataset': 'Data',
  'batch_image_augmentation_type': 'Augmentation',
  'resnet_depth': 'Backbone',
  'pretrain_loss': 'Method',
  'proj_head_mode': 'Heads',
  'train_mode': 'Linear probe and finetuning',
  'train_batch_size': 'Optimisation',
  'precision': 'Numbers and chance',
  'train_summary_steps': 'Checkpoints and summaries',
}

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
    ('contrastive', 'cmc', 'moco', 'swav', 'deepcluster', *_DINO)),
  'teacher_temperature': ('pretrain_loss', _DINO),
  'teacher_temperature_start': ('pretrain_loss', _DINO),
  'teacher_temperature_warmup_epochs': ('pretrain_loss', _DINO),
  'centring': ('pretrain_loss', _DINO),
  'centre_momentum': ('centring', (None, True)),
  'predictor_hidden_dim': ('pretrain_loss', ('simsiam',)),
  'constant_predictor_rate': ('pretrain_loss', ('simsiam',)),
  'double_batch_trick': ('pretrain_loss', ('contrastive', 'contrastive_ceb')),
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
READING = ('eval', 'extract_features', 'export', 'inspect')


class ConfigError(ValueError):
  """A setting that cannot be: one line that says what to do instead."""


def opt(default, help, choices=None):
  """A field that is a flag; choices: values, or an interval as '[0, 1)'."""
  metadata = {'help': help, 'choices': choices}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The settings of one call, checked as a whole when they are put together."""

  # fmt: off
  # This call
  preset: str = opt('', 'A recipe from the list at the end of this text; flags '
    'typed beside it win over it. --print_config shows its values.',
    ('', *PRESETS))
  print_config: bool = opt(False, 'Print every setting with where it came '
    'from, and stop.')
  mode: str = opt('train_then_eval', 'eval follows the run in --model_dir '
    'until the last step of the training; where there is none it evaluates '
    '--checkpoint. extract_features, export and inspect read --checkpoint, or '
    'the newest one in --model_dir. doctor measures input and step of a run '
    'with these flags and says which one to turn; it trains and stores '
    'nothing.',
    ('train', 'eval', 'train_then_eval', 'extract_features', 'export',
     'inspect', 'doctor'))
  model_dir: str = opt('', 'Where everything of a run goes, and where it '
    'resumes from; local or gs://. Without it a new folder under ./runs is '
    'made and printed.')
  output: str = opt('', 'Where extract_features writes (features.npz; a folder '
    'gets shards), and the folder for export.')
  format: str = opt('saved_model', 'What export writes. saved_model: for '
    'TensorFlow, trainable. safetensors: for torchvision and timm. onnx. '
    'keras: for Keras 3. released: a checkpoint that the published code reads.',
    ('saved_model', 'safetensors', 'onnx', 'keras', 'released'))
  resume: str = opt('auto', 'auto: go on from the newest checkpoint in '
    '--model_dir if there is one. never: refuse a folder that has one. must: '
    'refuse a folder that has none.', ('auto', 'never', 'must'))
  fresh_start: bool = opt(False, 'Begin at step 0 although the checkpoints in '
    '--model_dir are damaged; they are kept beside the new ones.')
  allow_config_change: bool = opt(False, 'Resume although settings that change '
    'the meaning of the run differ from those in config.json.')
  download: bool = opt(False, 'Allow downloads of more than 1 GB. Without it '
    'the command that prepares the data set is printed instead.')
  eval_name: str = opt('', "Suffix of the results' folder, to keep several "
    'evaluations.')
  export_train_model: bool = opt(True, 'Accepted without effect: see '
    '--mode=export.')
  export_eval_model: bool = opt(True, 'Accepted without effect: see '
    '--mode=export.')
  keep_hub_module_max: int = opt(1, 'Accepted without effect: see '
    '--mode=export.', '[0, inf)')

  # Hardware
  use_tpu: bool | None = opt(None, 'Not given: a TPU if one is named or '
    'attached, else all GPUs, else the CPU. true: a TPU or an error. false: '
    'never look for one.')
  tpu_name: str = opt('', 'The Cloud TPU to use.')
  tpu_zone: str = opt('', 'The zone of that TPU, where it cannot be guessed.')
  gcp_project: str = opt('', 'The project of that TPU, likewise.')
  master: str = opt('', 'Address of a TPU worker, instead of --tpu_name.')
  data_service: str = opt('', 'Have the training images prepared by the '
    'processes of scripts/data_workers.sh, which prints what to give here. '
    'Their order is then not promised, nor is exact resuming.')

  # Data
  dataset: str = opt('imagenet2012', 'A TFDS name (cifar10, '
    'imagenet2012_subset/1pct), photo_patches/32px (built in), or folder:PATH '
    'with PATH/train/<class>/*.jpg.')
  data_dir: str = opt('', "Where TFDS keeps its data sets, local or gs://; "
    "empty: TFDS' own default.")
  train_split: str = opt('train', 'Split to train on; train[:90%] works too.')
  eval_split: str = opt('validation', 'Split to evaluate on; many data sets '
    'call it test.')
  image_size: int = opt(224, 'Height and width of the crops. 32 or less '
    'brings the CIFAR stem, see --stem.', '[8, inf)')
  cache_dataset: bool = opt(False, 'Decode the whole split into memory '
    'before the first step, on every host: for small sets.')
  shuffle_buffer: int = opt(16384, 'Examples among which the next one is '
    'drawn. Lower it if the host runs out of memory.', '[1, inf)')

  # Augmentation
  batch_image_augmentation_type: str = opt('byol', 'byol: blur with '
    'probability (1, 0.1) and solarization with (0, 0.2) on the two views, '
    'pixels normalized by mean and deviation. simclr: blur with 0.5 on both.',
    ('byol', 'simclr'))
  augment_on: str = opt('auto', 'Where crops are flipped, coloured, blurred '
    'and normalized: in the step on its device (auto, device), or in the input '
    'pipeline (host), which pays where host cores idle and the device does '
    'not.', ('auto', 'host', 'device'))
  use_blur: bool = opt(True, 'Gaussian blur. Turn it off for small images.')
  blur_probability: str = opt('', "Probabilities 'p1,p2' for the two views, "
    "instead of those of --batch_image_augmentation_type; 'p1,p2,p3': p3 for "
    'local crops, otherwise 0.5.')
  solarize_probability: str = opt('', "Probabilities 'p1,p2' for the two "
    "views, instead of those of --batch_image_augmentation_type; 'p1,p2,p3': "
    'p3 for local crops, otherwise 0.')
  color_jitter_probability: float = opt(0.8, 'Probability that the colours of '
    'a view are jittered.', '[0, 1]')
  color_jitter_brightness: float = opt(0.4, 'Strength of the brightness '
    'jitter.', '[0, 1]')
  color_jitter_contrast: float = opt(0.4, 'Strength of the contrast jitter.',
    '[0, 1]')
  color_jitter_saturation: float = opt(0.2, 'Strength of the saturation '
    'jitter.', '[0, 1]')
  color_jitter_hue: float = opt(0.1, 'Strength of the hue jitter.', '[0, 0.5]')
  grayscale_probability: float = opt(0.2, 'Probability that a view becomes '
    'gray.', '[0, 1]')
  brightness_fn: str = opt('simclrv1', 'Brightness is added (simclrv1) or '
    'multiplied (simclrv2).', ('simclrv1', 'simclrv2'))
  bbox_sampling: str = opt('logarithmic', 'How the aspect ratio of a crop is '
    'drawn: logarithmic as in BYOL, uniform as in SimCLR.',
    ('logarithmic', 'uniform'))
  area_range_lower_bound: float = opt(0.08, 'The smallest crop, as a share of '
    'the image.', '(0, 1]')
  area_range_upper_bound: float = opt(1.0, 'The largest crop, likewise.',
    '(0, 1]')
  local_crops: int = opt(0, 'Small crops of an image beside its two views, for '
    'methods that take them.', '[0, 16]')
  local_size: int = opt(96, 'Height and width of local crops.', '[8, inf)')
  local_area: str = opt('0.05,0.14', "Smallest and largest local crop 'low,"
    "high', as shares of the image.")
  clip_by_value_after_resizing: bool = opt(True, 'Clip to [0, 1] after the '
    'crop is resized (bicubic overshoots).')
  clip_by_value_after_grayscale: bool = opt(True, 'Clip to [0, 1] after the '
    'random change to grayscale.')
  no_augmentation: bool = opt(False, 'Train on the central crop alone, as in '
    'evaluation.')
  ft_with_full_aug: bool = opt(False, 'Finetune with all of the above instead '
    'of crops and flips alone.')

  # Backbone
  resnet_depth: int = opt(50, 'Layers of the ResNet.',
    (18, 34, 50, 101, 152, 200))
  width_multiplier: int = opt(1, 'Width of the ResNet: 1, 2 or 4 times the '
    'usual one.', (1, 2, 4))
  sk_ratio: float = opt(0.0, 'Above 0: selective kernels with this ratio '
    '(SimCLR: 0.0625), at depth 50 and more.', '[0, 1]')
  se_ratio: float = opt(0.0, 'Above 0: squeeze and excitation with this '
    'ratio.', '[0, 1]')
  stem: str = opt('auto', 'auto: cifar at 32 pixels or less, else imagenet. '
    'imagenet: 7x7 stride 2 and max pool. cifar: 3x3 stride 1. small: 3x3 '
    'stride 2 and max pool, quick on 32 to 64 pixels.',
    ('auto', 'imagenet', 'cifar', 'small'))
  global_bn: bool = opt(True, 'Batch norm statistics over all replicas, not '
    'over each alone.')
  batch_norm_decay: float = opt(0.9, 'Decay of the moving statistics of batch '
    'norm.', '[0, 1)')
  view_pairs: str = opt('', "CMC's two networks, and what each sees: two of "
    'rgb, lab_l, lab_ab, ycbcr_y, ycbcr_cbcr, such as lab_l,lab_ab. Different '
    'parts are of the same view, the same part (rgb,rgb) is of two views.')

  # Method
  pretrain_loss: str = opt('contrastive', 'The method: contrastive is SimCLR, '
    'contrastive_ceb C-SimCLR, byol_ceb C-BYOL; the others go by their own '
    'names. docs/methods.md derives them.', METHOD_NAMES)
  temperature: float = opt(0.1, 'Temperature of the softmax of SimCLR, MoCo, '
    "CMC, SwAV, DeepCluster and DINO's student. C-SimCLR has --kappa_b = "
    '1/temperature instead.',
    '(0, inf)')
  double_batch_trick: bool = opt(True, 'Take negatives from the same view too '
    '(SimCLR, C-SimCLR).')
  byol_loss_weight: float = opt(1.0, 'Weight of the squared distance of BYOL '
    'and C-BYOL: half the concentration kappa_d of the decoder.', '(0, inf)')
  ema_alpha: float = opt(0.999, 'Where the coefficient of the moving average '
    'of the target network starts; it reaches 1 at the end. Lower it for '
    'short runs (0.99 at 300 epochs).', '[0, 1]')
  ema_schedule: str = opt('cosine', 'How that coefficient goes: cosine up to '
    '1, or constant (MoCo).', ('cosine', 'constant'))
  ceb_beta: float = opt(0.0, 'Weight of the compression in C-SimCLR and '
    'C-BYOL; published: 1. If a short run does not learn, lower it.',
    '[0, inf)')
  beta_schedule: str = opt('constant', 'constant, or up to --ceb_beta: '
    'linearly during the warm-up, or by a cosine over the run.',
    ('constant', 'linear_warmup', 'cosine'))
  ceb_sampling: bool = opt(True, 'Sample z from the forward encoder; false: '
    'take its mean.')
  ceb_distribution: str = opt('vmf', 'What the encoders of C-SimCLR and '
    'C-BYOL emit: von Mises-Fisher on the sphere, or Gaussian.',
    ('vmf', 'gaussian'))
  kappa_e: float = opt(1024.0, 'Concentration of the forward encoder: higher '
    'is less noise in z. Published: 1024 in C-SimCLR, 16384 in C-BYOL.',
    '(0, inf)')
  kappa_b: float = opt(10.0, 'Concentration of the backward encoder: higher '
    'compresses more; in C-SimCLR also the inverse temperature.', '(0, inf)')
  gaussian_scale: str = opt('fixed', 'Deviations of the Gaussian encoders: '
    'fixed, or learned per dimension.', ('fixed', 'learned'))
  sigma_e: float = opt(1.0, 'Deviation of the Gaussian forward encoder.',
    '(0, inf)')
  sigma_b: float = opt(1.0, 'Deviation of the Gaussian backward encoder.',
    '(0, inf)')
  backward_view: str = opt('same', "C-BYOL's backward encoder sees the view "
    'that z came from (same, as published) or the other one (other, the '
    'canonical CEB).', ('same', 'other'))

  teacher_temperature: float = opt(0.04, "Temperature of DINO's teacher: "
    'lower is sharper. If the loss does not fall below the log of '
    '--num_prototypes, lower it.', '(0, inf)')
  teacher_temperature_start: float = opt(0.04, 'Where that begins, with '
    '--teacher_temperature_warmup_epochs.', '(0, inf)')
  teacher_temperature_warmup_epochs: float = opt(0.0, 'Epochs of a linear '
    'way from --teacher_temperature_start to --teacher_temperature.',
    '[0, inf)')
  centring: bool | None = opt(None, 'Subtract their moving mean from the '
    "logits of DINO's teacher: without it one output wins. Not given: yes in "
    'dino, no in er_dino, whose entropy is in the loss.')
  centre_momentum: float = opt(0.9, 'Momentum of that mean.', '[0, 1]')
  er_kappa: float = opt(10.0, 'ER on the sphere: concentration of the kernels '
    'of entropy and reconstruction, an inverse temperature.', '(0, inf)')
  er_estimator: str = opt('plug_in', 'Entropy of er_simclr and er_byol: '
    "plug_in weighs rows by their own density (the published code's default), "
    "joe takes their plain mean (EntRec's).", ('plug_in', 'joe'))
  er_leave_one_out: bool = opt(False, "Leave a row's own kernel out of its "
    'density; published: not left out, which keeps the entropy within a few '
    'nats.')
  er_entropy_of: str = opt('projection', 'What er_byol keeps the entropy of, '
    'in the online network.', ('projection', 'prediction'))
  er_alpha: float = opt(2.0, "Exponent of entrec_cont's reconstruction: 2 is "
    'Gaussian.', '(0, inf)')
  queue_size: int = opt(0, 'Embeddings of earlier steps that are kept: '
    "MoCo's negatives (published: 65536), more samples for the assignments of "
    'SwAV (3840 where batches are small).', '[0, inf)')
  num_prototypes: int = opt(3000, 'Prototypes, or clusters: outputs of the '
    'last layer.', '[2, inf)')
  freeze_prototypes_steps: int = opt(0, 'Steps in which the prototypes stay '
    'as they are.', '[0, inf)')
  queue_start: float = opt(0.0, 'The epoch from which SwAV uses its queue '
    '(published: 15), or later, when it is full.', '[0, inf)')
  sinkhorn_epsilon: float = opt(0.05, "How soft SwAV's assignments are: its "
    'scores are divided by it.', '(0, inf)')
  sinkhorn_iterations: int = opt(3, "Rounds in which SwAV's assignments are "
    'balanced over the prototypes.', '[1, inf)')
  num_heads: int = opt(3, 'Clusterings that DeepCluster learns from at once, '
    'each with --num_prototypes clusters.', '[1, inf)')
  kmeans_iterations: int = opt(10, "Iterations of DeepCluster's k-means at the "
    'beginning of an epoch.', '[1, inf)')

  # Heads
  proj_head_mode: str = opt('nonlinear', 'The projection head: an MLP, one '
    'linear layer, or none.', ('none', 'linear', 'nonlinear'))
  num_proj_layers: int = opt(2, 'Layers of the nonlinear projection head.',
    '[1, inf)')
  proj_head_hidden_dim: int = opt(4096, 'Width of the hidden layers of the '
    'heads.', '[1, inf)')
  proj_out_dim: int = opt(256, 'Dimension of the latent z.', '[3, inf)')
  proj_head_output_bn: bool = opt(False, 'Batch norm after the last layer of '
    'the projection head.')
  proj_head_hidden: str = opt('bn_relu', 'What follows a hidden layer of the '
    'projection head: batch norm and ReLU; a bias and ReLU, as in MoCo v2; a '
    'bias and GELU, as in DINO.', ('bn_relu', 'relu', 'gelu'))
  projector_mid_bn: bool = opt(True, 'Batch norm in the middle of the '
    'predictor of BYOL, C-BYOL and SimSiam.')
  predictor_hidden_dim: int = opt(512, "Width of the hidden layer of SimSiam's "
    'predictor.', '[1, inf)')
  mlp_init: str = opt('byol', 'Initial kernels of the heads: byol is variance '
    'scaling, simclr a normal of deviation 0.01.', ('byol', 'simclr'))
  use_momentum_encoder: bool | None = opt(None, 'Follows from '
    '--pretrain_loss; to contradict it is an error.')
  use_momentum_proj_head: bool | None = opt(None, 'Likewise.')
  use_projector: bool | None = opt(None, 'Likewise.')
  use_target_projector: bool | None = opt(None, 'Likewise.')
  stochastic_projector: bool | None = opt(None, 'Likewise.')

  # Linear probe and finetuning
  train_mode: str = opt('pretrain', 'pretrain without labels, or finetune on '
    'them (from --checkpoint).', ('pretrain', 'finetune'))
  checkpoint: str = opt('', 'A checkpoint, or its folder, to start finetuning '
    'from.')
  fine_tune_after_block: int = opt(-1, 'What finetuning trains: -1 '
    'everything; 0 what comes after the stem; 1 to 3 what comes after that '
    'block group; 4 the linear head alone (linear evaluation).', '[-1, 4]')
  lineareval_while_pretraining: bool = opt(True, 'Train a linear probe beside '
    'the method, behind a stop-gradient, to see the accuracy at every step.')
  ft_proj_selector: int = opt(0, 'What the probe reads: 0 the representation '
    'of the backbone, k the k-th layer of the projection head, -1 its output '
    '(the default of the published code).', '[-1, inf)')
  zero_init_logits_layer: bool = opt(False, 'Start the linear head from zeros '
    'when finetuning.')
  reinit_logits_layer: bool = opt(True, 'Start finetuning with a new linear '
    'head, not with the stored probe.')
  rename_supervised_head: bool = opt(False, 'Accepted, without effect: '
    'another label set just works.')
  use_binary_cross_entropy: bool = opt(False, 'A sigmoid for each class '
    'instead of a softmax: for multi-label data.')

  # Optimisation
  train_batch_size: int = opt(512, 'Examples of a step, over all replicas. '
    'Halve it if memory runs out: contrastive methods lose negatives, BYOL '
    'hardly minds.', '[1, inf)')
  grad_cache_chunk: int = opt(0, 'Methods that compare the images of a '
    'batch: how many are in the memory of a replica at once; 0: all. Loss and '
    'gradients are those of the whole batch, batch normalization sees a '
    'chunk.',
    '[0, inf)')
  grad_accum_steps: int = opt(1, 'The other methods, and finetuning: parts of '
    'a batch that come one after the other, their gradients averaged.',
    '[1, inf)')
  eval_batch_size: int = opt(256, 'The same for evaluation.', '[1, inf)')
  train_epochs: int = opt(100, 'Length of the training.', '[1, inf)')
  train_steps: int = opt(0, 'Length in steps; above 0 it wins over epochs.',
    '[0, inf)')
  optimizer: str = opt('lars', 'lars for large batches; momentum is Nesterov '
    'SGD; lamb needs the legacy stack (requirements-legacy.txt).',
    ('lars', 'momentum', 'adam', 'adamw', 'lamb'))
  learning_rate: float = opt(0.3, 'Learning rate for a batch of 256, see '
    '--learning_rate_scaling. Lower it if the loss becomes NaN.', '[0, inf)')
  learning_rate_scaling: str = opt('linear', 'linear: times batch / 256. '
    'sqrt: times the square root of the batch, with a smaller base (0.075); '
    'better for small batches.', ('linear', 'sqrt'))
  learning_rate_schedule: str = opt('cosine', 'After the warm-up: down to '
    '--final_learning_rate by a cosine, or constant.', ('cosine', 'constant'))
  constant_predictor_rate: bool = opt(False, "Keep the learning rate of "
    "SimSiam's predictor at its peak, with --optimizer=momentum.")
  final_learning_rate: float = opt(0.0, 'Where the cosine ends, for a batch of '
    '256, scaled as --learning_rate is.', '[0, inf)')
  warmup_epochs: float = opt(10.0, 'Epochs of linear warm-up from '
    '--warmup_learning_rate.', '[0, inf)')
  warmup_learning_rate: float = opt(0.0, 'Where the warm-up begins, for a '
    'batch of 256, scaled as --learning_rate is.', '[0, inf)')
  momentum: float = opt(0.9, 'Momentum of lars and momentum.', '[0, 1)')
  momentum_nesterov: bool = opt(True, 'Nesterov momentum in momentum; false: '
    'plain SGD with momentum, as in MoCo and SimSiam.')
  clip_norm: float = opt(0.0, 'Above 0: gradients are scaled down where the '
    'norm of all of them together is larger.', '[0, inf)')
  weight_decay: float = opt(1e-6, 'Weight decay: in lars of all but biases '
    'and batch norm, in adamw and lamb of kernels, else an l2 loss on all but '
    'batch norm.', '[0, inf)')
  final_weight_decay: float = opt(0.0, 'Above 0: where weight decay arrives at '
    'the end, by a cosine from --weight_decay.', '[0, inf)')
  lars_eta: float = opt(1e-3, 'Trust coefficient of lars (solo-learn: 0.02).',
    '(0, inf)')
  lars_clip: bool = opt(False, "No longer step of lars than SGD's (LARC).")
  lars_classic: bool = opt(True, 'true: learning rate and trust ratio inside '
    'the momentum, as published. false: outside, the popular variant.')
  lars_nesterov: bool = opt(False, 'Nesterov momentum in lars.')

  # Numbers and chance
  precision: str = opt('fp32', 'bf16 computes in bfloat16 and keeps weights '
    'and losses in float32: faster on TPUs, recent GPUs and many CPUs. '
    'fp16 has a loss scale that finds itself: for GPUs without bfloat16.',
    ('fp32', 'bf16', 'fp16'))
  jit_compile: bool = opt(False, 'Make the step one XLA program: faster on '
    'GPUs, slower on CPUs; on TPUs it always is one. One replica only.')
  seed: int = opt(0, 'Seed of everything random.', '[0, 1000000]')
  deterministic: bool = opt(False, 'The same bits at every repetition; slower '
    'on GPUs.')

  # Checkpoints and summaries
  train_summary_steps: int = opt(100, 'Steps between training summaries; 0: '
    'none.', '[0, inf)')
  health_pairs: int = opt(512, 'With every training summary two views of so '
    'many images, always the same ones, of the evaluation split if there is '
    'one, are looked at: what they tell of each other (information/...), and '
    'signs of collapse (health/...); 0: none.', '[0, inf)')
  stop_on_collapse: bool = opt(False, 'End with status 3, after a checkpoint, '
    'when two summaries in a row show a collapse.')
  checkpoint_epochs: int = opt(1, 'Epochs between checkpoints.', '[1, inf)')
  checkpoint_steps: int = opt(0, 'Steps between checkpoints; above 0 it wins '
    'over epochs.', '[0, inf)')
  keep_checkpoint_max: int = opt(5, 'Checkpoints kept; older ones are '
    'deleted.', '[1, inf)')
  explicitly_watch_vars: bool = opt(False, 'Accepted, without effect: what is '
    'trained follows from the method.')
  # fmt: on

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not _is_allowed(field, value):
        refuse(field.name, value, f'must be {allowed(field)}')
    _check_names(self)
    _check_run(self)
    _check_method(self)
    _check_contrast(self)
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
  return {
    name: other
    for name, (other, values) in _MATTERS_WITH.items()
    if getattr(cfg, other) not in values
  }


def in_use(cfg):
  """{flag: value}, but those without effect."""
  idle = _idle(cfg)
  if not has_teacher(cfg):
    idle['ema_alpha'] = 'pretrain_loss'
  return {k: v for k, v in to_dict(cfg).items() if k not in idle}


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
  return cfg.pretrain_loss == 'dino' if cfg.centring is None else cfg.centring


def has_teacher(cfg):
  """Whether the method has a target network, the EMA of the online one."""
  return 'use_momentum_encoder' in METHOD_SWITCHES[cfg.pretrain_loss]


def view_pair(cfg):
  """What each of two networks sees; () where there is one."""
  return tuple(cfg.view_pairs.split(',')) if cfg.view_pairs else ()


def reads(cfg):
  """Whether this call reads a trained model and trains none."""
  return cfg.mode in READING


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
