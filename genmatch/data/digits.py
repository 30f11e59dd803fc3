"""Handwritten digits: 1,797 images of 8 x 8 pixels with 17 grey levels, real and small enough for a CPU.

Source: "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak, 1998), UCI, https://doi.org/10.24432/C50P49, as
scikit-learn ships it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmatch.data.dataset import DataSet, Figure, View
from genmatch.errors import GenmatchError
from genmatch.spaces import Categorical, Euclidean, Grid, ProductSpace
from genmatch.tensors import State

_LEVELS = 17
_CLASSES = 10
_TRAIN = 1297


def digits() -> DataSet:
    """Handwritten digits, 8 x 8 pixels with 17 grey levels, as vectors, as tokens and as vectors of levels."""
    levels, labels = _load()
    pixels, tokens = _pixels(levels), levels.flatten(1)
    vector_view = View("vectors", Euclidean((1, 8, 8)), pixels[:_TRAIN], pixels[_TRAIN:], _from_pixels)
    token_view = View("tokens", Categorical((64,), _LEVELS), tokens[:_TRAIN], tokens[_TRAIN:], _from_tokens)
    levels_view = View("levels", Grid((1, 8, 8), torch.linspace(-1, 1, _LEVELS)), pixels[:_TRAIN], pixels[_TRAIN:], _from_pixels)
    return DataSet("digits", (vector_view, token_view, levels_view), _draw, (labels[:_TRAIN], labels[_TRAIN:]))


def digits_with_labels() -> DataSet:
    """Handwritten digits with their labels as a text of one token: two modalities that agree."""
    levels, labels = _load()
    states = {"image": _pixels(levels), "label": labels.unsqueeze(-1)}
    train, test = ({name: part[rows] for name, part in states.items()} for rows in (slice(_TRAIN), slice(_TRAIN, None)))
    space = ProductSpace(image=Euclidean((1, 8, 8)), label=Categorical((1,), _CLASSES))
    agreement = Figure("agreement", "label agrees", "share of samples whose label is what the classifier sees in their image", "{:.1%}", _agreement)
    return DataSet(
        "digits+label",
        (View("image and label", space, train, test, _from_pair),),
        _draw_with_labels,
        (labels[:_TRAIN], labels[_TRAIN:]),
        classified=lambda points: _split(points)[0],
        figures=(agreement,),
    )


def _load() -> tuple[Tensor, Tensor]:
    """Grey levels 0 to 16, (1797, 8, 8), and labels 0 to 9, in an order of which the first part is for training."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise GenmatchError("the digits come with scikit-learn, which is not installed; run `pip install genmatch[data]`.") from None
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(raw.images).long()[order], torch.from_numpy(raw.target).long()[order]


def _pixels(levels: Tensor) -> Tensor:
    return (levels.unsqueeze(1) / ((_LEVELS - 1) / 2) - 1).float()


def _from_pixels(x: Tensor) -> Tensor:
    """Rounds to the nearest grey level, as an image file would; points are images in [0, 1], (B, 1, 8, 8)."""
    levels = ((x + 1) * (_LEVELS - 1) / 2).round().clamp(0, _LEVELS - 1)
    return levels / (_LEVELS - 1)


def _from_tokens(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, 8, 8).float() / (_LEVELS - 1)


def _from_pair(x: State) -> Tensor:
    """Points are the pixels of an image and its label as one of ten, in a row, (B, 74)."""
    one_hot = torch.nn.functional.one_hot(x["label"].squeeze(-1), _CLASSES)
    return torch.cat([_from_pixels(x["image"]).flatten(1), one_hot], -1)


def _split(points: Tensor) -> tuple[Tensor, Tensor]:
    """Images, (B, 1, 8, 8), and labels, (B,), of points."""
    return points[:, :-_CLASSES].reshape(-1, 1, 8, 8), points[:, -_CLASSES:].argmax(-1)


def _agreement(points: Tensor, probabilities: Tensor | None) -> float:
    if probabilities is None:
        raise GenmatchError("whether labels agree is measured by a classifier, and there is none; give the data set labels.")
    return float((probabilities.argmax(-1) == _split(points)[1]).double().mean())


def _draw_with_labels(axes: Any, points: Tensor) -> None:
    """The grid of images, each with its label to the left."""
    images, labels = _split(points)
    _draw(axes, images, left=6)
    columns = _columns(images)
    known = ~points[:, -_CLASSES:].isnan().any(-1)
    for i, (label, told) in enumerate(zip(labels.tolist(), known.tolist(), strict=True)):
        axes.text(15 * (i % columns) + 3, 10 * (i // columns) + 5, str(label) if told else "·", fontsize=6, color="#D55E00", ha="center", va="center")


def _draw(axes: Any, images: Tensor, left: int = 1) -> None:
    """A grid of images, as square as it gets, with `left` white pixels before each; what is not known yet is blue."""
    columns = _columns(images)
    rows, width = -(-len(images) // columns), left + 9
    padded = torch.ones(rows * columns, 10, width)
    padded[: len(images), 1:9, left : left + 8] = 1 - images[:, 0].cpu()
    sheet = padded.reshape(rows, columns, 10, width).transpose(1, 2).reshape(rows * 10, columns * width)
    axes.set_facecolor("#9ec5e8")
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _columns(images: Tensor) -> int:
    return max(1, round(len(images) ** 0.5))
