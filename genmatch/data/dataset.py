"""What a data set is for a comparison: the same points, seen as states of several spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
class DataSet:
    """Points with a fixed split into training and test, and the views of them.

    Attributes:
        name: what the data set is called.
        views: the ways to see the points as states; a process takes the first that it fits.
        draw: draws points onto a matplotlib axes.
        labels: labels of the training and of the test points, int64, if they have any; they train the classifier whose
            features a comparison measures in.
    """

    name: str
    views: tuple[View, ...]
    draw: Callable[[Any, Tensor], None]
    labels: tuple[Tensor, Tensor] | None = None

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
