"""Solvers for every process."""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import Predict, Solver
from genmatch.tensors import State


class Exact(Solver):
    """The process's own transition: exact while the prediction does not change, order 1, one call a step."""

    order = 1
    calls = 1
    needs = ("transition",)
    sparse = True

    def step(self, process: MarkovProcess, predict: Predict, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        return process.transition(predict(x, t), x, t, s, rng=rng)


class Euler(Solver):
    """One first-order draw of the generator, whatever its terms are; order 1, one call a step."""

    order = 1
    calls = 1

    def step(self, process: MarkovProcess, predict: Predict, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        return process.generator(predict(x, t), x, t).step(x, s - t, rng=rng)


class Finish(Solver):
    """The last step, into t = 1: the process's own draw of the data that its prediction leads to. `simulate` takes it."""

    order = 1
    calls = 1
    needs = ("finish",)
    sparse = True

    def step(self, process: MarkovProcess, predict: Predict, x: State, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> State:
        return process.finish(predict(x, t), x, t, rng=rng)
