"""The interface of a space: what it checks, and what it may know of its states."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.spaces.reference import Reference
from genmatch.tensors import State

TestFunction = Callable[[State], Tensor]
"""f: a batch of states to values of shape (B,)."""


class Space(ABC):
    """Where states live. A batch of states has a leading batch axis B."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of coordinates of one state."""

    @abstractmethod
    def validate(self, x: State, name: str = "x") -> State:
        """Returns `x` unchanged if it is a batch of states here.

        Raises:
            GenmatchError: if the type, dtype, shape or values do not fit, saying what was expected and how to mend it.
        """

    @abstractmethod
    def prepare(self, data: Any, name: str = "data") -> State:
        """Turns arrays or tensors into a valid batch of states in the dtype of this space."""

    @property
    def coordinatewise(self) -> bool:
        """Whether a state with some coordinates of another is a state: not on a sphere."""
        return True

    def settle(self, x: State) -> State:
        """States that were cast to another precision, moved back into the space: `x` itself on flat spaces."""
        return x

    def project(self, x: State, v: State) -> State:
        """The tangent vector at `x` that is nearest to `v`, (B, *shape): `v` itself on flat spaces."""
        return v

    def complete(self, x: State, token: int) -> State:
        """States on the way, with `token` in place of what is not data yet, such as a mask; `x` itself on spaces without tokens."""
        return x

    @abstractmethod
    def random(self, n: int, *, rng: torch.Generator | None = None) -> State:
        """`n` arbitrary states that fill the space, for checks and examples."""

    @abstractmethod
    def test_functions(self, n: int, *, rng: torch.Generator | None = None) -> list[TestFunction]:
        """`n` random smooth functions of states with values in [-1, 1], rich enough to tell two laws apart."""

    def squared_distances(self, x: State, y: State) -> Tensor:
        """Squared distance of every state of `x` from every state of `y`, float64, (N, M). Optional."""
        raise GenmatchError(f"{self} has no distance between states.")

    def reference(self, x: State) -> Reference:
        """A law of known density that resembles the states `x`, against which other densities are measured. Optional."""
        raise GenmatchError(f"{self} names no law of known density.")

    @property
    def cardinality(self) -> float:
        """Number of different states; infinite unless `enumerate` can list them."""
        return math.inf

    def enumerate(self, limit: int = 20_000) -> State:
        """Every state, if there are finitely many.

        Raises:
            GenmatchError: if there are more than `limit`.
        """
        raise GenmatchError(f"{self} has no list of its states; only finite spaces do.")

    def index(self, x: State) -> Tensor:
        """The row of `enumerate()` at which each state stands, shape (B,).

        Raises:
            GenmatchError: if there is no such list.
        """
        raise GenmatchError(f"{self} has no list of its states; only finite spaces do.")
