"""Derivatives of test functions, which the action of a generator needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genmatch.errors import GenmatchError


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
