"""The recipes: `python run.py --preset=NAME` should reach the number it names.

Flags typed beside a preset win over it. A Python table, laid out by hand: name
-> (one line about it, the flags that it sets).
"""

# fmt: off

_IMAGENET = {'dataset': 'imagenet2012', 'image_size': 224, 'resnet_depth': 50,
             'train_batch_size': 4096}
_300_EPOCHS = {'train_epochs': 300, 'weight_decay': 1e-6}
_400_EPOCHS = {'train_epochs': 400, 'weight_decay': 1e-6}
_1000_EPOCHS = {'train_epochs': 1000, 'weight_decay': 1.5e-6}
_BYOL_300 = _300_EPOCHS | {'ema_alpha': 0.99, 'byol_loss_weight': 5.0}
_BYOL_1000 = _1000_EPOCHS | {'ema_alpha': 0.996, 'byol_loss_weight': 2.0}

_SIMCLR = {'pretrain_loss': 'contrastive', 'temperature': 0.1}
_CSIMCLR = {'pretrain_loss': 'contrastive_ceb', 'kappa_e': 1024.0,
            'kappa_b': 10.0, 'ceb_beta': 1.0}
_BYOL = {'pretrain_loss': 'byol'}
_ER_BYOL = {'pretrain_loss': 'er_byol', 'er_kappa': 10.0}
_BERNOULLI = {'pretrain_loss': 'stochcon_bernoulli'}
_GAUSSIAN = {'pretrain_loss': 'stochcon_gaussian'}
_CBYOL = {'pretrain_loss': 'byol_ceb', 'kappa_e': 16384.0, 'kappa_b': 10.0,
          'ceb_beta': 1.0}

_CIFAR10 = {'dataset': 'cifar10', 'image_size': 32, 'resnet_depth': 18,
            'shortcut': 'torchvision', 'train_epochs': 1000,
            'train_batch_size': 256, 'brightness_fn': 'simclrv2'}
_SOLO = {'lars_eta': 0.02, 'lars_clip': True, 'proj_out_dim': 256}
_SOLO_SIMCLR = _SOLO | {
  'learning_rate': 0.4, 'weight_decay': 1e-4, 'proj_head_hidden_dim': 2048,
  'color_jitter_brightness': 0.8, 'color_jitter_contrast': 0.8,
  'color_jitter_saturation': 0.8, 'color_jitter_hue': 0.2,
  'blur_probability': '0.5,0.5', 'solarize_probability': '0,0'}
_SOLO_BYOL = _SOLO | {
  'learning_rate': 1.0, 'weight_decay': 1e-5, 'proj_head_hidden_dim': 4096,
  'ema_alpha': 0.99, 'use_blur': False, 'solarize_probability': '0,0.2'}

_SIMCLR_CIFAR = {
  'temperature': 0.5, 'learning_rate': 1.0, 'weight_decay': 1e-4,
  'proj_out_dim': 128, 'proj_head_output_bn': True, 'mlp_init': 'simclr',
  'batch_image_augmentation_type': 'simclr', 'use_blur': False,
  'bbox_sampling': 'uniform', 'color_jitter_brightness': 0.4,
  'color_jitter_contrast': 0.4, 'color_jitter_saturation': 0.4,
  'color_jitter_hue': 0.1}
# Of the poster only the network is known; the rest is SimCLR's for CIFAR-10.
_STOCHCON_CIFAR = _CIFAR10 | _SIMCLR_CIFAR | {
  'resnet_depth': 50, 'shortcut': 'published', 'train_batch_size': 1024,
  'proj_head_hidden_dim': 2048}

# Views of recipes, for presets to build on. MoCo v2 and SimSiam share theirs.
MOCO_V2_VIEWS = {
  'area_range_lower_bound': 0.2, 'color_jitter_probability': 0.8,
  'color_jitter_brightness': 0.4, 'color_jitter_contrast': 0.4,
  'color_jitter_saturation': 0.4, 'color_jitter_hue': 0.1,
  'brightness_fn': 'simclrv2', 'grayscale_probability': 0.2,
  'blur_probability': '0.5,0.5', 'solarize_probability': '0,0'}
