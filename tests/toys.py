"""Small laws with exact answers that the tests share: a Gaussian mixture on the line, and three tokens."""

from __future__ import annotations

import functools
import itertools
import math

import torch

import genmatch as gm
from genmatch.schedules import VE, VP, CondOT, Cosine, Polynomial

SCHEDULES = [CondOT(), Cosine(), Polynomial(2.0), Polynomial(3.0), VP(), VE()]
TOKEN_SCHEDULES = [CondOT(), Cosine(), Polynomial(2.0)]
PREDICTIONS = ["velocity", "data", "noise", "score"]

# Three tokens, each with four values.
L, V = 3, 4
SOURCES = {
    "mask": "mask",
    "uniform": "uniform",
    "tokens": torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64),
    "positions": torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.4, 0.1]], dtype=torch.float64),
}


def name_of(value):
    """A readable pytest id, the same in every process: functions have none."""
    return None if callable(value) else str(value).replace("()", "")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def full(value, n):
    return torch.full((n,), value, dtype=torch.float64)


class GaussianMixture:
    """Data on the line with density sum_k w_k N(m_k, s_k^2): every posterior mean is known in closed form."""

    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    means = torch.tensor([-1.0, 0.8], dtype=torch.float64)
    stds = torch.tensor([0.3, 0.25], dtype=torch.float64)

    def __init__(self, schedule):
        self.schedule = schedule

    def _parts(self, x, t):
        alpha, sigma = self.schedule.alpha(t).reshape(-1, 1), self.schedule.sigma(t).reshape(-1, 1)
        variance = alpha**2 * self.stds**2 + sigma**2
        gap = x.reshape(-1, 1) - alpha * self.means
        log_parts = self.weights.log() - 0.5 * gap**2 / variance - 0.5 * torch.log(2 * math.pi * variance)
        return alpha, sigma, variance, gap, log_parts

    def log_prob(self, x, t):
        return torch.logsumexp(self._parts(x, t)[-1], -1)

    def score(self, x, t):
        _, _, variance, gap, log_parts = self._parts(x, t)
        return (log_parts.softmax(-1) * -gap / variance).sum(-1).view_as(x)

    def data(self, x, t):
        alpha, _, variance, gap, log_parts = self._parts(x, t)
        return (log_parts.softmax(-1) * (self.means + alpha * self.stds**2 * gap / variance)).sum(-1).view_as(x)

    def noise(self, x, t):
        _, sigma, variance, gap, log_parts = self._parts(x, t)
        return (log_parts.softmax(-1) * sigma * gap / variance).sum(-1).view_as(x)

    def velocity(self, x, t):
        d_alpha, d_sigma = (d(t).reshape(-1, 1) for d in (self.schedule.d_alpha, self.schedule.d_sigma))
        return d_alpha * self.data(x, t) + d_sigma * self.noise(x, t)

    def model(self, prediction):
        """The network that training approaches, float64."""
        return getattr(self, prediction)

    def cdf(self, x, t):
        _, _, variance, gap, _ = self._parts(x, t)
        return (self.weights * torch.special.ndtr(gap / variance.sqrt())).sum(-1)

    def quantiles(self, levels, t):
        """The inverse of the distribution function at time `t` (a number), by bisection."""
        time = full(t, len(levels))
        low, high = torch.full_like(levels, -400.0), torch.full_like(levels, 400.0)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.cdf(middle, time) < levels
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def line(schedule=None):
    """A float64 Gaussian path on the line."""
    return gm.paths.Gaussian((1,), schedule=schedule or CondOT(), dtype=torch.float64)


def grid(low, high, steps):
    return torch.linspace(low, high, steps + 1, dtype=torch.float64)


def token_data():
    """All 64 points of the data space."""
    return torch.tensor(list(itertools.product(range(V), repeat=L)))


@functools.cache
def token_law(kind):
    """A law on `token_data`: tokens that depend strongly, Dirichlet(0.3), or weakly, log-linear pairs of scale 0.15."""
    rng = seeded(7)
    data = token_data()
    if kind == "strong":
        # A Gamma(a) draw is Gamma(a + 1) U^(1/a); Gamma(1.3) by inversion of its distribution function is not needed:
        # scipy draws it.
        from scipy.stats import gamma

        uniform = torch.rand(len(data), dtype=torch.float64, generator=rng)
        draws = torch.from_numpy(gamma(0.3).ppf(uniform.numpy()))
        return draws / draws.sum()
    energy = torch.zeros(len(data), dtype=torch.float64)
    for i, j in itertools.combinations(range(L), 2):
        table = 0.15 * torch.randn(V, V, dtype=torch.float64, generator=rng)
        energy += table[data[:, i], data[:, j]]
    return energy.softmax(0)


