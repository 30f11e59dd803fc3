r"""Infilling text: what is known stands in its place from start to end, and the rest is drawn given it.

    "Once ____ a time"      each `_` is a free token, everything else is known; what follows the text is free
    0:Once,5:upon           the tokens of "Once" from position 0 on, those of "upon" from position 5 on

Positions count tokens of the window, from 0: characters, for a model of characters. A model has windows of one length L, and
the text stands at the start of one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from genmatch import data as data_sets
from genmatch.errors import GenmatchError
from genmatch.runs import Run
from genmatch.sampling import sample

Read = Callable[[str], Tensor]
"""A text to its tokens, (N,)."""


def known_tokens(read: Read, length: int, text: str = "", at: Iterable[str] = ()) -> tuple[dict[int, int], int]:
    """What is known by position, as `clamp` of `gm.sample` takes it, and how many positions are spoken of.

    Args:
        read: turns a text into tokens.
        length: positions L of the window.
        text: stands at the start of the window; each `_` is a free token.
        at: pieces `position:text`, one or several with commas between them.

    Raises:
        GenmatchError: if a piece has no position, unknown parts, leaves the window, or overlaps another one; the message names it.

    Example:
        >>> from genmatch.data.tokenisers import characters
        >>> known_tokens(characters("abc").encode, 6, "a__b", ["4:c"])
        ({0: 0, 3: 1, 4: 2}, 5)
    """
    known: dict[int, int] = {}
    owner: dict[int, str] = {}
    spoken = 0
    for name, start, tokens in _pieces(read, text, at):
        end = start + len(tokens)
        if end > length:
            raise GenmatchError(f"`{name}` takes positions {start} to {end - 1}, and the window of this model has positions 0 to {length - 1}; shorten it.")
        for place, token in enumerate(tokens, start):
            if place in owner:
                raise GenmatchError(f"`{name}` and `{owner[place]}` overlap at position {place}; give each position one token.")
            if token is not None:
                known[place], owner[place] = token, name
        spoken = max(spoken, end)
    return known, spoken


def infill_run(
    run: Run, text: str = "", at: Iterable[str] = (), *, n: int = 4, steps: int = 64, solver: str | None = None, seed: int = 0, stop: bool = False
) -> list[str]:
    """Draws `n` texts of a run with what is known in its place, a line each.

    Args:
        run: trained on text.
        text: known at the start of the window, but for each `_`.
        at: pieces `position:text`.
        n: how many.
        steps: of the solver.
        solver: its name; the recommended one by default.
        seed: makes the draw repeatable.
        stop: ends a line where what is spoken of ends; the rest of the window is drawn all the same, and left out.

    Raises:
        GenmatchError: if the data of the run are no text, nothing is known, or a piece does not fit; before anything is drawn.
    """
    data = data_sets.get(run.settings.data)
    shape: tuple[int, ...] = getattr(run.view.space, "shape", ())
    if data.read is None or data.write is None or len(shape) != 1:
        raise GenmatchError(f"infilling needs a run on text, and this one is on {data.name}; train one with `genmatch train --data text --process mask`.")
    known, spoken = known_tokens(data.read, shape[0], text, at)
    if not spoken:
        raise GenmatchError("nothing is known; give a text with `_` where it is free, or `--at 0:Once`. `genmatch sample` draws freely.")
    states = sample(run.process, run.model, n, steps=steps, solver=solver, clamp=known, seed=seed)
    return data.write(states[:, :spoken] if stop else states)


def _pieces(read: Read, text: str, at: Iterable[str]) -> Iterator[tuple[str, int, list[int | None]]]:
    """The name of each piece, where it starts, and its tokens, None where one is free."""
    place = 0
    for part in re.findall(r"_+|[^_]+", text):
        tokens: list[int | None] = [None] * len(part) if part[0] == "_" else _tokens(read, part, part)
        yield part, place, tokens
        place += len(tokens)
    # A comma divides pieces where a position follows, and else belongs to the text.
    for part in (part for given in at for part in re.split(r",(?=\s*\d+:)", given)):
        found = re.fullmatch(r"\s*(\d+):(.+)", part, re.DOTALL)
        if found is None:
            raise GenmatchError(f"`{part}` must be position:text, such as `0:Once`, with positions counted from 0.")
        yield part, int(found[1]), _tokens(read, found[2], part)


def _tokens(read: Read, text: str, name: str) -> list[int | None]:
    try:
        return read(text).tolist()
    except GenmatchError as error:
        raise GenmatchError(f"`{name}`: {error}") from None


__all__ = ["infill_run", "known_tokens"]
