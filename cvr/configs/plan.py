"""What follows from settings, a data set and the replicas, as one value.

It is made once, where a run or an evaluation begins, and handed down: nothing
below asks the settings again how many steps, chunks or views there are.
"""

import dataclasses

from cvr.configs import derived
from cvr.configs.config import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """The numbers of a run."""

  cfg: Config
  examples: int | None  # of the training split; None where unknown
  classes: int  # 0 without labels
  replicas: int
  # In steps.
  total: int
  warmup: int
  checkpoint_every: int
  queue_from: int  # where SwAV begins to use its queue
  # Of a replica's batch.
  rows: int
  chunks: int  # the parts in which it comes
  # Learning rates at this batch size.
  start_rate: float
  peak_rate: float
  final_rate: float
  views: int
  recipe: derived.Augmentation
  stem: str
  view_pair: tuple  # what each of two networks sees; () where there is one
  centres: bool  # whether the logits of DINO's teacher are centred


def make_plan(cfg, examples, classes, replicas):
  """-> the Plan of a run.

  examples: None for a model that is only read, whose run is not known. Then
  schedules have one step.
  """
  known = examples is not None
  return Plan(
    cfg=cfg,
    examples=examples,
    classes=classes,
    replicas=replicas,
    total=derived.train_steps(cfg, examples) if known else 1,
    warmup=derived.warmup_steps(cfg, examples) if known else 0,
    checkpoint_every=derived.checkpoint_steps(cfg, examples or 1),
    queue_from=derived.queue_start_step(cfg, examples or 0),
    rows=cfg.train_batch_size // replicas,
    chunks=derived.chunks(cfg, replicas),
    start_rate=derived.scaled_learning_rate(cfg, 'warmup_learning_rate'),
    peak_rate=derived.scaled_learning_rate(cfg),
    final_rate=derived.scaled_learning_rate(cfg, 'final_learning_rate'),
    views=derived.num_views(cfg),
    recipe=derived.augmentation(cfg),
    stem=derived.stem(cfg),
    view_pair=derived.view_pair(cfg),
    centres=derived.centres(cfg),
  )