def chain(source="mask", schedule=None, positions=L):
    """A CTMC on the toy tokens."""
    law = SOURCES[source]
    law = law[:positions] if source == "positions" else law
    return gm.CTMC(gm.paths.Mixture((positions,), V, source=law, schedule=schedule or CondOT()))


def _source_rows(source, positions):
    law = SOURCES[source][:positions] if source == "positions" else SOURCES[source]
    if source == "mask":
        law = torch.eye(V + 1, dtype=torch.float64)[V]
    if source == "uniform":
        law = torch.full((V,), 1 / V, dtype=torch.float64)
    return law.expand(positions, -1)


def noising(source, kappa, positions=L):
    """One matrix p(x_j given x1_j), (S, V), for each position, written out."""
    keep = torch.eye(_source_rows(source, positions).shape[-1], V, dtype=torch.float64)
    return [(1 - kappa) * row.unsqueeze(-1) + kappa * keep for row in _source_rows(source, positions)]


def kron(matrices):
    return functools.reduce(torch.kron, matrices)


def token_marginal(source, kappa, law, positions=L):
    """p_t over all states, in the order of `space.enumerate()`."""
    return kron(noising(source, kappa, positions)) @ law


def token_marginal_rate(source, kappa, d_kappa, law, positions=L):
    """The time derivative of `token_marginal`, by the product rule."""
    kernels, ones = noising(source, kappa, positions), noising(source, 1.0, positions)
    slopes = [d_kappa * (one - zero) for one, zero in zip(ones, noising(source, 0.0, positions), strict=True)]
    terms = [kron([slopes[j] if i == j else kernels[i] for i in range(positions)]) for j in range(positions)]
    return sum(terms) @ law


def redraw(pi, x, q):
    """The kernel of independent redraws, columns x: each position stays with probability 1 - q, else it is drawn from pi.

    Args:
        pi: (N, L, S); x: (N, L); q: (N, L), float64.
    """
    stay = torch.nn.functional.one_hot(x, pi.shape[-1]).double()
    tokens = (1 - q).unsqueeze(-1) * stay + q.unsqueeze(-1) * pi
    return torch.stack([kron(list(row)) for row in tokens], -1)


def matrix_of(generator, states, index):
    """The rate matrix Q[y, x] from the action on indicators: (L 1_y)(x) = Q[y, x]."""
    n = len(index(states))
    rows = [generator.apply(lambda x, y=y: (index(x) == y).double(), states) for y in range(n)]
    return torch.stack(rows)


def total_variation(p, q):
    return float((p - q).abs().sum() / 2)


def chi_square(counts, law):
    """p-value of observed `counts` under `law`, cells of expectation below 5 merged."""
    from scipy.stats import chi2

    expected = law * counts.sum()
    if bool((counts[expected == 0] > 0).any()):
        return 0.0
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum().reshape(1)]).double()
    expected = torch.cat([expected[~rare], expected[rare].sum().reshape(1)])
    keep = expected > 0
    if int(keep.sum()) < 2:
        return 1.0
    statistic = float(((observed - expected)[keep] ** 2 / expected[keep]).sum())
    return float(chi2.sf(statistic, int(keep.sum()) - 1))


class TinyTokens(torch.nn.Module):
    """A small network on tokens: one-hot states and the time to logits."""

    def __init__(self, process, width=32):
        super().__init__()
        space = process.space
        self.states, self.out = space.num_states, process.output_shape
        self.net = torch.nn.Sequential(torch.nn.Linear(space.size * space.num_states + 1, width), torch.nn.Tanh(), torch.nn.Linear(width, math.prod(self.out)))

    def forward(self, x, t):
        flat = torch.nn.functional.one_hot(x.flatten(1), self.states).flatten(1).to(t.dtype)
        return self.net(torch.cat([flat, t.unsqueeze(-1)], -1)).unflatten(-1, self.out)


class TinyVector(torch.nn.Module):
    """A small network on vectors, with an optional condition (B,)."""

    def __init__(self, size=1, width=32):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(size + 2, width), torch.nn.SiLU(), torch.nn.Linear(width, width), torch.nn.SiLU(), torch.nn.Linear(width, size)
        )

    def forward(self, x, t, condition=None):
        given = torch.zeros_like(t) if condition is None else condition.to(t.dtype)
        return self.net(torch.cat([x.flatten(1), t.unsqueeze(-1), given.unsqueeze(-1)], -1)).view_as(x)
