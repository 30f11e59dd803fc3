"""The interface of a coupling, and the one that every process accepts: noise that knows nothing of the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.spaces import Space
from genmatch.tensors import State


class Coupling(ABC):
    """How the noise of a batch is paired with its data points. Subclasses define `pair`, and keep the law of the noise given the condition."""

    @property
    def is_independent(self) -> bool:
        """Whether x0 is independent of x1: then densities, scores and posteriors are known."""
        return False

    @abstractmethod
    def pair(self, x0: State, x1: State, space: Space, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> State:
        """The noise for each data point of `x1`, made from as many independent draws `x0`.

        Args:
            x0: draws from the source, (B, *shape).
            x1: data points, (B, *shape); never changed nor left out.
            space: where both live.
            condition: what the model is told of each data point, tensors (B, ...).
            rng: source of randomness.
        """


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise that knows nothing of the data point: the default, and what every process accepts."""

    @property
    def is_independent(self) -> bool:
        return True

    def pair(self, x0: State, x1: State, space: Space, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> State:
        return x0


def check_coupling(coupling: Coupling) -> Coupling:
    """Returns `coupling`, or raises `GenmatchError` if it is not one."""
    if not isinstance(coupling, Coupling):
        raise GenmatchError(f"`coupling` must be a Coupling, got {coupling!r}; pass e.g. `gm.couplings.OptimalTransport()`.")
    return coupling
