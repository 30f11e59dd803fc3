r"""Solvers on a circle, where the slope of a flow is smooth and finite at both ends for every schedule.

Gaussian data of standard deviation $\varsigma$ stand still in the coordinates

    y = x / rho,   rho^2 = varsigma^2 alpha^2 + sigma^2,   tan(theta) = varsigma alpha / sigma,
    dy/dtheta = cos(theta) E[x1 | x] / varsigma - sin(theta) E[x0 | x],

in which any method for ordinary differential equations may step. *Adams* integrates the polynomial through the last slopes: it predicts,
and the call at the end, which the next step needs anyway, corrects the step with one slope more. *Runge-Kutta* asks within the step.

Sources: "Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models" (Lu & Song, 2024), https://arxiv.org/abs/2410.11081
(the circle); "UniPC" (Zhao et al., 2023), https://arxiv.org/abs/2302.04867 (the correction that costs no call); "Solving Ordinary
Differential Equations I" (Hairer, Norsett & Wanner, 1993), sections II.1 and III.5 (the methods).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in, positive_integer
from genmatch.processes.base import MarkovProcess
from genmatch.schedules import Schedule
from genmatch.solvers.base import DRIFT, Predict, Solver
from genmatch.solvers.denoising import denoising_of
from genmatch.tensors import expand

_GAUSS = torch.tensor([[0.5 - math.sqrt(1 / 12)], [0.5 + math.sqrt(1 / 12)]], dtype=torch.float64)
"""Nodes in (0, 1) of the rule of equal weights."""


class Circle(Solver):
    """What solvers on the circle share: the coordinates, and the slope there.

    Args:
        scale: standard deviation of the data about which the circle is drawn. It changes the size of the error and not the law;
            between that of all the data and that of a part of them is good.

    Raises:
        GenmatchError: if `scale` is not positive and finite.
    """

    kinds = DRIFT
    needs = ("gain",)

    def __init__(self, scale: float = 0.5) -> None:
        self.scale = number_in("(0, inf)", scale, "scale", "0.5 suits data in [-1, 1]")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        denoising = denoising_of(process)
        schedule = denoising.path.schedule
        (start, rho), (end, rho_s) = self._polar(schedule, t), self._polar(schedule, s)

        def slope(x: Tensor, time: Tensor, theta: Tensor) -> Tensor:
            output = predict(x, time)
            data, noise = (denoising.predict(output, x, time, kind) for kind in ("data", "noise"))
            return expand(theta.cos() / self.scale, x) * data - expand(theta.sin(), x) * noise

        def later(y: Tensor, share: float) -> Tensor:
            theta = start + share * (end - start)
            time = s if share == 1 else schedule.time_at_log_snr((theta.tan() / self.scale).log())
            return slope(y * expand(self._polar(schedule, time)[1], y), time, theta)

        return expand(rho_s, x) * self._turned(x / expand(rho, x), slope(x, t, start), start, end, later)

    @abstractmethod
    def _turned(self, y: Tensor, slope: Tensor, start: Tensor, end: Tensor, later: Callable[[Tensor, float], Tensor]) -> Tensor:
        """The coordinates at the angle `end`, (B, *shape).

        Args:
            y: the coordinates at the angle `start`.
            slope: dy / dtheta there.
            start: the present angle, float64, (B,).
            end: the next one.
            later: the slope at other coordinates, after a share in (0, 1] of the step; each asks the network once.
        """

    def _polar(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """The angle theta and the radius rho of a time, float64, (B,)."""
        alpha, sigma = self.scale * schedule.alpha(t), schedule.sigma(t)
        return torch.atan2(alpha, sigma), torch.hypot(alpha, sigma)


class Adams(Circle):
    """Adams' predictor and corrector on a circle; order 3, one call a step, best on the grid "angle".

    Args:
        scale: standard deviation of the data about which the circle is drawn, see `Circle`.
        slopes: how many the corrector uses, 2 to 4; the predictor uses one less. With four the error of later steps falls faster, and the
            order is 3 still, as the first step has only two. Three are better for few calls.

    Raises:
        GenmatchError: if `slopes` is not 2, 3 or 4.

    Example:
        >>> import genmatch as gm
        >>> flow = gm.Flow(gm.paths.Gaussian((1,)))
        >>> model = gm.oracle(flow, torch.tensor([[-1.0], [1.0]]))
        >>> gm.sample(flow, model, 3, solver="adams", grid="angle", steps=12, seed=0).abs().round(decimals=2)
        tensor([[1.],
                [1.],
                [1.]])
    """

    order = 3
    calls = 1
    finishes = True

    def __init__(self, scale: float = 0.5, slopes: int = 3) -> None:
        super().__init__(scale)
        self.slopes = positive_integer(slopes, "slopes")
        if self.slopes not in (2, 3, 4):
            raise GenmatchError(f"`slopes` must be 2, 3 or 4, got {slopes!r}; 3 is the default.")
        self.order = min(self.slopes, 3)
        self._last: _Turn | None = None

    def start(self) -> Adams:
        return Adams(self.scale, self.slopes)

    def _turned(self, y: Tensor, slope: Tensor, start: Tensor, end: Tensor, later: Callable[[Tensor, float], Tensor]) -> Tensor:
        known, last = [(start, slope)], self._last
        if last is not None and last.leads_to(y, start):
            known += last.known[: self.slopes - 1]
            y = y + _area(known, last.start, start) - last.move
        move = _area(known[: self.slopes - 1], start, end)
        self._last = _Turn(start, end, move, known)
        return y + move


@dataclass(frozen=True)
class _Turn:
    """A predicted step from the angle `start` to `end`: the `move` made, and the angles and slopes known then, the last first."""

    start: Tensor
    end: Tensor
    move: Tensor
    known: list[tuple[Tensor, Tensor]]

    def leads_to(self, y: Tensor, theta: Tensor) -> bool:
        """Whether coordinates `y` at the angle `theta` are where that step ended."""
        return self.move.shape == y.shape and bool((self.end == theta).all())


def _area(known: list[tuple[Tensor, Tensor]], start: Tensor, end: Tensor) -> Tensor:
    """The integral from `start` to `end` of the polynomial through known slopes, by its Lagrange basis and Gauss's two nodes, exact up to degree 3."""
    angles, itself = torch.stack([angle for angle, _ in known]), torch.eye(len(known), dtype=torch.bool, device=start.device).unsqueeze(-1)
    nodes = start + (end - start) * _GAUSS.to(start.device)
    shares = (nodes.view(2, 1, 1, -1) - angles) / (angles.unsqueeze(1) - angles + itself)
    weights = (end - start) * shares.masked_fill(itself, 1).prod(2).mean(0)
    slopes = torch.stack([slope for _, slope in known])
    return (weights.to(slopes.dtype).reshape(*weights.shape, *[1] * (slopes.dim() - 2)) * slopes).sum(0)


