"""Tokens, with or without the mask."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.spaces.base import Space, TestFunction
from genmatch.spaces.reference import Reference, tokens_like
from genmatch.spaces.validation import as_tensor, check_batch, check_shape
from genmatch.tensors import State


@dataclass(frozen=True)
class Categorical(Space):
    """Sequences or grids of tokens 0 .. vocab_size - 1, and the mask state vocab_size if there is one.

    Args:
        shape: the shape of one state, such as (256,) for text.
        vocab_size: number of tokens V of the data.
        mask: whether the states also include the mask, as state V.

    Example:
        >>> space = Categorical((3,), vocab_size=2, mask=True)
        >>> space.num_states, space.mask_id, len(space.enumerate())
        (3, 2, 27)
    """

    shape: tuple[int, ...]
    vocab_size: int
    mask: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "vocab_size", positive_integer(self.vocab_size, "vocab_size"))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def num_states(self) -> int:
        """States a position: V, or V + 1 with the mask."""
        return self.vocab_size + self.mask

    @property
    def mask_id(self) -> int:
        """The state that stands for "not yet known".

        Raises:
            GenmatchError: if there is no mask.
        """
        if not self.mask:
            raise GenmatchError(f"{self} has no mask; use a path with source='mask'.")
        return self.vocab_size

    @property
    def cardinality(self) -> int:
        """Number of different states, num_states ** size."""
        return self.num_states**self.size

    def validate(self, x: State, name: str = "x") -> Tensor:
        check_batch(x, self.shape, name)
        if x.dtype != torch.int64:
            raise GenmatchError(f"`{name}` must hold int64 tokens for {self}, got {x.dtype}; pass `{name}.long()`.")
        low, high = int(x.min()), int(x.max())
        if low < 0 or high >= self.num_states:
            extra = " (the mask is not data)" if high == self.vocab_size and not self.mask else ""
            found = low if low < 0 else high
            raise GenmatchError(
                f"`{name}` must hold tokens 0 to {self.num_states - 1}, got {found}{extra}; "
                f"check the tokeniser or set vocab_size to at least {max(high, 0) + 1}."
            )
        return x

    def complete(self, x: State, token: int) -> Tensor:
        return x.masked_fill(x >= self.vocab_size, min(token, self.vocab_size - 1))

    def prepare(self, data: Any, name: str = "data") -> Tensor:
        data = as_tensor(data, name)
        if data.is_floating_point() or data.is_complex() or data.dtype == torch.bool:
            raise GenmatchError(f"`{name}` must hold integer tokens for {self}, got {data.dtype}; round and pass `.long()`.")
        return self.validate(data.to(torch.int64), name)

    def reference(self, x: Tensor) -> Reference:
        return tokens_like(x, self.num_states)

    def random(self, n: int, *, rng: torch.Generator | None = None) -> Tensor:
        return torch.randint(self.num_states, (n, *self.shape), generator=rng, device=rng.device if rng else None)

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Cosines of a sum of random angles, one for each token: of all positions and of two of them in turn."""
        functions = []
        for i in range(n):
            used = torch.randperm(self.size, generator=rng)[: self.size if i % 2 == 0 else 2]
            angle = torch.zeros(self.size, self.num_states, dtype=torch.float64)
            angle[used] = torch.randn(len(used), self.num_states, dtype=torch.float64, generator=rng) * (2 / len(used)) ** 0.5
            functions.append(_token_wave(angle))
        return functions

    def enumerate(self, limit: int = 20_000) -> Tensor:
        """Every state, shape (cardinality, *shape), the last position changing fastest.

        Raises:
            GenmatchError: if there are more than `limit`.
        """
        if self.cardinality > limit:
            raise GenmatchError(f"{self} has {self.cardinality} states, more than {limit}; use fewer positions or tokens.")
        states = itertools.product(range(self.num_states), repeat=self.size)
        return torch.tensor(list(states)).reshape(-1, *self.shape)

    def index(self, x: Tensor) -> Tensor:
        """The row of `enumerate()` at which each state stands, shape (B,)."""
        powers = self.num_states ** torch.arange(self.size - 1, -1, -1, device=x.device)
        return (x.flatten(1) * powers).sum(-1)


def _token_wave(angle: Tensor) -> TestFunction:
    """cos(sum_j angle[j, x_j])."""
    position = torch.arange(len(angle))

    def f(x: Tensor) -> Tensor:
        return torch.cos(angle[position, x.flatten(1)].sum(-1))

    return f
