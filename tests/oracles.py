"""Independent float64 transcriptions of the papers' equations, in dumb loops.

Nothing here is shared with the code under test.
"""

import mpmath
import numpy as np


def fixture(dim):
  """-> h1, h2 [4, dim]: unit rows of a fixed formula, and the raw [8, dim]."""
  i, j = np.arange(8.0)[:, None], np.arange(float(dim))[None]
  h = np.sin(0.37 * (i + 1) * (j + 1)) + 0.1 * np.cos(1.3 * (i + 2) + j)
  unit = h / np.linalg.norm(h, axis=1, keepdims=True)
  return unit[:4], unit[4:], h


def unit_rows(rng, rows, dim):
  """[rows, dim] uniform on the sphere."""
  x = rng.normal(size=(rows, dim))
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def log_vmf(z, mu, kappa):
  """log vMF(z; mu, kappa) of one point, the normaliser with 40 digits."""
  dim = len(z)
  with mpmath.workdps(40):
    order, kappa_ = mpmath.mpf(dim) / 2 - 1, mpmath.mpf(kappa)
    log_c = (
      order * mpmath.log(kappa_)
      - (order + 1) * mpmath.log(2 * mpmath.pi)
      - mpmath.log(mpmath.besseli(order, kappa_))
    )
  return float(log_c) + kappa * float(np.dot(z, mu))


def log_gaussian(z, mu, sigma):
  """log N(z; mu, sigma^2 I) of one point."""
  scaled = (z - mu) / sigma
  return float(
    -0.5 * scaled @ scaled - len(z) * (np.log(sigma) + 0.5 * np.log(2 * np.pi))
  )


def log_softmax_at(logits, k):
  """log softmax(logits)[k]."""
  logits = np.asarray(logits, float)
  top = logits.max()
  return logits[k] - top - np.log(np.exp(logits - top).sum())


def cross_entropies(log_b, z, other, same=None):
  """[b]: -log of the probability of the partner among all candidates."""
  out = []
  for i in range(len(z)):
    logits = [log_b(z[i], other[j]) for j in range(len(other))]
    if same is not None:
      logits += [log_b(z[i], same[j]) for j in range(len(same)) if j != i]
    out.append(-log_softmax_at(logits, i))
  return np.array(out)


def nt_xent(h1, h2, temperature):
  """SimCLR's loss as the sum of the two directions, mean over the batch."""

  def similarity(a, b):
    return a @ b / temperature

  first = cross_entropies(similarity, h1, h2, h1).mean()
  second = cross_entropies(similarity, h2, h1, h2).mean()
  return first, second


def c_simclr(h1, h2, z1, z2, log_e, log_b, beta, double=True):
  """-> loss and its terms, both directions, of contrastive CEB."""
  terms = {}
  candidates = 2 * len(h1) - 1 if double else len(h1)
  loss = 0.0
  for name, z, mu, other in (('1', z1, h1, h2), ('2', z2, h2, h1)):
    rate = np.mean(
      [log_e(z[i], mu[i]) - log_b(z[i], other[i]) for i in range(len(z))]
    )
    same = mu if double else None
    relevant = (
      np.log(candidates) - cross_entropies(log_b, z, other, same).mean()
    )
    terms |= {'rate' + name: rate, 'relevant' + name: relevant}
    loss += beta * rate - relevant
  return loss, terms


def byol(p1, p2, y1, y2, weight):
  """w (||l2n(p1) - l2n(y2)||^2 + ||l2n(p2) - l2n(y1)||^2), batch mean."""
  total = 0.0
  for p, y in ((p1, y2), (p2, y1)):
    for a, b in zip(p, y, strict=True):
      difference = a / np.linalg.norm(a) - b / np.linalg.norm(b)
      total += weight * difference @ difference / len(p)
  return total


def finite_difference(function, x, eps=1e-5):
  """The gradient of a scalar function of a float64 array, entry by entry."""
  gradient = np.zeros_like(x)
  for k in np.ndindex(*x.shape):
    up, down = x.copy(), x.copy()
    up[k] += eps
    down[k] -= eps
    gradient[k] = (function(up) - function(down)) / (2 * eps)
  return gradient
