"""Small operations on batches of states that every layer shares.

A state is a tensor with a leading batch axis, or, for products, a dictionary of states. Times are float64 tensors of
shape (B,): schedules lose digits in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.rows import uniform

State = Any
"""A tensor of shape (B, ...), or a dictionary of states."""


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


def scatter(where: Tensor, values: Tensor) -> Tensor:
    """The `values`, (N,), at the coordinates with a True in `where`, in order, and zeros elsewhere, (B, *shape).

    Example:
        >>> scatter(torch.tensor([[True, False, True]]), torch.tensor([2.0, 3.0]))
        tensor([[2., 0., 3.]])
    """
    return values.new_zeros(where.shape).masked_scatter(where, values)
