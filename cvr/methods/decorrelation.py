"""Decorrelation: VICReg, which needs neither negatives nor a teacher."""

import objectives
from cvr.methods.skeletons import Output, Siamese


class VICReg(Siamese):
  """Invariance, variance and covariance (Bardes et al., 2022, eq. 6).

  loss = lambda s(z1, z2) + mu (v(z1) + v(z2)) + nu (c(z1) + c(z2)), variance
  and covariance over the rows of all replicas. s is the mean over rows and
  dimensions, as in the paper's algorithm 1. The projector is its expander.
  """

  # lambda, mu and nu.
  INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0

  def location(self, projection):
    return projection

  def objective(self, embeddings, step):
    del step
    z1, z2 = embeddings['projection']
    rows1, rows2, _ = self.keys(z1, z2)
    invariance = objectives.invariance(z1, z2)
    variance = sum(map(objectives.variance_hinge, (rows1, rows2)))
    covariance = sum(map(objectives.covariance_penalty, (rows1, rows2)))
    loss = (
      self.INVARIANCE * invariance
      + self.VARIANCE * variance
      + self.COVARIANCE * covariance
    )
    metrics = {
      'vicreg_loss': loss,
      'vicreg_invariance': invariance,
      'vicreg_variance': variance,
      'vicreg_covariance': covariance,
    }
    return Output(loss, metrics, self.features(embeddings))
