"""The law of a noise token: one for all positions or one for each, how to look it up and how to draw from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.logits import draw_at
from genmatch.rows import integers
from genmatch.spaces import Categorical


def source_law(source: Any, space: Categorical) -> Tensor:
    """The law of a noise token over all states, float64, (S,) or (*shape, S)."""
    if isinstance(source, str):
        if source == "mask":
            law = torch.zeros(space.num_states, dtype=torch.float64)
            law[space.mask_id] = 1.0
            return law
        if source == "uniform":
            return torch.full((space.num_states,), 1 / space.num_states, dtype=torch.float64)
        raise unknown("source", source, ["mask", "uniform"])
    try:
        law = torch.as_tensor(source).double()
    except (TypeError, ValueError, RuntimeError):
        raise GenmatchError(f"`source` must be 'mask', 'uniform' or a tensor of probabilities, got {source!r}.") from None
    shapes = ((space.num_states,), (*space.shape, space.num_states))
    if tuple(law.shape) not in shapes:
        raise GenmatchError(f"`source` must have shape {shapes[0]} or {shapes[1]}, got {tuple(law.shape)}.")
    total = law.sum(-1)
    if not bool((law >= 0).all()) or not bool(((total - 1).abs() < 1e-6).all()):
        raise GenmatchError(
            f"`source` must hold probabilities that sum to 1, got a minimum of {law.min():.3g} and sums from {total.min():.6g} to {total.max():.6g}; divide by the sum."
        )
    return law / total.unsqueeze(-1)


def source_draw(law: Tensor, space: Categorical) -> Callable[[int, torch.Generator | None], Tensor]:
    """How to draw noise from `law`: nothing to draw for a certain token, and no table for equal probabilities."""

    def certain(n: int, rng: torch.Generator | None) -> Tensor:
        return torch.full((n, *space.shape), int(law.argmax()), device=rng.device if rng else None)

    def equal(n: int, rng: torch.Generator | None) -> Tensor:
        return integers(space.num_states, (n, *space.shape), device=rng.device if rng else None, rng=rng)

    def any_law(n: int, rng: torch.Generator | None) -> Tensor:
        rows = law.log().to(rng.device if rng else None).expand(n, *space.shape, space.num_states)
        everywhere = torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device)
        return draw_at(rows.reshape(-1, space.num_states), everywhere, rng=rng).reshape(n, *space.shape)

    if law.dim() == 1 and bool((law == 1).any()):
        return certain
    if law.dim() == 1 and bool((law == law[0]).all()):
        return equal
    return any_law


def looked_up(table: Tensor, x: Tensor) -> Tensor:
    """The entry for each token of `x`, (B, *shape), in a table over states, (S,) or (*shape, S)."""
    table = table.to(x.device)
    return table[x] if table.dim() == 1 else table.expand(len(x), *table.shape).gather(-1, x.unsqueeze(-1)).squeeze(-1)
