"""Real vectors, R^d."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.spaces.base import Space, TestFunction
from genmatch.spaces.reference import Reference, normal_like
from genmatch.spaces.validation import as_tensor, check_dtype, check_shape, check_vectors
from genmatch.tensors import State


@dataclass(frozen=True)
class Euclidean(Space):
    """Real vectors or images, R^d with d = prod(shape).

    Args:
        shape: the shape of one state, such as (2,) or (1, 8, 8).
        dtype: of the noise that starts a path, and of prepared data. States of other floating dtypes are valid too.

    Example:
        >>> Euclidean((2,)).validate(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        check_dtype(self.dtype, "a Euclidean space")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def validate(self, x: State, name: str = "x") -> Tensor:
        check_vectors(x, self.shape, name, self)
        return x

    def prepare(self, data: Any, name: str = "data") -> Tensor:
        return self.validate(as_tensor(data, name), name).to(self.dtype)

    def random(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, *self.shape, dtype=self.dtype, generator=rng, device=rng.device if rng else None)

    def squared_distances(self, x: Tensor, y: Tensor) -> Tensor:
        # By differences: through scalar products near points would lose their digits.
        return torch.cdist(x.double().flatten(1), y.double().flatten(1), compute_mode="donot_use_mm_for_euclid_dist") ** 2

    def reference(self, x: Tensor) -> Reference:
        return normal_like(x)

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Cosines of random directions, with angular frequencies in [0.8, 2]."""
        return waves(n, self.size, (0.8, 2.0), rng=rng)


def waves(n: int, size: int, frequencies: tuple[float, float], scale: float = 1.0, *, rng: torch.Generator | None = None) -> list[TestFunction]:
    """`n` cosines along random directions of R^size, functions of states (B, *shape).

    Args:
        n: how many.
        size: coordinates a state.
        frequencies: between which the angular frequencies lie.
        scale: what they are multiplied by.
        rng: source of randomness.
    """
    low, high = frequencies
    direction = torch.randn(n, size, dtype=torch.float64, generator=rng)
    frequency = (low + (high - low) * torch.rand(n, 1, dtype=torch.float64, generator=rng)) * scale
    phase = 2 * math.pi * torch.rand(n, dtype=torch.float64, generator=rng)
    return [_wave(w, b) for w, b in zip(frequency * direction / direction.norm(dim=1, keepdim=True), phase, strict=True)]


def _wave(frequency: Tensor, phase: Tensor) -> TestFunction:
    def f(x: Tensor) -> Tensor:
        return torch.cos(x.flatten(1) @ frequency.to(x.dtype) + phase.to(x.dtype))

    return f
