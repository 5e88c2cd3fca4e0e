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
  preset: str = opt('', 'A named set of values for other flags; the list is at '
    'the end (--help=preset). A flag that you type as well overrides its '
    'value.', ('', *PRESETS))
  print_config: bool = opt(False, 'Print every setting and where its value '
    'comes from, then stop.')
  mode: str = opt('train_then_eval', 'train: train a run. train_then_eval: '
    'also evaluate its probe at the end. eval: evaluate the probe of every new '
    'checkpoint in --model_dir until the training ends; if there is no run, '
    'that of --checkpoint. evaluate: measure a checkpoint (--suite) and write '
    'a card. compare: test the differences between --cards. extract_features, '
    'export, inspect: read --checkpoint, or else the newest one in '
    '--model_dir. latents: report what the latents of stochcon_* hold (forests '
    'on bits, capacity, uncertainty). search: find the images of --eval_split '
    'that are nearest to --query by their bits. report: write report.html to '
    '--model_dir, a page with curves and pictures of the run. preview: write a '
    'page with images of --dataset, their crops and what is wrong with them; '
    'nothing is trained. doctor: measure the input and the step of a run with '
    'these flags and say which flag to change; nothing is trained or stored.',
    ('train', 'eval', 'train_then_eval', 'evaluate', 'compare',
     'extract_features', 'latents', 'search', 'report', 'export', 'inspect',
     'preview', 'doctor'))
  suite: str = opt('all', 'What --mode=evaluate measures: all, or some of '
    'these with commas: linear (the stored probe; SGD and L-BFGS on frozen '
    'features), knn, semi, transfer, robustness, compression, '
    'transfer_finetune. all leaves out transfer_finetune, which trains 56 '
    'networks on each data set.')
  linear_passes: int = opt(4, 'How many random crops of each training image '
    'are used to train linear classifiers by SGD on frozen features; 0: the '
    'central crop alone.', '[0, inf)')
  transfer_sets: str = opt('all', 'Which of the eleven transfer data sets to '
    'use, with commas, or all. birdsnap=folder:PATH gives the folder of one.')
  robustness_sets: str = opt('', 'Which variants of ImageNet to test on, with '
    'commas; NAME=folder:PATH gives the folder of one. Empty: all of them if '
    '--dataset is ImageNet. all leaves out imagenet_c_recropped, which is '
    'ImageNet-C with the crop of robustness_metrics.')
  corrupt: str = opt('', 'Corruptions of the evaluation split for the suite '
    'robustness, with commas, or all: the 15 of ImageNet-C, each at 5 '
    'severities.')
  feature_cache: str = opt('', 'The folder where --mode=evaluate keeps '
    'features. Empty: beside the card.')
  cards: str = opt('', 'Two or more card.json for --mode=compare, with commas. '
    'Each is compared with the first.')
  report: bool = opt(True, 'Write report.html at the end of a training, as '
    '--mode=report does, of fewer images.')
  compare: str = opt('', 'The --model_dir of other runs for --mode=report, '
    'with commas. They are shown beside the run, on the same axes.')
  preview: str = opt('sample', 'What --mode=preview reads. sample: the files '
    'of at most 2,000 images. full: all of them, and it decodes each.',
    ('sample', 'full'))
  model_dir: str = opt('', 'The folder of the run, local or gs://. Everything '
    'is written there, and a run resumes from it. Empty: a new folder under '
    './runs, whose name is printed.')
  output: str = opt('', 'Where to write. extract_features: a file '
    '(features.npz), or a folder for several. export, compare: a folder. '
    'search: the file of its index; empty: beside the evaluations of the run. '
    'preview: a folder.')
  query: str = opt('', 'The image file for --mode=search.')
  neighbors: int = opt(10, 'How many images --mode=search finds.', '[1, inf)')
  format: str = opt('saved_model', 'What --mode=export writes. saved_model: '
    'for TensorFlow, can be trained further. safetensors: for torchvision and '
    'timm. onnx: for ONNX Runtime. keras: for Keras 3. released: a checkpoint '
    'that the published code reads.',
    ('saved_model', 'safetensors', 'onnx', 'keras', 'released'))
  resume: str = opt('auto', 'auto: resume from the newest checkpoint in '
    '--model_dir if there is one. never: refuse a folder with checkpoints. '
    'must: refuse a folder without checkpoints.', ('auto', 'never', 'must'))
  fresh_start: bool = opt(False, 'Begin at step 0 although --model_dir has '
    'checkpoints, which may be damaged. They are kept under other names.')
  allow_config_change: bool = opt(False, 'Resume a run although settings that '
    'change its meaning differ from those in its config.json.')
  download: bool = opt(False, 'Allow downloads of more than 1 GB. Otherwise '
    'the command that prepares the data set is printed.')
  eval_name: str = opt('', 'Evaluations are written to eval_NAME in '
    '--model_dir, so that you can keep several. Empty: eval.')
  wandb_project: str = opt('', 'Also send the numbers of metrics.jsonl to this '
    'project of Weights & Biases. A resumed run continues its run there. Needs '
    "pip install -e '.[wandb]'.")
  mlflow_uri: str = opt('', 'Also send the numbers of metrics.jsonl to this '
    'MLflow server or store, such as http://HOST:5000 or sqlite:///mlflow.db. '
    "Needs pip install -e '.[mlflow]'.")
  profile_steps: str = opt('', "Two steps such as '10,20': a trace of devices "
    'and host between them is written to profile/ in --model_dir, for the '
    'profiler of TensorBoard.')
  export_train_model: bool = opt(True, 'Accepted for published command lines, '
    'without effect: see --mode=export.')
  export_eval_model: bool = opt(True, 'Accepted for published command lines, '
    'without effect: see --mode=export.')
  keep_hub_module_max: int = opt(1, 'Accepted for published command lines, '
    'without effect: see --mode=export.', '[0, inf)')

  # Hardware
  use_tpu: bool | None = opt(None, 'true: use a TPU, or stop with an error. '
    'false: never look for a TPU. Not given: a TPU if one is named or '
    'attached, else all GPUs, else the CPU.')
  tpu_name: str = opt('', 'Name of the Cloud TPU.')
  tpu_zone: str = opt('', 'Zone of the Cloud TPU, if it cannot be detected.')
  gcp_project: str = opt('', 'Google Cloud project of the Cloud TPU, if it '
    'cannot be detected.')
  master: str = opt('', 'Address of a TPU worker, in place of --tpu_name.')
  data_service: str = opt('', 'The address that scripts/data_workers.sh '
    'prints. Its processes prepare the training images. The order of the '
    'examples, and exact resuming, are no longer guaranteed.')

  # Data
  dataset: str = opt('imagenet2012', 'A TFDS name (cifar10, '
    'imagenet2012_subset/1pct), the built-in photo_patches/32px, folder:PATH '
    'with images in PATH/train/<class>/, csv:FILE, list:FILE, npz:FILE, '
    'npy:FILE, wds:PATTERN (WebDataset) or hf:NAME_OR_PATH (Hugging Face); '
    'docs/data.md describes each.')
  data_dir: str = opt('', 'The folder of the TFDS data sets, local or gs://. '
    'Empty: the default of TFDS. Also a folder from which csv: and list: may '
    'read files.')
  train_split: str = opt('train', 'The split to train on, or a part of it such '
    'as train[:90%] (TFDS).')
  train_share: float = opt(1.0, 'Train on this share of the images of each '
    'class, drawn by --seed: for semi-supervised learning.', '(0, 1]')
  eval_split: str = opt('validation', 'The split to evaluate on. '
    'validation: the first of validation, val and test that exists.')
  image_size: int = opt(224, 'Height and width of the crops in pixels. With 32 '
    'or less, --stem=auto takes the stem for CIFAR.', '[8, inf)')
  eval_crop: str = opt('auto', 'Side of the central crop in evaluations, as a '
    'share of the shorter side of the image. auto: 1 if --image_size is 32 or '
    'less, else 0.875.', ('auto', '0.875', '1'), before='0.875')
  corrupt_scale: str = opt('auto', 'Strength of --corrupt: as in ImageNet-C, '
    'or as in CIFAR-10-C, where most corruptions are milder. auto: cifar10_c '
    'if --image_size is 32 or less, else imagenet_c.',
    ('auto', 'imagenet_c', 'cifar10_c'), before='imagenet_c')
  bit_depth: str = opt('auto', 'Bits per channel of decoded images. auto: for '
    'PNG files of 16 bits the smallest of 10, 12, 14 and 16 that holds the '
    'values of 256 training images, else 8; it is printed and stored. With 10 '
    'or more, images keep 16 bits, and the largest value of this depth becomes '
    'white.', ('auto', '8', '10', '12', '14', '16'), before='8')
  channels: int = opt(3, 'Channels of an image. 1: images become gray. 3: they '
    'become RGB. Any other number: the files must have it, such as PNG with '
    'alpha (4), or TIFF. Saturation, hue and grayscale need 3 channels.',
    '[1, 16]', before=3)
  max_bad_images: float = opt(0.01, 'End a training, with their names, if more '
    'than this share of its images cannot be read or decoded (one may always, '
    'unless this is 0). Fewer are replaced by another image and listed in '
    'bad_images.txt.', '[0, 1]', before=1.0)
  cache_dataset: bool = opt(False, 'Decode the whole split into the memory of '
    'every host before the first step. For small data sets.')
  shuffle_buffer: int = opt(16384, 'Size of the shuffle buffer in examples. '
    'Lower it if the host runs out of memory.', '[1, inf)')

  # Augmentation
  batch_image_augmentation_type: str = opt('byol', 'byol: blur with '
    'probability 1 in view 1 and 0.1 in view 2, solarization with 0 and 0.2, '
    'pixels normalized by mean and deviation. simclr: blur with 0.5 in both '
    'views, no solarization, pixels in [0, 1].', ('byol', 'simclr'))
  augment_on: str = opt('auto', 'Where crops are flipped, coloured, blurred '
    'and normalized. auto, device: in the training step, on its device. host: '
    'in the input pipeline, which helps if the CPU is idle and the device is '
    'not.', ('auto', 'host', 'device'))
  use_blur: bool = opt(True, 'Use Gaussian blur. Turn it off for small images.')
  blur_probability: str = opt('', "Probabilities 'p1,p2' of blur in the two "
    'views, in place of those of --batch_image_augmentation_type. A third one '
    'is for local crops (otherwise 0.5).')
  solarize_probability: str = opt('', "Probabilities 'p1,p2' of solarization "
    'in the two views, in place of those of --batch_image_augmentation_type. A '
    'third one is for local crops (otherwise 0).')
  color_jitter_probability: float = opt(0.8, 'Probability of colour jitter in '
    'a view.', '[0, 1]')
  color_jitter_brightness: float = opt(0.4, 'Strength of the brightness '
    'jitter.', '[0, 1]')
  color_jitter_contrast: float = opt(0.4, 'Strength of the contrast jitter.',
    '[0, 1]')
  color_jitter_saturation: float = opt(0.2, 'Strength of the saturation '
    'jitter.', '[0, 1]')
  color_jitter_hue: float = opt(0.1, 'Strength of the hue jitter.', '[0, 0.5]')
  grayscale_probability: float = opt(0.2, 'Probability that a view becomes '
    'gray.', '[0, 1]')
  brightness_fn: str = opt('simclrv1', 'How brightness is changed: by adding '
    '(simclrv1) or multiplying (simclrv2).', ('simclrv1', 'simclrv2'))
  bbox_sampling: str = opt('logarithmic', 'Distribution of the aspect ratio of '
    'crops: logarithmic as in BYOL, or uniform as in SimCLR.',
    ('logarithmic', 'uniform'))
  bbox_tries: int = opt(100, 'With --bbox_sampling=uniform: how many crops are '
    'tried until one fits into the image and covers 10% of it. If none does, '
    'the whole image is taken. 0: one try, cut off at the borders of the '
    'image.', '[0, 1000]', before=0)
  area_range_lower_bound: float = opt(0.08, 'Smallest area of a crop, as a '
    'share of the image.', '(0, 1]')
  area_range_upper_bound: float = opt(1.0, 'Largest area of a crop, as a share '
    'of the image.', '(0, 1]')
  local_crops: int = opt(0, 'Number of small crops of each image beside its '
    'two views, for methods that take them.', '[0, 16]')
  local_size: int = opt(96, 'Height and width of local crops in pixels.',
    '[8, inf)')
  local_area: str = opt('0.05,0.14', 'Smallest and largest area of local crops '
    "'low,high', as shares of the image.")
  clip_by_value_after_resizing: bool = opt(True, 'Clip pixels to [0, 1] after '
    'a crop is resized (bicubic interpolation overshoots).')
  clip_by_value_after_grayscale: bool = opt(True, 'Clip pixels to [0, 1] after '
    'the random change to grayscale.')
  no_augmentation: bool = opt(False, 'Train on resized images alone: no random '
    'crops, flips or colours.')
  plain_view: str = opt('whole', 'What --no_augmentation resizes: the whole '
    'image, as published, or the central 87.5% of its shorter side.',
    ('whole', 'central'), before='central')
  ft_with_full_aug: bool = opt(False, 'Finetune with all augmentations of this '
    'section; otherwise with crops and flips alone.')

  # Backbone
  resnet_depth: int = opt(50, 'Layers of the ResNet.',
    (18, 34, 50, 101, 152, 200))
  width_multiplier: int = opt(1, 'Width of the ResNet: 1, 2 or 4 times the '
    'standard one.', (1, 2, 4))
  sk_ratio: float = opt(0.0, 'Above 0: selective kernels with this ratio '
    '(SimCLR: 0.0625), for a depth of 50 or more.', '[0, 1]')
  se_ratio: float = opt(0.0, 'Above 0: squeeze-and-excitation with this ratio.',
    '[0, 1]')
  stem: str = opt('auto', 'The first layers. imagenet: 7x7 convolution of '
    'stride 2, max pooling. cifar: 3x3 of stride 1. small: 3x3 of stride 2, '
    'max pooling; fast on 32 to 64 pixels. auto: cifar if --image_size is 32 '
    'or less, else imagenet.', ('auto', 'imagenet', 'cifar', 'small'))
  shortcut: str = opt('published', 'Where ResNet-18 and -34 have projection '
    'shortcuts: in the first block of every group (published), or only where '
    'shapes change (torchvision, as in solo-learn too). Deeper networks are '
    'the same with both.', ('published', 'torchvision'), before='torchvision')
  global_bn: bool = opt(True, 'Compute the statistics of batch norm over all '
    'replicas; false: over each replica alone.')
  batch_norm_decay: float = opt(0.9, 'Decay of the moving averages of batch '
    'norm.', '[0, 1)')
  view_pairs: str = opt('', 'What each of the two networks of CMC sees: two of '
    'rgb, lab_l, lab_ab, ycbcr_y, ycbcr_cbcr, such as lab_l,lab_ab. Two '
    'different parts come from the same view; the same part twice (rgb,rgb) '
    'comes from two views.')

  # Method
  pretrain_loss: str = opt('contrastive', 'The method: contrastive is SimCLR, '
    'contrastive_ceb C-SimCLR, byol_ceb C-BYOL; the others have their own '
    'names. See docs/methods.md.', tuple(KINDS))
  temperature: float = opt(0.1, 'Temperature of the softmax of SimCLR, MoCo, '
    'CMC, SwAV, DeepCluster, StochCon and of the student of DINO. In C-SimCLR '
    'it is 1 / --kappa_b.', '(0, inf)')
  double_batch_trick: bool = opt(True, 'Use the other images of the same view '
    'as negatives, too (SimCLR, C-SimCLR, StochCon).')
  byol_loss_weight: float = opt(1.0, 'Weight of the squared distance in BYOL '
    'and C-BYOL. It is half of kappa_d, the concentration of the decoder.',
    '(0, inf)')
  ema_alpha: float = opt(0.999, 'Coefficient of the moving average of the '
    'target network at step 0, see --ema_schedule. Lower it for short runs '
    '(0.99 at 300 epochs).', '[0, 1]')
  ema_schedule: str = opt('cosine', 'cosine: the coefficient of the moving '
    'average rises to 1. constant: it stays as it is (MoCo).',
    ('cosine', 'constant'))
  ceb_beta: float = opt(0.0, 'Weight of the compression in C-SimCLR and '
    'C-BYOL; published: 1. Lower it if a short run does not learn.', '[0, inf)')
  beta_schedule: str = opt('constant', 'constant: the weight is --ceb_beta at '
    'every step. linear_warmup, cosine: it rises from 0 to --ceb_beta, '
    'linearly in the warm-up of the learning rate, or by a cosine over the '
    'run.', ('constant', 'linear_warmup', 'cosine'))
  ceb_sampling: bool = opt(True, 'Sample z from the forward encoder; false: '
    'take its mean.')
  ceb_distribution: str = opt('vmf', 'Distribution of the encoders of C-SimCLR '
    'and C-BYOL: von Mises-Fisher on the sphere, or Gaussian.',
    ('vmf', 'gaussian'))
  kappa_e: float = opt(1024.0, 'Concentration of the forward encoder e(z|x): a '
    'higher value means less noise in z. Published: 1024 in C-SimCLR, 16384 in '
    'C-BYOL.', '(0, inf)')
  kappa_b: float = opt(10.0, 'Concentration of the backward encoder b(z|y): a '
    'higher value means more compression. In C-SimCLR it is also the inverse '
    'temperature.', '(0, inf)')
  gaussian_scale: str = opt('fixed', 'Standard deviations of the Gaussian '
    'encoders: fixed, or learned for each dimension.', ('fixed', 'learned'))
  sigma_e: float = opt(1.0, 'Standard deviation of the Gaussian forward '
    'encoder.', '(0, inf)')
  sigma_b: float = opt(1.0, 'Standard deviation of the Gaussian backward '
    'encoder.', '(0, inf)')
  backward_view: str = opt('same', 'Which view the backward encoder of C-BYOL '
    'gets. same: the view of z, as published. other: the other view, as in '
    'CEB.', ('same', 'other'))

  teacher_temperature: float = opt(0.04, 'Temperature of the teacher of DINO: '
    'a lower value makes it sharper. Lower it if the loss does not fall below '
    'the log of --num_prototypes.', '(0, inf)')
  teacher_temperature_start: float = opt(0.04, 'Temperature of the teacher at '
    'step 0, if --teacher_temperature_warmup_epochs is above 0.', '(0, inf)')
  teacher_temperature_warmup_epochs: float = opt(0.0, 'Epochs in which the '
    'temperature of the teacher changes linearly from '
    '--teacher_temperature_start to --teacher_temperature.', '[0, inf)')
  centring: bool | None = opt(None, 'Subtract a moving mean from the logits of '
    'the teacher of DINO; without it all images get the same output. Not '
    'given: true in dino, false in er_dino, which has the entropy in its loss.')
  centre_momentum: float = opt(0.9, 'Momentum of the moving mean of '
    '--centring.', '[0, 1]')
  er_kappa: float = opt(10.0, 'Concentration of the kernels of entropy and '
    'reconstruction on the sphere, an inverse temperature.', '(0, inf)')
  er_estimator: str = opt('plug_in', 'Estimator of the entropy in er_simclr '
    'and er_byol. plug_in weights rows by their own density (default of the '
    'published code). joe is their plain mean (EntRec).', ('plug_in', 'joe'))
  er_leave_one_out: bool = opt(False, 'Leave out the kernel of a row itself in '
    'its own density. Published: false, which limits the entropy to a few '
    'nats.')
  er_entropy_of: str = opt('projection', 'The output of the online network of '
    'er_byol whose entropy is in the loss.', ('projection', 'prediction'))
  er_alpha: float = opt(2.0, 'Exponent of the reconstruction of entrec_cont; 2 '
    'is Gaussian.', '(0, inf)')
  latent_temperature: float = opt(1.0, 'Temperature of the binary Concrete '
    'distribution of stochcon_bernoulli at step 0.', '(0, inf)')
  latent_temperature_end: float = opt(0.5, 'The same temperature at the last '
    'step; between, it changes by a constant factor per step. A lower '
    'temperature is closer to bits, but gradients are noisier.', '(0, inf)')
  latent_kl_weight: float = opt(0.0, 'Weight of the KL divergence of the '
    'latents from fair bits, or from standard normals, in nats; published: 0.',
    '[0, inf)')
  queue_size: int = opt(0, 'How many embeddings of earlier steps are kept: the '
    'negatives of MoCo (published: 65536), or more samples for the assignments '
    'of SwAV (3840 for small batches).', '[0, inf)')
  num_prototypes: int = opt(3000, 'Number of prototypes or clusters: the '
    'outputs of the last layer.', '[3, inf)')
  freeze_prototypes_steps: int = opt(0, 'Steps at the beginning in which the '
    'prototypes are not trained.', '[0, inf)')
  queue_start: float = opt(0.0, 'The epoch from which SwAV uses its queue '
    '(published: 15). If the queue is not full then, it waits until it is.',
    '[0, inf)')
  sinkhorn_epsilon: float = opt(0.05, 'Softness of the assignments of SwAV: '
    'its scores are divided by this.', '(0, inf)')
  sinkhorn_iterations: int = opt(3, 'Sinkhorn iterations that balance the '
    'assignments of SwAV over the prototypes.', '[1, inf)')
  num_heads: int = opt(3, 'Number of clusterings that DeepCluster learns from '
    'at once, each with --num_prototypes clusters.', '[1, inf)')
  kmeans_iterations: int = opt(10, 'Iterations of k-means at the beginning of '
    'each epoch of DeepCluster.', '[1, inf)')

  # Heads
  proj_head_mode: str = opt('nonlinear', 'The projection head: an MLP, one '
    'linear layer, or none.', ('none', 'linear', 'nonlinear'))
  num_proj_layers: int = opt(2, 'Layers of the nonlinear projection head.',
    '[1, inf)')
  proj_head_hidden_dim: int = opt(4096, 'Width of the hidden layers of the '
    'heads.', '[1, inf)')
  proj_out_dim: int = opt(256, 'Dimension of z, the output of the projection '
    'head.', '[3, inf)')
  proj_head_output_bn: bool = opt(False, 'Batch norm after the last layer of '
    'the projection head.')
  proj_head_hidden: str = opt('bn_relu', 'What follows a hidden layer of the '
    'projection head. bn_relu: batch norm and ReLU. relu: a bias and ReLU '
    '(MoCo v2). gelu: a bias and GELU (DINO).', ('bn_relu', 'relu', 'gelu'))
  projector_mid_bn: bool = opt(True, 'Batch norm in the middle of the '
    'predictor of BYOL, C-BYOL and SimSiam.')
  predictor_hidden_dim: int = opt(512, "Width of the hidden layer of SimSiam's "
    'predictor.', '[1, inf)')
  latent_dim: int = opt(0, 'Dimension of the latent of stochcon_*. It is a '
    'bottleneck: a layer leads from it back to the width of the '
    'representation. 0: as wide as the representation, no bottleneck.',
    '[0, inf)')
  latent_top_k: int = opt(0, 'Above 0: exactly this many bits of an image are '
    '1, those with the largest logits.', '[0, inf)')
  latent_estimator: str = opt('straight_through', 'What the head gets in '
    'training. straight_through: bits, with the gradient of relaxed bits. '
    'relaxed: relaxed bits.', ('straight_through', 'relaxed'))
  latent_variance: str = opt('opposing', 'Where the variance of a Gaussian '
    'latent comes from. opposing: the other view, which keeps it from '
    'vanishing. own: the view itself. fixed: --latent_std.',
    ('opposing', 'own', 'fixed'))
  latent_scale: str = opt('shared', 'shared: one variance per image '
    '(isotropic). per_dim: one per dimension.', ('shared', 'per_dim'))
  latent_std: float = opt(1.0, 'Standard deviation of the latent with '
    '--latent_variance=fixed.', '(0, inf)')
  mlp_init: str = opt('byol', 'Initial kernels of the heads: variance scaling '
    '(byol), or a normal distribution of deviation 0.01 (simclr).',
    ('byol', 'simclr'))
  use_momentum_encoder: bool | None = opt(None, 'Follows from --pretrain_loss; '
    'a value that contradicts it is an error.')
  use_momentum_proj_head: bool | None = opt(None, 'Follows from '
    '--pretrain_loss; a value that contradicts it is an error.')
  use_projector: bool | None = opt(None, 'Follows from --pretrain_loss; a '
    'value that contradicts it is an error.')
  use_target_projector: bool | None = opt(None, 'Follows from --pretrain_loss; '
    'a value that contradicts it is an error.')
  stochastic_projector: bool | None = opt(None, 'Follows from --pretrain_loss; '
    'a value that contradicts it is an error.')

  # Linear probe and finetuning
  train_mode: str = opt('pretrain', 'pretrain: learn without labels. finetune: '
    'learn from labels, starting from --checkpoint.', ('pretrain', 'finetune'))
  checkpoint: str = opt('', 'A checkpoint, or its folder: to finetune, to '
    'start another pretraining from, or to read (--mode).')
  fine_tune_after_block: int = opt(-1, 'What finetuning trains. -1: '
    'everything. 0: what comes after the stem. 1 to 3: what comes after this '
    'group of blocks. 4: the linear head alone (linear evaluation).', '[-1, 4]')
  lineareval_while_pretraining: bool = opt(True, 'Train a linear probe on the '
    'labels beside the method. A stop-gradient keeps it from changing the '
    'encoder. Its accuracy is shown during the run.')
  ft_proj_selector: int = opt(0, 'Input of the probe. 0: the representation of '
    'the backbone. k: layer k of the projection head. -1: the output of the '
    'projection head (default of the published code).', '[-1, inf)')
  probe_latent: bool = opt(False, 'The probe and finetuning get the latent of '
    'stochcon_*, its bits or means, instead of the representation.')
  zero_init_logits_layer: bool = opt(False, 'Initialize the linear head with '
    'zeros.')
  reinit_logits_layer: bool = opt(True, 'Finetune from a new linear head; '
    'false: from the probe of the checkpoint.')
  rename_supervised_head: bool = opt(False, 'Accepted for published command '
    'lines, without effect: other labels need no flag.')
  use_binary_cross_entropy: bool = opt(False, 'Train the linear head with a '
    'sigmoid for each class, against the rest, instead of a softmax.')

  # Optimisation
  train_batch_size: int = opt(512, 'Images per step, over all replicas. Halve '
    'it if memory runs out: contrastive methods then have fewer negatives, '
    'BYOL is hardly affected.', '[1, inf)')
  grad_cache_chunk: int = opt(0, 'For methods that compare the images of a '
    'batch: how many of them are in the memory of a replica at once; 0: all. '
    'Loss and gradients are those of the whole batch, batch norm sees one '
    'chunk at a time.', '[0, inf)')
  grad_accum_steps: int = opt(1, 'For the other methods, and finetuning: '
    'number of parts that a batch is processed in, one after the other. Their '
    'gradients are averaged.', '[1, inf)')
  eval_batch_size: int = opt(256, 'Images per step in evaluations, over all '
    'replicas.', '[1, inf)')
  train_epochs: int = opt(100, 'Length of the training in epochs.', '[1, inf)')
  train_steps: int = opt(0, 'Length of the training in steps; above 0 it '
    'overrides --train_epochs.', '[0, inf)')
  optimizer: str = opt('lars', 'lars is for large batches. momentum is SGD '
    'with momentum. lamb needs the legacy stack (requirements-legacy.txt).',
    ('lars', 'momentum', 'adam', 'adamw', 'lamb'))
  learning_rate: float = opt(0.3, 'Peak learning rate for a batch of 256, see '
    '--learning_rate_scaling. Lower it if the loss becomes NaN.', '[0, inf)')
  learning_rate_scaling: str = opt('linear', 'How learning rates are scaled to '
    'the batch. linear: times batch / 256. sqrt: times the square root of the '
    'batch; it needs a lower --learning_rate (0.075), and is better for small '
    'batches.', ('linear', 'sqrt'))
  learning_rate_schedule: str = opt('cosine', 'After the warm-up. cosine: down '
    'to --final_learning_rate. constant: stays at its peak.',
    ('cosine', 'constant'))
  constant_predictor_rate: bool = opt(False, 'Keep the learning rate of the '
    'predictor of SimSiam at its peak. Needs --optimizer=momentum.')
  final_learning_rate: float = opt(0.0, 'Learning rate at the end of the '
    'cosine for a batch of 256, scaled as --learning_rate is.', '[0, inf)')
  warmup_epochs: float = opt(10.0, 'Epochs of linear warm-up of the learning '
    'rate, from --warmup_learning_rate.', '[0, inf)')
  warmup_learning_rate: float = opt(0.0, 'Learning rate at the beginning of '
    'the warm-up for a batch of 256, scaled as --learning_rate is.', '[0, inf)')
  momentum: float = opt(0.9, 'Momentum of --optimizer=lars and momentum.',
    '[0, 1)')
  momentum_nesterov: bool = opt(True, 'Nesterov momentum in '
    '--optimizer=momentum; false: plain momentum, as in MoCo and SimSiam.')
  clip_norm: float = opt(0.0, 'Above 0: scale gradients down if their global '
    'norm is larger than this.', '[0, inf)')
  weight_decay: float = opt(1e-6, 'Weight decay. lars: of all variables but '
    'biases and batch norm. adamw, lamb: of kernels. adam, momentum: an l2 '
    'loss on all but batch norm.', '[0, inf)')
  final_weight_decay: float = opt(0.0, 'Above 0: weight decay at the last '
    'step; it changes by a cosine from --weight_decay.', '[0, inf)')
  lars_eta: float = opt(1e-3, 'Trust coefficient of lars (solo-learn: 0.02).',
    '(0, inf)')
  lars_clip: bool = opt(False, 'Limit the length of a step of lars to that of '
    'SGD (LARC).')
  lars_classic: bool = opt(True, 'true: learning rate and trust ratio are '
    'inside the momentum, as published. false: outside, the common variant.')
  lars_nesterov: bool = opt(False, 'Nesterov momentum in lars.')

  # Numbers and chance
  precision: str = opt('fp32', 'bf16: computes in bfloat16, weights and losses '
    'stay in float32; faster on TPUs, recent GPUs and some CPUs. fp16: the '
    'same in float16 with automatic loss scaling, for GPUs without bfloat16.',
    ('fp32', 'bf16', 'fp16'))
  jit_compile: bool = opt(False, 'Compile the step into one XLA program: '
    'faster on GPUs, slower on CPUs. On TPUs it is always compiled. Works with '
    'one replica only.')
  seed: int = opt(0, 'Seed of all random numbers.', '[0, 1000000]')
  deterministic: bool = opt(False, 'Use operations that give the same bits in '
    'every run, where TensorFlow has them. Slower.')

  # Checkpoints and summaries
  train_summary_steps: int = opt(100, 'Steps between summaries (metrics.jsonl, '
    'TensorBoard); 0: none.', '[0, inf)')
  health_pairs: int = opt(512, 'At every summary, two views of this many '
    'images are compared: the information that they share (information/...), '
    'and signs of collapse (health/...). The images are always the same, from '
    'the evaluation split if there is one. 0: none.', '[0, inf)')
  summary_images: bool = opt(True, 'Also give TensorBoard pictures of some of '
    'these views, and histograms of their similarities and of the spectrum of '
    'the representations.')
  stop_on_collapse: bool = opt(False, 'End the run with status 3, after a '
    'checkpoint, if two summaries in a row show a collapse.')
  max_bad_steps: int = opt(10, 'A step whose loss or gradient is not finite '
    'changes nothing and is counted. After so many in a row the run goes back '
    'to its newest checkpoint; after three returns it ends with status 3.',
    '[1, inf)')
  checkpoint_epochs: int = opt(1, 'Epochs between checkpoints.', '[1, inf)')
  checkpoint_steps: int = opt(0, 'Steps between checkpoints; above 0 it '
    'overrides --checkpoint_epochs.', '[0, inf)')
  keep_checkpoint_max: int = opt(5, 'How many checkpoints are kept; older ones '
    'are deleted.', '[1, inf)')
  explicitly_watch_vars: bool = opt(False, 'Accepted for published command '
    'lines, without effect: the method determines what is trained.')
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
