"""What the tags of metrics.jsonl are called for readers, in a page's order.

A chart: (tag, its title, the unit of y, what it says in a sentence). A tag that
is not here is shown at the end under its own words.
"""

from typing import NamedTuple


class Metric(NamedTuple):
  """How a metric is shown."""

  title: str
  unit: str = ''
  says: str = ''
  percent: bool = False
  floor: float | None = None


_PERCENT = {'unit': '%', 'percent': True, 'floor': 0.0}

# The charts that are always open.
MAIN = {
  'train/total_loss': Metric(
    'Training loss', '', 'With the parts of the probe and of weight decay.'
  ),
  'train/supervised_acc': Metric(
    'Accuracy of the linear probe', says='On augmented training images.',
    **_PERCENT,
  ),
  'health/effective_rank': Metric(
    'Directions that representations fill', 'effective rank',
    'Of held-out images. Near 1: collapsed.', floor=0.0,
  ),
  'health/feature_std': Metric(
    'Spread of projections', '',
    '1: spread over the sphere. 0: all images at one point.', floor=0.0,
  ),
  'health/alignment': Metric(
    'Distance of two views', '', '0: alike. 2: unrelated.', floor=0.0
  ),
  'learning_rate': Metric('Learning rate', floor=0.0),
}  # fmt: skip
# Those beside the information plane.
INFORMATION = {
  'information/infonce_bound': Metric(
    'What two views share, I(Y;Z)', 'nats',
    'A lower bound, of held-out images. Higher: views of one image are found '
    'among those of others.', floor=0.0,
  ),
  'information/residual': Metric(
    'What only one view knows, I(X;Z|Y)', 'nats',
    'The residual information, above its value for views that agree. '
    'Compression holds it down.',
  ),
}  # fmt: skip
# The charts behind "all other curves".
MORE = {
  'train/contrast_acc': Metric(
    'The other view is the most similar', says='Share of images in a batch.',
    **_PERCENT,
  ),
  'train/contrast_loss': Metric('Contrastive loss', 'nats'),
  'train/contrast_entropy': Metric('Entropy of the softmax', 'nats'),
  'train/byol_loss': Metric('Distance from prediction to target'),
  'train/simsiam_loss': Metric('Distance from prediction to projection'),
  'train/dino_loss': Metric('Cross entropy of teacher and student', 'nats'),
  'train/swav_loss': Metric('Cross entropy of assignments', 'nats'),
  'train/cluster_loss': Metric('Cross entropy of clusters', 'nats'),
  'train/cluster_acc': Metric('The own cluster is found', **_PERCENT),
  'train/vicreg_loss': Metric('VICReg loss'),
  'train/vicreg_invariance': Metric('VICReg: distance of the views'),
  'train/vicreg_variance': Metric('VICReg: variance that is missing'),
  'train/vicreg_covariance': Metric('VICReg: covariance'),
  'train/er_bound': Metric('Entropy less reconstruction', 'nats'),
  'train/er_entropy': Metric('Entropy in the loss', 'nats'),
  'train/er_reconstruction': Metric('Reconstruction in the loss', 'nats'),
  'train/i_xzx_y': Metric('Rate I(X;Z|Y), view 1', 'nats'),
  'train/i_yzy_x': Metric('Rate I(X;Z|Y), view 2', 'nats'),
  'train/i_y_zx': Metric('Relevant information I(Y;Z), view 1', 'nats'),
  'train/i_x_zy': Metric('Relevant information I(Y;Z), view 2', 'nats'),
  'train/h_e_zx_x': Metric('Entropy of the forward encoder', 'nats'),
  'train/h_b_zx_y': Metric('Cross entropy of the backward encoder', 'nats'),
  'train/ceb_beta_log': Metric('Weight of the compression, beta', floor=0.0),
  'train/latent_kl': Metric('Rate of the latent', 'nats'),
  'train/latent_entropy': Metric('Entropy of the latent', 'nats'),
  'train/latent_ones': Metric('Bits that are 1', **_PERCENT),
  'train/latent_std': Metric('Deviation of the latent'),
  'train/latent_temperature': Metric('Temperature of the latent'),
  'train/teacher_entropy': Metric('Entropy of the teacher', 'nats'),
  'train/teacher_student_kl': Metric('Teacher against student', 'nats'),
  'train/teacher_temperature': Metric('Temperature of the teacher'),
  'train/prototype_entropy': Metric('Entropy of the prototypes', 'nats'),
  'train/prototypes_used': Metric('Prototypes in use'),
  'train/output_std': Metric('Deviation of the outputs'),
  'train/ema_alpha': Metric('Coefficient of the moving average'),
  'information/entropy': Metric('Entropy of projections', 'nats'),
  'information/reconstruction': Metric('Reconstruction', 'nats'),
  'information/er_bound': Metric('Entropy less reconstruction', 'nats'),
  'information/assignment_entropy': Metric('Entropy of assignments', 'nats'),
  'health/uniformity': Metric(
    'Uniformity', '', '0: one point. Near -4: uniform on the sphere.'
  ),
  'health/nonfinite_rows': Metric('Features that are no numbers', **_PERCENT),
  'train/supervised_loss': Metric('Loss of the linear probe', 'nats'),
  'eval/label_top_1_accuracy': Metric('Probe on held-out images', **_PERCENT),
  'eval/label_top_5_accuracy': Metric(
    'Probe on held-out images, top-5', **_PERCENT
  ),
  'train/grad_norm': Metric('Norm of the gradient', floor=0.0),
  'train/weight_norm': Metric('Norm of the weights'),
  'train/weight_decay': Metric('Weight decay, its part of the loss'),
  'train/images_per_second': Metric('Images a second', floor=0.0),
  'train/input_wait': Metric(
    'Time that steps waited for images', **_PERCENT
  ),
  'train/gpu_memory': Metric('Memory of the fullest GPU', 'GiB', floor=0.0),
  'train/bad_images': Metric('Images a step that cannot be decoded', floor=0.0),
}  # fmt: skip
# Not shown: their intervals are drawn, or they are constants.
HIDDEN = (
  'eval/label_top_1_low',
  'eval/label_top_1_high',
  'eval/regularization_loss',
  'eval/images',
  'eval/bad_images',
)


def of_tag(tag):
  """-> the Metric of a tag, which may be unknown."""
  known = (MAIN | INFORMATION | MORE).get(tag)
  if known:
    return known
  words = tag.removeprefix('train/').replace('_', ' ').replace('/', ': ')
  return Metric(words[:1].upper() + words[1:])


def ordered(tags):
  """Tags -> (those of the main charts, the others), without hidden ones."""
  tags = {*tags} - {*HIDDEN} - {*INFORMATION}
  main = [tag for tag in MAIN if tag in tags]
  more = [tag for tag in MORE if tag in tags]
  return main, more + sorted(tags - {*MAIN} - {*MORE})
