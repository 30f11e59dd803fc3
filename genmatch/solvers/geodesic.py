"""Solvers for motion along geodesics of a manifold, where velocities at different points cannot be added."""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Drift, Sum
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import Predict, Solver
from genmatch.tensors import expand


class GeodesicMidpoint(Solver):
    """Along a geodesic to the middle, then a full step with the velocity there; order 2, two calls a step.

    The velocity of the middle is brought back to the start by projection onto its tangent space, which differs from parallel
    transport by the square of the step: too little to cost the order.
    """

    order = 2
    calls = 2
    kinds = frozenset({"geodesic drift"})

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        h, start = expand(s - t, x), _drift(process, predict, x, t)
        space = start.space
        if space is None:
            raise GenmatchError(f"{type(process).__name__} declares a geodesic drift, but its drift has no space; pass one to `Drift`.")
        middle = space.exp(x, h / 2 * start.velocity)
        velocity = _drift(process, predict, middle, (t + s) / 2).velocity
        return space.exp(x, h * space.project(x, velocity))


def _drift(process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor) -> Drift:
    drift = Sum(*process.generator(predict(x, t), x, t).terms).drift
    if drift is None:
        raise GenmatchError(f"{type(process).__name__} declares a drift, but its generator has none; correct its `kinds`.")
    return drift
