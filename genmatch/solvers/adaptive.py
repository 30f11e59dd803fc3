r"""Adaptive steps, each sample with its own: one that is stiff does not slow the others.

A step of Dormand and Prince from $x$ by $h$ computes seven slopes and two solutions, of orders 5 and 4. Their difference estimates
the error; in units of what is allowed,

    e = rms((x5 - x4) / (atol + rtol max(|x|, |x5|))),

the step is taken where e <= 1, and the next one is min(10, max(0.2, 0.9 e^{-1/5})) times as long. All of this is done for each row
of the batch, and the network sees only the rows that have not arrived.

Source: "Solving Ordinary Differential Equations I" (Hairer, Norsett & Wanner, 1993), sections II.4 and II.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import Unfinished, positive_integer
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import DRIFT, Predict, Solver
from genmatch.solvers.ode import tolerances, velocity_of
from genmatch.tensors import expand

_STAGES = (
    (0.0, ()),
    (1 / 5, (1 / 5,)),
    (3 / 10, (3 / 40, 9 / 40)),
    (4 / 5, (44 / 45, -56 / 15, 32 / 9)),
    (8 / 9, (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729)),
    (1.0, (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656)),
    (1.0, (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)),
)
"""For each slope, where in the step it is taken and the weights of those before it; the last is taken at the solution of order 5."""

_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""The solution of order 5 less that of order 4, as weights of the slopes."""

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From states and times of all samples, and a mask of some, to the velocities of those."""


class Adaptive(Solver):
    """Dormand-Prince steps of its own length for each sample; order 5, as many calls as each sample takes.

    Args:
        rtol: relative error that a step may make.
        atol: absolute error that a step may make.
        max_calls: network calls that a sample may take between two times of the grid before it is given up.

    Raises:
        GenmatchError: if a tolerance is negative, both are zero, or `max_calls` is not a positive integer.

    Example:
        >>> import genmatch as gm
        >>> flow = gm.Flow(gm.paths.Gaussian((1,), dtype=torch.float64))
        >>> model = gm.oracle(flow, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
        >>> run = gm.simulate(flow, model, torch.tensor([[2.0], [0.001]], dtype=torch.float64), torch.tensor([0.0, 0.9]), solver="adaptive")
        >>> run.calls.tolist()
        [61, 187]
    """

    order = 5
    calls = None
    kinds = DRIFT
    rowwise = True

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-6, max_calls: int = 10_000) -> None:
        self.rtol, self.atol = tolerances(rtol, atol)
        self.max_calls = positive_integer(max_calls, "max_calls")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        velocity = _velocity(process, predict)
        now, slope = t.clone(), _replace(torch.zeros_like(x), t < s, velocity(x, t, t < s))
        h = self._first_length(x, slope, s - t)
        for _ in range((self.max_calls - 1) // (len(_STAGES) - 1)):
            going = now < s
            if not bool(going.any()):
                return x
            reach = torch.minimum(h, s - now)
            end, slopes = _stages(velocity, x, now, reach, slope, going)
            error = self._error(x[going], end, slopes, reach[going])
            taken = going.clone()
            taken[going] = error <= 1
            h = torch.where(going, reach, h)
            h[going] *= (0.9 * error.clamp(min=1e-12) ** -0.2).nan_to_num(0.2).clamp(0.2, 10.0)
            # The last step of a row ends on `s` itself, not on what rounding makes of it.
            now = torch.where(taken, torch.where(reach >= s - now, s, now + reach), now)
            x, slope = _replace(x, taken, end[error <= 1]), _replace(slope, taken, slopes[-1][error <= 1])
        late = now < s
        if not bool(late.any()):
            return x
        raise Unfinished(
            f"{int(late.sum())} of {len(x)} samples need more than {self.max_calls} network calls for the step to {float(s[late].max()):.6g}, the slowest "
            f"is at {float(now[late].min()):.6g}; raise `rtol`, `atol` or `max_calls`, or use a solver of fixed steps."
        )

    def _first_length(self, x: Tensor, slope: Tensor, span: Tensor) -> Tensor:
        """A length over which the state changes by about a hundredth, (B,)."""
        scale = self.atol + self.rtol * x.abs()
        size, speed = _rms(x / scale), _rms(slope / scale)
        return torch.minimum(0.01 * size.clamp(min=1.0) / speed.clamp(min=1e-12), span)

    def _error(self, x: Tensor, end: Tensor, slopes: list[Tensor], h: Tensor) -> Tensor:
        difference = expand(h, x) * _combined(_ERROR, slopes)
        return _rms(difference / (self.atol + self.rtol * torch.maximum(x.abs(), end.abs())))


def _velocity(process: MarkovProcess, predict: Any) -> Velocity:
    def velocity(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return velocity_of(process, predict(x, t, rows), x[rows], t[rows])

    return velocity


def _stages(velocity: Velocity, x: Tensor, t: Tensor, h: Tensor, slope: Tensor, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Where the rows end, by order 5, and their seven slopes."""
    step, slopes = expand(h[rows], x), [slope[rows]]
    for place, weights in _STAGES[1:]:
        end = x[rows] + step * _combined(weights, slopes)
        slopes.append(velocity(_replace(x, rows, end), t + place * h, rows))
    return end, slopes


def _combined(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return torch.stack([weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight]).sum(0)


def _replace(x: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """The states with others in some rows."""
    new = x.clone()
    new[rows] = values
    return new


def _rms(x: Tensor) -> Tensor:
    """Root mean square over the coordinates, float64, (B,)."""
    return x.double().flatten(1).square().mean(-1).sqrt()
