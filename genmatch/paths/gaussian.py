r"""The Gaussian path: $X_t = \alpha_t x_1 + \sigma_t x_0$ with $x_0 \sim N(0, I)$, so $p_t(x | x_1) = N(\alpha_t x_1, \sigma_t^2 I)$.

Source: "Flow Matching for Generative Modeling" (Lipman et al., 2023), https://arxiv.org/abs/2210.02747, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from genmatch.paths.base import Path, check_schedule
from genmatch.paths.couplings import Coupling, Independent, check_coupling
from genmatch.paths.gaussian_jumps import GaussianJumps
from genmatch.paths.gaussian_prediction import GaussianPrediction
from genmatch.paths.visits import LATEST, by_snr
from genmatch.rows import normal
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Euclidean, Grid
from genmatch.tensors import expand


class Gaussian(Path):
    """Data mixed with Gaussian noise, on R^d.

    Args:
        shape: shape of one state, such as (1, 8, 8).
        schedule: alpha and sigma; straight lines by default.
        dtype: of the source.
        coupling: which noise goes with which data point; independent by default. Any other is for flows only.

    Example:
        >>> path = Gaussian((2,))
        >>> x1 = torch.ones(3, 2)
        >>> path.sample(x1, torch.ones(3)).equal(x1)
        True
    """

    space: Euclidean
    t_end = LATEST

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        schedule: Schedule = CondOT(),  # noqa: B008 (immutable)
        dtype: torch.dtype = torch.float32,
        coupling: Coupling = Independent(),  # noqa: B008 (immutable)
    ) -> None:
        self.space = Euclidean(shape, dtype)
        self.schedule = check_schedule(schedule)
        self.coupling = check_coupling(coupling)

    def __repr__(self) -> str:
        coupling = "" if self.is_independent else f", coupling={self.coupling}"
        return f"Gaussian({self.space.shape}, schedule={self.schedule}{coupling})"

    @property
    def caveats(self) -> Mapping[str, str]:
        return self.schedule.caveats

    def coupled(self, coupling: Coupling) -> Gaussian:
        return Gaussian(self.space.shape, schedule=self.schedule, dtype=self.space.dtype, coupling=coupling)

    def prediction(self, name: str) -> GaussianPrediction:
        """The statistic "velocity", "data", "noise" or "score"."""
        return GaussianPrediction(self, name)

    def jumps(self, grid: Grid) -> GaussianJumps:
        """Jumps out of where the density falls into where it rises."""
        self.require_independent("a jump process")
        return GaussianJumps(self, grid)

    def noise(self, x: Tensor, t: Tensor, x1: Tensor, x0: Tensor | None) -> Tensor:
        """The standard normal noise in `x`: from the source draw `x0` if known, else (x - alpha x1) / sigma."""
        if x0 is not None:
            return x0 / self.schedule.source_std
        return (x - expand(self.schedule.alpha(t), x) * x1) / expand(self.schedule.sigma(t), x)

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        noise = normal((n, *self.space.shape), dtype=self.space.dtype, device=rng.device if rng else None, rng=rng)
        return self.schedule.source_std * noise

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        if x0 is None:
            x0 = self.schedule.source_std * normal(x1.shape, dtype=x1.dtype, device=x1.device, rng=rng)
        noise = x0 / self.schedule.source_std
        return expand(self.schedule.alpha(t), x1) * x1 + expand(self.schedule.sigma(t), x1) * noise

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        sigma = self.schedule.sigma(t)
        gap = (x - expand(self.schedule.alpha(t), x) * x1).double().flatten(1) / sigma.unsqueeze(-1)
        return -0.5 * (gap**2).sum(-1) - self.space.size * (torch.log(sigma) + 0.5 * math.log(2 * math.pi))

    def source_log_prob(self, x: Tensor) -> Tensor:
        scale = self.schedule.source_std
        square = (x.double() / scale).square().flatten(1).sum(-1)
        return -0.5 * square - self.space.size * (math.log(scale) + 0.5 * math.log(2 * math.pi))

    def source_nats(self, x1: Tensor, t: float) -> Tensor:
        alpha, sigma = self._coefficients(t)
        scale = self.schedule.source_std
        square = x1.double().square().flatten(1).sum(-1)
        ratio = (sigma / scale) ** 2
        return 0.5 * ((alpha / scale) ** 2 * square + self.space.size * (ratio - 1 - math.log(ratio)))

    def data_nats(self, x1: Tensor, t: Tensor) -> Tensor:
        """By the decoder N(x / alpha, sigma^2 / alpha^2): the entropy of that Gaussian."""
        ratio = self.schedule.sigma(t) / self.schedule.alpha(t)
        return self.space.size * (ratio.log() + 0.5 * (1 + math.log(2 * math.pi)))

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        return by_snr(self.schedule, u, start, end)

    def _coefficients(self, t: float) -> tuple[float, float]:
        time = torch.tensor(t, dtype=torch.float64)
        return float(self.schedule.alpha(time)), float(self.schedule.sigma(time))
