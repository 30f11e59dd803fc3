"""What the spaces check alike: shapes, dtypes, and that numbers are numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, positive_integer


def check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns `shape` as a tuple of positive integers, or raises `GenmatchError`."""
    try:
        checked = tuple(positive_integer(n, "shape") for n in shape)
    except (TypeError, GenmatchError):
        checked = ()
    if not checked:
        raise GenmatchError(f"`shape` must be a tuple of positive integers, got {shape!r}; pass e.g. (1, 8, 8).")
    return checked


def check_dtype(dtype: torch.dtype, name: str) -> torch.dtype:
    """Returns a floating `dtype`, or raises `GenmatchError`."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise GenmatchError(f"`dtype` of {name} must be floating, got {dtype!r}; pass torch.float32.")
    return dtype


def as_tensor(data: Any, name: str) -> Tensor:
    """Returns `data` as a tensor, or raises `GenmatchError` if it is not an array."""
    try:
        return torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GenmatchError(f"`{name}` must be a tensor or an array, got {type(data).__name__} ({error}).") from None


def check_batch(x: Any, shape: tuple[int, ...], name: str) -> None:
    """Raises `GenmatchError` unless `x` is a tensor of at least one state, (B, *shape)."""
    if not isinstance(x, Tensor):
        raise GenmatchError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}; pass `torch.as_tensor({name})`.")
    if x.dim() == 0 or tuple(x.shape[1:]) != shape:
        mend = f"`{name}.reshape(-1, *{shape})`" if x.numel() % math.prod(shape) == 0 else f"a process on states of shape {tuple(x.shape[1:])}"
        wanted = ", ".join(["B", *map(str, shape)])
        raise GenmatchError(f"`{name}` must have shape ({wanted}), got {tuple(x.shape)}; pass {mend}.")
    if len(x) == 0:
        raise GenmatchError(f"`{name}` must hold at least one state, got shape {tuple(x.shape)}.")


def check_vectors(x: Any, shape: tuple[int, ...], name: str, space: object) -> None:
    """Raises `GenmatchError` unless `x` is a batch of finite floating states of `space`, (B, *shape)."""
    check_batch(x, shape, name)
    if not x.is_floating_point():
        raise GenmatchError(f"`{name}` must be floating for {space}, got {x.dtype}; pass `{name}.float()`.")
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where = tuple(int(i) for i in (~finite).nonzero()[0])
        count = int((~finite).sum())
        raise GenmatchError(f"`{name}` must be finite, got {count} value(s) that are not, the first at {where}; clean the data first.")
