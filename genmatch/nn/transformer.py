"""A small transformer with one position a token or a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genmatch.errors import GenmatchError
from genmatch.nn.conditioning import Conditioning, Modulation
from genmatch.nn.embedding import position_embedding
from genmatch.nn.heads import position_heads
from genmatch.spaces import Space
from genmatch.tensors import State


class Transformer(nn.Module):
    """Bidirectional attention with adaptive layer norm on time and labels.

    A position is a token, a pixel of an image (C, H, W) with its channels, or a coordinate of a vector; a product has the
    positions of all its parts, and each head reads its own. The network is split into `features`, (B, L, width), and `head`,
    which acts on each position alone, so that a sampler may run the head only where it needs it.

    Args:
        space: where the states live.
        output_shape: of one output, `process.output_shape`: a shape, or a dictionary of them for several heads.
        width: of the hidden state, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        labels: number of classes of each label that the network is conditioned on, by name.
        timed: whether the network is told the time. A masked state says by itself how far it is, and a network that knows
            nothing else is declared `time_free`: what it said of a state need not be computed twice.
        causal: makes the output at a position depend on the tokens before it only, and not on the time, for `Autoregressive`.

    Raises:
        GenmatchError: for a space of a kind of its own, if the output shape does not give each position the same number of
            values, or if `heads` does not divide `width`.

    Example:
        >>> import torch
        >>> from genmatch.spaces import Categorical
        >>> net = Transformer(Categorical((4,), 5, mask=True), (4, 5), width=16, depth=1, heads=2)
        >>> net(torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3)).shape
        torch.Size([3, 4, 5])
    """

    def __init__(
        self,
        space: Space,
        output_shape: Any,
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        labels: Mapping[str, int] | None = None,
        condition_width: int = 64,
        timed: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.output_shape = output_shape
        if width % heads:
            raise GenmatchError(f"`width` must be a multiple of `heads`, got {width} and {heads}.")
        self.embed = position_embedding(space, width)
        self.condition = Conditioning(condition_width, labels, timed=timed)
        self.time_free = not timed
        self.blocks = nn.ModuleList(_Block(width, heads, condition_width, causal) for _ in range(depth))
        self.last = Modulation(width, condition_width)
        self.heads = position_heads(space, output_shape, width)

    @property
    def null(self) -> dict[str, int] | None:
        """What each label is when it is not given: its number of classes; None without labels."""
        return self.condition.classes or None

    @property
    def head(self) -> nn.Linear:
        """The linear map of a position's features to its outputs, if there is one output: `heads` arranges them."""
        return self.heads.linear  # type: ignore[return-value]

    def features(self, x: State, t: Tensor, **condition: Tensor) -> Tensor:
        """The hidden state at each position before the head, (B, L, width)."""
        vector = self.condition(torch.zeros_like(t) if self.causal else t, condition)
        h = self.embed(x)
        if self.causal:
            # A position sees the tokens before it; before the first there is nothing.
            h = nn.functional.pad(h[:, :-1], (0, 0, 1, 0))
        for block in self.blocks:
            h = block(h, vector)
        return self.last(h, vector)[0]

    def forward(self, x: State, t: Tensor, **condition: Tensor) -> State:
        """The output at states `x`, (B, *shape), and times `t`, (B,); labels as keywords, (B,)."""
        return self.heads(self.features(x, t, **condition))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, condition_width: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.before_attention = Modulation(width, condition_width)
        self.before_layers = Modulation(width, condition_width)
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, vector: Tensor) -> Tensor:
        inner, gate = self.before_attention(h, vector)
        h = h + gate * self._attend(inner)
        inner, gate = self.before_layers(h, vector)
        return h + gate * self.layers(inner)

    def _attend(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.merge(mixed.transpose(1, 2).flatten(-2))
