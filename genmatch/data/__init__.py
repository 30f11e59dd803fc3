"""Data sets for tests, examples and `genmatch compare`; and toy laws whose answers are known exactly."""

import inspect

from genmatch.data.dataset import DataSet, Metric, View
from genmatch.data.laws import Checkerboard, GaussianMixture, MarkovChain
from genmatch.errors import GenmatchError
from genmatch.registry import data as _registry

available = _registry.names
register = _registry.register


def get(name: str) -> DataSet:
    """The data set of that name, or `package.module:Name`.

    Raises:
        GenmatchError: if the name is unknown, or stands for something else.
    """
    make = _registry.get(name)
    if not callable(make) or any(p.default is p.empty for p in inspect.signature(make).parameters.values()):
        raise GenmatchError(f"the data set `{name}` must be a function without arguments, got {make!r}.")
    made = make()
    if not isinstance(made, DataSet):
        raise GenmatchError(f"the data set `{name}` must return a `genmatch.data.DataSet`, got {type(made).__name__}.")
    return made


__all__ = ["Checkerboard", "DataSet", "GaussianMixture", "MarkovChain", "Metric", "View", "available", "get", "register"]
