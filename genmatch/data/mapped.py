r"""Numbers in a file, looked at through memory mapping: rows come from the disk when they are asked for.

    values.bin      little-endian numbers, row after row
    manifest.json   what they are, their SHA-256, and when the file was last changed

Pages that were read are given back, so that a pass over a file of any size holds a bounded part of it.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmatch.errors import GenmatchError
from genmatch.fetching import Fetched
from genmatch.files import read_json
from genmatch.tensors import State

FORMAT, VALUES, MANIFEST = 1, "values.bin", "manifest.json"
DTYPES = ("uint8", "uint16", "uint32")
_READ = 2**22
_HELD = 32
"""Rows that are read before their pages are given back: a system may map up to 2 MiB around each."""


class Mapped(Fetched):
    """Rows of a file of numbers.

    Args:
        path: the file.
        dtype: of the numbers, one of `DTYPES`.
        shape: of a row.
        start, stop: the rows that are meant.
        state: makes states, (B, ...), of numbers, (B, *shape).
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...], start: int, stop: int, state: Callable[[Tensor], State]) -> None:
        self.start, self.stop, self.state = start, stop, state
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = math.prod(shape)
        values = np.frombuffer(self._map, np.dtype(dtype).newbyteorder("<"))
        self._rows = values[: len(values) // size * size].reshape(-1, *shape)

    def __len__(self) -> int:
        return self.stop - self.start

    def take(self, index: Tensor) -> State:
        where = index.numpy()
        if len(where) and not 0 <= where.min() <= where.max() < len(self):
            raise IndexError(f"rows must be from 0 to {len(self) - 1}, got {where.min()} to {where.max()}")
        found = np.empty((len(where), *self._rows.shape[1:]), dtype=np.int64)  # torch knows no arithmetic of uint16 and uint32
        for first in range(0, len(where), _HELD):
            found[first : first + _HELD] = self._rows[where[first : first + _HELD] + self.start]
            if hasattr(self._map, "madvise"):  # not on every system
                self._map.madvise(mmap.MADV_DONTNEED)
        return self.state(torch.from_numpy(found))


def digest(path: Path) -> str:
    """The SHA-256 of a file, read a piece at a time.

    Raises:
        GenmatchError: if it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(_READ):
                found.update(piece)
    except OSError as error:
        raise GenmatchError(f"`{path}` cannot be read ({error}); prepare the data again.") from error
    return found.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder that `genmatch prepare` made holds.

    Raises:
        GenmatchError: if it is no such folder.
    """
    if not (folder / MANIFEST).is_file():
        raise GenmatchError(f"`{folder}` holds no prepared data (no {MANIFEST}); make some with `genmatch prepare SOURCE --out {folder}`.")
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise GenmatchError(f"`{folder / MANIFEST}` has format {manifest.get('format')!r}, and this version reads {FORMAT}; prepare the data again.")
    counts = [manifest.get(name) for name in ("bytes", "rows", "levels", "mtime_ns")]
    shape: Any = manifest.get("shape")
    right = all(type(n) is int and n > 0 for n in counts) and isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not right or manifest.get("dtype") not in DTYPES or manifest.get("kind") not in ("text", "images"):
        raise GenmatchError(f"`{folder / MANIFEST}` is damaged: it lacks what describes the data; prepare them again.")
    if manifest["bytes"] != manifest["rows"] * math.prod(shape) * np.dtype(manifest["dtype"]).itemsize:
        raise GenmatchError(f"`{folder / MANIFEST}` is damaged: {manifest['bytes']} bytes are not {manifest['rows']} rows; prepare the data again.")
    return manifest


def verify(folder: Path, *, whole: bool = True) -> dict[str, Any]:
    """Checks the numbers of a folder against its manifest, which is returned.

    Args:
        folder: what `genmatch prepare` made.
        whole: reads all of it; else only if its size is right and its time of change is not what it was.

    Raises:
        GenmatchError: if they are not those that were prepared.
    """
    manifest = read_manifest(folder)
    path = folder / VALUES
    try:
        found = path.stat()
    except OSError as error:
        raise GenmatchError(f"`{path}` cannot be read ({error}); prepare the data again.") from error
    if found.st_size != manifest["bytes"]:
        raise GenmatchError(f"`{path}` is damaged: it has {found.st_size} bytes, and the manifest says {manifest['bytes']}; prepare the data again.")
    if (whole or found.st_mtime_ns != manifest["mtime_ns"]) and digest(path) != manifest.get("sha256"):
        raise GenmatchError(f"`{path}` is damaged or was changed: its SHA-256 is not that of the manifest; prepare the data again.")
    return manifest
