"""Data sets for tests, examples and `genmatch compare`; and toy laws whose answers are known exactly."""

import inspect
import re
from pathlib import Path
from typing import Any

from genmatch.data import tokenisers
from genmatch.data.corpus import text
from genmatch.data.dataset import DataSet, Features, Figure, View
from genmatch.data.laws import Checkerboard, GaussianMixture, MarkovChain
from genmatch.errors import GenmatchError
from genmatch.registry import data as _registry

available = _registry.names
register = _registry.register

_OPTION = re.compile(r"(?:^|,)([a-z_]+)=([^,=]*)$")


def get(name: str) -> DataSet:
    """The data set of that name, or `package.module:Name`; what follows a known name is passed to it.

    `text:file.txt,tokeniser=words,length=32` calls the data set `text` with the file and these options, and `text:tokeniser=bytes` without a file.

    Raises:
        GenmatchError: if the name is unknown, or stands for something else; or if it takes no such argument or option.
    """
    known, colon, rest = name.partition(":")
    has_arguments = bool(colon) and known in available()
    if has_arguments and not rest:
        raise GenmatchError(f"`{name}` ends with the colon; expected what `{known}` takes after it, such as a file, or no colon.")
    if not colon and known not in available() and Path(name).exists():
        raise GenmatchError(f"`{name}` is a {_as_data(Path(name))}.")
    make = _registry.get(known if has_arguments else name)
    if not callable(make):
        raise GenmatchError(f"the data set `{name}` must be a function that returns a `genmatch.data.DataSet`, got {type(make).__name__}.")
    signature = inspect.signature(make)
    arguments, options = _arguments(rest, signature, name) if has_arguments else ([], {})
    try:
        bound = signature.bind(*arguments, **options)
    except TypeError:
        wanted = f"takes no argument, got `{rest}`; leave it out" if arguments else f"must be a function without arguments, got `{name}{signature}`"
        raise GenmatchError(f"the data set `{known if has_arguments else name}` {wanted}.") from None
    made = make(*bound.args, **bound.kwargs)
    if not isinstance(made, DataSet):
        raise GenmatchError(f"the data set `{name}` must return a `genmatch.data.DataSet`, got {type(made).__name__}.")
    return made


def _as_data(place: Path) -> str:
    """What to do with a file or folder that is named where a data set should be."""
    if (place / "manifest.json").exists():
        return f"folder of prepared data; pass `prepared:{place}`"
    if place.is_dir():
        return f"folder; make a data set of its images with `genmatch prepare {place} --out prepared`, then pass `prepared:prepared`"
    return f"file; pass `text:{place}` if it is text, else name a function that returns a `genmatch.data.DataSet`, as `module:function`"


def _arguments(rest: str, signature: inspect.Signature, name: str) -> tuple[list[str], dict[str, Any]]:
    """The argument and the options of `argument,key=value,...`; only words that follow the last comma are options, for a file may have any name."""
    offered = {key: parameter for key, parameter in signature.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    options: dict[str, Any] = {}
    while match := _OPTION.search(rest):
        key, value = match.group(1), match.group(2)
        if key not in offered:
            raise GenmatchError(
                f"the data set `{name}` is given `{key}`, and has the options {', '.join(offered) or 'none'}; write e.g. `text:file.txt,tokeniser=words`."
            )
        if key in options:
            raise GenmatchError(f"the data set `{name}` is given `{key}` twice; give one value.")
        options[key] = _read(value, offered[key].default, f"{key} of {name}")
        rest = rest[: match.start()]
    return ([rest] if rest else []), options


def _read(value: str, default: Any, label: str) -> Any:
    """A value in the type of its default."""
    try:
        return type(default)(value)
    except ValueError:
        raise GenmatchError(f"the option {label} must be of type {type(default).__name__}, such as {default!r}, got {value!r}.") from None


__all__ = ["Checkerboard", "DataSet", "Features", "Figure", "GaussianMixture", "MarkovChain", "View", "available", "get", "register", "text", "tokenisers"]
