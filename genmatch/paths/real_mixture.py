r"""The factorized mixture path on R^d: each coordinate is noise, and then, at once, data.

    p_t(x | x1) = prod_j [(1 - kappa_t) N(x_j; 0, 1) + kappa_t delta(x_j - x1_j)]

The data lie on a grid of levels, so a coordinate that is data shows it. It is followed by jumps only: at rate
$w = \dot\kappa / (1 - \kappa)$ a coordinate of noise is drawn from its posterior.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmatch.destinations import Levels
from genmatch.errors import GenmatchError
from genmatch.generators import Jump
from genmatch.logits import draw_at
from genmatch.paths.base import Path, with_kappa
from genmatch.paths.levels import LevelRates
from genmatch.rows import normal
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Euclidean, Grid
from genmatch.tensors import bernoulli, expand


class RealMixture(Path):
    """Real coordinates that are noise or data on a grid.

    Args:
        grid: where the data lie.
        schedule: gives kappa, the probability of data.

    Raises:
        GenmatchError: if `grid` is not a Grid, or the schedule has no kappa.

    Example:
        >>> path = RealMixture(Grid((2,), [-1.0, 1.0]))
        >>> x1 = torch.ones(3, 2)
        >>> path.sample(x1, torch.ones(3)).equal(x1)
        True
    """

    space: Euclidean
    has_atoms = True

    def __init__(self, grid: Grid, *, schedule: Schedule = CondOT()) -> None:  # noqa: B008 (immutable)
        if not isinstance(grid, Grid):
            raise GenmatchError(f"RealMixture needs the grid of the data, got {grid!r}; pass e.g. `gm.spaces.Grid((2,), torch.linspace(-1, 1, 16))`.")
        self.grid = grid
        self.space = Euclidean(grid.shape, grid.dtype)
        self.schedule = with_kappa(schedule)

    def __repr__(self) -> str:
        return f"RealMixture({self.grid}, schedule={self.schedule})"

    @property
    def signature(self) -> tuple[object, ...]:
        return type(self), self.grid, repr(self.schedule)

    @property
    def data_space(self) -> Grid:
        return self.grid

    def jumps(self, grid: Grid) -> RealMixtureJumps:
        """Jumps from noise into data.

        Raises:
            GenmatchError: if `grid` is not that of the path.
        """
        if grid != self.grid:
            raise GenmatchError(f"the data of {self} lie on {self.grid}, got {grid}; leave `bins` out.")
        return RealMixtureJumps(self)

    def known(self, x1: Tensor, t: Tensor, x0: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The levels themselves, at every time: a coordinate that is data stays, so this is exact, as for tokens with the mask as source."""
        return x1

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        return normal((n, *self.space.shape), dtype=self.space.dtype, device=rng.device if rng else None, rng=rng)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        x0 = normal(x1.shape, dtype=x1.dtype, device=x1.device, rng=rng) if x0 is None else x0
        return torch.where(bernoulli(expand(self.schedule.kappa(t), x1), x1, rng=rng), x1, x0)

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """A density of noise off the levels, and a probability of data on them."""
        kappa, sigma = (expand(c, x.double()) for c in (self.schedule.kappa(t), self.schedule.sigma(t)))
        off = sigma.log() - x.double() ** 2 / 2 - 0.5 * math.log(2 * math.pi)
        on = torch.where(self.grid.nearest(x) == self.grid.nearest(x1), kappa.log(), -torch.inf)
        return torch.where(self.grid.holds(x), on, off).flatten(1).sum(-1)


class RealMixtureJumps(LevelRates):
    """At rate w a coordinate of noise is drawn from its posterior; each jumps once."""

    tight = True

    def __init__(self, path: RealMixture) -> None:
        super().__init__(path.grid)
        self.schedule = path.schedule

    def moves(self, x: Tensor) -> Tensor:
        return ~self.grid.holds(x)

    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        return Jump(expand(self.schedule.rate(t), x) * self.moves(x), Levels(logits, self.grid.levels.to(x)))

    def transition(self, logits: Tensor, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        jumps = bernoulli(expand(self.schedule.jump_probability(t, s), x), x, rng=rng) & self.moves(x)
        return x.masked_scatter(jumps, self.grid.at(draw_at(logits[jumps], jumps, rng=rng), x.dtype))

    def bound(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return expand(torch.maximum(self.schedule.rate(t), self.schedule.rate(s)), x) * self.moves(x)
