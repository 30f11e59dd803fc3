"""The interface of a conditional probability path.

A path carries noise to one data point. It says nothing of how: the same path can be followed by a deterministic flow, a
diffusion or jumps, which are processes and hold a path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.paths.couplings import Coupling, Independent
from genmatch.paths.prediction import Prediction
from genmatch.paths.visits import Visit, smooth_step
from genmatch.schedules import Schedule
from genmatch.spaces import Grid, Space
from genmatch.tensors import State, batch_size, check_times, leaves

if TYPE_CHECKING:
    from genmatch.paths.levels import LevelRates


class Path(ABC):
    """p_t(x given x1), for t in [0, 1]: the source at 0, the data point at 1.

    Subclasses set `space`, where the states on the way live, and define `_source`, `_sample` and, where there is a
    density, `_log_prob`, which receive checked arguments. One that takes a `coupling` sets it, and names it in its `repr`.

        _source(n, rng)              n draws of X_0, on the device of `rng`
        _sample(x1, t, x0, rng)      X_t given x1, and given X_0 = x0 unless `x0` is None: then it is drawn too; `x0` itself at t = 0
        _log_prob(x, t, x1)          log p_t(x given x1), summed over coordinates, (B,)

    What `x0` says of X_t is free, as long as X_t given x1 alone has its law. Times are float64, (B,).
    """

    space: Space

    has_atoms: bool = False
    """Whether single points of R^d have a probability, so that `log_prob` is no density of volume alone."""
    coupling: Coupling = Independent()
    """Which noise goes with which data point."""
    t_end: float = 1.0
    """Where a likelihood bound takes the last step into the data: 1, or before it where rates of divergence have no finite integral."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space})"

    @property
    def signature(self) -> tuple[object, ...]:
        """What tells this path from others: equal signatures, equal laws."""
        return type(self), repr(self)

    @property
    def data_space(self) -> Space:
        """Where data points live; the states on the way may need more, such as a mask."""
        return self.space

    @property
    def caveats(self) -> Mapping[str, str]:
        """Laws that this path keeps only approximately: the name of the check, and the reason."""
        return {}

    def prediction(self, name: str) -> Prediction:
        """What the statistic `name` means on this path, such as "velocity". Optional: only for paths that have a velocity.

        Raises:
            GenmatchError: if this path has no velocity, or not that statistic.
        """
        raise GenmatchError(f"{self} has no velocity; a path that has one defines `prediction`, as `Gaussian` and `Geodesic` do.")

    @property
    def has_velocity(self) -> bool:
        """Whether `prediction` is defined."""
        return type(self).prediction is not Path.prediction

    def jumps(self, grid: Grid) -> LevelRates:
        """How single coordinates follow this path by jumps, if the data lie on `grid`. Optional.

        Raises:
            GenmatchError: if this path has no jumps on R^d, or none for this grid.
        """
        raise GenmatchError(f"{self} has no jumps of real coordinates; a path that has them defines `jumps`, as `Gaussian` and `RealMixture` do.")

    def source(self, n: int, *, rng: torch.Generator | None = None) -> State:
        """Draws `n` states X_0 ~ p_0 on the device of `rng`.

        Raises:
            GenmatchError: if `n` is not a positive integer.
        """
        return self._source(positive_integer(n, "n"), rng)

    def start(self, x1: State, condition: Mapping[str, Any] | Tensor | None = None, *, rng: torch.Generator | None = None) -> State:
        """Draws the noise X_0 that each data point of a batch is reached from, by the path's coupling.

        Args:
            x1: data points, (B, *shape); the batch within which a coupling makes its pairs.
            condition: what the model is told of each of them: a tensor (B, ...), or several by name.
            rng: source of randomness.

        Raises:
            GenmatchError: if the data points do not fit, or the coupling cannot pair them under this condition.
        """
        self.data_space.validate(x1, "x1")
        conditions = {"condition": condition} if isinstance(condition, Tensor) else dict(condition or {})
        return self.coupling.pair(self.source(batch_size(x1), rng=rng), x1, self.space, conditions, rng=rng)

    @property
    def is_independent(self) -> bool:
        """Whether the noise is independent of the data, on which densities, scores and posteriors rest."""
        return self.coupling.is_independent

    def coupled(self, coupling: Coupling) -> Path:
        """This path with another coupling. Optional: only for paths that take one.

        Raises:
            GenmatchError: if this path takes none, or not this one.
        """
        raise GenmatchError(f"{self} takes no coupling; a path that does defines `coupled`, as `Gaussian` and `Geodesic` do.")

    def require_independent(self, what: str) -> None:
        """For what is true of noise that is independent of the data only.

        Args:
            what: the subject of the message, such as "the score".

        Raises:
            GenmatchError: if this path has a coupling.
        """
        if not self.is_independent:
            raise GenmatchError(
                f"{what} needs noise that is independent of the data, and {self} pairs them: the noise given a data point is not the source's, "
                "so no density, score or posterior is known; use `gm.Flow` with prediction='velocity', 'data' or 'noise', `gm.CTMC` with prediction='posterior', or no coupling."
            )

    def sample(self, x1: State, t: Tensor, *, x0: State | None = None, rng: torch.Generator | None = None) -> State:
        """Draws X_t ~ p_t(. given x1), or given x1 and the noise `x0` that it starts from.

        Args:
            x1: data points, (B, *shape).
            t: times in [0, 1], (B,).
            x0: draws from the source, as `start` gives them; drawn here if absent, unless a coupling has to.
            rng: source of randomness.

        Raises:
            GenmatchError: if `x1`, `t` or `x0` do not fit, or `x0` is absent on a path with a coupling.
        """
        if x0 is None and not self.is_independent:
            raise GenmatchError(f"{self} pairs noise and data batch by batch, so `sample` needs `x0`; pass `x0=path.start(x1, condition)`.")
        self.data_space.validate(x1, "x1")
        t = check_times(t, batch_size(x1))
        if x0 is not None:
            self.space.validate(x0, "x0")
            if batch_size(x0) != batch_size(x1):
                raise GenmatchError(f"`x0` and `x1` must have the same number of samples, got {batch_size(x0)} and {batch_size(x1)}.")
        return self._sample(x1, t, x0, rng)

    def known_misfit(self, mask: State) -> str | None:
        """Why the rest cannot be drawn given what is known at `mask`, (n, *shape); None if it can, as by default."""
        return None

    def known(self, x1: State, t: Tensor, x0: State, *, rng: torch.Generator | None = None) -> State:
        """What a state shows at times `t` of data `x1` that are known, (B, *shape); `x1` itself at t = 1.

        By default a draw of X_t that starts from the noise `x0`, which is what a network was trained on. Where the data may
        be shown as they are, a path says so.

        Args:
            x1: data points, (B, *shape).
            t: times in [0, 1], float64, (B,).
            x0: draws from the source, the same at all times.
            rng: source of randomness, in the same state at each call for one trajectory.
        """
        return self._sample(x1, t, x0, rng)

    def log_prob(self, x: State, t: Tensor, x1: State) -> Tensor:
        """log p_t(x given x1) in nats, shape (B,); -inf where the path never goes.

        Raises:
            GenmatchError: if the arguments do not fit, or the path has no density.
        """
        self.require_independent("a density")
        self.space.validate(x, "x")
        self.data_space.validate(x1, "x1")
        if batch_size(x) != batch_size(x1):
            raise GenmatchError(f"`x` and `x1` must have the same number of samples, got {batch_size(x)} and {batch_size(x1)}.")
        value = self._log_prob(x, check_times(t, batch_size(x)), x1)
        if value.shape != (batch_size(x),):
            raise GenmatchError(f"`{type(self).__name__}._log_prob` must return (B,) = ({batch_size(x)},), got {tuple(value.shape)}; sum over coordinates.")
        return value

    @property
    def has_log_prob(self) -> bool:
        """Whether `log_prob` is defined."""
        return self.is_independent and type(self)._log_prob is not Path._log_prob

    def source_log_prob(self, x: State) -> Tensor:
        """log p_0(x) in nats, float64, (B,). Optional: for the log-likelihood of flows."""
        raise GenmatchError(f"{type(self).__name__} does not say the density of its source; define `source_log_prob`.")

    def source_nats(self, x1: State, t: float) -> Tensor:
        """Kullback-Leibler divergence of p_t(. given x1) from the source, for an early time, in nats, float64, (B,).

        What a likelihood bound pays for starting there from noise; nothing at t = 0, where the path is the source.

        Raises:
            GenmatchError: if `t` is above 0 and this path does not say.
        """
        if t > 0:
            raise GenmatchError(f"{type(self).__name__} does not say how far it is from its source at t = {t:g}; define `source_nats`.")
        return torch.zeros(batch_size(x1), dtype=torch.float64, device=leaves(x1)[0].device)

    def data_nats(self, x1: State, t: Tensor) -> Tensor:
        """E[-log p(x1 given X_t)] where data are read off a state at a late time without a network, in nats, float64, (B,). Optional."""
        raise GenmatchError(f"{type(self).__name__} does not say how to read data off a state; leave `t_end` at {self.t_end:g}.")

    def warp(self, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        """Times t(u) that rise from `start` to `end` over u in [0, 1], float64, (B,), and dt/du: dense where rates are large."""
        step, slope = smooth_step(u)
        return start + (end - start) * step, (end - start) * slope

    def visit(self, x1: State, u: Tensor, start: float, end: float, *, rng: torch.Generator | None = None) -> Visit:
        """States on the way to `x1` that estimate an integral from `start` to `end` along the path.

        Args:
            x1: data points, (B, *shape).
            u: numbers in (0, 1), float64, (B,); if they are uniform the estimate has no bias.
            start: the earliest time.
            end: the latest time.
            rng: source of randomness.
        """
        t, weight = self.warp(u, start, end)
        return Visit(self.sample(x1, t, rng=rng), t, weight)

    @abstractmethod
    def _source(self, n: int, rng: torch.Generator | None) -> State: ...

    @abstractmethod
    def _sample(self, x1: State, t: Tensor, x0: State | None, rng: torch.Generator | None) -> State: ...

    def _log_prob(self, x: State, t: Tensor, x1: State) -> Tensor:
        raise GenmatchError(f"{type(self).__name__} has no density; the oracle and likelihoods need one.")


def check_schedule(schedule: Schedule) -> Schedule:
    """Returns `schedule`, or raises `GenmatchError` if it is not one."""
    if not isinstance(schedule, Schedule):
        raise GenmatchError(f"`schedule` must be a Schedule, got {schedule!r}; pass e.g. `gm.schedules.CondOT()`.")
    return schedule


def with_kappa(schedule: Schedule) -> Schedule:
    """Returns `schedule`, or raises `GenmatchError` if it is not one, or has no kappa: some share of the way for each time in [0, 1]."""
    check_schedule(schedule).kappa(torch.zeros(1))
    return schedule
