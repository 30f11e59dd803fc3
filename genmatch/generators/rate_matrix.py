"""The rate matrix of a generator on a small finite space: for tests and teaching, never part of a solver.

    Q[y, x] = rate from x to y,   Q[x, x] = - sum over y != x of Q[y, x],   dp/dt = Q p

`Generator.dense` and `Jump.rates` are the calls to use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genmatch.destinations import Destination
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size


def rate_matrix(moves: Callable[[State, Space], Iterator[tuple[State, Tensor]]], space: Space) -> Tensor:
    """The matrix Q, (S, S), float64, of what `moves` says of all S states of a space."""
    x = space.enumerate()
    source = torch.arange(batch_size(x))
    matrix = torch.zeros(len(source), len(source), dtype=torch.float64)
    for y, rate in moves(x, space):
        matrix.index_put_((space.index(y), source), rate.double(), accumulate=True)
    return matrix


def jump_rates(x: Tensor, intensity: Tensor, destination: Destination, num_states: int) -> Tensor:
    """Rates to each state of each position, (B, *shape, num_states); the entry of the present state is minus the exit rate."""
    values, weights = destination.atoms()
    values = values.expand(*x.shape, values.shape[-1])
    flow = (intensity.unsqueeze(-1) * weights).expand(values.shape)
    rates = flow.new_zeros(*x.shape, num_states).scatter_add(-1, values, flow)
    rates = rates.scatter(-1, x.unsqueeze(-1), 0.0)
    return rates.scatter(-1, x.unsqueeze(-1), -rates.sum(-1, keepdim=True))


def jump_moves(x: Tensor, rates: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The states that one jump of one position leads to from each state of `x`, and its rate, (B,), given all `rates`, (B, *shape, V)."""
    rates = rates.flatten(1, -2)
    for j in range(rates.shape[1]):
        for v in range(rates.shape[-1]):
            y = x.flatten(1).clone()
            y[:, j] = v
            yield y.view_as(x), rates[:, j, v]
