"""The coupling of a product of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.paths.couplings.base import Coupling
from genmatch.reprs import described
from genmatch.tensors import State


class Parts(Coupling):
    """The couplings of the modalities of a product, of which at most one may depend on the data.

    With two, x0 of one modality would tell of x1 there, hence of x1 and of x0 in the other: their joint law would no longer be the product
    of sources from which sampling starts.

    Args:
        couplings: by name of the modality.

    Raises:
        GenmatchError: if two or more are not independent.
    """

    __repr__ = described

    def __init__(self, couplings: Mapping[str, Coupling]) -> None:
        self.parts = dict(couplings)
        coupled = [name for name, coupling in self.parts.items() if not coupling.is_independent]
        if len(coupled) > 1:
            raise GenmatchError(
                f"at most one part of a product may have a coupling, got {', '.join(f'`{name}`' for name in coupled)}: each ties its noise to the "
                "data, so their noises would depend on each other, and sampling starts from independent ones; leave the coupling to one part."
            )

    @property
    def is_independent(self) -> bool:
        return all(coupling.is_independent for coupling in self.parts.values())

    def pair(self, x0: State, x1: State, space: Any, condition: Mapping[str, Tensor], *, rng: torch.Generator | None = None) -> State:
        return {name: coupling.pair(x0[name], x1[name], space.parts[name], condition, rng=rng) for name, coupling in self.parts.items()}
