"""What a network returns: one output, or a dictionary of outputs, of hidden vectors that have seen everything.

    u^m(x) = head^m(trunk(x)),    x = (x^1, ..., x^M)

Every head reads the same trunk, and the trunk has seen all modalities: a product's generator needs the posterior means given
the whole state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

from torch import Tensor, nn

from genmatch.errors import GenmatchError
from genmatch.nn.embedding import channels, positions
from genmatch.spaces import ProductSpace, Space
from genmatch.tensors import State


def vector_heads(output_shape: Any, width: int) -> nn.Module:
    """A module that maps hidden vectors, (B, width), to outputs of the given shape.

    Args:
        output_shape: of one output, or a dictionary of shapes, which may hold dictionaries.
        width: of the hidden vectors.
    """
    if isinstance(output_shape, Mapping):
        return Several({name: (vector_heads(shape, width), slice(None)) for name, shape in output_shape.items()})
    return VectorHead(tuple(output_shape), width)


def position_heads(space: Space, output_shape: Any, width: int) -> nn.Module:
    """A module that maps one hidden vector a position, (B, L, width), to outputs of the given shape.

    The parts of a product read their own positions; several heads on one space all read every position of it.

    Args:
        space: where the states live.
        output_shape: of one output, or a dictionary of shapes, which may hold dictionaries.
        width: of the hidden vectors.

    Raises:
        GenmatchError: if a shape does not give each position the same number of values, or there is one shape for a product.
    """
    if isinstance(space, ProductSpace):
        if not isinstance(output_shape, Mapping):
            raise GenmatchError(f"`output_shape` for {space} must be a dictionary, got {output_shape}; pass `process.output_shape`.")
        if set(output_shape) == set(space.parts):
            ends = accumulate((positions(part) for part in space.parts.values()), initial=0)
            own = {name: slice(*span) for name, span in zip(space.parts, pairwise(ends), strict=True)}
            return Several({name: (position_heads(part, output_shape[name], width), own[name]) for name, part in space.parts.items()})
    if isinstance(output_shape, Mapping):
        return Several({name: (position_heads(space, shape, width), slice(None)) for name, shape in output_shape.items()})
    return PositionHead(space, tuple(output_shape), width)


class VectorHead(nn.Module):
    """One output of one vector a sample; zero at first."""

    def __init__(self, output_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.output_shape = output_shape
        self.linear = _closed(nn.Linear(width, math.prod(output_shape)))

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) to (B, *output_shape)."""
        return self.linear(h).reshape(-1, *self.output_shape)


class PositionHead(nn.Module):
    """One output of one vector a position, by a linear map of each position alone; zero at first.

    Raises:
        GenmatchError: if `output_shape` does not begin with the shape of the space.
    """

    def __init__(self, space: Space, output_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        shape = space.shape  # type: ignore[attr-defined]
        if output_shape[: len(shape)] != shape:
            raise GenmatchError(f"`output_shape` must begin with the shape of {space}, got {output_shape}; pass `process.output_shape`.")
        self.output_shape, self.positions, self.channels = output_shape, positions(space), channels(space)
        self.linear = _closed(nn.Linear(width, math.prod(output_shape) // self.positions))

    def forward(self, h: Tensor) -> Tensor:
        """(B, L, width) to (B, *output_shape)."""
        # Positions come first here; an image has its channels first.
        out = self.linear(h).reshape(len(h), self.positions, self.channels, -1)
        return out.transpose(1, 2).reshape(-1, *self.output_shape)


class Several(nn.Module):
    """Heads by name, each with the rows of the hidden state that it reads.

    Args:
        heads: one for each output, by name.
    """

    def __init__(self, heads: Mapping[str, tuple[nn.Module, slice]]) -> None:
        super().__init__()
        self.rows = {name: rows for name, (_, rows) in heads.items()}
        self.heads = nn.ModuleList(head for head, _ in heads.values())

    def forward(self, h: Tensor) -> State:
        """(B, width) or (B, L, width) to a dictionary of outputs."""
        return {name: head(h[:, rows]) for (name, rows), head in zip(self.rows.items(), self.heads, strict=True)}


def _closed(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
