r"""Churn: each step first goes back a little way by adding fresh noise, and removes it again together with the step's own.

With $\lambda = \log(\alpha / \sigma)$, a step from t to s starts at the earlier time r of

    lambda_r = lambda_t - min(amount (lambda_s - lambda_t), log sqrt(2)),
    X_r = (alpha_r / alpha_t) X_t + sqrt(sigma_r^2 - (alpha_r sigma_t / alpha_t)^2) xi.

The law is p_r again, exactly, and forgets part of the errors that were made before. As the way back is in proportion to the step, the order
of the inner solver is kept.

Source: "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022), https://arxiv.org/abs/2206.00364,
algorithm 2, with the way back measured by the step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import Predict, Solver
from genmatch.solvers.denoising import denoising_of
from genmatch.solvers.ode import Heun


class Churn(Solver):
    """Fresh noise before each step of Heun's method, or of another solver of flows; order and calls are that solver's.

    Args:
        solver: takes the steps; Heun's method by default.
        amount: how far to go back, in steps; non-negative.

    Raises:
        GenmatchError: if `solver` is not one, or `amount` is negative or infinite.
    """

    order: float = Heun.order
    calls: int | None = Heun.calls
    kinds = Heun.kinds
    needs: tuple[str, ...] = ("renoise",)

    def __init__(self, solver: Solver | None = None, amount: float = 0.3) -> None:
        self.solver = Heun() if solver is None else solver
        if not isinstance(self.solver, Solver):
            raise GenmatchError(f"`solver` must be a Solver, got {solver!r}; pass e.g. `gm.solvers.get('heun')`.")
        self.amount = number_in("[0, inf)", amount, "amount", "0 adds no noise")
        self.order, self.calls, self.rowwise = self.solver.order, self.solver.calls, self.solver.rowwise
        self.kinds, self.needs = self.solver.simulates(Heun.kinds), (*self.solver.needs, "renoise")

    def start(self) -> Churn:
        return Churn(self.solver.start(), self.amount)

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        denoising = denoising_of(process)
        schedule = denoising.path.schedule
        now = schedule.log_snr(t)
        back = (self.amount * (schedule.log_snr(s) - now)).clamp(max=math.log(2) / 2)
        # What is noise and nothing else cannot be noised further; nor may a state go where a prediction says nothing.
        r = torch.where(now.isneginf() | (back <= 0), t, schedule.time_at_log_snr(now - back)).clamp(min=process.t_min)
        r = torch.minimum(r, t)
        return self.solver.step(process, predict, denoising.renoise(x, t, r, rng=rng), r, s, rng=rng)
