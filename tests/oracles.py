"""Independent float64 transcriptions of the papers' equations, in dumb loops.

Nothing here is shared with the code under test.
"""

import functools

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


@functools.cache
def _log_mass(dim, scale, alpha):
  """log of the integral of exp(-(|x| / scale)^alpha) over R^dim, in r."""
  mode = scale * (max(dim - 1, 0.1) / alpha) ** (1 / alpha)
  with mpmath.workdps(30):
    sphere = 2 * mpmath.pi ** (mpmath.mpf(dim) / 2) / mpmath.gamma(dim / 2)
    mass = sphere * mpmath.quad(
      lambda r: r ** (dim - 1) * mpmath.exp(-((r / scale) ** alpha)),
      [0, *(mode * m for m in (0.25, 0.5, 1, 1.5, 2, 4, 16)), mpmath.inf],
    )
    return float(mpmath.log(mass))


def log_generalized_gaussian(z, mu, scale, alpha):
  """log density c exp(-(|z - mu| / scale)^alpha) of one point."""
  distance = np.sqrt(np.sum((z - mu) ** 2))
  return -((distance / scale) ** alpha) - _log_mass(len(z), scale, alpha)


def kde_entropy(z, log_kernel, plug_in=False, leave_one_out=False):
  """Joe's or the plug-in entropy of a kernel density estimate at its rows."""
  log_p = []
  for i in range(len(z)):
    kernels = [
      log_kernel(z[i], z[j])
      for j in range(len(z))
      if not (leave_one_out and j == i)
    ]
    log_p.append(np.logaddexp.reduce(kernels) - np.log(len(kernels)))
  if not plug_in:
    return -np.mean(log_p)
  total = 0.0
  for i in range(len(z)):
    total -= np.exp(log_softmax_at(log_p, i)) * log_p[i]
  return total


def er(z1, z2, log_kernel, **how):
  """Average over the branches of reconstruction less entropy."""
  loss = 0.0
  for z, other in ((z1, z2), (z2, z1)):
    log_q = [log_kernel(o, a) for a, o in zip(z, other, strict=True)]
    loss += (-np.mean(log_q) - kde_entropy(z, log_kernel, **how)) / 2
  return loss


def softmax(logits):
  """[K] -> [K] probabilities."""
  return np.exp([log_softmax_at(logits, k) for k in range(len(logits))])


def softmax_rows(logits):
  """[k, c] -> [k, c]."""
  return np.array([softmax(row) for row in logits])


def discrete_entropy(p):
  """-sum_c p_c log p_c, 0 log 0 being 0."""
  return -sum(float(x) * np.log(x) for x in p if x > 0)


def entrec_discrete(logits1, logits2):
  """EntRec, eq. 7, as it stands there: sums over branches, rows, classes."""
  k, total = len(logits1), 0.0
  for own, other in ((logits1, logits2), (logits2, logits1)):
    s = softmax_rows(own)
    mean = [sum(s[j][c] for j in range(k)) / k for c in range(s.shape[1])]
    for i in range(k):
      for c in range(s.shape[1]):
        total -= s[i][c] * np.log(mean[c])
        total += s[i][c] * log_softmax_at(other[i], c)
  return -total / (2 * k)


def queue_cross_entropies(similarity, z, positive, queue):
  """[b]: -log of the probability of the own key among it and the queue."""
  out = []
  for row, key in zip(z, positive, strict=True):
    logits = [similarity(row, key)] + [similarity(row, k) for k in queue]
    out.append(-log_softmax_at(logits, 0))
  return np.array(out)


def simsiam(p1, p2, z1, z2):
  """Half of D(p1, z2) + D(p2, z1), D the negative cosine, batch mean."""
  cosines = [
    p @ z / np.linalg.norm(p) / np.linalg.norm(z)
    for a, b in ((p1, z2), (p2, z1))
    for p, z in zip(a, b, strict=True)
  ]
  return -np.mean(cosines)


