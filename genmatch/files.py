"""Writing files so that a killed run leaves either the old file or the new one, never half of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genmatch.errors import GenmatchError

NOT_UTF8 = "if it is text in another encoding, convert it, e.g. with `iconv -f latin1 -t utf-8`"
"""What a message says of a text that cannot be decoded."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a neighbouring file, then puts it in the place of `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def writing_to(folder: Path, what: str) -> Iterator[None]:
    """For the time of a block, errors of the file system say what cannot be written where.

    Raises:
        GenmatchError: in the place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise GenmatchError(f"{what} cannot be written to `{folder}` ({error}); choose a folder that can be written to.") from error


def make_folder(path: Path, what: str) -> None:
    """Makes the folder of results, and those above it, where they are not there.

    Raises:
        GenmatchError: if it cannot be made.
    """
    with writing_to(path, what):
        path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    write_atomically(path, lambda part: part.write_bytes(content))


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Writes named tensors as safetensors, atomically."""
    from safetensors.torch import save

    write_bytes(path, save({name: value.contiguous() for name, value in tensors.items()}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a readable JSON file atomically."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that this package wrote.

    Raises:
        GenmatchError: if it is not one.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise GenmatchError(f"`{path}` cannot be read as JSON ({error}); delete it to make it again.") from error
    if not isinstance(value, dict):
        raise GenmatchError(f"`{path}` must hold a JSON object, got {type(value).__name__}; delete it to make it again.")
    return value
