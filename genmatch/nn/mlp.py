"""A residual multilayer perceptron on flattened states."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from genmatch.errors import GenmatchError
from genmatch.nn.conditioning import Conditioning, Modulation, Smooth
from genmatch.spaces import Categorical, Euclidean, Manifold, Space


class MLP(nn.Module):
    """Residual blocks with adaptive layer norm, for vectors, small images and short token sequences.

    Args:
        space: where the states live.
        output_shape: of one output, `process.output_shape`.
        width: of the hidden state.
        depth: number of residual blocks.
        labels: number of classes of each label that the network is conditioned on, by name.
        token_width: of the embedding of a token.

    Raises:
        GenmatchError: for a space that is neither Euclidean nor categorical nor a manifold.

    Example:
        >>> import torch
        >>> from genmatch.spaces import Euclidean
        >>> net = MLP(Euclidean((2,)), (2,), width=16, depth=1)
        >>> net(torch.zeros(3, 2), torch.zeros(3)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        space: Space,
        output_shape: tuple[int, ...],
        *,
        width: int = 256,
        depth: int = 4,
        labels: Mapping[str, int] | None = None,
        token_width: int = 8,
        condition_width: int = 64,
    ) -> None:
        super().__init__()
        self.output_shape = tuple(output_shape)
        self.embed = _embedding(space, width, token_width)
        self.condition = Conditioning(condition_width, labels)
        self.blocks = nn.ModuleList(_Block(width, condition_width) for _ in range(depth))
        self.last = Modulation(width, condition_width)
        self.head = nn.Linear(width, math.prod(self.output_shape))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The output at states `x`, (B, *shape), and times `t`, (B,); labels as keywords, (B,)."""
        vector = self.condition(t, condition)
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, vector)
        return self.head(self.last(h, vector)[0]).reshape(-1, *self.output_shape)


class _Block(nn.Module):
    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition_width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        inner, gate = self.modulation(h, vector)
        return h + gate * self.layers(inner)


class _Tokens(nn.Module):
    """Embeds each token and mixes all positions linearly."""

    def __init__(self, space: Categorical, width: int, token_width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(space.num_states, token_width)
        self.mix = nn.Linear(space.size * token_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.table(x).flatten(1))


class _Vectors(nn.Module):
    """Flattens a state and maps it linearly, in the network's precision."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.flatten(1).to(self.mix.weight.dtype))


def _embedding(space: Space, width: int, token_width: int) -> nn.Module:
    if isinstance(space, Categorical):
        return _Tokens(space, width, token_width)
    if isinstance(space, Euclidean):
        return _Vectors(space.size, width)
    if isinstance(space, Manifold):
        return nn.Sequential(Smooth(space), _Vectors(space.channels * space.size, width))
    raise GenmatchError(f"MLP takes states of a Euclidean or Categorical space or a manifold, got {space}; write a network for it.")
