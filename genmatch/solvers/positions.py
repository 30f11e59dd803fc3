"""The order of positions: by what they are ranked, and which come first.

A rank is the place of a coordinate in its sample: by rising turn, falling score, rising random number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmatch.logits import read


def _confidence(log_probs: Tensor) -> Tensor:
    return log_probs.max(-1).values.exp()


def _margin(log_probs: Tensor) -> Tensor:
    best = log_probs.topk(min(2, log_probs.shape[-1]), -1).values.exp()
    return best[:, 0] if best.shape[-1] == 1 else best[:, 0] - best[:, 1]


def _certainty(log_probs: Tensor) -> Tensor:
    return torch.special.xlogy(log_probs.exp(), log_probs.exp()).sum(-1)


def _of_logits(function: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """A score of the log posterior, (N, V), as a score of positions, read a few at a time."""

    def score(logits: Any, where: Tensor) -> Tensor:
        scores = torch.full(where.shape, -torch.inf, dtype=torch.float64, device=where.device)
        return scores.masked_scatter(where, read(logits, where, lambda part: function(part.log_softmax(-1, dtype=torch.float64))))

    return score


def _of_places(logits: Any, where: Tensor) -> Tensor:
    places = torch.arange(where[0].numel(), dtype=torch.float64, device=where.device).view(where.shape[1:])
    return torch.where(where, -places, -torch.inf)


def _of_nothing(logits: Any, where: Tensor) -> Tensor:
    return torch.where(where, 0.0, -torch.inf).double()


SCORES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "confidence": _of_logits(_confidence),
    "margin": _of_logits(_margin),
    "entropy": _of_logits(_certainty),
    "random": _of_nothing,
    "left-to-right": _of_places,
}
"""What positions are ranked by: a function of the state alone, (B, *shape), -inf where nothing is asked for."""


def count(where: Tensor) -> Tensor:
    """How many coordinates of each sample are at `where`, (B,)."""
    return where.flatten(1).sum(-1)


def earlier(where: Tensor, turns: Tensor) -> Tensor:
    """How many coordinates at `where` have an earlier turn than each coordinate has by `turns`, (*shape): (B, *shape)."""
    flat, index = where.flatten(1).long(), turns.flatten()
    counts = flat.new_zeros(len(flat), int(index.max()) + 1).index_add_(1, index, flat)
    return (counts.cumsum(-1) - counts)[:, index].view_as(where)


def ranks(scores: Tensor, ties: Tensor | None = None, turns: Tensor | None = None) -> Tensor:
    """The place of each coordinate in its sample, from 0, (B, *shape): by rising `turns`, falling `scores`, rising `ties`."""
    flat = scores.flatten(1)
    order = torch.arange(flat.shape[1], device=flat.device).expand_as(flat) if ties is None else ties.flatten(1).argsort(-1)
    order = order.gather(-1, flat.gather(-1, order).argsort(dim=-1, descending=True, stable=True))
    if turns is not None:
        order = order.gather(-1, turns.expand_as(scores).flatten(1).gather(-1, order).argsort(dim=-1, stable=True))
    return order.argsort(-1).view_as(scores)
