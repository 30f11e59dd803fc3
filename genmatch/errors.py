"""The one family of exceptions of the package."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from typing import Any


class GenmatchError(ValueError):
    """A wrong input or a mathematically wrong request.

    The message says what was expected, what was found, and how to mend it.
    """


class Unfinished(GenmatchError):
    """A simulation that took more network calls than it may.

    Attributes:
        run: what was simulated until then, a `genmatch.sampling.Run` with the states at the times that were reached; None if it
            was not kept.
    """

    run: Any = None


def unknown(kind: str, name: str, known: Iterable[str]) -> GenmatchError:
    """The error for a name that nobody registered; it lists the near names, or all of them.

    Args:
        kind: what the name should be one of, in the singular.
        name: the name that was given.
        known: the names that there are.

    Example:
        >>> print(unknown("solver", "hune", ["euler", "heun"]))
        unknown solver `hune`; did you mean `heun`? Known: euler, heun.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "."
    return GenmatchError(f"unknown {kind} `{name}`{hint} Known: {', '.join(names)}.")


def positive_integer(value: Any, name: str) -> int:
    """Returns `value` as an int, or raises `GenmatchError` if it is not a positive integer of 64 bits (a float never is).

    Example:
        >>> positive_integer(3, "steps")
        3
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number < 2**63:
        raise GenmatchError(f"`{name}` must be a positive integer{'' if number < 1 else ' of at most 64 bits'}, got {value!r}.")
    return number


def checked_seed(value: Any) -> int:
    """Returns `value`, or raises `GenmatchError` if it is not an integer of 64 bits (a boolean never is).

    Example:
        >>> checked_seed(-1)
        -1
    """
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise GenmatchError(f"`seed` must be an integer of at most 64 bits, got {value!r}.")
    return value


def number_in(interval: str, value: Any, name: str, hint: str) -> float:
    """Returns `value` as a float, or raises `GenmatchError` if it is not a number in the interval.

    Args:
        interval: such as "[0, 1]", "(0, 1)" or "[0, inf)".
        value: what was given.
        name: of the argument.
        hint: how to mend it.

    Example:
        >>> number_in("[0, 1]", 0.5, "keep", "1 is the exact step")
        0.5
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if not low <= number <= high or (number == low and interval[0] == "(") or (number == high and interval[-1] == ")"):
        raise GenmatchError(f"`{name}` must be a number in {interval}, got {value!r}; {hint}.")
    return number
