"""A small transformer with one position a token or a pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genmatch.errors import GenmatchError
from genmatch.nn.conditioning import Conditioning, Modulation, Smooth
from genmatch.spaces import Categorical, Euclidean, Manifold, Space


class Transformer(nn.Module):
    """Bidirectional attention with adaptive layer norm on time and labels.

    A position is a token, a pixel of an image (C, H, W) with its channels, or a coordinate of a vector. The network is split
    into `features`, (B, L, width), and `head`, which acts on each position alone, so that a sampler may run the head only
    where it needs it.

    Args:
        space: where the states live.
        output_shape: of one output, `process.output_shape`.
        width: of the hidden state, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        labels: number of classes of each label that the network is conditioned on, by name.
        causal: makes the output at a position depend on the tokens before it only, and not on the time, for `Autoregressive`.

    Raises:
        GenmatchError: if the output shape does not give each position the same number of values, or `heads` does not divide
            `width`.

    Example:
        >>> from genmatch.spaces import Categorical
        >>> net = Transformer(Categorical((4,), 5, mask=True), (4, 5), width=16, depth=1, heads=2)
        >>> net(torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3)).shape
        torch.Size([3, 4, 5])
    """

    def __init__(
        self,
        space: Space,
        output_shape: tuple[int, ...],
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        labels: Mapping[str, int] | None = None,
        condition_width: int = 64,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        if width % heads:
            raise GenmatchError(f"`width` must be a multiple of `heads`, got {width} and {heads}.")
        self.output_shape = tuple(output_shape)
        self.embed, positions, channels = _embedding(space, width)
        if self.output_shape[: len(space.shape)] != space.shape:  # type: ignore[attr-defined]
            raise GenmatchError(f"`output_shape` must begin with the shape of {space}, got {self.output_shape}; pass `process.output_shape`.")
        self.positions, self.channels = positions, channels
        self.place = nn.Parameter(0.02 * torch.randn(positions, width))
        self.condition = Conditioning(condition_width, labels)
        self.blocks = nn.ModuleList(_Block(width, heads, condition_width, causal) for _ in range(depth))
        self.last = Modulation(width, condition_width)
        self.head = nn.Linear(width, math.prod(self.output_shape) // positions)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The hidden state at each position before the head, (B, L, width)."""
        vector = self.condition(torch.zeros_like(t) if self.causal else t, condition)
        h = self.embed(x)
        if self.causal:
            # What comes before the first token is nothing: a zero, to which its place is added.
            h = nn.functional.pad(h[:, :-1], (0, 0, 1, 0))
        h = h + self.place
        for block in self.blocks:
            h = block(h, vector)
        return self.last(h, vector)[0]

    def forward(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """The output at states `x`, (B, *shape), and times `t`, (B,); labels as keywords, (B,)."""
        out = self.head(self.features(x, t, **condition))
        # Positions come first here; an image has its channels first.
        return out.reshape(len(x), self.positions, self.channels, -1).transpose(1, 2).reshape(-1, *self.output_shape)


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


class _Values(nn.Module):
    """Maps the channels of each position linearly, in the network's precision."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.mix = nn.Linear(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x.reshape(len(x), self.channels, -1).transpose(1, 2).to(self.mix.weight.dtype))


class _Tokens(nn.Module):
    """Embeds the token of each position."""

    def __init__(self, num_states: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_states, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.flatten(1))


def _embedding(space: Space, width: int) -> tuple[nn.Module, int, int]:
    """The embedding of each position, the number of positions, and the channels of each."""
    if isinstance(space, Categorical):
        return _Tokens(space.num_states, width), space.size, 1
    if isinstance(space, Euclidean):
        channels = space.shape[0] if len(space.shape) > 1 else 1
        return _Values(channels, width), space.size // channels, channels
    if isinstance(space, Manifold):
        return nn.Sequential(Smooth(space), _Values(space.channels, width)), space.size, 1
    raise GenmatchError(f"Transformer takes states of a Euclidean or Categorical space or a manifold, got {space}; write a network for it.")
