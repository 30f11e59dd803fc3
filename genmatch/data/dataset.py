"""What a data set is for a comparison: the same points, seen as states of several spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genmatch.errors import GenmatchError, unknown
from genmatch.fetching import some
from genmatch.reprs import described
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size


@dataclass(frozen=True)
class View:
    """The data as states of one space, such as images as vectors or as tokens.

    Attributes:
        name: what the view is called.
        space: where the states live.
        train: training states, or `Fetched` of them that are fetched a batch at a time.
        test: held-out states.
        decode: turns states into points, which are the same for every view: what metrics and pictures see.
    """

    name: str
    space: Space
    train: State
    test: State
    decode: Callable[[State], Tensor]

    __repr__ = described

    def __post_init__(self) -> None:
        self.space.validate(some(self.train), f"{self.name}.train")
        self.space.validate(self.test, f"{self.name}.test")

    def show(self, x: State) -> Tensor:
        """States on the way to data as points, (B, ...); NaN where a point hangs on what is no data yet, such as a mask."""
        points, others = (self.decode(self.space.complete(x, token)) for token in (0, 1))
        open_ = points != others
        return points.double().masked_fill(open_, torch.nan) if bool(open_.any()) else points


@dataclass(frozen=True)
class Features:
    """Where points are compared with each other: vectors of what matters in them.

    Attributes:
        description: what they are, for the report.
        of: points, (B, ...), to features, (B, F), float64.
    """

    description: str
    of: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Figure:
    """A figure of samples that only this kind of data has; a column of the report.

    Attributes:
        key: its name in results.json.
        title: the heading of the column.
        meaning: one line on how to read it.
        form: a format, such as "{:.1%}".
        of: the figure of points, (B, ...), and of the class probabilities that the data set's classifier sees in them, (B, C),
            or None without one.
    """

    key: str
    title: str
    meaning: str
    form: str
    of: Callable[[Tensor, Tensor | None], float]


def flattened(points: Tensor) -> Tensor:
    """The points themselves as vectors, (B, F), float64."""
    return points.flatten(1).double()


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of flattened points, (N, M), float64."""
    return torch.cdist(flattened(a), flattened(b))


def whole(points: Tensor) -> Tensor:
    """The points as they are."""
    return points


@dataclass(frozen=True)
class DataSet:
    """Points with a fixed split into training and test, and the views of them.

    Attributes:
        name: what the data set is called.
        views: the ways to see the points as states; a process takes the first that it fits.
        draw: draws points onto a matplotlib axes; NaN, in points on the way, is what is not known yet.
        labels: labels of the training and of the test points, int64, if they have any; they train the classifier whose
            features a comparison of images measures in.
        classified: what the classifier sees of points, such as the images of images with captions; all of them by default.
        features: where other points are compared.
        distance: points (N, ...) and (M, ...) to distances, (N, M): how samples are told from copies of training points.
        figures: figures of samples that only this kind of data has.
        write: points to a line of text each, for data that are read rather than looked at.
        read: a text to its tokens, (N,), the inverse of `write` for data that are text.
        unit: what likelihoods are counted by, such as "character"; none are measured without it.
    """

    name: str
    views: tuple[View, ...]
    draw: Callable[[Any, Tensor], None]
    labels: tuple[Tensor, Tensor] | None = None
    classified: Callable[[Tensor], Tensor] = field(default_factory=lambda: whole)
    features: Features = Features("the points themselves", flattened)
    distance: Callable[[Tensor, Tensor], Tensor] = field(default_factory=lambda: euclidean)
    figures: tuple[Figure, ...] = ()
    write: Callable[[Tensor], list[str]] | None = None
    read: Callable[[str], Tensor] | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.views, tuple | list) or not all(isinstance(view, View) for view in self.views):
            raise GenmatchError(f"`views` of the data set {self.name} must be a tuple of views, got {self.views!r}; pass `(view,)`.")
        if not self.views:
            raise GenmatchError(f"the data set {self.name} needs at least one view.")
        if self.labels is not None and (not isinstance(self.labels, tuple | list) or len(self.labels) != 2):
            raise GenmatchError(f"`labels` of the data set {self.name} must be those of the training and of the test points, got {type(self.labels).__name__}.")
        sizes = {view.name: (batch_size(view.train), batch_size(view.test)) for view in self.views}
        if len(set(sizes.values())) > 1:
            raise GenmatchError(f"the views of {self.name} must have the same split, got {sizes}.")

    def __repr__(self) -> str:
        return f"DataSet({self.name}: {batch_size(self.views[0].train)} training and {batch_size(self.views[0].test)} test points as {', '.join(f'{view.name} in {view.space}' for view in self.views)})"

    def view(self, name: str) -> View:
        """The view of that name.

        Raises:
            GenmatchError: if there is none; it names those that there are.

        Example:
            >>> from genmatch import data
            >>> data.get("chain").view("tokens").space
            Categorical(shape=(12,), vocab_size=4, mask=False)
        """
        known = {view.name: view for view in self.views}
        if name not in known:
            raise unknown(f"view of {self.name}", name, known)
        return known[name]

    @property
    def train(self) -> Tensor:
        """The training points, or the first of them if they are not in memory."""
        return self.views[0].decode(some(self.views[0].train))

    @property
    def test(self) -> Tensor:
        """The test points."""
        return self.views[0].decode(self.views[0].test)
