r"""Models that were trained with another library's conventions, as models here.

flow_matching counts time from noise, 0, to data, 1, as genmatch does, so that its velocities are `Flow`'s. It calls a model by
keywords, `model(x=x, t=t, **extras)`, and in sampling with a `t` without a batch axis; here `t` has shape (B,), as in its training.
Its models of tokens return *probabilities* in sampling and logits in training, over a vocabulary that counts the mask, as its last
token, where there is one. Here a network returns logits over the V tokens of the data: the mask is never drawn.

Source: "Flow Matching Guide and Code" (Lipman et al., 2024), https://arxiv.org/abs/2412.06264.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer
from genmatch.lazy import Model
from genmatch.reprs import arguments


class FlowMatchingVelocity(torch.nn.Module):
    """A velocity model of flow_matching, for `Flow(path)`.

    Args:
        model: called as `model(x=x, t=t, **extras)`; a condition is passed on by its name.

    Example:
        >>> import genmatch as gm
        >>> model = FlowMatchingVelocity(lambda x, t: -x)
        >>> gm.sample(gm.Flow(gm.paths.Gaussian((3,))), model, 2, steps=4, seed=0).shape
        torch.Size([2, 3])
    """

    extra_repr = arguments

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = _called(model)

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """The velocity, (B, *shape)."""
        return self.model(x=x, t=t, **condition)


class FlowMatchingPosterior(torch.nn.Module):
    """A model of tokens of flow_matching, for `CTMC(gm.paths.Mixture(...))` with the same source and schedule.

    Args:
        model: called as `model(x=x, t=t, **extras)`, returns (B, *shape, V), or with one more entry for the mask.
        vocab_size: V, without the mask.
        logits: whether the model returns logits, as in training, or probabilities, as in sampling.

    Example:
        >>> import genmatch as gm
        >>> model = FlowMatchingPosterior(lambda x, t: torch.tensor([0.0, 1.0, 0.0]).expand(*x.shape, 3), vocab_size=2)
        >>> gm.sample(gm.CTMC(gm.paths.Mixture((4,), vocab_size=2)), model, 1, steps=4, seed=0)
        tensor([[1, 1, 1, 1]])
    """

    extra_repr = arguments

    def __init__(self, model: Model, vocab_size: int, *, logits: bool = False) -> None:
        super().__init__()
        self.model = _called(model)
        self.vocab_size, self.logits = positive_integer(vocab_size, "vocab_size"), logits

    def forward(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Logits over the tokens of the data, (B, *shape, V).

        Raises:
            GenmatchError: if the model returns another vocabulary, or what it returns are no probabilities.
        """
        output = self.model(x=x, t=t, **condition)
        if output.shape[-1] not in (self.vocab_size, self.vocab_size + 1):
            raise GenmatchError(f"the model must return {self.vocab_size} entries a token, or one more for the mask, got {output.shape[-1]}; set `vocab_size`.")
        known = output[..., : self.vocab_size]
        if self.logits:
            return known
        if bool((known < 0).any()):
            raise GenmatchError("the model must return probabilities, got negative ones; pass logits=True for a model that returns logits.")
        return known.log()


def _called(model: Model) -> Model:
    if not callable(model):
        raise GenmatchError(f"`model` must be callable as model(x=x, t=t, **extras), got {type(model).__name__}.")
    return model


__all__ = ["FlowMatchingPosterior", "FlowMatchingVelocity"]
