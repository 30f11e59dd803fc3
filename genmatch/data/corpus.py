"""Text as data: a file cut into windows of tokens, the last tenth of it held out.

The text of the package is the beginning of "tinyshakespeare" (260,000 characters): plays of William Shakespeare, in the public
domain, as collected by Andrej Karpathy, https://github.com/karpathy/char-rnn.
"""

from __future__ import annotations

import gzip
import itertools
import textwrap
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmatch.data import text_figures
from genmatch.data.dataset import DataSet, View
from genmatch.data.tokenisers import Tokeniser, make_tokeniser
from genmatch.errors import GenmatchError, number_in, positive_integer
from genmatch.files import NOT_UTF8
from genmatch.spaces import Categorical

_SHOWN, _WIDTH = 8, 32
_OPEN = "·"
"""A token that is not known yet."""


def text(path: str | Path | None = None, *, tokeniser: str | Tokeniser = "characters", length: int = 64, held_out: float = 0.1) -> DataSet:
    """Text in windows of 64 characters: a bit of Shakespeare, or a file of your own, `text:path/to/file.txt`.

    Args:
        path: a text file in UTF-8; the package's own text by default.
        tokeniser: "characters", "bytes", "words", "bpe" or, of another size, such as "bpe-4096", made from the whole text; or one of your own.
        length: tokens L a window; windows are packed, without overlap or padding, and what is left at the end is dropped.
        held_out: share of the text, at its end, that is the test split.

    Raises:
        GenmatchError: if the file cannot be read, or is too short for a window in each split.

    Example:
        >>> data = text(length=32)
        >>> data.write(data.views[0].train[:1])
        ['First Citizen:⏎Before we proceed']
    """
    content, name = (packaged(), "text") if path is None else (_read(Path(path)), f"text:{path}")
    length = positive_integer(length, "length")
    held_out = number_in("(0, 1)", held_out, "held_out", "it is a share of the text")
    if not content:
        raise GenmatchError(f"the text `{path}` is empty; expected a text with windows of {length} tokens in both splits.")
    code = make_tokeniser(tokeniser, content)
    tokens = code.encode(content)
    cut = round(len(tokens) * (1 - held_out))
    train, test = (windows(part, length) for part in (tokens[:cut], tokens[cut:]))
    if not len(train) or not len(test):
        raise GenmatchError(f"a text of {len(content)} characters is too short for windows of {length} tokens in both splits; lower `length`.")

    def write(points: Tensor) -> list[str]:
        return [_line(code, row).replace("\n", "⏎") for row in points]

    def read(line: str) -> Tensor:
        return code.encode(line.replace("⏎", "\n"))

    view = View("tokens", Categorical((length,), code.vocab_size), train, test, lambda x: x)
    return DataSet(
        name,
        (view,),
        drawn(write),
        features=text_figures.pairs(train),
        distance=text_figures.differences,
        figures=text_figures.figures(code, code.decode(tokens[:cut])),
        write=write,
        read=read,
        unit="token" if tokeniser != "characters" else "character",
    )


def drawn(write: Callable[[Tensor], list[str]]) -> Callable[[Any, Tensor], None]:
    """Draws points as the lines that `write` makes of them."""

    def draw(axes: Any, points: Tensor) -> None:
        lines = [line for item in write(points[:_SHOWN]) for line in (*textwrap.wrap(item, _WIDTH, drop_whitespace=False), "")]
        # Dollars would start a formula; text in the layout would push the axes aside.
        shown = "\n".join(lines).replace("$", r"\$")
        axes.text(0, 1, shown, family="monospace", fontsize=4.4, va="top", transform=axes.transAxes, in_layout=False, clip_on=True)
        axes.set_axis_off()

    return draw


def packaged() -> str:
    """The text that comes with the package."""
    return gzip.decompress(resources.files("genmatch.data").joinpath("shakespeare.txt.gz").read_bytes()).decode()


def windows(tokens: Tensor, length: int) -> Tensor:
    """Consecutive windows of `length` tokens, (N, length); the rest at the end is dropped.

    Example:
        >>> import torch
        >>> windows(torch.arange(7), 3)
        tensor([[0, 1, 2],
                [3, 4, 5]])
    """
    return tokens[: len(tokens) // length * length].reshape(-1, length)


def _line(code: Tokeniser, row: Tensor) -> str:
    """The text of tokens, (L,), of which those that are not known yet are NaN."""
    runs = itertools.groupby(row.tolist(), key=lambda token: token != token)
    return "".join(_OPEN * len(list(run)) if unknown else code.decode(torch.tensor(list(run)).long()) for unknown, run in runs)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise GenmatchError(f"`{path}` is not UTF-8 at byte {error.start}; expected a text file in UTF-8: {NOT_UTF8}.") from error
    except OSError as error:
        raise GenmatchError(f"the text `{path}` cannot be read: {error.strerror}; expected a text file in UTF-8.") from error
