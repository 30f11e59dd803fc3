"""A small transformer with one position a token or a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genmatch.errors import GenmatchError, positive_integer
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
    """Bidirectional, causal or block-causal attention with adaptive layer norm on time and labels, and rotary positions.

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
        block: makes it depend on the tokens of its own block of that many and of the blocks before, and not on the time, for `BlockDiffusion`. Such a network also
            reads states of 2 L tokens: noise, of which a block sees itself alone, and after it the data of all blocks, of which it sees those before it.
        condition_width: numbers of a condition that is a vector.

    Raises:
        GenmatchError: for a space of a kind of its own, if the output shape does not give each position the same number of
            values, if `heads` does not divide `width`, or if it is to be both causal and block-causal, or block-causal and timed.

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
        block: int | None = None,
    ) -> None:
        super().__init__()
        if block is not None and (causal or timed):
            raise GenmatchError("a block-causal network is not causal, and knows no time but what the masks say; leave out `causal` and `timed`.")
        self.causal, self.block = causal, None if block is None else positive_integer(block, "block")
        self.output_shape = output_shape
        if width % heads:
            raise GenmatchError(f"`width` must be a multiple of `heads`, got {width} and {heads}.")
        self.embed = position_embedding(space, width)
        if timed is None:
            timed = block is None and (causal or not (isinstance(space, Categorical) and space.mask))
        self.condition = Conditioning(condition_width, labels, timed=timed)
        self.time_free = not timed
        self.blocks = nn.ModuleList(_Block(width, heads, condition_width) for _ in range(depth))
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
        return self._blocks(self._embedded(x), t, None, self._sight(x, 0), condition)

    def resume(self, x: Tensor, t: Tensor, memory: Memory, start: int, stop: int, **condition: Tensor) -> Tensor:
        """The features of a causal or block-causal network at the positions from `start` to before `stop`, (B, stop - start, width).

        Args:
            x: states, (B, L), whose first `start` tokens are those of the calls that filled `memory`.
            t: times, (B,), of which nothing depends.
            memory: keys and values of the positions before `start`, by block; those up to `stop` are added.
            start: the first position that is asked for; of a block-causal network, where a block begins.
            stop: the position after the last one; where a block ends.
            **condition: labels, (B,).

        Raises:
            GenmatchError: if the network is neither.
        """
        if not self.causal and self.block is None:
            raise GenmatchError(
                "only a causal network can be resumed: elsewhere every position sees what comes after it; build it with `causal=True` or `block=n`."
            )
        return self._blocks(self._embedded(x)[:, start:stop], t, memory, self._sight(x[:, :stop], start), condition)

    def forward(self, x: State, t: Tensor, **condition: Tensor) -> State:
        """The output at states `x`, (B, *shape), and times `t`, (B,); labels as keywords, (B,)."""
        return self.heads(self.features(x, t, **condition))

    def _embedded(self, x: State) -> Tensor:
        """What each position reads: itself, or in a causal network the token before it; before the first there is nothing."""
        if self._streams(x) == 2:
            return torch.cat([self.embed(stream) for stream in x.chunk(2, -1)], 1)
        h = self.embed(x)
        return nn.functional.pad(h[:, :-1], (0, 0, 1, 0)) if self.causal else h

    def _streams(self, x: State) -> int:
        """Two if a state holds noise and data side by side."""
        return 1 if self.block is None else x.shape[-1] // self.output_shape[0] or 1

    def _sight(self, x: State, start: int) -> _Sight:
        if self.block is not None:
            streams = self._streams(x)
            return _Sight(start, _in_blocks(x.shape[-1] // streams, self.block, start, streams, x.device), streams=streams)
        if not self.causal or start == 0:
            return _Sight(start, causal=self.causal)
        return _Sight(start, torch.ones(x.shape[-1] - start, x.shape[-1], dtype=torch.bool, device=x.device).tril(start))

    def _blocks(self, h: Tensor, t: Tensor, memory: Memory | None, sight: _Sight, condition: Mapping[str, Tensor]) -> Tensor:
        vector = self.condition(torch.zeros_like(t) if self.causal else t, condition)
        for i, block in enumerate(self.blocks):
            h, seen = block(h, vector, memory.get(i) if memory else None, sight)
            if memory is not None:
                memory[i] = seen
        return self.last(h[:, : h.shape[1] // sight.streams], vector)[0]


@dataclass(frozen=True)
class _Sight:
    """Which positions see which: the first of those that ask, a mask (asking, all), or only those before, and how many streams there are."""

    start: int
    mask: Tensor | None = None
    causal: bool = False
    streams: int = 1


def _in_blocks(length: int, block: int, start: int, streams: int, device: torch.device) -> Tensor:
    """The mask of a block-causal network, (asking, all): of positions from `start` on, or of noise and data side by side."""
    place = torch.arange(length, device=device) // block
    before, same = place < place.unsqueeze(-1), place == place.unsqueeze(-1)
    if streams == 1:
        return (before | same)[start:]
    return torch.cat([torch.cat([same, before], 1), torch.cat([torch.zeros_like(same), before | same], 1)])


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, condition_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = Modulation(width, condition_width, gate=1.0)
        self.before_layers = Modulation(width, condition_width, gate=1.0)
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, vector: Tensor, past: Seen | None, sight: _Sight) -> tuple[Tensor, Seen]:
        """The hidden state after the block, and the keys and values of all positions so far."""
        inner, gate = self.before_attention(h, vector)
        mixed, seen = self._attend(inner, past, sight)
        h = h + gate * mixed
        inner, gate = self.before_layers(h, vector)
        return h + gate * self.layers(inner), seen

    def _attend(self, h: Tensor, past: Seen | None, sight: _Sight) -> tuple[Tensor, Seen]:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (rotated(part.unflatten(-2, (sight.streams, -1)), sight.start).flatten(-3, -2) for part in (q, k))
        if past is not None:
            k, v = (torch.cat([old[..., : sight.start, :], new], -2) for old, new in zip(past, (k, v), strict=True))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sight.mask, is_causal=sight.causal)
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
