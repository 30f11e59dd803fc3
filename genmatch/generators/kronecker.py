"""The generator of a product state: each modality moves by its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.generators.algebra import Generator, Weight
from genmatch.spaces import Space, TestFunction
from genmatch.tensors import State, tree_map


class KroneckerSum(Generator):
    """Generators of the modalities of a product state, side by side: each moves its own part.

    Args:
        parts: one generator for each modality, by name.

    Example:
        >>> from genmatch.generators import Drift, Jump, PointMass
        >>> both = KroneckerSum(a=Drift(torch.ones(1, 2)), b=Jump(torch.ones(1, 1), PointMass(torch.tensor([[1]]))))
        >>> x = {"a": torch.zeros(1, 2), "b": torch.tensor([[0]])}
        >>> both.apply(lambda x: x["a"].sum(-1) + x["b"].sum(-1), x)
        tensor([3.])
    """

    def __init__(self, **parts: Generator) -> None:
        self.parts = parts

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({"product"}).union(*(part.kinds for part in self.parts.values()))

    def apply(self, f: TestFunction, x: State) -> Tensor:
        def varying(name: str) -> TestFunction:
            # A jump asks about several values for each sample, one after the other.
            return lambda value: f({**tree_map(lambda v: v.repeat_interleave(len(value) // len(v), 0), x), name: value})

        return torch.stack([part.apply(varying(name), x[name]) for name, part in self.parts.items()]).sum(0)

    def moves(self, x: State, space: Space) -> Iterator[tuple[State, Tensor]]:
        for name, part in self.parts.items():
            for y, rate in part.moves(x[name], space.parts[name]):  # type: ignore[attr-defined]
                yield {**x, name: y}, rate

    def step(self, x: State, h: Weight, *, rng: torch.Generator | None = None) -> State:
        return {name: part.step(x[name], h, rng=rng) for name, part in self.parts.items()}

    def scaled(self, weight: Weight) -> KroneckerSum:
        return KroneckerSum(**{name: part.scaled(weight) for name, part in self.parts.items()})

    def __add__(self, other: Generator) -> Generator:
        self._check_same(other)
        return KroneckerSum(**{name: part + other.parts[name] for name, part in self.parts.items()})  # type: ignore[attr-defined]

    def kl(self, other: Generator, x: State) -> Tensor:
        self._check_same(other)
        return torch.stack([part.kl(other.parts[name], x[name]) for name, part in self.parts.items()]).sum(0)  # type: ignore[attr-defined]

    def _check_same(self, other: Generator) -> None:
        if not isinstance(other, KroneckerSum) or set(other.parts) != set(self.parts):
            found = sorted(other.parts) if isinstance(other, KroneckerSum) else type(other).__name__
            raise GenmatchError(f"expected a generator over the modalities {sorted(self.parts)}, got {found}.")
