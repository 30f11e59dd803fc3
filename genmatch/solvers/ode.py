"""Solvers for processes that only drift: ordinary differential equations dx/dt = u_t(x)."""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.generators import Sum
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import DRIFT, Predict, Solver
from genmatch.tensors import expand


class Midpoint(Solver):
    """Euler to the middle, then a full step with the velocity there; order 2, two calls a step."""

    order = 2
    calls = 2
    kinds = DRIFT

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        h = expand(s - t, x)
        middle = x + h / 2 * velocity_at(process, predict, x, t)
        return x + h * velocity_at(process, predict, middle, (t + s) / 2)


class Heun(Solver):
    """The mean of the velocities at both ends; order 2, two calls a step."""

    order = 2
    calls = 2
    kinds = DRIFT

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        h = expand(s - t, x)
        u_t = velocity_at(process, predict, x, t)
        u_s = velocity_at(process, predict, x + h * u_t, s)
        return x + h / 2 * (u_t + u_s)


class RK4(Solver):
    """The Runge-Kutta method of the 3/8 rule; order 4, four calls a step."""

    order = 4
    calls = 4
    kinds = DRIFT

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        h = expand(s - t, x)
        k1 = velocity_at(process, predict, x, t)
        k2 = velocity_at(process, predict, x + h / 3 * k1, t + (s - t) / 3)
        k3 = velocity_at(process, predict, x + h * (k2 - k1 / 3), t + (s - t) * 2 / 3)
        k4 = velocity_at(process, predict, x + h * (k1 - k2 + k3), s)
        return x + h / 8 * (k1 + 3 * k2 + 3 * k3 + k4)


class Dopri5(Solver):
    """Adaptive Dormand-Prince steps of torchdiffeq between the times of the grid; order 5, as many calls as it takes.

    Args:
        rtol: relative error that a step may make.
        atol: absolute error that a step may make.

    Raises:
        GenmatchError: if a tolerance is negative, or both are zero.
    """

    order = 5
    calls = None
    kinds = DRIFT

    def __init__(self, rtol: float = 1e-5, atol: float = 1e-6) -> None:
        self.rtol, self.atol = tolerances(rtol, atol)

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        from torchdiffeq import odeint

        # Without `step_t` torchdiffeq steps past the end and interpolates back; the field may not be defined there.
        def velocity(time: Tensor, state: Tensor) -> Tensor:
            return velocity_at(process, predict, state, time.to(t).expand_as(t))

        interval = torch.stack([t[0], s[0]])
        options = {"step_t": interval[1:], "dtype": interval.dtype}
        return odeint(velocity, x, interval, method="dopri5", rtol=self.rtol, atol=self.atol, options=options)[-1]


def tolerances(rtol: float, atol: float) -> tuple[float, float]:
    """Returns `rtol` and `atol` as floats, or raises `GenmatchError` if one is negative or infinite, or both are zero."""
    hint = "smaller is more exact, such as 1e-5"
    rtol, atol = number_in("[0, inf)", rtol, "rtol", hint), number_in("[0, inf)", atol, "atol", hint)
    if rtol == atol == 0:
        raise GenmatchError("`rtol` and `atol` must not both be zero, as no step would be small enough; pass e.g. atol=1e-6.")
    return rtol, atol


def velocity_at(process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor) -> Tensor:
    """The velocity that a process moves at, (B, *shape), for a generator that is a drift and nothing else."""
    return velocity_of(process, predict(x, t), x, t)


def velocity_of(process: MarkovProcess, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The same from the network's `output` at states `x` and times `t`."""
    drift = Sum(*process.generator(output, x, t).terms).drift
    return torch.zeros_like(x) if drift is None else drift.velocity