class RungeKutta(Circle):
    """A Runge-Kutta method on a circle. It asks at the end of a step, and so leaves the last one, into t = 1, to the process."""

    tableau: tuple[tuple[float, ...], ...]
    """What each stage after the first takes of the slopes before it; the last row makes the step."""

    def _turned(self, y: Tensor, slope: Tensor, start: Tensor, end: Tensor, later: Callable[[Tensor, float], Tensor]) -> Tensor:
        slopes, h = [slope], expand(end - start, y)
        for row in self.tableau[:-1]:
            slopes.append(later(y + h * _combined(row, slopes), sum(row)))
        return y + h * _combined(self.tableau[-1], slopes)


def _combined(row: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return torch.stack([share * slope for share, slope in zip(row, slopes, strict=True) if share]).sum(0)


class CircleRK4(RungeKutta):
    """The Runge-Kutta method of the 3/8 rule on a circle; order 4, four calls a step, best on the grid "angle"."""

    order = 4
    calls = 4
    tableau = ((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0), (1 / 8, 3 / 8, 3 / 8, 1 / 8))


class CircleRK5(RungeKutta):
    """Butcher's Runge-Kutta method on a circle; order 5, six calls a step, best on the grid "angle"."""

    order = 5
    calls = 6
    tableau = (
        (1 / 4,),
        (1 / 8, 1 / 8),
        (0.0, -1 / 2, 1.0),
        (3 / 16, 0.0, 0.0, 9 / 16),
        (-3 / 7, 2 / 7, 12 / 7, -12 / 7, 8 / 7),
        (7 / 90, 0.0, 32 / 90, 12 / 90, 32 / 90, 7 / 90),
    )


def adams_4() -> Adams:
    """Adams' method on a circle with four slopes; order 3, one call a step, better than `adams` from about 16 calls on."""
    return Adams(slopes=4)
