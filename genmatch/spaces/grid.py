"""Real coordinates that only take given levels, such as the grey levels of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.spaces.base import Space, TestFunction
from genmatch.spaces.euclidean import Euclidean
from genmatch.tensors import State

_SLACK = 1e-6
"""How far data may be from their level, in units of the largest: the rounding of float32."""


class Grid(Space):
    """Points of R^d whose coordinates lie on levels: data for a process that predicts a law over the levels.

    Args:
        shape: the shape of one state, such as (1, 8, 8).
        levels: the values that a coordinate can have, at least two, increasing.
        dtype: of prepared data. States of other floating dtypes are valid too.

    Raises:
        GenmatchError: if the levels are not finite and increasing, or fewer than two.

    Example: data are moved to the nearest level.
        >>> Grid((2,), [-1.0, 0.0, 1.0]).prepare(torch.tensor([[0.9, -0.2]]))
        tensor([[1., 0.]])
    """

    def __init__(self, shape: tuple[int, ...], levels: Sequence[float] | Tensor, dtype: torch.dtype = torch.float32) -> None:
        self._vectors = Euclidean(shape, dtype)
        self.levels = _check_levels(levels)
        gaps = self.levels.diff()
        self._low = float(self.levels[0] - gaps[0] / 2)
        self._high = float(self.levels[-1] + gaps[-1] / 2)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one state."""
        return self._vectors.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of prepared data."""
        return self._vectors.dtype

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def size(self) -> int:
        return self._vectors.size

    def __repr__(self) -> str:
        return f"Grid({self.shape}, {self.num_levels} levels from {self.levels[0]:g} to {self.levels[-1]:g})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self._vectors == other._vectors and torch.equal(self.levels, other.levels)

    def __hash__(self) -> int:
        return hash((self._vectors, tuple(self.levels.tolist())))

    def nearest(self, x: Tensor) -> Tensor:
        """The number of the nearest level for each coordinate, int64, (B, *shape)."""
        middles = (self.levels[1:] + self.levels[:-1]) / 2
        return torch.bucketize(x.double().contiguous(), middles.to(x.device))

    def at(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """The levels with these numbers, in `dtype`, the shape of `index`."""
        return self.levels.to(index.device)[index].to(dtype)

    def holds(self, x: Tensor) -> Tensor:
        """Which coordinates lie on a level, up to rounding in the precision of `x`, (B, *shape): noise never does."""
        return self._gap(x) <= 4 * torch.finfo(x.dtype).eps

    def _gap(self, x: Tensor) -> Tensor:
        """The distance to the nearest level, in units of the largest."""
        return (x.double() - self.at(self.nearest(x), torch.float64)).abs() / float(self.levels.abs().max())

    def validate(self, x: State, name: str = "x") -> Tensor:
        self._vectors.validate(x, name)
        off = self._gap(x) > _SLACK
        if bool(off.any()):
            where = tuple(int(i) for i in off.nonzero()[0])
            raise GenmatchError(f"`{name}` must hold the levels of {self}, got {float(x[where]):.6g} at {where}; `prepare` moves values to the nearest level.")
        return x

    def prepare(self, data: Any, name: str = "data") -> Tensor:
        """Moves each value to the nearest level.

        Raises:
            GenmatchError: if a value lies more than half a gap outside the levels: rounding would change the data.
        """
        x = self._vectors.prepare(data, name)
        low, high = float(x.min()), float(x.max())
        if low < self._low or high > self._high:
            raise GenmatchError(
                f"`{name}` must lie in [{self._low:.4g}, {self._high:.4g}] for {self}, got {low:.6g} to {high:.6g}; scale it or choose other levels."
            )
        return self.settle(x)

    def settle(self, x: State) -> Tensor:
        return self.at(self.nearest(x), x.dtype)

    def random(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        index = torch.randint(self.num_levels, (n, *self.shape), generator=rng, device=rng.device if rng else None)
        return self.at(index, self.dtype)

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Those of R^d."""
        return self._vectors.test_functions(n, rng=rng)


def _check_levels(levels: Any) -> Tensor:
    try:
        values = torch.as_tensor(levels, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise GenmatchError(f"`levels` must be increasing numbers, got {levels!r}; pass e.g. `torch.linspace(-1, 1, 17)`.") from None
    increasing = values.dim() == 1 and len(values) > 1 and bool((values.diff() > 0).all()) and math.isfinite(float(values.sum()))
    if not increasing:
        raise GenmatchError(f"`levels` must be at least two increasing finite numbers, got shape {tuple(values.shape)}; pass e.g. `torch.linspace(-1, 1, 17)`.")
    return values
