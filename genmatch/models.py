"""Calling a model: times in its precision, conditions bound, outputs checked, calls counted.

A model is any callable `model(x, t, **condition) -> output` with `t` of shape (B,).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.processes.base import MarkovProcess
from genmatch.tensors import State, batch_size, leaves, tree_map

Model = Callable[..., Any]
Condition = Mapping[str, Any]


def floating_parts(model: Model) -> Iterator[Tensor]:
    """Floating parameters and buffers of a model, if it is a module."""
    if isinstance(model, torch.nn.Module):
        yield from (part for part in itertools.chain(model.parameters(), model.buffers()) if part.is_floating_point())


def device_of(model: Model) -> torch.device:
    """Where the model's first parameter is; the CPU for a function."""
    return next((part.device for part in floating_parts(model)), torch.device("cpu"))


def as_condition(condition: Any) -> dict[str, Any]:
    """Keyword arguments for the model: a mapping as it is, a bare tensor under the name `condition`.

    Raises:
        GenmatchError: for anything else.
    """
    if condition is None:
        return {}
    if isinstance(condition, Mapping):
        return dict(condition)
    if isinstance(condition, Tensor):
        return {"condition": condition}
    raise GenmatchError(f"`condition` must be a tensor or a dictionary of tensors, got {type(condition).__name__}.")


def _as_it_is(x: State, t: Tensor) -> State:
    return x


class Predictor:
    """A model with its condition bound, as solvers and the training loop call it.

    Args:
        process: says what shape the output must have.
        model: the model.
        condition: keyword arguments for each call, tensors with one entry a sample.
        keep: puts into a state what is known of the data at a time; the model sees the result.
    """

    def __init__(self, process: MarkovProcess, model: Model, condition: Condition | None = None, keep: Callable[[State, Tensor], State] | None = None) -> None:
        if not callable(model):
            raise GenmatchError(f"`model` must be callable as model(x, t, **condition), got {type(model).__name__}.")
        self.process = process
        self.model = model
        self.condition = as_condition(condition)
        self.keep = keep or _as_it_is
        self.calls = 0
        self._time_dtype = next((part.dtype for part in floating_parts(model)), None)

    def __call__(self, x: State, t: Tensor) -> State:
        """The model's output at states `x` and times `t`, (B,).

        Raises:
            GenmatchError: if the output does not have the shape that the process needs.
        """
        self.calls += 1
        output = self.model(self.keep(x, t), t.to(self._dtype(x)), **self.condition)
        check_output(self.process, output, batch_size(x))
        return output

    def _dtype(self, x: State) -> torch.dtype:
        """The model's precision, or the state's, and never less than float32: times near 1 would round to 1."""
        state = (leaf.dtype for leaf in leaves(x) if leaf.is_floating_point())
        dtype = self._time_dtype or next(state, torch.get_default_dtype())
        return torch.promote_types(dtype, torch.float32)


def check_output(process: MarkovProcess, output: State, n: int) -> None:
    """Raises `GenmatchError` unless `output` has the shape that `process` needs for `n` samples."""

    def check(value: Any, shape: tuple[int, ...], name: str) -> None:
        wanted = (n, *shape)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise GenmatchError(f"the model must return a floating tensor{name}, got {found}.")
        if tuple(value.shape) != wanted:
            raise GenmatchError(
                f"the model's output{name} must have shape {wanted} for {process}, got {tuple(value.shape)}; build the network with `process.output_shape`."
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

    walk(output, process.output_shape, "")


def check_model(process: MarkovProcess, model: Model, condition: Condition | None, n: int, device: torch.device) -> None:
    """Calls the model once on `n` states of noise, so that a wrong one fails before any work starts."""
    rng = torch.Generator(device).manual_seed(0)
    x = process.path.source(n, rng=rng)
    condition = tree_map(lambda value: value[:n], as_condition(condition))
    with torch.no_grad(), evaluating(model):
        Predictor(process, model, condition)(x, torch.full((n,), 0.5, dtype=torch.float64, device=device))


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode for the time of a block, if the model is a module."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    training = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, was in zip(modules, training, strict=True):
            module.training = was