def cross_entropy_across_views(targets, logits):
  """Mean over rows and pairs of a target and another view of -q.log p."""
  total, pairs = 0.0, 0
  for i, target in enumerate(targets):
    for j, view in enumerate(logits):
      if i == j:
        continue
      pairs += 1
      for q, row in zip(target, view, strict=True):
        for k in range(len(q)):
          total -= q[k] * log_softmax_at(row, k) / len(target)
  return total / pairs


def dino(student, teacher, centre, student_temp, teacher_temp):
  """DINO's loss of logits: the teacher's views are the student's first."""
  targets = [
    [softmax((row - centre) / teacher_temp) for row in view] for view in teacher
  ]
  return cross_entropy_across_views(
    targets, [s / student_temp for s in student]
  )


def fixture_prototypes(dim):
  """[5, dim]: unit rows of a fixed formula."""
  i, j = np.arange(5.0)[:, None], np.arange(float(dim))[None]
  c = np.cos(0.21 * (i + 1) * (j + 1))
  return c / np.linalg.norm(c, axis=1, keepdims=True)


def sinkhorn(scores, epsilon, iterations):
  """Codes [B, K] of scores [B, K]: columns, then rows, again and again."""
  q = np.exp((scores - scores.max()) / epsilon)
  rows, columns = q.shape
  for _ in range(iterations):
    for k in range(columns):
      q[:, k] /= columns * q[:, k].sum()
    for i in range(rows):
      q[i] /= rows * q[i].sum()
  return q * rows


def spherical_kmeans(rows, centroids, iterations):
  """-> centroids [K, d], assignments [N] and, per iteration, mean cosines."""
  cosines = []
  for _ in range(iterations + 1):
    nearest = [int(np.argmax([c @ row for c in centroids])) for row in rows]
    cosines.append(
      np.mean([centroids[k] @ x for k, x in zip(nearest, rows, strict=True)])
    )
    if len(cosines) > iterations:
      return centroids, nearest, cosines
    centroids = centroids.copy()
    for k in range(len(centroids)):
      members = [x for n, x in zip(nearest, rows, strict=True) if n == k]
      if members:
        centroids[k] = sum(members) / np.linalg.norm(sum(members))


def swav(crops, prototypes, queue, epsilon, iterations, temperature):
  """Unit crops, each [b, d], C [K, d], a queue [n, 2, d] -> loss, codes."""
  scores = [z @ prototypes.T for z in crops]
  codes = []
  for crop in range(2):
    rows = np.concatenate([scores[crop], queue[:, crop] @ prototypes.T])
    codes.append(sinkhorn(rows, epsilon, iterations)[: len(crops[crop])])
  logits = [s / temperature for s in scores]
  return cross_entropy_across_views(codes, logits), codes


def deepcluster(crops, centroids, assignments, temperature):
  """Crops [b, d], centroids [heads, K, d], each row's clusters [b, heads]."""
  terms = [
    -log_softmax_at(centroids[head] @ row / temperature, assignments[i, head])
    for head in range(len(centroids))
    for crop in crops
    for i, row in enumerate(crop)
  ]
  return np.mean(terms)


def finite_difference(function, x, eps=1e-5):
  """The gradient of a scalar function of a float64 array, entry by entry."""
  gradient = np.zeros_like(x)
  for k in np.ndindex(*x.shape):
    up, down = x.copy(), x.copy()
    up[k] += eps
    down[k] -= eps
    gradient[k] = (function(up) - function(down)) / (2 * eps)
  return gradient


def effective_rank(h):
  """exp of the entropy of the shares that singular values^2 have in a sum."""
  values = np.linalg.svd(h - h.mean(0), compute_uv=False) ** 2
  shares = values[values > 1e-20] / values.sum()
  return float(np.prod([p**-p for p in shares]))


def uniformity(z):
  """log of the mean Gaussian potential of all pairs (Wang and Isola, eq. 5)."""
  pairs = [(i, j) for i in range(len(z)) for j in range(i)]
  potentials = [np.exp(-2 * np.sum((z[i] - z[j]) ** 2)) for i, j in pairs]
  return float(np.log(np.mean(potentials)))
