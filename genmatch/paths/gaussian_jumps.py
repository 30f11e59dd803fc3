r"""Jumps along a Gaussian path: out of where the density falls, into where it rises.

With $y = (x - \alpha z) / \sigma$ and $c = \dot\alpha z / |\dot\sigma|$ one coordinate of the path to the data point $z$ has

    d/dt log p_t(x | z)  =  |sigma'| / sigma (1 + c y - y^2),        positive between y_-, y_+ = (c -+ sqrt(c^2 + 4)) / 2
    rate       lambda^z(x)  =  |sigma'| / sigma [y^2 - c y - 1]_+
    destination  J^z(y)     =  (1 + c y - y^2) phi(y) / (G(y_+) - G(y_-)) on (y_-, y_+),     G(y) = (y - c) phi(y)

The destination does not depend on where a jump starts, and $G$, an antiderivative of its density, makes its distribution
function a closed form. Under a posterior $p(z | x)$ rate and destination are averaged together: a jump draws $z$ in proportion
to $p(z | x) \lambda^z(x)$ and lands by $J^z$. The average of the rates alone and of the destinations alone is another process.

Source: "Generator Matching" (Holderrieth et al., ICLR 2025), https://arxiv.org/abs/2410.20587, appendix on jump models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genmatch.destinations import Destination, gauss_legendre
from genmatch.generators import Jump
from genmatch.logits import draw_at
from genmatch.paths.levels import LevelRates
from genmatch.paths.visits import EARLIEST
from genmatch.spaces import Grid
from genmatch.tensors import uniforms

if TYPE_CHECKING:
    from genmatch.paths.gaussian import Gaussian

_REACH = 9.0
"""Standard deviations beyond which the normal density is nothing in float64."""
_FEW = 64
"""Coordinates of which a search is short of operations, not of arithmetic."""
_NODES = 32


class GaussianJumps(LevelRates):
    """The jumps of a Gaussian path to data on a grid."""

    def __init__(self, path: Gaussian, grid: Grid) -> None:
        super().__init__(grid)
        self.path = path
        # Where sigma stands still at t = 0, nothing is known of where the density rises.
        self.t_min = 0.0 if float(path.schedule.d_sigma(torch.zeros((), dtype=torch.float64))) < 0 else EARLIEST

    def generator(self, logits: Tensor, x: Tensor, t: Tensor) -> Jump:
        centre, sigma, tilt, speed = self._conditional(x, t)
        weights = logits.double().log_softmax(-1) + _exits(x, centre, sigma, tilt, speed).log()
        return Jump(weights.exp().sum(-1), Flux(weights, centre, sigma.expand(*x.shape, 1), tilt))

    def bound(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The largest rate over all levels at seven times, and a quarter more for what lies between."""
        times = [t + (s - t) * share for share in torch.linspace(0, 1, 7, dtype=torch.float64).tolist()]
        return 1.25 * torch.stack([_exits(x, *self._conditional(x, time)).amax(-1) for time in times]).amax(0)

    def _conditional(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """alpha z, sigma, c and |sigma'| / sigma, float64, which broadcast against (B, *shape, K)."""
        schedule, levels = self.path.schedule, self.grid.levels.to(x.device)
        sigma, fall = schedule.sigma(t), schedule.d_sigma(t).abs()
        coefficients = (schedule.alpha(t), sigma, schedule.d_alpha(t) / fall, fall / sigma)
        alpha, sigma, tilt, speed = (c.reshape(-1, *[1] * x.dim()) for c in coefficients)
        return alpha * levels, sigma, tilt * levels, speed


def _exits(x: Tensor, centre: Tensor, sigma: Tensor, tilt: Tensor, speed: Tensor) -> Tensor:
    """lambda^z(x) for each level z, (B, *shape, K), float64."""
    y = (x.double().unsqueeze(-1) - centre) / sigma
    return speed * (y * (y - tilt) - 1).clamp(min=0)


class Flux(Destination):
    """A level is drawn first, and then a value where the density of its path rises.

    Args:
        logits: unnormalised log weights of the levels, (B, *shape, K).
        centre: alpha z, broadcastable to (B, *shape, K).
        sigma: standard deviation of the path, (B, *shape, 1).
        tilt: c, broadcastable to (B, *shape, K).
    """

    def __init__(self, logits: Tensor, centre: Tensor, sigma: Tensor, tilt: Tensor) -> None:
        self.logits, self.sigma = logits, sigma
        self.centre, self.tilt = centre.expand(logits.shape), tilt.expand(logits.shape)

    def sample(self, where: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Inverts the distribution function."""
        level = draw_at(self.logits[where], where, rng=rng).unsqueeze(-1)
        centre, tilt = (part[where].gather(-1, level).squeeze(-1) for part in (self.centre, self.tilt))
        share = uniforms(where, rng=rng)[where]
        y = _risen(lambda y: _antiderivative(y, tilt.unsqueeze(-1)), share, *_rise(tilt))
        return centre + self.sigma[where].squeeze(-1) * y

    def atoms(self) -> tuple[Tensor, Tensor]:
        """Gauss-Legendre nodes on the rise of each level."""
        nodes, weights = gauss_legendre(_NODES, self.centre)
        low, high = (edge.unsqueeze(-1) for edge in _rise(self.tilt))
        y = low + (high - low) * nodes
        values = self.centre.unsqueeze(-1) + self.sigma.unsqueeze(-1) * y
        mass = (high - low) * weights * _rise_density(y, self.tilt.unsqueeze(-1))
        return values.flatten(-2), (self.logits.softmax(-1).unsqueeze(-1) * mass).flatten(-2)

    def mass(self, values: Tensor) -> Tensor:
        return self.logits.new_zeros(()).expand(values.shape)

    def density(self, values: Tensor) -> Tensor:
        total = torch.zeros(values.shape, dtype=torch.float64, device=values.device)
        chances = self.logits.softmax(-1)
        for k in range(self.logits.shape[-1]):
            centre, tilt = self.centre[..., k, None], self.tilt[..., k, None]
            y = (values - centre) / self.sigma
            total = total + chances[..., k, None] * _rise_density(y, tilt) / self.sigma
        return total

    def excluding(self, x: Tensor) -> Flux:
        return self


def _rise(tilt: Tensor) -> tuple[Tensor, Tensor]:
    """y_- and y_+, between which the density rises; their product is -1. Cut off where the normal density is nothing."""
    log_high = torch.asinh(tilt / 2)
    return -torch.exp(-log_high).clamp(max=_REACH), torch.exp(log_high).clamp(max=_REACH)


def _risen(rising: Callable[[Tensor], Tensor], share: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where a function that rises between `low` and `high` has done a share of its rise, (N,): in one of a million cells, and there on a straight line.

    The cell in which it does is cut again. Of few numbers more cells and fewer rounds take less time, as an operation on many costs little more.
    """
    cells, rounds = (128, 3) if len(low) <= _FEW else (8, 7)
    edges = torch.linspace(0, 1, cells + 1, dtype=low.dtype, device=low.device)
    low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    ends = rising(torch.cat([low, high], -1))
    goal = torch.lerp(ends[:, :1], ends[:, 1:], share.unsqueeze(-1))
    for _ in range(rounds):
        places = torch.lerp(low, high, edges)
        values = rising(places)
        right = torch.searchsorted(values, goal).clamp(1, cells)
        both = torch.cat([right - 1, right], -1)
        low, high = places.gather(-1, both).split(1, -1)
        ends = values.gather(-1, both)
    rise = ends[:, 1:] - ends[:, :1]
    # Where the function is flat, at its very ends, any place in the cell will do.
    return torch.lerp(low, high, torch.where(rise > 0, (goal - ends[:, :1]) / rise, 0.5).clamp(0, 1)).squeeze(-1)


def _rise_density(y: Tensor, tilt: Tensor) -> Tensor:
    """J as a density of y."""
    low, high = _rise(tilt)
    total = _antiderivative(high, tilt) - _antiderivative(low, tilt)
    return torch.where((y > low) & (y < high), (1 + tilt * y - y**2) * _normal(y) / total, 0)


def _antiderivative(y: Tensor, tilt: Tensor) -> Tensor:
    """G(y) = (y - c) phi(y), whose derivative is (1 + c y - y^2) phi(y)."""
    return (y - tilt) * _normal(y)


def _normal(y: Tensor) -> Tensor:
    return torch.exp(-0.5 * y.square()) / math.sqrt(2 * math.pi)
