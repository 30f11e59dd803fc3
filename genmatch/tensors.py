"""Small operations on batches of states that every layer shares.

A state is a tensor with a leading batch axis, or, for products, a dictionary of states. Times are float64 tensors of
shape (B,): schedules lose digits in float32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.rows import uniform

State = Any
"""A tensor of shape (B, ...), or a dictionary of states."""

_PORTION, _PIECE, _BLOCK = 2**22, 2**18, 256
"""Values that are read at a time, that are worked on at a time, and whose weights are summed up at a time."""


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


def named_leaves(state: State, name: str) -> dict[str, Any]:
    """The tensors of a state by name: `name` itself, or `name.part` for each part of a product.

    Example:
        >>> list(named_leaves({"image": torch.zeros(2), "text": torch.zeros(2)}, "states"))
        ['states.image', 'states.text']
    """
    if isinstance(state, dict):
        return {key: leaf for part, value in state.items() for key, leaf in named_leaves(value, f"{name}.{part}").items()}
    return {name: state}


def precise(value: Tensor) -> Tensor:
    """The value in float32 or better."""
    return value if value.dtype == torch.float32 else value.to(torch.promote_types(value.dtype, torch.float32))


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
    """A number in [0, 1) for each coordinate, float64: float32 ones are wrong by 1 % for a probability of 1e-6.

    Args:
        like: a tensor of the shape and on the device of the numbers.
        rng: source of randomness.
    """
    return uniform(like.shape, dtype=torch.float64, device=like.device, rng=rng)


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


def draw_at(logits: Tensor, where: Tensor, *, rng: torch.Generator | None) -> Tensor:
    """The same for the coordinates with a True in `where`, (B, *shape), whose logits are given in order, (N, S).

    Each coordinate has a uniform of its own, so that what one sample draws does not depend on the others.
    """
    return _invert(logits, uniforms(where, rng=rng)[where])


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


def scatter(where: Tensor, values: Tensor) -> Tensor:
    """The `values`, (N,), at the coordinates with a True in `where`, in order, and zeros elsewhere, (B, *shape).

    Example:
        >>> scatter(torch.tensor([[True, False, True]]), torch.tensor([2.0, 3.0]))
        tensor([[2., 0., 3.]])
    """
    return values.new_zeros(where.shape).masked_scatter(where, values)


def portions(where: Tensor, size: int) -> list[Tensor]:
    """Masks that together are `where`, in order, each of at most `size` coordinates; `where` itself if it has no more."""
    if where.numel() <= size:
        return [where]
    places = where.flatten().nonzero().squeeze(-1)
    if len(places) <= size:
        return [where]
    return [torch.zeros_like(where).flatten().index_fill_(0, some, True).view_as(where) for some in places.split(size)]


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
