"""Toy data sets drawn from laws with exact answers, as vectors and as tokens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genmatch.data.dataset import DataSet, View
from genmatch.data.laws import Checkerboard, GaussianMixture, MarkovChain
from genmatch.spaces import Categorical, Euclidean, Grid

_TRAIN, _TEST = 8000, 2000
_BINS = 48
_SIDE = 2.0


def checkerboard() -> DataSet:
    """A checkerboard in the plane, as vectors, and as two tokens or levels of 48 bins."""
    points = Checkerboard(side=_SIDE).sample(_TRAIN + _TEST, rng=torch.Generator().manual_seed(0))
    return _plane("checkerboard", points)


def gaussians() -> DataSet:
    """Eight Gaussians on a circle, as vectors, and as two tokens or levels of 48 bins."""
    angles = torch.arange(8) * (2 * math.pi / 8)
    law = GaussianMixture(1.5 * torch.stack([angles.cos(), angles.sin()], -1), torch.full((8,), 0.1))
    points = law.sample(_TRAIN + _TEST, rng=torch.Generator().manual_seed(0))
    return _plane("gaussians", points.clamp(-_SIDE, _SIDE * (1 - 1e-6)))


def chain() -> DataSet:
    """A Markov chain of 12 tokens out of 4 that likes to stay where it is."""
    stay = 0.7
    transition = torch.full((4, 4), (1 - stay) / 3).fill_diagonal_(stay)
    tokens = MarkovChain(transition, 12).sample(_TRAIN + _TEST, rng=torch.Generator().manual_seed(0))
    view = View("tokens", Categorical((12,), 4), tokens[:_TRAIN], tokens[_TRAIN:], _one_hot)
    return DataSet("chain", (view,), _draw_tokens)


def _plane(name: str, points: Tensor) -> DataSet:
    """Points of the plane, and the bins that they fall into; a bin decodes to its centre."""
    bins = ((points + _SIDE) * (_BINS / (2 * _SIDE))).long().clamp(0, _BINS - 1)
    vectors = View("vectors", Euclidean((2,)), points[:_TRAIN], points[_TRAIN:], lambda x: x)
    tokens = View("tokens", Categorical((2,), _BINS), bins[:_TRAIN], bins[_TRAIN:], lambda x: (x + 0.5) * (2 * _SIDE / _BINS) - _SIDE)
    levels = View("levels", Grid((2,), tokens.decode(torch.arange(_BINS))), tokens.decode(tokens.train), tokens.decode(tokens.test), lambda x: x)
    return DataSet(name, (vectors, tokens, levels), _draw_plane)


def _one_hot(x: Tensor) -> Tensor:
    """A row of four for each token, (B, 48); a masked one, on the way to the data, is none of them."""
    return torch.nn.functional.one_hot(x, 5)[..., :4].flatten(1).float()


def _draw_plane(axes: Any, points: Tensor) -> None:
    axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=2, alpha=0.5, linewidths=0)
    axes.set(xlim=(-_SIDE * 1.1, _SIDE * 1.1), ylim=(-_SIDE * 1.1, _SIDE * 1.1), xticks=[], yticks=[], aspect="equal")


def _draw_tokens(axes: Any, points: Tensor) -> None:
    each = points.reshape(len(points), -1, 4)
    tokens = each.argmax(-1).double().masked_fill(each.isnan().any(-1), torch.nan)
    axes.imshow(tokens.numpy(), cmap="viridis", vmin=0, vmax=3, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
