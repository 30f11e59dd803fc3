"""Small operations on batches of states that every layer shares.

A state is a tensor with a leading batch axis, or, for products, a dictionary of states. Times are float64 tensors of
shape (B,): schedules lose digits in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError

State = Any
"""A tensor of shape (B, ...), or a dictionary of states."""

_PORTION = 2**20
"""Values that are read at a time."""


def expand(t: Tensor, x: Tensor) -> Tensor:
    """Gives a coefficient `t` of shape (B,) the dtype of `x` (if floating) and trailing axes to broadcast against it.

    Example:
        >>> expand(torch.tensor([0.5, 1.0]), torch.zeros(2, 3, 4)).shape
        torch.Size([2, 1, 1])
    """
    t = t.reshape(-1, *[1] * (x.dim() - 1))
    return t.to(x.dtype) if x.is_floating_point() else t


def tree_map(function: Callable[..., Any], *states: State) -> State:
    """Applies `function` to the tensors of states of the same structure."""
    first = states[0]
    if isinstance(first, dict):
        return {name: tree_map(function, *(state[name] for state in states)) for name in first}
    return function(*states)


def leaves(state: State) -> list[Any]:
    """The tensors of a state, in the order of its names."""
    if isinstance(state, dict):
        return [leaf for part in state.values() for leaf in leaves(part)]
    return [state]


def batch_size(state: State) -> int:
    """The number of samples in a state."""
    return len(leaves(state)[0])


def check_times(t: Tensor, n: int, name: str = "t") -> Tensor:
    """Returns `t` in float64 after checking shape (n,) and range [0, 1].

    Raises:
        GenmatchError: if `t` is not a floating tensor of shape (n,) with values in [0, 1].
    """
    if not isinstance(t, Tensor) or not t.is_floating_point():
        found = f"a tensor of {t.dtype}" if isinstance(t, Tensor) else type(t).__name__
        raise GenmatchError(f"`{name}` must be a floating tensor of shape (B,), got {found}; pass `torch.full((B,), t)`.")
    if t.shape != (n,):
        mend = f"`{name}.flatten()`" if t.numel() == n else f"one time a sample, `torch.full(({n},), t)`"
        raise GenmatchError(f"`{name}` must have shape (B,) = ({n},), got {tuple(t.shape)}; pass {mend}.")
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise GenmatchError(f"`{name}` must lie in [0, 1] (0 is noise, 1 is data), got {t.min():.6g} to {t.max():.6g}.")
    return t.to(torch.float64)


def uniforms(like: Tensor, *, rng: torch.Generator | None) -> Tensor:
    """A number in [0, 1) for each coordinate, float64: float32 ones are wrong by 1 % for a probability of 1e-6."""
    return torch.rand(like.shape, dtype=torch.float64, device=like.device, generator=rng)


def bernoulli(probability: Tensor, like: Tensor, *, rng: torch.Generator | None) -> Tensor:
    """Independent coins of shape `like.shape`."""
    return uniforms(like, rng=rng) < probability


def draw_categorical(logits: Tensor, *, rng: torch.Generator | None) -> Tensor:
    """One index for each row of `logits`, shape (N, S), by the inverse distribution function summed up in float64.

    One uniform a row instead of S Gumbels; float32 Gumbels cap at 16.6 and starve rare tokens.

    Raises:
        GenmatchError: if a row has no law, because of a NaN or of nothing but -inf.
    """
    return _invert(logits, uniforms(logits[:, 0], rng=rng))


def draw_where(logits: Any, where: Tensor, uniform: Tensor) -> Tensor:
    """One index for each coordinate with a True in `where`, in order, (N,).

    Each coordinate has a uniform of its own, used or not, so that what one sample draws does not depend on how many tokens
    the others draw. The logits are read a few coordinates at a time, which bounds the memory.

    Args:
        logits: unnormalised log probabilities, (B, *shape, S), or what answers `logits[mask]` and `logits.shape` as those would.
        where: which coordinates, (B, *shape).
        uniform: numbers in [0, 1), (B, *shape), from `uniforms`.

    Raises:
        GenmatchError: if a coordinate has no law, because of a NaN or of nothing but -inf.

    Example:
        >>> draw_where(torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]]), torch.tensor([[True, True]]), torch.tensor([[0.9, 0.9]]))
        tensor([0, 1])
    """
    parts = [_invert(logits[part], uniform[part]) for part in portions(where, logits.shape[-1])]
    return torch.cat(parts) if parts else where.new_empty(0, dtype=torch.int64)


def portions(where: Tensor, width: int) -> Iterator[Tensor]:
    """Masks that together are `where`, in order, each of at most as many coordinates as make a million values of `width` a coordinate."""
    size = max(1, _PORTION // width)
    places = where.flatten().nonzero().squeeze(-1)
    if 0 < len(places) <= size:
        yield where
        return
    for some in places.split(size) if len(places) else ():
        yield torch.zeros_like(where).flatten().index_fill_(0, some, True).view_as(where)


def _invert(logits: Tensor, uniform: Tensor) -> Tensor:
    """The index at which the distribution function of softmax(logits), (N, S), passes `uniform`, (N,)."""
    cumulative = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if bool(total.isnan().any()):
        raise GenmatchError("the logits of tokens must not be NaN, nor all -inf; the model that made them has diverged.")
    index = torch.searchsorted(cumulative, uniform.double().unsqueeze(-1) * total, right=True)
    return index.squeeze(-1).clamp(max=logits.shape[-1] - 1)
