r"""Sharper token laws: a model whose logits are divided by a temperature and cut to their most likely tokens.

    p_T(v) proportional to p(v)^{1/T},   then the smallest set of tokens whose probability reaches `top_p`, renormalised.

Both act on the logits before anything else does, so that they never change *when* a token is revealed. Both change the law:
they trade diversity for likely samples, and are off unless they are asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, number_in
from genmatch.lazy import is_split
from genmatch.models import Model
from genmatch.reprs import arguments


class Sharpened(torch.nn.Module):
    """A model of tokens with sharper logits. Built by `sharpen`.

    Args:
        model: returns logits.
        temperature: logits are divided by it.
        top_p: share of the probability that is kept.
    """

    extra_repr = arguments

    def __init__(self, model: Model, temperature: float, top_p: float) -> None:
        super().__init__()
        self.model, self.temperature, self.top_p = model, temperature, top_p
        self.time_free = bool(getattr(model, "time_free", False))
        if is_split(model):
            # A split model stays one, and one that goes on from a prefix does so.
            self.causal, self.resume = bool(getattr(model, "causal", False)), getattr(model, "resume", None)
            self.features, self.head = model.features, lambda features: self.sharpened(model.head(features))  # type: ignore[attr-defined]

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The sharpened logits, (B, *shape, V)."""
        return self.sharpened(self.model(x, t, **condition))

    def sharpened(self, logits: Tensor) -> Tensor:
        """Sharpens logits over their last axis."""
        logits = logits / self.temperature
        if self.top_p == 1:
            return logits
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        probs = ranked.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        # A token is kept while the ones before it do not reach `top_p`: the one that crosses it is kept too.
        cut = probs.cumsum(-1, dtype=torch.float64) - probs >= self.top_p
        return logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), -torch.inf)


def sharpen(model: Model, *, temperature: float = 1.0, top_p: float = 1.0) -> Sharpened:
    """A model of tokens with less random draws, for `sample` and `simulate`.

    Args:
        model: returns logits, (B, *shape, V).
        temperature: divides the logits; 1 changes nothing, less is sharper.
        top_p: keeps the smallest set of tokens of at least this probability; 1 keeps all.

    Raises:
        GenmatchError: if an argument is out of range.

    Example:
        >>> model = sharpen(lambda x, t: torch.tensor([[[0.6, 0.3, 0.1]]]).log(), top_p=0.8)
        >>> model(torch.zeros(1, 1), torch.zeros(1)).softmax(-1)
        tensor([[[0.6667, 0.3333, 0.0000]]])
    """
    temperature = number_in("(0, inf)", temperature, "temperature", "for the most likely token at the end use solver='argmax-final'")
    top_p = number_in("(0, 1]", top_p, "top_p", "it is a probability, and 1 keeps all tokens")
    if not callable(model):
        raise GenmatchError(f"`model` must be callable as model(x, t, **condition), got {type(model).__name__}.")
    return Sharpened(model, temperature, top_p)


__all__ = ["Sharpened", "sharpen"]
