"""What a data set is for a comparison: the same points, seen as states of several spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.spaces import Space
from genmatch.tensors import State, batch_size


@dataclass(frozen=True)
class View:
    """The data as states of one space, such as images as vectors or as tokens.

    Attributes:
        name: what the view is called.
        space: where the states live.
        train: training states.
        test: held-out states.
        decode: turns states into points, which are the same for every view: what metrics and pictures see.
    """

    name: str
    space: Space
    train: State
    test: State
    decode: Callable[[State], Tensor]

    def __post_init__(self) -> None:
        self.space.validate(self.train, f"training states of the view {self.name}")
        self.space.validate(self.test, f"test states of the view {self.name}")


@dataclass(frozen=True)
class Metric:
    """A figure of a data set's own, beside those that every comparison has.

    Attributes:
        title: heading of its column in a report.
        meaning: what it says, for the report.
        form: how it is printed, such as "{:.1%}".
        figure: the figure of points, (B, ...), and of the class probabilities that the data set's classifier sees in them,
            (B, C), or None without one.
    """

    title: str
    meaning: str
    form: str
    figure: Callable[[Tensor, Tensor | None], float]


def _whole(points: Tensor) -> Tensor:
    return points


@dataclass(frozen=True)
class DataSet:
    """Points with a fixed split into training and test, and the views of them.

    Attributes:
        name: what the data set is called.
        views: the ways to see the points as states; a process takes the first that it fits.
        draw: draws points onto a matplotlib axes.
        labels: labels of the training and of the test points, int64, if they have any; they train the classifier whose
            features a comparison measures in.
        classified: what the classifier sees of points, such as the images of images with captions; all of them by default.
        metrics: figures of its own, by name.
    """

    name: str
    views: tuple[View, ...]
    draw: Callable[[Any, Tensor], None]
    labels: tuple[Tensor, Tensor] | None = None
    classified: Callable[[Tensor], Tensor] = _whole
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.views:
            raise GenmatchError(f"the data set {self.name} needs at least one view.")
        sizes = {view.name: (batch_size(view.train), batch_size(view.test)) for view in self.views}
        if len(set(sizes.values())) > 1:
            raise GenmatchError(f"the views of {self.name} must have the same split, got {sizes}.")

    @property
    def train(self) -> Tensor:
        """The training points."""
        return self.views[0].decode(self.views[0].train)

    @property
    def test(self) -> Tensor:
        """The test points."""
        return self.views[0].decode(self.views[0].test)
