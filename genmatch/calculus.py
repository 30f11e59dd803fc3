"""Derivatives and differences of test functions, of which the action of a generator is made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.errors import GenmatchError

_AT_ONCE = 2**20
"""Coordinates of states at which `differences` evaluates a test function at a time: bounds its memory."""


def gradient(f: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False) -> Tensor:
    """The gradient of `f`, a function of states (B, *shape) with values (B,), at `x`; zero if it is constant.

    Raises:
        GenmatchError: if `f` returns another shape.
    """
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        value = f(x)
        if value.shape != (len(x),):
            raise GenmatchError(f"a test function must return shape (B,) = ({len(x)},), got {tuple(value.shape)}.")
        if not value.requires_grad:
            return torch.zeros_like(x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=create_graph, materialize_grads=True)
    return slope if create_graph else slope.detach()


def second_derivatives(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The second derivative of `f` in each coordinate, (B, *shape): they add up to the Laplacian.

    Example:
        >>> second_derivatives(lambda x: (x**3).sum(-1), torch.tensor([[1.0, 2.0]]))
        tensor([[ 6., 12.]])
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope = gradient(f, x, create_graph=True).flatten(1)
        if not slope.requires_grad:
            return torch.zeros_like(x).detach()
        columns = []
        for i in range(slope.shape[1]):
            (row,) = torch.autograd.grad(slope[:, i].sum(), x, retain_graph=True, materialize_grads=True)
            columns.append(row.flatten(1)[:, i])
    return torch.stack(columns, -1).view_as(x).detach()


def neighbours(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, values: Tensor, wanted: Tensor, size: int = 4096) -> Tensor:
    """What `f` is at the states with one coordinate changed, float64, (B, *shape, K); zero where it is not asked for.

    Args:
        f: states, (N, *shape), and the rows of `x` that they come from, (N,), to values, (N,).
        x: states, (B, *shape).
        values: what a coordinate may become, (K,).
        wanted: True where `f` is asked for, (B, *shape, K).
        size: states a call of `f`.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> neighbours(lambda x, rows: x.sum(-1), x, torch.tensor([0.0, 10.0]), torch.tensor([[[True, True], [False, True]]]))
        tensor([[[ 2., 12.],
                 [ 0., 11.]]], dtype=torch.float64)
    """
    row, position, which = wanted.flatten(1, -2).nonzero(as_tuple=True)
    found = torch.zeros(len(x), x[0].numel(), wanted.shape[-1], dtype=torch.float64, device=x.device)
    # Of nothing a split is one empty piece, which `f` is not asked for.
    for some in torch.arange(len(row), device=x.device).split(size) if len(row) else ():
        i, j, k = row[some], position[some], which[some]
        there = x.flatten(1)[i].clone()
        there[torch.arange(len(i), device=x.device), j] = values[k].to(x.dtype)
        found[i, j, k] = f(there.view(-1, *x.shape[1:]), i).double()
    return found.view(wanted.shape)


def differences(f: Callable[[Tensor], Tensor], x: Tensor, intensity: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """What single jumps change of `f`, per unit time, (B,): sum over j and k of intensity_j weights_jk (f(x with x_j = values_jk) - f(x)).

    Args:
        f: a function of states (B, *shape) with values (B,).
        x: states, (B, *shape).
        intensity: rate of each coordinate's clock, (B, *shape).
        values: where a coordinate may land, broadcastable to (B, *shape, K).
        weights: probability of each of the values, broadcastable to (B, *shape, K).

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> differences(lambda x: x.sum(-1), x, torch.tensor([[1.0, 3.0]]), torch.tensor([0.0, 10.0]), torch.tensor([0.5, 0.5]))  # 1 x 4 + 3 x 3
        tensor([13.])
    """
    values, weights = (v.expand(*x.shape, v.shape[-1]).flatten(1, -2) for v in (values, weights))
    flat, here, intensity = x.flatten(1), f(x), intensity.flatten(1)
    total = torch.zeros_like(here)
    at_once = max(1, _AT_ONCE // max(1, x.numel()))
    for j in range(flat.shape[1]):
        for some, weight in zip(values[:, j].split(at_once, -1), weights[:, j].split(at_once, -1), strict=True):
            there = flat.repeat_interleave(some.shape[-1], 0)
            there[:, j] = some.flatten()
            change = f(there.view(-1, *x.shape[1:])).view(len(x), -1) - here.unsqueeze(-1)
            total = total + (torch.nan_to_num(intensity[:, j, None] * weight).to(here.dtype) * change).sum(-1)
    return total
