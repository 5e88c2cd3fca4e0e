"""METHODS: what each way of learning does with a batch of views.

A method is a row of the table at the end: a small class of contrastive.py,
distillation.py, ... that says how its parts are wired, on one of the skeletons
of skeletons.py. What train.py asks of a method:

  encode(views, step) -> named embeddings, a row for every pair of views; where
    a step's batch comes in chunks, step counts chunks, lest noise repeats
  objective(embeddings, step) -> Output(loss, metrics, features, carry). Among
    the embeddings is then 'index', int64 [b]: which examples they are of
  begin(): copies of trained layers are made, at first and of loaded ones
  trained() -> the layers that get gradients
  held(step) -> those of them that do not move yet
  steady() -> those of them whose learning rate stays at its peak
  after_update(step, carry): what moves without gradients (EMA twins, queues,
    centres), once per step, after the optimizer
  on_epoch(epoch): what is done before the first step of an epoch
  observe(embeddings): every example once before step 0, if needs_first_pass
  embed(images) -> {'representation', 'projection', 'layers'} at evaluation
  predict_mean(projection) -> the prediction, of methods that have one
  chance() -> {name of a metric: its value where nothing is told apart}
  rate(embedded, views) -> I(X;Z|Y) [b], of methods that have encoders e and b
  probabilities(projection) -> [b, ..., K], of methods that assign rows
  latent: of those whose embed() has its parameters too, as 'phi' (latents.py)

Two calls for the loss, because whoever re-uses embeddings needs them apart. All
of them run on every replica. What is not trained is made by
distributed.mirrored(): each replica has a copy, and assigns the same to it.
"""

from cvr.methods.contrastive import CMC, CSimCLR, MoCo, SimCLR
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
