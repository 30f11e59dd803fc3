"""Data that `genmatch prepare` made, as a data set: training points stay on the disk, the first held-out ones are in memory."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmatch.data import corpus, text_figures
from genmatch.data.dataset import DataSet, View
from genmatch.data.mapped import VALUES, Mapped, verify
from genmatch.data.tokenisers import BPE, Bytes, Tokeniser, Vocabulary
from genmatch.errors import GenmatchError
from genmatch.fetching import some
from genmatch.spaces import Categorical, Euclidean

_HELD_OUT, _TESTED, _FIGURES = 0.1, 2048, 4096


def prepared(path: str | Path | None = None) -> DataSet:
    """Data on the disk, larger than memory: `prepared:FOLDER`, of a folder that `genmatch prepare` made.

    The last tenth is held out, and the first 2,048 points of that are the test split. The file is checked by size, and by its hash if it
    was changed or copied.

    Raises:
        GenmatchError: if there is no such folder, or its data are not those that were prepared.
    """
    if path is None:
        raise GenmatchError("`prepared` needs a folder, `prepared:FOLDER`; make one with `genmatch prepare SOURCE --out FOLDER`.")
    folder = Path(path)
    manifest = verify(folder, whole=False)
    make = _text if manifest["kind"] == "text" else _images
    return make(f"prepared:{path}", folder / VALUES, manifest)


def _text(name: str, path: Path, manifest: dict[str, Any]) -> DataSet:
    length, levels = manifest["length"], manifest["levels"]
    code = _tokeniser(manifest.get("tokeniser"))
    space = Categorical((length,), levels)
    view = _view("tokens", space, path, manifest, (length,), manifest["rows"] // length, lambda v: v, lambda x: x)
    train = some(view.train, _FIGURES)
    if code is None:
        return DataSet(name, (view,), corpus.drawn(lambda points: [str(row.tolist()) for row in points]), features=text_figures.pairs(train))

    def write(points: Tensor) -> list[str]:
        return [code.decode(row).replace("\n", "⏎") for row in points]

    return DataSet(
        name,
        (view,),
        corpus.drawn(write),
        features=text_figures.pairs(train),
        distance=text_figures.differences,
        figures=text_figures.figures(code, code.decode(train.flatten())),
        write=write,
        read=lambda line: code.encode(line.replace("⏎", "\n")),
        unit="character" if isinstance(code, Vocabulary) else "token",
    )


def _images(name: str, path: Path, manifest: dict[str, Any]) -> DataSet:
    shape = tuple(manifest["shape"])
    size = shape[0] * shape[1] * shape[2]
    make = functools.partial(_view, path=path, manifest=manifest, rows=manifest["rows"])
    vectors = make("vectors", Euclidean(shape), shape=shape, state=lambda v: v.float() / 127.5 - 1, decode=lambda x: ((x + 1) / 2).clamp(0, 1))
    tokens = make("tokens", Categorical((size,), 256), shape=(size,), state=lambda v: v, decode=lambda x: x.reshape(-1, *shape).float() / 255)
    return DataSet(name, (vectors, tokens), _draw)


def _view(name: str, space: Any, path: Path, manifest: dict[str, Any], shape: tuple[int, ...], rows: int, state: Any, decode: Any) -> View:
    cut = min(rows - 1, round(rows * (1 - _HELD_OUT)))
    train, rest = (Mapped(path, manifest["dtype"], shape, start, stop, state) for start, stop in ((0, cut), (cut, rows)))
    return View(name, space, train, rest[:_TESTED], decode)


def _tokeniser(about: Any) -> Tokeniser | None:
    try:
        if about is None:
            return None
        if about["kind"] == "bytes":
            return Bytes()
        return BPE.from_json(about["json"]) if about["kind"] == "bpe" else Vocabulary(about["pieces"])
    except (KeyError, TypeError) as error:
        raise GenmatchError(f"the manifest describes no tokeniser ({error!r}); prepare the data again.") from error


def _draw(axes: Any, points: Tensor) -> None:
    """A grid of images, as square as it gets, with a white line between them."""
    columns = max(1, round(len(points) ** 0.5))
    rows = -(-len(points) // columns)
    channels, high, wide = points.shape[1:]
    sheet = torch.ones(rows * columns, channels, high + 1, wide + 1)
    sheet[: len(points), :, 1:, 1:] = points.cpu()
    sheet = sheet.reshape(rows, columns, channels, high + 1, wide + 1).permute(0, 3, 1, 4, 2).reshape(rows * (high + 1), columns * (wide + 1), channels)
    axes.imshow(sheet.numpy() if channels == 3 else sheet[..., 0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
