"""What an object is, in a line: its type and what it was made of, tensors by dtype and shape.

Drift(velocity=float32 (64, 2))
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_SHOWN = 4
"""Entries of a list that are shown one by one."""
_ABSENT = object()


def described(thing: object) -> str:
    """A `__repr__`: the type, and each argument of the constructor that is an attribute too and is not the default.

    Example:
        >>> class Box:
        ...     def __init__(self, inside, colour="white"):
        ...         self.inside, self.colour = inside, colour
        ...     __repr__ = described
        >>> Box(torch.zeros(3, 2))
        Box(inside=float32 (3, 2))
    """
    return f"{type(thing).__name__}({arguments(thing)})"


def arguments(thing: object) -> str:
    """The part of `described` in parentheses, without networks, which modules list by themselves: an `extra_repr`."""
    if dataclasses.is_dataclass(thing):
        defaults = {field.name: field.default for field in dataclasses.fields(thing)}
    else:
        defaults = {name: one.default for name, one in inspect.signature(type(thing).__init__).parameters.items() if name != "self"}
    shown = []
    for name, default in defaults.items():
        value = getattr(thing, name, _ABSENT)
        inside = isinstance(thing, torch.nn.Module) and isinstance(value, torch.nn.Module)
        if value is not _ABSENT and value is not default and not inside and not _equal(value, default):
            shown.append(f"{name}={short(value)}")
    return ", ".join(shown)


def short(value: Any) -> str:
    """A value in a few words.

    Example:
        >>> short(torch.zeros(2, 3)), short({"image": torch.zeros(1)}), short([0.5] * 100), short(len)
        ('float32 (2, 3)', '{image: float32 (1,)}', '[0.5, ... 100 in all]', 'len')
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__} of {sum(p.numel() for p in value.parameters()):,} parameters"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {short(one)}' for name, one in value.items())}}}"
    if isinstance(value, list | tuple):
        open_, close = "[]" if isinstance(value, list) else "()"
        if len(value) > _SHOWN:
            return f"{open_}{short(value[0])}, ... {len(value)} in all{close}"
        return f"{open_}{', '.join(map(short, value))}{close}"
    if inspect.isroutine(value):
        return str(getattr(value, "__qualname__", value)).replace("<locals>.", "")
    return repr(value)


def _equal(value: Any, default: Any) -> bool:
    """Whether a plain value is the default."""
    return isinstance(value, str | int | float | tuple) and type(value) is type(default) and value == default
