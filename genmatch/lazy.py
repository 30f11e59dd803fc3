r"""Outputs that are computed where they are read.

A step of tokens decides first which positions jump, and reads the network's logits only there: `output[jumps]`. A lazy
output answers that expression as a tensor would. It runs the network on the samples with a position in the mask, and, if
the network splits itself into `features(x, t, **condition)` and `head(features)`, the head on the masked positions alone:
a head over V tokens costs as much as the jumps that happen, not as steps x L x V. What is read does not know of this.

For a network whose output does not depend on the time, `model.time_free = True`, what was found for a state is used again
while the sample stays in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.logits import Indexed
from genmatch.outputs import check_output
from genmatch.tensors import precise

Model = Callable[..., Any]


def is_split(model: Model) -> bool:
    """Whether a network offers `features(x, t, **condition)` and `head(features)`."""
    return callable(getattr(model, "features", None)) and callable(getattr(model, "head", None))


class Reader:
    """A network that is asked for parts of its outputs.

    Args:
        model: the network; with `features` and `head`, or without.
        condition: keyword arguments of the network, one entry a sample.
        shape: of one output, (*shape, V).
        time_dtype: what times are given to the network in.
    """

    def __init__(self, model: Model, condition: Mapping[str, Tensor], shape: Any, time_dtype: torch.dtype) -> None:
        self.model, self.condition, self.shape, self.time_dtype = model, condition, tuple(shape), time_dtype
        self.split = is_split(model)
        self.time_free = bool(getattr(model, "time_free", False))
        self._calls = 0
        self._calls_of_some: Tensor | None = None
        self._last: Lazy | None = None

    @property
    def calls(self) -> Tensor | int:
        """Network calls so far: of each sample, (B,), or of all of them alike."""
        return self._calls if self._calls_of_some is None else self._calls + self._calls_of_some

    def read(self, x: Tensor, t: Tensor) -> Lazy:
        """The output at states `x`, (B, *shape), and times `t`, (B,), of which nothing is computed yet."""
        output = Lazy(self, x, t)
        if self.time_free:
            if self._last is not None:
                output.adopt(self._last)
            self._last = output
        return output

    def run(self, x: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
        """What the network knows of the samples with a True in `rows`, or of all: their features, or their outputs.

        Raises:
            GenmatchError: if the features do not have one row a token.
        """
        condition = self.condition
        if rows is None:
            self._calls += 1
        else:
            if self._calls_of_some is None:
                self._calls_of_some = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
            self._calls_of_some += rows
            x, t, condition = x[rows], t[rows], {name: value[rows] for name, value in condition.items()}
        known = (self.model.features if self.split else self.model)(x, t.to(self.time_dtype), **condition)  # type: ignore[attr-defined]
        if not self.split:
            check_output(self.shape, known, len(x))
            return known.flatten(1, -2)
        places = math.prod(self.shape[:-1])
        if not isinstance(known, Tensor) or known.dim() != 3 or known.shape[:2] != (len(x), places):
            found = tuple(known.shape) if isinstance(known, Tensor) else type(known).__name__
            raise GenmatchError(f"`features` of the model must have shape (B, L, width) = ({len(x)}, {places}, width), got {found}; one row a token.")
        return known

    def logits(self, known: Tensor) -> Tensor:
        """The outputs, (N, V), from what is known of N positions.

        Raises:
            GenmatchError: if the head does not return them.
        """
        # Laws of tokens are not made in half precision.
        if not self.split:
            return precise(known)
        logits = self.model.head(known)  # type: ignore[attr-defined]
        if tuple(logits.shape) != (len(known), self.shape[-1]):
            raise GenmatchError(f"`head` must return {(len(known), self.shape[-1])} from the features of {len(known)} positions, got {tuple(logits.shape)}.")
        return precise(logits)


class Lazy(Indexed):
    """An output that is read as `output[mask]`, with a mask of its shape without the last axis. Made by `Reader.read`.

    Args:
        reader: runs the network.
        x: states, (B, *shape).
        t: times, (B,).
    """

    def __init__(self, reader: Reader, x: Tensor, t: Tensor) -> None:
        self._reader, self._x, self._t = reader, x, t
        self.shape, self.device = torch.Size((len(x), *reader.shape)), x.device
        self._known: Tensor | None = None
        # Which samples are known, and where in `_known`; None where all are, in order.
        self._seen: Tensor | None = None
        self._place: Tensor | None = None

    def __getitem__(self, where: Tensor) -> Tensor:
        """The logits at the coordinates with a True in `where`, in order, (N, V)."""
        self.expect(where)
        if self._known is None and torch.is_grad_enabled():
            # A loss of no token at all still has a gradient, which is zero.
            self._learn(torch.arange(len(where), device=where.device) == 0)
        if self._known is None:
            return torch.empty(0, self.shape[-1], device=where.device)
        where = where.flatten(1)
        if self._place is None:
            return self._reader.logits(self._known[where])
        row, position = where.nonzero(as_tuple=True)
        return self._reader.logits(self._known[self._place[row], position])

    def expect(self, where: Tensor) -> None:
        """Runs the network on the samples with a True in `where` that it has not seen."""
        if self._known is None or self._seen is not None:
            rows = where.flatten(1).any(-1)
            self._learn(rows if self._seen is None else rows & ~self._seen)

    def adopt(self, other: Lazy) -> None:
        """Takes over what `other` knows of samples that are still in the same state."""
        if other._known is None or len(other._x) != len(self._x):
            return
        same = (other._x == self._x).flatten(1).all(-1)
        if other._seen is not None:
            same &= other._seen
        self._known = other._known[same if other._place is None else other._place[same]]
        self._seen, self._place = same, same.cumsum(0) - 1

    def _learn(self, rows: Tensor) -> None:
        some = int(rows.sum())
        if some == 0:
            return
        if some == len(rows):
            self._known, self._seen, self._place = self._reader.run(self._x, self._t, None), None, None
            return
        known, place = self._reader.run(self._x, self._t, rows), rows.cumsum(0) - 1
        if self._known is None or self._seen is None or self._place is None:
            self._known, self._seen, self._place = known, rows, place
            return
        self._place = torch.where(rows, len(self._known) + place, self._place)
        self._known, self._seen = torch.cat([self._known, known]), self._seen | rows
