"""Endless batches of data points from whatever a user has them in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from genmatch.errors import GenmatchError
from genmatch.models import as_condition
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size, tree_map

Batch = tuple[State, dict[str, Any]]
"""Data points x1 and the model's condition for them."""


def batches(data: Any, space: Space, size: int, *, rng: torch.Generator) -> Iterator[Batch]:
    """Shuffled batches of `size` valid data points, over and over; a batch runs on into the next epoch.

    Args:
        data: x1 as a tensor, array or (for products) dictionary of them; a pair `(x1, condition)`; a `Dataset` or a
            `DataLoader` of either.
        space: where the data points must live.
        size: data points a batch; a `DataLoader` keeps its own.
        rng: the order of the data, on the CPU.

    Raises:
        GenmatchError: if the data do not fit the space: here for data in memory, at the first bad batch otherwise.
    """
    if isinstance(data, Dataset):
        data = _loader(data, size, rng)
    if isinstance(data, DataLoader):
        return _from_loader(data, space)
    return _from_memory(*in_memory(data, space), size, rng)


def in_memory(data: Any, space: Space) -> Batch:
    """Checks data that are held in memory, x1 or a pair (x1, condition), and returns both parts.

    Raises:
        GenmatchError: if they do not fit the space, or have different lengths.
    """
    x1, condition = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    x1, conditions = space.prepare(x1), as_condition(condition)
    for name, value in conditions.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != batch_size(x1):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise GenmatchError(f"the condition `{name}` must be a tensor with one entry for each of {batch_size(x1)} data points, got {found}.")
    return x1, conditions


def drop(condition: dict[str, Any], null: Mapping[str, Any] | None, share: float, *, rng: torch.Generator) -> dict[str, Any]:
    """Conditions of which a random share of the samples is told nothing, so that a network also learns what to say without them.

    Args:
        condition: tensors by name, with one entry a sample.
        null: what stands for a condition that is not given, by name; one that is not listed stays. All are lost together.
        share: how many samples lose theirs, in [0, 1].
        rng: source of randomness, on the device of the conditions.

    Raises:
        GenmatchError: if nothing is known to stand in for any condition.

    Example:
        >>> drop({"label": torch.tensor([1, 2])}, {"label": 9}, 1.0, rng=torch.Generator())
        {'label': tensor([9, 9])}
    """
    if not share:
        return condition
    lost = {name: value for name, value in (null or {}).items() if name in condition and value is not None}
    if not lost:
        raise GenmatchError(
            f"`drop_condition` needs to know what stands for a condition that is not given, and the model declares {dict(null or {})} for the conditions "
            f"{sorted(condition)}; set `model.null = {{name: value}}`, and pass data as (x1, condition)."
        )
    told = torch.rand(batch_size(condition), device=rng.device, generator=rng) >= share
    return {**condition, **{name: _where(told, condition[name], value) for name, value in lost.items()}}


def _where(told: Tensor, given: Tensor, null: Any) -> Tensor:
    return torch.where(told.reshape(-1, *[1] * (given.dim() - 1)), given, torch.as_tensor(null).to(given))


def _from_memory(x1: State, condition: dict[str, Any], size: int, rng: torch.Generator) -> Iterator[Batch]:
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(batch_size(x1), generator=rng)])
        rows, queue = queue[:size], queue[size:]
        yield tree_map(lambda v, rows=rows: v[rows], x1), tree_map(lambda v, rows=rows: v[rows], condition)


def _loader(data: Dataset[Any], size: int, rng: torch.Generator) -> DataLoader[Any]:
    if isinstance(data, IterableDataset):
        raise GenmatchError(f"a data set without an order, {type(data).__name__}, sets its own batches; wrap it in a DataLoader.")
    n = len(data)  # type: ignore[arg-type]
    if n == 0:
        raise GenmatchError("the data set is empty; expected at least one data point.")
    return DataLoader(data, batch_size=min(size, n), shuffle=True, drop_last=True, generator=rng)


def _from_loader(loader: DataLoader[Any], space: Space) -> Iterator[Batch]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            pair = isinstance(batch, list | tuple) and len(batch) == 2 and not isinstance(batch, Mapping)
            if isinstance(batch, list | tuple) and len(batch) == 1:
                batch = batch[0]
            yield in_memory(tuple(batch) if pair else batch, space)
        if empty:
            raise GenmatchError("the DataLoader gives no batch; its data set is empty or smaller than a batch with drop_last=True.")
