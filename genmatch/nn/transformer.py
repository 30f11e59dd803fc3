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
from genmatch.spaces import Categorical, Space
from genmatch.tensors import State

Seen = tuple[Tensor, Tensor]
"""The keys and values of positions, (B, heads, L, width of a head) each."""

Memory = dict[int, Seen]
"""What each block has seen of the positions before."""

_BASE = 1000.0
"""The slowest pair of a rotary embedding turns once in 2 pi times this many positions."""


class Transformer(nn.Module):
    """Bidirectional or causal attention with adaptive layer norm on time and labels, and rotary positions.

    A position is a token, a pixel of an image (C, H, W) with its channels, or a coordinate of a vector; a product has the
    positions of all its parts, and each head reads its own. The network is split into `features`, (B, L, width), and `head`,
    which acts on each position alone, so that training and sampling may run the head only where they need it. A causal network goes on
    from what it remembers, `resume`.

    Args:
        space: where the states live.
        output_shape: of one output, `process.output_shape`: a shape, or a dictionary of them for several heads.
        width: of the hidden state, a multiple of `heads`.
        depth: number of blocks.
        heads: attention heads.
        labels: number of classes of each label that the network is conditioned on, by name.
        timed: whether the network is told the time; by default unless the states have a mask. A masked state says by itself how far it is, and a network that knows
            nothing else is declared `time_free`: what it said of a state need not be computed twice.
        causal: makes the output at a position depend on the tokens before it only, and not on the time, for `Autoregressive`.
        condition_width: numbers of a condition that is a vector.

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
        timed: bool | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.output_shape = output_shape
        if width % heads:
            raise GenmatchError(f"`width` must be a multiple of `heads`, got {width} and {heads}.")
        self.embed = position_embedding(space, width)
        if timed is None:
            timed = causal or not (isinstance(space, Categorical) and space.mask)
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
        h = self.embed(x)
        return self._blocks(self._shifted(h), t, None, 0, condition)

    def resume(self, x: Tensor, t: Tensor, memory: Memory, start: int, stop: int, **condition: Tensor) -> Tensor:
        """The features of a causal network at the positions from `start` to before `stop`, (B, stop - start, width).

        Args:
            x: states, (B, L), whose first `start` tokens are those of the calls that filled `memory`.
            t: times, (B,), of which nothing depends.
            memory: keys and values of the positions before `start`, by block; those up to `stop` are added.
            start: the first position that is asked for.
            stop: the position after the last one.
            **condition: labels, (B,).

        Raises:
            GenmatchError: if the network is not causal.
        """
        if not self.causal:
            raise GenmatchError("only a causal network can be resumed: elsewhere every position sees what comes after it; build it with `causal=True`.")
        return self._blocks(self._shifted(self.embed(x))[:, start:stop], t, memory, start, condition)

    def forward(self, x: State, t: Tensor, **condition: Tensor) -> State:
        """The output at states `x`, (B, *shape), and times `t`, (B,); labels as keywords, (B,)."""
        return self.heads(self.features(x, t, **condition))

    def _shifted(self, h: Tensor) -> Tensor:
        """What each position reads: itself, or in a causal network the token before it; before the first there is nothing."""
        return nn.functional.pad(h[:, :-1], (0, 0, 1, 0)) if self.causal else h

    def _blocks(self, h: Tensor, t: Tensor, memory: Memory | None, start: int, condition: Mapping[str, Tensor]) -> Tensor:
        vector = self.condition(torch.zeros_like(t) if self.causal else t, condition)
        for i, block in enumerate(self.blocks):
            h, seen = block(h, vector, memory.get(i) if memory else None, start)
            if memory is not None:
                memory[i] = seen
        return self.last(h, vector)[0]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, condition_width: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.before_attention = Modulation(width, condition_width, gate=1.0)
        self.before_layers = Modulation(width, condition_width, gate=1.0)
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, vector: Tensor, past: Seen | None, start: int) -> tuple[Tensor, Seen]:
        """The hidden state after the block, and the keys and values of all positions so far."""
        inner, gate = self.before_attention(h, vector)
        mixed, seen = self._attend(inner, past, start)
        h = h + gate * mixed
        inner, gate = self.before_layers(h, vector)
        return h + gate * self.layers(inner), seen

    def _attend(self, h: Tensor, past: Seen | None, start: int) -> tuple[Tensor, Seen]:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotated(q, start), rotated(k, start)
        if past is not None:
            k, v = (torch.cat([old[..., :start, :], new], -2) for old, new in zip(past, (k, v), strict=True))
        before = None if past is None else torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=h.device).tril(start)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=before, is_causal=self.causal and past is None)
        return self.merge(mixed.transpose(1, 2).flatten(-2)), (k, v)


def rotated(h: Tensor, start: int = 0) -> Tensor:
    """Queries or keys, (..., L, width), turned by angles that grow with their position: their products know only how far apart they are.

    Source: "RoFormer: Enhanced Transformer with Rotary Position Embedding" (Su et al., 2021), https://arxiv.org/abs/2104.09864.

    Args:
        h: of the positions from `start` on.
        start: the first of them.

    Example:
        >>> one, four = torch.ones(1, 4), torch.ones(4, 4)
        >>> torch.allclose(rotated(four)[1] @ rotated(four)[0], rotated(four)[3] @ rotated(four)[2])
        True
        >>> torch.allclose(rotated(one, start=3)[0], rotated(four)[3])
        True
    """
    pairs = h.shape[-1] // 2
    frequencies = _BASE ** -(torch.arange(pairs, device=h.device) / pairs)
    angles = torch.arange(start, start + h.shape[-2], device=h.device).unsqueeze(-1) * frequencies
    cos, sin = angles.cos().to(h.dtype), angles.sin().to(h.dtype)
    a, b, rest = h.split([pairs, pairs, h.shape[-1] - 2 * pairs], -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)
