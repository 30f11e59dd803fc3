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
from genmatch.lazy import Reader
from genmatch.logits import Indexed
from genmatch.outputs import check_output
from genmatch.prefixes import PrefixReader, resumes
from genmatch.processes.base import MarkovProcess
from genmatch.reprs import described
from genmatch.solvers.base import Solver
from genmatch.tensors import State, leaves, precise, tree_map

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


def conditions_for(condition: Any, n: int, of: str = "samples") -> dict[str, Any]:
    """Keyword arguments for the model, after a check that each has one entry for each of `n` samples, or whatever they are `of`."""
    conditions = as_condition(condition)
    for name, value in conditions.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != n:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise GenmatchError(f"the condition `{name}` must be a tensor with one entry for each of {n} {of}, got {found}.")
    return conditions


def null_of(model: Model) -> Condition | None:
    """What a model declares that its conditions are when they are not given, `model.null`: a value by name; None if it declares nothing.

    Raises:
        GenmatchError: if `null` is no mapping.
    """
    null = getattr(model, "null", None)
    if null is not None and not isinstance(null, Mapping):
        raise GenmatchError(f"`model.null` must map the names of conditions to their values when not given, got {type(null).__name__}.")
    return null


def _as_it_is(x: State, t: Tensor) -> State:
    return x


class Predictor:
    """A model with its condition bound, as solvers and the training loop call it.

    Args:
        process: says what shape the output must have.
        model: the model.
        condition: keyword arguments for each call, tensors with one entry a sample.
        keep: puts into a state what is known of the data at a time; the model sees the result.

    Attributes:
        calls: how often an output was asked for.
    """

    __repr__ = described

    def __init__(self, process: MarkovProcess, model: Model, condition: Condition | None = None, keep: Callable[[State, Tensor], State] | None = None) -> None:
        if not callable(model):
            raise GenmatchError(f"`model` must be callable as model(x, t, **condition), got {type(model).__name__}.")
        self.process = process
        self.model = model
        self.condition = as_condition(condition)
        self.keep = keep or _as_it_is
        self.calls = 0
        self._whole = 0
        self._rows = torch.zeros((), dtype=torch.int64)
        self._reader: Reader | PrefixReader | None = None
        self._time_dtype = next((part.dtype for part in floating_parts(model)), None)

    def __call__(self, x: State, t: Tensor) -> State:
        """The model's output at states `x` and times `t`, (B,).

        Raises:
            GenmatchError: if the output does not have the shape that the process needs.
        """
        self.calls += 1
        self._whole += 1
        return self._asked(self.keep(x, t), t, self.condition)

    def where_read(self, x: Tensor, t: Tensor) -> Indexed:
        """The output likewise, but computed only where it is read, as `output[mask]`."""
        self.calls += 1
        if self._reader is None:
            kind = PrefixReader if resumes(self.model) else Reader
            self._reader = kind(self.model, self.condition, self.process.output_shape, self._dtype(x))
        return self._reader.read(self.keep(x, t), t)

    def of_rows(self, x: State, t: Tensor, rows: Tensor) -> State:
        """The outputs of the samples with a True in `rows`, (N, ...), for states and times of all."""
        self.calls += 1
        self._rows = self._rows + rows.long().cpu()
        x, condition = (tree_map(lambda value: value[rows], part) for part in (self.keep(x, t), self.condition))
        return self._asked(x, t[rows], condition)

    def for_loss(self, x: State, t: Tensor) -> Any:
        """The output in float32 or better, and lazy where the process reads parts only: there the head is not trained on what is not read."""
        if self.process.sparse:
            return self.where_read(x, t)
        return tree_map(precise, self(x, t))

    def of(self, solver: Solver) -> Callable[..., Any]:
        """How `solver` asks for outputs: whole ones, those of some rows, or, where it and the process read parts only, lazy ones."""
        if solver.rowwise:
            return self.of_rows
        return self.where_read if solver.sparse and self.process.sparse else self

    def spent(self, n: int) -> Tensor:
        """Network calls that each of `n` samples took, (n,): a sample of which nothing was read took none."""
        whole = torch.full((n,), self._whole) + self._rows
        return whole if self._reader is None else whole + torch.as_tensor(self._reader.calls).cpu()

    def _asked(self, x: State, t: Tensor, condition: dict[str, Any]) -> State:
        output = self.model(x, t.to(self._dtype(x)), **condition)
        check_output(self.process.output_shape, output, len(t))
        return output

    def _dtype(self, x: State) -> torch.dtype:
        """The model's precision, or the state's, and never less than float32: times near 1 would round to 1."""
        state = (leaf.dtype for leaf in leaves(x) if leaf.is_floating_point())
        dtype = self._time_dtype or next(state, torch.get_default_dtype())
        return torch.promote_types(dtype, torch.float32)


def check_model(process: MarkovProcess, model: Model, condition: Condition | None, n: int, device: torch.device) -> None:
    """Calls the model once on `n` states of noise, so that a wrong one fails before any work starts."""
    rng = torch.Generator(device).manual_seed(0)
    x = process.path.source(n, rng=rng)
    condition = tree_map(lambda value: value[:n], as_condition(condition))
    t = torch.full((n,), 0.5, dtype=torch.float64, device=device)
    predictor = Predictor(process, model, condition)
    with torch.no_grad(), evaluating(model), first_call(process):
        if not process.sparse:
            predictor(x, t)
            return
        # One position of each sample: a whole output may be the largest tensor that there is.
        first = torch.zeros_like(x, dtype=torch.bool).flatten(1).index_fill_(1, torch.zeros(1, dtype=torch.int64, device=device), True)
        predictor.where_read(x, t)[first.view_as(x)]


@contextmanager
def first_call(process: MarkovProcess) -> Iterator[None]:
    """For the time of a block, errors of a model say what it was given: most models that fail at once do not fit the process."""
    try:
        yield
    except GenmatchError:
        raise
    except Exception as error:
        raise GenmatchError(
            f"the model failed at its first call, on states of {process.space} and times of shape (B,), with {type(error).__name__}: {error}. "
            "It must be callable as model(x, t, **condition), with inputs of the space's shape and outputs of `process.output_shape`."
        ) from error


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
