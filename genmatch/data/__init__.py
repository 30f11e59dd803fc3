"""Data sets for tests, examples and `genmatch compare`; and toy laws whose answers are known exactly."""

import inspect

from genmatch.data import tokenisers
from genmatch.data.corpus import text
from genmatch.data.dataset import DataSet, Features, Figure, View
from genmatch.data.laws import Checkerboard, GaussianMixture, MarkovChain
from genmatch.errors import GenmatchError
from genmatch.registry import data as _registry

available = _registry.names
register = _registry.register


def get(name: str) -> DataSet:
    """The data set of that name, or `package.module:Name`; `text:file.txt` passes what follows to the data set `text`.

    Raises:
        GenmatchError: if the name is unknown, or stands for something else.
    """
    known, _, argument = name.partition(":")
    arguments = (argument,) if argument and known in available() else ()
    make = _registry.get(known if arguments else name)
    try:
        bound = inspect.signature(make).bind(*arguments)
    except TypeError:
        wanted = "take an argument" if arguments else "be a function without arguments"
        raise GenmatchError(f"the data set `{name}` must {wanted}, got {make!r}.") from None
    made = make(*bound.args, **bound.kwargs)
    if not isinstance(made, DataSet):
        raise GenmatchError(f"the data set `{name}` must return a `genmatch.data.DataSet`, got {type(made).__name__}.")
    return made


__all__ = ["Checkerboard", "DataSet", "Features", "Figure", "GaussianMixture", "MarkovChain", "View", "available", "get", "register", "text", "tokenisers"]
