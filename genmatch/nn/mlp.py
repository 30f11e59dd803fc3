"""A residual multilayer perceptron on flattened states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from genmatch.nn.conditioning import Conditioning, Modulation
from genmatch.nn.embedding import vector_embedding
from genmatch.nn.heads import vector_heads
from genmatch.spaces import Space
from genmatch.tensors import State


class MLP(nn.Module):
    """Residual blocks with adaptive layer norm, for vectors, small images, short token sequences, and products of these.

    There is one trunk, which sees the whole state, and a head for each output that is asked for.

    Args:
        space: where the states live.
        output_shape: of one output, `process.output_shape`: a shape, or a dictionary of them for several heads.
        width: of the hidden state.
        depth: number of residual blocks.
        labels: number of classes of each label that the network is conditioned on, by name.
        token_width: of the embedding of a token.
        timed: whether the network is told the time; one that is not is declared `time_free`.
        condition_width: numbers of a condition that is a vector.

    Raises:
        GenmatchError: for a space of a kind of its own.

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
        output_shape: Any,
        *,
        width: int = 256,
        depth: int = 4,
        labels: Mapping[str, int] | None = None,
        token_width: int = 8,
        condition_width: int = 64,
        timed: bool = True,
    ) -> None:
        super().__init__()
        self.time_free = not timed
        self.embed = vector_embedding(space, width, token_width)
        self.condition = Conditioning(condition_width, labels, timed=timed)
        self.blocks = nn.ModuleList(_Block(width, condition_width) for _ in range(depth))
        self.last = Modulation(width, condition_width)
        self.heads = vector_heads(output_shape, width)

    @property
    def null(self) -> dict[str, int] | None:
        """What each label is when it is not given: its number of classes; None without labels."""
        return self.condition.classes or None

    def forward(self, x: State, t: Tensor, **condition: Tensor) -> State:
        """The output at states `x`, (B, *shape), and times `t`, (B,); labels as keywords, (B,)."""
        vector = self.condition(t, condition)
        h = self.embed(x)
        for block in self.blocks:
            h = block(h, vector)
        return self.heads(self.last(h, vector)[0])


class _Block(nn.Module):
    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition_width)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        inner, gate = self.modulation(h, vector)
        return h + gate * self.layers(inner)
