r"""A pure-birth process on counts: every coordinate starts at 0 and grows by one at a time.

Each unit of the data is there at t with probability kappa_t, and a missing one comes at rate w_t = kappa' / (1 - kappa):

    X_t | x1 ~ Binomial(x1, kappa_t)
    L_t f(x) = sum_j w_t E[x1_j - x_j | x] (f(x + e_j) - f(x))
"""

import torch

import genmatch as gm
from genmatch.generators import Jump, PointMass
from genmatch.logits import draw_categorical
from genmatch.tensors import expand


def thin(counts, probability, rng):
    """Keeps each unit with the given probability, (B,)."""
    return torch.binomial(counts.double(), expand(probability, counts).expand_as(counts), generator=rng).long()


class Thinning(gm.paths.Path):
    """p_t(x given x1) = Binomial(x1, kappa_t), each coordinate by itself."""

    def __init__(self, space, schedule):
        self.space, self.schedule = space, schedule

    def _source(self, n, rng):
        return torch.zeros(n, *self.space.shape, dtype=torch.int64, device=rng.device if rng else None)

    def _sample(self, x1, t, x0, rng):
        return thin(x1, self.schedule.kappa(t), rng)

    def _log_prob(self, x, t, x1):
        kappa, missing = expand(self.schedule.kappa(t), x), x1 - x
        n_ways, n, m = (torch.lgamma(count.double() + 1) for count in (x1, x, missing))
        return (n_ways - n - m + torch.xlogy(x, kappa) + torch.special.xlog1py(missing.clamp(min=0), -kappa)).flatten(1).sum(-1)


class Birth(gm.processes.PosteriorProcess):
    """Counts that grow to the data; a network predicts the posterior of each final count, as logits."""

    kinds = frozenset({"jump"})

    def __init__(self, space):
        self.path = Thinning(space, gm.schedules.CondOT())

    def generator(self, output, x, t):
        counts = torch.arange(self.space.vocab_size, device=x.device)
        missing = (self.mean(output) * (counts - x.unsqueeze(-1)).clamp(min=0)).sum(-1)
        return Jump(expand(self.path.schedule.rate(t), missing) * missing, PointMass((x + 1).clamp(max=counts[-1])))

    def transition(self, output, x, t, s, *, rng=None):
        x1 = draw_categorical(output.flatten(0, -2), rng=rng).view_as(x)
        return x + thin((x1 - x).clamp(min=0), self.path.schedule.jump_probability(t, s), rng)
