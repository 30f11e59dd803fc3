"""Solvers for diffusions and for other processes on a Gaussian path."""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.errors import number_in
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import Predict, Solver


class EulerMaruyama(Solver):
    """x + h u + g sqrt(h) xi, for drift and Brownian terms; order 1 in law, one call a step."""

    order = 1
    calls = 1
    kinds = frozenset({"drift", "brownian"})

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        return process.generator(predict(x, t), x, t).step(x, s - t, rng=rng)


class SDEExponential(Solver):
    """The linear SDE solved exactly with the data prediction frozen, from DDIM (eta 0) to ancestral sampling (eta 1).

    It simulates g^2 = eta^2 2 sigma Delta / alpha, whatever noise the process has: the marginals are the same. Order 1, one
    call a step; finite at both ends, where Euler-Maruyama is not.

    Source: "Elucidating the Solution Space of Extended Reverse-Time SDE" (Cui et al., 2023), https://arxiv.org/abs/2309.06169.

    Args:
        eta: how much noise is renewed, at least 0.

    Raises:
        GenmatchError: if `eta` is negative or infinite.
    """

    order = 1
    calls = 1
    kinds = frozenset({"drift", "brownian"})
    needs = ("bridge",)

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = number_in("[0, inf)", eta, "eta", "0 is DDIM and 1 ancestral sampling")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        schedule = process.path.schedule  # type: ignore[attr-defined]
        memory = schedule.alpha(t) * schedule.sigma(s) / (schedule.alpha(s) * schedule.sigma(t))
        return process.bridge(predict(x, t), x, t, s, memory ** (self.eta**2), rng=rng)  # type: ignore[attr-defined]
