r"""Where to look along a path when an integral over time is estimated.

A likelihood bound is an integral of a rate of divergence that grows without limit towards one end of time. Under a time
$t(u)$, $\int f\,dt = \int_0^1 f(t(u))\,t'(u)\,du$ has a bounded integrand, or at least one of finite variance:

    tokens      kappa = u^2 (3 - 2 u)            the rates grow as 1 / (1 - kappa) and, for reversal rates, as 1 / kappa
    vectors     log(1 + SNR) linear in u         the rate is dSNR/dt |x1 - x1'|^2 / 2, and |x1 - x1'|^2 falls as 1 / (1 + SNR)

with $\mathrm{SNR} = \alpha^2 / \sigma^2$. Uniform times instead have infinite variance: for the mask, the integral of dt / (1 - t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.schedules import Schedule
from genmatch.tensors import State

EARLIEST = 1e-3
"""The earliest time at which a network is asked, where its output says nothing of a generator at t = 0."""

LATEST = 0.999
"""Where a likelihood bound takes the last step into the data, where rates of divergence have no finite integral up to t = 1."""

_EDGE = 1e-6
_HALVINGS = 60


@dataclass(frozen=True)
class Visit:
    """States at which a rate is looked at, so that the mean of `weight * rate` estimates its integral over time.

    Attributes:
        x: states, (B, *shape).
        t: times, float64, (B,).
        weight: in units of time, float64, (B,).
    """

    x: State
    t: Tensor
    weight: Tensor


def smooth_step(u: Tensor) -> tuple[Tensor, Tensor]:
    """u^2 (3 - 2 u), which is flat at both ends of [0, 1], and its derivative.

    Example:
        >>> smooth_step(torch.tensor([0.0, 0.5, 1.0]))
        (tensor([0.0000, 0.5000, 1.0000]), tensor([0.0000, 1.5000, 0.0000]))
    """
    return u**2 * (3 - 2 * u), 6 * u * (1 - u)


def off_the_ends(u: Tensor) -> Tensor:
    """Numbers `u` of [0, 1] kept away from both ends, where t(u) would round to an end of the integral."""
    return u.clamp(_EDGE, 1 - _EDGE)


def time_of_kappa(schedule: Schedule, kappa: Tensor, sigma: Tensor) -> Tensor:
    """The time at which a token is data with probability `kappa` = 1 - `sigma`; both are given, as small ones lose their digits otherwise."""
    return _search(lambda t: torch.where(kappa < 0.5, schedule.kappa(t) < kappa, schedule.sigma(t) > sigma), kappa, 0.0, 1.0)


def by_kappa(schedule: Schedule, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
    """Times t(u) in [start, end] and dt/du, float64, (B,): kappa takes a smooth step."""
    ends = torch.tensor([start, end], dtype=torch.float64, device=u.device)
    (kappa_0, kappa_1), (sigma_0, sigma_1) = schedule.kappa(ends), schedule.sigma(ends)
    step, slope = smooth_step(u)
    rest = (1 - u) ** 2 * (1 + 2 * u)
    t = time_of_kappa(schedule, kappa_0 + (kappa_1 - kappa_0) * step, sigma_1 + (sigma_0 - sigma_1) * rest)
    return t, (kappa_1 - kappa_0) * slope / schedule.d_kappa(t)


def by_snr(schedule: Schedule, u: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
    """Times t(u) in [start, end] and dt/du, float64, (B,): log(1 + SNR) is linear in u.

    Raises:
        GenmatchError: if no noise is left at `end`.
    """

    def level(t: Tensor) -> Tensor:
        return torch.log1p((schedule.alpha(t) / schedule.sigma(t)) ** 2)

    if not bool(schedule.sigma(torch.tensor(end, dtype=torch.float64)) > 0):
        raise GenmatchError(f"states have no noise left at t = {end:g}, and data with a density cannot be read off them; pass `t_end` below 1.")
    low, high = level(torch.tensor([start, end], dtype=torch.float64, device=u.device))
    t = _search(lambda t: level(t) < low + (high - low) * u, u, start, end)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return t, (high - low) * sigma * (sigma**2 + alpha**2) / (2 * alpha * schedule.delta(t))


def _search(below: Callable[[Tensor], Tensor], like: Tensor, low: float, high: float) -> Tensor:
    """The time in [low, high] up to which `below` holds, by bisection."""
    left, right = torch.full_like(like, low), torch.full_like(like, high)
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        left, right = torch.where(below(middle), middle, left), torch.where(below(middle), right, middle)
    return (left + right) / 2
