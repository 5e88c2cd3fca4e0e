"""METHODS: what each way of learning does with a batch of views.

A method is a small class of contrastive.py, distillation.py, ... that says how
its parts are wired, on one of the skeletons of skeletons.py. What is known of
it without TensorFlow is its row in cvr/configs/methods.py. The train step
(cvr/training/step.py) calls

  encode(views, draw) -> named embeddings, a row for every pair of views. draw
    counts the chunks of all steps, so that no two chunks get the same noise;
    step_of(draw) is the step
  objective(embeddings, step) -> Output(loss, metrics, features, carry). The
    embeddings have 'index', int64 [b], too: which examples they are of
  begin(): makes copies of trained layers, at the start and of loaded ones
  trained() -> the layers that get gradients
  held(step) -> those of them that do not move yet: they have gradients, which
    count in grad_norm and --clip_norm, but values and momentum are put back
  steady() -> those of them whose learning rate stays at its peak
  after_update(step, carry): moves what has no gradients (EMA twins, queues,
    centres), once per step, after the optimizer
  on_epoch(epoch): called before the first step of an epoch
  observe(embeddings): gets every example once before step 0, if
    needs_first_pass

and evaluation, watch and health

  embed(images) -> {'representation', 'projection', 'layers'}
  predict_mean(projection) -> the prediction, of methods that have one
  chance() -> {metric: its value where all images look alike}
  rate(embedded, views) -> I(X;Z|Y) [b], of methods with encoders e and b
  probabilities(projection) -> [b, ..., K], of methods that assign rows
  latent: of stochastic methods; embed() then has its parameters, 'phi'

encode and objective are two calls because the gradient cache calls the first
one twice. All of them run on every replica. Variables without gradients are
made by replicas.mirrored(): each replica has a copy, and all assign the same.
"""

from cvr.methods.contrastive import CMC, CSimCLR, MoCo, SimCLR
from cvr.methods.decorrelation import VICReg
from cvr.methods.distillation import BYOL, CBYOL, DINO, SimSiam
from cvr.methods.entropy_reconstruction import (
  ERBYOL,
  ERDINO,
  EntRecCont,
  EntRecDisc,
  ERSimCLR,
)
from cvr.methods.finetune import Finetune, FinetuneLatent
from cvr.methods.prototypes import DeepCluster, SwAV
from cvr.methods.stochcon import StochCon

METHODS = {
  'contrastive': SimCLR,
  'contrastive_ceb': CSimCLR,
  'byol': BYOL,
  'byol_ceb': CBYOL,
  'moco': MoCo,
  'cmc': CMC,
  'swav': SwAV,
  'deepcluster': DeepCluster,
  'simsiam': SimSiam,
  'vicreg': VICReg,
  'dino': DINO,
  'er_simclr': ERSimCLR,
  'er_byol': ERBYOL,
  'er_dino': ERDINO,
  'entrec_cont': EntRecCont,
  'entrec_disc': EntRecDisc,
  'stochcon_bernoulli': StochCon,
  'stochcon_gaussian': StochCon,
}


def make_method(plan):
  """The method of a run, its variables built. Call it inside the scope."""
  cfg = plan.cfg
  kind = METHODS[cfg.pretrain_loss]
  if cfg.train_mode == 'finetune':
    kind = FinetuneLatent if cfg.probe_latent else Finetune
  method = kind(plan)
  method.build(cfg.image_size)
  return method
