"""Laws of known density that resemble given states: rulers against which a density of unknown scale is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genmatch.logits import draw_categorical
from genmatch.tensors import State

_WIDER = 1.2
_UNIFORM = 0.1


@dataclass(frozen=True)
class Reference:
    """A law with its density.

    Attributes:
        draw: takes a number of states and an `rng`, returns float64 states or tokens.
        log_prob: takes states (B, *shape), returns log densities in nats, float64, (B,).
    """

    draw: Callable[[int, torch.Generator], State]
    log_prob: Callable[[State], Tensor]


def normal_like(x: Tensor) -> Reference:
    """A normal law with the means of the coordinates of `x` and a little more than their spread."""
    mean, std = x.double().mean(0), _WIDER * x.double().std(0) + 1e-9

    def draw(n: int, rng: torch.Generator) -> Tensor:
        return mean + std * torch.randn(n, *mean.shape, dtype=torch.float64, generator=rng)

    def log_prob(x: Tensor) -> Tensor:
        z = (x.double() - mean) / std
        return (-0.5 * z**2 - torch.log(std) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(-1)

    return Reference(draw, log_prob)


def tokens_like(x: Tensor, num_states: int) -> Reference:
    """Independent tokens with the frequencies of `x` at each position, about one state in ten with a uniform token.

    Args:
        x: states, (B, *shape).
        num_states: values that a token can have.
    """
    counts = torch.nn.functional.one_hot(x.flatten(1), num_states).double().mean(0)
    share = _UNIFORM / len(counts)
    log_law = ((1 - share) * counts + share / num_states).log()

    def draw(n: int, rng: torch.Generator) -> Tensor:
        return draw_categorical(log_law.repeat(n, 1), rng=rng).view(n, *x.shape[1:])

    def log_prob(x: Tensor) -> Tensor:
        return log_law[torch.arange(len(log_law)), x.flatten(1)].sum(-1)

    return Reference(draw, log_prob)


def uniform(draw: Callable[[int, torch.Generator], Tensor], log_volume: float) -> Reference:
    """The uniform law of a space of finite volume.

    Args:
        draw: draws n states.
        log_volume: logarithm of the volume.
    """
    return Reference(draw, lambda x: torch.full((len(x),), -log_volume, dtype=torch.float64))


def product(parts: Mapping[str, Reference]) -> Reference:
    """Independent parts."""
    return Reference(
        lambda n, rng: {name: part.draw(n, rng) for name, part in parts.items()},
        lambda x: torch.stack([part.log_prob(x[name]) for name, part in parts.items()]).sum(0),
    )
