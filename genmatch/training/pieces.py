r"""Tensors of which several files hold pieces, as torch.distributed.checkpoint writes them in safetensors.

    whole[o_1 : o_1 + n_1, o_2 : o_2 + n_2, ...]  =  piece of shape (n_1, n_2, ...) at the offsets (o_1, o_2, ...)

Each file says in its header, as JSON, at which offsets its pieces lie. Pieces that overlap, or leave a hole, are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_KEY, _OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"
_HEADER = 8
"""Bytes that hold the length of the header."""

Piece = tuple[Tensor, tuple[int, ...]]
"""A part of a tensor, and where it begins in each dimension."""


def offsets(content: bytes) -> dict[str, tuple[int, ...]]:
    """Where the pieces of a safetensors file begin, by the name of the tensor.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: if the header is not that of such a file.
    """
    length = int.from_bytes(content[:_HEADER], "little")
    header: dict[str, Any] = json.loads(content[_HEADER : _HEADER + length])
    stated = json.loads(header["__metadata__"][_KEY])
    found = {name: tuple(entry[_OFFSETS]) for name, entry in stated.items()}
    if not all(type(place) is int and place >= 0 for places in found.values() for place in places):
        raise ValueError("offsets must be integers of at least 0")
    return found


def join(files: Iterable[Mapping[str, Piece]]) -> dict[str, Tensor]:
    """The tensors whose pieces are in the files.

    Raises:
        ValueError: if the pieces of a tensor do not make a whole.

    Example:
        >>> join([{"x": (torch.zeros(2), (0,))}, {"x": (torch.ones(1), (2,))}])
        {'x': tensor([0., 0., 1.])}
    """
    pieces: dict[str, list[Piece]] = {}
    for file in files:
        for name, piece in file.items():
            pieces.setdefault(name, []).append(piece)
    return {name: _joined(name, found) for name, found in pieces.items()}


def _joined(name: str, pieces: list[Piece]) -> Tensor:
    first = pieces[0][0]
    if any(piece.dtype != first.dtype or piece.dim() != first.dim() or len(places) != first.dim() for piece, places in pieces):
        raise ValueError(f"the pieces of {name} are not of one tensor")
    ends = [[place + n for place, n in zip(places, piece.shape, strict=True)] for piece, places in pieces]
    shape = [max(column) for column in zip(*ends, strict=True)]
    # Before memory is taken: a forged offset would ask for any amount of it.
    if math.prod(shape) != sum(piece.numel() for piece, _ in pieces):
        raise ValueError(f"the pieces of {name} do not make a whole")
    whole, filled = torch.empty(shape, dtype=first.dtype), torch.zeros(shape, dtype=torch.bool)
    for piece, places in pieces:
        where = tuple(slice(place, place + n) for place, n in zip(places, piece.shape, strict=True))
        whole[where], filled[where] = piece, True
    if not bool(filled.all()):
        raise ValueError(f"the pieces of {name} overlap")
    return whole