# SimCLR's, on pixels that are normalized: those of SwAV and DeepCluster-v2.
SWAV_VIEWS = {
  'color_jitter_brightness': 0.8, 'color_jitter_contrast': 0.8,
  'color_jitter_saturation': 0.8, 'color_jitter_hue': 0.2,
  'brightness_fn': 'simclrv2', 'blur_probability': '0.5,0.5',
  'solarize_probability': '0,0'}
# The colours of InfoMin, with SimCLR's strengths: its own could not be checked.
# RandAugment and the jigsaw branch, which it has too, are not here.
INFOMIN_VIEWS = MOCO_V2_VIEWS | {
  'color_jitter_brightness': 0.8, 'color_jitter_contrast': 0.8,
  'color_jitter_saturation': 0.8, 'color_jitter_hue': 0.2}

# SGD, 256 images, no warm-up; its head has no batch norm.
_MOCO = MOCO_V2_VIEWS | {
  'dataset': 'imagenet2012', 'image_size': 224, 'resnet_depth': 50,
  'pretrain_loss': 'moco', 'temperature': 0.2, 'queue_size': 65536,
  'ema_alpha': 0.999, 'ema_schedule': 'constant', 'proj_head_hidden': 'relu',
  'proj_head_hidden_dim': 2048, 'proj_out_dim': 128, 'train_batch_size': 256,
  'optimizer': 'momentum', 'momentum_nesterov': False, 'learning_rate': 0.03,
  'weight_decay': 1e-4, 'warmup_epochs': 0.0}
# Of the colours only: a grey image would leave one of the networks blind.
_CMC_VIEWS = {
  'area_range_lower_bound': 0.2, 'color_jitter_probability': 0.0,
  'grayscale_probability': 0.0, 'use_blur': False,
  'solarize_probability': '0,0'}
_CMC = {'pretrain_loss': 'cmc', 'view_pairs': 'lab_l,lab_ab',
        'temperature': 0.07, 'proj_out_dim': 128}
_DINO = {'pretrain_loss': 'dino', 'num_proj_layers': 3,
         'proj_head_hidden': 'gelu', 'proj_head_hidden_dim': 2048,
         'brightness_fn': 'simclrv2', 'teacher_temperature': 0.07,
         'teacher_temperature_warmup_epochs': 30.0}
# 1251 steps are the first epoch. Rates are for a batch of 256, the final one
# too: it comes to DINO's 1e-6.
_DINO_IMAGENET = _DINO | {
  'dataset': 'imagenet2012', 'train_batch_size': 1024, 'train_epochs': 100,
  'num_prototypes': 65536, 'freeze_prototypes_steps': 1251,
  'ema_alpha': 0.996, 'final_learning_rate': 2.5e-7, 'clip_norm': 3.0,
  'local_crops': 8}
_SOLO_DINO = _DINO | {
  'learning_rate': 0.3, 'weight_decay': 1e-6, 'ema_alpha': 0.9995,
  'num_prototypes': 4096, 'freeze_prototypes_steps': 196}
_SIMSIAM = MOCO_V2_VIEWS | {
  'pretrain_loss': 'simsiam', 'num_proj_layers': 3,
  'proj_head_hidden_dim': 2048, 'proj_out_dim': 2048,
  'proj_head_output_bn': True, 'optimizer': 'momentum',
  'momentum_nesterov': False, 'constant_predictor_rate': True}
_VICREG = {'pretrain_loss': 'vicreg', 'num_proj_layers': 3}
# Prototypes are frozen in the first epoch, 313 steps at batch 4096. LARC adapts
# biases and batch norm too, LARS does not.
_SWAV_HEAD = {'proj_head_hidden_dim': 2048, 'proj_out_dim': 128,
              'num_prototypes': 3000, 'temperature': 0.1, 'weight_decay': 1e-6}
