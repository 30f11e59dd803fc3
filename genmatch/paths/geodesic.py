r"""The geodesic path: from uniform noise along the shortest way to the data point.

    X_t = exp_{x1}((1 - kappa_t) log_{x1} x0),   x0 uniform

Its velocity is w_t log_x(x1), with w = kappa' / (1 - kappa). With v = log_{x1} x the change of variables gives the density

    p_t(x | x1) = stretch(v / (1 - kappa)) / stretch(v) (1 - kappa)^(-n) / volume,

where stretch(v) = |d exp_{x1}(v)|, which is zero beyond the cut locus.

Source: "Flow Matching on General Geometries" (Chen & Lipman, 2024), https://arxiv.org/abs/2302.03660, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.generators import Drift
from genmatch.paths.base import Path, with_kappa
from genmatch.paths.couplings import Coupling, Independent, check_coupling
from genmatch.paths.prediction import Prediction
from genmatch.paths.visits import EARLIEST
from genmatch.schedules import CondOT, Schedule
from genmatch.spaces import Manifold
from genmatch.tensors import expand

_TINY = 1e-300


class Geodesic(Path):
    """Points of a manifold that move along geodesics from uniform noise to data.

    Args:
        space: the manifold, such as `gm.spaces.Sphere(2)`.
        schedule: gives kappa, the share of the way that is done.
        coupling: which noise goes with which data point; independent by default.

    Raises:
        GenmatchError: if the space is not a manifold, or the schedule has no kappa.

    Example:
        >>> from genmatch.spaces import Torus
        >>> path = Geodesic(Torus(1))
        >>> path.sample(torch.tensor([[3.0]]), torch.tensor([0.5]), x0=torch.tensor([[-3.0]]))
        tensor([[-3.1416]])
    """

    space: Manifold

    def __init__(self, space: Manifold, schedule: Schedule = CondOT(), *, coupling: Coupling = Independent()) -> None:  # noqa: B008 (immutable)
        if not isinstance(space, Manifold):
            raise GenmatchError(f"`space` must be a manifold, got {space!r}; pass e.g. `gm.spaces.Sphere(2)`, or use `gm.paths.Gaussian` on R^d.")
        self.space = space
        self.schedule = with_kappa(schedule)
        self.coupling = check_coupling(coupling)

    def __repr__(self) -> str:
        coupling = "" if self.is_independent else f", coupling={self.coupling}"
        return f"Geodesic({self.space}, schedule={self.schedule}{coupling})"

    def coupled(self, coupling: Coupling) -> Geodesic:
        return Geodesic(self.space, self.schedule, coupling=coupling)

    def prediction(self, name: str) -> Prediction:
        """The tangent velocity, the only statistic whose mean determines the marginal velocity.

        Raises:
            GenmatchError: for "data": the mean of data points says too little on a curved space; or for an unknown name.
        """
        if name == "data":
            raise GenmatchError(
                "on a manifold the data cannot be predicted: log_x(E x1) is not E log_x(x1), so the mean of x1 does not give the velocity, "
                "and it is not a point of the manifold; use prediction='velocity'."
            )
        if name != "velocity":
            raise unknown("prediction on a manifold", str(name), ["velocity"])
        return TangentVelocity(self)

    def velocity(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        """The tangent velocity w_t log_x(x1) at states `x` and times `t` in [0, 1), (B, *shape)."""
        return expand(self.schedule.rate(t), x) * self.space.log(x, x1)

    def source_log_prob(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), -self.space.log_volume, dtype=torch.float64, device=x.device)

    def _source(self, n: int, rng: torch.Generator | None) -> Tensor:
        return self.space.random(n, rng=rng)

    def _sample(self, x1: Tensor, t: Tensor, x0: Tensor | None, rng: torch.Generator | None) -> Tensor:
        if x0 is None:
            x0 = self.space.random(len(x1), rng=rng, dtype=x1.dtype).to(x1.device)
        way = expand(self.schedule.sigma(t), x1)
        moved = self.space.exp(x1, way * self.space.log(x1, x0))
        # At t = 0 log and exp would bring back x0 with rounding errors.
        return torch.where(way == 1, x0, moved)

    def _log_prob(self, x: Tensor, t: Tensor, x1: Tensor) -> Tensor:
        # At t = 1 the density is a peak without width: as narrow here as numbers allow.
        way = self.schedule.sigma(t).clamp_min(_TINY)
        v = self.space.log(x1.double(), x.double())
        stretch = self.space.log_stretch(v / expand(way, v)) - self.space.log_stretch(v)
        return stretch - self.space.dim * torch.log(way) - self.space.log_volume


class TangentVelocity(Prediction):
    """The velocity on a geodesic path: a vector of the surrounding space, of which the tangent part counts.

    The network's error is measured in the tangent space, so what it says across it is free.
    """

    kinds = frozenset({"geodesic drift"})

    def __init__(self, path: Geodesic) -> None:
        self.path = path
        self.space = path.space
        # Where kappa starts with slope zero, the velocity there says nothing of the data.
        rate = float(path.schedule.rate(torch.zeros(1, dtype=torch.float64)))
        self.t_min = 0.0 if 0 < rate < torch.inf else EARLIEST

    def __repr__(self) -> str:
        return f"TangentVelocity({self.path})"

    def target(self, x: Tensor, t: Tensor, x1: Tensor, x0: Tensor | None) -> Tensor:
        return self.path.velocity(x, t, x1)

    def predict(self, output: Tensor, x: Tensor, t: Tensor, kind: str) -> Tensor:
        """The tangent part of the network's output; `kind` must be "velocity"."""
        self.path.prediction(kind)
        return self.space.project(x, output)

    def drift(self, output: Tensor, x: Tensor, t: Tensor) -> Drift:
        return Drift(self.space.project(x, output), self.space)

    def transition(self, output: Tensor, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """exp_x(q u / w): the share q = (kappa_s - kappa_t) / (1 - kappa_t) of the way u / w that is left.

        u / w = log_x(x1) for one data point, for which this is exact. A marginal velocity is w E[log_x(x1) | x], and the step
        follows the geodesic to the mean of the ways: right to first order, and at s = 1 to the tangent mean of the posterior.
        """
        share = self.path.schedule.jump_probability(t, s) / self.path.schedule.rate(t)
        return self.space.exp(x, expand(share, x) * self.space.project(x, output))

    def divergence(self, target: Tensor, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return ((target - self.space.project(x, output)) ** 2).flatten(1).sum(-1)
