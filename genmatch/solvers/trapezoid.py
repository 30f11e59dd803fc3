r"""Solvers of two stages, which extrapolate the posterior over the step instead of freezing it.

In the time $\tau = -\log(1 - \kappa_t)$ a token that can be noise is redrawn from its posterior $\pi$ at rate 1. A first stage
redraws with $\pi_t(x)$ up to a time $\rho$ inside the step and leads to $x^*$; a second goes on from $x^*$ with the rates

    r_v = [a1 pi*_v - a2 pi_v]_+,     a1 = 1 / (2 theta (1 - theta)),   a2 = a1 - 1,

for $\pi^*$ the posterior at $(x^*, \rho)$ and $\theta$ the share of the first stage in $\tau$. The extrapolation makes order 2 while
nothing is cut off by the positive part, and order 1 where a token becomes much less likely once another is known.

Sources: "Fast Solvers for Discrete Diffusion Models" (Ren et al., 2025), https://arxiv.org/abs/2502.00234, algorithm 2, here
with a redraw in the place of each jump, so that both stages count redraws alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmatch.errors import number_in
from genmatch.logits import Indexed, draw_where
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import JUMP, Predict, Solver
from genmatch.solvers.chains import chain_of, redraw
from genmatch.tensors import bernoulli, expand, uniforms

_NEEDS = ("posterior", "is_noise", "redrawing")


class ThetaTrapezoidal(Solver):
    """The trapezoidal rule for tokens, theta-trapezoidal: order 2 while nothing is clipped, 1 in general, two calls a step.

    The last step, into t = 1, lasts infinitely long in tau and is left to the process.

    Args:
        theta: where in the step the second stage starts, in (0, 1).

    Raises:
        GenmatchError: if `theta` lies elsewhere.
    """

    order = 1
    calls = 2
    kinds = JUMP
    needs = _NEEDS
    sparse = True

    def __init__(self, theta: float = 0.5) -> None:
        self.theta = number_in("(0, 1)", theta, "theta", "0.5 is the trapezoidal rule")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        chain = chain_of(process)
        sigma_t, duration = chain.redrawing.sigma(t), -torch.log1p(-chain.redrawing.jump_probability(t, s))
        rho = chain.redrawing.time_at(sigma_t * torch.exp(-self.theta * duration))
        before = chain.posterior(predict(x, t), x, t)
        early = bernoulli(expand(-torch.expm1(-self.theta * duration), x), x, rng=rng) & chain.is_noise(x)
        y = redraw(x, early, before, rng)
        after = chain.posterior(predict(y, rho), y, rho)
        a1, rest = _a1(self.theta), (1 - self.theta) * duration
        # The rate is at most a1: first which tokens could be redrawn, and only there whether they are.
        could = bernoulli(expand(-torch.expm1(-a1 * rest), y), y, rng=rng) & chain.is_noise(y)
        drawn = draw_where(_Thinned(after, before, a1, rest), could, uniforms(y, rng=rng))
        return y.masked_scatter(could, torch.where(drawn < before.shape[-1], drawn, y[could]))


class AnalyticTrapezoid(Solver):
    """Two stages of exact jumps, the second towards the extrapolated posterior, normalised; order 1, often nearly 2, two calls a step.

    Each stage redraws with the exact probability of its half of the step, so that nothing is left over at t = 1 and the last
    step needs no other method.
    """

    order = 1
    calls = 2
    kinds = JUMP
    needs = _NEEDS
    sparse = True
    finishes = True

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        chain, rho = chain_of(process), (t + s) / 2
        before = chain.posterior(predict(x, t), x, t)
        early = bernoulli(expand(chain.redrawing.jump_probability(t, rho), x), x, rng=rng) & chain.is_noise(x)
        y = redraw(x, early, before, rng)
        after = chain.posterior(predict(y, rho), y, rho)
        late = bernoulli(expand(chain.redrawing.jump_probability(rho, s), y), y, rng=rng) & chain.is_noise(y)
        return redraw(y, late, _Extrapolated(after, before, _a1(0.5)), rng)


def _a1(theta: float) -> float:
    return 1 / (2 * theta * (1 - theta))


class _Extrapolated(Indexed):
    """Logits of the rates r_v of the second stage, read where they are asked for."""

    def __init__(self, after: Any, before: Any, a1: float) -> None:
        self.after, self.before, self.a1 = after, before, a1
        self.shape = before.shape

    def expect(self, where: Tensor) -> None:
        for part in (self.after, self.before):
            if isinstance(part, Indexed):
                part.expect(where)

    def rates(self, where: Tensor) -> Tensor:
        late, early = self.after[where].double().softmax(-1), self.before[where].double().softmax(-1)
        return (self.a1 * late - (self.a1 - 1) * early).clamp(min=0)

    def __getitem__(self, where: Tensor) -> Tensor:
        return self.rates(where).log()


class _Thinned(Indexed):
    """The same, with a last outcome: that a coordinate at which a redraw of rate a1 came is not redrawn after all."""

    def __init__(self, after: Any, before: Any, a1: float, rest: Tensor) -> None:
        self.law, self.rest = _Extrapolated(after, before, a1), rest
        self.shape = before.shape

    def expect(self, where: Tensor) -> None:
        self.law.expect(where)

    def __getitem__(self, where: Tensor) -> Tensor:
        rates = self.law.rates(where)
        total = rates.sum(-1, keepdim=True)
        rest = expand(self.rest, where).expand(where.shape)[where].unsqueeze(-1)
        accept = torch.expm1(-rest * total) / torch.expm1(-rest * self.law.a1)
        return torch.cat([accept * rates / total, (1 - accept).clamp(min=0)], -1).log()
