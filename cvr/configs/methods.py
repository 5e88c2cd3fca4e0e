"""What is known of every method before TensorFlow is: one row each.

Which flags it reads, whether it has a teacher, whether it compares images: all
that the rest of the program asks of a method's name follows from its row here.
Its computation is a class in the table METHODS of cvr/methods.
"""

from typing import NamedTuple


class Kind(NamedTuple):
  """A row."""

  title: str  # as papers call it
  family: str  # the module of cvr/methods that holds its class
  switches: tuple = ()  # the head switches of the published code it implies
  compares: bool = False  # an image's loss depends on others in the batch
  crops: bool = False  # takes --local_crops beside its two global ones
  centred: bool = False  # what --centring is where it is not given
  uses: tuple = ()  # the flags that it reads and most methods do not
  small: dict = {}  # for a run of some hundred steps on small images


# The head switches of the published code, in its order.
_MOMENTUM = ('use_momentum_encoder', 'use_momentum_proj_head')
_BYOL = (*_MOMENTUM, 'use_projector')
SWITCHES = (*_BYOL, 'use_target_projector', 'stochastic_projector')

_TEACHER = ('ema_alpha', 'ema_schedule')
_CEB = (
  *('ceb_beta', 'beta_schedule', 'ceb_sampling', 'ceb_distribution'),
  *('kappa_e', 'kappa_b', 'gaussian_scale', 'sigma_e', 'sigma_b'),
)
_DINO = (
  *_TEACHER,
  'temperature',
  'teacher_temperature',
  'teacher_temperature_start',
  'teacher_temperature_warmup_epochs',
  'centring',
  'num_prototypes',
  'freeze_prototypes_steps',
)
_LATENT = (
  'temperature',
  'double_batch_trick',
  'latent_dim',
  'latent_kl_weight',
)
_ER = ('er_kappa', 'er_leave_one_out')

_SMALL_TEACHER = {'ema_alpha': 0.99, 'ema_schedule': 'constant'}
_SMALL_CEB = {'ceb_beta': 0.1, 'beta_schedule': 'linear_warmup'}
_SMALL_DINO = _SMALL_TEACHER | {
  'num_proj_layers': 3,
  'proj_head_hidden': 'gelu',
  'num_prototypes': 512,
}

# The value of --pretrain_loss -> its row.
KINDS = {
  'contrastive': Kind(
    'SimCLR',
    'contrastive',
    compares=True,
    uses=('temperature', 'double_batch_trick'),
  ),
  'contrastive_ceb': Kind(
    'C-SimCLR',
    'contrastive',
    compares=True,
    uses=('double_batch_trick', *_CEB),
    small=_SMALL_CEB,
  ),
  'byol': Kind(
    'BYOL',
    'distillation',
    switches=_BYOL,
    uses=('byol_loss_weight', 'projector_mid_bn', *_TEACHER),
    small=_SMALL_TEACHER,
  ),
  'byol_ceb': Kind(
    'C-BYOL',
    'distillation',
    switches=SWITCHES,
    uses=(
      *('byol_loss_weight', 'backward_view', 'projector_mid_bn'),
      *_TEACHER,
      *_CEB,
    ),
    small=_SMALL_TEACHER
    | _SMALL_CEB
    | {'kappa_e': 16384.0, 'byol_loss_weight': 5.0},
  ),
  'moco': Kind(
    'MoCo v2',
    'contrastive',
    switches=_MOMENTUM,
    uses=('queue_size', 'temperature', *_TEACHER),
    small={'queue_size': 2048, 'temperature': 0.2, **_SMALL_TEACHER},
  ),
  'cmc': Kind(
    'CMC',
    'contrastive',
    compares=True,
    uses=('temperature',),
    # Its projection is those of two networks, side by side.
    small={'view_pairs': 'lab_l,lab_ab', 'proj_out_dim': 64},
  ),
  'swav': Kind(
    'SwAV',
    'prototypes',
    compares=True,
    crops=True,
    uses=(
      *('temperature', 'queue_size', 'queue_start', 'num_prototypes'),
      'freeze_prototypes_steps',
      *('sinkhorn_epsilon', 'sinkhorn_iterations'),
    ),
    small={
      'num_prototypes': 512,
      'freeze_prototypes_steps': 32,
      'learning_rate': 0.5,
    },
  ),
  'deepcluster': Kind(
    'DeepCluster-v2',
    'prototypes',
    crops=True,
    uses=('temperature', 'num_prototypes', 'num_heads', 'kmeans_iterations'),
    small={'num_prototypes': 128, 'num_heads': 3},
  ),
  'simsiam': Kind(
    'SimSiam',
    'distillation',
    switches=('use_projector',),
    uses=(
      *('predictor_hidden_dim', 'constant_predictor_rate'),
      'projector_mid_bn',
    ),
    small={'predictor_hidden_dim': 512},
  ),
  'vicreg': Kind(
    'VICReg',
    'decorrelation',
    compares=True,
    small={'num_proj_layers': 3, 'proj_out_dim': 512},
  ),
  'dino': Kind(
    'DINO',
    'distillation',
    switches=_MOMENTUM,
    crops=True,
    centred=True,
    uses=_DINO,
    small=_SMALL_DINO,
  ),
  'er_simclr': Kind(
    'ER-SimCLR',
    'entropy_reconstruction',
    compares=True,
    uses=('er_estimator', *_ER),
  ),
  'er_byol': Kind(
    'ER-BYOL',
    'entropy_reconstruction',
    switches=_BYOL,
    compares=True,
    uses=(
      *('er_estimator', 'er_entropy_of', 'projector_mid_bn'),
      *_ER,
      *_TEACHER,
    ),
    small=_SMALL_TEACHER | {'er_estimator': 'joe', 'ema_alpha': 0.8},
  ),
  'er_dino': Kind(
    'ER-DINO',
    'entropy_reconstruction',
    switches=_MOMENTUM,
    compares=True,
    crops=True,
    uses=_DINO,
    small=_SMALL_DINO,
  ),
  'entrec_cont': Kind(
    'EntRec, continuous',
    'entropy_reconstruction',
    compares=True,
    uses=('er_alpha', *_ER),
  ),
  'entrec_disc': Kind(
    'EntRec, discrete',
    'entropy_reconstruction',
    compares=True,
    small={'proj_head_output_bn': True},
  ),
  'stochcon_bernoulli': Kind(
    'StochCon with bits',
    'stochcon',
    compares=True,
    uses=(
      *_LATENT,
      *('latent_top_k', 'latent_estimator'),
      *('latent_temperature', 'latent_temperature_end'),
    ),
  ),
  'stochcon_gaussian': Kind(
    'StochCon with Gaussians',
    'stochcon',
    compares=True,
    uses=(*_LATENT, 'latent_variance', 'latent_scale', 'latent_std'),
  ),
}
# The flags that are read by some methods alone.
OWN_FLAGS = tuple(
  dict.fromkeys(flag for kind in KINDS.values() for flag in kind.uses)
)


def using(flag):
  """The methods that read a flag which not all do, in the table's order."""
  return tuple(name for name, kind in KINDS.items() if flag in kind.uses)


def has_teacher(name):
  """Whether a method has a target network, the EMA of the online one."""
  return 'use_momentum_encoder' in KINDS[name].switches
