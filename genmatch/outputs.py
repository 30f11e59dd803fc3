"""What a network must return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.tensors import State


def check_output(shape: Any, output: State, n: int) -> None:
    """Raises `GenmatchError` unless `output` holds `n` outputs of `shape`, a process's `output_shape`."""

    def check(value: Any, shape: tuple[int, ...], name: str) -> None:
        wanted = (n, *shape)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise GenmatchError(f"the model must return a floating tensor{name}, got {found}.")
        if tuple(value.shape) != wanted:
            raise GenmatchError(
                f"the model's output{name} must have shape {wanted} for this process, got {tuple(value.shape)}; build the network with `process.output_shape`."
            )

    def walk(value: Any, shape: Any, name: str) -> None:
        if isinstance(shape, Mapping):
            if not isinstance(value, Mapping) or set(value) != set(shape):
                found = sorted(value) if isinstance(value, Mapping) else type(value).__name__
                raise GenmatchError(f"the model's output{name} must be a dictionary with keys {sorted(shape)}, got {found}.")
            for part in shape:
                walk(value[part], shape[part], f"{name}[{part!r}]")
        else:
            check(value, shape, name)

    walk(output, shape, "")
