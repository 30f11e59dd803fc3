"""Jumps of real coordinates towards data on a grid of levels."""

from __future__ import annotations

import torch
from torch import Tensor

from genmatch.paths.rates import Rates
from genmatch.spaces import Grid


class LevelRates(Rates):
    """One way to follow a path on R^d by jumps, from a posterior over the levels of each coordinate.

    Args:
        grid: where the data lie.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def moves(self, x: Tensor) -> Tensor:
        """Which coordinates can still jump, (B, *shape): all, unless a path knows data when it sees them."""
        return torch.ones_like(x, dtype=torch.bool)