_SWAV_RUN = _IMAGENET | SWAV_VIEWS | _SWAV_HEAD | {
  'train_epochs': 400, 'learning_rate': 0.3, 'final_learning_rate': 0.0003,
  'warmup_learning_rate': 0.01875, 'lars_eta': 1e-3, 'lars_clip': False}
_SWAV = {'pretrain_loss': 'swav', 'sinkhorn_epsilon': 0.05,
         'sinkhorn_iterations': 3}
_SWAV_QUEUE = {'queue_size': 3840, 'queue_start': 15.0}
_SIX_LOCAL = {'local_crops': 6, 'local_size': 96, 'local_area': '0.05,0.14',
              'area_range_lower_bound': 0.14}
_DEEPCLUSTER = {'pretrain_loss': 'deepcluster', 'num_heads': 3,
                'kmeans_iterations': 10}
# solo-learn gives no views and widths: these are cifar10_simclr's and SwAV's.
_SOLO_SWAV = _CIFAR10 | SWAV_VIEWS | _SWAV_HEAD | {
  'learning_rate': 0.6, 'lars_eta': 0.02, 'lars_clip': True}

PRESETS = {
  'simclr_300epochs': (
    'SimCLR, ResNet-50: 67.9 to 69.2% top-1 (reported in the BYOL paper)',
    _IMAGENET | _300_EPOCHS | _SIMCLR | {'learning_rate': 0.3}),
  'simclr_1000epochs': (
    'SimCLR, ResNet-50: 71.1% top-1, online probe (published README)',
    _IMAGENET | _1000_EPOCHS | _SIMCLR | {'learning_rate': 0.2}),
  'csimclr_300epochs': (
    'C-SimCLR, ResNet-50: no number was published for 300 epochs',
    _IMAGENET | _300_EPOCHS | _CSIMCLR | {'learning_rate': 0.3}),
  'csimclr_1000epochs': (
    'C-SimCLR, ResNet-50: 71.8% top-1, online probe (published README)',
    _IMAGENET | _1000_EPOCHS | _CSIMCLR | {'learning_rate': 0.2}),
  'byol_300epochs': (
    'BYOL, ResNet-50: 72.5% top-1 (BYOL paper)',
    _IMAGENET | _BYOL_300 | _BYOL | {'learning_rate': 0.3}),
  'byol_1000epochs': (
    'BYOL, ResNet-50: 74.4% top-1, online probe (published README)',
    _IMAGENET | _BYOL_1000 | _BYOL | {'learning_rate': 0.2}),
  'cbyol_300epochs': (
    'C-BYOL, ResNet-50: no number was published for 300 epochs',
    _IMAGENET | _BYOL_300 | _CBYOL | {'learning_rate': 0.35}),
  'cbyol_1000epochs': (
    'C-BYOL, ResNet-50: 75.9% top-1, online probe (published README)',
    _IMAGENET | _BYOL_1000 | _CBYOL | {'learning_rate': 0.25}),
  'moco': (
    'MoCo v2, ResNet-50, 200 epochs: 67.5% top-1 (MoCo README)',
    _MOCO | {'train_epochs': 200}),
  'moco_800epochs': (
    'MoCo v2, ResNet-50: 71.1% top-1 (MoCo README)',
    _MOCO | {'train_epochs': 800}),
  'infomin': (
    'The colours and temperature of InfoMin on MoCo v2, 200 epochs, without '
    'its RandAugment and jigsaw: no number was published',
    _MOCO | INFOMIN_VIEWS | {'temperature': 0.15, 'train_epochs': 200}),
  'cmc': (
    'CMC, two ResNet-50 on L and ab, 240 epochs: negatives from a large batch, '
    'not from a memory: ours, not from a paper',
    _IMAGENET | _CMC | _CMC_VIEWS | {
      'train_epochs': 240, 'weight_decay': 1e-6, 'proj_head_mode': 'linear'}),
  'cmc_400epochs': (
    'CMC, two ResNet-50 on a view each: 69.1% top-1 (EntRec, Table 1; its '
    'settings are not fully known; these are those of SimCLR)',
    _IMAGENET | _CMC | {
      'train_epochs': 400, 'weight_decay': 1e-6, 'view_pairs': 'rgb,rgb'}),
  'swav': (
    'SwAV, ResNet-50, two crops, 400 epochs: 70.1% top-1 (from memory)',
    _SWAV_RUN | _SWAV | {'freeze_prototypes_steps': 313}),
  'swav_256': (
    'SwAV, ResNet-50, 8 crops, batch 256, 400 epochs: 74.3% top-1 (from '
    'memory)',
    _SWAV_RUN | _SWAV | _SWAV_QUEUE | _SIX_LOCAL | {
      'train_batch_size': 256, 'learning_rate': 0.6, 'warmup_epochs': 0.0,
      'final_learning_rate': 0.0006, 'warmup_learning_rate': 0.0,
      'freeze_prototypes_steps': 5005}),
  'deepcluster': (
    'DeepCluster-v2, ResNet-50, two crops, 400 epochs: 70.2% top-1 (from '
    'memory)',
    _SWAV_RUN | _DEEPCLUSTER),
  'simsiam': (
    'SimSiam, ResNet-50, 100 epochs: 68.1% top-1 (SimSiam README; the learning '
    'rate is scaled to the batch, as in the paper)',
    _SIMSIAM | {
      'dataset': 'imagenet2012', 'train_batch_size': 512, 'train_epochs': 100,
      'learning_rate': 0.05, 'warmup_epochs': 0.0, 'weight_decay': 1e-4}),
  'vicreg': (
    'VICReg, ResNet-50, 1000 epochs: 73.2% top-1 (VICReg paper; number and '
    'settings from memory)',
    _IMAGENET | _VICREG | {
      'train_batch_size': 2048, 'train_epochs': 1000, 'weight_decay': 1e-6,
      'learning_rate': 0.2, 'final_learning_rate': 0.002 / 8,
      'proj_head_hidden_dim': 8192, 'proj_out_dim': 8192,
      'blur_probability': '0.5,0.5', 'solarize_probability': '0.1,0.1'}),
  'dino': (
    "DINO with AdamW and 8 local crops, ResNet-50, 100 epochs: DINO's default "
    'settings; no number was published for this network',
    _DINO_IMAGENET | {
      'optimizer': 'adamw', 'learning_rate': 5e-4, 'weight_decay': 0.04,
      'final_weight_decay': 0.4, 'area_range_lower_bound': 0.4,
      'local_area': '0.05,0.4'}),
  'dino_sgd': (
    'DINO with SGD and 8 local crops, ResNet-50, 100 epochs: its final '
    'model, trained for longer, has 75.3% linear (DINO README)',
    _DINO_IMAGENET | {
      'optimizer': 'momentum', 'momentum_nesterov': False,
      'learning_rate': 0.03, 'weight_decay': 1e-4,
      'area_range_lower_bound': 0.14, 'local_area': '0.05,0.14'}),
  'er_simclr': (
    'ER on SimCLR, ResNet-50, 400 epochs: published, but not verified here',
    _IMAGENET | _400_EPOCHS | {
      'pretrain_loss': 'er_simclr', 'er_kappa': 10.0, 'learning_rate': 0.3}),
  'er_byol': (
    'ER on BYOL, ResNet-50, 400 epochs: published, but not verified here',
    _IMAGENET | _400_EPOCHS | _ER_BYOL | {
      'ema_alpha': 0.99, 'learning_rate': 0.3}),
  'er_dino': (
    'ER on DINO, ResNet-50, 400 epochs: published, but not verified here',
    _DINO_IMAGENET | {
      'pretrain_loss': 'er_dino', 'train_epochs': 400, 'optimizer': 'adamw',
      'learning_rate': 5e-4, 'weight_decay': 0.04, 'final_weight_decay': 0.4,
      'area_range_lower_bound': 0.4, 'local_area': '0.05,0.4'}),
  'entrec_cont': (
    'EntRec, continuous, ResNet-50, 400 epochs: 69.7% top-1 (EntRec, table 1)',
    _IMAGENET | _400_EPOCHS | {
      'pretrain_loss': 'entrec_cont', 'er_kappa': 10.0, 'learning_rate': 0.3}),
  'entrec_disc': (
    'EntRec, discrete, ResNet-50, 400 epochs: 66.9% top-1 (EntRec, table 1)',
    _IMAGENET | _400_EPOCHS | {
      'pretrain_loss': 'entrec_disc', 'learning_rate': 0.3}),
  'stochcon_bernoulli': (
    'StochCon with 2048 bits, ResNet-50: 67.00% top-1, frozen (poster; its '
    'settings are not known; these are those of SimCLR)',
    _IMAGENET | _1000_EPOCHS | _BERNOULLI | {
      'learning_rate': 0.2, 'proj_out_dim': 128}),
  'stochcon_gaussian': (
    'StochCon with an isotropic Gaussian, ResNet-50: no number was published',
    _IMAGENET | _1000_EPOCHS | _GAUSSIAN | {
      'learning_rate': 0.2, 'proj_out_dim': 128}),
  'cifar10_simclr': (
    'SimCLR, ResNet-18, 1000 epochs: 90.74% (solo-learn, with its own probe)',
    _CIFAR10 | _SOLO_SIMCLR | _SIMCLR | {'temperature': 0.2}),
  'cifar10_simclr_repo': (
    'SimCLR, ResNet-18, 1000 epochs: about 91% (SimCLR README)',
    _CIFAR10 | _SIMCLR | _SIMCLR_CIFAR | {
      'train_batch_size': 512, 'num_proj_layers': 3,
      'proj_head_hidden_dim': 512, 'shortcut': 'published'}),
  'cifar10_csimclr': (
    'C-SimCLR with the settings of cifar10_simclr: ours, not from a paper',
    _CIFAR10 | _SOLO_SIMCLR | _CSIMCLR | {'kappa_b': 5.0}),
  'cifar10_byol': (
    'BYOL, ResNet-18, 1000 epochs: 92.58% (solo-learn, with its own probe)',
    _CIFAR10 | _SOLO_BYOL | _BYOL | {'byol_loss_weight': 1.0}),
  'cifar10_cbyol': (
    'C-BYOL with the settings of cifar10_byol: ours, not from a paper',
    _CIFAR10 | _SOLO_BYOL | _CBYOL | {'byol_loss_weight': 2.0}),
  'cifar10_moco': (
    'MoCo v2, ResNet-18, 1000 epochs: 92.94% (solo-learn, its MoCoV2+ with its '
    'own probe; its views, head and EMA partly differ)',
    _CIFAR10 | _MOCO | {
      'dataset': 'cifar10', 'image_size': 32, 'resnet_depth': 18,
      'learning_rate': 0.3, 'queue_size': 32768, 'proj_out_dim': 256,
      'ema_alpha': 0.99, 'blur_probability': '0,0', 'warmup_epochs': 10.0}),
  'cifar10_cmc': (
    'CMC on L and ab with the settings of cifar10_simclr: ours, not from a '
    'paper',
    _CIFAR10 | _SOLO_SIMCLR | _CMC_VIEWS | _CMC | {'blur_probability': ''}),
  'cifar10_swav': (
    'SwAV, ResNet-18, 1000 epochs: 89.17% (solo-learn, with its own probe)',
    _SOLO_SWAV | _SWAV | _SWAV_QUEUE | {'freeze_prototypes_steps': 195}),
  'cifar10_deepcluster': (
    'DeepCluster-v2, ResNet-18, 1000 epochs: 88.85% (solo-learn, own probe)',
    _SOLO_SWAV | _DEEPCLUSTER),
  'cifar10_simsiam': (
    'SimSiam, ResNet-18, 1000 epochs: 90.51% (solo-learn, with its own probe)',
    _CIFAR10 | _SIMSIAM | {
      'learning_rate': 0.5, 'weight_decay': 1e-5,
      'blur_probability': '0,0'}),
  'cifar10_vicreg': (
    'VICReg, ResNet-18, 1000 epochs: 92.07% (solo-learn, with its own probe)',
    _CIFAR10 | _SOLO | _VICREG | {
      'learning_rate': 0.3, 'weight_decay': 1e-4,
      'proj_head_hidden_dim': 2048, 'proj_out_dim': 2048,
      'use_blur': False, 'solarize_probability': '0.1,0.1'}),
  'cifar10_dino': (
    'DINO, ResNet-18, 1000 epochs: 89.52% (solo-learn, with its own probe); '
    'the views are those of cifar10_byol',
    _CIFAR10 | _SOLO_BYOL | _SOLO_DINO),
  'cifar10_er_simclr': (
    'ER with the settings of cifar10_simclr: ours, not from a paper',
    _CIFAR10 | _SOLO_SIMCLR | {'pretrain_loss': 'er_simclr', 'er_kappa': 5.0}),
  'cifar10_er_byol': (
    'ER with the settings of cifar10_byol: ours, not from a paper',
    _CIFAR10 | _SOLO_BYOL | _ER_BYOL),
  'cifar10_er_dino': (
    'ER with the settings of cifar10_dino: ours, not from a paper',
    _CIFAR10 | _SOLO_BYOL | _SOLO_DINO | {'pretrain_loss': 'er_dino'}),
  'cifar10_entrec_cont': (
    'EntRec with the settings of cifar10_simclr: ours, not from a paper',
    _CIFAR10 | _SOLO_SIMCLR | {
      'pretrain_loss': 'entrec_cont', 'er_kappa': 5.0}),
  'cifar10_entrec_disc': (
    'EntRec with the settings of cifar10_simclr: ours, not from a paper',
    _CIFAR10 | _SOLO_SIMCLR | {'pretrain_loss': 'entrec_disc'}),
  'cifar10_stochcon_bernoulli': (
    'StochCon with 2048 bits, ResNet-50, 1000 epochs: 91.96% top-1, frozen '
    '(poster; settings as in SimCLR on CIFAR-10)',
    _STOCHCON_CIFAR | _BERNOULLI),
  'cifar10_stochcon_gaussian': (
    'StochCon with an isotropic Gaussian, ResNet-50, 1000 epochs: 92.40% '
    'top-1, frozen (poster; settings as in SimCLR on CIFAR-10)',
    _STOCHCON_CIFAR | _GAUSSIAN),
  'quickstart': (
    'C-SimCLR on patches of photographs: minutes on a CPU, no download',
    _CSIMCLR | {
      'dataset': 'photo_patches/32px', 'eval_split': 'test', 'image_size': 32,
      'stem': 'small', 'resnet_depth': 18, 'shortcut': 'torchvision',
      'train_batch_size': 256,
      'train_steps': 250, 'warmup_epochs': 1.0, 'learning_rate': 0.5,
      'kappa_e': 1024.0, 'ceb_beta': 0.1, 'beta_schedule': 'linear_warmup',
      'proj_head_hidden_dim': 512, 'proj_out_dim': 128,
      'checkpoint_steps': 1000, 'use_tpu': False}),
}
for _name in ('simclr', 'csimclr', 'byol', 'cbyol'):
  _long = f'{_name}_300epochs'
  PRESETS[_name] = (f'Short for {_long}', PRESETS[_long][1])

# fmt: on
