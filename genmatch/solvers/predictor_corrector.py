r"""Solvers of two stages that share their noise: a first-order step predicts, and its end corrects.

*Stochastic Heun*, for $dX = b\,dt + g_t\,dW$ with noise that does not depend on the state, and $\xi$ of covariance $h (g_t^2 + g_s^2) / 2$:

    x* = x + h b_t(x) + xi,   X_s = x + h/2 (b_t(x) + b_s(x*)) + xi.

*Exponential Heun* does the same to the data prediction of a step that is exact while it does not change: with x* drawn from
the transition, $X_s = x^* + \frac12 \gamma\,(\hat x_1(x^*, s) - \hat x_1(x, t))$, where gamma is how far the step moves with the prediction.

Sources: "Numerical Solution of Stochastic Differential Equations" (Kloeden & Platen, 1992), section 15.1, order 2 in law for
additive noise; "DPM-Solver++" (Lu et al., 2022), https://arxiv.org/abs/2211.01095 (the single step on data predictions).
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.generators import Sum
from genmatch.processes.base import MarkovProcess
from genmatch.rows import normal
from genmatch.solvers.base import Predict, Solver
from genmatch.solvers.denoising import denoising_of
from genmatch.tensors import expand

_DIFFUSIVE = frozenset({"drift", "brownian"})


class ExponentialHeun(Solver):
    """The process's own step, corrected by the mean of the data predictions at both ends; order 2, two calls a step.

    It is exact at both ends of time, keeps the noise of the process and, without noise, is the single-step solver on data predictions.
    """

    order = 2
    calls = 2
    kinds = _DIFFUSIVE
    needs = ("transition", "gain")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        denoising, output = denoising_of(process), predict(x, t)
        y = process.transition(output, x, t, s, rng=rng)
        data = denoising.predict(output, x, t, "data")
        later = denoising.predict(predict(y, s), y, s, "data")
        return y + expand(denoising.gain(t, s) / 2, x) * (later - data)


class StochasticHeun(Solver):
    """The mean of the drifts at both ends of a step, with one noise for both; order 2 in law, two calls a step.

    For noise that does not depend on the state, as in `Diffusion`; without noise it is Heun's method.
    """

    order = 2
    calls = 2
    kinds = _DIFFUSIVE

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        h = expand(s - t, x)
        drift_t, variance_t = _terms(process, predict, x, t)
        unit = normal(x.shape, dtype=x.dtype, device=x.device, rng=rng)
        star = x + h * drift_t + (h * variance_t).sqrt() * unit
        drift_s, variance_s = _terms(process, predict, star, s)
        return x + h / 2 * (drift_t + drift_s) + (h / 2 * (variance_t + variance_s)).sqrt() * unit


def _terms(process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The drift and the variance of the noise, each (B, *shape) or broadcasting to it."""
    terms = Sum(*process.generator(predict(x, t), x, t).terms)
    zero = torch.zeros_like(x)
    return zero if terms.drift is None else terms.drift.velocity, zero if terms.brownian is None else terms.brownian.variance
