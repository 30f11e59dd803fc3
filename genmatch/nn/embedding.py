"""States of any space as what a network works on: one vector a sample, or one vector a position.

A product is the sum of its parts' vectors, or all of its parts' positions in a row: what follows sees every modality.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genmatch.errors import GenmatchError
from genmatch.spaces import Categorical, Euclidean, Manifold, ProductSpace, Space
from genmatch.tensors import State


def vector_embedding(space: Space, width: int, token_width: int) -> nn.Module:
    """A module that maps states, (B, *shape), to one vector a sample, (B, width).

    Args:
        space: where the states live.
        width: of the vector.
        token_width: of the embedding of a token, before all positions are mixed.

    Raises:
        GenmatchError: for a space of a kind of its own.
    """
    if isinstance(space, ProductSpace):
        return _Joined({name: vector_embedding(part, width, token_width) for name, part in space.parts.items()}, _add)
    if isinstance(space, Categorical):
        return nn.Sequential(nn.Embedding(space.num_states, token_width), nn.Flatten(), nn.Linear(space.size * token_width, width))
    if isinstance(space, Euclidean):
        return nn.Sequential(nn.Flatten(), _Linear(space.size, width))
    if isinstance(space, Manifold):
        return nn.Sequential(_Smooth(space), nn.Flatten(), _Linear(space.channels * space.size, width))
    raise _unknown(space)


def position_embedding(space: Space, width: int) -> nn.Module:
    """A module that maps states, (B, *shape), to one vector a position, (B, L, width), which knows its place.

    A position is a token, a pixel of an image (C, H, W) with its channels, or a coordinate of a vector. The positions of a
    product also know their modality.

    Raises:
        GenmatchError: for a space of a kind of its own.
    """
    if isinstance(space, ProductSpace):
        return _Joined({name: nn.Sequential(position_embedding(part, width), _Shift(1, width)) for name, part in space.parts.items()}, _append)
    place = _Shift(positions(space), width)
    if isinstance(space, Categorical):
        return nn.Sequential(nn.Flatten(), nn.Embedding(space.num_states, width), place)
    if isinstance(space, Euclidean):
        return nn.Sequential(_Rows(channels(space)), _Linear(channels(space), width), place)
    if isinstance(space, Manifold):
        return nn.Sequential(_Smooth(space), _Rows(space.channels), _Linear(space.channels, width), place)
    raise _unknown(space)


def positions(space: Space) -> int:
    """Number of positions of a state."""
    return space.size // channels(space) if not isinstance(space, ProductSpace) else sum(positions(part) for part in space.parts.values())


def channels(space: Space) -> int:
    """How many coordinates of a state share a position: the channels of an image, else one."""
    return space.shape[0] if isinstance(space, Euclidean) and len(space.shape) > 1 else 1


class _Joined(nn.Module):
    """Embeds each part of a product and combines what comes of it."""

    def __init__(self, parts: dict[str, nn.Module], combine: Callable[[list[Tensor]], Tensor]) -> None:
        super().__init__()
        # Not a ModuleDict: a modality may have any name, such as "type".
        self.names, self.parts, self.combine = tuple(parts), nn.ModuleList(parts.values()), combine

    def forward(self, x: State) -> Tensor:
        return self.combine([part(x[name]) for name, part in zip(self.names, self.parts, strict=True)])


def _add(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).sum(0)


def _append(vectors: list[Tensor]) -> Tensor:
    return torch.cat(vectors, 1)


class _Smooth(nn.Module):
    """Points of a manifold in coordinates without a seam, (B, channels, *shape)."""

    def __init__(self, space: Manifold) -> None:
        super().__init__()
        self.space = space

    def forward(self, x: Tensor) -> Tensor:
        return self.space.embed(x)


class _Rows(nn.Module):
    """A row of channels for each position: (B, channels, ...) to (B, L, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.channels, -1).transpose(1, 2)


class _Linear(nn.Module):
    """A linear map in the network's precision, whatever that of the states is."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x.to(self.map.weight.dtype))


class _Shift(nn.Module):
    """Adds a learned vector to each position, or one and the same to all of them."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.vectors


def _unknown(space: Space) -> GenmatchError:
    return GenmatchError(
        f"reference networks take states of Euclidean and Categorical spaces, manifolds and products of these, got {space}; write a network, which is any module called as `model(x, t)`, and give it to `gm.train`."
    )
