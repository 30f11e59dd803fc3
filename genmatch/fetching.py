"""Data points that are fetched a batch at a time, from wherever they are: what does not fit in memory is still a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from genmatch.tensors import State, tree_map

_SOME = 1024
_Item = TypeVar("_Item")


class Fetched(Dataset[Any], ABC):
    """A data set of which any rows can be had at once.

    `train` reads the next batch while the network works on the one before; so `take` must not draw from torch's global generator.

    Example:
        >>> class Squares(Fetched):
        ...     def __len__(self):
        ...         return 10**9
        ...
        ...     def take(self, index):
        ...         return index.square()
        >>> Squares()[2:4], Squares()[torch.tensor([5])]
        (tensor([4, 9]), tensor([25]))
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of data points."""

    @abstractmethod
    def take(self, index: Tensor) -> State:
        """The data points of an index, int64, (B,): states (B, *shape)."""

    def __getitem__(self, index: Any) -> State:
        if isinstance(index, slice):
            return self.take(torch.arange(*index.indices(len(self))))
        return self.take(index) if isinstance(index, Tensor) else tree_map(lambda v: v[0], self.take(torch.tensor([index])))


def some(state: State, n: int = _SOME) -> State:
    """What is in memory of the data points of `state`: all of them, or the first `n` rows where they are elsewhere.

    Example:
        >>> some(torch.zeros(3)).shape
        torch.Size([3])
    """
    return tree_map(lambda v: v[:n] if isinstance(v, Fetched) else v, state)


def ahead(source: Iterator[_Item]) -> Iterator[_Item]:
    """The items of an endless source, each made by a thread while the one before is worked on.

    Example:
        >>> import itertools
        >>> list(itertools.islice(ahead(itertools.count()), 3))
        [0, 1, 2]
    """
    with ThreadPoolExecutor(1, thread_name_prefix="genmatch-batches") as thread:
        waiting = thread.submit(next, source)
        while True:
            item = waiting.result()
            waiting = thread.submit(next, source)
            yield item
