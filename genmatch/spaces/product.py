"""Several modalities side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.spaces.base import Space, TestFunction
from genmatch.spaces.reference import Reference, product
from genmatch.tensors import State, batch_size, tree_map


class ProductSpace(Space):
    """Several modalities side by side; a state is a dictionary with one state for each.

    Args:
        spaces: the parts by name, such as `image=Euclidean((1, 8, 8)), text=Categorical((4,), 27)`.

    Raises:
        GenmatchError: if there is no part.

    Example:
        >>> from genmatch.spaces import Categorical, Euclidean
        >>> space = ProductSpace(image=Euclidean((2,)), text=Categorical((3,), 5))
        >>> sorted(space.random(4))
        ['image', 'text']
    """

    def __init__(self, **spaces: Space) -> None:
        if not spaces:
            raise GenmatchError("`ProductSpace` needs at least one part; pass e.g. `image=Euclidean((1, 8, 8))`.")
        self.parts: Mapping[str, Space] = spaces

    def __repr__(self) -> str:
        return f"ProductSpace({', '.join(f'{name}={space}' for name, space in self.parts.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProductSpace) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(tuple(self.parts.items()))

    @property
    def size(self) -> int:
        return sum(space.size for space in self.parts.values())

    def _zip(self, x: State, name: str) -> Iterator[tuple[str, Space, Any, str]]:
        if not isinstance(x, Mapping) or set(x) != set(self.parts):
            found = sorted(x) if isinstance(x, Mapping) else type(x).__name__
            raise GenmatchError(f"`{name}` must be a dictionary with keys {sorted(self.parts)}, got {found}.")
        for part, space in self.parts.items():
            yield part, space, x[part], f"{name}[{part!r}]"

    def _same_length(self, state: dict[str, State], name: str) -> dict[str, State]:
        lengths = {part: batch_size(value) for part, value in state.items()}
        if len(set(lengths.values())) > 1:
            raise GenmatchError(f"the parts of `{name}` must have the same number of samples, got {lengths}.")
        return state

    def validate(self, x: State, name: str = "x") -> State:
        return self._same_length({part: space.validate(value, label) for part, space, value, label in self._zip(x, name)}, name)

    def prepare(self, data: Any, name: str = "data") -> State:
        return self._same_length({part: space.prepare(value, label) for part, space, value, label in self._zip(data, name)}, name)

    def complete(self, x: State, token: int) -> State:
        return {name: space.complete(x[name], token) for name, space in self.parts.items()}

    def settle(self, x: State) -> State:
        return {name: space.settle(x[name]) for name, space in self.parts.items()}

    def reference(self, x: State) -> Reference:
        return product({name: space.reference(x[name]) for name, space in self.parts.items()})

    def random(self, n: int, *, rng: torch.Generator | None = None) -> State:
        return {name: space.random(n, rng=rng) for name, space in self.parts.items()}

    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """Products of a function of each part."""
        columns = {name: space.test_functions(n, rng=rng) for name, space in self.parts.items()}
        return [_product({name: column[i] for name, column in columns.items()}) for i in range(n)]

    @property
    def cardinality(self) -> float:
        return math.prod(space.cardinality for space in self.parts.values())

    def enumerate(self, limit: int = 20_000) -> State:
        """Every state, if all parts are finite, the last part changing fastest."""
        if self.cardinality > limit:
            raise GenmatchError(f"{self} has {self.cardinality} states, more than {limit}; use smaller parts.")
        lists = [space.enumerate(limit) for space in self.parts.values()]
        rows = torch.cartesian_prod(*(torch.arange(batch_size(states)) for states in lists)).reshape(-1, len(lists))
        return {name: tree_map(lambda v, i=i: v[rows[:, i]], states) for i, (name, states) in enumerate(zip(self.parts, lists, strict=True))}

    def index(self, x: State) -> Tensor:
        total = torch.zeros(batch_size(x), dtype=torch.int64)
        for name, space in self.parts.items():
            total = total * int(space.cardinality) + space.index(x[name])
        return total


def _product(parts: dict[str, TestFunction]) -> TestFunction:
    def f(x: State) -> Tensor:
        return torch.stack([part(x[name]) for name, part in parts.items()]).prod(0)

    return f
