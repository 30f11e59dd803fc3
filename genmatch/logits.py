"""Logits of tokens, (B, *shape, S): read where they are needed, all of them or a few at a time, and drawn from.

A network's logits are a tensor, or an `Indexed`, which computes them where they are read. A draw takes one uniform number a
coordinate and inverts the distribution function,

    v = min { v : sum over w <= v of softmax(logits)_w  >  u },

summed up in float64. Gumbel noise would take S numbers, and in float32 it caps at 16.6 and starves rare tokens.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.tensors import precise, uniforms

_PORTION, _PIECE, _BLOCK = 2**22, 2**18, 256
"""Values that are read at a time, that are worked on at a time, and whose weights are summed up at a time."""


class Indexed(ABC):
    """What answers `logits[mask]` and `logits.shape` as a tensor of logits, (B, *shape, S), would."""

    shape: torch.Size
    device: torch.device

    @abstractmethod
    def __getitem__(self, where: Tensor) -> Tensor:
        """The logits at the coordinates with a True in `where`, (B, *shape), in order, (N, S)."""

    @abstractmethod
    def expect(self, where: Tensor) -> None:
        """Says that the coordinates at `where` will be read, some at a time."""


def draw_categorical(logits: Tensor, *, rng: torch.Generator | None) -> Tensor:
    """One index for each row of `logits`, shape (N, S).

    Raises:
        GenmatchError: if a row has no law, because of a NaN or of nothing but -inf.
    """
    return _invert(logits, uniforms(logits[:, 0], rng=rng))


def draw_at(logits: Tensor, where: Tensor, *, rng: torch.Generator | None) -> Tensor:
    """The same for the coordinates with a True in `where`, (B, *shape), whose logits are given in order, (N, S).

    Each coordinate has a uniform of its own, so that what one sample draws does not depend on the others.
    """
    return _invert(logits, uniforms(where, rng=rng)[where])


def draw_where(logits: Tensor | Indexed, where: Tensor, uniform: Tensor) -> Tensor:
    """One index for each coordinate with a True in `where`, in order, (N,).

    Each coordinate has a uniform of its own, used or not, so that what one sample draws does not depend on how many tokens
    the others draw.

    Args:
        logits: unnormalised log probabilities, (B, *shape, S).
        where: which coordinates, (B, *shape).
        uniform: numbers in [0, 1), (B, *shape), from `uniforms`.

    Raises:
        GenmatchError: if a coordinate has no law, because of a NaN or of nothing but -inf.

    Example:
        >>> draw_where(torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]]), torch.tensor([[True, True]]), torch.tensor([[0.9, 0.9]]))
        tensor([0, 1])
    """
    return read(logits, where, _invert, uniform)


def read(logits: Tensor | Indexed, where: Tensor, function: Callable[..., Tensor], *others: Tensor) -> Tensor:
    """A function of the logits at the coordinates with a True in `where`, (N,), in order; a few at a time, which bounds the memory.

    Args:
        logits: (B, *shape, S).
        where: which coordinates, (B, *shape).
        function: takes logits (n, S), and the values of `others` there, (n,) each, and returns (n,).
        others: more about each coordinate, (B, *shape).
    """
    size = max(1, _PIECE // logits.shape[-1])

    def pieces(*values: Tensor) -> list[Tensor]:
        if len(values[0]) <= size:
            return [function(*values)]
        return [function(*piece) for piece in zip(*(value.split(size) for value in values), strict=True)]

    parts = portions(where, max(1, _PORTION // logits.shape[-1]))
    if len(parts) > 1 and isinstance(logits, Indexed):
        logits.expect(where)
    results = [piece for part in parts for piece in pieces(logits[part], *(other[part] for other in others))]
    return torch.cat(results) if len(results) > 1 else results[0]


def whole(logits: Tensor | Indexed) -> Tensor:
    """All of the logits, (B, *shape, S), read at once."""
    if isinstance(logits, Tensor):
        return logits
    return logits[torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)].reshape(logits.shape)


def portions(where: Tensor, size: int) -> list[Tensor]:
    """Masks that together are `where`, in order, each of at most `size` coordinates; `where` itself if it has no more."""
    if where.numel() <= size:
        return [where]
    places = where.flatten().nonzero().squeeze(-1)
    if len(places) <= size:
        return [where]
    return [torch.zeros_like(where).flatten().index_fill_(0, some, True).view_as(where) for some in places.split(size)]


def _invert(logits: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the distribution function of softmax(logits), (N, S), passes `uniform`, (N,).

    Weights are summed up in float64: first over blocks, and then inside the block in which the sum passes.
    """
    logits, uniform = precise(logits.detach()), uniform.double().unsqueeze(-1)
    n, size = logits.shape
    width = min(size, _BLOCK)
    blocks = -(-size // width)
    if blocks == 1:
        inside = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
        return _passes(inside, uniform * _total(inside)).squeeze(-1)
    weights = torch.zeros(n, blocks * width, dtype=logits.dtype, device=logits.device)
    weights[:, :size] = logits
    weights[:, :size].sub_(logits.amax(-1, keepdim=True)).exp_()
    weights = weights.view(n, blocks, width)
    sums = weights.sum(-1, dtype=torch.float64).cumsum(-1)
    goal = uniform * _total(sums)
    block = _passes(sums, goal)
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp(min=0)), 0)
    inside = weights[torch.arange(n, device=logits.device), block.squeeze(-1)].cumsum(-1, dtype=torch.float64)
    # A block is summed up in another order than before: rounding can put the goal at its end.
    last = torch.searchsorted(inside, inside[:, -1:].contiguous())
    return (block * width + torch.minimum(_passes(inside, goal - before), last)).squeeze(-1)


def _total(sums: Tensor) -> Tensor:
    """The last of growing sums, (N, K), of which there must be one, (N, 1)."""
    total = sums[..., -1:]
    if math.isnan(float(total.sum())):
        raise GenmatchError("the logits of tokens must not be NaN, nor all -inf; the model that made them has diverged.")
    return total


def _passes(sums: Tensor, goal: Tensor) -> Tensor:
    """Where growing sums, (N, K), first pass a goal, (N, 1). A float64 number below 1 times the last sum is below the last sum."""
    return torch.searchsorted(sums, goal, right=True)
