r"""Grids of times: where the steps of a simulation end. They know nothing of the solver.

    uniform   t_i = i / N
    cosine    t_i = 1 - cos(pi i / 2 N), short steps where there is little but noise

and, for a schedule with $\lambda = \log(\alpha / \sigma)$, those that are even in another clock:

    angle     arctan(scale e^lambda) in equal steps, from noise to data
    log-snr   lambda in equal steps
    karras    e^(-lambda / 7) in equal steps, shorter ones where there is little noise

The last two run over what is finite of [-log 80, log 500]; if the schedule goes beyond, as most do, the first and the last
time are 0 and 1 all the same. Which grid is better depends on the data: early tokens are drawn with more care on the cosine grid,
late ones with less.

Sources: "Simplified and Generalized Masked Diffusion for Discrete Data" (Shi et al., 2024), https://arxiv.org/abs/2406.04329
(cosine); "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022),
https://arxiv.org/abs/2206.00364, eq. 5 (karras, and the range); "DPM-Solver" (Lu et al., 2022), https://arxiv.org/abs/2206.00927 (log-snr).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in, positive_integer, unknown
from genmatch.schedules import Schedule

Grid = Callable[[int], Tensor]
"""From a number of steps to times, (steps + 1,)."""

ScheduledGrid = Callable[[int, Schedule], Tensor]
"""From a number of steps and a schedule to times, (steps + 1,)."""

_MOST_NOISE, _LEAST_NOISE = 80.0, 0.002


def uniform(steps: int) -> Tensor:
    """Equal steps from 0 to 1, float64, (steps + 1,)."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def cosine(steps: int) -> Tensor:
    """Steps that grow from noise to data, float64, (steps + 1,)."""
    # 2 sin^2(a / 2) = 1 - cos(a), without the digits that cancel near 0; the end is exact.
    times = 2 * torch.sin(math.pi / 4 * uniform(steps)) ** 2
    times[-1] = 1.0
    return times


def angle(steps: int, schedule: Schedule, scale: float = 0.5) -> Tensor:
    """Equal steps of arctan(scale alpha / sigma), which is finite at both ends, float64, (steps + 1,).

    Args:
        steps: how many steps.
        schedule: alpha and sigma.
        scale: standard deviation of the data about which the circle is drawn.
    """
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    first, last = torch.atan2(scale * schedule.alpha(ends), schedule.sigma(ends)).tolist()
    return _at(schedule, torch.log(torch.tan(first + (last - first) * uniform(steps)) / scale))


def log_snr(steps: int, schedule: Schedule, most: float = _MOST_NOISE, least: float = _LEAST_NOISE) -> Tensor:
    """Equal steps of log(alpha / sigma), float64, (steps + 1,).

    Args:
        steps: how many steps.
        schedule: alpha and sigma.
        most: sigma / alpha at the start, if the schedule has as much.
        least: sigma / alpha at the end, if the schedule has as little.
    """
    high, low = _noise_range(schedule, most, least)
    return _at(schedule, -(math.log(high) + (math.log(low) - math.log(high)) * uniform(steps)))


def karras(steps: int, schedule: Schedule, rho: float = 7.0, most: float = _MOST_NOISE, least: float = _LEAST_NOISE) -> Tensor:
    """Equal steps of (sigma / alpha)^(1 / rho), float64, (steps + 1,).

    Args:
        steps: how many steps.
        schedule: alpha and sigma.
        rho: the larger, the shorter the steps where there is little noise.
        most: sigma / alpha at the start, if the schedule has as much.
        least: sigma / alpha at the end, if the schedule has as little.
    """
    high, low = _noise_range(schedule, most, least)
    root = high ** (1 / rho) + (low ** (1 / rho) - high ** (1 / rho)) * uniform(steps)
    return _at(schedule, -rho * torch.log(root))


def _noise_range(schedule: Schedule, most: float, least: float) -> tuple[float, float]:
    """The largest and the smallest sigma / alpha that a grid visits."""
    least = number_in("(0, inf)", least, "least", "it is a value of sigma / alpha")
    most = number_in(f"({least}, inf)", most, "most", "it is a value of sigma / alpha, more than `least`")
    first, last = torch.exp(-schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))).tolist()
    return min(most, first), max(least, last)


def _at(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """The times of these values, from 0 to 1."""
    times = schedule.time_at_log_snr(log_snr)
    times[0], times[-1] = 0.0, 1.0
    return times


GRIDS: dict[str, Grid] = {"uniform": uniform, "cosine": cosine}
"""Grids by name."""

SCHEDULED: dict[str, ScheduledGrid] = {"angle": angle, "log-snr": log_snr, "karras": karras}
"""Grids by name that depend on the schedule of the path."""


def time_grid(steps: int, grid: str | Grid = "uniform", schedule: Schedule | None = None) -> Tensor:
    """Times from 0 to 1, float64, (steps + 1,).

    Args:
        steps: how many steps.
        grid: "uniform" or "cosine"; with a schedule "angle", "log-snr" or "karras"; or a function from a number of steps to times, such as
            `lambda steps: gm.grids.karras(steps, schedule, rho=5)`.
        schedule: of the path.

    Raises:
        GenmatchError: if the grid is unknown, takes no number of steps, or needs a schedule and there is none.

    Example:
        >>> time_grid(3, "cosine")
        tensor([0.0000, 0.1340, 0.5000, 1.0000], dtype=torch.float64)
        >>> from genmatch.schedules import CondOT
        >>> time_grid(4, "log-snr", CondOT())
        tensor([0.0000, 0.1502, 0.7143, 0.9725, 1.0000], dtype=torch.float64)
    """
    steps = positive_integer(steps, "steps")
    if callable(grid):
        try:
            return grid(steps)
        except TypeError as error:
            raise GenmatchError(f"`grid` must be a function from a number of steps to times, and calling {grid!r} with {steps} failed: {error}.") from error
    if not isinstance(grid, str):
        raise GenmatchError(f"`grid` must be a name or a function from a number of steps to times, got {grid!r}; pass times of your own as `times`.")
    if grid in GRIDS:
        return GRIDS[grid](steps)
    if grid not in SCHEDULED:
        raise unknown("grid", grid, [*GRIDS, *SCHEDULED])
    if not isinstance(schedule, Schedule):
        raise GenmatchError(f"the grid {grid!r} is even in the clock of a schedule, and none was given; use a path with one schedule, or grid='uniform'.")
    return SCHEDULED[grid](steps, schedule)


__all__ = ["GRIDS", "SCHEDULED", "Grid", "ScheduledGrid", "angle", "cosine", "karras", "log_snr", "time_grid", "uniform"]
