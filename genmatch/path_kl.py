r"""How fast two processes move apart: the rate at which the Kullback-Leibler divergence of their path measures grows.

Two diffusions with the same noise $g$ and drifts $u$ and $v$ (Girsanov), and two processes that jump from $x$ at rates $a$ and $b$:

    diffusions      |u - v|^2 / (2 g^2)
    jumps           sum over y != x of   a(y) log(a(y) / b(y)) - a(y) + b(y)

The rates of the two kinds add. `Generator.kl` is the call to use; here are its formulas, for the values of the terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genmatch.destinations import Destination


def diffusion_kl(x: Tensor, drifts: Sequence[Tensor | None], variances: Sequence[Tensor | None]) -> Tensor:
    """The divergence of the drifts and the noise of two processes at states `x`, nats per unit time, (B,); infinite where g^2 differs.

    Args:
        x: states, (B, *shape); tokens have neither drift nor noise.
        drifts: u and v, the shape of `x`; None for no drift.
        variances: g^2 of each, broadcastable to `x`; None for no noise.

    Example:
        >>> one = torch.ones(1, 1)
        >>> diffusion_kl(one, (one, 3 * one), (one, one))
        tensor([2.])
    """
    if not x.is_floating_point():
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    zero = torch.zeros_like(x)
    u, v = (zero if drift is None else drift for drift in drifts)
    g2, h2 = (zero if variance is None else variance.expand_as(x) for variance in variances)
    gap = (u - v) ** 2
    rate = torch.where(gap > 0, gap / (2 * g2), zero)
    return torch.where(g2 == h2, rate, torch.full_like(x, math.inf)).flatten(1).sum(-1)


def jump_kl(x: Tensor, intensities: Sequence[Tensor], destinations: Sequence[Destination]) -> Tensor:
    """The divergence of the jump rates of two processes at states `x`, nats per unit time, (B,); infinite where only the first jumps.

    Args:
        x: states, (B, *shape).
        intensities: rate of each coordinate's clock in the two processes, (B, *shape).
        destinations: where a coordinate lands in each.

    Example:
        >>> from genmatch.destinations import PointMass
        >>> to_one = PointMass(torch.tensor([[1]]))
        >>> jump_kl(torch.tensor([[0]]), (torch.tensor([[2.0]]), torch.tensor([[1.0]])), (to_one, to_one))  # 2 log 2 - 2 + 1
        tensor([0.3863])
    """
    values, weights = destinations[0].atoms()
    values = values.expand(*x.shape, values.shape[-1])
    flow = intensities[0].unsqueeze(-1) * weights.expand(values.shape)
    moves = (values != x.unsqueeze(-1)) & (flow > 0)
    pairs = list(zip(intensities, destinations, strict=True))
    # A one stands in where nothing moves: 0 / 0 there would spoil the gradient of the rest.
    a, b = (torch.where(moves, intensity.unsqueeze(-1) * destination.density(values), 1) for intensity, destination in pairs)
    gain = torch.where(moves, flow * (a / b).log(), 0).sum(-1)
    exit_a, exit_b = (intensity * (1 - destination.mass(x.unsqueeze(-1)).squeeze(-1)) for intensity, destination in pairs)
    return (gain - exit_a + exit_b).flatten(1).sum(-1)
