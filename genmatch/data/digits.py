"""Handwritten digits: 1,797 images of 8 x 8 pixels with 17 grey levels, real and small enough for a CPU.

Source: "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak, 1998), UCI, https://doi.org/10.24432/C50P49, as
scikit-learn ships it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmatch.data.dataset import DataSet, View
from genmatch.errors import GenmatchError
from genmatch.spaces import Categorical, Euclidean, Grid

_LEVELS = 17
_TRAIN = 1297


def digits() -> DataSet:
    """Handwritten digits, 8 x 8 pixels with 17 grey levels, as vectors, as tokens and as vectors of levels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise GenmatchError("the digits come with scikit-learn, which is not installed; run `pip install genmatch[data]`.") from None
    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    levels = torch.from_numpy(raw.images).long()[order]
    labels = torch.from_numpy(raw.target).long()[order]

    pixels = (levels.unsqueeze(1) / ((_LEVELS - 1) / 2) - 1).float()
    tokens = levels.flatten(1)
    vector_view = View("vectors", Euclidean((1, 8, 8)), pixels[:_TRAIN], pixels[_TRAIN:], _from_pixels)
    token_view = View("tokens", Categorical((64,), _LEVELS), tokens[:_TRAIN], tokens[_TRAIN:], _from_tokens)
    levels_view = View("levels", Grid((1, 8, 8), torch.linspace(-1, 1, _LEVELS)), pixels[:_TRAIN], pixels[_TRAIN:], _from_pixels)
    return DataSet("digits", (vector_view, token_view, levels_view), _draw, (labels[:_TRAIN], labels[_TRAIN:]))


def _from_pixels(x: Tensor) -> Tensor:
    """Rounds to the nearest grey level, as an image file would; points are images in [0, 1], (B, 1, 8, 8)."""
    levels = ((x + 1) * (_LEVELS - 1) / 2).round().clamp(0, _LEVELS - 1)
    return levels / (_LEVELS - 1)


def _from_tokens(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, 8, 8).float() / (_LEVELS - 1)


def _draw(axes: Any, points: Tensor) -> None:
    """A grid of images, as square as it gets."""
    columns = max(1, round(len(points) ** 0.5))
    rows = -(-len(points) // columns)
    padded = torch.ones(rows * columns, 10, 10)
    padded[: len(points), 1:9, 1:9] = 1 - points[:, 0].cpu()
    sheet = padded.reshape(rows, columns, 10, 10).transpose(1, 2).reshape(rows * 10, columns * 10)
    axes.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
