r"""Simulation of jumps event by event, with no error of discretisation.

While the state is $x$, every clock runs at most at rate $\Lambda_j \ge \lambda_j(x, \tau)$ for $\tau$ in [t, s]. Proposals come at the
constant rate $\sum_j \Lambda_j$; one at time $\tau$ belongs to coordinate $j$ with probability $\Lambda_j / \sum \Lambda$, and is kept with
probability $\lambda_j(x, \tau) / \Lambda_j$. What is kept is the jump process, whatever the grid.

Source: "Simulation of Nonhomogeneous Poisson Processes by Thinning" (Lewis & Shedler, 1979),
https://doi.org/10.1002/nav.3800260304.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, Unfinished, positive_integer
from genmatch.processes.base import MarkovProcess
from genmatch.solvers.base import JUMP, Predict, Solver
from genmatch.solvers.ctmc import jump_of

_SHARE = 1 / 8
"""The part of the time before t = 1 over which a bound is taken."""


class Thinning(Solver):
    """Every jump at its own time, by proposals that are kept or not: exact at each time of the grid, as many calls as it takes.

    Args:
        max_calls: network calls that a step may take before it is given up.

    Raises:
        GenmatchError: if `max_calls` is not a positive integer.
    """

    order = math.inf
    calls = None
    kinds = JUMP
    needs = ("intensity_bound",)

    def __init__(self, max_calls: int = 10_000) -> None:
        self.max_calls = positive_integer(max_calls, "max_calls")

    def step(self, process: MarkovProcess, predict: Predict, x: Tensor, t: Tensor, s: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        now = t
        for _ in range(self.max_calls):
            now, bound = _next_proposal(process, x, now, s, rng)
            running = now < s
            if not bool(running.any()):
                return x
            # A row that has arrived goes along, at a time where it was, and does not move.
            time = torch.where(running, now, t)
            jump = jump_of(process, predict, x, time)
            kept = _kept(bound, jump.intensity.double().flatten(1), running, rng).view_as(x)
            x = x.masked_scatter(kept, jump.destination.sample(kept, rng=rng).to(x.dtype))
        raise Unfinished(f"a step of Thinning took more than {self.max_calls} network calls; use solver='euler', or raise `max_calls`.")


def _next_proposal(process: MarkovProcess, x: Tensor, now: Tensor, s: Tensor, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """For each row the time of its next proposal, or `s`, and the bounds of its coordinates then, (B, D).

    Bounds are taken over a part of the time that is left before t = 1, so that they stay close to what they bound. Without a proposal in
    that part the row goes on to the next: this needs no network.
    """
    found = torch.zeros(len(x), x[0].numel(), dtype=torch.float64, device=x.device)
    waiting = now < s
    while bool(waiting.any()):
        end = torch.minimum(s, now + _SHARE * (1 - now))
        bound = process.intensity_bound(x, now, end).double().flatten(1)
        time = now + torch.empty_like(now).exponential_(generator=rng) / bound.sum(-1)
        hit = waiting & (time < end)
        found = torch.where(hit.unsqueeze(-1), bound, found)
        now = torch.where(waiting, torch.minimum(time, end), now)
        waiting = waiting & ~hit & (now < s)
    return now, found


def _kept(bound: Tensor, intensity: Tensor, running: Tensor, rng: torch.Generator | None) -> Tensor:
    """Which coordinate jumps in each sample, if any, (B, D)."""
    if bool((intensity > bound)[running].any()):
        worst = float((intensity / bound)[running].nan_to_num().max())
        raise GenmatchError(f"`intensity_bound` is too small, by a factor {worst:.3g}: mend it, as a bound must hold at all times from t to s.")
    # One uniform chooses the coordinate by its bound, and keeps the proposal if it falls into the lower part.
    height = torch.rand(len(bound), 1, dtype=torch.float64, device=bound.device, generator=rng) * bound.sum(-1, keepdim=True)
    start = bound.cumsum(-1) - bound
    return (height >= start) & (height < start + intensity) & running.unsqueeze(-1)
