"""Endless batches of data points from whatever a user has them in, from any step on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from genmatch import draws
from genmatch.errors import GenmatchError
from genmatch.fetching import Fetched, ahead
from genmatch.models import as_condition, conditions_for
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size, leaves, tree_map

Pair = tuple[State, dict[str, Any]]
"""Data points x1 and the model's condition for them."""


@dataclass(frozen=True)
class Batch:
    """Data points of a step.

    Attributes:
        x1: the points, (B, *shape).
        condition: what the model is told of each, tensors (B, ...) by name.
        index: which data points they are, (B,); their places in the batch if a `DataLoader` made it.
    """

    x1: State
    condition: dict[str, Any]
    index: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; the index stays where it is."""
        x1, condition = (tree_map(lambda v: v.to(device), part) for part in (self.x1, self.condition))
        return Batch(x1, condition, self.index)


def batches(data: Any, space: Space, size: int, *, seed: int, start: int = 0) -> Iterator[Batch]:
    """Shuffled batches of `size` valid data points, over and over; a batch runs on into the next epoch.

    Args:
        data: x1 as a tensor, array or (for products) dictionary of them; a pair `(x1, condition)`; a `Dataset` or a
            `DataLoader` of either; or `Fetched` ones, which are read a batch ahead.
        space: where the data points must live.
        size: data points a batch; a `DataLoader` keeps its own size and order.
        seed: of the order of the data, and of what a data set draws by itself.
        start: the first step; those before it are passed over as if they had been taken.

    Raises:
        GenmatchError: if the data do not fit the space: here for data in memory, at the first bad batch otherwise.
    """
    if isinstance(data, DataLoader):
        return _from_loader(data, space, seed, start)
    if isinstance(data, Dataset) and not isinstance(data, Fetched):
        return _from_dataset(data, space, draws.Order(_length(data), size, seed), start)
    rows = data[0] if isinstance(data, tuple) and data else data
    if isinstance(rows, Fetched):
        _untold(data)
        return ahead(_from_rows(rows, space, draws.Order(_length(rows), size, seed), start))
    x1, condition = in_memory(data, space)
    return _from_memory(x1, condition, draws.Order(batch_size(x1), size, seed), start)


def number_of_points(data: Any) -> int:
    """How many data points there are, 0 if only a loader knows: what tells a run's data from others' at no cost."""
    if isinstance(data, DataLoader):
        return 0
    if isinstance(data, Dataset):
        return _length(data)
    x1 = data[0] if isinstance(data, tuple) else data
    first = leaves(x1)[0]
    try:
        return len(first)
    except TypeError:  # no data, as is said later
        return 0


def in_memory(data: Any, space: Space) -> Pair:
    """Checks data that are held in memory, x1 or a pair (x1, condition), and returns both parts.

    Raises:
        GenmatchError: if they do not fit the space, or have different lengths.
    """
    x1, condition = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    x1 = space.prepare(x1)
    return x1, conditions_for(condition, batch_size(x1), "data points")


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


def _from_memory(x1: State, condition: dict[str, Any], order: draws.Order, start: int) -> Iterator[Batch]:
    for step in itertools.count(start):
        rows = order.batch(step)
        yield Batch(tree_map(lambda v, rows=rows: v[rows], x1), tree_map(lambda v, rows=rows: v[rows], condition), rows)


def _from_rows(data: Fetched, space: Space, order: draws.Order, start: int) -> Iterator[Batch]:
    for step in itertools.count(start):
        rows = order.batch(step)
        yield Batch(space.prepare(data.take(rows)), {}, rows)


def _untold(data: Any) -> None:
    if isinstance(data, tuple) and any(as_condition(part) for part in data[1:]):
        raise GenmatchError("conditions of data that are not in memory are not known; leave them out, or let a `Dataset` return pairs (x1, condition).")


def _length(data: Dataset[Any]) -> int:
    if isinstance(data, IterableDataset):
        raise GenmatchError(f"a data set without an order, {type(data).__name__}, sets its own batches; wrap it in a DataLoader.")
    n = len(data)  # type: ignore[arg-type]
    if n == 0:
        raise GenmatchError("the data set is empty; expected at least one data point.")
    return n


def _from_dataset(data: Dataset[Any], space: Space, order: draws.Order, start: int) -> Iterator[Batch]:
    for step in itertools.count(start):
        rows = order.batch(step)
        with draws.globally(order.seed, "data", step):
            items = default_collate([data[i] for i in rows.tolist()])
        x1, condition = _checked(items, space)
        yield Batch(x1, condition, rows)


def _from_loader(loader: DataLoader[Any], space: Space, seed: int, start: int) -> Iterator[Batch]:
    """The loader's batches; those before `start` are made and thrown away, as only the loader knows its order."""
    step = 0
    while True:
        before, source = step, None
        while True:
            # A loader without a generator of its own shuffles by the global one, and its data set may draw from it too.
            with draws.globally(seed, "data", step):
                source = source or iter(loader)
                items = next(source, None)
            if items is None:
                break
            if step >= start:
                x1, condition = _checked(items, space)
                yield Batch(x1, condition, torch.arange(batch_size(x1)))
            step += 1
        if step == before:
            raise GenmatchError("the DataLoader gives no batch; its data set is empty or smaller than a batch with drop_last=True.")


def _checked(items: Any, space: Space) -> Pair:
    """A collated batch: x1, or a pair of x1 and a condition."""
    pair = isinstance(items, list | tuple) and len(items) == 2 and not isinstance(items, Mapping)
    if isinstance(items, list | tuple) and len(items) == 1:
        items = items[0]
    return in_memory(tuple(items) if pair else items, space)
