r"""Grids of times: where the steps of a simulation end. They know nothing of the solver or the process.

    uniform   t_i = i / N
    cosine    t_i = 1 - cos(pi i / 2 N), short steps where there is little but noise

Which is better depends on the data: early tokens are drawn with more care on the cosine grid, late ones with less.

Source: "Simplified and Generalized Masked Diffusion for Discrete Data" (Shi et al., 2024), https://arxiv.org/abs/2406.04329
(the cosine grid).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer, unknown

Grid = Callable[[int], Tensor]
"""From a number of steps to times, (steps + 1,)."""


def uniform(steps: int) -> Tensor:
    """Equal steps from 0 to 1, float64, (steps + 1,)."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def cosine(steps: int) -> Tensor:
    """Steps that grow from noise to data, float64, (steps + 1,)."""
    # 2 sin^2(a / 2) = 1 - cos(a), without the digits that cancel near 0; the end is exact.
    times = 2 * torch.sin(math.pi / 4 * uniform(steps)) ** 2
    times[-1] = 1.0
    return times


GRIDS: dict[str, Grid] = {"uniform": uniform, "cosine": cosine}
"""Grids by name."""


def time_grid(steps: int, grid: str | Grid = "uniform") -> Tensor:
    """Times from 0 to 1, float64, (steps + 1,).

    Args:
        steps: how many steps.
        grid: "uniform", "cosine", or a function from a number of steps to times.

    Raises:
        GenmatchError: if the grid is unknown.

    Example:
        >>> time_grid(3, "cosine")
        tensor([0.0000, 0.1340, 0.5000, 1.0000], dtype=torch.float64)
    """
    steps = positive_integer(steps, "steps")
    if callable(grid):
        return grid(steps)
    if not isinstance(grid, str):
        raise GenmatchError(f"`grid` must be a name or a function from a number of steps to times, got {grid!r}; pass times of your own as `times`.")
    if grid not in GRIDS:
        raise unknown("grid", grid, list(GRIDS))
    return GRIDS[grid](steps)


__all__ = ["GRIDS", "Grid", "cosine", "time_grid", "uniform"]
