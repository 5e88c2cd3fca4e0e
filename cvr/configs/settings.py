"""Every setting of the program, as a table: its default, help, what it may be.

A field is a flag.
"""

import dataclasses

from cvr.configs.methods import KINDS, SWITCHES
from cvr.configs.presets import PRESETS

# fmt: off
# Tables, laid out by hand.

# What --mode=evaluate measures, in this order; --suite=all leaves out the last.
SUITES = (
  *('linear', 'knn', 'semi', 'transfer', 'robustness', 'compression'),
  'transfer_finetune')

# Names of the built-in data set, and its newest version, which such a name gets
# when it is typed. Runs from before there was a second one stored it without.
BUILT_IN = ('photo_patches', 'photo_patches/32px', 'photo_patches/64px')
NEWEST = '2.0.0'

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
# fmt: on


class ConfigError(ValueError):
  """A setting that cannot be: one line that says what to do instead."""


def opt(default, help, choices=None, before=None):
  """A field that is a flag.

  choices: values, or an interval as '[0, 1)'. before: what the code did before
  the flag existed, which is what a stored run without it has.
  """
  metadata = {'help': help, 'choices': choices, 'before': before}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """The settings of one call, as they are typed."""

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
    'the newest one in --model_dir; so do latents (what the bits or Gaussians '
    'of stochcon_* hold: forests on bits, capacity, uncertainty) and search '
    '(the images of --eval_split that are nearest to --query by bits). doctor '
    'measures input and step of a run with these flags and says which one to '
    'turn; it trains and stores nothing. evaluate makes a card of numbers from '
    'a checkpoint, see --suite; compare tests the differences between --cards.',
    ('train', 'eval', 'train_then_eval', 'evaluate', 'compare',
     'extract_features', 'latents', 'search', 'export', 'inspect', 'doctor'))
  suite: str = opt('all', 'What --mode=evaluate measures, in this order: '
    'linear (the stored probe, frozen SGD, L-BFGS), knn, semi, transfer, '
    'robustness, compression; one or several with commas, or all. '
    'transfer_finetune is not in all: it trains 56 networks a data set.')
  linear_passes: int = opt(4, 'Random crops of every training image, whose '
    'features frozen SGD takes in turn; 0: the central crop alone.', '[0, inf)')
  transfer_sets: str = opt('all', 'Which of the eleven, with commas; '
    'birdsnap=folder:PATH says where one lies.')
  robustness_sets: str = opt('', 'Which variants of ImageNet, likewise; '
    'empty: all of them where --dataset is ImageNet. imagenet_c_recropped, '
    'ImageNet-C as robustness_metrics crops it, is not in all.')
  corrupt: str = opt('', 'Corruptions of the evaluation split that robustness '
    'is measured on, with commas, or all: the 15 of ImageNet-C at 5 '
    'severities.')
  feature_cache: str = opt('', 'Where --mode=evaluate keeps features; empty: '
    'beside the card.')
  cards: str = opt('', 'Two or more card.json for --mode=compare, with commas; '
    'the others are compared with the first.')
  model_dir: str = opt('', 'Where everything of a run goes, and where it '
    'resumes from; local or gs://. Without it a new folder under ./runs is '
    'made and printed.')
  output: str = opt('', 'Where extract_features writes (features.npz; a folder '
    'gets shards), and the folder for export; the file in which search keeps '
    'its index, by itself beside the evaluations of the run.')
  query: str = opt('', 'The file of the image that --mode=search looks for.')
  neighbors: int = opt(10, 'How many images --mode=search finds.', '[1, inf)')
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
  wandb_project: str = opt('', 'Also send the numbers of metrics.jsonl to this '
    "project of Weights & Biases (pip install -e '.[wandb]'). A resumed run "
    'continues its run there.')
  mlflow_uri: str = opt('', 'Also send the numbers of metrics.jsonl to this '
    'MLflow server or store, such as http://HOST:5000 or sqlite:///mlflow.db '
    "(pip install -e '.[mlflow]').")
  profile_steps: str = opt('', "Two steps such as '10,20': what devices and "
    'host do between them is traced into profile/ of the run, for the profiler '
    'of TensorBoard.')
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
    'imagenet2012_subset/1pct), photo_patches/32px (built in), folder:PATH '
    'with PATH/train/<class>/*.jpg, or csv:FILE, list:FILE, npz:FILE, '
    'npy:FILE, wds:PATTERN (WebDataset), hf:NAME_OR_PATH (Hugging Face): see '
    'docs/data.md.')
  data_dir: str = opt('', "Where TFDS keeps its data sets, local or gs://; "
    "empty: TFDS' own default. A folder from which csv: and list: may read "
    'files, beside their own.')
  train_split: str = opt('train', 'Split to train on; of TFDS train[:90%] '
    'works too.')
  train_share: float = opt(1.0, 'Train on this share of every class, drawn by '
    '--seed: semi-supervised learning.', '(0, 1]')
  eval_split: str = opt('validation', 'Split to evaluate on. validation: the '
    'first of validation, val and test that there is.')
  image_size: int = opt(224, 'Height and width of the crops. 32 or less '
    'brings the CIFAR stem, see --stem.', '[8, inf)')
  eval_crop: str = opt('auto', 'The share of the shorter side that the central '
    'crop of the evaluation keeps. auto: all of it at 32 pixels or less, else '
    '0.875.', ('auto', '0.875', '1'), before='0.875')
  corrupt_scale: str = opt('auto', 'The parameters of --corrupt: '
    "ImageNet-C's, or CIFAR-10-C's, most of them milder, for 32 px. auto: the "
    'latter up to 32 px.', ('auto', 'imagenet_c', 'cifar10_c'),
    before='imagenet_c')
  bit_depth: str = opt('auto', 'Bits of a channel that images are decoded to. '
    'auto: 8, or what 16-bit PNG files hold: the smallest of 10, 12, 14 and 16 '
    'bits that 256 training images fit into, which is printed and stored. From '
    '10 bits on all images keep 16 bits, and the brightest such value of a '
    '16-bit file is 1.',
    ('auto', '8', '10', '12', '14', '16'), before='8')
  channels: int = opt(3, 'Channels of an image. Images become gray (1) or RGB '
    '(3) whatever they are; for any other number files must have it: PNG with '
    'alpha (4), TIFF. Saturation, hue and grayscale are of 3 channels alone.',
    '[1, 16]', before=3)
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
  bbox_tries: int = opt(100, 'How often --bbox_sampling=uniform tries until a '
    'crop fits into the image and has at least 10% of its area; after that the '
    'whole image is taken. 0: one try, whose sides are cut where they do not '
    'fit.', '[0, 1000]', before=0)
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
  no_augmentation: bool = opt(False, 'Train on the resized image alone: no '
    'random crops, flips or colours.')
  plain_view: str = opt('whole', 'What --no_augmentation resizes: the whole '
    'image, as published, or its centre (central), 87.5% of the shorter side.',
    ('whole', 'central'), before='central')
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
  shortcut: str = opt('published', 'ResNet-18 and -34 have a projection in the '
    'first block of every group (published), or only where shapes change '
    '(torchvision, solo-learn). Deeper ones are the same.',
    ('published', 'torchvision'), before='torchvision')
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
    'names. docs/methods.md derives them.', tuple(KINDS))
  temperature: float = opt(0.1, 'Temperature of the softmax of SimCLR, MoCo, '
    "CMC, SwAV, DeepCluster, StochCon and DINO's student. C-SimCLR has "
    '--kappa_b = 1/temperature instead.', '(0, inf)')
  double_batch_trick: bool = opt(True, 'Take negatives from the same view too '
    '(SimCLR, C-SimCLR).')
  byol_loss_weight: float = opt(1.0, 'Weight of the squared distance of BYOL '
    'and C-BYOL: half the concentration kappa_d of the decoder.', '(0, inf)')
  ema_alpha: float = opt(0.999, 'Where the coefficient of the moving average '
    'of the target network starts, see --ema_schedule. Lower it for short runs '
    '(0.99 at 300 epochs).', '[0, 1]')
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
  latent_temperature: float = opt(1.0, 'Temperature of the binary Concrete in '
    'stochcon_bernoulli at the beginning.', '(0, inf)')
  latent_temperature_end: float = opt(0.5, 'The same at the end, by a constant '
    'factor per step: lower is closer to bits, with noisier gradients.',
    '(0, inf)')
  latent_kl_weight: float = opt(0.0, "Weight of the latents' divergence from "
    'fair bits, or from standard normals, in nats; published: 0.', '[0, inf)')
  queue_size: int = opt(0, 'Embeddings of earlier steps that are kept: '
    "MoCo's negatives (published: 65536), more samples for the assignments of "
    'SwAV (3840 where batches are small).', '[0, inf)')
  num_prototypes: int = opt(3000, 'Prototypes, or clusters: outputs of the '
    'last layer.', '[3, inf)')
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
  latent_dim: int = opt(0, 'Bits or dimensions of the latent of stochcon_*, a '
    'bottleneck with a way back up; 0: as wide as the representation, without '
    'one.', '[0, inf)')
  latent_top_k: int = opt(0, 'Above 0: just so many bits of an image are 1, '
    'those with the largest logits.', '[0, inf)')
  latent_estimator: str = opt('straight_through', 'What the head sees in '
    'training: bits, with the gradient of relaxed ones, or relaxed ones.',
    ('straight_through', 'relaxed'))
  latent_variance: str = opt('opposing', 'Where the variance of a Gaussian '
    'latent comes from: the opposing view, which keeps it from vanishing; the '
    'view itself (own); or it is fixed.', ('opposing', 'own', 'fixed'))
  latent_scale: str = opt('shared', 'One variance per image (isotropic), or '
    'one per dimension.', ('shared', 'per_dim'))
  latent_std: float = opt(1.0, 'The fixed deviation, with '
    '--latent_variance=fixed.', '(0, inf)')
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
  checkpoint: str = opt('', 'A checkpoint, or its folder, to start from: '
    'finetuning, or another pretraining.')
  fine_tune_after_block: int = opt(-1, 'What finetuning trains: -1 '
    'everything; 0 what comes after the stem; 1 to 3 what comes after that '
    'block group; 4 the linear head alone (linear evaluation).', '[-1, 4]')
  lineareval_while_pretraining: bool = opt(True, 'Train a linear probe beside '
    'the method, behind a stop-gradient, to see the accuracy at every step.')
  ft_proj_selector: int = opt(0, 'What the probe reads: 0 the representation '
    'of the backbone, k the k-th layer of the projection head, -1 its output '
    '(the default of the published code).', '[-1, inf)')
  probe_latent: bool = opt(False, 'The probe and finetuning read the latent '
    'of stochcon_*, its bits or means, and not the representation.')
  zero_init_logits_layer: bool = opt(False, 'Start the linear head from zeros '
    'when finetuning.')
  reinit_logits_layer: bool = opt(True, 'Start finetuning with a new linear '
    'head, not with the stored probe.')
  rename_supervised_head: bool = opt(False, 'Accepted, without effect: '
    'another label set just works.')
  use_binary_cross_entropy: bool = opt(False, 'A sigmoid for each class '
    'instead of a softmax: every class against the rest, on the one label of '
    'an image.')

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
  deterministic: bool = opt(False, 'Operations that repeat to the last bit, '
    'where TensorFlow has them; slower.')

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


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def sections():
  """-> {title: the names of its flags}, in the order of the help."""
  grouped, title = {}, None
  for name in FIELDS:
    title = SECTIONS.get(name, title)
    grouped.setdefault(title, []).append(name)
  return grouped


