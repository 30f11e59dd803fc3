"""Solvers for pure jump processes on tokens, with the rates frozen during a step.

Both are kept for comparison: `exact` costs the same, has a smaller error and finishes. Where every jump leads to data, as
with the mask, and kappa = t, Algorithm 7 is the exact step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators import Jump, Sum
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import JUMP, Predict, Solver
from genmatch.tensors import bernoulli, expand


class Algorithm7(Solver):
    """Each token leaves with probability h times its exit rate, at most 1; the lecture's Euler step. Order 1, one call a step."""

    order = 1
    calls = 1
    kinds = JUMP

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        jump = _exits(process, predict, x, t)
        jumps = bernoulli((expand(s - t, x) * jump.intensity).clamp(max=1), x, rng=rng)
        return x.masked_scatter(jumps, jump.destination.sample(jumps, rng=rng).to(x.dtype))


class TauLeaping(Solver):
    """Each token leaves with probability 1 - exp(-h times its exit rate); order 1, one call a step."""

    order = 1
    calls = 1
    kinds = JUMP

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return _exits(process, predict, x, t).step(x, s - t, rng=rng)


def jump_of(process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor) -> Jump:
    """The jumps of a process at states `x` and times `t`; raises `GenmatchError` if its generator has none."""
    jump = Sum(*process.generator(predict(x, t), x, t).terms).jump
    if jump is None:
        raise GenmatchError(f"{type(process).__name__} declares jumps, but its generator has none; correct its `kinds`.")
    return jump


def _exits(process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor) -> Jump:
    return jump_of(process, predict, x, t).without_self_jumps(x)