# Parts of all settings, {name: value} ----------------------------------------


def of_one_call():
  """The names of settings that no call takes over from a stored run."""
  return [*sections()['This call'], *sections()['Hardware']]


def of_older_code(values):
  """What a stored run had, of the settings that are younger than it."""
  older = {
    name: field.metadata['before']
    for name, field in FIELDS.items()
    if field.metadata['before'] is not None and name not in values
  }
  # Stored without a version it is the first one.
  dataset = values.get('dataset', '')
  return older | ({'dataset': dataset} if dataset in BUILT_IN else {})


def with_version(values):
  """The same, with the newest version of the built-in data set."""
  name = values.get('dataset')
  newest = {'dataset': f'{name}:{NEWEST}'} if name in BUILT_IN else {}
  return values | newest


def of_the_run(values):
  """What an evaluation takes over from the training."""
  # Where a run began is not what it is.
  other = [*of_one_call(), 'checkpoint']
  return {name: value for name, value in values.items() if name not in other}


def of_the_encoder(values):
  """What another training takes over: what was built."""
  own = [*sections()['Backbone'], *sections()['Heads']]
  own += ['image_size', 'channels', 'batch_image_augmentation_type']
  return {k: v for k, v in values.items() if k in own and k not in SWITCHES}


# In words --------------------------------------------------------------------


def show(value):
  """A value as one would type it, on one line."""
  text = str(value).lower() if isinstance(value, bool) else str(value)
  return text if text.isprintable() else repr(text)


def refuse(name, value, why):
  raise ConfigError(f'--{name}={show(value)}: {why}')
